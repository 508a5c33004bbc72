"""The door to the tables: real SQLite, on which a commit fails, or is the last thing that a life did.

A commit that has returned is durable, through a power loss too; one that was cut short has not happened, or has
happened as a whole and nobody heard of it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any

from tests.simulation.doors import Life, living


class TableDoors:
    """Stands for `os` and `sqlite3` in `arrayd/tables/database.py`. `failing_commits` says by machine how many of the
    next commits fail."""

    Error = sqlite3.Error

    def __init__(self) -> None:
        self.failing_commits: dict[str, int] = {}
        self._connections: dict[Life, list[sqlite3.Connection]] = {}
        self._descriptors: dict[int, Life] = {}

    def connect(self, path: object, **options: Any) -> sqlite3.Connection:
        """sqlite3.connect."""
        life = living()
        life.before("tables", "open")
        connection = sqlite3.connect(str(path), factory=SimConnection, **options)
        assert isinstance(connection, SimConnection)
        connection.life, connection.doors = life, self
        self._connections.setdefault(life, []).append(connection)
        return connection

    # -- os ----------------------------------------------------------------------------------------------------------

    O_RDWR, O_CREAT, O_RDONLY, O_DIRECTORY = os.O_RDWR, os.O_CREAT, os.O_RDONLY, os.O_DIRECTORY

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """os.open: the lock, or the folder."""
        life = living()
        descriptor = os.open(path, flags, mode)
        self._descriptors[descriptor] = life
        return descriptor

    def close(self, descriptor: int) -> None:
        """os.close, unless it was closed with its life."""
        life = self._descriptors.get(descriptor)
        if life is not None and life.alive:
            del self._descriptors[descriptor]
            os.close(descriptor)

    def fsync(self, _descriptor: int) -> None:
        """os.fsync, of the folder."""
        living().before("tables", "fsync")

    def forget(self, life: Life) -> None:
        """A life has ended: what it had open is closed, and what it had not committed undone."""
        for connection in self._connections.pop(life, ()):
            with suppress(sqlite3.Error):
                connection.close()
        for descriptor in [each for each, owner in self._descriptors.items() if owner is life]:
            del self._descriptors[descriptor]
            os.close(descriptor)


class SimConnection(sqlite3.Connection):
    """A connection that is a door: each commit is a moment to die, or to fail."""

    life: Life
    doors: TableDoors

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """See sqlite3."""
        if sql != "COMMIT":
            return super().execute(sql, *parameters)
        self.life.before("commit")
        failing = self.doors.failing_commits
        if failing.get(self.life.name):
            failing[self.life.name] -= 1
            raise sqlite3.OperationalError("disk I/O error")
        cursor = super().execute(sql, *parameters)
        self.life.after("commit")
        return cursor


def stand_ins(doors: TableDoors) -> dict[str, object]:
    """What takes the place of what, by dotted name."""
    return {"arrayd.tables.database.os": doors, "arrayd.tables.database.sqlite3": doors}
