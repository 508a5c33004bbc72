"""What of a bitmap is being copied, and what is being written: neither is taken (again) meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from arrayd.replication.bitmap.bits import mask, runs
from arrayd.replication.bitmap.format import PAGE_BITS, REGION_BYTES

RANGE_BYTES_MAX = 1024 * 1024
"""Regions that lie side by side are joined to ranges of so many bytes."""
TAKEN_MAX = 64
"""Parts that may be under way at once."""

Range = tuple[int, int]
"""Offset and length on the volume, in bytes."""


@dataclass(eq=False)
class Taken:
    """A part of a bitmap that is being copied: `ranges` in order, of one page of bits. See `Bitmap.take`."""

    page: int
    bits: int
    ranges: list[Range]
    again: int = 0
    """What was marked meanwhile, and more: it stays marked."""


class Hold:
    """A range that is being written; see `Bitmap.hold`. It ends by `release`, or as it is left."""

    def __init__(self, taking: Taking, first: int, end: int) -> None:
        self._taking = taking
        self.first = first
        self.end = end

    def release(self) -> None:
        """The data is in the volume, or never will be."""
        del self._taking.held[self]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass
class Taking:
    """The parts that are under way, TAKEN_MAX at the most; and what is held: as much as is being written."""

    taken: list[Taken] = field(default_factory=list)
    held: dict[Hold, None] = field(default_factory=dict)
    cursor: int = 0
    """From which region on is taken next."""

    def hold(self, first: int, end: int) -> Hold:
        """Regions that are not taken until it is released."""
        hold = Hold(self, first, end)
        self.held[hold] = None
        return hold

    def marked(self, page: int, bits: int) -> None:
        """These bits of a page are marked (again)."""
        for each in self.taken:
            if each.page == page:
                each.again |= bits

    def closed_to(self, page: int) -> int:
        """The first page from this one on of which a hold leaves anything."""
        for hold in self.held:
            if hold.first <= page * PAGE_BITS:
                page = max(page, hold.end // PAGE_BITS)
        return page

    def free(self, page: int, bits: int) -> int:
        """Those of the bits of a page that may be taken."""
        for each in self.taken:
            if each.page == page:
                bits &= ~each.bits
        begin = page * PAGE_BITS
        for hold in self.held:
            if hold.first < begin + PAGE_BITS and begin < hold.end:
                bits &= ~mask(max(hold.first - begin, 0), min(hold.end - begin, PAGE_BITS))
        return bits

    def take(self, page: int, free: int, bytes_max: int, size: int) -> Taken:
        """The first of the bits that are free, `bytes_max` at the most, of a volume of `size` bytes."""
        left, end = max(bytes_max // REGION_BYTES, 1), 0
        ranges: list[Range] = []
        for first, stop in runs(free, RANGE_BYTES_MAX // REGION_BYTES):
            end = min(stop, first + left)
            ranges.append(range_of(page * PAGE_BITS + first, page * PAGE_BITS + end, size))
            left -= end - first
            if not left:
                break
        taken = Taken(page, free & mask(0, end), ranges)
        self.taken.append(taken)
        self.cursor = page * PAGE_BITS + end
        return taken


def range_of(first: int, end: int, size: int) -> Range:
    """Where these regions lie on a volume of `size` bytes."""
    offset = first * REGION_BYTES
    return offset, min(end * REGION_BYTES, size) - offset


def spans(first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The pages that these regions are in: the page, and which of its bits, from the first to before the end."""
    while first < end:
        page, low = divmod(first, PAGE_BITS)
        high = min(low + end - first, PAGE_BITS)
        yield page, low, high
        first += high - low
