"""Reads the records of a journal: those that are known to be there, and after a restart those that are found.

A record is there if its entry has the number, the epoch and the position that are due, and if the CRCs of both entry
and data are right. What an earlier lap or an earlier epoch left has another number or epoch. What was written before
the last restart, and was then not found because something before it was torn, has a smaller number of the opening.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from crc32c import crc32c

from arrayd.replication.journal.format import (
    CRC_BYTES,
    ENTRY_BYTES,
    ENTRY_LAYOUT,
    METADATA_AT,
    RECORDS_OF_A_WRITE_MAX,
    Entry,
    FormatError,
    Record,
    decode_entry,
)
from arrayd.replication.journal.regions import ENTRIES_A_PAGE, PAGE_BYTES, Position, Size
from arrayd.volumes.volume import Volume, finished

RUN_RECORDS_MAX = 1024
"""Records that are read at once; more than the longest write has."""
READ_BYTES = 1024 * 1024
"""So much is read from memory before others get their turn."""
SCAN_BYTES = 4 * 1024 * 1024
"""Data that is read at once to find the end."""

CHANGES_MAX = 2048
"""Entries that are read at once where nobody wants their data: some ms of work."""

Change = tuple[int, int, int]
"""What a record changes: the number of its volume, offset and extent in bytes."""

assert RUN_RECORDS_MAX >= RECORDS_OF_A_WRITE_MAX


class JournalError(Exception):
    """The journal cannot do what it was asked to; the text says why."""


class JournalFull(JournalError):
    """There is no room for the record; nothing of it was written."""


class JournalDamaged(JournalError):
    """A record is not what was written: the disk has lost something that it said was durable."""


class Reader:
    """Reads the journal of `size` and `epoch` on `volume`."""

    def __init__(self, volume: Volume, size: Size, epoch: int) -> None:
        self._volume = volume
        self._epoch = epoch
        self._metadata_bytes = size.entries * ENTRY_BYTES
        self._data_at = METADATA_AT + self._metadata_bytes
        self._data_bytes = size.data_bytes

    async def records(self, at: Position, end: Position, bytes_max: int) -> list[Record]:
        """The writes from `at` on, whole ones, before `end`: as many as have no more than `bytes_max` bytes of data,
        but one at the least. All of them must be there. Raises JournalDamaged, VolumeFailed."""
        entries = await self.entries(at, end, bytes_max)
        records = await self._with_data(entries)
        if len(records) < len(entries):
            raise JournalDamaged(f"record {at.sequence + len(records)} is not what was written")
        return records

    async def entries(
        self, at: Position, end: Position, bytes_max: int, records_max: int = RUN_RECORDS_MAX
    ) -> list[Entry]:
        """Those of `records`, whose data is not looked at: no more than `records_max`, which is not less than a write
        has. Raises JournalDamaged, VolumeFailed."""
        entries = await self._entries(at, end, None, records_max)
        count = whole_writes(entries, bytes_max)
        if at != end and not count:
            raise JournalDamaged(f"record {at.sequence + len(entries)} is not what was written")
        return entries[:count]

    async def data(self, entries: list[Entry]) -> memoryview:
        """Of these records, which follow one another; whatever is there. Raises VolumeFailed."""
        if not entries:
            return memoryview(b"")
        first = entries[0].position
        return await self._read(self._data_at, self._data_bytes, first, entries[-1].end.byte - first)

    async def find_end(self, at: Position, entries_end: int, bytes_end: int, opening: int) -> Position:
        """The end of the last whole write of those that are there from `at` on and were stored in `opening`."""
        limit = Position(entries_end, bytes_end)
        found = at
        while True:
            entries = await self._entries(at, limit, opening)
            count = whole_writes(entries, SCAN_BYTES)
            records = await self._with_data(entries[:count])
            for record in records:
                at = record.entry.end
                if not record.entry.more:
                    found = at
            if not records or len(records) < count:
                return found

    async def write_again(self, at: Position, end: Position) -> None:
        """Writes what is in the pages of the records from `at` to `end`, so that a sync takes them for new, whatever
        became of them in one before. Raises VolumeError."""
        records = end.sequence - at.sequence
        for place, length in (
            *_pages(self._data_at, self._data_bytes, at.byte, end.byte - at.byte),
            *_pages(METADATA_AT, self._metadata_bytes, at.sequence * ENTRY_BYTES, records * ENTRY_BYTES),
        ):
            piece = memoryview(bytearray(length))
            await finished(self._volume.read(place, piece))
            await finished(self._volume.write(place, piece))
            await asyncio.sleep(0)

    async def pages_before(self, at: Position) -> tuple[memoryview, memoryview]:
        """Data and entries that lie before `at` in the pages that it is in."""
        data, entries = at.byte % PAGE_BYTES, at.sequence % ENTRIES_A_PAGE
        return (
            await self._read(self._data_at, self._data_bytes, at.byte - data, data),
            await self._read(
                METADATA_AT, self._metadata_bytes, (at.sequence - entries) * ENTRY_BYTES, entries * ENTRY_BYTES
            ),
        )

    async def entry(self, at: Position) -> Entry:
        """The one at `at`, which must be there. Raises JournalDamaged, VolumeFailed."""
        packed = await self._read(METADATA_AT, self._metadata_bytes, at.sequence * ENTRY_BYTES, ENTRY_BYTES)
        try:
            entry = decode_entry(packed)
        except FormatError as error:
            raise JournalDamaged(f"record {at.sequence}: {error}") from error
        if entry.begin != at or entry.epoch != self._epoch:
            raise JournalDamaged(f"record {at.sequence} is not what was written")
        return entry

    async def changes(self, at: Position, end: Position) -> AsyncIterator[list[Change]]:
        """See `Journal.changes`. Without what `decode_entry` makes of each: hosts' writes may wait for this."""
        for begin in range(at.sequence, end.sequence, CHANGES_MAX):
            length = min(CHANGES_MAX, end.sequence - begin) * ENTRY_BYTES
            packed = await self._read(METADATA_AT, self._metadata_bytes, begin * ENTRY_BYTES, length)
            found: list[Change] = []
            for number, fields in enumerate(ENTRY_LAYOUT.iter_unpack(packed)):
                crc, _, sequence, epoch, _, offset, extent, _, _, _, volume, _, _ = fields
                here = number * ENTRY_BYTES
                whole = crc == crc32c(packed[here + CRC_BYTES : here + ENTRY_BYTES])
                if not whole or sequence != begin + number or epoch != self._epoch:
                    raise JournalDamaged(f"record {begin + number} is not what was written")
                found.append((volume, offset, extent))
            yield found

    async def _entries(
        self, at: Position, end: Position, opening: int | None, records_max: int = RUN_RECORDS_MAX
    ) -> list[Entry]:
        """The entries from `at` on that follow one another and end before `end`, `records_max` at the most."""
        count = min(records_max, end.sequence - at.sequence)
        start = at.sequence * ENTRY_BYTES
        packed = await self._read(METADATA_AT, self._metadata_bytes, start, count * ENTRY_BYTES)
        entries: list[Entry] = []
        sequence, byte = at
        for here in range(0, count * ENTRY_BYTES, ENTRY_BYTES):
            try:
                entry = decode_entry(packed, here)
            except FormatError:
                break
            if (entry.sequence, entry.position, entry.epoch) != (sequence, byte, self._epoch):
                break
            sequence, byte = sequence + 1, byte + entry.length
            if byte > end.byte or (opening is not None and entry.opening != opening):
                break
            entries.append(entry)
        return entries

    async def _with_data(self, entries: list[Entry]) -> list[Record]:
        """The records of these entries, up to the first whose data is not what was written."""
        data = await self.data(entries)
        records: list[Record] = []
        here = turn = 0
        for entry in entries:
            begin, here = here, here + entry.length
            own = data[begin:here]
            if crc32c(own) != entry.data_crc:
                break
            records.append(Record(entry, own))
            if here - turn >= READ_BYTES:
                turn = here
                await asyncio.sleep(0)
        return records

    async def _read(self, region_at: int, region_bytes: int, start: int, length: int) -> memoryview:
        """`length` bytes from the position `start` on of a cyclic region, by whole pages."""
        if not length:
            return memoryview(b"")
        places = list(_pages(region_at, region_bytes, start, length))
        # The heap has it from the run before: fresh pages of the system cost more than what is read into them.
        memory = memoryview(bytearray(sum(here for _, here in places)))
        done = 0
        for at, here in places:
            if done:
                await asyncio.sleep(0)
            await finished(self._volume.read(at, memory[done : done + here]))
            done += here
        return memory[start % PAGE_BYTES :][:length]


def _pages(region_at: int, region_bytes: int, start: int, length: int) -> Iterator[tuple[int, int]]:
    """Where on the volume the pages are that have `length` bytes from the position `start` on of a cyclic region, in
    pieces of READ_BYTES at the most."""
    at, end = start - start % PAGE_BYTES, start + length
    while length and at < end:
        here = min(-(-(end - at) // PAGE_BYTES) * PAGE_BYTES, region_bytes - at % region_bytes, READ_BYTES)
        yield region_at + at % region_bytes, here
        at += here


def whole_writes(entries: list[Entry], bytes_max: int) -> int:
    """How many of the entries are whole writes of no more than `bytes_max` bytes of data: one write at the least, if
    there is one."""
    whole, length = 0, 0
    for count, entry in enumerate(entries, 1):
        length += entry.length
        if length > bytes_max and whole:
            break
        if not entry.more:
            whole = count
    return whole
