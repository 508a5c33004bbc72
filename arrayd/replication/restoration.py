"""Restoration (figure 14): the records of the auxiliary journal are written to the S-VOLs, in their order.

Many records are one batch: to-be-restored moves behind it, durably; its records are carried out; the S-VOLs are made
durable; restoration-completed moves, durably. In between the S-VOLs may be none of the group's states, and what is
between the two positions leads to the next one: it is carried out again before anything else after a restart.

A batch ends where a run has ended that was acquired, if it can: of such places the journal knows the hash.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from arrayd.replication.acquisition import End
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.copying import Copies
from arrayd.replication.jobs import Job, Meter
from arrayd.replication.journal import AuxiliaryJournal, JournalError, Position, Record
from arrayd.replication.pulling import Pulling
from arrayd.replication.redo import carry_out, flush_all
from arrayd.volumes.volume import Volume

BATCH_BYTES = 16 * 1024 * 1024
"""Data of a batch; more only if a single write is."""
BATCH_RECORDS = 8192
TURN_BYTES = 1024 * 1024
"""So much is written to S-VOLs between two turns of the loop."""


class Restoration:
    """Restores what is in `journal` to `volumes`, by their number in the group. `copies` says what must wait, `images`
    keep what is written over; `ends` are those that acquisition has seen. `moved()` is called after each batch."""

    def __init__(
        self,
        journal: AuxiliaryJournal,
        volumes: Mapping[int, Volume],
        images: Mapping[int, BeforeImages],
        copies: Copies,
        moved: Callable[[], None],
    ) -> None:
        self.journal = journal
        self.ends: deque[End] = deque()
        self.batch = asyncio.Lock()
        """Held while records are carried out."""
        self._volumes = volumes
        self._images = images
        self._copies = copies
        self._moved = moved
        self._loop = asyncio.get_running_loop()
        self._meter = Meter(self._loop.time())

    async def once(self) -> bool:
        """A restore instruction, for one batch. Whether there was something to be restored.

        Raises JournalError (also if a record is beyond its volume), VolumeError; then `redo` does it again."""
        begin = self.journal.regions.oldest
        end = await self._batch_end()
        if end == begin:
            return False
        await self.journal.restore(end)
        await self.redo()
        return True

    async def redo(self) -> None:
        """Carries out what was to be restored and need not have been. Raises JournalError, VolumeError."""
        regions = self.journal.regions
        async with self.batch:
            begin, end = regions.oldest, regions.to_be_restored
            if begin == end:
                return
            await self._carry_out(begin, end)
            self._meter.add(self._loop.time(), end.byte - begin.byte)
        self._moved()

    def job(self, left: int | None) -> Job:
        """How it goes, with so many bytes that are still to be acquired or restored."""
        return Job(None, left, self._meter.rate(self._loop.time()))

    async def _carry_out(self, begin: Position, end: Position) -> None:
        touched: dict[int, Volume] = {}
        async for run in self.journal.runs(begin, end):
            await self._keep(run)
            turn = 0
            for record in run:
                volume = self._volume_of(record)
                if volume is None:
                    continue
                touched[record.entry.volume] = volume
                pending = carry_out(record, volume)
                if pending is not None:
                    await pending
                turn += len(record.data)
                if turn >= TURN_BYTES:
                    turn = 0
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        await flush_all(touched)
        await self.journal.restored(end)

    async def run(self, pulling: Pulling, due: asyncio.Event) -> None:
        """Until it is stopped; `due` is set whenever there may be something. Raises JournalError, VolumeError,
        Stopped."""
        while True:
            while await self.once():
                pulling.check()
            await pulling.wait(due)

    async def _batch_end(self) -> Position:
        """Where the next batch ends."""
        regions, ends = self.journal.regions, self.ends
        begin = regions.oldest
        limit = self._copies.floor(regions.synced)
        while ends and ends[0].at <= begin:
            ends.popleft()
        best = begin
        for end in ends:
            if end.at > limit or _beyond(begin, end.at, best):
                break
            best = end.at
        if best != begin or limit == begin:
            return best
        # What was acquired before a restart, or a place within a run that a copy waits for.
        async for run in self.journal.runs(begin, limit):
            end_of_run = run[-1].entry.end
            if _beyond(begin, end_of_run, best):
                break
            best = end_of_run
        return best

    async def _keep(self, run: list[Record]) -> None:
        """What these records write over is kept, where that is needed."""
        for number, images in self._images.items():
            ranges = [(entry.offset, entry.extent) for entry, _ in run if entry.volume == number]
            await images.keep(ranges)

    def _volume_of(self, record: Record) -> Volume | None:
        """None: of a pair that has ended here, or has not begun. Nothing is missed by that: a pair begins with a copy,
        and under a number that none had before in its journal."""
        entry = record.entry
        volume = self._volumes.get(entry.volume)
        if volume is not None and entry.offset + entry.extent > volume.size:
            raise JournalError(f"record {entry.sequence} is beyond the end of volume {entry.volume}")
        return volume


def _beyond(begin: Position, end: Position, best: Position) -> bool:
    """Whether what ends there is too much for one batch, which has something already."""
    much = end.byte - begin.byte > BATCH_BYTES or end.sequence - begin.sequence > BATCH_RECORDS
    return much and best != begin
