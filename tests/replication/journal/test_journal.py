"""A primary journal on a volume: what is written where, with how few calls; what must wait, is full, fails."""

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path

import pytest

from arrayd.replication.journal import (
    JournalDamaged,
    JournalError,
    JournalFull,
    Kind,
    Position,
    PrimaryJournal,
)
from arrayd.replication.journal.format import ENTRY_BYTES, METADATA_AT, MORE, decode_entry
from arrayd.replication.journal.regions import START
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeFailed
from tests.lab.disk import MIB, HeldThreads, OpenFile
from tests.replication.journal.writes import GROUP, NOTHING, TIME, all_of, append, block
from tests.replication.lossy import Disk, LossyVolume
from tests.replication.runs import served

# -- stored ------------------------------------------------------------------------------------------------------------


async def test_figure_12_metadata_and_journal_data(volume: LossyVolume) -> None:
    """For an update its time (1203), where on the volume (1204), where in the journal (1206) and how much."""
    journal = await PrimaryJournal.create(volume, GROUP, 5)
    assert append(journal, 1, 1024)
    assert journal.append_now(2, Kind.UNMAP, 0, MIB, NOTHING, TIME)
    assert append(journal, 2)
    assert journal.commit_now()
    lies = volume.disk.path.read_bytes()
    first, unmap, second = (decode_entry(lies, METADATA_AT + number * ENTRY_BYTES) for number in range(3))
    assert first[:8] == (1, 0, 5, TIME + 1, 4096, 1024, 0, 1024)
    assert (unmap.kind, unmap.volume, unmap.extent, unmap.position, unmap.length) == (Kind.UNMAP, 2, MIB, 1024, 0)
    assert second[:8] == (1, 2, 5, TIME + 2, 8192, 4096, 1024, 4096)
    data_at = METADATA_AT + journal.regions.size.entries * ENTRY_BYTES
    assert lies[data_at : data_at + 5120] == bytes(block(1, 1024)) + bytes(block(2))
    out, into = journal.regions.lbas(data_at).values()
    assert (out, into) == (data_at // 512, data_at // 512 + 10)


async def test_a_batch_goes_out_in_two_calls_data_first(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    volume.calls.clear()
    for number in range(32):
        assert append(journal, number)
    assert (volume.calls, journal.waiting, journal.regions.stored) == ([], 32, START)
    assert journal.commit_now()
    assert (volume.calls, journal.waiting, journal.regions.stored) == (["write"] * 2, 0, Position(32, 32 * 4096))
    assert [offset for offset, _ in volume.disk.since] == [
        METADATA_AT + journal.regions.size.entries * ENTRY_BYTES,
        METADATA_AT,
    ]
    assert journal.commit_now()
    assert volume.calls == ["write"] * 2


async def test_a_long_write_is_several_records_that_are_one(disk: Path) -> None:
    async with Disk(disk / "journal", 6 * MIB).volume() as volume:
        journal = await PrimaryJournal.create(volume, GROUP, 1)
        long = block(1, 5 * MIB // 2)
        assert journal.append_now(0, Kind.WRITE, 4096, len(long), long, TIME)
        assert journal.commit_now()
        records = await all_of(journal)
        assert [record.entry.flags for record in records] == [MORE, MORE, 0]
        assert [record.entry.offset for record in records] == [4096, 4096 + MIB, 4096 + 2 * MIB]
        assert b"".join(record.data for record in records) == long
        assert {record.entry.time for record in records} == {TIME}
        # Where it says that more follows no other array may stop, and nothing be purged.
        await journal.sync()
        run, end = await served(journal, START, 512)
        assert end == journal.regions.stored
        assert len(run) > len(long)
        journal.redone(end)
        with pytest.raises(JournalError, match="no write begins at"):
            await journal.purge(records[0].entry.end)
        assert journal.regions.oldest == START


async def test_a_batch_too_large_is_written_in_between(disk: Path) -> None:
    async with Disk(disk / "journal", 14 * MIB).volume() as volume:
        journal = await PrimaryJournal.create(volume, GROUP, 1)
        for number in range(10):
            assert append(journal, number, MIB)
        assert (journal.regions.stored.sequence, journal.waiting) == (8, 2)
        for _ in range(300):
            assert journal.append_now(0, Kind.ZEROS, 0, 512, NOTHING, TIME)
        assert journal.commit_now()
        records = await all_of(journal)
        assert len(records) == 310
        assert all(records[number].data == block(number, MIB) for number in range(10))


async def test_a_full_journal_says_so_before_anything_is_written(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    number = 0
    while True:
        try:
            assert append(journal, number, 32768)
        except JournalFull:
            break
        number += 1
        assert journal.commit_now()
    assert number > 20
    assert journal.regions.nearly_full
    before, volume.calls = journal.regions.positions, []
    with pytest.raises(JournalFull, match="no room for a write of 2097152 bytes"):
        journal.append_now(0, Kind.WRITE, 0, 2 * MIB, memoryview(bytes(2 * MIB)), TIME)
    with pytest.raises(JournalFull):
        await journal.append(0, Kind.WRITE, 0, 32768, block(0, 32768), TIME)
    assert (journal.regions.positions, volume.calls, journal.waiting) == (before, [], 0)
    journal.redone(await journal.sync())
    await journal.purge(journal.regions.redo)
    assert journal.regions.used_share == 0
    assert append(journal, number, 32768)


async def test_a_journal_is_full_of_entries_as_well(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    entries = journal.regions.size.entries
    for _ in range(entries):
        assert journal.append_now(0, Kind.UNMAP, 0, 512, NOTHING, TIME)
    with pytest.raises(JournalFull):
        journal.append_now(0, Kind.UNMAP, 0, 512, NOTHING, TIME)
    assert journal.commit_now()
    assert len(await all_of(journal)) == entries


async def test_what_must_wait_goes_by_a_thread_and_in_order(open_file: OpenFile, held: HeldThreads) -> None:
    volume = FileVolume("1:journal", await open_file(size=MIB))
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    on_the_spot, refuse = volume.file.write_now, lambda offset, view: False
    executor, volume.file._executor = volume.file._executor, held
    assert append(journal, 0)
    volume.write_now = volume.file.write_now = refuse
    assert not journal.commit_now()
    writing = asyncio.ensure_future(journal.commit())
    await asyncio.sleep(0)
    assert len(held.jobs) == 1
    # The batch is in use: nothing is collected, and whoever must waits.
    assert not append(journal, 1)
    assert not journal.commit_now()
    waiting = asyncio.ensure_future(journal.append(1, Kind.WRITE, 4096, 4096, block(1), TIME + 1))
    await held.run()
    assert journal.regions.stored == START
    await held.run()
    await writing
    await waiting
    assert (journal.regions.stored, journal.waiting) == (Position(1, 4096), 1)
    volume.write_now = volume.file.write_now = on_the_spot
    assert journal.commit_now()
    volume.file._executor = executor
    assert [record.data for record in await all_of(journal)] == [block(0), block(1)]


async def test_who_gives_up_waiting_leaves_the_journal_whole(open_file: OpenFile, held: HeldThreads) -> None:
    volume = FileVolume("1:journal", await open_file(size=MIB))
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    assert append(journal, 0)
    volume.write_now = volume.file.write_now = lambda offset, view: False
    executor, volume.file._executor = volume.file._executor, held
    writing = asyncio.ensure_future(journal.commit())
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    await held.run()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (journal.waiting, journal.regions.stored) == (1, START)
    volume.file._executor = executor
    await journal.commit()
    assert [record.data for record in await all_of(journal)] == [block(0)]


async def test_syncs_that_wait_together_share_one(open_file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = FileVolume("1:journal", await open_file(size=MIB))
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert append(journal, 0)
    ends = await asyncio.gather(*(journal.sync() for _ in range(8)))
    assert (ends, len(synced)) == ([Position(1, 4096)] * 8, 1)
    assert journal.regions.synced == Position(1, 4096)


# -- what fails --------------------------------------------------------------------------------------------------------


async def test_a_failed_sync_fails_the_journal(volume: LossyVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never tried again: what is collected must not come after what is lost."""
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    assert append(journal, 0)

    async def fails() -> None:
        raise VolumeFailed("gone")

    monkeypatch.setattr(volume, "flush", fails)
    with pytest.raises(VolumeFailed):
        await journal.sync()
    monkeypatch.undo()
    assert journal.regions.synced == START
    assert not append(journal, 1)
    assert not journal.commit_now()
    for attempt in (journal.sync(), journal.append(0, Kind.UNMAP, 0, 512, NOTHING, TIME), journal.commit()):
        with pytest.raises(VolumeFailed, match="gone"):
            await attempt


@pytest.mark.parametrize("where", ["write", "superblock"])
async def test_a_failed_write_fails_the_journal(
    volume: LossyVolume, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)

    def fails(offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        raise VolumeFailed("gone")

    monkeypatch.setattr(volume, "write", fails)
    volume.refused = 1
    if where == "write":
        assert append(journal, 0)
    with pytest.raises(VolumeFailed):
        await (journal.commit() if where == "write" else journal.save())
    assert isinstance(journal.failure, VolumeFailed)
    assert not append(journal, 1)
    with pytest.raises(VolumeFailed):
        await journal.commit()


async def test_what_the_disk_has_lost_is_told(volume: LossyVolume) -> None:
    journal = await PrimaryJournal.create(volume, GROUP, 1)
    for number in range(3):
        assert append(journal, number)
    await journal.sync()
    await journal.save()
    data_at = METADATA_AT + journal.regions.size.entries * ENTRY_BYTES
    with volume.disk.path.open("r+b") as file:
        file.seek(data_at + 4096)
        file.write(b"lost")
    again = await PrimaryJournal.open(volume)
    assert again.regions.stored.sequence == 3
    with pytest.raises(JournalDamaged, match="record 1 is not what was written"):
        await all_of(again)
    with pytest.raises(JournalDamaged, match="record 1"):
        await served(again, START, MIB)
