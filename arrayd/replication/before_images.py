"""Before-images: what an S-VOL had before a copy wrote over it, so that what was consistent can be so again.

While a copy runs, an S-VOL is none of the group's states. If it was one before, then before a block of 64 KiB is
written to for the first time, by copy or by restoration, its content is kept in a store beside, durably, and then a
note that it is kept, durably. Who takes the S-VOLs over in the middle of a copy goes back by it; what the copy had
brought is marked again before. When the copy has ended the store is removed.

The store has a page with HEADER, pages with the notes, a bit for each block, and the blocks, each at its place. A bit
is only ever set, so a page of notes that is torn by a power loss has all bits that were durable before.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Iterator, Sequence
from typing import Any, Self

from construct import Bytes, Const, Int16ub, Int32ub, Int64ub, Padding, Struct
from crc32c import crc32c

from arrayd.replication.bitmap.bits import has, runs, value
from arrayd.replication.journal.format import GROUP_BYTES
from arrayd.replication.journal.regions import PAGE_BYTES
from arrayd.replication.pair_stores import whole_bitmap
from arrayd.replication.stages import Stage, Stores
from arrayd.replication.statuses import State
from arrayd.volumes.volume import Volume, finished

VERSION = 1
BLOCK_BYTES = 64 * 1024
"""What is kept at once."""
STEP_BLOCKS = 16
"""Blocks that are read and written together."""
HEADER_BYTES = 512
OPENED = frozenset({State.S_SSUS_WRITABLE, State.S_SSWS})
"""What S-VOLs go back for: hosts write to them."""
PAGE_BITS = PAGE_BYTES * 8

HEADER = Struct(
    "magic" / Const(b"arrayd before\n\0\0"),
    "version" / Int16ub,
    Padding(6),
    "group" / Bytes(GROUP_BYTES),
    "number" / Int64ub,  # of the pair in its group
    "size" / Int64ub,  # of the S-VOL, in bytes
    Padding(HEADER_BYTES - 60),
    "crc" / Int32ub,  # CRC32C of all before it
)
"""What a store of before-images begins with, in big-endian order. `docs/formats.md` says the same for people."""


class BeforeImages:
    """Those of one S-VOL, `volume`, kept on the volume `store`."""

    def __init__(self, volume: Volume, store: Volume) -> None:
        self.volume = volume
        self._store = store
        self._notes = bytearray(self.note_pages(volume.size) * PAGE_BYTES)
        """Which blocks are kept, durably."""
        self._turn = asyncio.Lock()

    @staticmethod
    def note_pages(size: int) -> int:
        """Pages of notes about a volume of `size` bytes."""
        return -(-size // (BLOCK_BYTES * PAGE_BITS))

    @classmethod
    def bytes_needed(cls, size: int) -> int:
        """Of the store for a volume of `size` bytes."""
        return (1 + cls.note_pages(size)) * PAGE_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES

    @classmethod
    async def create(cls, stores: Stores, name: str, volume: Volume, group: bytes, number: int) -> Self:
        """None are kept yet, durably, whatever was there. Raises VolumeError."""
        store = await stores.create(name, cls.bytes_needed(volume.size))
        page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        page[:HEADER_BYTES] = _header(group, number, volume.size)
        await finished(store.write(0, page))
        await finished(store.flush())
        return cls(volume, store)

    @classmethod
    async def open(cls, stores: Stores, name: str, volume: Volume, group: bytes, number: int) -> Self | None:
        """Those that are kept, durably; None if there are none of this pair. Raises VolumeError.

        Header and notes are written again: those of a killed process need not be durable yet, and those of which a sync
        has failed are in the page cache alone, as clean, so that no later sync would say so. What they tell of is
        durable, as it was before it was noted."""
        store = await stores.open(name)
        if store is None or store.size < cls.bytes_needed(volume.size):
            return None
        page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        await finished(store.read(0, page))
        if page[:HEADER_BYTES] != _header(group, number, volume.size):
            return None
        await finished(store.write(0, page))
        images = cls(volume, store)
        notes = memoryview(images._notes)
        for at in range(0, len(notes), PAGE_BYTES):
            await finished(store.read(PAGE_BYTES + at, page))
            if any(page):
                notes[at : at + PAGE_BYTES] = page
                await finished(store.write(PAGE_BYTES + at, page))
        await finished(store.flush())
        return images

    # -- kept --------------------------------------------------------------------------------------------------------

    async def keep(self, ranges: Sequence[tuple[int, int]]) -> None:
        """What the volume has in these ranges (offset and length in bytes) is kept, durably, when this returns: then
        it may be written over. Raises VolumeError."""
        if not self._missing(ranges):
            return
        async with self._turn:
            missing = self._missing(ranges)
            if not missing:
                return
            for first, end in _side_by_side(sorted(missing)):
                await self._transfer(first, end, self.volume, 0, self._store, self._data_at)
            await finished(self._store.flush())
            await self._note(missing)

    def _missing(self, ranges: Sequence[tuple[int, int]]) -> set[int]:
        missing: set[int] = set()
        for offset, length in ranges:
            first, end = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1
            if not has(self._notes, first, end):
                missing.update(block for block in range(first, end) if not self._notes[block >> 3] >> (block & 7) & 1)
        return missing

    async def _note(self, blocks: set[int]) -> None:
        images: dict[int, memoryview] = {}
        for page in sorted({block // PAGE_BITS for block in blocks}):
            image = images[page] = memoryview(mmap.mmap(-1, PAGE_BYTES))
            image[:] = self._notes[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
        for block in blocks:
            page, bit = divmod(block, PAGE_BITS)
            images[page][bit >> 3] |= 1 << (bit & 7)
        for page, image in images.items():
            await finished(self._store.write((1 + page) * PAGE_BYTES, image))
        await finished(self._store.flush())
        for page, image in images.items():
            self._notes[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = image

    @property
    def _data_at(self) -> int:
        return PAGE_BYTES + len(self._notes)

    # -- and written back --------------------------------------------------------------------------------------------

    def ranges(self) -> Iterator[tuple[int, int]]:
        """What is kept: offset and length in bytes, in order."""
        for page in range(0, len(self._notes), PAGE_BYTES):
            bits = value(self._notes[page : page + PAGE_BYTES])
            for first, end in runs(bits, STEP_BLOCKS):
                offset = (page * 8 + first) * BLOCK_BYTES
                yield offset, min((end - first) * BLOCK_BYTES, self.volume.size - offset)

    async def write_back(self) -> None:
        """The volume has again what it had, durably. May be done twice. Raises VolumeError."""
        for offset, length in self.ranges():
            first, end = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1
            await self._transfer(first, end, self._store, self._data_at, self.volume, 0)
        await finished(self.volume.flush())

    async def _transfer(self, first: int, end: int, source: Volume, source_at: int, to: Volume, to_at: int) -> None:
        """These blocks from one to the other."""
        offset = first * BLOCK_BYTES
        length = min(end * BLOCK_BYTES, self.volume.size) - offset
        memory = memoryview(mmap.mmap(-1, length))
        await finished(source.read(source_at + offset, memory))
        await finished(to.write(to_at + offset, memory))
        await asyncio.sleep(0)


def _side_by_side(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The blocks, which are in order, joined to ranges of STEP_BLOCKS at the most: first and end."""
    first = end = blocks[0]
    for block in blocks:
        if block != end or end - first == STEP_BLOCKS:
            yield first, end
            first = block
        end = block + 1
    yield first, end


