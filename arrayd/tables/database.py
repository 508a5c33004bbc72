"""The database that keeps the tables: who may open it, and how a change is made durable.

Statements run in an executor, so that the loop never waits for the disk; a change is committed, and synced, before its
awaitable is done.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

from arrayd.tables.changes import Changes, Result, TablesError
from arrayd.tables.commands import CommandTable
from arrayd.tables.estate import read_rows
from arrayd.tables.events import EventTable
from arrayd.tables.monitors import MonitorTable
from arrayd.tables.pairs import read_pairs
from arrayd.tables.reservations import ReservationTable
from arrayd.tables.schema import MIGRATIONS


class Tables:
    """The tables of one array: `state_dir/tables.db`, for one daemon at a time (`state_dir/lock`)."""

    def __init__(self, connection: sqlite3.Connection, lock: int, executor: Executor) -> None:
        self._connection = connection
        self._lock = lock
        self._executor = executor
        self._changes = Changes(connection, executor)
        self.reservations = ReservationTable(self.change, connection)
        self.commands = CommandTable(self.change, connection)
        self.events = EventTable(self.change, connection)
        self.monitors = MonitorTable(connection)
        self.estate = read_rows(connection)
        """As they were when the tables were opened."""
        self.pairs = read_pairs(connection, len(MIGRATIONS))
        """Likewise."""

    @classmethod
    async def open(cls, state_dir: Path, serial: str, executor: Executor) -> Tables:
        """Opens, or makes, the tables of the array `serial` in `state_dir`, which exists. Raises TablesError."""

        path = state_dir / "tables.db"

        def opening() -> Tables:
            with ExitStack() as opened:
                lock = _lock_directory(state_dir)
                opened.callback(os.close, lock)
                try:
                    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                    opened.callback(connection.close)
                    _prepare(connection, path, serial)
                    tables = cls(connection, lock, executor)
                except (sqlite3.Error, ValueError) as error:
                    raise TablesError(f"{path}: {error}") from error
                opened.pop_all()
                return tables

        return await asyncio.get_running_loop().run_in_executor(executor, opening)

    async def change(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Runs `work` in a transaction, which is durable when this is done. Raises TablesError, and what `work` raises;
        then it is undone. Who is cancelled does not wait any more: the change is made all the same."""
        return await self._changes.change(work)

    async def close(self) -> None:
        """Closes the tables, after the changes that were asked for, and lets another daemon have the directory."""
        await self._changes.close()

        def closing() -> None:
            self._connection.close()
            os.close(self._lock)

        await asyncio.get_running_loop().run_in_executor(self._executor, closing)


def _prepare(connection: sqlite3.Connection, path: Path, serial: str) -> None:
    """Sets what durability asks for, and brings the schema up to date. Raises TablesError and sqlite3.Error."""
    # With a write-ahead log a commit syncs one file; FULL syncs it at every commit.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    _migrate(connection, path)
    _claim(connection, path, serial)
    _sync_directory(path.parent)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise TablesError(f"{path}: made by a newer arrayd (version {version}, this one knows {len(MIGRATIONS)})")
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _claim(connection: sqlite3.Connection, path: Path, serial: str) -> None:
    """The tables are of one array for ever: names that hosts know come from its serial number."""
    row = connection.execute("SELECT serial FROM array").fetchone()
    if row is None:
        connection.execute("INSERT INTO array VALUES (?)", (serial,))
    elif row[0] != serial:
        raise TablesError(f"{path}: belongs to the array with serial {row[0]!r}, not {serial!r}")


def _sync_directory(path: Path) -> None:
    """A file that was just made survives power loss once its directory is synced."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lock_directory(state_dir: Path) -> int:
    """Locks `state_dir` for this process; the lock ends with the process, however that ends."""
    path = state_dir / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise TablesError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise TablesError(f"{state_dir}: in use by another daemon") from error
    return lock
