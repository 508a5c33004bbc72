"""Synchronous pairs: a host's write is answered when both sides have it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from arrayd.replication.group_rows import Fence
from arrayd.replication.statuses import Event, State
from arrayd.volumes.volume import VolumeReadOnly
from tests.replication.following_doors import until
from tests.replication.synchronous.sides import NUMBERS, REGION, Sides, suspended, until_in_time

SIZE = 64 * REGION


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    made = Sides(SIZE)
    yield made
    await made.close()


async def test_an_answered_write_is_on_both_sides(sides: Sides) -> None:
    await sides.pair(State.P_PAIR, marked=False)
    for number in range(40):
        volume, offset = NUMBERS[number % 2], number % 13 * 1024
        await sides.write(volume, offset, bytes([number]) * 2048)
        for array in (sides.near, sides.far):
            assert array.files[volume].content[offset : offset + 2048] == bytes([number]) * 2048
    assert sides.alike()


async def test_the_copy_takes_what_was_there_and_what_is_written_meanwhile(sides: Sides) -> None:
    chance = random.Random(4)
    for number in NUMBERS:
        sides.near.files[number].content[:] = sides.near.files[number].durable[:] = chance.randbytes(SIZE)
    sides.turns = 3
    await sides.pair(State.P_COPY)
    writes = []
    for number in range(60):
        offset = chance.randrange(SIZE // 512 - 8) * 512
        writes.append(asyncio.ensure_future(sides.write(NUMBERS[number % 2], offset, bytes([number]) * 1536)))
        await asyncio.sleep(0)
    await until(lambda: (Event.COPY_END, "") in sides.far.events)
    await asyncio.gather(*writes)
    assert sides.alike()


@pytest.mark.parametrize("fence", Fence)
async def test_what_cannot_be_mirrored_suspends_the_group_in_time(fence: Fence) -> None:
    sides = Sides(SIZE, fence)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.cut = True
    waiting = asyncio.ensure_future(sides.write(0, 4096, b"b" * 512))
    later = asyncio.ensure_future(sides.write(3, 8192, b"c" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    assert not waiting.done()
    assert not later.done()
    fenced = fence is not Fence.NEVER
    assert [event for event, _ in sides.near.events] == [Event.ERROR_FENCED if fenced else Event.ERROR]
    row = suspended(sides.near.row, State.P_PSUE_FENCED if fenced else State.P_PSUE)
    await sides.near.begin(row)
    if fenced:
        with pytest.raises(VolumeReadOnly):
            await waiting
    else:
        await asyncio.gather(waiting, later)
    assert await sides.near.marked(0) == [(4096, 4096)]
    await asyncio.gather(waiting, later, return_exceptions=True)
    sides.cut = False
    await sides.close()


async def test_a_link_that_is_cut_before_the_first_word_suspends_the_group_in_time(sides: Sides) -> None:
    sides.cut = True
    await sides.pair(State.P_PAIR, marked=False)
    waiting = asyncio.ensure_future(sides.write(0, 4096, b"b" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting
    assert await sides.near.marked(0) == [(4096, 4096)]


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", range(30))
async def test_after_a_death_of_the_p_vols_side_both_are_alike_before_hosts_see_them(seed: int, power: bool) -> None:
    sides, chance = Sides(SIZE, seed=seed, refusals=0.3), random.Random(seed)
    await sides.pair(State.P_PAIR, marked=False)
    answered: dict[tuple[int, int], bytes] = {}

    async def write(number: int, offset: int, data: bytes) -> None:
        await sides.write(number, offset, data)
        answered[number, offset] = data

    tasks = []
    for number in range(chance.randrange(1, 60)):
        tasks.append(asyncio.ensure_future(write(NUMBERS[number % 2], number * 1024, bytes([1 + number]) * 1024)))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
    sides.near.kill()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    kept = dict(answered)
    sides.near.revive(power)
    await sides.near.begin(sides.near.row, found=True)
    pending = sides.host(0).read(0, memoryview(bytearray(1024)))
    if pending is not None:
        await pending
    assert sides.alike()
    for (number, offset), data in kept.items():
        assert sides.near.files[number].content[offset : offset + 1024] == data
    await sides.write(0, 0, b"z" * 512)
    assert sides.alike()
    await sides.close()
