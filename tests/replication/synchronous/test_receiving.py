"""Synchronous S-VOLs: what they take, and what they know after either side has died."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from arrayd.replication import asking
from arrayd.replication.activity import HOT_BYTES
from arrayd.replication.asking import Asked, Outcome, Refused
from arrayd.replication.pair_stores import make_bitmaps
from arrayd.replication.stages import Answer
from arrayd.replication.statuses import Event, State
from arrayd.replication.synchronous import formats
from arrayd.replication.synchronous.formats import Carried, Kind
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.replication.synchronous.receiving import Receiving
from tests.replication.following_doors import until
from tests.replication.synchronous.sides import GROUP, NUMBERS, REGION, Array, Sides, suspended, turns

SIZE = 64 * REGION


def mirror(life: int, offset: int, data: bytes, number: int = 0) -> bytes:
    return formats.mirror(GROUP, 1, life, [Carried(number, Kind.WRITE, False, offset, len(data), memoryview(data))])


async def test_what_an_earlier_life_asked_has_ended_before_the_next_one_begins() -> None:
    """Else the P-VOLs would get what is here, and it would change afterwards."""
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.near.kill()
    formats.decode_begun(await sides.far.ask(formats.begin(GROUP, 1, 77)))
    go = sides.far.hold(0)
    late = asyncio.ensure_future(sides.far.ask(mirror(77, 512, b"b" * 512)))
    await turns()
    beginning = asyncio.ensure_future(sides.far.ask(formats.begin(GROUP, 1, 78)))
    await turns()
    assert not beginning.done()
    with pytest.raises(Refused) as refused:
        asking.decode_done(await sides.far.ask(mirror(77, 1024, b"c" * 512)))
    assert refused.value.outcome is Outcome.NOT_NOW
    go.set()
    assert formats.decode_begun(await beginning) == (False, b"")
    assert late.done()
    assert sides.far.files[0].content[512:1024] == b"b" * 512
    sides.near.revive()
    await sides.near.begin(sides.near.row, found=True)
    await sides.close()


async def test_a_bitmap_is_read_again_before_it_is_given_up() -> None:
    """A life of the other side that began in between has marked more in what was read already."""
    sides = Sides(SIZE)
    await sides.pair(State.P_COPY)
    far = sides.far.stage
    assert isinstance(far, Receiving)
    copying = far.copying
    assert copying is not None
    seen: list[Asked] = []
    ask_near = far.doors.ask

    async def ask_and_begin_again(array: str, question: bytes, expects: int) -> Answer:
        asked = asking.decode_question(memoryview(question)).asked
        answer = await ask_near(array, question, expects)
        if answer.view[0] != Outcome.DONE:
            return answer  # the other side has not begun
        if asked is Asked.BITMAP and Asked.BITMAP not in seen:
            assert copying.join_again()
        seen.append(asked)
        return answer

    copying._pulling.doors = replace(far.doors, ask=ask_and_begin_again)
    await until(lambda: bool(sides.far.events))
    assert sides.far.events == [(Event.COPY_END, "")]
    told = [each for each in seen if each in (Asked.BITMAP, Asked.JOINED)]
    assert told[:3] == [Asked.BITMAP, Asked.BITMAP, Asked.JOINED]
    await sides.close()


def unnoticed(array: Array) -> list[int]:
    """Blocks of volume 0 that a power loss would change now, with nothing to tell of it."""
    file, stage = array.files[0], array.stage
    assert isinstance(stage, Receiving | Mirroring)
    blocks = range(0, file.size, HOT_BYTES)
    hot = stage._activity.logs[0].hot
    return [
        at // HOT_BYTES
        for at in blocks
        if at // HOT_BYTES not in hot and file.content[at : at + HOT_BYTES] != file.durable[at : at + HOT_BYTES]
    ]


async def copied_to_alone(sides: Sides) -> None:
    """The S-VOLs' side is in COPY, of which nothing comes."""
    row = sides.row(sides.far, State.S_COPY)
    sides.far.row = row
    await make_bitmaps(Receiving(row, sides.far.doors(), sides.far.told()), NUMBERS, marked=False)
    sides.cut = True
    await sides.far.begin(row)


