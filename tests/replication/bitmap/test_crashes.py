"""A bitmap against a plain set of regions, through many lives: killed, without power, in the middle of anything.

No region that was marked is ever forgotten, and as long as the process lives exactly these are marked. After a kill
nothing is marked that never was; after a power loss no more than the blocks that were written to since the last save.
A sync that fails ends a life, too: what it was to write is in memory alone from then on, and no later sync says so.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arrayd.replication.bitmap import Bitmap, BitmapError, Taken
from arrayd.replication.bitmap import hot as hot_module
from arrayd.replication.bitmap.format import BLOCK_BITS, PAGE_BITS, Geometry, encode_part
from arrayd.volumes.volume import VolumeFailed
from tests.lab.search import examples
from tests.replication.lossy import Crash, Disk, LossyVolume

REGION = 4096
REGIONS = 2 * PAGE_BITS + 5000
SIZE = REGIONS * REGION - 512
"""Three pages, 18 blocks; the last region is cut short."""
GEOMETRY = Geometry(SIZE)
OWNER = b"a pair's number."
BORDERS = (0, 100, BLOCK_BITS, 3 * BLOCK_BITS, PAGE_BITS, PAGE_BITS + BLOCK_BITS, 2 * PAGE_BITS, REGIONS)
"""Near these are the regions that are written to."""

Step = tuple[str, int, int]


@pytest.fixture(autouse=True, scope="module")
def few_hot_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot_module, "HOT_MAX", 3)
        yield


def regions(number: int, other: int) -> tuple[int, int]:
    """A range of regions, by two numbers."""
    border = BORDERS[number % len(BORDERS)]
    length = (1, 1, 2, 9, 700, BLOCK_BITS + 3)[other % 6]
    first = min(max(border - other % 4, 0), REGIONS - 1)
    return first, min(first + length, REGIONS)


def mask(first: int, end: int) -> int:
    return (1 << end) - (1 << first)


def bytes_of(first: int, end: int) -> tuple[int, int]:
    offset = first * REGION
    return offset, min(end * REGION, SIZE) - offset


def found(bitmap: Bitmap) -> int:
    """All that is marked; ranges are in order, and the count is theirs."""
    marked, length, at = 0, 0, 0
    for offset, count in bitmap.ranges():
        assert offset >= at
        at = offset + count
        length += count
        marked |= mask(offset // REGION, -(-at // REGION))
    assert bitmap.marked_bytes == length
    return marked


@dataclass
class Part:
    """What is taken, in the model."""

    taken: Taken
    bits: int
    again: int = 0


@dataclass
class Model:
    """Regions as bits of an integer."""

    marked: int = 0
    maybe: int = 0
    """What was being marked when the process died."""
    cleared: int = 0
    """What was copied since the last save: it may come back."""
    written: int = 0
    """All regions of the blocks with marks since the last save: they may come back after a power loss."""
    parts: list[Part] = field(default_factory=list)

    def begin(self, first: int, end: int) -> None:
        """A mark begins."""
        self.maybe |= mask(first, end)
        for part in self.parts:
            part.again |= mask(first, end)
        self.written |= mask(first // BLOCK_BITS * BLOCK_BITS, min(-(-end // BLOCK_BITS) * BLOCK_BITS, REGIONS))

    def done(self) -> None:
        """All marks that began have ended."""
        self.marked |= self.maybe
        self.maybe = 0

    def copied(self, part: Part) -> None:
        clear = part.bits & ~part.again
        assert not clear & ~self.marked
        self.marked &= ~clear
        self.cleared |= clear


class Lives:
    """One bitmap through many lives of the process that has it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.model = Model()
        self.boot = 1
        self.power_unit = 0
        """How the power was lost, if the last life ended so."""
        self.sync_failed = False
        """Whether one ever did: then the disk may have blocks as hot that are not."""

    async def live(self, steps: Iterator[Step]) -> None:
        """One life: ends with a crash, or with the steps."""
        async with self.disk.volume() as volume:
            bitmap: Bitmap | None = None
            try:
                for what, number, other in steps:
                    volume.carried_out = bool(other % 2)
                    if what == "open":
                        bitmap = await self.open_with(volume, number)
                        continue
                    assert bitmap is not None
                    if what == "crash":
                        volume.fuse = number % 6
                    elif what == "fail":
                        volume.sync_fails_after = number % 4
                    elif what == "refuse":
                        volume.refused = number % 4
                    else:
                        await self.step(bitmap, what, number, other)
                        assert found(bitmap) == self.model.marked
            except Crash:
                pass
            except VolumeFailed:
                self.sync_failed = True
            if bitmap is not None:
                await bitmap.close()
            self.model.parts = []

    async def open_with(self, volume: LossyVolume, number: int) -> Bitmap:
        """Opened, in one of the ways that it may go wrong."""
        volume.fuse = number % 6 if number < 40 else None
        volume.sync_fails_after = number % 3 if 40 <= number < 50 else -1
        bitmap = await self.open(volume)
        volume.fuse, volume.sync_fails_after = None, -1
        return bitmap

    async def open(self, volume: LossyVolume) -> Bitmap:
        """What is there is what was marked, and little else; from now on that is what is marked."""
        model = self.model
        bitmap = await Bitmap.open(volume, bytes([self.boot]) * 16)
        assert bitmap.owner == OWNER
        told = found(bitmap)
        assert not model.marked & ~told, "a region was forgotten"
        more = model.marked | model.maybe | model.cleared | (model.written if self.power_unit else 0)
        if self.power_unit % 512 == 0 and not self.sync_failed:
            assert not told & ~more, "a region is marked for nothing"
        self.power_unit = 0
        self.model = Model(told)
        return bitmap

    async def step(self, bitmap: Bitmap, what: str, number: int, other: int) -> None:
        model = self.model
        if what == "mark":
            await self.mark(bitmap, number, other)
            model.done()
        elif what == "many":
            await self.many(bitmap, number, other)
            model.done()
        elif what == "join":
            await self.join(bitmap, number, other)
            model.done()
        elif what == "take":
            self.take(bitmap, number)
        elif what == "copied" and model.parts:
            self.copied(bitmap, number)
        elif what == "restore" and model.parts:
            bitmap.restore(model.parts.pop(number % len(model.parts)).taken)
        elif what == "save":
            await bitmap.save()
            model.cleared = model.written = 0

    async def mark(self, bitmap: Bitmap, number: int, other: int) -> None:
        first, end = regions(number, other)
        self.model.begin(first, end)
        if not bitmap.mark_now(*bytes_of(first, end)):
            with bitmap.hold(*bytes_of(first, end)):
                await bitmap.mark(*bytes_of(first, end))
        assert bitmap.mark_now(*bytes_of(first, end))

    async def many(self, bitmap: Bitmap, number: int, other: int) -> None:
        """Marks that come together, one after another, a save among them, and something that is copied meanwhile."""
        jobs = [asyncio.ensure_future(self.mark(bitmap, number + turn, other * turn)) for turn in range(5)]
        if other % 3 == 0:
            jobs.insert(2, asyncio.ensure_future(bitmap.save()))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if self.model.parts:
            self.copied(bitmap, number)
        jobs += [asyncio.ensure_future(self.mark(bitmap, number + 9 + turn, other + turn)) for turn in range(3)]
        ended = await asyncio.gather(*jobs, return_exceptions=True)
        for error in sorted((each for each in ended if each is not None), key=lambda each: isinstance(each, Crash)):
            raise error

    async def join(self, bitmap: Bitmap, number: int, other: int) -> None:
        """The other side's bitmap has two ranges."""
        pages: dict[int, int] = {}
        for first, end in (regions(number, other), regions(number + 3, other + 1)):
            self.model.begin(first, end)
            for page in range(3):
                bits = mask(first, end) >> page * PAGE_BITS & mask(0, PAGE_BITS)
                pages[page] = pages.get(page, 0) | bits
        rows = [(page, bits.to_bytes(PAGE_BITS // 8, "little")) for page, bits in pages.items()]
        assert await bitmap.join(encode_part(GEOMETRY, 0, 3, rows)) == 0

    def take(self, bitmap: Bitmap, number: int) -> None:
        model, limit = self.model, (1, 2, 500, 4000)[number % 4]
        free = model.marked
        for part in model.parts:
            free &= ~part.bits
        taken = bitmap.take(limit * REGION)
        assert (taken is not None) == bool(free)
        if taken is None:
            return
        bits = 0
        for offset, length in taken.ranges:
            bits |= mask(offset // REGION, -(-(offset + length) // REGION))
        assert not bits & ~free
        assert 1 <= bits.bit_count() <= limit
        model.parts.append(Part(taken, bits))

    def copied(self, bitmap: Bitmap, number: int) -> None:
        part = self.model.parts.pop(number % len(self.model.parts))
        self.model.copied(part)
        bitmap.copied(part.taken)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("mark",) * 5 + ("many", "many", "take", "take", "copied", "copied", "restore", "save", "join")
            + ("refuse", "crash", "fail")
        ),
        st.integers(0, 99),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=20,
)  # fmt: skip
UNITS = st.sampled_from((128, 512, 512, 4096))
"""What a disk writes wholly or not at all; of the first the bitmap finds blocks that are torn."""
ENDS = st.tuples(st.sampled_from(("kill", "power", "power")), st.integers(0, 1 << 30), UNITS)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(
    [
        (99, [("mark", 0, 0), ("fail", 0, 0), ("save", 0, 0)], ("kill", 0, 512)),
        (99, [("save", 0, 0)], ("power", 0, 512)),
    ]
)
@given(st.lists(st.tuples(st.integers(0, 99), STEPS, ENDS), min_size=2, max_size=5))
def test_no_change_is_forgotten(disk: Path, lives: list[tuple[int, list[Step], tuple[str, int, int]]]) -> None:
    async def all_lives() -> None:
        medium = Disk(disk / "bitmap", GEOMETRY.bytes_needed)
        async with medium.volume() as volume:
            await Bitmap.create(volume, SIZE, OWNER, bytes([1]) * 16)
        tested = Lives(medium)
        for opening, steps, (end, seed, unit) in lives:
            await tested.live(iter([("open", opening, seed), *steps]))
            if end == "power":
                medium.lose_power(random.Random(seed), unit)
                tested.power_unit = max(unit if not tested.power_unit else min(unit, tested.power_unit), 1)
                tested.boot += 1
        await tested.live(iter([("open", 99, 0), ("mark", 1, 1), ("save", 0, 0)]))

    asyncio.run(all_lives())


@pytest.mark.parametrize("fuse", range(9))
@pytest.mark.parametrize("marked", [False, True])
async def test_a_bitmap_that_was_not_made_wholly_is_none_or_the_new_one(disk: Path, fuse: int, marked: bool) -> None:
    """Never the one before, of which a part is written over."""
    medium = Disk(disk / "bitmap", GEOMETRY.bytes_needed)
    async with medium.volume() as volume:
        before = await Bitmap.create(volume, SIZE, OWNER, bytes(16))
        await before.mark(5 * REGION, REGION)
        await before.save()
    async with medium.volume() as volume:
        volume.fuse = fuse
        with suppress(Crash):
            await Bitmap.create(volume, SIZE, b"another owner's.", bytes(16), marked=marked)
    for boot in (0, 1):
        async with medium.volume() as volume:
            try:
                bitmap = await Bitmap.open(volume, bytes([boot]) * 16)
            except BitmapError:
                continue
            if bitmap.owner == OWNER:
                assert fuse == 0
                assert found(bitmap) == mask(5, 6)
            else:
                assert found(bitmap) == (mask(0, REGIONS) if marked else 0)
        medium.lose_power(random.Random(fuse), 512)
