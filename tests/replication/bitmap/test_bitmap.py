"""A bitmap that lives: what a mark costs and waits for, what is taken, held and copied, and what goes to the peer."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path

import pytest

from arrayd.replication.bitmap import Bitmap, BitmapError, FormatError, Geometry
from arrayd.replication.bitmap import hot as hot_module
from arrayd.replication.bitmap.format import BLOCK_BITS, LOG_PAGE, PAGE_BITS, PIECES_MAX, encode_part
from arrayd.volumes.volume import VolumeFailed
from tests.lab.disk import turns
from tests.replication.lossy import Crash, Disk, LossyVolume

REGION = 4096
MIB = 1 << 20
BLOCK = BLOCK_BITS * REGION
PAGE = PAGE_BITS * REGION
SIZE = 2 * PAGE + 5 * MIB + 512
OWNER = b"a pair's number."
ONE, TWO = b"1" * 16, b"2" * 16
"""Boots of the machine."""
NEEDED = Geometry(SIZE).bytes_needed
TURNS_MAX = 1000


@pytest.fixture
async def volume(disk: Path) -> AsyncIterator[LossyVolume]:
    async with Disk(disk / "bitmap", NEEDED).volume() as made:
        yield made


async def within_turns(so: Callable[[], bool]) -> bool:
    """Whether it is so soon, looked at in every turn of the loop until then."""
    for _ in range(TURNS_MAX):
        if so():
            break
        await turns(1)
    return so()


@pytest.fixture
async def bitmap(volume: LossyVolume) -> Bitmap:
    made = await Bitmap.create(volume, SIZE, OWNER, ONE)
    volume.calls = []
    return made


# -- marked ------------------------------------------------------------------------------------------------------------


async def test_what_a_mark_costs(volume: LossyVolume, bitmap: Bitmap) -> None:
    """The first of a block waits for a sync; the first of a region is one write; then it is nothing."""
    assert not bitmap.mark_now(0, 512)
    assert volume.calls == []
    await bitmap.mark(0, 512)
    assert volume.calls == ["write", "flush", "write"]
    assert bitmap.mark_now(512, 3584)
    assert len(volume.calls) == 3
    assert bitmap.mark_now(4095, 2)
    assert volume.calls[3:] == ["write"]
    assert bitmap.mark_now(0, 8192)
    assert len(volume.calls) == 4
    assert bitmap.marked_bytes == 8192
    assert list(bitmap.ranges()) == [(0, 8192)]


async def test_those_who_come_together_wait_for_one_sync(volume: LossyVolume, bitmap: Bitmap) -> None:
    """And those who come meanwhile for the next one."""
    jobs = [asyncio.ensure_future(bitmap.mark(block * BLOCK, REGION)) for block in range(8)]
    await turns(2)
    late = [asyncio.ensure_future(bitmap.mark(block * BLOCK, REGION)) for block in range(8, 16)]
    await asyncio.gather(*jobs, *late)
    # Once the log, then the page that all of these bits are in.
    assert volume.calls == ["write", "flush", "write"] * 2
    assert bitmap.marked_bytes == 16 * REGION


async def test_a_mark_is_durable_before_it_returns(volume: LossyVolume, bitmap: Bitmap) -> None:
    """Though nothing that was not synced is there after the power loss."""
    await bitmap.mark(BLOCK + 5 * REGION, REGION)
    assert bitmap.mark_now(BLOCK + 9 * REGION, REGION)
    volume.disk.since = []
    volume.disk.lose_power(random.Random(1), 512)
    found = await Bitmap.open(volume, TWO)
    assert found.lost_blocks == 1
    assert found.marked_bytes == BLOCK
    assert next(found.ranges())[0] == BLOCK


async def test_after_a_kill_no_more_is_marked(volume: LossyVolume, bitmap: Bitmap) -> None:
    await bitmap.mark(BLOCK + 5 * REGION, REGION)
    assert bitmap.mark_now(BLOCK + 9 * REGION, REGION)
    volume.calls = []
    again = await Bitmap.open(volume, ONE)
    assert (again.lost_blocks, again.owner, again.size) == (0, OWNER, SIZE)
    assert list(again.ranges()) == [(BLOCK + 5 * REGION, REGION), (BLOCK + 9 * REGION, REGION)]
    # What was in the page cache is durable, and no block is hot in the log any more, before it says so.
    assert volume.calls == ["write", "flush", "write", "write", "flush"]
    assert not again.mark_now(BLOCK, REGION)


async def test_a_save_leaves_nothing_hot(volume: LossyVolume, bitmap: Bitmap) -> None:
    await bitmap.mark(0, REGION)
    await bitmap.save()
    volume.calls = []
    await bitmap.save()
    assert volume.calls == []
    assert bitmap.mark_now(0, REGION)
    assert not bitmap.mark_now(REGION, REGION)
    volume.disk.since = []
    volume.disk.lose_power(random.Random(1), 512)
    assert list((await Bitmap.open(volume, TWO)).ranges()) == [(0, REGION)]


async def test_a_block_that_is_marked_while_it_is_saved_stays_hot(volume: LossyVolume, bitmap: Bitmap) -> None:
    await bitmap.mark(0, REGION)
    await bitmap.mark(BLOCK, REGION)
    volume.calls = [""]
    saving = asyncio.ensure_future(bitmap.save())
    assert await within_turns(lambda: volume.calls[-1] == "flush")
    assert bitmap.mark_now(REGION, REGION)
    await saving
    assert bitmap.mark_now(2 * REGION, REGION)
    assert not bitmap.mark_now(BLOCK + REGION, REGION)


async def test_no_more_than_some_blocks_stay_hot(
    volume: LossyVolume, bitmap: Bitmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_module, "HOT_MAX", 2)
    for block in range(10):
        await bitmap.mark(block * BLOCK, REGION)
    volume.disk.lose_power(random.Random(1), 512)
    found = await Bitmap.open(volume, TWO)
    assert 1 <= found.lost_blocks <= 3
    assert found.marked_bytes == found.lost_blocks * BLOCK + (10 - found.lost_blocks) * REGION


async def test_a_block_cools_down_once_its_bits_are_durable(
    volume: LossyVolume, bitmap: Bitmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power is lost in the sync that another block waits for, when of all that is new only the log is on the disk."""
    monkeypatch.setattr(hot_module, "HOT_MAX", 1)
    await bitmap.mark(0, REGION)
    assert bitmap.mark_now(REGION, REGION)
    volume.fuse = 1
    with pytest.raises(Crash):
        await bitmap.mark(BLOCK, REGION)
    for offset, content in volume.disk.since:
        if offset == LOG_PAGE * 4096:
            volume.disk.durable[offset : offset + 4096] = content
    volume.disk.since, volume.fuse = [], None
    volume.disk.lose_power(random.Random(1), 512)
    assert next((await Bitmap.open(volume, TWO)).ranges()) == (0, MIB)