async def test_what_a_kill_leaves_in_memory_alone_stays_hot_in_copy() -> None:
    sides = Sides(SIZE)
    await copied_to_alone(sides)
    formats.decode_begun(await sides.far.ask(formats.begin(GROUP, 1, 1)))
    asking.decode_done(await sides.far.ask(mirror(1, 512, b"b" * 512)))
    assert unnoticed(sides.far) == []
    sides.far.kill()
    sides.far.revive()
    await sides.far.begin(sides.far.row, found=True)
    assert unnoticed(sides.far) == []
    await sides.close()


async def test_what_was_lost_in_copy_is_not_taken_for_lost_once_more() -> None:
    """A kill in PAIR, after a power loss in COPY of which all is copied again, loses nothing."""
    sides = Sides(SIZE)
    await copied_to_alone(sides)
    formats.decode_begun(await sides.far.ask(formats.begin(GROUP, 1, 1)))
    asking.decode_done(await sides.far.ask(mirror(1, 512, b"b" * 512)))
    sides.far.kill()
    sides.far.revive(power=True)
    await sides.far.begin(sides.far.row, found=True)
    assert await sides.far.marked(0) == [(0, SIZE)]
    formats.decode_begun(await sides.far.ask(formats.begin(GROUP, 1, 1)))
    asking.decode_done(await sides.far.ask(mirror(1, 512, b"b" * 512)))
    assert unnoticed(sides.far) == []
    sides.far.kill()
    sides.far.revive()
    await sides.far.begin(sides.row(sides.far, State.S_PAIR, consistent=True), found=True)
    assert sides.far.events == []
    await sides.close()


async def test_what_a_kill_of_the_p_vols_side_leaves_in_memory_alone_is_durable_or_hot_in_copy() -> None:
    sides = Sides(SIZE)
    await copied_to_alone(sides)
    sides.cut = False
    await sides.near.begin(sides.row(sides.near, State.P_COPY))
    writing = asyncio.ensure_future(sides.write(0, 0, b"a" * 512))
    await writing
    far = sides.far.stage
    assert isinstance(far, Receiving)
    assert far.copying is not None
    sides.near.kill()
    far.copying.copied = far._copy_ended = False
    sides.near.revive()
    stage = await sides.near.begin(sides.near.row, found=True)
    assert isinstance(stage, Mirroring)
    await until(lambda: not stage._unsure)
    assert unnoticed(sides.near) == []
    await sides.close()


async def test_before_images_are_closed_when_no_write_uses_them_any_more() -> None:
    sides = Sides(SIZE)
    row = sides.row(sides.far, State.S_COPY, consistent=True)
    sides.far.row = row
    await make_bitmaps(Receiving(row, sides.far.doors(), sides.far.told()), NUMBERS, marked=False)
    await sides.far.begin(row)
    far = sides.far.stage
    assert isinstance(far, Receiving)
    images = far.images_name(0)
    formats.decode_begun(await sides.far.ask(formats.begin(GROUP, 1, 1)))
    kept, go = far._stores.images[0], asyncio.Event()
    original = kept.keep

    async def keep(ranges: Sequence[tuple[int, int]]) -> None:
        await go.wait()
        assert images in sides.far.stores.open_names
        await original(ranges)

    kept.keep = keep  # type: ignore[method-assign]
    writing = asyncio.ensure_future(sides.far.ask(mirror(1, 512, b"b" * 512)))
    await turns()
    far.changed(suspended(row, State.S_PAIR))
    await turns()
    go.set()
    asking.decode_done(await writing)
    await until(lambda: images not in sides.far.stores.files)
    assert images not in sides.far.stores.open_names
    await far.stop(far.row)
    await far.close()


async def test_what_is_lost_is_told_again_if_the_suspension_comes_to_nothing() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.far.kill()
    sides.far.revive(power=True)
    for _ in range(3):
        sides.far.events.clear()
        stage = await sides.far.begin(sides.far.row, found=True)
        assert [event for event, _ in sides.far.events] == [Event.ERROR]
        assert await stage.stop(suspended(sides.far.row, State.S_PSUE)) is None
        stage.after = stage.row
        await stage.close()
        sides.far.stage = None
    await sides.close()
