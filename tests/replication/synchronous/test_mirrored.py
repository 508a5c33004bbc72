"""Synchronous P-VOLs as hosts see them: overlapping writes in one order on both sides, locks, what replaces them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable

import pytest

from arrayd.replication.guarded import GuardedVolume
from arrayd.replication.statuses import State
from arrayd.replication.synchronous.mirrored import MirroredVolume
from arrayd.volumes.volume import VolumeFailed, VolumeReadOnly, finished
from tests.replication.synchronous.sides import NUMBERS, REGION, Sides, suspended, turns

SIZE = 64 * REGION


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    made = Sides(SIZE, refusals=0.4)
    await made.pair(State.P_PAIR, marked=False)
    yield made
    await made.close()


def host(sides: Sides, number: int = 0) -> MirroredVolume:
    shown = sides.host(number)
    assert isinstance(shown, MirroredVolume)
    return shown


def begun(answer: Awaitable[None] | None) -> asyncio.Future[None]:
    assert answer is not None
    return asyncio.ensure_future(answer)


@pytest.mark.parametrize("seed", range(8))
async def test_overlapping_writes_have_one_order_on_both_sides(seed: int) -> None:
    """It is that of the calls, whatever the disks and the link do; holes and zeros among them."""
    sides, chance = Sides(SIZE, seed=seed, refusals=0.5), random.Random(seed)
    sides.turns = seed % 4
    await sides.pair(State.P_PAIR, marked=False)
    expected = {number: bytearray(SIZE) for number in NUMBERS}
    jobs = []
    for count in range(150):
        number = chance.choice(NUMBERS)
        offset, length = chance.randrange(20) * 512, chance.randrange(1, 9) * 512
        data = bytes([1 + count % 255]) * length
        kind = chance.choice(("write", "write", "write", "unmap", "zeros", "flush"))
        volume = host(sides, number)
        if kind == "write":
            jobs.append(begun(volume.write(offset, memoryview(data), chance.random() < 0.2)))
        elif kind == "flush":
            jobs.append(begun(volume.flush()))
            continue
        else:
            data = bytes(length)
            jobs.append(begun((volume.unmap if kind == "unmap" else volume.write_zeros)(offset, length)))
        expected[number][offset : offset + length] = data
        if chance.random() < 0.2:
            await turns(chance.randrange(5))
    await asyncio.gather(*jobs)
    for array in (sides.near, sides.far):
        assert {number: bytearray(content) for number, content in array.contents().items()} == expected
    assert not any(host(sides, number)._locks for number in NUMBERS)
    await sides.close()


async def test_very_many_overlapping_writes_wait_without_depth(sides: Sides) -> None:
    jobs = [begun(host(sides).write(0, memoryview(bytes([count % 251]) * 512))) for count in range(3000)]
    await asyncio.gather(*jobs)
    assert sides.near.files[0].content[:512] == bytes([2999 % 251]) * 512
    assert sides.alike()


async def test_very_many_that_wait_when_the_group_stops_go_by_what_comes_next(sides: Sides) -> None:
    sides.cut = True
    jobs = [begun(host(sides).write(0, memoryview(bytes([count % 251]) * 512))) for count in range(3000)]
    await turns()
    await sides.near.begin(suspended(sides.near.row, State.P_PSUS))
    await asyncio.gather(*jobs)
    assert sides.near.files[0].content[:512] == bytes([2999 % 251]) * 512
    sides.cut = False


async def test_the_memory_of_a_write_may_change_when_it_has_ended(sides: Sides) -> None:
    data = bytearray(b"a" * 512)
    await finished(host(sides).write(0, memoryview(data)))
    data[:] = b"z" * 512
    await turns()
    for array in (sides.near, sides.far):
        assert array.files[0].content[:512] == b"a" * 512


async def test_who_gives_up_waiting_changes_nothing(sides: Sides) -> None:
    job = begun(host(sides).write(0, memoryview(b"a" * 512)))
    behind = begun(host(sides).write(0, memoryview(b"b" * 512)))
    job.cancel()
    await behind
    assert sides.alike()
    assert sides.near.files[0].content[:512] == b"b" * 512


async def test_durable_is_so_on_both_sides(sides: Sides) -> None:
    await finished(host(sides).write(0, memoryview(b"d" * 512), True))
    for array in (sides.near, sides.far):
        assert array.files[0].durable[:512] == b"d" * 512
    await finished(host(sides).write(512, memoryview(b"f" * 512)))
    await finished(host(sides).flush())
    for array in (sides.near, sides.far):
        assert array.files[0].durable[512:1024] == b"f" * 512


async def test_a_lock_keeps_others_out_and_its_holder_writes(sides: Sides) -> None:
    volume = host(sides)
    async with volume.lock(0, 1024):
        other = begun(volume.write(512, memoryview(b"o" * 512)))
        beside = begun(volume.write(1024, memoryview(b"s" * 512)))
        await beside
        assert not other.done()
        await finished(volume.write_under_lock(512, memoryview(b"l" * 512)))
        for array in (sides.near, sides.far):
            assert array.files[0].content[512:1024] == b"l" * 512
        assert not other.done()
    await other
    assert sides.alike()
    assert sides.far.files[0].content[512:1024] == b"o" * 512


async def test_a_lock_waits_until_what_is_under_way_has_ended_on_both_sides(sides: Sides) -> None:
    go = sides.far.hold(0)
    writing = begun(host(sides).write(0, memoryview(b"a" * 512)))
    await turns()
    locked = asyncio.ensure_future(host(sides).lock(0, 512).__aenter__())
    reading = memoryview(bytearray(512))
    await finished(host(sides).read(0, reading))
    await turns()
    assert not locked.done()
    assert not writing.done()
    go.set()
    await writing
    await locked


async def test_of_a_volume_that_is_only_read_nothing_is_written(sides: Sides) -> None:
    volume = host(sides)
    volume.read_only = True
    with pytest.raises(VolumeReadOnly):
        volume.write(0, memoryview(bytes(512)))
    with pytest.raises(VolumeReadOnly):
        volume.unmap(0, 512)
    with pytest.raises(VolumeReadOnly):
        volume.write_zeros(0, 512)
    with pytest.raises(VolumeReadOnly):
        volume.write_under_lock(0, memoryview(bytes(512)))
    await finished(volume.flush())


async def test_what_is_not_thin_has_zeros_for_holes(sides: Sides) -> None:
    volume = host(sides)
    await finished(volume.write(0, memoryview(b"a" * 512)))
    volume.thin = False
    await finished(volume.unmap(0, 512))
    assert sides.alike()
    assert sides.far.files[0].content[:512] == bytes(512)


async def test_who_holds_a_lock_when_the_group_stops_writes_by_what_comes_next(sides: Sides) -> None:
    volume = host(sides)

    async def compares_and_writes() -> None:
        async with volume.lock(0, 512):
            await go.wait()
            await finished(volume.write_under_lock(0, memoryview(b"l" * 512)))

    go = asyncio.Event()
    holder = asyncio.ensure_future(compares_and_writes())
    await turns()
    changing = asyncio.ensure_future(sides.near.begin(suspended(sides.near.row, State.P_PSUS)))
    await turns()
    go.set()
    await changing
    await holder
    assert sides.near.files[0].content[:512] == b"l" * 512
    assert await sides.near.marked(0) == [(0, 4096)]


async def test_nothing_follows(sides: Sides) -> None:
    volume, stage = host(sides), sides.near.stage
    assert stage is not None
    await stage.stop(stage.row)
    waiting = [begun(volume.write(0, memoryview(bytes(512)))), begun(volume.flush())]
    await turns()
    await stage.close()
    later = begun(volume.write(0, memoryview(bytes(512))))
    for each in (*waiting, later):
        with pytest.raises(VolumeFailed, match="not served"):
            await each
    volume.replace(GuardedVolume(volume.volume))
    with pytest.raises(VolumeReadOnly):
        await begun(volume.write(0, memoryview(bytes(512))))
    sides.near.stage = None