def _header(group: bytes, number: int, size: int) -> bytes:
    fields: dict[str, Any] = {"version": VERSION, "group": group, "number": number, "size": size}
    packed: bytes = HEADER.build(fields | {"crc": 0})
    return packed[:-4] + crc32c(packed[:-4]).to_bytes(4, "big")


async def go_back(stage: Stage) -> None:
    """The S-VOLs of a group whose copy has not ended, and that were consistent before, are again what they were then,
    durably; what is written back is marked in their bitmaps before. Nobody has the stores open, nor writes to the
    S-VOLs. May be done twice. Raises BitmapError, VolumeError."""
    row, doors = stage.row, stage.doors
    for pair in row.pairs:
        volume, name = doors.volume(pair.volume), stage.images_name(pair.number)
        images = await BeforeImages.open(doors.stores, name, volume, row.id, pair.number)
        if images is None:
            continue
        bits = stage.bitmap_name(pair.number)
        bitmap = await whole_bitmap(doors, bits, volume.size, row.id)
        for offset, length in images.ranges():
            await bitmap.mark(offset, length)
        await bitmap.save()
        await bitmap.close()
        await doors.stores.close(bits)
        await images.write_back()
        # From here on they lead to where the S-VOL is.
        await BeforeImages.create(doors.stores, name, volume, row.id, pair.number)
        await doors.stores.close(name)


async def half_copied(stage: Stage) -> bool:
    """Whether the S-VOLs of a group have before-images of a copy that has not ended. Nobody has the stores open. Raises
    VolumeError."""
    for pair in stage.row.pairs:
        name = stage.images_name(pair.number)
        volume = stage.doors.volume(pair.volume)
        images = await BeforeImages.open(stage.doors.stores, name, volume, stage.row.id, pair.number)
        await stage.doors.stores.close(name)
        if images is not None:
            return True
    return False
