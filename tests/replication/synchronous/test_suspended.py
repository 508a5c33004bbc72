"""Synchronous pairs that are suspended, by command or by a death, and resumed: what differs is copied, and no more."""

from __future__ import annotations

import asyncio
import random

import pytest

from arrayd.replication import copying
from arrayd.replication.asking import Asked
from arrayd.replication.bitmap import Bitmap
from arrayd.replication.group_rows import Fence
from arrayd.replication.statuses import Event, State
from arrayd.replication.synchronous.receiving import Receiving
from arrayd.volumes.volume import VolumeFailed, finished
from tests.replication.following_doors import until
from tests.replication.synchronous.sides import GROUP, NUMBERS, REGION, Array, Sides, suspended, turns, until_in_time

SIZE = 64 * REGION


async def bitmap_of(array: Array, number: int) -> list[tuple[int, int]]:
    """What a bitmap that nobody has open has."""
    name = f"{GROUP.hex()}-{number}.bitmap"
    store = await array.doors().stores.open(name)
    assert store is not None
    bitmap = await Bitmap.open(store, bytes([array.boot]) * 16)
    await array.doors().stores.close(name)
    return list(bitmap.ranges())


async def resync(sides: Sides, generation: int) -> None:
    """From the P-VOLs, until both are PAIR."""
    sides.far.events.clear()
    await sides.far.begin(suspended(sides.far.row, State.S_COPY, generation=generation))
    await sides.near.begin(suspended(sides.near.row, State.P_COPY, generation=generation))
    await until_in_time(lambda: (Event.COPY_END, "") in sides.far.events)
    for array, state in ((sides.far, State.S_PAIR), (sides.near, State.P_PAIR)):
        array.row = suspended(array.row, state, consistent=True)
        assert array.stage is not None
        array.stage.changed(array.row)


@pytest.mark.parametrize("seed", range(10))
async def test_a_split_with_writes_under_way(seed: int) -> None:
    """Hosts hear of no error, and what the other side has not is marked."""
    sides, chance = Sides(SIZE, seed=seed, refusals=0.5), random.Random(seed)
    sides.turns = seed % 4
    await sides.pair(State.P_PAIR, marked=False)
    writing = []
    for at in range(40):
        number, offset = chance.choice(NUMBERS), chance.randrange(60) * 512
        writing.append(asyncio.ensure_future(sides.write(number, offset, bytes([1 + at]) * 2048)))
        if at == 20:
            splitting = asyncio.ensure_future(sides.near.begin(suspended(sides.near.row, State.P_PSUS)))
        await turns(chance.randrange(3))
    await splitting
    await asyncio.gather(*writing)
    await sides.far.begin(suspended(sides.far.row, State.S_SSUS))
    for number in NUMBERS:
        marked = [range(at, at + length) for at, length in await sides.near.marked(number)]
        near, far = (array.files[number].content for array in (sides.near, sides.far))
        differing = [at for at in range(0, SIZE, 512) if near[at : at + 512] != far[at : at + 512]]
        assert all(any(at in each for each in marked) for at in differing)
    await resync(sides, 2)
    assert sides.alike()
    await sides.close()


async def test_what_either_side_has_marked_is_copied_and_no_more() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    await sides.near.begin(suspended(sides.near.row, State.P_PSUS))
    await sides.far.begin(suspended(sides.far.row, State.S_SSUS_WRITABLE))
    await sides.write(0, 2 * REGION, b"n" * 512)
    await finished(sides.far.shown["v0"].write(5 * REGION, memoryview(b"f" * 512)))
    await finished(sides.far.shown["v3"].write(7 * REGION, memoryview(b"f" * 512)))
    await resync(sides, 2)
    assert sides.alike()
    assert sides.near.files[0].content[5 * REGION : 5 * REGION + 512] == bytes(512)
    assert sorted(sides.copied) == [(0, 2 * REGION, REGION), (0, 5 * REGION, REGION), (3, 7 * REGION, REGION)]
    await sides.write(0, 0, b"z" * 512)
    assert sides.alike()
    await sides.close()


