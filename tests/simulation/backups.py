"""Backups of an array's tables, which an operator puts back while the array is down: it starts with old tables then.

An array has nothing beside its tables that tells how old they are. What it keeps elsewhere, journals and bitmaps, makes
up for older ones as long as the group is in the same stage, of the same generation and epoch: positions and statuses
may be older, and commands are forgotten. Tables from before another stage of the group are promised nothing, and are
not put back here: see the README.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from arrayd.replication.choosing import KINDS
from arrayd.replication.group_rows import GroupRow, groups_of
from arrayd.tables.pairs import read_pairs
from arrayd.tables.schema import MIGRATIONS
from tests.simulation.executions import Executions, Known
from tests.simulation.world import Machine

NAME = "tables.db"
SIDECARS = ("", "-wal", "-shm")

Files = Mapping[str, bytes]
"""What the tables and their sidecars hold, by the end of their names."""


class Backup:
    """The tables of an array as they are now: every commit is whole in them. `executions` is told what it knows."""

    def __init__(self, machine: Machine, executions: Executions) -> None:
        self._machine = machine
        self._executions = executions
        self._files = _read(machine.folder)
        self._known: Known = executions.known(machine.name)

    def fits(self) -> bool:
        """Whether the array, which is down, can make up for what has changed since."""
        old, now = _pairs(self._files), _pairs(_read(self._machine.folder))
        if old[0] != now[0] or len(old[1]) != len(now[1]):
            return False
        return all(_makes_up(then, group) for then, group in zip(old[1], now[1], strict=True))

    def put_back(self) -> None:
        """The array has no other tables any more."""
        for end in SIDECARS:
            (self._machine.folder / f"{NAME}{end}").unlink(missing_ok=True)
        _write(self._files, self._machine.folder)
        self._executions.forget(self._machine.name, self._known)


def _makes_up(old: GroupRow, now: GroupRow) -> bool:
    same = (old.id, old.generation, old.epoch, KINDS.of(old)) == (now.id, now.generation, now.epoch, KINDS.of(now))
    unsynced = [[pair.unsynced for pair in row.pairs] for row in (old, now)]
    # P-VOLs hear once that their S-VOLs are whole, and would not know that they are themselves once they are swapped.
    return same and unsynced[0] == unsynced[1] and old.consistent is now.consistent


def _pairs(files: Files) -> tuple[int, list[GroupRow]]:
    """The last epoch, and the groups."""
    with tempfile.TemporaryDirectory() as folder:
        _write(files, Path(folder))
        with closing(sqlite3.connect(f"{folder}/{NAME}")) as connection:
            stored = read_pairs(connection, len(MIGRATIONS))
    return int(stored.last_epoch, 16), groups_of(stored)


def _read(folder: Path) -> Files:
    # Not the index of the log (-shm): it is made anew.
    files = {end: folder / f"{NAME}{end}" for end in SIDECARS[:2]}
    return {end: file.read_bytes() for end, file in files.items() if file.exists()}


def _write(files: Files, folder: Path) -> None:
    for end, data in files.items():
        (folder / f"{NAME}{end}").write_bytes(data)
