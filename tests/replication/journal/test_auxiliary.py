"""An auxiliary journal that follows a primary one: figures 13 and 14 at the journals, through losses of power."""

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.replication.journal import (
    AuxiliaryJournal,
    FormatError,
    JournalError,
    JournalFull,
    Kind,
    Position,
    PrimaryJournal,
    Record,
)
from arrayd.replication.journal import journal as journal_module
from arrayd.replication.journal.format import CHAIN_BYTES
from arrayd.replication.journal.regions import START
from tests.lab.search import examples
from tests.replication.journal.strategies import write
from tests.replication.lossy import Disk
from tests.replication.runs import served

GROUP = b"a group's number"
SMALL, LARGE = 14 * 4096, 20 * 4096
BYTES_MAX = 16384


async def append(journal: PrimaryJournal, number: int, blocks: int = 4) -> None:
    kind = (Kind.WRITE, Kind.WRITE, Kind.UNMAP, Kind.PATTERN, Kind.ZEROS)[number % 5]
    extent, data = write(kind, blocks, number)
    await journal.append(number % 3, kind, 512 * (number % 99), extent, data, number)


async def follow(primary: PrimaryJournal, auxiliary: AuxiliaryJournal) -> None:
    """One journal acquisition."""
    run, end = await served(primary, auxiliary.regions.stored, BYTES_MAX)
    auxiliary.acquire(end)
    assert await auxiliary.store_run(run) == end
    assert await auxiliary.sync() == end


async def times(journal: PrimaryJournal | AuxiliaryJournal) -> list[int]:
    regions = journal.regions
    return [each.entry.time async for run in journal.runs(regions.oldest, regions.stored) for each in run]


def fields(record: Record) -> tuple[object, ...]:
    """What both journals have of a record."""
    return (*record.entry._replace(opening=0), bytes(record.data))


