"""Tables that an older daemon has left are brought up to date, and are read as they are by what changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arrayd.scsi.persistent import PersistentState
from arrayd.tables import MIGRATIONS, Tables
from arrayd.tables.estate import EstateRows, read_beside_daemon
from arrayd.tables.pairs import StoredPairs, put_group
from tests.replication.tables import GROUP, MIRROR


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


BEFORE_PAIRS = [
    "INSERT INTO array VALUES ('410001')",
    "INSERT INTO reservations VALUES ('410001:a', 0)",
    "INSERT INTO volumes VALUES ('a', '{}')",
    "INSERT INTO luns VALUES (7, '{}')",
    "INSERT INTO connections VALUES ('b', NULL)",
    "INSERT INTO command_devices VALUES ('b', 3)",
    "INSERT INTO events VALUES (5, 1.0, 'info', 'kind', 'text', '{}')",
]


async def test_tables_without_pairs_are_brought_up_to_date(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    """From version 2, the last without them: what was there stays, and there are no pairs."""
    connection = sqlite3.connect(tmp_path / "tables.db", isolation_level=None)
    for statement in (*MIGRATIONS[0], *MIGRATIONS[1], *BEFORE_PAIRS, "PRAGMA user_version = 2"):
        connection.execute(statement)
    connection.close()
    group = GROUP.stored()
    for found in (StoredPairs([], [], "0" * 16), StoredPairs([group], GROUP.stored_pairs(GROUP.pairs), "f" * 16)):
        tables = await Tables.open(tmp_path, "410001", executor)
        assert tables.reservations.load("410001:a") == PersistentState()
        assert tables.estate == EstateRows({"a": "{}"}, {7: "{}"}, {"b": None}, frozenset({("b", 3)}))
        assert [row.number for row in tables.events.rows] == [5]
        assert tables.pairs == found
        await tables.change(put_group(group, GROUP.stored_pairs(GROUP.pairs), (), "f" * 16))
        await tables.close()


async def test_tables_of_the_first_version_with_pairs_are_read_as_they_are_and_brought_up_to_date(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    """`arrayd check` reads them and changes nothing: before an upgrade, when one runs it, it failed."""
    group, pairs = GROUP.stored(), GROUP.stored_pairs(GROUP.pairs)
    connection = sqlite3.connect(tmp_path / "tables.db", isolation_level=None)
    for statement in (*MIGRATIONS[0], *MIGRATIONS[1], *MIGRATIONS[2], "INSERT INTO array VALUES ('410001')"):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 3")
    connection.execute(f"INSERT INTO consistency_groups VALUES ({', '.join('?' * (len(group) - 2))})", group[:-2])
    of_version_3 = [(*pair[:-2], None) for pair in pairs]
    connection.executemany(f"INSERT INTO pairs VALUES ({', '.join('?' * (len(pairs[0]) - 1))})", of_version_3)
    connection.close()
    expected = StoredPairs([group], pairs, "0" * 16)
    assert read_beside_daemon(tmp_path, "410001").pairs == expected
    tables = await Tables.open(tmp_path, "410001", executor)
    assert tables.pairs == expected
    await tables.close()
    assert read_beside_daemon(tmp_path, "410001").pairs == expected


async def test_tables_of_version_4_have_no_limits_of_copies_and_no_copy_that_was_suspended(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    """Read as they are, brought up to date, and kept with both."""
    group, pairs = GROUP.stored(), GROUP.stored_pairs(GROUP.pairs)
    connection = sqlite3.connect(tmp_path / "tables.db", isolation_level=None)
    for statement in (*(each for version in MIGRATIONS[:4] for each in version), "PRAGMA user_version = 4"):
        connection.execute(statement)
    connection.execute("INSERT INTO array VALUES ('410001')")
    connection.execute(f"INSERT INTO consistency_groups VALUES ({', '.join('?' * (len(group) - 2))})", group[:-2])
    of_version_4 = [pair._replace(unsynced=1)[:-1] for pair in pairs]
    connection.executemany(f"INSERT INTO pairs VALUES ({', '.join('?' * (len(pairs[0]) - 1))})", of_version_4)
    connection.close()
    before = StoredPairs([group], [pair._replace(unsynced=1) for pair in pairs], "0" * 16)
    assert read_beside_daemon(tmp_path, "410001").pairs == before
    tables = await Tables.open(tmp_path, "410001", executor)
    assert tables.pairs == before
    limited, uncopied = group._replace(copy_rate=1 << 20), [pair._replace(uncopied=1) for pair in pairs]
    await tables.change(put_group(limited, uncopied, (), "0" * 16))
    await tables.close()
    assert read_beside_daemon(tmp_path, "410001").pairs == StoredPairs([limited], uncopied, "0" * 16)


async def test_groups_of_version_5_are_asynchronous_and_have_no_fence_level(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    """Read as they are and brought up to date; a synchronous group, and another, have no journal beside it."""
    group, pairs = GROUP.stored(), GROUP.stored_pairs(GROUP.pairs)
    connection = sqlite3.connect(tmp_path / "tables.db", isolation_level=None)
    for statement in (*(each for version in MIGRATIONS[:5] for each in version), "PRAGMA user_version = 5"):
        connection.execute(statement)
    connection.execute("INSERT INTO array VALUES ('410001')")
    connection.execute(f"INSERT INTO consistency_groups VALUES ({', '.join('?' * (len(group) - 1))})", group[:-1])
    connection.executemany(f"INSERT INTO pairs VALUES ({', '.join('?' * len(pairs[0]))})", pairs)
    connection.close()
    before = StoredPairs([group], pairs, "0" * 16)
    assert group.fence == "never"
    assert read_beside_daemon(tmp_path, "410001").pairs == before
    tables = await Tables.open(tmp_path, "410001", executor)
    assert tables.pairs == before
    first = MIRROR.stored()
    second = first._replace(id="04" * 16, name="mirror2", ctg=3, fence="status")
    for mirror in (first, second):
        await tables.change(put_group(mirror, [], (), "0" * 16))
    await tables.close()
    found = read_beside_daemon(tmp_path, "410001").pairs
    assert found.groups == [first, second, group]
    assert [(each.journal, each.peer_journal, each.fence) for each in found.groups[:2]] == [
        (None, None, "data"), (None, None, "status"),
    ]  # fmt: skip
