"""A primary journal against a plain list, over many laps: killed, without power, and in the middle of anything.

What is read back is always exactly the writes 1 to N: N is at least what was committed after a kill, at least what was
synced after a power loss, and no part of a write is there without the rest.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.replication.journal import JournalFull, Kind, Position, PrimaryJournal, Record
from arrayd.replication.journal import format as journal_format
from arrayd.replication.journal import primary as primary_module
from tests.lab.search import examples
from tests.replication.journal.strategies import write
from tests.replication.lossy import Crash, Disk, LossyVolume

SMALL = 2048
"""RECORD_BYTES_MAX here, so that writes of some KiB are several records."""
DISK_BYTES = 14 * 4096
"""64 entries, 40 KiB of data."""
GROUP = b"a group's number"

Fields = tuple[int, int, int, int, bytes, int, bool]
Step = tuple[str, int, int]


@pytest.fixture(autouse=True, scope="module")
def small_records() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (journal_format, primary_module):
            patch.setattr(module, "RECORD_BYTES_MAX", SMALL)
        yield


@dataclass
class Model:
    """All records that were ever taken, and how many of them are how safe."""

    records: list[Fields] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    """How many records there are at the end of each write."""
    committed: int = 0
    synced: int = 0
    oldest: set[int] = field(default_factory=lambda: {0})
    """Where journal-out may be: two places after a crash in a purge."""
    writes: int = 0

    def add(self, volume: int, kind: Kind, offset: int, extent: int, data: memoryview, time: int) -> None:
        parts = [data[at : at + SMALL] for at in range(0, len(data), SMALL)] if len(data) > SMALL else [data]
        for number, part in enumerate(parts):
            length = len(part) if len(parts) > 1 else extent
            more = number + 1 < len(parts)
            self.records.append((volume, kind, offset + number * SMALL, length, bytes(part), time, more))
        self.ends.append(len(self.records))


def told(record: Record) -> Fields:
    entry, data = record
    return entry.volume, entry.kind, entry.offset, entry.extent, bytes(data), entry.time, entry.more


class Lives:
    """One journal through many lives of the process that has it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.model = Model()
        self.power = False
        """Whether the last life ended with the power."""
        self.laps = 0

    async def live(self, steps: Iterator[Step]) -> None:
        """One life: ends with a crash, or with the steps."""
        async with self.disk.volume() as volume:
            with suppress(Crash):
                for what, number, chance in steps:
                    volume.carried_out = bool(chance % 2)
                    if what == "open":
                        # The process may die while it opens its journal, too.
                        volume.fuse = number % 4 if number < 40 else None
                        journal = await self.open(volume)
                        volume.fuse = None
                    elif what == "crash":
                        volume.fuse = number % 6
                    else:
                        await self.step(volume, journal, what, number, chance)

    async def open(self, volume: LossyVolume) -> PrimaryJournal:
        """What is there is the writes up to some N; from now on that is all that ever was."""
        model = self.model
        journal = await PrimaryJournal.open(volume)
        found = journal.regions.stored.sequence
        assert found in model.ends
        assert found >= (model.synced if self.power else model.committed)
        assert journal.regions.oldest.sequence in model.oldest
        self.power = False
        model.oldest = {journal.regions.oldest.sequence}
        del model.records[found:]
        model.ends = [end for end in model.ends if end <= found]
        model.committed = model.synced = found
        await self.check(journal)
        return journal

    async def check(self, journal: PrimaryJournal) -> None:
        regions, records = journal.regions, self.model.records
        read = [told(each) async for run in journal.runs(regions.oldest, regions.stored) for each in run]
        assert read == records[regions.oldest.sequence : regions.stored.sequence]
        redone = [told(each) async for run in journal.runs(regions.redo, regions.stored) for each in run]
        assert redone == records[regions.redo.sequence : regions.stored.sequence]
        self.laps = max(self.laps, regions.stored.byte // regions.size.data_bytes)

    async def step(self, volume: LossyVolume, journal: PrimaryJournal, what: str, number: int, chance: int) -> None:
        model = self.model
        if what == "append":
            await self.append(journal, number, chance)
        elif what == "refuse":
            volume.refused = number % 4
        elif what == "commit":
            if not journal.commit_now():
                await journal.commit()
            model.committed = len(model.records)
        elif what == "sync":
            await journal.sync()
            model.committed = model.synced = len(model.records)
        elif what == "purge":
            await self.purge(journal, number)
        else:
            assert what == "save"
            await journal.save()

    async def append(self, journal: PrimaryJournal, number: int, chance: int) -> None:
        model = self.model
        kind = (Kind.WRITE, Kind.WRITE, Kind.UNMAP, Kind.PATTERN, Kind.ZEROS)[chance % 5]
        blocks = 1 + number % 24 if kind == Kind.WRITE else 1 + number % 4
        model.writes += 1
        # Half of the writes say the same again and again: what is stale may look like what is new.
        extent, data = write(kind, blocks, model.writes if chance % 2 else 0)
        arguments = (chance % 3, kind, 512 * (number % 7), extent, data, model.writes)
        before = journal.waiting
        try:
            if not journal.append_now(*arguments):
                await journal.append(*arguments)
        except JournalFull:
            assert journal.waiting == before
            return
        model.add(*arguments)
        if journal.waiting - before != len(model.records) - model.ends[-2]:
            # The batch before went out to make room.
            model.committed = model.ends[-2]

    async def purge(self, journal: PrimaryJournal, number: int) -> None:
        model, regions = self.model, journal.regions
        end = await journal.sync()
        model.committed = model.synced = len(model.records)
        places = [end]
        async for run in journal.runs(regions.redo, end):
            places += [each.entry.end for each in run if not each.entry.more]
        journal.redone(sorted(places)[number % len(places)])
        places = [regions.oldest]
        async for run in journal.runs(regions.oldest, regions.redo):
            places += [each.entry.end for each in run if not each.entry.more]
        # Mostly all of it, so that the journal goes round.
        to: Position = places[-1] if number % 3 else places[number % len(places)]
        model.oldest.add(to.sequence)
        await journal.purge(to)
        model.oldest = {to.sequence}
        assert regions.oldest == to


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("append",) * 8 + ("commit", "commit", "sync", "purge", "purge", "save", "refuse", "crash")),
        st.integers(0, 99),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=25,
)
ENDS = st.tuples(st.sampled_from(("kill", "power", "power")), st.integers(0, 1 << 30), st.sampled_from((512, 4096)))


