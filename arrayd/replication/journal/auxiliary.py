"""The auxiliary journal: what was read of a primary journal and is to be restored (figures 13, 14 and 15).

It has the records of the primary one under the same numbers and positions, whatever the size of its own regions is.
What came a moment ago is restored from memory: it is on the disk, and need not be read for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from arrayd.replication.journal.format import Record, Role, Superblock, decode_parts
from arrayd.replication.journal.journal import Journal
from arrayd.replication.journal.reading import JournalError, JournalFull, Reader
from arrayd.replication.journal.recent import Budget, Recent
from arrayd.replication.journal.regions import START, AuxiliaryRegions, Position
from arrayd.volumes.volume import Volume


class AuxiliaryJournal(Journal[AuxiliaryRegions]):
    """An auxiliary journal that is open."""

    role = Role.AUXILIARY
    _chain = b""
    """The hash over all that was collected; empty: not known yet."""

    def __init__(self, volume: Volume, superblock: Superblock, regions: AuxiliaryRegions, reader: Reader) -> None:
        super().__init__(volume, superblock, regions, reader)
        self.recent = Recent(Budget())
        """Who opens it may have it share memory with others."""

    @classmethod
    async def create(
        cls, volume: Volume, group: bytes, epoch: int, start: Position = START, chain: bytes = b""
    ) -> Self:
        """A new journal of `group` (16 bytes), durably; what was on the volume is given up. `epoch` is greater than
        any before on this volume. `start` is where the primary journal begins to be read, and `chain` its hash there
        if that is not its beginning. Raises JournalError, VolumeError."""
        made = await cls._make(volume, group, epoch, start, chain)
        journal = cls(volume, made, AuxiliaryRegions(made.size, *made.positions), Reader(volume, made.size, epoch))
        await journal._begin()
        return journal

    @classmethod
    async def open(cls, volume: Volume) -> Self:
        """The journal that is on the volume, with the records that are whole. What was still to be read is forgotten:
        to-be-read is read-completed. Raises JournalError, VolumeError."""
        found = await cls._found(volume)
        restored, to_be_restored, read_completed, _ = found.positions
        regions = AuxiliaryRegions(found.size, restored, to_be_restored, read_completed, read_completed)
        journal = cls(volume, found, regions, Reader(volume, found.size, found.epoch))
        await journal._recover()
        await journal._begin()
        return journal

    def _found_end(self, end: Position) -> None:
        self.regions.acquire(end)

    def acquire(self, end: Position) -> None:
        """Records before `end` are to be read (figure 13). Raises JournalFull if there is no room for them, and
        JournalError if they were to be read already."""
        if not end.follows(self.regions.to_be_read):
            raise JournalError(f"{end} is before {self.regions.to_be_read}, up to where is read already")
        if not self.regions.fits(end):
            raise JournalFull(f"no room for what is before {end}")
        self.regions.acquire(end)

    async def store_run(self, run: memoryview) -> Position:
        """Collects the records of a run that the primary array has served, which must go on where the last one ended;
        up to where that is. They are durable after `sync`: read-completed moves then. One call at a time.

        Raises FormatError if the run is not what was to come, JournalError if it is more than was to be read.
        """
        if not self._chain:
            self._chain = await self._chain_at(self.regions.stored)
        batch = self._batch
        begin = Position(batch.sequence, batch.byte)
        records: list[Record] = []
        chain = self._chain
        for part, last in decode_parts(run, begin, self.epoch, chain):
            records += part
            chain = last
            await asyncio.sleep(0)
        if not records:
            return begin
        end = records[-1].entry.end
        if not self.regions.to_be_read.follows(end):
            raise JournalError(f"records up to {end}, where {self.regions.to_be_read} was to be read")
        length = end.byte - begin.byte
        while self._waits or not batch.takes(len(records), length):
            if not batch.count and not self._waits:
                raise JournalError(f"a run of {len(records)} records with {length} bytes is too long")
            await self.commit()
        for entry, data in records:
            _, _, _, time, offset, extent, _, _, data_crc, volume, kind, flags = entry
            batch.add(volume, kind, offset, extent, data, data_crc, time, flags)
        self._chain = chain
        self._remember(end, chain)
        self.recent.add(records)
        return end

    async def runs(self, at: Position, end: Position) -> AsyncIterator[list[Record]]:
        """See `Journal.runs`."""
        for records in self.recent:
            begin, after = records[0].entry.begin, records[-1].entry.end
            if begin < at or after > end:
                continue
            async for run in super().runs(at, begin):
                yield run
            yield records
            at = after
        async for run in super().runs(at, end):
            yield run

    async def restore(self, end: Position) -> None:
        """Records before `end` are restored from now on (figure 14), which is durable before the first of them is:
        until they all are, the S-VOLs may be none of the group's states. Raises VolumeError."""
        await self._save(lambda regions: regions.restore(end))

    async def restored(self, end: Position) -> None:
        """All before `end` is durable in the S-VOLs: its room is free once that is durable here. Raises JournalError
        if no write begins there, VolumeError."""
        await self._save(lambda regions: regions.restored(end))
        self.recent.restored(end)
