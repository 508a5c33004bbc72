"""A group with three P-VOLs on disks in memory, for tests of what it does and of what it tells."""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any, cast

from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import PrimaryJournal, Record
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.redo import redo
from arrayd.replication.statuses import Event
from arrayd.volumes.file_volume import FileVolume
from tests.replication.modelled import Machine, ModelFile

GROUP = b"a group's number"
MIB = 1024 * 1024
VOLUMES = 3


class Parts:
    """The disks, and the group on them once it is `open`."""

    def __init__(self, journal_bytes: int = MIB, write_cache: bool = True) -> None:
        self.machine = Machine(1)
        self.files = [ModelFile(self.machine, MIB, 0) for _ in range(VOLUMES)]
        self.journal_file = ModelFile(self.machine, journal_bytes, 0)
        self.raw = [FileVolume(f"1:{number}", cast(Any, file)) for number, file in enumerate(self.files)]
        self.journal_volume = FileVolume("1:journal", cast(Any, self.journal_file))
        self.write_cache = write_cache
        self.told: list[Event] = []
        self.reasons: list[str] = []

    async def make(self) -> None:
        """A new journal, and the group on it."""
        await PrimaryJournal.create(self.journal_volume, GROUP, 1)
        await self.open()

    async def open(self) -> None:
        """The group on what is there."""
        self.journal = await PrimaryJournal.open(self.journal_volume)
        await redo(self.journal, dict(enumerate(self.raw)))
        self.group = PrimaryGroup(self.journal, itertools.count(1000).__next__, self._tell)
        self.volumes = [
            JournaledVolume(volume, self.group, number, write_cache=self.write_cache)
            for number, volume in enumerate(self.raw)
        ]
        self.forget()

    def _tell(self, event: Event, reason: str) -> None:
        self.told.append(event)
        self.reasons.append(reason)

    def forget(self) -> None:
        """The calls so far."""
        for file in (*self.files, self.journal_file):
            file.calls.clear()

    async def records(self) -> list[Record]:
        """What is in the journal, from the oldest on."""
        regions = self.journal.regions
        return [each async for run in self.journal.runs(regions.oldest, regions.stored) for each in run]


def block(byte: int, length: int = 4096) -> memoryview:
    return memoryview(bytes([byte]) * length)


def pending(answer: Awaitable[None] | None) -> "asyncio.Future[None]":
    """What a journaled volume has answered, which is never at once."""
    assert isinstance(answer, asyncio.Future)
    return answer
