"""Pairs come to a synchronous group that runs, and leave it, while hosts write to the others."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from arrayd.replication.choosing import KINDS
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.pair_stores import forget_stores, make_bitmaps, make_logs
from arrayd.replication.statuses import Event, State
from arrayd.volumes.volume import finished
from tests.replication.following_doors import until
from tests.replication.synchronous.sides import NUMBERS, REGION, Array, Sides, suspended, turns

SIZE = 64 * REGION
FIRST, SECOND = NUMBERS


def only(row: GroupRow, *numbers: int) -> GroupRow:
    return replace(row, pairs=tuple(pair for pair in row.pairs if pair.number in numbers))


async def goes_on(array: Array, row: GroupRow, *, marked: bool = True) -> None:
    """The same stage for other pairs, as `changes.py` does it."""
    old = array.stage
    assert old is not None
    assert await old.stop(old.row) is None
    new = KINDS.of(row)(row, array.doors(), array.told())
    fresh = row.states.keys() - array.row.states.keys()
    if array is array.sides.far and fresh:
        await make_bitmaps(new, fresh, marked=marked)
    await make_logs(new, fresh)
    gone = array.row.states.keys() - row.states.keys()
    await new.prepare(found=True)
    array.stage, array.row = new, row
    await new.enter()
    for number in gone:
        await array.doors().show(f"v{number}", None)
    await old.close()
    for number in gone:
        await forget_stores(old, number)


async def begun(sides: Sides, *numbers: int) -> None:
    """A group of these pairs, PAIR."""
    far = only(sides.row(sides.far, State.S_COPY), *numbers)
    await make_bitmaps(KINDS.of(far)(far, sides.far.doors(), sides.far.told()), numbers, marked=True)
    await sides.far.begin(far)
    await sides.near.begin(only(sides.row(sides.near, State.P_COPY), *numbers))
    await paired(sides)


async def paired(sides: Sides) -> None:
    await until(lambda: (Event.COPY_END, "") in sides.far.events)
    sides.far.events.clear()
    for array, state in ((sides.far, State.S_PAIR), (sides.near, State.P_PAIR)):
        array.row = suspended(array.row, state, consistent=True)
        assert array.stage is not None
        array.stage.changed(array.row)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("first_far", [False, True])
async def test_a_pair_comes_while_hosts_write_to_the_other(first_far: bool, marked: bool) -> None:
    """The new one is copied, or is the same on both sides already."""
    sides = Sides(SIZE, refusals=0.3)
    for number in NUMBERS:
        for array in (sides.near, sides.far) if number == SECOND and not marked else (sides.near,):
            array.files[number].content[:] = array.files[number].durable[:] = random.Random(number).randbytes(SIZE)
    await begun(sides, FIRST)
    sides.copied.clear()
    writing = [asyncio.ensure_future(sides.write(FIRST, at * 512, bytes([at]) * 512)) for at in range(1, 10)]
    await turns(3)
    arrays = [(sides.near, State.P_PAIR, State.P_COPY), (sides.far, State.S_PAIR, State.S_COPY)]
    for array, runs, copies in reversed(arrays) if first_far else arrays:
        row = sides.row(array, copies, generation=2)
        pairs = (replace(row.pairs[0], state=runs), row.pairs[1])
        await goes_on(array, replace(row, pairs=pairs, consistent=False), marked=marked)
        writing += [asyncio.ensure_future(sides.write(FIRST, at * 512, bytes([at]) * 512)) for at in range(20, 30)]
        await turns(10)
    writing.append(asyncio.ensure_future(sides.write(SECOND, 512, b"n" * 512)))
    await asyncio.gather(*writing)
    await until(lambda: (Event.COPY_END, "") in sides.far.events)
    assert sides.near.events == []
    assert sides.alike()
    assert {number for number, _, _ in sides.copied} == ({SECOND} if marked else set())
    await paired(sides)
    await sides.write(SECOND, 0, b"z" * 512)
    assert sides.alike()
    await sides.close()


async def test_a_pair_leaves_while_hosts_write_to_both() -> None:
    sides = Sides(SIZE, refusals=0.3)
    await begun(sides, *NUMBERS)
    writing = [asyncio.ensure_future(sides.write(at % 2 * SECOND, at * 512, bytes([at]) * 512)) for at in range(1, 20)]
    await turns(3)
    for array in (sides.far, sides.near):
        await goes_on(array, only(array.row, FIRST))
        await turns(3)
    await asyncio.gather(*writing)
    assert sides.near.contents()[FIRST] == sides.far.contents()[FIRST]
    await sides.write(SECOND, 0, b"a" * 512)
    assert sides.near.files[SECOND].content[:512] == b"a" * 512
    assert sides.far.files[SECOND].content[:512] != b"a" * 512, "it is in no pair"
    await sides.write(FIRST, 0, b"b" * 512)
    assert sides.far.files[FIRST].content[:512] == b"b" * 512
    for array in (sides.near, sides.far):
        assert not array.events
        assert not [name for name in array.stores.files if name.endswith((f"-{SECOND}.bitmap", f"-{SECOND}.before"))]
    await sides.close()


@pytest.mark.parametrize("times", [1, 2])
async def test_who_compares_and_writes_meanwhile_comes_before_those_behind_him_on_both_sides(times: int) -> None:
    sides = Sides(SIZE)
    await begun(sides, *NUMBERS)

    async def compares_and_writes() -> None:
        async with host.lock(0, 512):
            await go.wait()
            await finished(host.write_under_lock(0, memoryview(b"l" * 512)))

    host, go = sides.host(FIRST), asyncio.Event()
    holder = asyncio.ensure_future(compares_and_writes())
    await turns()
    for _ in range(times):
        await goes_on(sides.near, sides.near.row)
    behind = asyncio.ensure_future(sides.write(FIRST, 0, b"o" * 512))
    beside = asyncio.ensure_future(sides.write(FIRST, 512, b"b" * 512))
    await beside
    await turns()
    assert not behind.done()
    go.set()
    await holder
    await behind
    assert sides.alike()
    assert sides.far.files[FIRST].content[:512] == b"o" * 512
    await sides.write(FIRST, 0, b"z" * 512)
    await sides.close()
