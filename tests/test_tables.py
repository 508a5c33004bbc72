"""The durable tables: what was saved is there for the next daemon, and only for one daemon of the right array."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from arrayd.scsi.persistent import (
    EXCLUSIVE_ACCESS,
    NO_RESERVATION,
    WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    PersistentState,
    Registrant,
)
from arrayd.tables import MIGRATIONS, Tables, TablesError
from arrayd.tables.changes import TOGETHER_MAX, WAITING_MAX
from arrayd.tables.pairs import StoredPairs, drop_group, put_group, read_pairs
from tests.lab.waiting import until
from tests.replication.tables import GROUP, OTHER

HOST1 = Registrant("iqn.1993-08.org.debian:01:host1,i,0x00023d000001", 1)
HOST2 = Registrant("iqn.1993-08.org.debian:01:host2,i,0x00023d000001", 2)
EXCLUSIVE = PersistentState({HOST1: 1, HOST2: (1 << 64) - 1}, EXCLUSIVE_ACCESS, HOST2)
SHARED = PersistentState({HOST1: 7, HOST2: 7}, WRITE_EXCLUSIVE_ALL_REGISTRANTS)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
async def tables(tmp_path: Path, executor: ThreadPoolExecutor) -> AsyncIterator[Tables]:
    tables = await Tables.open(tmp_path, "410001", executor)
    yield tables
    await tables.close()


async def test_what_is_saved_is_there_after_reopening(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    tables = await Tables.open(tmp_path, "410001", executor)
    assert tables.reservations.load("410001:a") is None
    await tables.reservations.save("410001:a", EXCLUSIVE)
    await tables.reservations.save("410001:b", EXCLUSIVE)
    await tables.reservations.save("410001:b", SHARED)
    await tables.reservations.save("410001:c", PersistentState())
    await tables.reservations.save("410001:d", SHARED)
    await tables.reservations.save("410001:d", None)
    for reopened in (False, True):
        if reopened:
            await tables.close()
            tables = await Tables.open(tmp_path, "410001", executor)
        assert tables.reservations.load("410001:a") == EXCLUSIVE
        assert tables.reservations.load("410001:b") == SHARED
        assert tables.reservations.load("410001:c") == PersistentState()
        assert tables.reservations.load("410001:d") is None
    await tables.close()


KILLED = """
import asyncio, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from arrayd.scsi.persistent import PersistentState, Registrant
from arrayd.tables import Tables

async def main() -> None:
    tables = await Tables.open(Path(sys.argv[1]), "410001", ThreadPoolExecutor(1))
    for number in range(1, 1000):
        await tables.reservations.save("410001:a", PersistentState({Registrant("host", 1): number}))
        os.write(1, b"%d\\n" % number)

asyncio.run(main())
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as answers:
        for _ in range(20):
            answers.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        answered = 20 + len(answers.readlines())

    async def read() -> int:
        with ThreadPoolExecutor(1) as executor:
            tables = await Tables.open(tmp_path, "410001", executor)
            state = tables.reservations.load("410001:a")
            await tables.close()
        assert state is not None
        return state.registrations[Registrant("host", 1)]

    assert asyncio.run(read()) in (answered, answered + 1)


async def test_saves_at_the_same_time_do_not_mix(tables: Tables) -> None:
    await asyncio.gather(*(tables.reservations.save(f"410001:{n}", EXCLUSIVE) for n in range(50)))
    assert all(tables.reservations.load(f"410001:{n}") == EXCLUSIVE for n in range(50))


