"""COPY, BITMAP and JOINED as the P-VOLs' side answers them: what a copy has, and what it costs on the wire."""

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication import asking, copying_out
from arrayd.replication.asking import RANGES_MAX, Outcome, Piece, Range, Refused
from arrayd.replication.bitmap import Bitmap, Geometry
from arrayd.replication.bitmap.format import decode_part
from arrayd.replication.copying_out import cut, joined
from arrayd.replication.journal import Position
from arrayd.replication.statuses import Event
from tests.lab.disk import turns
from tests.lab.search import examples
from tests.lab.waiting import until
from tests.replication.pair_doors import BOOT, GROUP, MIB, Primary, Site

PAGE = 4096
WRITES, WRITES_A_COPY = 480, 40
"""A host writes so often, which fills half of the journal, and a copy begins beside each so many."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path, 4 * MIB, [MIB, MIB, 256 * MIB]) as made:
        yield made


@pytest.fixture
async def primary(site: Site) -> AsyncIterator[Primary]:
    begun = await site.begun()
    yield begun
    await begun.leave()


def content(pieces: list[asking.CopyPiece]) -> bytes:
    return b"".join(bytes(each.data) if each.kind is Piece.DATA else bytes(each.length) for each in pieces)


async def test_ranges_come_in_their_order_with_what_is_in_them(primary: Primary) -> None:
    """Figure 11."""
    await primary.write(1, 0, b"a" * PAGE)
    await primary.write(1, 5 * PAGE, b"b" * 2 * PAGE)
    stored, pieces = await primary.copy(1, [Range(6 * PAGE, PAGE), Range(0, 3 * PAGE), Range(512, 512)])
    assert stored == Position(2, 3 * PAGE)
    assert [(each.offset, each.length, each.kind) for each in pieces] == [
        (6 * PAGE, PAGE, Piece.DATA),
        (0, PAGE, Piece.DATA),
        (PAGE, 2 * PAGE, Piece.HOLE),
        (512, 512, Piece.DATA),
    ]
    assert content(pieces) == b"b" * PAGE + b"a" * PAGE + bytes(2 * PAGE) + b"a" * 512


async def test_what_was_there_before_the_pair_is_durable_before_it_is_copied(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in no activity log: a power loss must not take away what the other side has."""
    volume, calls = primary.site.raw["v1"], []
    flush, read = volume.flush, primary.stage._copying._read

    def flushed() -> Any:
        calls.append("flush")
        return flush()

    monkeypatch.setattr(volume, "flush", flushed)

    async def noted(*told: Any) -> Any:
        calls.append("read")
        return await read(*told)

    monkeypatch.setattr(primary.stage._copying, "_read", noted)
    for _ in range(2):
        await primary.copy(1, [Range(0, PAGE)])
    assert calls == ["flush", "read", "read"]


async def test_holes_cost_nothing_on_the_wire(primary: Primary) -> None:
    answer = await primary.ask(asking.copy(GROUP, 1, 2, [Range(0, 4 * MIB)]))
    assert len(answer) < 64
    _, (piece,) = asking.decode_copied(answer)
    assert piece == asking.CopyPiece(0, 4 * MIB, Piece.HOLE)
    primary.site.raw["v2"].thin = False
    primary.stage._fronts[2].thin = False
    _, (piece,) = await primary.copy(2, [Range(0, 4 * MIB)])
    assert piece.kind is Piece.ZEROS