async def test_figures_13_to_16_round_and_round(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acquisition, restoration and purge, over laps of both journals, which are of different sizes. Each array forgets
    the hashes that it knew, and computes them again."""
    monkeypatch.setattr(journal_module, "CHAINS_MAX", 2)
    async with Disk(disk / "one", SMALL).volume() as one, Disk(disk / "two", LARGE).volume() as two:
        primary = await PrimaryJournal.create(one, GROUP, 1)
        auxiliary = await AuxiliaryJournal.create(two, GROUP, 1)
        restored: list[int] = []
        for turn in range(40):
            for number in range(7):
                await append(primary, turn * 7 + number, 1 + number)
            end = await primary.sync()
            primary.redone(end)
            while auxiliary.regions.synced != end:
                await follow(primary, auxiliary)
            assert await auxiliary.chain(end) == await primary.chain(end)
            if turn % 3 == 2:
                auxiliary = await AuxiliaryJournal.open(two)
            assert auxiliary.regions.synced == auxiliary.regions.to_be_read == end
            await auxiliary.restore(end)
            async for run in auxiliary.runs(auxiliary.regions.oldest, end):
                restored += [record.entry.time for record in run]
            await auxiliary.restored(end)
            await primary.purge(auxiliary.regions.synced)
            if turn % 4 == 3:
                primary = await PrimaryJournal.open(one)
        assert restored == list(range(280))
        assert primary.regions.stored.byte > 3 * primary.regions.size.data_bytes
        assert primary.regions.oldest == primary.regions.stored == auxiliary.regions.oldest


async def test_both_journals_have_the_same_records(disk: Path) -> None:
    async with Disk(disk / "one", SMALL).volume() as one, Disk(disk / "two", SMALL).volume() as two:
        start = Position(77, 512 * 77)
        primary = await PrimaryJournal.create(one, GROUP, 9, start)
        auxiliary = await AuxiliaryJournal.create(two, GROUP, 9, start)
        for number in range(10):
            await append(primary, number)
        await primary.sync()
        await follow(primary, auxiliary)
        mine = [fields(each) async for run in primary.runs(start, auxiliary.regions.stored) for each in run]
        assert [fields(each) async for run in auxiliary.runs(start, auxiliary.regions.stored) for each in run] == mine
        # One that begins in the middle needs the hash there.
        middle = auxiliary.regions.stored
        await append(primary, 11)
        await primary.sync()
        late = await AuxiliaryJournal.create(two, GROUP, 10, middle, await primary.chain(middle))
        with pytest.raises(FormatError, match="a record of epoch 9: this is epoch 10"):
            await late.store_run((await served(primary, middle, BYTES_MAX))[0])


async def test_what_is_to_be_restored_is_known_after_a_power_loss(disk: Path) -> None:
    """Until it is restored the S-VOLs may have any part of it."""
    one, two = Disk(disk / "one", SMALL), Disk(disk / "two", SMALL)
    async with one.volume() as first, two.volume() as second:
        primary = await PrimaryJournal.create(first, GROUP, 1)
        auxiliary = await AuxiliaryJournal.create(second, GROUP, 1)
        for number in range(4):
            await append(primary, number)
        end = await primary.sync()
        await follow(primary, auxiliary)
        await auxiliary.restore(end)
    two.lose_power(random.Random(1), 512)
    async with two.volume() as second:
        auxiliary = await AuxiliaryJournal.open(second)
        regions = auxiliary.regions
        assert (regions.oldest, regions.to_be_restored, regions.synced) == (START, end, end)
        assert await times(auxiliary) == [0, 1, 2, 3]


async def test_only_what_is_due_is_taken(disk: Path) -> None:
    async with Disk(disk / "one", LARGE).volume() as one, Disk(disk / "two", SMALL).volume() as two:
        primary = await PrimaryJournal.create(one, GROUP, 1)
        auxiliary = await AuxiliaryJournal.create(two, GROUP, 1)
        for number in range(3):
            await append(primary, number)
        middle = await primary.sync()
        run, _ = await served(primary, START, BYTES_MAX)
        with pytest.raises(JournalError, match="was to be read"):
            await auxiliary.store_run(run)
        changed = bytearray(run)
        changed[-40] ^= 1
        auxiliary.acquire(middle)
        with pytest.raises(FormatError):
            await auxiliary.store_run(memoryview(changed))
        assert (auxiliary.waiting, auxiliary.regions.stored) == (0, START)
        assert await auxiliary.store_run(run) == middle
        with pytest.raises(FormatError, match=r"where .* is due"):
            await auxiliary.store_run(run)
        with pytest.raises(JournalError, match="is before"):
            auxiliary.acquire(START)
        for number in range(24):
            await append(primary, 5 * number)
        with pytest.raises(JournalFull, match="no room for what is before"):
            auxiliary.acquire(await primary.sync())
        # None is a run, too.
        nothing, _ = await served(primary, await primary.sync(), BYTES_MAX)
        assert len(nothing) == CHAIN_BYTES


STEPS = st.lists(st.sampled_from(("write", "write", "write", "take", "take", "sync", "restore", "power", "kill")))


@settings(max_examples=examples(16), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(0, 1 << 30), st.sampled_from((512, 4096)))
def test_it_goes_on_where_it_was(disk: Path, steps: list[str], seed: int, unit: int) -> None:
    """Whatever happens to the auxiliary array, it has exactly the records of the primary one up to some place, not
    before read-completed, and takes the next ones from there."""
    chance = random.Random(seed)

    async def lives() -> None:
        first, second = Disk(disk / "one", LARGE), Disk(disk / "two", SMALL)
        async with first.volume() as one:
            primary = await PrimaryJournal.create(one, GROUP, 1)
            async with second.volume() as two:
                auxiliary = await AuxiliaryJournal.create(two, GROUP, 1)
            number = 0
            for life in "".join(f"{step} " for step in steps).replace("kill", "|").replace("power", "|!").split("|"):
                if life.startswith("!"):
                    synced = auxiliary.regions.synced
                    second.lose_power(chance, unit)
                async with second.volume() as two:
                    before = auxiliary.regions
                    auxiliary = await AuxiliaryJournal.open(two)
                    regions = auxiliary.regions
                    assert regions.synced >= (synced if life.startswith("!") else before.stored)
                    assert (regions.oldest, regions.to_be_restored) == (before.oldest, before.to_be_restored)
                    assert await times(auxiliary) == list(range(regions.oldest.sequence, regions.stored.sequence))
                    for step in life.lstrip("!").split():
                        if step == "write" and number < 50:
                            await append(primary, number, 1 + number % 5)
                            number += 1
                        elif step == "take":
                            await primary.sync()
                            await auxiliary.commit()
                            run, end = await served(primary, auxiliary.regions.stored, BYTES_MAX)
                            if auxiliary.regions.fits(end):
                                auxiliary.acquire(end)
                                await auxiliary.store_run(run)
                                if chance.randrange(2):
                                    await auxiliary.commit()
                        elif step == "sync":
                            await auxiliary.sync()
                        elif step == "restore":
                            await auxiliary.restore(auxiliary.regions.synced)
                            await auxiliary.restored(auxiliary.regions.synced)

    asyncio.run(lives())
