"""Stages of synchronous pairs that cannot be prepared, and that have ended: nothing is left open, or at work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from arrayd.replication import activity, copy_stores, fencing, suspending
from arrayd.replication.choosing import KINDS
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeFailed
from tests.replication.synchronous.sides import GROUP, REGION, Array, Sides, suspended, turns

SIZE = 64 * REGION


async def refuses(*_arguments: Any, **_named: Any) -> None:
    raise VolumeFailed("gone")


async def dead(sides: Sides, array: Array) -> None:
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    array.kill()
    array.revive()
    assert array.stores.open_names == set()


@pytest.mark.parametrize(
    ("where", "name"),
    [(activity.ActivityLog, "open"), (suspending.Bitmaps, "mark"), (fencing.Fencing, "stand_again")],
)
async def test_p_vols_that_cannot_be_taken_up_leave_nothing_open(
    where: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = Sides(SIZE)
    await dead(sides, sides.near)
    row = sides.near.row
    with monkeypatch.context() as broken:
        broken.setattr(where, name, refuses)
        stage = KINDS.of(row)(row, sides.near.doors(), sides.near.told())
        with pytest.raises(VolumeFailed):
            await stage.prepare(found=True)
        await stage.close()
    assert sides.near.stores.open_names == set()
    await sides.near.begin(row, found=True)
    await sides.write(0, 0, b"b" * 512)
    assert sides.alike()
    await sides.close()


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (activity.ActivityLog, "open"),
        (copy_stores.CopyStores, "open_images"),
        (copy_stores.CopyStores, "open_bitmaps"),
    ],
)
async def test_s_vols_that_cannot_be_taken_up_leave_nothing_open(
    where: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = Sides(SIZE)
    await dead(sides, sides.far)
    row = suspended(sides.far.row, State.S_COPY, consistent=True)
    with monkeypatch.context() as broken:
        broken.setattr(where, name, refuses)
        stage = KINDS.of(row)(row, sides.far.doors(), sides.far.told())
        with pytest.raises(VolumeFailed):
            await stage.prepare(found=True)
        await stage.close()
    assert sides.far.stores.open_names == set()
    await sides.far.begin(sides.far.row, found=True)
    await sides.write(0, 0, b"b" * 512)
    assert sides.alike()
    await sides.close()


def row_of(state: State, generation: int = 1) -> Callable[[GroupRow], GroupRow]:
    return lambda row: suspended(row, state, generation=generation)


@pytest.mark.parametrize(
    ("near", "far"),
    [
        (None, None),
        (row_of(State.P_PAIR), row_of(State.S_PAIR)),
        (row_of(State.P_PSUS), row_of(State.S_SSUS_WRITABLE)),
        (row_of(State.P_PSUE_FENCED), row_of(State.S_PSUE)),
        (row_of(State.P_PSUS), row_of(State.S_SSWS)),
    ],
)
@pytest.mark.parametrize("state", [State.P_PAIR, State.P_COPY])
async def test_nothing_is_at_work_and_no_store_is_left_that_nobody_needs(
    near: Callable[[GroupRow], GroupRow] | None, far: Callable[[GroupRow], GroupRow] | None, state: State
) -> None:
    before = asyncio.all_tasks()
    sides = Sides(SIZE, refusals=0.3)
    sides.turns = 2
    await sides.pair(state, marked=state is State.P_COPY)
    writing = [asyncio.ensure_future(sides.write(number, 512, b"a" * 512)) for number in (0, 3, 0)]
    await turns(3)

    async def ended(array: Array, made: Callable[[GroupRow], GroupRow] | None) -> None:
        assert array.stage is not None
        row = None if made is None else made(array.row)
        assert await array.stage.stop(row) is None
        array.stage.after = row
        await array.stage.close()

    ends: list[Coroutine[Any, Any, None]] = [ended(sides.near, near), ended(sides.far, far)]
    for each in ends:
        await each
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert all(each is None or isinstance(each, VolumeFailed) for each in outcomes)
    await turns()
    assert asyncio.all_tasks() == before
    for array, made in ((sides.near, near), (sides.far, far)):
        assert array.stores.open_names == set()
        left = {name.removeprefix(GROUP.hex()) for name in array.stores.files}
        runs = made is not None and made(array.row).states[0] in (State.P_PAIR, State.S_PAIR)
        assert not [name for name in left if name.endswith("fence")]
        assert bool([name for name in left if name.endswith("activity")]) is runs
        if made is None:
            assert left == set()
