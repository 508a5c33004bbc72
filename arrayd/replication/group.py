"""A consistency group at the primary side: one journal, several P-VOLs by number, one order (figures 10, 12 and 15).

A write goes through four steps, all writes of the group in one order:

1. it is collected by the journal (`submit`, or on the spot: `journaled.py`), or waits while the journal is written;
2. at the end of the turn of the event loop the journal commits all that was collected, in two calls of the system;
3. then, and never before, all of it is handed to the volumes, which keep the order where writes overlap;
4. when its volume has it, a write is answered; a durable one when the journal is synced as well (`durable.py`).

A checkpoint syncs the volumes and moves redo, after so much that a restart has to do no more than that again.

The group stops when its journal is full, when journal or volume fail, or when it is told to. From then on no write is
journaled, so that the other side stays at one point of the group's writes. This is the seam to who owns the pairs:

1. `told(event, reason)` says that it stopped, and why. Writes of hosts wait from then on.
2. `await group.stop()`: what was journaled is in the volumes, durably. It returns where P-VOL and journal differ, since
   a volume has refused what was journaled: that is to be copied again, like what is written from now on.
3. Its tables say, durably, that the group is suspended: such a group is not redone after a restart, since its journal
   may be older than its volumes.
4. `replace` of each `JournaledVolume` names the volume that takes the writes that wait, and all others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from arrayd.log import get_logger
from arrayd.replication.activity import Activity
from arrayd.replication.durable import Durable
from arrayd.replication.journal import JournalError, JournalFull, Position, PrimaryJournal
from arrayd.replication.redo import flush_all
from arrayd.replication.statuses import Event
from arrayd.replication.writes import InOrder, Mark, Range, Spot, Together, Write
from arrayd.volumes.volume import Volume, VolumeError

CHECKPOINT_BYTES = 64 * 1024 * 1024
CHECKPOINT_RECORDS = 16384
"""After so much data, or so many records, redo moves: what a restart has to write again, and twice that at the most
while the checkpoint itself takes its time."""
SPOT_BYTES_MAX = 8 * 1024 * 1024
"""Copies of data that was taken on the spot and is not in its volume yet. With more, writes keep their own memory."""
HAS_ROOM_SHARE = 0.6
"""A journal that was nearly full (NEARLY_FULL_SHARE) has room again when no more than this is in use."""

log = get_logger("replication")

Told = Callable[[Event, str], None]


class PrimaryGroup:
    """The group on `journal`, which nobody else appends to; its tail has been redone. `clock` tells ns since 1970.

    `told(event, reason)` is called, from the event loop, with JOURNAL_NEARLY_FULL and JOURNAL_HAS_ROOM, and once with
    JOURNAL_FULL or ERROR: the group has stopped."""

    def __init__(self, journal: PrimaryJournal, clock: Callable[[], int], told: Told) -> None:
        self.journal = journal
        self.activity = Activity()
        self.volumes: dict[int, Volume] = {}
        self.takes = True
        """Whether a write may be collected on the spot: nothing waits, and the group has not stopped."""
        self.due = False
        """Whether a commit is due at the end of this turn."""
        self.time = 0
        """Of the writes of this turn, in ns since 1970."""
        self.collected: list[Spot | InOrder] = []
        """What the journal has collected, and the volumes have not been handed, in order."""
        self.spot_bytes = 0
        self.nearly_full = journal.regions.nearly_full
        """What was told last, or would have been."""
        self.stopped = False
        self.durable = Durable(journal, lambda error: self.fail(Event.ERROR, str(error)), self._journal_failed)
        self.differing: list[Range] = []
        """What was journaled and its volume has refused: as much as was under way at the most."""
        self._awaited: asyncio.Future[None] | None = None
        """Somebody waits for the next commit."""
        self._clock = clock
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[InOrder] = deque()
        """What the journal could not collect yet; as many as commands in flight at the most."""
        self._under_way: set[asyncio.Future[None]] = set()
        """What volumes are at work on."""
        self._issued = journal.regions.stored
        """All records before it were handed to their volumes."""
        self._checkpointing = asyncio.Lock()
        self._committer: asyncio.Task[None] | None = None
        self._checkpointer: asyncio.Task[None] | None = None

    def join(self, number: int, volume: Volume) -> None:
        """The group has `volume` under `number` from now on, which no other of it has had since the last checkpoint."""
        assert number not in self.volumes, number
        self.volumes[number] = volume
        self.durable.unsynced[number] = volume

    # -- taken -------------------------------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """The first write of this turn: a commit is due."""
        self.due = True
        self.time = self._clock()
        self._loop.call_soon(self._commit_due)

    def submit(self, write: Write) -> None:
        """Takes a write, in the order of the calls."""
        if self.stopped:
            write.keep(write)
        elif self._waiting:
            self._waiting.append(write)
        else:
            try:
                if not self._collect(write):
                    self._waiting.append(write)
                    self.takes = False
            except JournalFull as error:
                self.fail(Event.JOURNAL_FULL, str(error))
                write.keep(write)

    def _collect(self, each: InOrder) -> bool:
        """Has the journal collect it; False: it must wait. Raises JournalFull."""
        if not self.due:
            self.begin_turn()
        if isinstance(each, Write):
            assert each.kind is not None
            if not self.activity.takes(each):
                return False
            append = self.journal.append_now
            if not append(each.number, each.kind, each.offset, each.extent, each.data, self.time):
                return False
        self.collected.append(each)
        return True

    def all_issued(self) -> asyncio.Future[None]:
        """Done when all that was taken before the call has been handed to the volumes, or waits for others to do it."""
        passed: asyncio.Future[None] = self._loop.create_future()
        mark = Mark(passed)
        if self._waiting:
            self._waiting.append(mark)
        elif self.collected:
            self.collected.append(mark)
        else:
            mark.pass_by()
        return passed

    def flush(self, write: Write) -> None:
        """Ends `write`, a flush, when all that was answered before the call is durable."""
        self.durable.wait(write)

    # -- committed, written, answered --------------------------------------------------------------------------------

    def _commit_due(self) -> None:
        self.due = False
        if self._committer is None:
            self.commit()

    def commit(self) -> None:
        """Commits what is collected, and hands it to the volumes; a task goes on where the journal must wait."""
        if self.journal.commit_now():
            self._issue()
        if (self.collected or self._waiting) and self._committer is None:
            self._committer = self._loop.create_task(self._commit_later())

    async def _commit_later(self) -> None:
        try:
            while self.collected or self._waiting:
                await self.journal.commit()
                self._issue()
                waiting = [each for each in self._waiting if isinstance(each, Write)]
                await self.activity.admit(waiting, self.journal.sync)
                while self._waiting and self._collect(self._waiting[0]):
                    self._waiting.popleft()
        except VolumeError as error:
            self._journal_failed(error)
        except JournalFull as error:
            self.fail(Event.JOURNAL_FULL, str(error))
        finally:
            self._committer = None
            self.takes = not (self.stopped or self._waiting)

    def _issue(self) -> None:
        """Hands what is committed to the volumes, in order: those that write on the spot have it then."""
        collected, self.collected = self.collected, []
        self._issued = stored = self.journal.regions.stored
        self.activity.note(stored.sequence)
        if self._awaited is not None:
            self.wake()
        together: dict[Together, None] = {}
        for each in collected:
            if type(each) is tuple:
                spot, offset, data = each
                together[spot] = None
                if spot.write_now(offset, data):
                    self.spot_bytes -= len(data)
                else:
                    self._issue_write(self._apart(each))
            elif isinstance(each, Write):
                self._issue_write(each)
            else:
                each.pass_by()  # type: ignore[union-attr]
        for spot in together:
            if spot.durable:
                self.flush(spot.rest())
            spot.issued = True
            spot.done()
        self._look_at_room()

    def next_commit(self) -> asyncio.Future[None]:
        """Done when more is stored, or at `wake`; shared by all who ask before, so that nobody may cancel it."""
        if self._awaited is None:
            self._awaited = self._loop.create_future()
        return self._awaited

    def wake(self) -> None:
        """Whoever waits for the next commit looks again."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.set_result(None)

    def _apart(self, spot: Spot) -> Write:
        """A write that was taken on the spot and must wait after all."""
        together, offset, data = spot
        write = together.one(offset, data)
        write.outcome.add_done_callback(partial(self._give_room, len(data)))
        return write

    def _give_room(self, length: int, _outcome: asyncio.Future[None]) -> None:
        self.spot_bytes -= length

    def _issue_write(self, write: Write) -> None:
        try:
            pending = write.begin(write.volume)
        except VolumeError as error:
            self._refused(write, error)
            return
        if pending is None:
            self._written(write)
            return
        job = asyncio.ensure_future(pending)
        self._under_way.add(job)
        job.add_done_callback(partial(self._ended, write))

    def _ended(self, write: Write, job: asyncio.Future[None]) -> None:
        self._under_way.discard(job)
        error = job.exception()
        if error is None:
            self._written(write)
        else:
            self._refused(write, error)

    def _written(self, write: Write) -> None:
        if write.durable:
            self.flush(write)
        else:
            write.done()

    def _refused(self, write: Write, error: BaseException) -> None:
        """The other side will have what the P-VOL has not: their pair must not go on as if they were alike."""
        self.differing.append(Range(write.number, write.offset, write.extent))
        self.fail(Event.ERROR, f"volume {write.number} has refused what was journaled: {error}")
        write.done(error)

    # -- checkpoints, and room in the journal ------------------------------------------------------------------------

    def _look_at_room(self) -> None:
        regions = self.journal.regions
        stored, redo = regions.stored, regions.redo
        if not self.nearly_full and regions.nearly_full:
            self.nearly_full = True
            self._tell(Event.JOURNAL_NEARLY_FULL, f"{regions.used_share:.0%} of the journal is in use")
        if stored.byte - redo.byte < CHECKPOINT_BYTES and stored.sequence - redo.sequence < CHECKPOINT_RECORDS:
            return
        if self._checkpointer is None and not self.stopped:
            self._checkpointer = self._loop.create_task(self._checkpoint_alone())

    async def _checkpoint_alone(self) -> None:
        try:
            await self.checkpoint()
        except VolumeError as error:
            log.error("checkpoint failed", reason=str(error))
        finally:
            self._checkpointer = None

    async def checkpoint(self) -> Position:
        """Moves redo behind all that the volumes had been handed when it began, durably; where redo is then.

        It stays where it is if a volume has refused something. Raises VolumeError: the group has stopped."""
        async with self._checkpointing:
            end = self._issued
            volumes = dict(self.volumes)
            if self._under_way:
                await asyncio.wait(set(self._under_way))
            if self.journal.failure is not None:
                raise self.journal.failure
            try:
                await flush_all(volumes)
            except VolumeError as error:
                self.fail(Event.ERROR, str(error))
                raise
            self.durable.synced(volumes)
            if not self.differing:
                try:
                    await self.journal.sync()
                    self.journal.redone(end)
                    await self.journal.save()
                except VolumeError as error:
                    self._journal_failed(error)
                    raise
            return self.journal.regions.redo

    async def purge(self, end: Position) -> None:
        """Releases the records before `end`, which the other side has restored, durably.

        Raises JournalError if no write begins there, VolumeError."""
        oldest = self.journal.regions.oldest
        if not (end.follows(oldest) and self._issued.follows(end)):
            raise JournalError(f"{end} is not in the journal, which has {oldest} to {self._issued}")
        if not self.journal.regions.redo.follows(end) and not (await self.checkpoint()).follows(end):
            raise JournalError(f"{end} is behind redo: a volume has refused what was journaled")
        try:
            await self.journal.purge(end)
        except VolumeError as error:
            self._journal_failed(error)
            raise
        if self.nearly_full and self.journal.regions.used_share <= HAS_ROOM_SHARE:
            self.nearly_full = False
            self._tell(Event.JOURNAL_HAS_ROOM, f"{self.journal.regions.used_share:.0%} of the journal is in use")

    # -- stopped -----------------------------------------------------------------------------------------------------

    async def stop(self) -> list[Range]:
        """Journals no write any more, and gets what was journaled into the volumes, durably; see the module.

        Raises VolumeError if a volume cannot be made durable; then it is to be called again."""
        await self._drain()
        if self.journal.failure is None:
            try:
                await self.checkpoint()
                return self.differing
            except VolumeError:
                if self.journal.failure is None:
                    raise
        await flush_all(self.volumes)
        return self.differing

    async def close(self) -> None:
        """Stops, and waits for what is still at work; the journal and the volumes are closed by who has opened them."""
        await self._drain()
        while tasks := [each for each in (self.durable.task, self._checkpointer) if each is not None]:
            await asyncio.wait(tasks)

    async def _drain(self) -> None:
        """Takes nothing more, and waits until what was journaled is in the volumes, or kept."""
        self._keep_waiting()
        while self.collected or self._committer is not None:
            if self._committer is None:
                self.commit()
            if self._committer is not None:
                await asyncio.wait((self._committer,))
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    def fail(self, event: Event, reason: str) -> None:
        """No write is journaled any more: those that wait are kept, and whoever owns the pairs is told, once."""
        if not self.stopped:
            log.error("group stopped", group=self.journal.group.hex(), why=str(event), reason=reason)
            self._keep_waiting()
            self._tell(event, reason)

    def _keep_waiting(self) -> None:
        self.stopped = True
        self.takes = False
        waiting, self._waiting = self._waiting, deque()
        self._keep(waiting)

    def _journal_failed(self, error: VolumeError) -> None:
        """What was collected may be in the journal or not: it is carried out by what follows."""
        collected, self.collected = self.collected, []
        self._keep(collected)
        for spot in {each[0]: None for each in collected if isinstance(each, tuple)}:
            spot.issued = True
            spot.done()
        self.fail(Event.ERROR, f"the journal failed: {error}")

    def _keep(self, those: list[Spot | InOrder] | deque[InOrder]) -> None:
        for each in those:
            if isinstance(each, tuple):
                write = self._apart(each)
                write.keep(write)
            elif isinstance(each, Write):
                each.keep(each)
            else:
                each.pass_by()

    def _tell(self, event: Event, reason: str) -> None:
        self._loop.call_soon(self._told, event, reason)
