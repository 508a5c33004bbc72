"""The differential bitmap of one volume of a pair that is not followed by its journal: which regions differ, or may.

**A region is marked before its write is given to the volume**, and that is so after a kill and after a power loss. It
would not do to be in time for the answer: the kernel may write the data back at any moment, and a change that the disk
has and the bitmap has not would be between the two sides for ever, acknowledged or not. A write cache of the volume,
FUA and flushes make no difference then. The order is:

1. the block that the bit is in is hot, durably (`hot.py`): one sync for all that wait, once in 15.75 MiB of the volume;
2. the page of the bit is written, not synced: some microseconds, once for each region;
3. the data is written. A region that is marked already costs one look.

What is on the disk may have more bits than there are here, never fewer: bits are written and then count here; they no
longer count here and then are cleared on the disk, with the next write of their page or by `save`.

Copying takes ranges (`take`), which stay marked until `copied` says that they are durable at the other side. What is
marked meanwhile stays marked. A restart forgets what was taken: it is marked, and is taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Self

from arrayd.replication.bitmap.bits import add, has, mask, runs, value
from arrayd.replication.bitmap.format import (
    BLOCK_BITS,
    BLOCK_ROW_BYTES,
    BLOCKS_A_PAGE,
    FULL_ROW,
    PAGE_BITS,
    PAGE_ROW_BYTES,
    PIECES_MAX,
    REGION_BYTES,
    decode_part,
    encode_part,
)
from arrayd.replication.bitmap.hot import HotBlocks
from arrayd.replication.bitmap.store import RUN_PAGES, Row, Store
from arrayd.replication.bitmap.taking import RANGE_BYTES_MAX, TAKEN_MAX, Hold, Range, Taken, Taking, range_of, spans
from arrayd.volumes.volume import Volume, VolumeError

ROUND_PAGES = 128
"""Pages that a round is asked to mark at a time, of what is asked for at once: 15.75 GiB of the volume."""
SCAN_PAGES = 4096
"""Pages without bits that are passed over for one part on the wire."""
CLEAR_BLOCK = bytes(BLOCK_ROW_BYTES)


class Bitmap:
    """A bitmap that is open. `failure` is why it marks nothing more: the disk below may have lost any of it then, and
    whoever has the pair must take the whole volume for different, durably, before the bitmap is opened again.

    Who has a bitmap closes its volume, too, after `close`.
    """

    def __init__(self, store: Store) -> None:
        self.owner = store.owner
        self.size = store.geometry.size
        self.lost_blocks = 0
        """Blocks of bits (15.75 MiB of the volume each) that were not to be trusted when the bitmap was opened."""
        self.failure: VolumeError | None = None
        self._store = store
        self._geometry = store.geometry
        self._pages: dict[int, Row] = {}
        """Those that have bits. A full one is the same object as all others, until a bit is cleared."""
        self._count = 0
        self._behind: set[int] = set()
        """Pages that have more bits on the disk."""
        self._hot = HotBlocks(store)
        self._taking = Taking()
        self._slow = False
        """Whether a mark needs more than to find its bits set."""
        self._writing = False
        """Whether a page is being written by a thread: nothing else is written, since it might come first."""
        self._asked: dict[int, int] = {}
        self._asked_to_save = False
        self._running: asyncio.Future[None] | None = None
        self._coming: asyncio.Future[None] | None = None
        """The round that all join who ask now: it begins when the one that is running has ended."""

    # -- made and opened ---------------------------------------------------------------------------------------------

    @classmethod
    async def create(cls, volume: Volume, size: int, owner: bytes, boot: bytes, *, marked: bool = False) -> Self:
        """A new bitmap about a volume of `size` bytes, durably, with nothing marked or everything. What was on
        `volume`, which has `Geometry(size).bytes_needed` or more, is given up. `owner` (16 bytes) says later whose it
        is, `boot` (16 bytes) in which boot of the machine this is. Raises BitmapError, VolumeError."""
        store = await Store.create(volume, size, owner, boot, marked)
        bitmap = cls(store)
        if marked:
            bitmap._pages = {page: store.full_row(page) for page in range(store.geometry.pages)}
            bitmap._count = store.geometry.regions
        return bitmap

    @classmethod
    async def open(cls, volume: Volume, boot: bytes) -> Self:
        """The bitmap that is on the volume. After a kill it has exactly what was marked, but that what was copied
        since the last `save` may be there again; in another boot all of the hot blocks, too. A block that is not whole
        is marked. Raises BitmapError, VolumeError."""
        store, found = await Store.open(volume, boot)
        bitmap = cls(store)
        bitmap.lost_blocks = found.lost
        for page, bits in found.pages.items():
            bitmap._put(page, bits)
            bitmap._count += bits.bit_count()
        return bitmap

    async def close(self) -> None:
        """Waits until nothing is under way."""
        while rounds := [each for each in (self._running, self._coming) if each is not None and not each.done()]:
            await asyncio.wait(rounds)

    # -- marked ------------------------------------------------------------------------------------------------------

    @property
    def marked_bytes(self) -> int:
        """Bytes of the volume that are marked, what is taken included."""
        short = -self.size % REGION_BYTES
        if short:
            page, at = divmod(self._geometry.regions - 1, PAGE_BITS)
            short *= has(self._pages.get(page, bytes(PAGE_ROW_BYTES)), at, at + 1)
        return self._count * REGION_BYTES - short

    def mark_now(self, offset: int, length: int) -> bool:
        """Whether the regions of the range are marked; they are then, if that can be done on the spot. The data is
        written in this turn of the loop, or under a `hold` that begins in it. False: hold it and `mark` it."""
        first, last = offset // REGION_BYTES, (offset + length - 1) // REGION_BYTES
        page, low = divmod(first, PAGE_BITS)
        high = low + last - first + 1
        if not self._slow and high <= PAGE_BITS:
            row = self._pages.get(page)
            if row is not None and (row[low >> 3] >> (low & 7) & 1 if first == last else has(row, low, high)):
                return True
        return self._mark_now(first, last + 1)

    def _mark_now(self, first: int, end: int) -> bool:
        if self.failure is not None:
            return False
        for page, low, high in spans(first, end):
            if self._taking.taken:
                self._taking.marked(page, mask(low, high))
            row = self._pages.get(page)
            if (row is None or not has(row, low, high)) and not self._add_now(page, low, high):
                return False
        return True

    def _add_now(self, page: int, low: int, high: int) -> bool:
        """Sets bits, some of which are not set, if their blocks are hot and the page can be written on the spot."""
        begin = page * BLOCKS_A_PAGE
        blocks = begin + low // BLOCK_BITS, begin + (high - 1) // BLOCK_BITS + 1
        if self._writing or not self._hot.takes(*blocks):
            return False
        self._hot.marked(*blocks)
        row = self._own(page)
        at, end = low >> 3, (high + 7) >> 3
        before = row[at:end]
        added = add(row, low, high)
        if not self._store.write_now(self._geometry.bits_page + page, row):
            row[at:end] = before
            return False
        self._count += added
        self._behind.discard(page)
        return True

    async def mark(self, offset: int, length: int) -> None:
        """`mark_now`, waiting for whatever it must, together with all who wait. Raises VolumeError."""
        first, end = offset // REGION_BYTES, (offset + length - 1) // REGION_BYTES + 1
        if self._mark_now(first, end):
            return
        asked: dict[int, int] = {}
        for page, low, high in spans(first, end):
            asked[page] = self._geometry.full(page) if high - low == PAGE_BITS else mask(low, high)
            if len(asked) == ROUND_PAGES:
                await self._ask(asked)
                asked = {}
        if asked:
            await self._ask(asked)

    async def mark_pages(self, pages: Mapping[int, int]) -> None:
        """Marks these bits of each page of bits. Raises VolumeError."""
        told = list(pages.items())
        for begin in range(0, len(told), ROUND_PAGES):
            await self._ask(dict(told[begin : begin + ROUND_PAGES]))

    async def mark_all(self) -> None:
        """Marks the whole volume. Raises VolumeError."""
        await self.mark(0, self.size)

    def hold(self, offset: int, length: int) -> Hold:
        """From the call until its `release` nothing of the range is taken: for a write that does not happen in the turn
        of its mark, since what is copied in between is the data before it."""
        return self._taking.hold(offset // REGION_BYTES, (offset + length - 1) // REGION_BYTES + 1)

    # -- rounds ------------------------------------------------------------------------------------------------------

    async def save(self) -> None:
        """Has on the disk what is marked here, durably: what was copied before the call is not marked again after a
        power loss, and blocks that are no longer written to are not hot. Costs nothing if it is so already. To be
        called now and then. Raises VolumeError."""
        if self._behind or self._hot.any:
            await self._ask({}, save=True)

    async def _ask(self, asked: Mapping[int, int], *, save: bool = False) -> None:
        """Joins the next round, and waits for its end, whatever becomes of the caller."""
        if self.failure is not None:
            raise self.failure
        for page, bits in asked.items():
            self._taking.marked(page, bits)
            self._asked[page] = self._asked.get(page, 0) | bits
        self._asked_to_save |= save
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._round(self._running))
            self._coming.add_done_callback(_heard)
        await asyncio.shield(self._coming)

    async def _round(self, before: asyncio.Future[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        self._running, self._coming = self._coming, None
        asked, self._asked = self._asked, {}
        save, self._asked_to_save = self._asked_to_save, False
        if self.failure is not None:
            raise self.failure
        try:
            await self._hot.heat(self._blocks(asked))
            await self._write(asked)
            if save:
                await self._write(dict.fromkeys(self._behind, 0))
                await self._hot.cool()
        except VolumeError as error:
            self.failure, self._slow = error, True
            raise

    def _blocks(self, asked: Mapping[int, int]) -> int:
        """The blocks in which bits are to be set that are not."""
        row = bytearray(self._geometry.log_pages * PAGE_ROW_BYTES)
        for page, bits in asked.items():
            for block in _blocks_of(page, bits & ~self._bits(page)):
                add(row, block, block + 1)
        return value(row)

    async def _write(self, asked: Mapping[int, int]) -> None:
        """Writes pages with these bits set beside what is set, and then counts them as set."""
        for number, (page, bits) in enumerate(asked.items(), 1):
            present = self._bits(page)
            new = bits & ~present
            if new or page in self._behind:
                await self._write_page(page, present, new)
            if not number % RUN_PAGES:
                await asyncio.sleep(0)

    async def _write_page(self, page: int, present: int, new: int) -> None:
        for block in _blocks_of(page, new):
            self._hot.marked(block, block + 1)
        row = (present | new).to_bytes(PAGE_ROW_BYTES, "little")
        self._behind.discard(page)
        if not self._store.write_now(self._geometry.bits_page + page, row):
            self._writing = True
            try:
                await self._store.write(self._geometry.bits_page + page, row)
            finally:
                self._writing = False
        # What was copied meanwhile is clear here, and set on the disk: the page is behind again.
        self._put(page, self._bits(page) | new)
        self._count += new.bit_count()

    # -- pages -------------------------------------------------------------------------------------------------------

    def _bits(self, page: int) -> int:
        return value(self._pages.get(page, b""))

    def _put(self, page: int, bits: int) -> None:
        if bits:
            row = bits.to_bytes(PAGE_ROW_BYTES, "little")
            self._pages[page] = FULL_ROW if row == FULL_ROW else row
        else:
            self._pages.pop(page, None)

    def _own(self, page: int) -> bytearray:
        """The bits of a page, to be changed in place."""
        row = self._pages.get(page, b"")
        if not isinstance(row, bytearray):
            row = self._pages[page] = bytearray(row) if row else bytearray(PAGE_ROW_BYTES)
        return row

    def _marked_pages(self, begin: int, end: int) -> Iterator[int]:
        return (page for page in range(begin, end) if page in self._pages)

    def _open_pages(self, page: int, end: int) -> Iterator[int]:
        """Those with bits, but for what is held."""
        while page < end:
            if page in self._pages:
                at, page = page, self._taking.closed_to(page)
                if at != page:
                    continue
                yield page
            page += 1

    # -- copied ------------------------------------------------------------------------------------------------------

    def take(self, bytes_max: int) -> Taken | None:
        """The next ranges to be copied, round and round the volume: `bytes_max` in all at the most, one region at the
        least. They are read from the volume after the call, and end with `copied` or `restore`. None: all that is
        marked is taken, or held. TAKEN_MAX may be under way."""
        taking, (page, low) = self._taking, divmod(self._taking.cursor, PAGE_BITS)
        assert len(taking.taken) < TAKEN_MAX
        passed = mask(0, low)
        for each in chain(self._open_pages(page, self._geometry.pages), self._open_pages(0, page + 1)):
            free = taking.free(each, self._bits(each) & ~(passed if each == page else 0))
            if each == page:
                passed = 0
            if free:
                self._slow = True
                return taking.take(each, free, bytes_max, self.size)
        return None

    def copied(self, taken: Taken) -> None:
        """What was taken is durable at the other side: of it only what was marked since is marked."""
        self._end(taken)
        clear = taken.bits & ~taken.again
        bits = self._bits(taken.page)
        assert not clear & ~bits, "what is taken is marked"
        self._put(taken.page, bits & ~clear)
        self._count -= clear.bit_count()
        self._behind.add(taken.page)

    def restore(self, taken: Taken) -> None:
        """What was taken was not copied: it is marked, as it was, and may be taken again."""
        self._end(taken)

    def _end(self, taken: Taken) -> None:
        self._taking.taken.remove(taken)
        self._slow = bool(self._taking.taken) or self.failure is not None

    def ranges(self, offset: int = 0) -> Iterator[Range]:
        """What is marked from the region of `offset` on, what is taken included, in order: regions side by side are
        joined to RANGE_BYTES_MAX at the most. Of each page as it is when it is come to."""
        page, low = divmod(offset // REGION_BYTES, PAGE_BITS)
        for each in self._marked_pages(page, self._geometry.pages):
            bits = self._bits(each) & ~(mask(0, low) if each == page else 0)
            for first, end in runs(bits, RANGE_BYTES_MAX // REGION_BYTES):
                yield range_of(each * PAGE_BITS + first, each * PAGE_BITS + end, self.size)

    # -- to and from the other side ----------------------------------------------------------------------------------

    def part(self, begin: int) -> tuple[bytes, int]:
        """The bitmap as another array takes it, from page `begin` (0 at first) on: PART_BYTES_MAX at the most; and the
        page where the next part begins, 0 if this was the last."""
        end = min(begin + SCAN_PAGES, self._geometry.pages)
        rows: list[tuple[int, Row]] = []
        for page in self._marked_pages(begin, end):
            if len(rows) == PIECES_MAX:
                end = page
                break
            rows.append((page, self._pages[page]))
        return encode_part(self._geometry, begin, end, rows), end if end < self._geometry.pages else 0

    async def join(self, part: bytes | memoryview) -> int:
        """Marks what is marked in a part of the other side's bitmap; the page where the next part begins, 0 if this
        was the last. Raises FormatError if it is no part of a bitmap of such a volume: nothing of it is marked then.
        Raises VolumeError."""
        told = decode_part(part, self._geometry)
        await self.mark_pages(told.pages)
        return told.end if told.end < self._geometry.pages else 0


def _blocks_of(page: int, bits: int) -> Iterator[int]:
    """The blocks that some of these bits of a page are in."""
    row = bits.to_bytes(PAGE_ROW_BYTES, "little")
    for number, begin in enumerate(range(0, PAGE_ROW_BYTES, BLOCK_ROW_BYTES), page * BLOCKS_A_PAGE):
        if row[begin : begin + BLOCK_ROW_BYTES] != CLEAR_BLOCK:
            yield number


def _heard(ended: asyncio.Future[None]) -> None:
    """Whoever waited for the round may have given up: its failure is kept in the bitmap."""
    if not ended.cancelled():
        ended.exception()
