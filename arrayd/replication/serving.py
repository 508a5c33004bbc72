"""The primary journal as its other side asks for it: FOLLOW (figure 13), and the purge of what is restored (figure 16).

Only what is synced is served. Whoever asks has what is synced at once, and what is stored beyond is synced meanwhile;
who has all of it waits for the next commit. A host's write waits for none of this: what the other side asks for costs
it a look at one attribute, and the turns of the event loop in which records are read and chained, which are short, and
with rests in between while hosts write (`hosts_first.py`).

FOLLOW also says what the other side has restored, durably. That is believed if it is further than before, and has been
served: the records before it may be purged then. Reading and purging take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from arrayd.buffers import BufferPool, taken
from arrayd.link.channel import Call
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.asking import RUN_BYTES_MAX, Followed, Outcome, position_of
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.hosts_first import RUN_BYTES, RUN_RECORDS, SHARE_MOST, HostsFirst, share
from arrayd.replication.jobs import Job, Meter
from arrayd.replication.journal import JournalError, Position
from arrayd.replication.journal.format import served_bytes
from arrayd.replication.journal.reading import RUN_RECORDS_MAX
from arrayd.replication.stages import Progress

WAIT_SECONDS_MAX = 3
"""A FOLLOW waits so long for something to be stored, whatever it asks for. An array that has started again is not heard
before what it asked in its last life has ended."""
POOL_BYTES = 4 * RUN_BYTES_MAX
"""Of answers to FOLLOW that are not sent yet."""
MUCH_SHARE = 0.5
"""From so much of a journal in use on P-VOLs are synced to make room in it; with less, what redo leaves is purged."""
PURGE_SHARE = 1 / 16
"""So much of a journal is purged at once, if much of it is in use, and less of it now and then."""
PURGEABLE_SHARE = 1 / 4
"""So much of it at once, if less is in use: a burst of writes is to find the room."""

log = get_logger("replication")


class JournalServer:
    """Serves the journal of `group`, of which the other side has said to have restored all before `acknowledged`.
    `clock` tells ns since 1970, `now` seconds. `much` is called when it would be well to `purge` at once."""

    def __init__(
        self,
        group: PrimaryGroup,
        acknowledged: Position,
        clock: Callable[[], int],
        now: Callable[[], float],
        much: Callable[[], None],
    ) -> None:
        self.acknowledged = acknowledged
        self.ended = False
        """Nothing is journaled any more, or not now: what is stored is the end of the group's writes."""
        self._group = group
        self._clock = clock
        self._much = much
        self._journal = group.journal
        self._now = now
        self._meter = Meter(now())
        self._oldest = 0
        """When the first record that the other side has not restored was written, in ns since 1970; 0: not known."""
        self._turn = asyncio.Lock()
        """Held by who reads the journal, and by who purges."""
        self._syncing: asyncio.Task[None] | None = None
        self._hosts_first = HostsFirst(self._journal.regions, now, self._share)
        self._buffers = BufferPool(POOL_BYTES)
        self._latest: Call | None = None
        """The last FOLLOW: one before it is given up by the other side, and does not wait any more."""
        self._closed = False

    # -- asked -------------------------------------------------------------------------------------------------------

    async def follow(self, fields: Any, call: Call) -> None:
        """Answers FOLLOW; see `asking.FOLLOW` for its fields. Raises JournalError, VolumeError, and FrameError from
        `Call.charge`: it is not answered."""
        if fields.epoch != self._journal.epoch:
            call.answer(asking.refused(Outcome.NOT_NOW, f"the journal is of epoch {self._journal.epoch}"))
            return
        at = position_of(fields.at)
        await self._hear(position_of(fields.restored))
        await self._more_than(at, min(fields.wait_ms / 1000, WAIT_SECONDS_MAX), call)
        if self._closed:
            call.answer(asking.refused(Outcome.NOT_NOW, "the journal is served no more"))
            return
        hosts_first = self._hosts_first.hosts_write() and self._share() < SHARE_MOST
        records, most = (RUN_RECORDS, RUN_BYTES) if hosts_first else (RUN_RECORDS_MAX, RUN_BYTES_MAX)
        length = min(fields.bytes_max, most)
        call.charge(length)
        regions = self._journal.regions
        while at == regions.synced != regions.stored:
            syncing = self._sync()
            await asyncio.wait((syncing,))
            syncing.result()
        if regions.synced != regions.stored:
            self._sync()
        self._hosts_first.begin()
        async with self._turn:
            entries = await self._journal.durable(at, length, records, self._hosts_first.turn)
            oldest = await self._journal.time_at(entries[-1].end if entries else at)
        # Seen after the end: whatever is stored when nothing is journaled any more is before it.
        ended, stored = self.ended, regions.stored
        head = asking.followed(Followed(stored, self._clock(), oldest, ended))
        total = served_bytes(entries)
        call.charge(max(total - length, 0))
        # Not within the turn: what waits for an answer to be sent must not keep the journal from being purged.
        buffer = await taken(self._buffers, total)
        try:
            async with self._turn:
                await self._journal.serve(at, entries, buffer.view, self._hosts_first.turn)
        except BaseException:
            buffer.release()
            raise
        # Not kept: it is asked for again by where it begins.
        call.answer(head, buffer.view, buffer, keep=False)

    async def _more_than(self, at: Position, seconds: float, call: Call) -> None:
        """Waits until more is stored than up to `at`, or there is no more to wait for."""
        loop, regions = asyncio.get_running_loop(), self._journal.regions
        until = loop.time() + seconds
        before, self._latest = self._latest, call
        if before is not None:
            self._group.wake()
        while at == regions.stored and not (self.ended or self._closed) and self._latest is call:
            left = until - loop.time()
            if left <= 0:
                break
            await asyncio.wait((self._group.next_commit(),), timeout=left)
        if self._latest is call:
            self._latest = None
        await self.look()

    def _sync(self) -> asyncio.Task[None]:
        """What is stored is being synced: one sync at a time, and none that nobody has asked for."""
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._group.durable.sync())
            self._syncing.add_done_callback(self._synced)
        return self._syncing

    def _synced(self, task: asyncio.Task[None]) -> None:
        self._syncing = None
        if not task.cancelled():
            task.exception()  # the group has been told

    # -- restored, purged --------------------------------------------------------------------------------------------

    async def _hear(self, restored: Position) -> None:
        """The other side says that it has restored all before `restored`, durably."""
        if not self._is_news(restored):
            return
        try:
            oldest = await self._journal.time_at(restored)
        except JournalError as error:
            log.error("restored to where there is no record", group=self._journal.group.hex(), reason=str(error))
            return
        if self._is_news(restored):
            self._meter.add(self._now(), restored.byte - self.acknowledged.byte)
            self.acknowledged, self._oldest = restored, oldest
        much = self._journal.regions.used_share >= MUCH_SHARE
        if self._purgeable >= (PURGE_SHARE if much else PURGEABLE_SHARE):
            self._much()

    def _is_news(self, restored: Position) -> bool:
        """Whether it is further than what is acknowledged, and has been served."""
        known = self.acknowledged
        return restored != known and restored.follows(known) and self._journal.regions.synced.follows(restored)

    @property
    def _purgeable(self) -> float:
        """Which part of the journal is acknowledged, and in use."""
        regions = self._journal.regions
        return regions.share(regions.oldest, self.acknowledged)

    async def look(self) -> None:
        """Finds out how old the oldest write is that is not restored, if that is not known. To be called now and then,
        since nobody may ask. Raises JournalDamaged, VolumeFailed."""
        at = self.acknowledged
        if not self._oldest and at != self._journal.regions.stored:
            try:
                oldest = await self._journal.time_at(at)
            except JournalError:
                if at == self.acknowledged:
                    raise
                return  # it was purged meanwhile
            if at == self.acknowledged:
                self._oldest = oldest

    async def purge(self, wholly: bool) -> None:
        """Releases what is acknowledged: `wholly`, or if much is in use, or nothing is to be restored, all of it, for
        which P-VOLs may have to be synced; else what a restart would not need anyway.

        Raises JournalError, VolumeError: the group has stopped, if it was running."""
        regions, end = self._journal.regions, self.acknowledged
        if wholly or regions.used_share >= MUCH_SHARE or end == regions.stored:
            if not regions.redo.follows(end):
                await self._group.checkpoint()
            end = min(end, regions.redo)
        else:
            end = self._journal.chained_before(min(end, regions.redo))
        async with self._turn:
            if end > regions.oldest:
                await self._group.purge(end)
        if not self._buffers.used_bytes:
            # Nobody asks: what the pool keeps is given back.
            self._buffers = BufferPool(POOL_BYTES)

    # -- told, ended -------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Of the group; where the age of the oldest write is not known, nothing is said of it."""
        regions = self._journal.regions
        restoring = Job(None, regions.stored.byte - self.acknowledged.byte, self._meter.rate(self._now()))
        return Progress(
            stored=regions.stored,
            restored=self.acknowledged,
            lag_s=self._lag_s(),
            used_share=regions.used_share,
            restoring=restoring,
        )

    def _lag_s(self) -> float | None:
        """Age of the oldest write that is not restored; None: not known."""
        if self.acknowledged == self._journal.regions.stored:
            return 0.0
        return max(self._clock() - self._oldest, 0) / 1e9 if self._oldest else None

    def _share(self) -> float:
        """Of the loop's time that may be taken while hosts write."""
        return share(self._lag_s() or 0.0, self._journal.regions.share(self.acknowledged, self._journal.regions.stored))

    def end(self, ended: bool) -> None:
        """Whether nothing is journaled any more: who waits hears of it at once."""
        self.ended = ended
        self._group.wake()

    def shut(self) -> None:
        """Serves nothing any more: who waits hears of it at once."""
        self._closed = True
        self._group.wake()

    async def close(self) -> None:
        """Waits for what is at work, once nobody is being answered."""
        if self._syncing is not None:
            await asyncio.wait((self._syncing,))
