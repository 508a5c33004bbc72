"""An executor on real tables, with commands of its own; and whole arrays in a row."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from arrayd.array import Array
from arrayd.commands.execution import Executor
from arrayd.commands.formats import Identification
from arrayd.commands.history import History
from arrayd.commands.messages import Destination, Message
from arrayd.commands.permission import Permission
from arrayd.commands.registry import CommandError, Input, Nothing, Output, Registry, Save
from arrayd.commands.results import Result
from arrayd.origin import Origin
from arrayd.tables import Tables
from tests.lab.commanding import Host
from tests.lab.row import Row
from tests.lab.waiting import until

INITIATOR = Origin("iqn.1993-08.org.debian:01:host1", local=True)
STRANGER = Origin("iqn.1993-08.org.debian:01:host2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Word(Input):
    word: str


class Said(Output):
    said: str
    times: int


class Lab:
    """What the commands of the lab work on: `said` is how often each word was; `gate` holds up `wait`."""

    def __init__(self) -> None:
        self.said: dict[str, int] = {}
        self.gate = asyncio.Event()
        self.words: list[str] = []
        self.fails_after_saving = False


LAB = Registry()


@LAB.command(1, "say")
async def say(lab: Lab, told: Word) -> Said:
    """Say a word."""
    lab.said[told.word] = lab.said.get(told.word, 0) + 1
    return Said(said=told.word, times=lab.said[told.word])


@LAB.command(2, "wait")
async def wait(lab: Lab, told: Word) -> Said:
    """Say a word when the gate opens."""
    await lab.gate.wait()
    said: Said = await say(lab, told)
    return said


@LAB.command(3, "keep", changes=True)
async def keep(lab: Lab, told: Word, save: Save) -> Said:
    """Keep a word in the tables, once."""
    if told.word in lab.words:
        raise CommandError(Result.CONFLICT, f"{told.word} is kept already")

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO monitors VALUES (?, '')", (told.word,))

    await save(work, Said(said=told.word, times=1))
    lab.words.append(told.word)
    if lab.fails_after_saving:
        raise RuntimeError("a fault behind the save")
    return Said(said=told.word, times=1)


@LAB.command(4, "fail")
async def fail(_lab: Lab, _told: Nothing) -> Said:
    """Fail in a way that nobody foresaw."""
    raise RuntimeError("nobody foresaw it")


@LAB.command(5, "shout")
async def shout(_lab: Lab, told: Word) -> Said:
    """Say a word very long."""
    return Said(said=told.word * 10_000, times=1)


@LAB.command(6, "dig", changes=True, apart="word")
async def dig(lab: Lab, told: Word, save: Save) -> Said:
    """Keep a word, what is done to other words apart; "slow" when the gate opens."""
    if told.word == "slow":
        await lab.gate.wait()
    return await keep(lab, told, save)  # type: ignore[no-any-return]


class Section:
    """An executor, and what it works on."""

    def __init__(self, tables: Tables) -> None:
        self.lab = Lab()
        self.clock = Clock()
        self.history = History(self.clock)
        self.tables = tables
        permission = Permission("a", None, frozenset({"b"}))
        context: Any = self.lab
        self.executor = Executor(
            "a", LAB, self.history, tables.commands, permission.refusal, lambda: 1.7e9 + self.clock.now
        )
        self.executor.context = context


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
async def tables(tmp_path: Path, threads: ThreadPoolExecutor) -> AsyncIterator[Tables]:
    tables = await Tables.open(tmp_path, "410001", threads)
    yield tables
    await tables.close()


@pytest.fixture
async def section(tables: Tables) -> AsyncIterator[Section]:
    section = Section(tables)
    yield section
    section.lab.gate.set()
    await section.executor.stop()


def number(counter: int, host: bytes = b"host0001") -> Identification:
    return Identification(host, 1, counter)


LUNS: dict[str, dict[str, Any]] = {
    "c": {"0": {"volume": "data"}, "9": {"command_device": {}}},
    "b": {
        "0": {"virtual": {"array": "c", "lun": 0}},
        "9": {"command_device": {}},
        "10": {"virtual": {"array": "c", "lun": 9}},
    },
    "a": {
        "0": {"virtual": {"array": "b", "lun": 0}},
        "9": {"command_device": {}},
        "10": {"virtual": {"array": "b", "lun": 9}},
        "11": {"virtual": {"array": "b", "lun": 10}},
    },
}
"""LUN 9 is an array's own command device, 10 the next array's, and 11 of the one behind that."""


class Commanded(Row):
    """Arrays in a row, each with a command device; `a` dials `b`, which dials `c`."""

    async def begin(self, name: str, **changes: Any) -> Array:
        following = {"a": "b", "b": "c"}.get(name)
        return await self.start(name, None, following, **{"luns": LUNS[name], **changes})

    def passed(self, message: Message, name: str) -> bool:
        """Whether a message is or was in the command cache of an array."""
        return self.arrays[name]._commands._transit.find(message.identification) is not None

    def is_up(self, name: str, other: str) -> bool:
        """Whether two arrays are connected."""
        return self.arrays[name]._links.peers[other].stream is not None

    def to(self, *path: str) -> tuple[Destination, ...]:
        """The way to the last array of `path`."""
        return (Destination(path),)

    @asynccontextmanager
    async def host(self, array: str = "a", name: bytes = b"testhost") -> AsyncIterator[Host]:
        async with await self.session(array, isid=b"\x80" + name[:5]) as session:
            yield Host(session, name)


@pytest.fixture
async def row(tmp_path: Path) -> AsyncIterator[Commanded]:
    row = Commanded(tmp_path)
    try:
        for name in "cba":
            await row.begin(name)
        await until(lambda: row.is_up("a", "b") and row.is_up("b", "c"))
        yield row
    finally:
        for name in list(row.arrays):
            await row.stop(name)
    assert asyncio.all_tasks() == {asyncio.current_task()}
