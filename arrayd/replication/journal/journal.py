"""What both journals of figure 15 have in common: one journal on the bytes of a logical volume (figure 12).

A record is stored by its data, then its entry: the entry is what makes it count. Positions that give room free, or that
say where to begin after a restart, move in the superblock first, durably, and then here: so what a superblock leads to
is never written over.

Who has a journal closes its volume, too. Nothing here may be cancelled in the middle of a write: it goes on to its end.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

from arrayd.replication.journal.batch import Batch
from arrayd.replication.journal.format import (
    ENTRY_BYTES,
    METADATA_AT,
    RECORDS_OF_A_WRITE_MAX,
    WRITE_BYTES_MAX,
    Entry,
    FormatError,
    Record,
    Role,
    Superblock,
    chain_next,
    chain_start,
    encode_run,
)
from arrayd.replication.journal.reading import RUN_RECORDS_MAX, Change, JournalDamaged, JournalError, Reader
from arrayd.replication.journal.regions import AuxiliaryRegions, Position, PrimaryRegions, Size
from arrayd.replication.journal.superblocks import read_superblock, write_superblock
from arrayd.volumes.volume import Volume, VolumeError, finished

CHAINS_MAX = 1024
"""Places of a journal whose hash is remembered. Of others it is computed again from the last one before."""
ZEROS = memoryview(bytes(1024 * 1024))

CHAINED_BYTES = 512 * 1024
CHAINED_RECORDS = 16
"""So much is hashed before others get their turn, or a record that is longer."""

LISTED_RECORDS = 32
"""Entries that are read at a time, likewise: more than the longest write has."""

Turn = Callable[[], Awaitable[None]]
OTHERS_TURN: Turn = partial(asyncio.sleep, 0)

assert LISTED_RECORDS >= RECORDS_OF_A_WRITE_MAX

R = TypeVar("R", PrimaryRegions, AuxiliaryRegions)


class Journal(Generic[R]):
    """A journal that is open. `failure` is why it takes nothing more, until it is opened again."""

    role: Role
    regions: R

    def __init__(self, volume: Volume, superblock: Superblock, regions: R, reader: Reader) -> None:
        self.volume = volume
        self.group = superblock.group
        self.epoch = superblock.epoch
        self.regions = regions
        self.failure: VolumeError | None = None
        self._superblock = superblock
        self._reader = reader
        self._batch = Batch(superblock.size, superblock.epoch, superblock.opening)
        self._chains = {regions.oldest: superblock.chain}
        """The hash that the record there is chained to."""
        self._turn = asyncio.Lock()
        """Held by who writes the batch in a thread."""
        self._waits = False
        """Whether nothing can be collected: the batch is being written in a thread, or the journal has failed."""
        self._saving = asyncio.Lock()

    # -- made and opened ---------------------------------------------------------------------------------------------

    @classmethod
    async def _make(cls, volume: Volume, group: bytes, epoch: int, start: Position, chain: bytes) -> Superblock:
        """A new journal, durably; what was on the volume is given up. Raises JournalError, VolumeError."""
        before = await read_superblock(volume)
        # One of the other role was prepared and never came to be: the group has this epoch the other way round now.
        unused = before is not None and (before.group, before.epoch) == (group, epoch) and before.role is not cls.role
        if before is not None and epoch <= before.epoch and not unused:
            raise JournalError(f"epoch {epoch} for a journal that has seen epoch {before.epoch}")
        try:
            size = Size.of(volume.size - METADATA_AT)
        except ValueError as error:
            raise JournalError(str(error)) from error
        # Entries of whatever journal was here before, whose superblocks may be lost; and the first lap need not have
        # the file system note for each block that it is written now.
        end = METADATA_AT + size.entries * ENTRY_BYTES
        for at in range(METADATA_AT, end, len(ZEROS)):
            await finished(volume.write(at, ZEROS[: end - at]))
        await finished(volume.flush())
        counter = before.counter + 1 if before is not None else 1
        superblock = Superblock(
            counter, cls.role, group, epoch, 1, size, (start,) * 4, chain or chain_start(group, epoch)
        )
        await write_superblock(volume, superblock)
        return superblock

    @classmethod
    async def _found(cls, volume: Volume) -> Superblock:
        """The superblock of a journal of this role. Raises JournalError, VolumeFailed."""
        superblock = await read_superblock(volume)
        if superblock is None:
            raise JournalError("there is no journal on the volume")
        if superblock.role != cls.role:
            raise JournalError(f"the journal is {superblock.role.name.lower()}, not {cls.role.name.lower()}")
        size = superblock.size
        if volume.size < METADATA_AT + size.entries * ENTRY_BYTES + size.data_bytes:
            raise JournalDamaged(f"the journal is larger than its volume, which has {volume.size} bytes")
        return superblock

    async def _recover(self) -> None:
        """Finds what was stored when the journal was last open, makes it durable, and begins another opening."""
        found, regions = self._superblock, self.regions
        end = await self._reader.find_end(regions.synced, regions.entries_end, regions.bytes_end, found.opening)
        # First of all: to write again, as below, can fail, and what hosts were answered must not wait for it.
        await finished(self.volume.flush())
        # The process before may have had a sync that failed: the kernel takes such pages for clean, and syncs no more.
        await self._reader.write_again(regions.synced, end)
        await finished(self.volume.flush())
        self._found_end(end)
        regions.store(end)
        regions.sync(end)
        # From here on whatever else was stored in the last opening is never taken for a record.
        self._superblock = found._replace(opening=found.opening + 1)
        self._batch = Batch(found.size, found.epoch, found.opening + 1)
        await self._save(lambda regions: None)

    def _found_end(self, end: Position) -> None:
        """The records that were found end at `end`."""

    async def _begin(self) -> None:
        """Gets ready to store records."""
        self._batch.begin(self.regions.stored, *await self._reader.pages_before(self.regions.stored))

    # -- stored ------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Records that are collected, and not yet written."""
        return self._batch.count

    def commit_now(self) -> bool:
        """Writes what is collected, on the spot: it survives the death of the daemon from then on. False: it must
        wait (`commit`), and what of it was written does not count yet."""
        if self._waits:
            return False
        batch = self._batch
        if batch.count:
            write_now = self.volume.write_now
            for at, view in batch.pieces():
                if not write_now(at, view):
                    return False
            self._written()
        return True

    async def commit(self) -> None:
        """`commit_now`, waiting for whatever it must. Raises VolumeError: the journal has failed then."""
        async with self._turn:
            if self.failure is not None:
                raise self.failure
            if self.commit_now():
                return
            self._waits = True
            try:
                for at, view in self._batch.pieces():
                    await finished(self.volume.write(at, view))
            except VolumeError as error:
                self.failure = error
                raise
            finally:
                self._waits = self.failure is not None
            self._written()

    def _written(self) -> None:
        self._batch.written()
        self.regions.store(self._batch.whole)

    async def sync(self) -> Position:
        """Makes what was collected or written before the call durable, together with all who wait for it; up to where
        that is. Raises VolumeError: the journal has failed then."""
        await self.commit()
        end: Position = self.regions.stored
        try:
            await finished(self.volume.flush())
        except VolumeError as error:
            self._fail(error)
            raise
        self.regions.sync(end)
        return end

    async def save(self) -> None:
        """Makes the positions durable as they are. Raises VolumeError: the journal has failed then."""
        await self._save(lambda regions: None)

    async def _save(self, move: Callable[[R], None]) -> None:
        """Moves positions: in the superblock, and once that is durable here. Raises JournalError if the oldest record
        would not be one, VolumeError."""
        async with self._saving:
            planned = copy.copy(self.regions)
            move(planned)
            chain = await self._chain_at(planned.oldest)
            # The counter counts what is durable: after a write that was cut short the same place is written again.
            superblock = self._superblock._replace(
                counter=self._superblock.counter + 1, positions=planned.positions, chain=chain
            )
            try:
                await write_superblock(self.volume, superblock)
            except VolumeError as error:
                self._fail(error)
                raise
            self._superblock = superblock
            move(self.regions)
            self._chains = {at: chain for at, chain in self._chains.items() if at >= planned.oldest}
            self._chains[planned.oldest] = chain

    def _fail(self, error: VolumeError) -> None:
        self.failure = self.failure or error
        self._waits = True

    # -- read --------------------------------------------------------------------------------------------------------

    async def runs(self, at: Position, end: Position) -> AsyncIterator[list[Record]]:
        """The records from `at` to `end`, in order, in runs of whole writes. They must not be purged meanwhile.

        Raises JournalDamaged, VolumeFailed.
        """
        assert at.follows(self.regions.oldest), at
        assert self.regions.stored.follows(end), end
        while at != end:
            records = await self.read_through(at, end)
            yield records
            at = records[-1].entry.end

    async def read_through(self, at: Position, end: Position) -> list[Record]:
        """A run of them, as the disk has them. Raises JournalDamaged, VolumeFailed."""
        return await self._reader.records(at, end, WRITE_BYTES_MAX)

    async def durable(
        self, at: Position, bytes_max: int, records_max: int = RUN_RECORDS_MAX, turn: Turn = OTHERS_TURN
    ) -> list[Entry]:
        """What is durable from `at` on: whole writes of no more than `bytes_max` bytes of data, or one that is longer,
        and no more than `records_max` records. `turn` gives others their turn.

        Raises JournalError if there is no such place, JournalDamaged, VolumeFailed.
        """
        self._remember(at, await self._chain_at(at))
        entries: list[Entry] = []
        end, left = self.regions.synced, bytes_max
        while at != end and len(entries) + RECORDS_OF_A_WRITE_MAX <= records_max:
            part = await self._reader.entries(at, end, left, min(LISTED_RECORDS, records_max - len(entries)))
            left -= part[-1].end.byte - at.byte
            if left < 0 and entries:
                break
            entries += part
            at = part[-1].end
            await turn()
        return entries

    async def serve(self, at: Position, entries: list[Entry], room: memoryview, turn: Turn = OTHERS_TURN) -> None:
        """Fills `room`, which has `served_bytes`, with the run of these records, which begin at `at`, as another array
        takes them; `turn` gives others their turn. Raises JournalError if they are there no more, JournalDamaged,
        VolumeFailed."""
        chain = await self._chain_at(at)
        data = await self._reader.data(entries)
        here = done = 0
        for part, length in in_turns(entries):
            try:
                end, chain = encode_run(part, data[done : done + length], room[here:], chain)
            except FormatError as error:
                raise JournalDamaged(str(error)) from error
            here, done = here + end, done + length
            await turn()
        room[here:] = chain
        self._remember(entries[-1].end if entries else at, chain)

    async def time_at(self, at: Position) -> int:
        """When the record there was written, in ns since 1970; 0 at the end of what is stored. Raises JournalDamaged if
        none begins there, VolumeFailed."""
        return 0 if at == self.regions.stored else (await self._reader.entry(at)).time

    def changes(self, at: Position, end: Position) -> AsyncIterator[list[Change]]:
        """What the records from `at` to `end` change, in order, by their entries alone: some thousands at a time.

        Raises JournalDamaged, VolumeFailed.
        """
        return self._reader.changes(at, end)

    async def chain(self, at: Position) -> bytes:
        """The hash over all records before `at`. Raises JournalError if there is no such place."""
        return await self._chain_at(at)

    def chain_known(self, at: Position) -> bytes | None:
        """The same where it is known; None: it would have to be computed."""
        return self._chains.get(at)

    def chained_before(self, end: Position) -> Position:
        """The last place up to `end` whose hash is known, so that none is computed if records are purged up to it."""
        return max(known for known in self._chains if known <= end)

    async def _chain_at(self, at: Position) -> bytes:
        """See `chain`. From the nearest place before that is known."""
        oldest, synced = self.regions.oldest, self.regions.synced
        if not (at.follows(oldest) and synced.follows(at)):
            raise JournalError(f"{at} is not in the journal, which has {oldest} to {synced}")
        here = max(known for known in self._chains if known <= at)
        chain = self._chains[here]
        while here != at:
            for record in await self._reader.records(here, synced, WRITE_BYTES_MAX):
                chain = chain_next(chain, record)
                here = record.entry.end
                if here.sequence >= at.sequence:
                    break
            if here.sequence >= at.sequence and (here != at or record.entry.more):
                raise JournalError(f"no write begins at {at}")
        return chain

    def _remember(self, at: Position, chain: bytes) -> None:
        self._chains[at] = chain
        if len(self._chains) > CHAINS_MAX:
            del self._chains[next(known for known in self._chains if known != self.regions.oldest)]


def in_turns(entries: list[Entry]) -> Iterator[tuple[list[Entry], int]]:
    """The records in parts of so much as is hashed at a time, each with the bytes of its data."""
    begin = length = 0
    for number, entry in enumerate(entries):
        if number > begin and (length + entry.length > CHAINED_BYTES or number - begin == CHAINED_RECORDS):
            yield entries[begin:number], length
            begin, length = number, 0
        length += entry.length
    if entries:
        yield entries[begin:], length
