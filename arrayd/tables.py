"""The array's durable tables, in SQLite: one table of the patent, one table here.

A room says by a Protocol what it wants kept, and a class here keeps it. Statements run in an executor, so that the loop
never waits for the disk; a change is committed, and synced, before its awaitable is done. A class that answers at once
does so from what it read when the tables were opened.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from arrayd.scsi.persistent import ALL_REGISTRANTS, NO_RESERVATION, TYPES, PersistentState, Registrant

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE array (serial TEXT NOT NULL)",
        """CREATE TABLE reservations (
            identity TEXT PRIMARY KEY, -- of the volume, as hosts see it
            type INTEGER NOT NULL      -- SPC-5, table 55; 0 when nothing is reserved
        ) WITHOUT ROWID""",
        """CREATE TABLE registrations (
            identity TEXT NOT NULL REFERENCES reservations,
            initiator_port TEXT NOT NULL,
            port INTEGER NOT NULL,     -- relative target port identifier
            key TEXT NOT NULL,         -- 16 hexadecimal digits: SQLite has no unsigned 64-bit integers
            holder INTEGER NOT NULL,   -- 1: holds the reservation
            PRIMARY KEY (identity, initiator_port, port)
        ) WITHOUT ROWID""",
    ),
)
"""What takes the schema from each version to the next; the version is SQLite's user_version."""

Result = TypeVar("Result")


class TablesError(Exception):
    """The tables cannot be used: in use by another daemon, of another array or a newer version, or damaged."""


class Tables:
    """The tables of one array: `state_dir/tables.db`, for one daemon at a time (`state_dir/lock`)."""

    def __init__(self, connection: sqlite3.Connection, lock: int, executor: Executor) -> None:
        self._connection = connection
        self._lock = lock
        self._executor = executor
        self._turn = threading.Lock()
        """One transaction at a time, however many threads the executor has."""
        self.reservations = ReservationTable(self, connection)

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
        """Runs `work` in one transaction, which is durable when this is done. Raises TablesError; then it is undone."""

        def transaction() -> Result:
            with self._turn:
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                    with self._connection:
                        return work(self._connection)
                except sqlite3.Error as error:
                    raise TablesError(f"tables: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._executor, transaction)

    async def close(self) -> None:
        """Closes the tables, after the changes under way, and lets another daemon have the directory."""

        def closing() -> None:
            with self._turn:
                self._connection.close()
                os.close(self._lock)

        await asyncio.get_running_loop().run_in_executor(self._executor, closing)


class ReservationTable:
    """Persistent reservations that outlive the daemon: a `ReservationStore` (see `arrayd.scsi.reservations`)."""

    def __init__(self, tables: Tables, connection: sqlite3.Connection) -> None:
        self._tables = tables
        self._kept = _read_reservations(connection)

    def load(self, identity: str) -> PersistentState | None:
        """What was last saved for the logical unit `identity`."""
        return self._kept.get(identity)

    async def save(self, identity: str, state: PersistentState | None) -> None:
        """Keeps `state`, or forgets the logical unit (None): durable before it is done. Raises TablesError."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM registrations WHERE identity = ?", (identity,))
            connection.execute("DELETE FROM reservations WHERE identity = ?", (identity,))
            if state is None:
                return
            connection.execute("INSERT INTO reservations VALUES (?, ?)", (identity, state.type))
            connection.executemany(
                "INSERT INTO registrations VALUES (?, ?, ?, ?, ?)",
                (
                    (identity, registrant.initiator_port, registrant.port, f"{key:016x}", registrant == state.holder)
                    for registrant, key in state.registrations.items()
                ),
            )

        await self._tables.change(work)
        if state is None:
            self._kept.pop(identity, None)
        else:
            self._kept[identity] = state


def _read_reservations(connection: sqlite3.Connection) -> dict[str, PersistentState]:
    """All that is kept. Raises ValueError for a state that cannot have been saved."""
    registrations: dict[str, dict[Registrant, int]] = {}
    holders: dict[str, Registrant] = {}
    rows = connection.execute("SELECT identity, initiator_port, port, key, holder FROM registrations")
    for identity, initiator_port, port, key, holder in rows:
        registrant = Registrant(initiator_port, port)
        registrations.setdefault(identity, {})[registrant] = int(key, 16)
        if holder:
            holders[identity] = registrant
    kept = {}
    for identity, kind in connection.execute("SELECT identity, type FROM reservations"):
        state = PersistentState(registrations.get(identity, {}), kind, holders.get(identity))
        has_one_holder = kind in TYPES and kind not in ALL_REGISTRANTS
        if kind not in TYPES | {NO_RESERVATION} or has_one_holder != (state.holder is not None):
            raise ValueError(f"the reservation of {identity} is damaged")
        kept[identity] = state
    return kept


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
