"""Rows made by command: volumes, the LUN map (figure 3), connections (figure 36) and command devices (figure 5).

Each function that changes them returns a `Work`, so that it is committed together with the answer to the command.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from arrayd.tables.changes import Work
from arrayd.tables.pairs import StoredPairs, read_pairs
from arrayd.tables.schema import MIGRATIONS

BUSY_SECONDS = 5.0
"""How long reading beside a daemon waits for it to let go of the file."""
ESTATE_VERSION = 2
"""Of the schema: the first that has these tables."""
PAIRS_VERSION = 3
"""Of the schema: the first that has the pair management table."""


@dataclass(frozen=True)
class EstateRows:
    """All of them, as they are stored."""

    volumes: dict[str, str] = field(default_factory=dict)
    """Name: settings, in JSON."""
    luns: dict[int, str] = field(default_factory=dict)
    connections: dict[str, str | None] = field(default_factory=dict)
    """Name: address."""
    command_devices: frozenset[tuple[str, int]] = frozenset()


class Stored(NamedTuple):
    """What stands in the tables beside the configuration, and what needs its volumes."""

    estate: EstateRows
    pairs: StoredPairs


def read_rows(connection: sqlite3.Connection) -> EstateRows:
    """All rows. Raises sqlite3.Error."""
    return EstateRows(
        dict(connection.execute("SELECT name, settings FROM volumes")),
        dict(connection.execute("SELECT lun, settings FROM luns")),
        dict(connection.execute("SELECT name, address FROM connections")),
        frozenset(connection.execute("SELECT array, lun FROM command_devices")),
    )


def read_beside_daemon(state_dir: Path, serial: str) -> Stored:
    """The rows in `state_dir`, which a daemon may be using; none where there are no tables yet. Nothing is changed.

    Raises ValueError, whose text says why they cannot be read, or are not of the array `serial`.
    """
    path = state_dir / "tables.db"
    try:
        path.stat()
    except FileNotFoundError:
        return Stored(EstateRows(), StoredPairs())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    # Without a write-ahead log nobody writes; to read as if somebody might would make files.
    how = "mode=ro" if path.with_name("tables.db-wal").exists() else "immutable=1"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS)
        try:
            return _read_of(connection, path, serial)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ValueError(f"{path}: {error}") from error


def _read_of(connection: sqlite3.Connection, path: Path, serial: str) -> Stored:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ValueError(f"{path}: made by a newer arrayd (version {version}, this one knows {len(MIGRATIONS)})")
    row = connection.execute("SELECT serial FROM array").fetchone() if version else None
    if row is not None and row[0] != serial:
        raise ValueError(f"{path}: belongs to the array with serial {row[0]!r}, not {serial!r}")
    return Stored(
        read_rows(connection) if version >= ESTATE_VERSION else EstateRows(),
        read_pairs(connection, version) if version >= PAIRS_VERSION else StoredPairs(),
    )


def put_volume(name: str, settings: str) -> Work:
    """A volume, with new settings if there is one."""
    return _statement("INSERT OR REPLACE INTO volumes VALUES (?, ?)", name, settings)


def drop_volume(name: str, identity: str) -> Work:
    """No volume, and no reservation of what hosts knew by this identity."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
        connection.execute("DELETE FROM registrations WHERE identity = ?", (identity,))
        connection.execute("DELETE FROM reservations WHERE identity = ?", (identity,))

    return work


def put_lun(lun: int, settings: str) -> Work:
    """A row of the LUN map."""
    return _statement("INSERT INTO luns VALUES (?, ?)", lun, settings)


def drop_lun(lun: int) -> Work:
    """No such row."""
    return _statement("DELETE FROM luns WHERE lun = ?", lun)


def put_connection(name: str, address: str | None) -> Work:
    """A row of the connection table."""
    return _statement("INSERT INTO connections VALUES (?, ?)", name, address)


def drop_connection(name: str) -> Work:
    """No such row."""
    return _statement("DELETE FROM connections WHERE name = ?", name)


def put_command_device(array: str, lun: int) -> Work:
    """A row of the command device management table."""
    return _statement("INSERT INTO command_devices VALUES (?, ?)", array, lun)


def drop_command_device(array: str, lun: int) -> Work:
    """No such row."""
    return _statement("DELETE FROM command_devices WHERE array = ? AND lun = ?", array, lun)


def nothing(_connection: sqlite3.Connection) -> None:
    """No change."""


def _statement(sql: str, *values: object) -> Work:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute(sql, values)

    return work
