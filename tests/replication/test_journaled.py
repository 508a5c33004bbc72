"""A P-VOL as its hosts see it: reads, order of what overlaps, locks, durable writes; and by SCSI commands."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arrayd.blockfile import BlockFile, Writeback
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import Kind, PrimaryJournal
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.redo import redo
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeReadOnly
from tests.lab.disk import MIB, PLENTY, turns
from tests.replication.group_parts import GROUP, Parts, block, pending


@pytest.fixture
async def parts() -> Parts:
    made = Parts()
    await made.make()
    return made


def read(volume: JournaledVolume, offset: int, length: int = 4096) -> bytes:
    view = bytearray(length)
    assert volume.read_now(offset, memoryview(view))
    return bytes(view)


async def test_reads_are_the_volume_s_own(parts: Parts) -> None:
    volume = parts.volumes[0]
    assert volume.read_now == parts.raw[0].read_now
    assert (volume.size, volume.identity, volume.block_size) == (MIB, "1:0", 512)
    await pending(volume.write(4096, block(1)))
    assert read(volume, 4096) == block(1)


async def test_kinds_are_journaled_as_what_they_are(parts: Parts) -> None:
    volume = parts.volumes[0]
    await asyncio.gather(
        pending(volume.write(0, block(1, 16384))),
        pending(volume.unmap(4096, 4096)),
        pending(volume.write_zeros(8192, 4096)),
    )
    found = [(each.entry.kind, each.entry.extent, each.entry.length) for each in await parts.records()]
    assert found == [(Kind.WRITE, 16384, 16384), (Kind.UNMAP, 4096, 0), (Kind.ZEROS, 4096, 0)]
    assert read(volume, 0, 16384) == bytes(block(1)) + bytes(8192) + bytes(block(1))
    volume.thin = False
    await pending(volume.unmap(0, 4096))
    assert (await parts.records())[-1].entry.kind == Kind.ZEROS


async def test_a_read_only_volume_journals_nothing(parts: Parts) -> None:
    parts.raw[0].read_only = True
    volume = JournaledVolume(parts.raw[0], parts.group, 9)
    with pytest.raises(VolumeReadOnly):
        volume.write(0, block(1))
    with pytest.raises(VolumeReadOnly):
        volume.unmap(0, 4096)
    assert volume.commit_now(0, block(1)) is None
    assert await parts.records() == []


async def test_what_overlaps_is_in_one_order_in_journal_and_volume(parts: Parts) -> None:
    """Some on the spot, some not, and the volume lets none of them through at once."""
    parts.files[0].refusals = 0.6
    volume, waits = parts.volumes[0], []
    for number in range(1, 60):
        spot = volume.commit_now(number % 7 * 512, block(number, 4096)) if number % 3 else None
        waits.append(spot or pending(volume.write(number % 7 * 512, block(number))))
        if number % 10 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*waits)
    content = bytearray(8192)
    for entry, data in await parts.records():
        content[entry.offset : entry.offset + entry.extent] = data
    assert parts.files[0].content[:8192] == content


async def test_a_lock_waits_for_what_was_taken_and_holds_up_what_comes(parts: Parts) -> None:
    """COMPARE AND WRITE: in the journal, too, no other write is between what it compared and what it wrote."""
    volume = parts.volumes[0]
    before = volume.commit_now(0, block(1))
    assert before is not None
    async with volume.lock(0, 8192):
        assert read(volume, 0) == block(1)
        assert volume.commit_now(4096, block(9)) is None
        behind = pending(volume.write(4096, block(2)))
        beside = volume.commit_now(8192, block(3))
        assert beside is not None
        await beside
        assert not behind.done()
        await pending(volume.write_under_lock(0, block(4, 8192)))
        assert read(volume, 0, 8192) == block(4, 8192)
        await turns()
        assert not behind.done()
    await behind
    assert read(volume, 4096) == block(2)
    assert [bytes(each.data[:1]) for each in await parts.records()] == [b"\1", b"\3", b"\4", b"\2"]
    assert volume.commit_now(0, block(5)) is not None
    await turns()


async def test_many_writes_behind_one_lock(parts: Parts) -> None:
    """As many as Python would not let release each other from within one another."""
    volume = parts.volumes[0]
    async with volume.lock(0, 4096):
        waits = [pending(volume.write(0, block(number % 256, 512))) for number in range(300)]
    await asyncio.gather(*waits)
    assert read(volume, 0, 512) == block(299 % 256, 512)


async def test_durable_writes_are_durable_in_the_journal(parts: Parts) -> None:
    """A group of them by one sync; what a power loss takes from the volume comes back from the journal."""
    await parts.group.checkpoint()
    parts.forget()
    waits = [
        pending(parts.volumes[number % 3].write(number * 4096, block(number), durable=True)) for number in range(9)
    ]
    plain = pending(parts.volumes[0].write(0, block(77)))
    await plain
    assert not any(each.done() for each in waits)
    await asyncio.gather(*waits)
    assert parts.journal_file.calls == ["write", "write", "sync"]
    assert "sync" not in parts.files[0].calls
    for file in (*parts.files, parts.journal_file):
        file.content[:] = file.durable
        file.since.clear()
    assert read(parts.volumes[1], 4096) == bytes(4096)
    await parts.open()
    assert [read(parts.volumes[number % 3], number * 4096) for number in range(1, 9)] == [
        block(number) for number in range(1, 9)
    ]


async def test_without_a_write_cache_each_answer_is_durable() -> None:
    parts = Parts(write_cache=False)
    await parts.make()
    await parts.group.checkpoint()
    volume = parts.volumes[0]
    parts.forget()
    spot, other = volume.commit_now(0, block(1)), pending(volume.write(4096, block(3)))
    assert spot is not None
    assert volume.commit_now(8192, block(2)) is spot
    await asyncio.gather(spot, other)
    assert parts.journal.regions.synced.sequence == 3
    assert parts.journal_file.calls.count("sync") == 1
    assert parts.raw[0].write_cache
    assert not volume.write_cache


async def test_who_gives_up_waiting(parts: Parts) -> None:
    """The write is carried out all the same: the journal has it."""
    volume = parts.volumes[0]
    gone, stays = pending(volume.write(0, block(1), durable=True)), pending(volume.write(4096, block(2)))
    gone.cancel()
    await stays
    await turns(20)
    assert read(volume, 0) == block(1)
    waiting = asyncio.ensure_future(_hold(volume))
    await asyncio.sleep(0)
    waiting.cancel()
    await turns()
    await pending(volume.write(0, block(3)))
    assert read(volume, 0) == block(3)


async def _hold(volume: JournaledVolume) -> None:
    async with volume.lock(0, 4096):
        pass


# -- on files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[list[FileVolume]]:
    """Two volumes and one for a journal, on whatever the temporary folder is on."""
    with ThreadPoolExecutor(2) as threads:
        opened = [
            await BlockFile.open(tmp_path / name, 4 * MIB, threads, Writeback(PLENTY)) for name in ("a", "b", "journal")
        ]
        yield [FileVolume(f"1:{file.path.name}", file) for file in opened]
        for file in opened:
            await file.close()


async def test_figure_10_a_p_vol_on_files(files: list[FileVolume]) -> None:
    """Written by hosts, cut off, redone: as it was."""
    *raw, disk = files
    journal = await PrimaryJournal.create(disk, GROUP, 1)
    group = PrimaryGroup(journal, iter(range(1 << 30)).__next__, lambda event, reason: None)
    volumes = [JournaledVolume(volume, group, number) for number, volume in enumerate(raw)]
    waits = []
    for number in range(64):
        offset, content = number * 8192 % MIB, memoryview(os.urandom(8192))
        spot = volumes[number % 2].commit_now(offset, content) if number % 4 else None
        waits.append(spot or pending(volumes[number % 2].write(offset, content)))
    waits.append(pending(volumes[0].unmap(4096, 65536)))
    await asyncio.gather(*waits)
    await pending(volumes[0].flush())
    await group.close()
    before = [volume.file.path.read_bytes() for volume in raw]
    for volume, offset, length in ((raw[0], 0, 65536), (raw[1], 8192, 8192)):
        assert volume.write_now(offset, block(255, length))
    again = await PrimaryJournal.open(disk)
    assert again.regions.stored.sequence == 65
    end = await redo(again, dict(enumerate(raw)))
    assert end == again.regions.redo
    assert [volume.file.path.read_bytes() for volume in raw] == before
