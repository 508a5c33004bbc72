"""What is marked when P-VOLs are suspended: all that the S-VOLs may not have, whatever fails meanwhile."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication import suspending
from arrayd.replication.bitmap import REGION_BYTES, Bitmap, Geometry
from arrayd.replication.bitmap.format import PAGE_BITS
from arrayd.replication.journal import Position
from arrayd.replication.journal.regions import START
from arrayd.replication.statuses import Event, State
from arrayd.replication.suspending import Differing
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed, finished
from tests.lab.disk import turns
from tests.lab.search import examples
from tests.replication.pair_doors import BOOT, GROUP, MIB, Primary, Site

PAGE = 4096
WHOLE = [(0, MIB)]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as made:
        yield made


@pytest.fixture
async def primary(site: Site) -> Primary:
    return await site.begun(site.row(State.P_PAIR))


async def suspended(primary: Primary, state: State = State.P_PSUS) -> list[list[tuple[int, int]]]:
    """What is marked in each bitmap then."""
    await primary.stage.stop(primary.site.row(state))
    await primary.stage.close()
    return [await primary.marked(number) for number in range(len(primary.site.sizes))]


async def test_what_a_volume_has_refused_is_marked(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The S-VOL has it, and the P-VOL has not."""
    await primary.write(0, 0, b"a" * PAGE)
    raw = primary.site.raw["v1"]

    def refuse(*_: object) -> None:
        raise VolumeFailed("gone")

    monkeypatch.setattr(raw, "write_now", lambda offset, view: False)
    monkeypatch.setattr(raw, "write", refuse)
    with pytest.raises(VolumeFailed):
        await primary.write(1, 8 * PAGE, b"b" * PAGE)
    await turns()
    assert primary.site.events == [Event.ERROR]
    _, end = await primary.follow_all()
    await primary.follow(end, end)
    assert await suspended(primary, State.P_PSUE) == [[], [(8 * PAGE, PAGE)], []]


