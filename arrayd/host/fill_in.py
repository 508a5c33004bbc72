"""Fills LUNs in in the file of a path table, where it lies, without touching anything else in it: comments stay."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from arrayd.commands.results import Result
from arrayd.config.mistakes import ConfigError
from arrayd.host.failure import CommandFailed
from arrayd.host.paths import PathTable


def fill_in(file: Path, luns: Mapping[str, int]) -> None:
    """Writes `lun: N` into the row of each array, which has none. Raises CommandFailed; then the file is as it was."""
    text = file.read_text(encoding="utf-8")
    changed = filled(text, luns)
    folder = file.resolve().parent
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, delete=False) as new:
            new.write(changed)
        try:
            os.chmod(new.name, file.stat().st_mode & 0o7777)
            PathTable.read(Path(new.name))
            os.replace(new.name, file.resolve())
        except BaseException:
            os.unlink(new.name)
            raise
    except (OSError, ConfigError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandFailed(Result.USAGE, f"{file}: it could not be filled in: {reason}") from None


def filled(text: str, luns: Mapping[str, int]) -> str:
    """The text of a path table with these LUNs: behind the last key of a row's mapping, as that mapping is written."""
    insertions: list[tuple[int, str]] = []
    for name, row in _rows(yaml.compose(text, yaml.SafeLoader)):
        if name not in luns:
            continue
        key, value = row.value[-1]
        entry = f"lun: {luns[name]}"
        if row.flow_style:
            insertions.append((value.end_mark.index, f", {entry}"))
        else:
            end = text.find("\n", value.end_mark.index)
            indent = " " * key.start_mark.column
            at = len(text) if end < 0 else end
            insertions.append((at, f"\n{indent}{entry}"))
    for at, entry in sorted(insertions, reverse=True):
        text = text[:at] + entry + text[at:]
    return text


def _rows(root: yaml.Node | None) -> list[tuple[str, yaml.MappingNode]]:
    """The rows under `paths`, of a file that was read as a path table before."""
    paths = next((value for key, value in _pairs(root) if key.value == "paths"), None)
    return [(key.value, value) for key, value in _pairs(paths) if isinstance(value, yaml.MappingNode)]


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return list(node.value) if isinstance(node, yaml.MappingNode) else []
