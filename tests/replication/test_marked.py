"""A volume whose writes are marked first: what that costs, order, locks, failures, and how another takes its place."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import pytest

from arrayd.replication.bitmap import Bitmap, Geometry
from arrayd.replication.guarded import GuardedVolume
from arrayd.replication.marked import MarkedVolume
from arrayd.volumes.volume import Volume, VolumeFailed, VolumeReadOnly, finished
from tests.lab.disk import settled, turns
from tests.replication.group_parts import Parts as GroupParts
from tests.replication.modelled import Crash, ModelFile
from tests.replication.still import BLOCK, MIB, TWO, MarkedParts, block, content, pending, volume_of

REGION = 4096
TWO_BLOCKS = BLOCK + MIB
"""Of the bitmap: as many as the volume has."""


@pytest.fixture
async def parts() -> MarkedParts:
    made = MarkedParts()
    await made.make()
    return made


async def test_what_a_write_costs(parts: MarkedParts) -> None:
    """The first to a block waits for a sync of the bitmap, the first to a region for a write of it, others for none."""
    volume = parts.volume
    assert not volume.write_now(0, block(1))
    assert (parts.file.calls, parts.bits.calls) == ([], [])
    await pending(volume.write(0, block(1)))
    assert (parts.file.calls, parts.bits.calls) == (["write"], ["write", "sync", "write"])
    parts.bits.calls.clear()
    assert volume.write_now(0, block(2))
    assert parts.bits.calls == []
    assert volume.write_now(REGION, block(3))
    assert volume.write(2 * REGION, block(4)) is None
    assert parts.bits.calls == ["write", "write"]
    assert content(volume, 0, 3 * REGION) == bytes(block(2)) + bytes(block(3)) + bytes(block(4))
    assert parts.bitmap.marked_bytes == 3 * REGION
    assert volume.read_now is parts.raw.read_now


async def test_every_kind_of_write_is_marked(parts: MarkedParts) -> None:
    volume = parts.volume
    await settled(volume.write(0, block(1, 512), durable=True))
    await settled(volume.unmap(BLOCK, REGION))
    await settled(volume.write_zeros(BLOCK + 2 * REGION, REGION))
    async with volume.lock(4 * REGION, 9 * REGION):
        await settled(volume.write_under_lock(4 * REGION, block(2)))
        await settled(volume.write_under_lock(12 * REGION, block(2)))
    assert parts.file.durable[:512] == block(1, 512)
    marked = [(0, REGION), (4 * REGION, REGION), (12 * REGION, REGION), (BLOCK, REGION), (BLOCK + 2 * REGION, REGION)]
    assert list(parts.bitmap.ranges()) == marked


async def test_without_a_write_cache_writes_are_marked_and_answered_together() -> None:
    parts = MarkedParts(write_cache=False)
    await parts.make()
    volume = parts.volume
    assert not volume.write_cache
    assert volume.commit_now(0, block(1)) is None
    assert not volume.write_now(0, block(1))
    await pending(volume.write(0, block(1)))
    assert parts.file.durable[:REGION] == block(1)
    committed = volume.commit_now(REGION, block(2))
    assert committed is not None
    assert list(parts.bitmap.ranges()) == [(0, 2 * REGION)]
    await committed
    assert parts.file.durable[REGION : 2 * REGION] == block(2)


async def test_a_read_only_volume_marks_nothing() -> None:
    parts = MarkedParts(read_only=True)
    await parts.make()
    volume = parts.volume
    for write in (volume.write, volume.write_under_lock):
        with pytest.raises(VolumeReadOnly):
            write(0, block(1))
    assert not volume.write_now(0, block(1))
    assert volume.commit_now(0, block(1)) is None
    assert parts.bitmap.marked_bytes == 0


@pytest.mark.parametrize("seed", range(16))
async def test_what_the_disk_has_is_marked_whenever_power_fails(seed: int) -> None:
    """And after a kill. The volume was zeros: what is not any more is marked."""
    parts = MarkedParts(seed, refusals=0.3)
    await parts.make()
    chance = random.Random(seed)
    parts.machine.fuse = chance.randrange(60)
    waits: list[asyncio.Future[None]] = []
    try:
        for number in range(40):
            _write_somehow(parts.volume, chance, number + 1, waits)
            await turns(chance.randrange(4))
        await asyncio.gather(*waits)
    except Crash:
        pass
    await asyncio.gather(*waits, return_exceptions=True)
    parts.machine.dead, parts.machine.fuse = False, None
    power = bool(seed % 2)
    if power:
        parts.file.lose_power(512)
        parts.bits.lose_power(512)
    found = await Bitmap.open(volume_of(parts.bits), TWO if power else b"1" * 16)
    marked = bytearray(TWO_BLOCKS // REGION)
    for offset, length in found.ranges():
        marked[offset // REGION : (offset + length) // REGION] = b"\1" * (length // REGION)
    for offset in (*range(0, MIB, REGION), *range(BLOCK, BLOCK + MIB, REGION)):
        if any(parts.file.content[offset : offset + REGION]):
            assert marked[offset // REGION], offset


def _write_somehow(volume: Volume, chance: random.Random, byte: int, waits: list[asyncio.Future[None]]) -> None:
    """One write to the begin of one of two blocks of the bitmap, as hosts' writes come."""
    offset = chance.choice((0, BLOCK)) + chance.randrange(0, MIB // 2, 512)
    data = block(byte, chance.choice((512, 4096, 65536)))
    kind = chance.randrange(8)
    if kind < 4 and volume.write_now(offset, data):
        return
    if kind == 6:
        answer = volume.write_zeros(offset, len(data))
    elif kind == 7:
        answer = volume.unmap(offset, len(data))
    else:
        answer = volume.write(offset, data, kind == 5)
    if answer is not None:
        waits.append(asyncio.ensure_future(answer))


class Front:
    """What hosts see, and what they should find."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.expected = bytearray(TWO_BLOCKS)
        self.waits: list[asyncio.Future[None]] = []

    def write(self, chance: random.Random, byte: int) -> None:
        offset = chance.choice((0, BLOCK)) + chance.randrange(0, 32768, 512)
        length = chance.choice((512, 4096, 16384))
        data, kind = block(byte, length), chance.randrange(4)
        if kind:
            if kind > 1 or not self.volume.write_now(offset, data):
                self._answered(self.volume.write(offset, data, kind == 3))
        else:
            data = memoryview(bytes(length))
            self._answered(self.volume.unmap(offset, length))
        self.expected[offset : offset + length] = data

    def _answered(self, answer: Awaitable[None] | None) -> None:
        if answer is not None:
            self.waits.append(asyncio.ensure_future(answer))

    async def replace(self, chance: random.Random, parts: MarkedParts) -> None:
        """Another takes the place, or it goes on as it was."""
        old = self.volume
        if isinstance(old, MarkedVolume):
            old.stop()
            draining = asyncio.ensure_future(old.drained())
            for byte in range(100, 100 + chance.randrange(6)):
                self.write(chance, byte)
                await turns(chance.randrange(2))
            await draining
            if chance.random() < 0.3:
                old.resume()
                return
            self.volume = parts.raw
        else:
            self.volume = MarkedVolume(parts.raw, parts.bitmap, lambda: None)
        old.replace(self.volume)
        self.write(chance, 99)


@pytest.mark.parametrize("seed", range(16))
async def test_what_overlaps_is_in_the_order_of_the_calls(seed: int) -> None:
    """Marked or not, on the spot or not, and while others take the volume's place."""
    parts = MarkedParts(seed, refusals=0.5)
    await parts.make()
    front, chance = Front(parts.volume), random.Random(seed)
    for number in range(1, 80):
        front.write(chance, number)
        if number % 9 == 0:
            await turns(chance.randrange(3))
        if number % 20 == 0:
            await front.replace(chance, parts)
    await asyncio.gather(*front.waits)
    for offset in (0, BLOCK):
        assert parts.file.content[offset : offset + 65536] == front.expected[offset : offset + 65536]
    assert parts.raw.locks.places == {}


async def test_a_lock_waits_for_what_was_taken_and_holds_up_what_comes(parts: MarkedParts) -> None:
    volume = parts.volume
    before = pending(volume.write(0, block(1)))
    async with volume.lock(0, 2 * REGION):
        assert content(volume, 0) == block(1)
        assert not volume.write_now(REGION, block(9))
        behind = pending(volume.write(REGION, block(2)))
        await settled(volume.write(2 * REGION, block(3)))
        await settled(volume.write_under_lock(0, block(4, 2 * REGION)))
        await turns(20)
        assert not behind.done()
        assert content(volume, 0, 2 * REGION) == block(4, 2 * REGION)
    await asyncio.gather(before, behind)
    assert content(volume, REGION) == block(2)
    assert volume.write_now(0, block(5))


async def test_who_has_a_lock_goes_on_when_others_are_stopped(parts: MarkedParts) -> None:
    """And is waited for; who asks for one later gets that of the next volume."""
    volume, other = parts.volume, MarkedVolume(parts.raw, parts.bitmap, lambda: None)
    async with volume.lock(0, REGION):
        volume.stop()
        assert not volume.write_now(BLOCK, block(9))
        kept = pending(volume.write(BLOCK, block(9)))
        later = asyncio.ensure_future(_compare_and_write(volume, block(7)))
        draining = asyncio.ensure_future(volume.drained())
        await settled(volume.write_under_lock(0, block(1)))
        await turns(20)
        assert not draining.done()
    await draining
    assert not later.done()
    assert not kept.done()
    assert content(volume, BLOCK) == bytes(REGION)
    volume.replace(other)
    await asyncio.gather(kept, later)
    assert (content(volume, 0), content(volume, BLOCK)) == (bytes(block(7)), bytes(block(9)))
    assert parts.bitmap.marked_bytes == 2 * REGION
    assert volume.replaced


async def _compare_and_write(volume: MarkedVolume, data: memoryview) -> None:
    async with volume.lock(0, REGION):
        assert content(volume, 0) == block(1)
        await settled(volume.write_under_lock(0, data))


async def test_after_it_was_replaced_all_goes_by_the_other(parts: MarkedParts) -> None:
    volume = parts.volume
    await pending(volume.write(0, block(1)))
    volume.stop()
    kept = [pending(volume.write(0, block(2))), pending(volume.unmap(0, REGION))]
    await volume.drained()
    volume.replace(GuardedVolume(parts.raw))
    for each in kept:
        with pytest.raises(VolumeReadOnly):
            await each
    for write in (volume.write, volume.write_under_lock):
        with pytest.raises(VolumeReadOnly):
            write(0, block(3))
    assert not volume.write_now(0, block(3))
    assert volume.commit_now(0, block(3)) is None
    again = MarkedVolume(parts.raw, parts.bitmap, lambda: None)
    volume.replace(again)
    async with volume.lock(0, REGION):
        again.stop()
        draining = asyncio.ensure_future(again.drained())
        await turns()
        assert not draining.done()
    await draining
    volume.replace(GuardedVolume(parts.raw))
    async with volume.lock(0, REGION):
        assert not parts.raw.write_now(0, block(3))
    await finished(volume.flush())
    assert content(volume, 0) == block(1)


async def test_it_goes_on_as_it_was(parts: MarkedParts) -> None:
    volume = parts.volume
    for _ in range(2):
        volume.stop()
        assert volume.stopped
        kept = pending(volume.write(0, block(1)))
        locking = asyncio.ensure_future(_locked(volume))
        await volume.drained()
        await turns()
        assert not kept.done()
        assert not locking.done()
        volume.resume()
        await asyncio.gather(kept, locking)
        assert volume.write_now(0, block(2))


async def _locked(volume: MarkedVolume) -> None:
    async with volume.lock(0, REGION):
        pass


async def test_many_that_wait(parts: MarkedParts) -> None:
    """As many as Python would not let release each other from within one another."""
    volume = parts.volume
    waits = [pending(volume.write(0, block(number % 256, 512))) for number in range(400)]
    volume.stop()
    waits += [pending(volume.write(0, block(number % 256, 512))) for number in range(400, 2000)]
    await volume.drained()
    volume.replace(parts.raw)
    await asyncio.gather(*waits)
    assert content(volume, 0, 512) == block(1999 % 256, 512)


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_written_while_it_is_copied_stays_marked(seed: int) -> None:
    """A copy finds the data before a write and the write's mark behind it, or the data of the write; never else."""
    parts = MarkedParts(seed, refusals=0.7)
    await parts.make()
    chance, waits, copy = random.Random(seed), list[asyncio.Future[None]](), bytearray(TWO_BLOCKS)
    for number in range(1, 60):
        _write_somehow(parts.volume, chance, number, waits)
        await turns(chance.randrange(3))
        taken = parts.bitmap.take(chance.choice((REGION, MIB)))
        if taken is not None:
            found = [(at, bytes(parts.file.content[at : at + length])) for at, length in taken.ranges]
            await turns(chance.randrange(4))
            for at, data in found:
                copy[at : at + len(data)] = data
            parts.bitmap.copied(taken)
    await asyncio.gather(*waits)
    for at, length in parts.bitmap.ranges():
        copy[at : at + length] = parts.file.content[at : at + length]
    assert copy == parts.file.content


async def test_a_mark_that_fails_refuses_the_write(parts: MarkedParts) -> None:
    volume = parts.volume
    await pending(volume.write(0, block(1)))
    parts.bits.fails = VolumeFailed("the disk is gone")
    for offset in (BLOCK, 0):
        with pytest.raises(VolumeFailed, match="gone"):
            await pending(volume.write(offset, block(2)))
        async with volume.lock(offset, REGION):
            with pytest.raises(VolumeFailed, match="gone"):
                await settled(volume.write_under_lock(offset, block(2)))
        assert not volume.write_now(offset, block(2))
        assert volume.commit_now(offset, block(2)) is None
    assert parts.failed == 4
    assert (content(volume, 0), content(volume, BLOCK)) == (bytes(block(1)), bytes(REGION))
    volume.stop()
    await volume.drained()


async def test_a_p_vol_that_is_suspended() -> None:
    """What waited when its group stopped is marked, in order; who locks by the P-VOL locks by what marks."""
    group = GroupParts()
    await group.make()
    p_vol, raw = group.volumes[0], group.raw[0]
    assert await group.group.stop() == []
    waits = [pending(p_vol.write(0, block(number))) for number in (1, 2)]
    await turns()
    assert not any(each.done() for each in waits)
    bits = ModelFile(group.machine, Geometry(raw.size).bytes_needed, 0)
    bitmap = await Bitmap.create(volume_of(bits), raw.size, bytes(16), bytes(16))
    marked = MarkedVolume(raw, bitmap, lambda: None)
    p_vol.replace(marked)
    await asyncio.gather(*waits)
    assert (content(marked, 0), list(bitmap.ranges())) == (bytes(block(2)), [(0, REGION)])
    async with p_vol.lock(0, REGION):
        marked.stop()
        draining = asyncio.ensure_future(marked.drained())
        await turns()
        assert not draining.done()
        await settled(p_vol.write_under_lock(0, block(3)))
    await draining
    assert content(marked, 0) == block(3)


async def test_who_gives_up_waiting(parts: MarkedParts) -> None:
    """Neither leaves its place behind nor keeps others from theirs."""
    volume = parts.volume
    gone, stays = pending(volume.write(0, block(1))), pending(volume.write(0, block(2)))
    gone.cancel()
    await stays
    assert content(volume, 0) == block(2)
    locking = asyncio.ensure_future(_locked(volume))
    await asyncio.sleep(0)
    locking.cancel()
    volume.stop()
    gone, stays = pending(volume.write(0, block(3))), pending(volume.write(0, block(4)))
    gone.cancel()
    await volume.drained()
    volume.replace(parts.raw)
    await stays
    assert content(volume, 0) == block(4)
