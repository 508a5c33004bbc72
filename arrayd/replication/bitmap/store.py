"""A bitmap on the bytes of a logical volume: how it is made and found again, and how its pages are written."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Self

from arrayd.replication.bitmap.bits import has, value
from arrayd.replication.bitmap.format import (
    BLOCK_ROW_BYTES,
    BLOCKS_A_PAGE,
    BOOT_BYTES,
    BOOT_PAGE,
    FULL,
    FULL_ROW,
    LOG_PAGE,
    OWNER_BYTES,
    PAGE_ROW_BYTES,
    SUPERBLOCK_BYTES,
    VOLUME_BYTES_MAX,
    FormatError,
    Geometry,
    Superblock,
    decode_boot,
    decode_page,
    decode_superblock,
    encode_boot,
    encode_page,
)
from arrayd.replication.journal.regions import PAGE_BYTES
from arrayd.volumes.volume import Volume, finished

RUN_PAGES = 64
"""Pages of a bitmap that are read or written at once, and between two turns of the loop: less than 1 ms of work."""

Row = bytes | bytearray
Rows = Mapping[int, Row]


class BitmapError(Exception):
    """There is no bitmap, or it cannot be made; the text says why."""


class Found(NamedTuple):
    """What is on the disk: each page that has bits set, as an integer, and how many blocks were not to be trusted."""

    pages: dict[int, int]
    lost: int


class Store:
    """The pages of a bitmap on `volume`; raises VolumeError wherever it writes or reads."""

    def __init__(self, volume: Volume, superblock: Superblock) -> None:
        self._volume = volume
        self.owner = superblock.owner
        self.geometry = superblock.geometry

    # -- made and opened ---------------------------------------------------------------------------------------------

    @classmethod
    async def create(cls, volume: Volume, size: int, owner: bytes, boot: bytes, marked: bool) -> Self:
        """A new bitmap, durably, with all set or none; what was on the volume is given up. Raises BitmapError."""
        assert (len(owner), len(boot)) == (OWNER_BYTES, BOOT_BYTES), (owner, boot)
        if not 0 < size <= VOLUME_BYTES_MAX:
            raise BitmapError(f"no bitmap of a volume of {size} bytes: {VOLUME_BYTES_MAX} at the most")
        geometry = Geometry(size)
        if volume.size < geometry.bytes_needed:
            raise BitmapError(f"{volume.size} bytes are too few for the bitmap: {geometry.bytes_needed} are needed")
        store = cls(volume, Superblock(owner, geometry))
        # Whatever bitmap was here is none before its blocks are written over; and this one is none before they are.
        await store._write_head(0, b"")
        await finished(volume.flush())
        await store._write_head(BOOT_PAGE, encode_boot(boot))
        # All of it: then no block has to be allocated when a host's write waits for it.
        full = range(geometry.pages if marked else 0)
        rows = {geometry.bits_page + page: store.full_row(page) for page in full}
        await store._fill(rows)
        await finished(volume.flush())
        await store._write_head(0, Superblock(owner, geometry).encode())
        await finished(volume.flush())
        return store

    @classmethod
    async def open(cls, volume: Volume, boot: bytes) -> tuple[Self, Found]:
        """The bitmap that is on the volume, and what it has. All that is told is durable then, and no block is hot:
        those that were when power was lost are all set, and those that are hot otherwise are written again, since a
        sync that has failed leaves them in the page cache alone, as clean. Raises BitmapError."""
        head = memoryview(mmap.mmap(-1, PAGE_BYTES))
        if volume.size < 2 * PAGE_BYTES:
            raise BitmapError("there is no bitmap on the volume")
        await finished(volume.read(0, head))
        try:
            superblock = decode_superblock(bytes(head[:SUPERBLOCK_BYTES]))
        except FormatError as error:
            raise BitmapError(f"there is no bitmap on the volume: {error}") from error
        store = cls(volume, superblock)
        if volume.size < store.geometry.bytes_needed:
            raise BitmapError(f"the bitmap is larger than its volume, which has {volume.size} bytes")
        await finished(volume.read(BOOT_PAGE * PAGE_BYTES, head))
        same_boot = decode_boot(bytes(head)) == boot
        log = await store._log()
        found = await store._found(log, same_boot)
        await finished(volume.flush())
        if not same_boot or log.count(0) != len(log):
            for page in range(store.geometry.log_pages):
                await store.write(LOG_PAGE + page, bytes(PAGE_ROW_BYTES))
            await store._write_head(BOOT_PAGE, encode_boot(boot))
            await finished(volume.flush())
        return store, found

    async def _log(self) -> bytearray:
        """Which blocks are hot."""
        row = bytearray()
        async for _, image in self._pages(LOG_PAGE, self.geometry.log_pages):
            row += decode_page(bytes(image), LOG_PAGE + len(row) // PAGE_ROW_BYTES)[0]
        return row

    async def _found(self, log: bytearray, same_boot: bool) -> Found:
        """All bits that are set, and in another boot those of hot blocks; pages with hot blocks are written."""
        geometry = self.geometry
        pages: dict[int, int] = {}
        lost = 0
        async for page, image in self._pages(geometry.bits_page, geometry.pages):
            row, damaged = decode_page(bytes(image), geometry.bits_page + page)
            hot = _hot_blocks(log, page)
            if not same_boot:
                row = _with_all(row, hot)
                damaged += len(hot)
            bits = value(row) & geometry.full(page)
            lost += damaged
            if damaged or hot:
                await self.write(geometry.bits_page + page, bits.to_bytes(PAGE_ROW_BYTES, "little"))
            if bits:
                pages[page] = FULL if bits == FULL else bits  # one object, however many there are
        return Found(pages, lost)

    async def _pages(self, first: int, count: int) -> AsyncIterator[tuple[int, memoryview]]:
        """Each of so many pages of the volume: its number among them, and the page, until the next one is asked for."""
        memory = memoryview(mmap.mmap(-1, RUN_PAGES * PAGE_BYTES))
        for begin in range(0, count, RUN_PAGES):
            length = min(RUN_PAGES, count - begin)
            await finished(self._volume.read((first + begin) * PAGE_BYTES, memory[: length * PAGE_BYTES]))
            for page in range(length):
                yield begin + page, memory[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
            await asyncio.sleep(0)

    async def _fill(self, rows: Rows) -> None:
        """Writes all pages of log and bits: `rows`, and zeros."""
        memory = memoryview(mmap.mmap(-1, RUN_PAGES * PAGE_BYTES))
        zeros = bytes(PAGE_ROW_BYTES)
        end = self.geometry.bits_page + self.geometry.pages
        for begin in range(LOG_PAGE, end, RUN_PAGES):
            length = min(RUN_PAGES, end - begin)
            for page in range(length):
                image = encode_page(begin + page, rows.get(begin + page, zeros))
                memory[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = image
            await finished(self._volume.write(begin * PAGE_BYTES, memory[: length * PAGE_BYTES]))
            await asyncio.sleep(0)

    async def _write_head(self, page: int, content: bytes) -> None:
        image = memoryview(mmap.mmap(-1, PAGE_BYTES))
        image[: len(content)] = content
        await finished(self._volume.write(page * PAGE_BYTES, image))

    # -- pages -------------------------------------------------------------------------------------------------------

    def full_row(self, page: int) -> bytes:
        """A page of bits with all set: one and the same object for all but the last."""
        full = self.geometry.full(page)
        return FULL_ROW if full == FULL else full.to_bytes(PAGE_ROW_BYTES, "little")

    def write_now(self, page: int, row: Row) -> bool:
        """Writes that page of the volume on the spot, or nothing."""
        return self._volume.write_now(page * PAGE_BYTES, memoryview(encode_page(page, row)))

    async def write(self, page: int, row: Row) -> None:
        """The same, waiting for whatever it must."""
        await finished(self._volume.write(page * PAGE_BYTES, memoryview(encode_page(page, row))))

    async def flush(self) -> None:
        """Makes durable what was written before."""
        await finished(self._volume.flush())


def _hot_blocks(log: bytearray, page: int) -> list[int]:
    """Those of a page of bits that are hot, by their number in it."""
    first = page * BLOCKS_A_PAGE
    return [block for block in range(BLOCKS_A_PAGE) if has(log, first + block, first + block + 1)]


def _with_all(row: bytes, blocks: list[int]) -> bytes:
    """A page of bits with all of these blocks set."""
    for block in blocks:
        begin, end = block * BLOCK_ROW_BYTES, (block + 1) * BLOCK_ROW_BYTES
        row = row[:begin] + FULL_ROW[begin:end] + row[end:]
    return row