async def test_all_is_marked(disk: Path) -> None:
    size = 300 * PAGE + 512
    async with Disk(disk / "bitmap", Geometry(size).bytes_needed).volume() as volume:
        bitmap = await Bitmap.create(volume, size, OWNER, ONE)
        await bitmap.mark(299 * PAGE + 5, 7)
        await bitmap.mark_all()
        assert bitmap.marked_bytes == size
        assert sum(length for _, length in bitmap.ranges()) == size
        await bitmap.save()
        assert (await Bitmap.open(volume, TWO)).marked_bytes == size
        made = await Bitmap.create(volume, size, OWNER, ONE, marked=True)
        assert made.marked_bytes == (await Bitmap.open(volume, TWO)).marked_bytes == size
        last = list(islice(made.ranges(299 * PAGE + MIB), 1000))
        assert (last[0], last[-1]) == ((299 * PAGE + MIB, MIB), (300 * PAGE, 512))


async def test_a_torn_block_is_all_marked(volume: LossyVolume, bitmap: Bitmap) -> None:
    await bitmap.mark(0, REGION)
    await bitmap.save()
    with volume.disk.path.open("r+b") as file:
        file.seek(3 * 4096 + 512 + 99)
        file.write(b"x")
    again = await Bitmap.open(volume, ONE)
    assert (again.lost_blocks, again.marked_bytes) == (1, REGION + BLOCK)
    assert next(again.ranges(BLOCK)) == (BLOCK, MIB)
    assert (await Bitmap.open(volume, ONE)).lost_blocks == 0


async def test_a_mark_that_nobody_waits_for_any_more(volume: LossyVolume, bitmap: Bitmap) -> None:
    gone = asyncio.ensure_future(bitmap.mark(0, REGION))
    stays = asyncio.ensure_future(bitmap.mark(REGION, REGION))
    await turns(2)
    gone.cancel()
    await stays
    assert gone.cancelled()
    assert bitmap.marked_bytes == 2 * REGION