@settings(max_examples=examples(24), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 99), STEPS, ENDS), min_size=2, max_size=6))
def test_what_is_found_is_a_prefix(disk: Path, lives: list[tuple[int, list[Step], tuple[str, int, int]]]) -> None:
    async def all_lives() -> None:
        medium = Disk(disk / "journal", DISK_BYTES)
        async with medium.volume() as volume:
            await PrimaryJournal.create(volume, GROUP, 1)
        tested = Lives(medium)
        for opening, steps, (end, seed, unit) in lives:
            await tested.live(iter([("open", opening, seed), *steps]))
            if end == "power":
                medium.lose_power(random.Random(seed), unit)
                tested.power = True
        await tested.live(iter([("open", 99, 0), ("append", 1, 1), ("sync", 0, 0)]))

    asyncio.run(all_lives())


def test_over_many_laps(disk: Path) -> None:
    """A long life, killed now and then, so that the region's end is met at all places."""

    async def long() -> None:
        medium = Disk(disk / "journal", DISK_BYTES)
        async with medium.volume() as volume:
            await PrimaryJournal.create(volume, GROUP, 1)
        tested, chance = Lives(medium), random.Random(15)
        for _ in range(12):
            steps = [("open", 99, 0)]
            for _ in range(40):
                what = chance.choice(("append", "append", "append", "append", "commit", "purge"))
                steps.append((what, chance.randrange(100), chance.randrange(100)))
            await tested.live(iter(steps))
        await tested.live(iter([("open", 99, 0)]))
        assert tested.laps > 10

    asyncio.run(long())
