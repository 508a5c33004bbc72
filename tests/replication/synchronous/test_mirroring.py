"""Synchronous pairs: a host's write is answered when both sides have it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from arrayd.replication import asking
from arrayd.replication.asking import Outcome, Refused
from arrayd.replication.group_rows import Fence
from arrayd.replication.statuses import Event, State
from arrayd.replication.synchronous import mirroring
from arrayd.volumes.volume import VolumeFailed, VolumeReadOnly, finished
from tests.replication.following_doors import until
from tests.replication.synchronous.sides import GROUP, NUMBERS, REGION, Sides, suspended, turns, until_in_time

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
    await until_in_time(lambda: (Event.COPY_END, "") in sides.far.events)
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


async def test_no_bitmap_is_given_up_before_the_other_side_knows_of_this_life(sides: Sides) -> None:
    """What it has joined is of the life before, and lacks what is marked since."""
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.near.kill()
    sides.near.revive()
    sides.cut = True
    await sides.near.begin(sides.near.row, found=True)
    name = f"{GROUP.hex()}-0.bitmap"
    for question in (asking.bitmap(GROUP, 1, 0, 0), asking.joined(GROUP, 1, 0)):
        with pytest.raises(Refused) as refused:
            asking.decode_done(await sides.near.ask(question))
        assert refused.value.outcome is Outcome.NOT_NOW
    assert name in sides.near.stores.files
    sides.cut = False
    await until(lambda: name not in sides.near.stores.files)
    asking.decode_done(await sides.near.ask(asking.joined(GROUP, 1, 0)))
    assert sides.alike()


async def test_what_differs_is_not_forgotten_if_the_suspension_comes_to_nothing(sides: Sides) -> None:
    """The row could not be committed, and the pairs are PAIR again."""
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 4096, b"b" * 512)
    sides.near.files[0].refusals = 1.0
    sides.near.files[0].fails = VolumeFailed("full")
    with pytest.raises(VolumeFailed):
        await sides.write(0, 0, b"a" * 512)
    assert not sides.alike()
    sides.near.files[0].fails = None
    stage = sides.near.stage
    assert stage is not None
    assert await stage.stop(suspended(sides.near.row, State.P_PSUE)) is None
    stage.after = stage.row
    await stage.close()
    sides.near.stage = None
    sides.near.events.clear()
    await sides.near.begin(sides.near.row, found=True)
    await finished(sides.host(0).read(0, memoryview(bytearray(512))))
    assert sides.alike()
    assert sides.near.events == []


@pytest.mark.parametrize("fence", [Fence.NEVER, Fence.STATUS])
async def test_a_disk_that_cannot_be_synced_suspends_the_pairs_and_says_so(
    fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "COOL_SECONDS", 0.01)
    sides = Sides(SIZE, fence)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.near.files[0].sync_fails_after = 0
    await until_in_time(lambda: bool(sides.near.events))
    assert sides.near.events == [(Event.ERROR, "gone")]
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await sides.close()


async def test_it_closes_though_an_answer_waits_for_a_lock_whose_holder_waits_for_a_write(sides: Sides) -> None:
    await sides.pair(State.P_PAIR, marked=False)
    await turns()
    stage, host = sides.near.stage, sides.host(0)
    assert stage is not None
    copied = asking.copy(GROUP, 1, 0, [asking.Range(0, 4096)])

    async def compares_and_writes() -> None:
        async with host.lock(0, 4096):
            answering.append(asyncio.ensure_future(sides.near.ask(copied)))
            await stopped.wait()
            await finished(host.write_under_lock(0, memoryview(b"x" * 512)))

    answering: list[asyncio.Future[memoryview]] = []
    stopped = asyncio.Event()
    holder = asyncio.ensure_future(compares_and_writes())
    await turns()
    assert not answering[0].done(), bytes(answering[0].result())
    await stage.stop(stage.row)
    stopped.set()
    await turns()
    async with asyncio.timeout(5):
        await stage.close()
    with pytest.raises(VolumeFailed, match="not served"):
        await holder
    with pytest.raises(Refused):
        asking.decode_done(await answering[0])
    sides.near.stage = None
