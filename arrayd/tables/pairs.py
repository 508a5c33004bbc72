"""The pair management table (1001, figure 10), as it is stored: consistency groups, and the pairs of each.

Figure 10 has a row per pair, with copy source and destination device, primary and auxiliary LUN, and the LUNs of both
journals. Here what the pairs of a group have in common is a row of its own, and each side keeps its own volumes by name
and the peer's by LUN; which of them is the source follows from the pair's state. `arrayd.replication.group_rows` says
what the values mean, and checks them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from arrayd.tables.changes import Work

BEFORE: dict[str, tuple[int, str]] = {
    "unsynced": (4, "0"),
    "uncopied": (5, "0"),
    "copy_rate": (5, "NULL"),
    "fence": (6, "'never'"),
}
"""Columns that came later: the first version of the schema that has them, and what they are before. A check looks at
tables as they are."""


class StoredGroup(NamedTuple):
    """A row of `consistency_groups`."""

    id: str
    name: str
    ctg: int
    journal: str | None
    peer: str
    peer_serial: str
    peer_journal: int | None
    mode: str
    pace: int
    driver: str
    generation: int
    consistent: int
    epoch: str
    restored: str
    acknowledged: str
    copy_rate: int | None
    fence: str


class StoredPair(NamedTuple):
    """A row of `pairs`."""

    id: str
    """Of its group."""
    number: int
    name: str
    volume: str
    peer_lun: int
    peer_volume: str
    state: str
    since: float
    error: str
    unsynced: int
    uncopied: int


class StoredPairs(NamedTuple):
    """All of the table; `last_epoch` is the greatest that any journal here ever had, or was to have."""

    groups: Sequence[StoredGroup] = ()
    pairs: Sequence[StoredPair] = ()
    last_epoch: str = "0"


def read_pairs(connection: sqlite3.Connection, version: int) -> StoredPairs:
    """All rows, of tables of this version of the schema. Raises sqlite3.Error."""
    of_groups, of_pairs = (_columns(each._fields, version) for each in (StoredGroup, StoredPair))
    groups = connection.execute(f"SELECT {of_groups} FROM consistency_groups ORDER BY name")
    pairs = connection.execute(f"SELECT {of_pairs} FROM pairs ORDER BY id, number")
    (last_epoch,) = connection.execute("SELECT last FROM epochs").fetchone()
    return StoredPairs([StoredGroup(*row) for row in groups], [StoredPair(*row) for row in pairs], last_epoch)


def _columns(names: Sequence[str], version: int) -> str:
    """These columns, in tables of this version."""
    since = ((each, *BEFORE.get(each, (0, ""))) for each in names)
    return ", ".join(name if version >= first else otherwise for name, first, otherwise in since)


def put_group(group: StoredGroup, pairs: Sequence[StoredPair], gone: Sequence[int], last_epoch: str) -> Work:
    """A group as it is from now on; of its pairs those that are new or changed, and the numbers of those that are no
    more. Other pairs stay as they are."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(_upsert("consistency_groups", StoredGroup._fields, ("id",)), group)
        connection.executemany("DELETE FROM pairs WHERE id = ? AND number = ?", [(group.id, each) for each in gone])
        connection.executemany(_upsert("pairs", StoredPair._fields, ("id", "number")), pairs)
        use_epoch(last_epoch)(connection)

    return work


def use_epoch(last_epoch: str) -> Work:
    """No journal gets this epoch again, or one before it."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE epochs SET last = max(last, ?)", (last_epoch,))

    return work


def drop_group(group: str) -> Work:
    """No such group, and none of its pairs. Its epoch stays known: it is not used again."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM pairs WHERE id = ?", (group,))
        connection.execute("DELETE FROM consistency_groups WHERE id = ?", (group,))

    return work


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    values = ", ".join("?" * len(columns))
    changed = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
    )