async def test_a_write_in_a_thread_keeps_others_from_its_page(volume: LossyVolume, bitmap: Bitmap) -> None:
    """Else an older page might come after a newer one."""
    await bitmap.mark(0, REGION)
    volume.refused = 1
    assert not bitmap.mark_now(REGION, REGION)
    volume.refused = 2
    slow = asyncio.ensure_future(bitmap.mark(REGION, REGION))
    assert await within_turns(lambda: not volume.refused)
    assert not slow.done()
    assert not bitmap.mark_now(2 * REGION, REGION)
    await bitmap.mark(2 * REGION, REGION)
    await slow
    await bitmap.close()
    assert list((await Bitmap.open(volume, ONE)).ranges()) == [(0, 3 * REGION)]


async def test_a_disk_that_fails(volume: LossyVolume, bitmap: Bitmap, monkeypatch: pytest.MonkeyPatch) -> None:
    await bitmap.mark(0, REGION)
    error = VolumeFailed("the disk is gone")

    async def failing() -> None:
        raise error

    monkeypatch.setattr(volume, "flush", failing)
    for _ in range(2):
        with pytest.raises(VolumeFailed, match="gone"):
            await bitmap.mark(BLOCK, REGION)
    assert bitmap.failure is error
    # The page cache may have lost this one, too.
    assert not bitmap.mark_now(0, REGION)
    with pytest.raises(VolumeFailed):
        await bitmap.save()
    assert bitmap.marked_bytes == REGION


# -- copied ------------------------------------------------------------------------------------------------------------


async def test_ranges_are_joined_and_taken_round_and_round(bitmap: Bitmap) -> None:
    await bitmap.mark(PAGE - 3 * MIB, 3 * MIB + 2 * REGION)
    await bitmap.mark(0, 512)
    await bitmap.mark(SIZE - 512, 512)
    parts = []
    while taken := bitmap.take(2 * MIB + REGION):
        parts.append(taken)
    assert [each.ranges for each in parts] == [
        [(0, REGION), (PAGE - 3 * MIB, MIB), (PAGE - 2 * MIB, MIB)],
        [(PAGE - MIB, MIB)],
        [(PAGE, 2 * REGION)],
        [(SIZE - 512, 512)],
    ]
    assert bitmap.marked_bytes == 3 * MIB + 3 * REGION + 512
    bitmap.copied(parts[1])
    assert bitmap.marked_bytes == 2 * MIB + 3 * REGION + 512
    bitmap.restore(parts[0])
    bitmap.copied(parts[3])
    assert bitmap.marked_bytes == 2 * MIB + 3 * REGION
    # Behind the last one it goes on with the first, and what is taken is not taken.
    again = bitmap.take(PAGE)
    assert again is not None
    assert again.ranges == parts[0].ranges
    assert bitmap.take(PAGE) is None


async def test_what_is_marked_while_it_is_copied_stays_marked(bitmap: Bitmap) -> None:
    await bitmap.mark(0, 10 * REGION)
    taken = bitmap.take(PAGE)
    assert taken is not None
    assert bitmap.mark_now(3 * REGION, 2 * REGION)
    await bitmap.mark(9 * REGION, 2 * REGION)
    bitmap.copied(taken)
    assert list(bitmap.ranges()) == [(3 * REGION, 2 * REGION), (9 * REGION, 2 * REGION)]


