"""The sides of a synchronous group change places (figures 19 to 21), while hosts write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from arrayd.replication import asking, changing_places, fencing
from arrayd.replication.asking import Outcome, Refused
from arrayd.replication.changing_places import NOT_IN_TIME
from arrayd.replication.fencing import FENCED, NOT_ALL_THERE
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeFailed, VolumeReadOnly, finished
from tests.replication.following_doors import until
from tests.replication.synchronous.sides import GROUP, NUMBERS, REGION, Array, Sides, suspended, turns, until_in_time

SIZE = 64 * REGION


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    made = Sides(SIZE, refusals=0.3)
    await made.pair(State.P_PAIR, marked=False)
    await turns()
    yield made
    await made.close()


def p_row(array: Array) -> GroupRow:
    return suspended(array.row, State.P_PAIR, generation=array.row.generation + 1)


def s_row(array: Array) -> GroupRow:
    return suspended(array.row, State.S_PAIR, generation=array.row.generation + 1)


async def write(array: Array, number: int, offset: int, data: bytes) -> None:
    await finished(array.shown[f"v{number}"].write(offset, memoryview(data)))


@pytest.mark.parametrize("delay", range(4))
async def test_they_change_places_and_back_while_hosts_write(sides: Sides, delay: int) -> None:
    sides.turns = delay
    first, second = sides.near, sides.far
    answered: dict[tuple[int, int], bytes] = {}

    async def host_writes(array: Array, count: int) -> str:
        number, offset, data = NUMBERS[count % 2], count % 20 * 512, bytes([1 + count]) * 512
        try:
            await write(array, number, offset, data)
        except VolumeReadOnly:
            return "refused"
        answered[number, offset] = data
        return "answered"

    for turn in range(4):
        writing = []
        for count in range(20):
            writing.append(asyncio.ensure_future(host_writes(first, count + 20 * turn)))
            if count == 10:
                changing = asyncio.ensure_future(second.begin(p_row(second)))
            await turns(2)
        await changing
        await first.begin(s_row(first))
        outcomes = await asyncio.gather(*writing)
        assert outcomes[:8] == ["answered"] * 8
        assert sides.alike()
        for (number, offset), data in answered.items():
            assert second.files[number].content[offset : offset + 512] == data
        assert not first.events
        assert not second.events
        first, second = second, first


async def test_writes_wait_while_the_fence_stands_and_go_on_when_it_lapses(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fencing, "FENCE_SECONDS", 0.05)
    assert asking.decode_fenced(await sides.near.ask(asking.fence(GROUP, 1))) is not None
    waiting = asyncio.ensure_future(write(sides.near, 0, 0, b"a" * 512))
    await turns()
    assert not waiting.done()
    stage = sides.near.stage
    assert stage is not None
    assert stage.fenced
    assert await stage.stop(suspended(sides.near.row, State.P_PSUS)) is FENCED
    assert await stage.stop(None) is FENCED
    await waiting
    assert sides.alike()
    await until(lambda: f"{GROUP.hex()}-0.fence" not in sides.near.stores.files)
    assert await stage.stop(stage.row) is None
    await stage.close()
    sides.near.stage = None


@pytest.mark.parametrize("hot", [False, True])
async def test_a_fence_outlives_the_death_of_the_p_vols_side(
    sides: Sides, monkeypatch: pytest.MonkeyPatch, hot: bool
) -> None:
    monkeypatch.setattr(fencing, "FENCE_SECONDS", 0.1)
    if hot:
        await write(sides.near, 0, 0, b"a" * 512)
    asking.decode_fenced(await sides.near.ask(asking.fence(GROUP, 1)))
    sides.near.kill()
    sides.near.revive()
    stage = await sides.near.begin(sides.near.row, found=True)
    waiting = asyncio.ensure_future(write(sides.near, 0, 0, b"b" * 512))
    await turns(200)
    assert stage.fenced
    assert not waiting.done()
    assert sides.alike()
    await waiting
    assert sides.alike()


async def test_places_are_not_changed_when_hosts_have_written_what_the_other_side_has_not(sides: Sides) -> None:
    """The fence has lapsed, and the other side has the P-VOLs: so both are P-VOLs, and nothing is guessed."""
    sides.cut = True
    waiting = asyncio.ensure_future(write(sides.near, 0, 0, b"a" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    stage = sides.near.stage
    assert stage is not None
    assert await stage.stop(s_row(sides.near)) is NOT_ALL_THERE
    sides.cut = False
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting


async def test_a_write_that_is_under_way_when_places_change_is_not_forgotten(sides: Sides) -> None:
    sides.cut = True
    waiting = asyncio.ensure_future(write(sides.near, 0, 0, b"a" * 512))
    await turns()
    stage = sides.near.stage
    assert stage is not None
    with pytest.raises(VolumeFailed, match=NOT_ALL_THERE.text[:30]):
        await stage.stop(s_row(sides.near))
    stage.after = stage.row
    await stage.close()
    with pytest.raises(VolumeFailed, match="not served"):
        await waiting
    sides.near.stage, sides.cut = None, False
    await sides.near.begin(sides.near.row, found=True)
    await finished(sides.host(0).read(0, memoryview(bytearray(512))))
    assert sides.alike()


async def test_the_s_vols_side_goes_on_if_the_other_one_does_not_wait(sides: Sides) -> None:
    sides.cut = True
    stage = sides.far.stage
    assert stage is not None
    assert await stage.stop(p_row(sides.far)) is NOT_IN_TIME
    sides.cut = False
    await sides.write(0, 0, b"a" * 512)
    assert sides.alike()


async def test_it_may_become_too_late(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing_places, "SWAP_SECONDS", 0.02)
    stage = sides.far.stage
    assert stage is not None
    assert await stage.stop(p_row(sides.far)) is None
    assert stage.too_late() is None
    await asyncio.sleep(0.03)
    assert stage.too_late() is NOT_IN_TIME
    stage.after = stage.row
    await stage.close()
    sides.far.stage = None
    again = await sides.far.begin(sides.far.row, found=True)
    assert again.too_late() is None
    await asyncio.sleep(0)
    stage = sides.near.stage
    assert stage is not None
    assert stage.fenced, "hosts wait for as long as they were to"


async def test_who_is_being_suspended_is_not_fenced(sides: Sides) -> None:
    sides.cut = True
    waiting = asyncio.ensure_future(write(sides.near, 0, 0, b"a" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    with pytest.raises(Refused) as refused:
        asking.decode_fenced(await sides.near.ask(asking.fence(GROUP, 1)))
    assert refused.value.outcome is Outcome.NOT_NOW
    sides.cut = False
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting
