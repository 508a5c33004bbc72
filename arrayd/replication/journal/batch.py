"""Records that wait to be written: those of a batch of PDUs go out together, their data first, then their entries.

Data and entries are collected as they will lie on the disk, from the beginning of the page that the last batch ended
in. So whole pages are written, and no page has to be read for it, and a batch costs two calls of the system.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from crc32c import crc32c

from arrayd.replication.journal.format import (
    CRC,
    CRC_BYTES,
    ENTRY_BYTES,
    ENTRY_LAYOUT,
    METADATA_AT,
    WRITE_BYTES_MAX,
)
from arrayd.replication.journal.regions import ENTRIES_A_PAGE, PAGE_BYTES, Position, Size

BATCH_BYTES_MAX = WRITE_BYTES_MAX
"""Data of a batch: one write of the longest at the least."""
BATCH_RECORDS_MAX = 1024
"""Records of a batch: more than commands that some sessions may have under way, and as many as a run has."""

Piece = tuple[int, memoryview]
"""What is written where on the volume."""


class Batch:
    """The records from `end` on. `sequence` and `byte` say where the next one will be."""

    def __init__(self, size: Size, epoch: int, opening: int) -> None:
        self._size = size
        self._epoch = epoch
        self._opening = opening
        # Memory of whole pages, which the system gives when it is touched.
        self._data = memoryview(mmap.mmap(-1, BATCH_BYTES_MAX + PAGE_BYTES))
        self._entries = memoryview(mmap.mmap(-1, BATCH_RECORDS_MAX * ENTRY_BYTES + PAGE_BYTES))
        self.sequence = self._first_sequence = self._begin_sequence = 0
        self.byte = self._first_byte = self._begin_byte = 0
        self.records_end = self.bytes_end = 0
        """No record of this batch ends behind these."""
        self._whole_sequence = self._whole_byte = 0

    def begin(self, at: Position, data: memoryview, entries: memoryview) -> None:
        """The next record is at `at`; `data` and `entries` is what the pages that it is in have before it."""
        self.sequence, self.byte = self._whole_sequence, self._whole_byte = at
        self._start()
        self._data[: len(data)] = data
        self._entries[: len(entries)] = entries

    def _start(self) -> None:
        """Nothing is collected. `first` is where the memory begins, `begin` where what is new does."""
        self._begin_sequence, self._begin_byte = self.sequence, self.byte
        self._first_sequence = self.sequence - self.sequence % ENTRIES_A_PAGE
        self._first_byte = self.byte - self.byte % PAGE_BYTES
        self.records_end, self.bytes_end = self.sequence + BATCH_RECORDS_MAX, self.byte + BATCH_BYTES_MAX

    @property
    def count(self) -> int:
        """Records that are collected."""
        return self.sequence - self._begin_sequence

    @property
    def whole(self) -> Position:
        """Where the last whole write ends."""
        return Position(self._whole_sequence, self._whole_byte)

    def takes(self, records: int, length: int) -> bool:
        """Whether so many records with `length` bytes of data in all fit beside what is collected."""
        return self.sequence + records <= self.records_end and self.byte + length <= self.bytes_end

    def add(
        self, volume: int, kind: int, offset: int, extent: int, data: memoryview, data_crc: int, time: int, flags: int
    ) -> None:
        """Collects one record; `data` is copied, `data_crc` is its CRC32C. It must fit."""
        length, byte, sequence = len(data), self.byte, self.sequence
        if length:
            at = byte - self._first_byte
            self._data[at : at + length] = data
        at = (sequence - self._first_sequence) * ENTRY_BYTES
        entries = self._entries
        ENTRY_LAYOUT.pack_into(
            entries, at, 0, self._opening, sequence, self._epoch, time, offset, extent, byte, length, data_crc,
            volume, kind, flags,
        )  # fmt: skip
        CRC.pack_into(entries, at, crc32c(entries[at + CRC_BYTES : at + ENTRY_BYTES]))
        self.sequence = sequence + 1
        self.byte = byte + length
        if not flags:
            self._whole_sequence, self._whole_byte = sequence + 1, byte + length

    def pieces(self) -> Iterator[Piece]:
        """What to write, in this order: the data, then the entries."""
        size = self._size
        data_at = METADATA_AT + size.entries * ENTRY_BYTES
        if self.byte != self._begin_byte:
            length = -(-(self.byte - self._first_byte) // PAGE_BYTES) * PAGE_BYTES
            yield from _pieces(data_at, size.data_bytes, self._first_byte, self._data[:length])
        length = -(-(self.sequence - self._first_sequence) // ENTRIES_A_PAGE) * PAGE_BYTES
        first = self._first_sequence * ENTRY_BYTES
        yield from _pieces(METADATA_AT, size.entries * ENTRY_BYTES, first, self._entries[:length])

    def written(self) -> None:
        """All of it is: what is new begins behind it. The pages that it ends in are kept."""
        data_at, entries_at = self._first_byte, self._first_sequence
        self._start()
        if self._first_byte != data_at and self.byte != self._first_byte:
            at, end = self._first_byte - data_at, self.byte - data_at
            self._data[: end - at] = self._data[at:end]
        if self._first_sequence != entries_at and self.sequence != self._first_sequence:
            at, end = (each * ENTRY_BYTES for each in (self._first_sequence - entries_at, self.sequence - entries_at))
            self._entries[: end - at] = self._entries[at:end]


def _pieces(region_at: int, region_bytes: int, first: int, content: memoryview) -> Iterator[Piece]:
    """Where `content`, which begins at the position `first`, goes in a cyclic region: two pieces at its end."""
    at = first % region_bytes
    here = min(len(content), region_bytes - at)
    yield region_at + at, content[:here]
    if here < len(content):
        yield region_at, content[here:]
