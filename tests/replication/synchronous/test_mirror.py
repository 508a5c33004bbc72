"""The way of hosts' writes to both arrays: in bounded time, whatever the other one does."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.replication.group_rows import Fence
from arrayd.replication.statuses import Event, State
from tests.replication.synchronous.sides import NUMBERS, REGION, Sides, suspended, until_in_time

SIZE = 64 * REGION


@pytest.mark.parametrize("fence", Fence)
async def test_a_write_does_not_wait_for_a_life_that_cannot_be_begun(fence: Fence) -> None:
    """The stage itself tries for ever to begin it, and no write may wait for that one."""
    sides = Sides(SIZE, fence)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.near.begin(sides.near.row)
    sides.cut = True
    await sides.near.begin(sides.near.row)
    waiting = [asyncio.ensure_future(sides.write(number, 0, b"a" * 512)) for number in NUMBERS]
    await until_in_time(lambda: bool(sides.near.events))
    expected = Event.ERROR if fence is Fence.NEVER else Event.ERROR_FENCED
    assert [event for event, _ in sides.near.events] == [expected]
    sides.cut = False
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await asyncio.gather(*waiting)
    await sides.close()
