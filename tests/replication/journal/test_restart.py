"""A journal that is made, and opened again: what is taken for a record, and what is not."""

import asyncio
import random
from pathlib import Path

import pytest

from arrayd.replication.journal import (
    AuxiliaryJournal,
    JournalDamaged,
    JournalError,
    JournalFull,
    Kind,
    Position,
    PrimaryJournal,
)
from arrayd.replication.journal.format import CHAIN_BYTES, ENTRY_BYTES, METADATA_AT, SERVED_BYTES, SUPERBLOCK_PLACES
from arrayd.replication.journal.regions import START
from tests.lab.disk import MIB
from tests.replication.journal.writes import GROUP, NOTHING, TIME, all_of, append, block
from tests.replication.lossy import Disk, LossyVolume
from tests.replication.runs import served

# -- after a restart ---------------------------------------------------------------------------------------------------


def spoil(volume: LossyVolume, at: int) -> None:
    """A byte of the disk is not what was written."""
    with volume.disk.path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


async def test_a_write_that_is_torn_is_not_there_at_all(disk: Path) -> None:
    async with Disk(disk / "journal", 6 * MIB).volume() as volume:
        journal = await PrimaryJournal.create(volume, GROUP, 1)
        assert append(journal, 0)
        assert append(journal, 1, 5 * MIB // 2)
        assert append(journal, 2)
        assert journal.commit_now()
        data_at = METADATA_AT + journal.regions.size.entries * ENTRY_BYTES
        spoil(volume, data_at + 4096 + 2 * MIB)  # in the last of its three records
        again = await PrimaryJournal.open(volume)
        assert again.regions.stored == Position(1, 4096)
        assert [record.data for record in await all_of(again)] == [block(0)]


async def test_what_was_stored_behind_a_torn_record_does_not_come_back(volume: LossyVolume) -> None:
    """Not even when what is stored in its place ends where that began."""
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    for number in range(3):
        assert append(journal, number)
    assert journal.commit_now()
    spoil(volume, METADATA_AT + journal.regions.size.entries * ENTRY_BYTES + 4096)
    again = await PrimaryJournal.open(volume)
    assert again.regions.stored == Position(1, 4096)
    stale = volume.disk.path.read_bytes()[METADATA_AT + 2 * ENTRY_BYTES :][:ENTRY_BYTES]
    assert append(again, 3)
    assert again.commit_now()
    with volume.disk.path.open("r+b") as file:
        file.seek(METADATA_AT + 2 * ENTRY_BYTES)
        file.write(stale)  # the sector that it is in, as it was before
    again = await PrimaryJournal.open(volume)
    assert [record.entry.time - TIME for record in await all_of(again)] == [0, 3]


@pytest.mark.parametrize("behind", [1, 2])
async def test_a_torn_superblock_costs_nothing(volume: LossyVolume, behind: int) -> None:
    """Whichever of the last ones is torn, the one before it leads to all records."""
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    for number in range(6):
        assert append(journal, number)
        await journal.sync()
        await journal.save()
    spoil(volume, SUPERBLOCK_PLACES[(journal._superblock.counter - behind + 1) % 2] + 100)
    again = await PrimaryJournal.open(volume)
    assert again.regions.stored.sequence == 6
    assert len(await all_of(again)) == 6


async def test_what_is_found_is_durable_before_the_superblock_says_so(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    assert append(journal, 0)
    assert journal.commit_now()
    volume.calls = []
    again = await PrimaryJournal.open(volume)
    data_and_entries, superblock = ["write", "write", "flush"], ["write", "flush"]
    assert volume.calls == ["flush", *data_and_entries, *superblock]
    assert again.regions.synced == again.regions.stored == Position(1, 4096)


async def test_what_a_failed_sync_left_out_is_durable_once_it_is_opened_again(disk: Path) -> None:
    """The kernel takes it for clean, and it was taken for synced: a power loss later had lost what was served."""
    lost = Disk(disk / "journal", 6 * MIB)
    async with lost.volume() as volume:
        journal = await PrimaryJournal.create(volume, GROUP, 1)
        assert append(journal, 0)
        await journal.sync()
        await journal.save()
        for number in range(1, 40):
            assert append(journal, number, 65536)
        assert journal.commit_now()
        lost.since.clear()
        end = (await PrimaryJournal.open(volume)).regions.synced
    lost.lose_power(random.Random(1), 4096)
    async with lost.volume() as volume:
        again = await PrimaryJournal.open(volume)
        assert again.regions.stored == end == Position(40, 4096 + 39 * 65536)
        assert len(await all_of(again)) == 40


async def test_entries_of_the_lap_before_are_none_though_no_data_was_stored(volume: LossyVolume) -> None:
    """They have the position, the epoch and the opening that are due."""
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    for _ in range(journal.regions.size.entries):
        assert journal.append_now(0, Kind.UNMAP, 0, 512, NOTHING, TIME)
    journal.redone(await journal.sync())
    await journal.purge(journal.regions.redo)
    end = journal.regions.stored
    assert (await PrimaryJournal.open(volume)).regions.stored == end


async def test_room_is_free_once_the_purge_is_durable(volume: LossyVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that a superblock may lead to what would be written over."""
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    while True:
        try:
            assert append(journal, 0, 65536)
        except JournalFull:
            break
    journal.redone(await journal.sync())
    durable = asyncio.Event()
    monkeypatch.setattr(volume, "flush", durable.wait)
    purging = asyncio.ensure_future(journal.purge(journal.regions.redo))
    for _ in range(8):
        await asyncio.sleep(0)
        with pytest.raises(JournalFull):
            append(journal, 0, 65536)
    durable.set()
    await purging
    assert append(journal, 0, 65536)


# -- made and opened ---------------------------------------------------------------------------------------------------


async def test_only_what_is_a_journal_is_opened(volume: LossyVolume, disk: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        await PrimaryJournal.open(volume)
    await PrimaryJournal.create(volume, GROUP, 1)
    with pytest.raises(JournalError, match="the journal is primary, not auxiliary"):
        await AuxiliaryJournal.open(volume)
    (disk / "cut").write_bytes(b"")
    cut = Disk(disk / "cut", MIB // 2)
    cut.path.write_bytes(volume.disk.path.read_bytes()[: MIB // 2])
    async with cut.volume() as smaller:
        with pytest.raises(JournalDamaged, match="larger than its volume, which has 524288 bytes"):
            await PrimaryJournal.open(smaller)
    async with Disk(disk / "tiny", 16384).volume() as tiny:
        with pytest.raises(JournalError, match="8192 bytes are too few"):
            await PrimaryJournal.create(tiny, GROUP, 1)


async def test_another_epoch_sees_nothing_of_the_one_before(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 3)
    for number in range(5):
        assert append(journal, number)
    await journal.sync()
    before = volume.disk.path.read_bytes()
    for epoch in (2, 3):
        with pytest.raises(JournalError, match=f"epoch {epoch} for a journal that has seen epoch 3"):
            await PrimaryJournal.create(volume, GROUP, epoch)
    await PrimaryJournal.create(volume, bytes(16), 4)
    # Even if the entries of the one before are all there again.
    end = METADATA_AT + journal.regions.size.entries * ENTRY_BYTES
    with volume.disk.path.open("r+b") as file:
        file.seek(METADATA_AT)
        file.write(before[METADATA_AT:end])
    again = await PrimaryJournal.open(volume)
    assert (again.epoch, again.group, again.regions.stored) == (4, bytes(16), START)


async def test_a_journal_begins_where_it_is_told(volume: LossyVolume) -> None:
    start = Position(1000, 5 * 512)
    journal = await PrimaryJournal.create(volume, GROUP, 1, start)
    assert append(journal, 7)
    await journal.sync()
    again = await PrimaryJournal.open(volume)
    assert again.regions.oldest == start
    assert [record.data for record in await all_of(again)] == [block(7)]


async def test_only_what_is_durable_is_served(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    assert append(journal, 0)
    end = await journal.sync()
    assert append(journal, 1)
    assert journal.commit_now()
    run, told = await served(journal, START, MIB)
    assert told == end
    assert run[SERVED_BYTES:-CHAIN_BYTES] == block(0)
    for nowhere in (journal.regions.stored, Position(0, 512), Position(1, 0)):
        with pytest.raises(JournalError, match=r"is not in the journal|no write begins at"):
            await served(journal, nowhere, MIB)
    assert (await served(journal, end, MIB))[1] == end


async def test_an_epoch_can_be_that_of_the_other_role_if_it_was_only_prepared(volume: LossyVolume) -> None:
    """A change of places that power loss has cut short before it was committed, and then one the other way round: the
    group has the same epoch again."""
    await PrimaryJournal.create(volume, GROUP, 3)
    with pytest.raises(JournalError, match="epoch 3"):
        await AuxiliaryJournal.create(volume, bytes(16), 3)
    journal = await AuxiliaryJournal.create(volume, GROUP, 3)
    assert journal.regions.stored == START
    assert (await AuxiliaryJournal.open(volume)).epoch == 3
    with pytest.raises(JournalError, match="epoch 2"):
        await PrimaryJournal.create(volume, GROUP, 2)
