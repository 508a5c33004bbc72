"""Synchronous S-VOLs that cannot be synced: nothing that hosts were answered is taken for being there."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from arrayd.replication.statuses import Event, State
from arrayd.volumes.volume import VolumeError, VolumeFailed, finished
from tests.replication.synchronous.sides import REGION, Sides, suspended, until_in_time
from tests.replication.synchronous.test_suspended import bitmap_of

SIZE = 64 * REGION


async def failing() -> Sides:
    """Both sides, of which the far one could not sync an S-VOL when a host flushed it."""
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.far.files[0].fails = VolumeFailed("it cannot be written to")
    flush = asyncio.ensure_future(finished(sides.host(0).flush()))
    await until_in_time(lambda: bool(sides.far.events and sides.near.events))
    assert [event for event, _ in sides.far.events] == [Event.ERROR]
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    with suppress(VolumeError):
        await flush
    return sides


async def test_they_stand_and_all_of_them_is_marked() -> None:
    sides = await failing()
    await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
    assert await bitmap_of(sides.far, 0) == [(0, SIZE)]
    assert not await bitmap_of(sides.far, 3)
    await sides.close()


async def test_a_death_before_they_are_suspended_does_not_hide_it() -> None:
    """In the same boot: power was not lost, and what could not be written is gone all the same."""
    sides = await failing()
    sides.far.kill()
    sides.far.revive()
    sides.far.files[0].fails = None
    sides.far.events.clear()
    await sides.far.begin(sides.far.row, found=True)
    assert [event for event, _ in sides.far.events] == [Event.ERROR]
    await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
    assert await bitmap_of(sides.far, 0) == [(0, SIZE)]
    await sides.close()


async def test_hosts_are_not_given_them() -> None:
    sides = await failing()
    with pytest.raises(VolumeError):
        await sides.far.begin(suspended(sides.far.row, State.S_SSWS))
    sides.far.kill()
    await sides.close()


async def test_once_they_stand_hosts_are_not_given_them_either() -> None:
    sides = await failing()
    await sides.far.begin(suspended(sides.far.row, State.S_PSUE))
    with pytest.raises(VolumeError):
        await sides.far.begin(suspended(sides.far.row, State.S_SSWS))
    sides.far.kill()
    await sides.close()


async def test_p_vols_that_begin_without_the_other_side_suspend_in_time() -> None:
    """The life of the P-VOLs' stage, which is told without end, keeps no write from its time."""
    sides = Sides(SIZE)
    sides.cut = True
    await sides.pair(State.P_PAIR, marked=False)
    waiting = asyncio.ensure_future(sides.write(0, 0, b"a" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    assert [event for event, _ in sides.near.events] == [Event.ERROR]
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting
    assert await sides.near.marked(0) == [(0, REGION)]
    sides.cut = False
    await sides.close()


async def test_what_differs_is_known_until_the_suspension_is_committed() -> None:
    """A death between the end of the stage and the commit of its row."""
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.cut = True
    waiting = asyncio.ensure_future(sides.write(0, REGION, b"b" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    assert sides.near.stage is not None
    assert await sides.near.stage.stop(suspended(sides.near.row, State.P_PSUE)) is None
    sides.near.kill()
    waiting.cancel()
    sides.cut = False
    sides.near.revive()
    await sides.near.begin(sides.near.row, found=True)
    await finished(sides.host(0).read(0, memoryview(bytearray(512))))
    assert sides.alike()
    await sides.close()