async def test_a_second_daemon_is_refused(tables: Tables, tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(TablesError, match="in use by another daemon"):
        await Tables.open(tmp_path, "410001", executor)


async def test_another_arrays_directory_is_refused(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    await (await Tables.open(tmp_path, "410001", executor)).close()
    with pytest.raises(TablesError, match="'410001', not '410002'"):
        await Tables.open(tmp_path, "410002", executor)
    await (await Tables.open(tmp_path, "410001", executor)).close()


async def test_a_newer_version_is_refused(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    connection = sqlite3.connect(tmp_path / "tables.db")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(TablesError, match="newer arrayd"):
        await Tables.open(tmp_path, "410001", executor)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    (tmp_path / "tables.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(TablesError, match=r"tables\.db"):
        await Tables.open(tmp_path, "410001", executor)


async def test_a_missing_directory_is_refused(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(TablesError, match="No such file"):
        await Tables.open(tmp_path / "none", "410001", executor)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE reservations SET type = 4",
        "UPDATE registrations SET holder = 0",
        "UPDATE registrations SET key = 'xyz'",
    ],
)
async def test_damage_is_refused(tmp_path: Path, executor: ThreadPoolExecutor, damage: str) -> None:
    tables = await Tables.open(tmp_path, "410001", executor)
    await tables.reservations.save("410001:a", EXCLUSIVE)
    await tables.close()
    connection = sqlite3.connect(tmp_path / "tables.db", isolation_level=None)
    connection.execute(damage)
    connection.close()
    with pytest.raises(TablesError):
        await Tables.open(tmp_path, "410001", executor)


async def test_a_change_that_fails_is_undone(tables: Tables) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO reservations VALUES ('410001:a', 1)")
        connection.execute("INSERT INTO no_such_table VALUES (1)")

    with pytest.raises(TablesError):
        await tables.change(work)
    rows = await tables.change(lambda c: c.execute("SELECT count(*) FROM reservations").fetchone())
    assert rows == (0,)
    await tables.reservations.save("410001:a", EXCLUSIVE)


async def test_the_loop_runs_while_the_disk_works(tables: Tables) -> None:
    """`change` waits in the executor: the loop gets its turn before a statement that is held up has ended."""
    loop = asyncio.get_running_loop()
    running = asyncio.Event()
    go_on = threading.Event()

    def work(_connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(running.set)
        assert go_on.wait(10)

    change = asyncio.ensure_future(tables.change(work))
    await running.wait()
    go_on.set()
    await change


class Gate:
    """Holds up the change that is being made, so that others come to wait for it."""

    def __init__(self, tables: Tables) -> None:
        self._open = threading.Event()
        self._begun = threading.Event()
        self.change = asyncio.ensure_future(tables.change(self._wait))

    def _wait(self, _connection: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._open.wait(10)

    async def begun(self) -> None:
        await until(self._begun.is_set)

    async def open(self) -> None:
        self._open.set()
        await self.change


def insert(identity: str, kind: int = NO_RESERVATION) -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO reservations VALUES (?, ?)", (identity, kind))
        return identity

    return work


async def identities(tables: Tables) -> list[str]:
    rows = await tables.change(lambda c: c.execute("SELECT identity FROM reservations ORDER BY identity").fetchall())
    return [identity for (identity,) in rows]


async def test_what_waits_is_committed_together_and_a_failure_undoes_only_itself(
    tables: Tables, tmp_path: Path
) -> None:
    gate = Gate(tables)
    await gate.begun()
    looked: list[int] = []

    def fail(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise KeyError("mine")

    def look(_connection: sqlite3.Connection) -> None:
        with sqlite3.connect(tmp_path / "tables.db") as other:
            looked.extend(other.execute("SELECT count(*) FROM reservations").fetchone())
        other.close()

    works = [insert("a"), fail, insert("b"), insert("a"), insert("c"), look]
    changes = [asyncio.ensure_future(tables.change(work)) for work in works]
    await asyncio.sleep(0)
    await gate.open()
    ended = await asyncio.gather(*changes, return_exceptions=True)
    assert [ended[0], ended[2], ended[4]] == ["a", "b", "c"]
    assert isinstance(ended[1], KeyError)
    assert isinstance(ended[3], TablesError)
    assert looked == [0], "one commit, which is not there before its end"
    assert await identities(tables) == ["a", "b", "c"]


async def test_a_commit_that_fails_fails_all_of_its_changes_and_no_others(tables: Tables) -> None:
    gate = Gate(tables)
    await gate.begun()

    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO registrations VALUES ('nobody', 'host', 1, '0', 0)")

    changes = [asyncio.ensure_future(tables.change(work)) for work in (insert("a"), orphan, insert("b"))]
    await asyncio.sleep(0)
    await gate.open()
    ended = await asyncio.gather(*changes, return_exceptions=True)
    assert all(isinstance(each, TablesError) for each in ended)
    assert len({id(each) for each in ended}) == 3
    assert await identities(tables) == []
    assert await tables.change(insert("a")) == "a"


async def test_what_sqlite_gives_up_is_given_up_whole(tables: Tables) -> None:
    gate = Gate(tables)
    await gate.begun()

    def give_up(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO reservations VALUES ('a', 1)")

    changes = [asyncio.ensure_future(tables.change(work)) for work in (insert("a"), give_up, insert("b"))]
    await asyncio.sleep(0)
    await gate.open()
    ended = await asyncio.gather(*changes, return_exceptions=True)
    assert all(isinstance(each, TablesError) and "UNIQUE" in str(each) for each in ended)
    assert await identities(tables) == []


@pytest.mark.parametrize("begun", [True, False])
async def test_a_change_whose_asker_is_cancelled_is_made_all_the_same(tables: Tables, begun: bool) -> None:
    gate = Gate(tables)
    await gate.begun()
    if begun:
        cancelled = gate.change
    else:
        cancelled = asyncio.ensure_future(tables.change(insert("a")))  # type: ignore[arg-type]
    other = asyncio.ensure_future(tables.change(insert("b")))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate._open.set()
    assert await other == "b"
    assert await identities(tables) == (["b"] if begun else ["a", "b"])


async def test_changes_wait_in_one_thread_at_a_time_and_never_in_another(
    tables: Tables, executor: ThreadPoolExecutor
) -> None:
    """The executor's other threads are for block data."""
    gate = Gate(tables)
    await gate.begun()
    changes = [asyncio.ensure_future(tables.change(insert(f"{n:04}"))) for n in range(3 * TOGETHER_MAX)]
    await asyncio.sleep(0)
    others = threading.Barrier(3)  # of 4 threads
    async with asyncio.timeout(10):
        await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(executor, others.wait) for _ in range(3)))
    await gate.open()
    assert await asyncio.gather(*changes) == await identities(tables)


async def test_only_so_many_changes_wait(tables: Tables) -> None:
    gate = Gate(tables)
    await gate.begun()
    changes = [asyncio.ensure_future(tables.change(lambda _connection: None)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(TablesError, match="more than 8192 changes at once"):
        await tables.change(insert("a"))
    await gate.open()
    await asyncio.gather(*changes)
    assert await tables.change(insert("a")) == "a"


async def test_closing_waits_for_what_was_asked_for(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    tables = await Tables.open(tmp_path, "410001", executor)
    gate = Gate(tables)
    await gate.begun()
    change = asyncio.ensure_future(tables.change(insert("a")))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(tables.close())
    await asyncio.sleep(0)
    with pytest.raises(TablesError, match="closed"):
        await tables.change(insert("b"))
    await gate.open()
    await closing
    assert await change == "a"
    tables = await Tables.open(tmp_path, "410001", executor)
    assert await identities(tables) == ["a"]
    await tables.close()


async def test_a_group_and_its_pairs_go_together(tables: Tables) -> None:
    pairs = GROUP.stored_pairs(GROUP.pairs)
    await tables.change(put_group(GROUP.stored(), pairs, (), "1"))
    await tables.change(put_group(GROUP.stored()._replace(pace=9), [pairs[1]._replace(unsynced=1)], (0,), "2"))
    found = await tables.change(partial(read_pairs, version=len(MIGRATIONS)))
    assert found == StoredPairs([GROUP.stored()._replace(pace=9)], [pairs[1]._replace(unsynced=1)], "2")
    with pytest.raises(TablesError, match="UNIQUE"):
        await tables.change(put_group(OTHER.stored(), [pairs[1]._replace(id=OTHER.stored().id)], (), "3"))
    await tables.change(drop_group(GROUP.stored().id))
    assert await tables.change(partial(read_pairs, version=len(MIGRATIONS))) == StoredPairs([], [], "2")