async def test_a_volume_that_cannot_be_synced_differs_in_all_and_keeps_nobody(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush() -> asyncio.Future[None]:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(VolumeFailed("gone"))
        return failed

    await primary.write(0, 0, b"a" * PAGE)
    monkeypatch.setattr(primary.site.raw["v2"], "flush", flush)
    assert await suspended(primary, State.P_PSUE) == [[(0, PAGE)], [], WHOLE]


async def test_a_journal_that_cannot_be_read_tells_nothing(primary: Primary) -> None:
    for number in range(3):
        await primary.write(0, number * PAGE, b"a" * PAGE)
    # A byte of the second record's entry: time, which nothing else looks at.
    raw = primary.site.raw["j"]
    page = memoryview(bytearray(PAGE))
    assert raw.read_now(8192, page)
    page[128 + 30] ^= 1
    raw.write_now(8192, page)
    assert await suspended(primary) == [WHOLE] * 3


async def test_a_journal_that_has_failed_keeps_what_it_had(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    await primary.write(0, 0, b"a" * PAGE)

    def fail(*_: object) -> None:
        raise VolumeFailed("gone")

    monkeypatch.setattr(primary.site.raw["j"], "write_now", lambda offset, view: False)
    monkeypatch.setattr(primary.site.raw["j"], "write", fail)
    pending = primary.site.shown["v0"].write(8 * PAGE, memoryview(bytes(PAGE)))
    assert pending is not None
    late = asyncio.ensure_future(pending)
    await turns(20)
    assert primary.site.events == [Event.ERROR]
    assert not late.done()
    await primary.stage.stop(primary.site.row(State.P_PSUE))
    assert not primary.stage.tail(), "nothing more can be proven from it"
    assert await primary.marked(0) == [(0, PAGE)]
    await primary.stage.close()
    with pytest.raises(VolumeFailed):
        await late


async def test_what_was_marked_stays_marked(site: Site) -> None:
    """A resync that was cut short: its bitmap is not joined yet."""
    name = f"{GROUP.hex()}-0.bitmap"
    store = await site.stores.create(name, Geometry(MIB).bytes_needed)
    bitmap = await Bitmap.create(store, MIB, GROUP, BOOT)
    await bitmap.mark(64 * PAGE, PAGE)
    await bitmap.close()
    await site.stores.close(name)
    primary = await site.begun()
    await primary.write(0, 0, b"a" * PAGE)
    assert await suspended(primary) == [[(0, PAGE), (64 * PAGE, PAGE)], [], []]


async def test_a_bitmap_that_fails_is_done_again(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    await primary.write(0, 0, b"a" * PAGE)
    mark = Differing.mark

    async def fail(*_: object) -> None:
        raise VolumeFailed("no room")

    monkeypatch.setattr(Differing, "mark", fail)
    with pytest.raises(VolumeError, match="no room"):
        await primary.stage.stop(primary.site.row(State.P_PSUS))
    late = primary.site.shown["v0"].write(8 * PAGE, memoryview(bytes(PAGE)))
    await turns()
    assert isinstance(late, asyncio.Future)
    assert not late.done()
    monkeypatch.setattr(Differing, "mark", mark)
    assert await suspended(primary) == [[(0, PAGE)], [], []]
    with pytest.raises(VolumeFailed):
        await late


async def test_many_entries_are_read_in_turns(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arrayd.replication.journal.reading.CHANGES_MAX", 7)
    for number in range(40):
        await primary.write(number % 2, number * 2 * PAGE, b"a" * PAGE)
    _, end = await primary.follow_all()
    await primary.follow(end, Position(3, 3 * PAGE))
    marked = await suspended(primary)
    assert marked[0] == [(number * 2 * PAGE, PAGE) for number in range(4, 40, 2)]
    assert marked[1] == [(number * 2 * PAGE, PAGE) for number in range(3, 40, 2)]


async def test_writes_go_on_until_the_group_stops(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitmaps are made before, and what is written meanwhile is marked all the same."""
    made = suspending.Bitmaps.opened_or_made

    async def slowly(bitmaps: suspending.Bitmaps) -> dict[int, Bitmap]:
        found = await made(bitmaps)
        await primary.write(2, 2 * PAGE, b"m" * PAGE)
        return found

    added = Differing.add_records

    async def add(differing: Differing, journal: object, at: Position, end: Position) -> None:
        await added(differing, journal, at, end)  # type: ignore[arg-type]
        if at == START:
            await primary.write(2, 6 * PAGE, b"n" * PAGE)

    monkeypatch.setattr(suspending.Bitmaps, "opened_or_made", slowly)
    monkeypatch.setattr(Differing, "add_records", add)
    assert await suspended(primary) == [[], [], [(2 * PAGE, PAGE), (6 * PAGE, PAGE)]]


SIZE = 3 * PAGE_BITS * REGION_BYTES // 2 + 512
BLOCKS = SIZE // 512


def change(at: int, length: int) -> tuple[int, int]:
    return at * 512, min(length, BLOCKS - at) * 512


def regions(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {at for offset, length in ranges for at in range(offset // PAGE, -(-(offset + length) // PAGE))}


CHANGES = st.lists(
    st.builds(change, st.integers(0, BLOCKS - 1), st.integers(1, 9) | st.integers(1, BLOCKS)), max_size=5
)


@settings(max_examples=examples(20))
@given(CHANGES)
async def test_marks_are_the_regions_of_what_has_changed(changes: list[tuple[int, int]]) -> None:
    differing = Differing([0])
    for change in changes:
        differing.add(0, *change)
        differing.add(1, *change)
    with tempfile.TemporaryDirectory() as folder:
        async with Site.at(Path(folder), sizes=[PAGE]) as site:
            store = await site.stores.create("store", Geometry(SIZE).bytes_needed)
            bitmap = await Bitmap.create(store, SIZE, GROUP, BOOT)
            await differing.mark(0, bitmap)
            found = regions(bitmap.ranges())
            await bitmap.close()
    assert found == regions(changes)


async def test_more_is_marked_than_a_round_takes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arrayd.replication.bitmap.bitmap.ROUND_PAGES", 1)
    differing = Differing([0])
    changes = [(0, 512), (PAGE_BITS * REGION_BYTES, 512)]
    for each in changes:
        differing.add(0, *each)
    bitmap = await Bitmap.create(await site.stores.create("s", Geometry(SIZE).bytes_needed), SIZE, GROUP, BOOT)
    await differing.mark(0, bitmap)
    assert regions(bitmap.ranges()) == regions(changes)
    await bitmap.close()


async def test_a_stage_that_did_not_come_to_its_end_leaves_no_bitmap_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows opens them itself, and would find them in use."""
    begun, create = await site.begun(), site.stores.create

    async def no_room_for_the_last(name: str, size: int) -> Volume:
        if name.endswith("-2.bitmap"):
            raise VolumeFailed("no room")
        return await create(name, size)

    monkeypatch.setattr(site.stores, "create", no_room_for_the_last)
    with pytest.raises(VolumeFailed, match="no room"):
        await begun.stage.stop(site.row(State.P_PSUS))
    assert [name for name in site.stores.used if name.endswith("bitmap")]
    await begun.stage.close()
    assert not site.stores.used
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_under_way_when_a_volume_fails_is_in_the_others_before_they_are_synced(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began while the sync that fails was under way; a power loss later would have taken it."""
    healthy, failing = primary.site.raw["v1"], primary.site.raw["v0"]
    order: list[str] = []
    syncing, fails, begun, written = (asyncio.Event() for _ in range(4))
    await primary.write(1, 0, b"b" * PAGE)  # the activity log knows the block: the next write need not wait for it
    write, flush = healthy.write, healthy.flush

    async def slow(offset: int, view: memoryview, _durable: bool = False) -> None:
        begun.set()
        await written.wait()
        await finished(write(offset, view))
        order.append("written")

    async def fail() -> None:
        syncing.set()
        await fails.wait()
        raise VolumeFailed("gone")

    def synced() -> Awaitable[None] | None:
        order.append("synced")
        return flush()

    monkeypatch.setattr(healthy, "write_now", lambda _offset, _view: False)
    monkeypatch.setattr(healthy, "write", slow)
    monkeypatch.setattr(healthy, "flush", synced)
    monkeypatch.setattr(failing, "flush", fail)
    stopping = asyncio.ensure_future(primary.stage.stop(primary.site.row(State.P_PSUE)))
    await syncing.wait()
    writing = asyncio.ensure_future(primary.write(1, 0, b"a" * PAGE))
    await begun.wait()
    fails.set()
    await turns(50)
    written.set()
    await stopping
    await writing
    assert "synced" in order[order.index("written") :]
    await primary.stage.close()
