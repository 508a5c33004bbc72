"""The primary journal: the write-ahead log of the P-VOLs of a group (figures 12 and 15).

A write of a host is appended, committed with what else came in its batch, written to its volume, and answered, in this
order. After a restart the records from redo on are written to their volumes again.
"""

from __future__ import annotations

from typing import Self

from crc32c import crc32c

from arrayd.replication.journal.format import MORE, RECORD_BYTES_MAX, WRITE_BYTES_MAX, Kind, Role
from arrayd.replication.journal.journal import Journal
from arrayd.replication.journal.reading import JournalFull, Reader
from arrayd.replication.journal.regions import BLOCK_BYTES, START, Position, PrimaryRegions
from arrayd.volumes.volume import Volume


class PrimaryJournal(Journal[PrimaryRegions]):
    """A primary journal that is open."""

    role = Role.PRIMARY

    @classmethod
    async def create(cls, volume: Volume, group: bytes, epoch: int, start: Position = START) -> Self:
        """A new journal of `group` (16 bytes), durably; what was on the volume is given up. `epoch` is greater than
        any before on this volume. Raises JournalError, VolumeError."""
        made = await cls._make(volume, group, epoch, start, b"")
        journal = cls(volume, made, PrimaryRegions(made.size, *made.positions), Reader(volume, made.size, epoch))
        await journal._begin()
        return journal

    @classmethod
    async def open(cls, volume: Volume) -> Self:
        """The journal that is on the volume, with the records that are whole. Raises JournalError, VolumeError."""
        found = await cls._found(volume)
        out, redo, synced, _ = found.positions
        regions = PrimaryRegions(found.size, out, redo, synced, synced)
        journal = cls(volume, found, regions, Reader(volume, found.size, found.epoch))
        await journal._recover()
        await journal._begin()
        return journal

    def append_now(self, volume: int, kind: Kind, offset: int, extent: int, data: memoryview, time: int) -> bool:
        """Collects a write for the next commit, and copies `data`: of WRITE `extent` bytes, of PATTERN one block, else
        none. `offset` and `extent` are bytes of the group's volume number `volume`, `time` ns since 1970.

        False: it must wait (`append`); nothing happened. Raises JournalFull; nothing happened.
        """
        length = len(data)
        batch, regions = self._batch, self.regions
        end = batch.byte + length
        if end > regions.bytes_end or batch.sequence >= regions.entries_end:
            raise JournalFull(f"no room for a write of {length} bytes")
        if self._waits:
            return False
        assert not length % BLOCK_BYTES, length
        if length > RECORD_BYTES_MAX:
            return self._append_long(volume, kind, offset, data, time)
        if (end > batch.bytes_end or batch.sequence >= batch.records_end) and not self.commit_now():
            return False
        batch.add(volume, kind, offset, extent, data, crc32c(data), time, 0)
        return True

    def _append_long(self, volume: int, kind: Kind, offset: int, data: memoryview, time: int) -> bool:
        """A WRITE that is several records: all of them in one batch, or none."""
        length, batch = len(data), self._batch
        assert kind == Kind.WRITE, kind
        assert length <= WRITE_BYTES_MAX, length
        records = -(-length // RECORD_BYTES_MAX)
        if batch.sequence + records > self.regions.entries_end:
            raise JournalFull(f"no room for a write of {length} bytes")
        if not batch.takes(records, length) and not self.commit_now():
            return False
        for at in range(0, length, RECORD_BYTES_MAX):
            part = data[at : at + RECORD_BYTES_MAX]
            more = MORE if at + len(part) < length else 0
            batch.add(volume, kind, offset + at, len(part), part, crc32c(part), time, more)
        return True

    async def append(self, volume: int, kind: Kind, offset: int, extent: int, data: memoryview, time: int) -> None:
        """`append_now`, waiting for whatever it must. Raises JournalFull, VolumeError."""
        while not self.append_now(volume, kind, offset, extent, data, time):
            await self.commit()

    def redone(self, end: Position) -> None:
        """All before `end` is durable in the P-VOLs, and in the journal (`sync`). It counts after a restart once it is
        saved (`save`, `purge`)."""
        self.regions.redone(end)

    async def purge(self, end: Position) -> None:
        """Releases the records before `end`, durably: not beyond redo. What is purged already stays so.

        Raises JournalError if no write begins there, VolumeError.
        """
        if end > self.regions.oldest:
            await self._save(lambda regions: regions.purge(end))
