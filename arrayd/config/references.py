"""Names in the configuration that lead from one section to another, and what each of them must name.

They are read from the tree, so that a name that leads nowhere is told beside mistakes elsewhere in the file. What was
made by command is not known here: see `arrayd.estate.conflicts`.
"""

import difflib
from collections.abc import Iterable

from arrayd.config import values
from arrayd.config.document import Tree
from arrayd.config.mistakes import Mistake

Mapping = dict[str, Tree]


def broken_references(tree: Tree) -> list[Mistake]:
    """LUNs without their volume, volumes at two LUNs, LUNs of arrays that are not linked, and their like."""
    if not isinstance(tree, dict):
        return []
    luns = tree.get("luns", {})
    mistakes: list[Mistake] = []
    if isinstance(luns, dict):
        mistakes += _broken_volumes(_section(tree, "volumes"), luns)
        mistakes += _broken_mappings(_section(_section(tree, "link"), "arrays"), luns)
        mistakes += _broken_devices(_section(_section(tree, "commands"), "devices"), luns)
    return mistakes


def _section(tree: Mapping, key: str) -> Mapping:
    """The mapping under this key; an empty one when there is none."""
    found = tree.get(key)
    return found if isinstance(found, dict) else {}


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:64], list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _broken_volumes(volumes: Mapping, luns: Mapping) -> list[Mistake]:
    mistakes: list[Mistake] = []
    used: dict[str, str] = {}
    for lun, entry in luns.items():
        name = entry.get("volume") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            continue
        where = ("luns", lun, "volume")
        if name not in volumes:
            mistakes.append(Mistake(where, name, f"the name of a volume under volumes{_hint(name, volumes)}"))
        elif name in used:
            mistakes.append(Mistake(where, name, f"a volume of its own: LUN {used[name]} has this one"))
        used.setdefault(name, lun)
    return mistakes


def _broken_mappings(arrays: Mapping, luns: Mapping) -> list[Mistake]:
    """Virtual volumes of arrays that this one is not linked with."""
    mistakes = []
    for lun, entry in luns.items():
        name = _section(entry, "virtual").get("array") if isinstance(entry, dict) else None
        if isinstance(name, str) and name not in arrays:
            where = ("luns", lun, "virtual", "array")
            mistakes.append(Mistake(where, name, f"the name of an array under link.arrays{_hint(name, arrays)}"))
    return mistakes


def _broken_devices(devices: Mapping, luns: Mapping) -> list[Mistake]:
    """Command devices of other arrays behind LUNs that are no virtual volumes."""
    mistakes: list[Mistake] = []
    used: dict[str, str] = {}
    for array, lun in devices.items():
        if not _is_lun(lun):
            continue
        where = ("commands", "devices", array)
        entry = luns.get(str(lun))
        if not isinstance(entry, dict) or "virtual" not in entry:
            mistakes.append(Mistake(where, lun, "a LUN under luns that is virtual"))
        elif str(lun) in used:
            mistakes.append(Mistake(where, lun, f"a LUN of its own: {used[str(lun)]} has this one"))
        used.setdefault(str(lun), array)
    return mistakes


def _is_lun(value: object) -> bool:
    try:
        values.lun(value)
    except ValueError:
        return False
    return True
