"""Synchronous S-VOLs: what they take, and what they know after either side has died."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from arrayd.link.channel import Call
from arrayd.replication import asking
from arrayd.replication.asking import Outcome, Refused
from arrayd.replication.statuses import State
from arrayd.replication.synchronous import formats
from arrayd.replication.synchronous.formats import Carried, Kind
from tests.replication.pair_doors import AskedCall
from tests.replication.synchronous.sides import GROUP, REGION, Array, Sides

SIZE = 64 * REGION


async def ask(array: Array, question: bytes) -> memoryview:
    call = AskedCall()
    assert array.stage is not None
    await array.stage.answer(asking.decode_question(memoryview(question)), cast(Call, call))
    return memoryview(call.answered.result())


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def hold(array: Array, number: int) -> asyncio.Event:
    """All writes to a volume wait from now on, until it is set."""
    file, go = array.files[number], asyncio.Event()
    original = file.write

    def write(offset: int, view: memoryview) -> asyncio.Future[None]:
        async def later() -> None:
            await go.wait()
            await original(offset, view)

        return asyncio.ensure_future(later())

    file.refusals, file.write = 1.0, write  # type: ignore[method-assign]
    return go


def mirror(life: int, offset: int, data: bytes, number: int = 0) -> bytes:
    return formats.mirror(GROUP, 1, life, [Carried(number, Kind.WRITE, False, offset, len(data), memoryview(data))])


async def test_what_an_earlier_life_asked_has_ended_before_the_next_one_begins() -> None:
    """Else the P-VOLs would get what is here, and it would change afterwards."""
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.near.kill()
    formats.decode_begun(await ask(sides.far, formats.begin(GROUP, 1, 77)))
    go = hold(sides.far, 0)
    late = asyncio.ensure_future(ask(sides.far, mirror(77, 512, b"b" * 512)))
    await turns()
    beginning = asyncio.ensure_future(ask(sides.far, formats.begin(GROUP, 1, 78)))
    await turns()
    assert not beginning.done()
    with pytest.raises(Refused) as refused:
        asking.decode_done(await ask(sides.far, mirror(77, 1024, b"c" * 512)))
    assert refused.value.outcome is Outcome.NOT_NOW
    go.set()
    assert formats.decode_begun(await beginning) is False
    assert late.done()
    assert sides.far.files[0].content[512:1024] == b"b" * 512
    sides.near.revive()
    await sides.near.begin(sides.near.row, found=True)
    await sides.close()