async def test_what_is_asked_for_while_it_is_copied_stays_marked(bitmap: Bitmap) -> None:
    """Though the mark must wait for another page; and so does what the other side has."""
    await bitmap.mark(PAGE, 2 * REGION)
    first, second = bitmap.take(REGION), bitmap.take(REGION)
    assert first is not None
    assert second is not None
    waits = asyncio.ensure_future(bitmap.mark(PAGE - REGION, 2 * REGION))
    await turns(1)
    bitmap.copied(first)
    rows = [(1, (2).to_bytes(PAGE_BITS // 8, "little"))]
    assert await bitmap.join(encode_part(Geometry(SIZE), 0, 3, rows)) == 0
    bitmap.copied(second)
    await waits
    assert bitmap.marked_bytes == 3 * REGION


async def test_what_is_copied_while_its_page_is_written_is_clear(volume: LossyVolume, bitmap: Bitmap) -> None:
    await bitmap.mark(0, 2 * REGION)
    taken = bitmap.take(PAGE)
    assert taken is not None
    volume.refused = 2
    slow = asyncio.ensure_future(bitmap.mark(5 * REGION, REGION))
    assert await within_turns(lambda: not volume.refused)
    assert not slow.done()
    bitmap.copied(taken)
    await slow
    assert list(bitmap.ranges()) == [(5 * REGION, REGION)]
    assert bitmap.marked_bytes == REGION
    await bitmap.save()
    assert list((await Bitmap.open(volume, ONE)).ranges()) == [(5 * REGION, REGION)]


async def test_what_is_being_written_is_not_taken(bitmap: Bitmap) -> None:
    """Copied meanwhile it would be the data before, and no longer marked."""
    await bitmap.mark(PAGE - 2 * REGION, 4 * REGION)
    with bitmap.hold(PAGE - REGION, 2 * REGION):
        first = bitmap.take(PAGE)
        second = bitmap.take(PAGE)
        assert first is not None
        assert second is not None
        assert first.ranges + second.ranges == [(PAGE - 2 * REGION, REGION), (PAGE + REGION, REGION)]
        assert bitmap.take(PAGE) is None
    third = bitmap.take(PAGE)
    assert third is not None
    assert third.ranges == [(PAGE - REGION, REGION)]
    whole = bitmap.hold(0, SIZE)
    assert bitmap.take(PAGE) is None
    whole.release()
    assert bitmap.take(PAGE) is not None


async def test_a_copy_that_was_cut_short_goes_on_where_it_was(volume: LossyVolume, bitmap: Bitmap) -> None:
    await bitmap.mark(0, 8 * MIB)
    for _ in range(3):
        taken = bitmap.take(MIB)
        assert taken is not None
        bitmap.copied(taken)
    await bitmap.save()
    taken = bitmap.take(MIB)
    volume.disk.since = []
    volume.disk.lose_power(random.Random(1), 512)
    found = await Bitmap.open(volume, TWO)
    assert found.lost_blocks == 0
    assert list(found.ranges()) == [(at * MIB, MIB) for at in range(3, 8)]


# -- made, opened, sent ------------------------------------------------------------------------------------------------


async def test_only_what_is_a_bitmap_is_opened(volume: LossyVolume, disk: Path) -> None:
    with pytest.raises(BitmapError, match="there is no bitmap"):
        await Bitmap.open(volume, ONE)
    with pytest.raises(BitmapError, match=f"too few for the bitmap: {NEEDED + 4096} are needed"):
        await Bitmap.create(volume, 3 * PAGE + 1, OWNER, ONE)
    for size in (0, 1 << 60):
        with pytest.raises(BitmapError, match="no bitmap of a volume"):
            await Bitmap.create(volume, size, OWNER, ONE)
    await Bitmap.create(volume, SIZE, OWNER, ONE)
    for length, wrong in ((4096, "there is no bitmap"), (NEEDED - 4096, "larger than its volume")):
        cut = Disk(disk / "cut", length)
        cut.path.write_bytes(volume.disk.path.read_bytes()[:length])
        async with cut.volume() as smaller:
            with pytest.raises(BitmapError, match=wrong):
                await Bitmap.open(smaller, ONE)


async def test_both_sides_are_joined(disk: Path) -> None:
    """In parts, if one message would not hold it."""
    size = (2 * PIECES_MAX + 5) * PAGE
    needed = Geometry(size).bytes_needed
    chance = random.Random(3)
    async with Disk(disk / "one", needed).volume() as one, Disk(disk / "two", needed).volume() as two:
        near, far = await Bitmap.create(one, size, OWNER, ONE), await Bitmap.create(two, size, OWNER, ONE)
        marked: list[set[int]] = [set(), set()]
        for bitmap, plain in ((near, marked[0]), (far, marked[1])):
            for page in range(2 * PIECES_MAX + 5):
                region = page * PAGE_BITS + chance.randrange(PAGE_BITS)
                await bitmap.mark(region * REGION, REGION)
                plain.add(region)
        at, parts = 0, 0
        while True:
            part, following = far.part(at)
            assert await near.join(part) == following
            parts, at = parts + 1, following
            if not at:
                break
        assert parts == 3
        assert [offset // REGION for offset, _ in near.ranges()] == sorted(marked[0] | marked[1])
        assert near.marked_bytes == len(marked[0] | marked[1]) * REGION
        assert [offset // REGION for offset, _ in (await Bitmap.open(one, ONE)).ranges()] == sorted(
            marked[0] | marked[1]
        )
        with pytest.raises(FormatError):
            await near.join(part[:-1])
        empty = await Bitmap.create(one, size, OWNER, ONE)
        part, following = empty.part(0)
        assert (len(part) < 64, following) == (True, 0)
        assert await far.join(part) == 0