async def test_a_hole_that_is_written_meanwhile_is_none(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen before the ranges are locked decides nothing."""
    asked: list[int] = []
    before = copying_out.holes

    async def holes(*each: object) -> list[Range]:
        found = await before(*each)  # type: ignore[arg-type]
        asked.append(len(found))
        if len(asked) == 1:
            await primary.write(0, 0, b"x" * PAGE)
        return found

    monkeypatch.setattr(copying_out, "holes", holes)
    stored, pieces = await primary.copy(0, [Range(0, 2 * PAGE)])
    assert (stored, asked) == (Position(1, PAGE), [1, 1])
    assert content(pieces) == b"x" * PAGE + bytes(PAGE)


async def test_a_copy_has_what_waits_in_a_thread(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the journal, and not in the volume."""
    file = primary.site.raw["v0"].file
    held: list[asyncio.Future[None]] = []
    write = file.write

    def later(offset: int, view: memoryview) -> asyncio.Future[None]:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held.append(gate)

        async def go() -> None:
            await gate
            await write(offset, view)

        return asyncio.ensure_future(go())

    monkeypatch.setattr(file, "write_now", lambda offset, view: False)
    monkeypatch.setattr(primary.site.raw["v0"], "write_now", lambda offset, view: False)
    monkeypatch.setattr(file, "write", later)
    writing = asyncio.ensure_future(primary.write(0, 0, b"w" * PAGE))
    await until(lambda: bool(held))
    assert primary.journal_in == Position(1, PAGE)
    call = primary.begin(asking.copy(GROUP, 1, 0, [Range(0, PAGE)]))
    await turns(20)
    assert not call.answered.done()
    held[0].set_result(None)
    stored, pieces = asking.decode_copied(memoryview(await call.answered))
    assert (stored, content(pieces)) == (Position(1, PAGE), b"w" * PAGE)
    await writing


async def test_a_copy_has_nothing_that_is_behind_its_position(primary: Primary) -> None:
    """Two volumes' worth of writes go on while copies are made: each copy is its records up to `stored`, exactly."""
    chance = random.Random(7)
    history: list[tuple[int, bytes]] = []
    copies: list[tuple[Position, list[Range], bytes]] = []
    begins = asyncio.Event()
    done = False

    async def host() -> None:
        """A copy begins beside so many writes, however quick the machine is."""
        for number in range(WRITES):
            if number % WRITES_A_COPY == 0:
                begins.clear()
                await begins.wait()
            offset, byte = chance.randrange(32) * PAGE, bytes([chance.randrange(1, 256)])
            history.append((offset, byte))
            front = primary.site.shown["v0"]
            view = memoryview(byte * PAGE)
            pending = front.commit_now(offset, view) if chance.random() < 0.5 else None
            if pending is None:
                pending = asyncio.ensure_future(front.write(offset, view))  # type: ignore[arg-type]
            if chance.random() < 0.2:
                await pending
        if pending is not None:
            await pending

    async def copier() -> None:
        while not done:
            first = chance.randrange(16)
            ranges = [Range(first * PAGE, 8 * PAGE), Range((first + 12) * PAGE, 4 * PAGE)]
            begins.set()
            stored, pieces = await primary.copy(0, ranges)
            copies.append((stored, ranges, content(pieces)))

    async def host_and_end() -> None:
        nonlocal done
        await host()
        done = True

    await asyncio.gather(host_and_end(), copier())
    records, _ = await primary.follow_all()
    assert len({stored for stored, _, _ in copies}) >= WRITES // WRITES_A_COPY - 1
    for stored, ranges, found in copies:
        volume = bytearray(MIB)
        for record in records[: stored.sequence]:
            volume[record.entry.offset : record.entry.offset + record.entry.length] = record.data
        assert found == b"".join(volume[each.offset : each.offset + each.length] for each in ranges)


async def test_a_copy_that_has_waited_until_the_group_has_stopped_is_none(primary: Primary) -> None:
    """What waited for a journal that has failed is in the volume then, and in no journal."""
    front = primary.stage._fronts[0]
    async with front.lock(0, PAGE):
        call = primary.begin(asking.copy(GROUP, 1, 0, [Range(0, PAGE)]))
        await turns(20)
        primary.stage._group.fail(Event.ERROR, "the journal failed")
        late = front.write(PAGE, memoryview(b"l" * PAGE))
        front.replace(primary.site.raw["v0"])
        await late  # type: ignore[misc]
    with pytest.raises(Refused) as refused:
        asking.decode_copied(memoryview(await call.answered))
    assert refused.value.outcome is Outcome.NOT_NOW


async def test_others_need_not_wait_for_what_is_not_in_memory(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read before the range is locked."""
    volume, front = primary.site.raw["v0"], primary.stage._fronts[0]
    await primary.write(0, 0, b"c" * PAGE)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    read = volume.read
    cold = True

    def slow(offset: int, view: memoryview) -> "asyncio.Future[None] | None":
        nonlocal cold
        if cold:
            cold = False
            return gate
        return read(offset, view)  # type: ignore[return-value]

    monkeypatch.setattr(volume, "warm_file", lambda offset, length: None if cold else volume.file)
    monkeypatch.setattr(volume, "read", slow)
    call = primary.begin(asking.copy(GROUP, 1, 0, [Range(0, PAGE)]))
    await until(lambda: not cold)
    assert not front._locks
    await primary.write(0, 0, b"d" * PAGE)
    gate.set_result(None)
    stored, pieces = asking.decode_copied(memoryview(await call.answered))
    assert (stored, content(pieces)) == (Position(2, 2 * PAGE), b"d" * PAGE)


async def test_as_many_ranges_as_there_may_be(primary: Primary) -> None:
    """The head of the answer is longer than a head may be."""
    for number in range(0, 2 * RANGES_MAX, 32):
        await primary.write(2, number * 2 * PAGE, bytes([number % 251]) * PAGE)
    ranges = [Range(number * PAGE, PAGE) for number in range(0, 2 * RANGES_MAX, 2)]
    _, pieces = await primary.copy(2, ranges)
    assert [each[:2] for each in pieces] == ranges
    with (primary.site.folder / "v2").open("rb") as volume:
        for each in pieces:
            volume.seek(each.offset)
            assert content([each]) == volume.read(each.length)


@pytest.mark.parametrize("wrong", [Range(MIB - PAGE, 2 * PAGE), Range(100, 512), Range(0, 100)])
async def test_a_range_that_is_not_there_is_refused(primary: Primary, wrong: Range) -> None:
    with pytest.raises(Refused) as refused:
        await primary.copy(0, [Range(0, PAGE), wrong])
    assert refused.value.outcome is Outcome.FAILED


async def test_another_pair_or_generation_is_refused(primary: Primary) -> None:
    for question in (
        asking.copy(GROUP, 1, 3, [Range(0, PAGE)]),
        asking.copy(GROUP, 2, 0, [Range(0, PAGE)]),
        asking.bitmap(GROUP, 1, 3, 0),
        asking.bitmap(GROUP, 2, 0, 0),
        asking.joined(GROUP, 2, 0),
    ):
        with pytest.raises(Refused) as refused:
            asking.decode_done(await primary.ask(question))
        assert refused.value.outcome is Outcome.NOT_NOW


async def test_a_peer_without_credit_gets_no_copy(primary: Primary) -> None:
    call = primary.begin(asking.copy(GROUP, 1, 0, [Range(0, PAGE)]))
    call.credit = PAGE - 1
    assert (await call.answered)[0] == Outcome.FAILED
    assert primary.stage._copying._buffers.used_bytes == 0


# -- bitmaps -----------------------------------------------------------------------------------------------------------


async def marked(site: Site, number: int, ranges: list[Range]) -> None:
    """A bitmap as a suspension has left it."""
    size = site.sizes[number]
    name = f"{GROUP.hex()}-{number}.bitmap"
    bitmap = await Bitmap.create(
        await site.stores.create(name, Geometry(size).bytes_needed), size, GROUP, BOOT, marked=False
    )
    for each in ranges:
        await bitmap.mark(*each)
    await bitmap.close()
    await site.stores.close(name)


async def parts(primary: Primary, number: int) -> dict[int, int]:
    found: dict[int, int] = {}
    begin, geometry = 0, Geometry(primary.site.sizes[number])
    while True:
        following, part = asking.decode_part(await primary.ask(asking.bitmap(GROUP, 1, number, begin)))
        found |= decode_part(part, geometry).pages
        if not following:
            return found
        begin = following


async def test_the_bitmap_is_given_out_until_it_is_joined(site: Site) -> None:
    await marked(site, 2, [Range(0, PAGE), Range(200 * MIB, 2 * PAGE)])
    primary = await site.begun()
    found = await parts(primary, 2)
    assert [bits.bit_count() for bits in found.values()] == [1, 2]
    assert primary.stage.progress().differing is None, "the other side knows what is left to be copied"
    assert await parts(primary, 0) == {}, "there is none: nothing is marked"
    for _ in range(2):
        asking.decode_done(await primary.ask(asking.joined(GROUP, 1, 2)))
        assert await parts(primary, 2) == {}
        assert site.stores.names() == []
    with pytest.raises(Refused, match="page 3 of 3"):
        asking.decode_part(await primary.ask(asking.bitmap(GROUP, 1, 2, 3)))
    await primary.leave()


async def test_a_bitmap_that_is_none_tells_that_all_differs(site: Site) -> None:
    (site.folder / "stores" / f"{GROUP.hex()}-0.bitmap").write_bytes(bytes(10 * PAGE))
    primary = await site.begun()
    assert [bits.bit_count() for bits in (await parts(primary, 0)).values()] == [MIB // PAGE]
    await primary.leave()


# -- arithmetic --------------------------------------------------------------------------------------------------------

RANGES = st.lists(st.builds(Range, st.integers(0, 200), st.integers(1, 30)), min_size=1, max_size=12)


def places(ranges: list[Range]) -> set[int]:
    return {at for each in ranges for at in range(each.offset, each.offset + each.length)}


@settings(max_examples=examples(40))
@given(RANGES, st.integers(1, 9))
def test_joined_ranges_have_all_and_are_apart(ranges: list[Range], count: int) -> None:
    found = joined(ranges, count)
    assert len(found) <= count
    assert places(found) >= places(ranges)
    for left, right in pairwise(found):
        assert left.offset + left.length < right.offset
        assert {left.offset + left.length, right.offset - 1}.isdisjoint(places(ranges))
    if count >= 2 * len(ranges):
        assert places(found) == places(ranges)


@settings(max_examples=examples(40))
@given(RANGES, RANGES)
def test_pieces_are_the_ranges_and_tell_what_is_empty(ranges: list[Range], empty: list[Range]) -> None:
    empty = joined(empty, 100)
    pieces = cut(ranges, empty)
    in_order = [at for each in ranges for at in range(each.offset, each.offset + each.length)]
    assert [at for each in pieces for at in range(each.offset, each.offset + each.length)] == in_order
    for each in pieces:
        within = places([Range(each.offset, each.length)])
        assert within <= places(empty) if each.kind is Piece.HOLE else within.isdisjoint(places(empty))


def test_too_many_pieces_are_fewer() -> None:
    ranges = [Range(at * 100, 100) for at in range(RANGES_MAX)]
    empty = [Range(0, 100), *(Range(at * 100 + 50, 10) for at in range(1, RANGES_MAX))]
    pieces = cut(ranges, empty)
    assert [Range(*each[:2]) for each in pieces] == ranges
    assert [each.kind for each in pieces] == [Piece.HOLE] + [Piece.DATA] * (RANGES_MAX - 1)
