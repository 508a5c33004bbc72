"""A configuration file to a `Config`, or all of its mistakes at once."""

import difflib
import typing
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from arrayd.config import values
from arrayd.config.document import REFUSED, Tree, UnreadableError, read_tree
from arrayd.config.mistakes import MISSING, ConfigError, KeyPath, Mistake
from arrayd.config.schema import EXPECTED, ChapConfig, Config, Section


def load(path: Path) -> Config:
    """Reads the file, and the secrets' files it names. Raises ConfigError with every mistake in it.

    Reads from disk: on a running event loop call it in a thread.
    """
    try:
        tree, mistakes = read_tree(path)
    except UnreadableError as error:
        raise ConfigError.of(path, [error.mistake]) from None
    mistakes += _broken_references(tree)
    config = None
    try:
        config = Config.model_validate(tree, context={"base": path.absolute().parent})
    except ValidationError as error:
        errors = error.errors()
        mistakes += [
            _mistake(each) for each in errors if not _refused_already(tree, each) and not _follows(each, errors)
        ]
    if config is not None:
        mistakes += _shared_values(config)
    if config is None or mistakes:
        raise ConfigError.of(path, mistakes)
    return config


def _refused_already(tree: Tree, details: ErrorDetails) -> bool:
    """Whether the walk over the YAML has complained about this value."""
    for part in details["loc"]:
        if isinstance(tree, dict) and isinstance(part, str):
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int):
            tree = tree[part]
    return tree is REFUSED or details["input"] is REFUSED