@pytest.mark.parametrize("fence", Fence)
async def test_a_loss_of_power_of_the_s_vols_side_is_marked_and_told(fence: Fence) -> None:
    sides = Sides(SIZE, fence)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.far.kill()
    sides.far.revive(power=True)
    await sides.far.begin(sides.far.row, found=True)
    assert [event for event, _ in sides.far.events] == [Event.ERROR]
    assert "power was lost" in sides.far.events[0][1]
    waiting = asyncio.ensure_future(sides.write(0, 512, b"b" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    # The other side has said that it stands still: so it knows.
    expected = Event.ERROR_FENCED if fence is Fence.DATA else Event.ERROR
    assert [event for event, _ in sides.near.events] == [expected]
    await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting
    assert await bitmap_of(sides.far, 0) == [(0, SIZE)]
    assert await bitmap_of(sides.far, 3) == []
    await resync(sides, 2)
    assert sides.alike()
    assert sum(length for number, _, length in sides.copied if number == 0) == SIZE
    assert not [each for each in sides.copied if each[0] == 3]
    await sides.close()


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", range(30))
async def test_after_a_death_of_the_s_vols_side_nothing_answered_is_missing(seed: int, power: bool) -> None:
    """A kill costs nothing, if it is back soon; after a loss of power it is told, and copied."""
    sides, chance = Sides(SIZE, seed=seed, refusals=0.3), random.Random(seed)
    await sides.pair(State.P_PAIR, marked=False)
    if seed % 2:
        sides.far.machine.fuse = chance.randrange(200)
    writing = []
    for at in range(chance.randrange(1, 60)):
        writing.append(asyncio.ensure_future(sides.write(NUMBERS[at % 2], at * 1024, bytes([1 + at]) * 1024)))
        await turns(chance.randrange(4))
    sides.far.kill()
    sides.far.revive(power)
    await sides.far.begin(sides.far.row, found=True)
    if power and sides.far.events:
        await until_in_time(lambda: all(each.done() for each in writing) or bool(sides.near.events))
        await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
        await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
        await asyncio.gather(*writing)
        await resync(sides, 2)
    await asyncio.gather(*writing)
    for at in range(len(writing)):
        for array in (sides.near, sides.far):
            assert array.files[NUMBERS[at % 2]].content[at * 1024 : at * 1024 + 1024] == bytes([1 + at]) * 1024
    assert sides.alike()
    await sides.close()


@pytest.mark.parametrize("side", ["near", "far"])
@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", range(5))
async def test_a_copy_goes_on_where_it_was(side: str, power: bool, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "COPY_BYTES", REGION)
    monkeypatch.setattr(copying, "SAVE_SECONDS", 0.0)
    sides, chance = Sides(SIZE, seed=seed), random.Random(seed)
    for number in NUMBERS:
        sides.near.files[number].content[:] = sides.near.files[number].durable[:] = chance.randbytes(SIZE)
    sides.turns = 2
    await sides.pair(State.P_COPY)
    writing = [asyncio.ensure_future(sides.write(0, at * 512, bytes([1 + at]) * 512)) for at in range(8)]
    await until(lambda: len(sides.copied) > 40)
    await asyncio.gather(*writing)
    array = sides.near if side == "near" else sides.far
    array.kill()
    before = len(sides.copied)
    await turns(10)
    array.revive(power)
    await array.begin(array.row, found=True)
    if side == "far":
        far = array.stage
        assert isinstance(far, Receiving)
        assert far.copying is not None
        assert far.copying.marked < 2 * SIZE or power
    writing = [asyncio.ensure_future(sides.write(3, at * 512, bytes([101 + at]) * 512)) for at in range(8)]
    await until(lambda: (Event.COPY_END, "") in sides.far.events)
    await asyncio.gather(*writing)
    assert sides.alike()
    if not power and side == "far":
        assert len(sides.copied) - before < 2 * SIZE // REGION
    assert not sides.near.events
    await sides.close()


async def test_a_refused_write_suspends_the_group_and_is_the_only_error() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 8 * REGION, b"x" * 512)
    sides.near.files[0].refusals, sides.near.files[0].fails = 1.0, VolumeFailed("full")
    failing = asyncio.ensure_future(sides.write(0, 0, b"a" * 512))
    other = asyncio.ensure_future(sides.write(3, REGION, b"b" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    later = asyncio.ensure_future(sides.write(3, 3 * REGION, b"c" * 512))
    await turns()
    assert not later.done()
    with pytest.raises(VolumeFailed, match="full"):
        await failing
    sides.near.files[0].fails = None
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await asyncio.gather(other, later)
    assert await sides.near.marked(0) == [(0, REGION)]
    assert (3 * REGION, REGION) in await sides.near.marked(3)
    await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
    await resync(sides, 2)
    assert sides.alike()
    await sides.close()


async def test_an_s_vol_that_refuses_a_write_suspends_both() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    sides.far.files[0].refusals, sides.far.files[0].fails = 1.0, VolumeFailed("full")
    waiting = asyncio.ensure_future(sides.write(0, 0, b"a" * 512))
    await until_in_time(lambda: bool(sides.near.events) and bool(sides.far.events))
    assert sides.asked.count(Asked.MIRROR) == 1, "it is not asked again what was refused for good"
    sides.far.files[0].fails = None
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting
    await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
    await resync(sides, 2)
    assert sides.alike()
    await sides.close()