def _follows(details: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """Whether a list is too short only because what is in it is wrong."""
    own = details["loc"]
    return details["type"] == "too_short" and any(each["loc"][: len(own)] == own for each in errors if each != details)


def _mistake(details: ErrorDetails) -> Mistake:
    path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    value = details["input"]
    context = details.get("ctx", {})
    section, field = _schema_at(path)
    if details["type"] == EXPECTED:
        key = context["key"]
        if key is not None:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
            path = (*path, key)
        return Mistake(path, value, context[EXPECTED])
    if details["type"] == "missing":
        value = MISSING
    if details["type"] == "extra_forbidden":
        return Mistake(path, value, _known_keys(section, str(path[-1])))
    description = field.description if field is not None and field.description else "a mapping"
    if details["type"] == "too_long":
        description += f", at most {context['max_length']}"
    if details["type"] == "too_short":
        description += f", at least {context['min_length']}"
    return Mistake(path, value, description)


def _schema_at(path: KeyPath) -> tuple[type[BaseModel], FieldInfo | None]:
    """The innermost section around this path, and the field of it the path leads to."""
    section: type[BaseModel] = Config
    field: FieldInfo | None = None
    for part in path:
        if field is not None and (inner := _section_in(field.annotation)) is not None:
            if isinstance(part, str) and _is_mapping(field.annotation):
                section, field = inner, None
                continue
            section = inner
            if isinstance(part, int):
                field = None
                continue
        field = section.model_fields.get(part) if isinstance(part, str) else field
    return section, field


def _section_in(annotation: object) -> type[Section] | None:
    """The section class inside `X | None`, `tuple[X, ...]`, `dict[K, X]`."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
    found = (_section_in(argument) for argument in arguments)
    return next((section for section in found if section is not None), None)


def _is_mapping(annotation: object) -> bool:
    return typing.get_origin(annotation) is dict


def _known_keys(section: type[BaseModel], key: str) -> str:
    known = list(section.model_fields)
    near = difflib.get_close_matches(key[:64], known, n=1)
    return f"a known key; did you mean {near[0]}?" if near else f"one of the keys {', '.join(known)}"


def _broken_references(tree: Tree) -> list[Mistake]:
    """LUNs without their volume, volumes at two LUNs, masks of LUNs that are not there.

    Read from the tree, so that they are reported beside mistakes elsewhere in the file.
    """
    if not isinstance(tree, dict):
        return []
    volumes, luns = tree.get("volumes", {}), tree.get("luns", {})
    mistakes: list[Mistake] = []
    if isinstance(luns, dict):
        known = list(volumes) if isinstance(volumes, dict) else []
        used: dict[str, str] = {}
        for lun, entry in luns.items():
            name = entry.get("volume") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                continue
            if name not in known:
                near = difflib.get_close_matches(name[:64], known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                mistakes.append(Mistake(("luns", lun, "volume"), name, f"the name of a volume under volumes{hint}"))
            elif name in used:
                expected = f"a volume of its own: LUN {used[name]} has this one"
                mistakes.append(Mistake(("luns", lun, "volume"), name, expected))
            used.setdefault(name, lun)
        mistakes += _broken_masks(tree, set(luns))
        mistakes += _broken_mappings(tree, luns)
    return mistakes


def _broken_mappings(tree: dict[str, Tree], luns: dict[str, Tree]) -> list[Mistake]:
    """Virtual volumes of arrays that this one is not linked with."""
    link = tree.get("link")
    arrays = link.get("arrays") if isinstance(link, dict) else None
    known = list(arrays) if isinstance(arrays, dict) else []
    mistakes = []
    for lun, entry in luns.items():
        virtual = entry.get("virtual") if isinstance(entry, dict) else None
        name = virtual.get("array") if isinstance(virtual, dict) else None
        if isinstance(name, str) and name not in known:
            near = difflib.get_close_matches(name[:64], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            where = ("luns", lun, "virtual", "array")
            mistakes.append(Mistake(where, name, f"the name of an array under link.arrays{hint}"))
    return mistakes


def _broken_masks(tree: dict[str, Tree], luns: set[str]) -> list[Mistake]:
    mistakes: list[Mistake] = []
    iscsi = tree.get("iscsi")
    initiators = iscsi.get("initiators") if isinstance(iscsi, dict) else None
    for index, initiator in enumerate(initiators if isinstance(initiators, list) else []):
        mask = initiator.get("luns") if isinstance(initiator, dict) else None
        for position, lun in enumerate(mask if isinstance(mask, list) else []):
            if _is_lun(lun) and str(lun) not in luns:
                where = ("iscsi", "initiators", index, "luns", position)
                mistakes.append(Mistake(where, lun, "a LUN under luns"))
    return mistakes


def _is_lun(value: object) -> bool:
    try:
        values.lun(value)
    except ValueError:
        return False
    return True


def _shared_values(config: Config) -> list[Mistake]:
    """Values that have to differ from one another and do not."""
    mistakes: list[Mistake] = []
    files: dict[Path, str] = {}
    for name, volume in config.volumes.items():
        if volume.path is not None:
            other = files.setdefault(volume.path, name)
            if other != name:
                expected = f"a file of its own: volume {other} has this one"
                mistakes.append(Mistake(("volumes", name, "path"), volume.path, expected))
    for key, addresses in (("listen", config.iscsi.listen), ("advertise", config.iscsi.advertise)):
        for index, address in enumerate(addresses):
            if address in addresses[:index] and address.port:
                mistakes.append(Mistake(("iscsi", key, index), str(address), "each address once"))
    names = [initiator.name for initiator in config.iscsi.initiators or ()]
    for index, name in enumerate(names):
        if name in names[:index]:
            mistakes.append(Mistake(("iscsi", "initiators", index, "name"), name, "each initiator once"))
    return mistakes + _shared_secrets(config)


def _shared_secrets(config: Config) -> list[Mistake]:
    """RFC 7143, 12.1.3: one secret does not serve both directions, or an initiator could answer with our own answer."""
    sections: list[tuple[KeyPath, ChapConfig | None, ChapConfig | None]] = [
        (("iscsi", "initiators", index), initiator.chap, initiator.mutual_chap)
        for index, initiator in enumerate(config.iscsi.initiators or ())
    ]
    if config.iscsi.discovery_chap is not None:
        discovery = config.iscsi.discovery_chap
        sections.append((("iscsi", "discovery_chap"), discovery.chap, discovery.mutual_chap))
    theirs = {chap.secret_file for _, chap, _ in sections if chap is not None}
    return [
        Mistake(
            (*path, "mutual_chap", "secret_file"),
            mutual.secret_file.file,
            "a secret that no initiator has: the two directions of CHAP never share one",
        )
        for path, _, mutual in sections
        if mutual is not None and mutual.secret_file in theirs
    ]
