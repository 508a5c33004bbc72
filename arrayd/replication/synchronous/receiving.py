"""The stage of synchronous S-VOLs that run (COPY, PAIR): what hosts write to the P-VOLs is made here, too (figure 24).

MIRROR carries writes, which never overlap while they are under way: so they are carried out in any order, and answered
when they are done. In COPY what bitmaps have is pulled as for any pair (`copying.py`); writes that come meanwhile
overtake what is read (`overtaking.py`), and before-images are kept of what either of them writes over.

The other side says BEGIN before hosts see its P-VOLs: what a life of it before may have marked, or not have, is known
from then on. What a power loss may take from the S-VOLs is hot in an activity log of this side: after one the pairs are
suspended, and exactly that is copied again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from arrayd.link.channel import Call
from arrayd.link.frames import FrameError
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.activity import Activity
from arrayd.replication.asking import Asked, Outcome, Question, refused
from arrayd.replication.before_images import OPENED, go_back
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.bitmap import FormatError as BitmapFormatError
from arrayd.replication.changing_places import NOT_IN_TIME, ChangingPlaces
from arrayd.replication.copy_stores import CopyStores
from arrayd.replication.copy_told import Telling
from arrayd.replication.copying import Copying
from arrayd.replication.copying_out import RangesOut
from arrayd.replication.differences import Differences, differences
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.guarded import GuardedVolume, UnreadableVolume
from arrayd.replication.journal import FormatError
from arrayd.replication.meetings import RUNNING_STATES
from arrayd.replication.pair_stores import clear_stores, forget_stores
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.redo import flush_all
from arrayd.replication.stages import Doors, Progress, Stage, Told
from arrayd.replication.statuses import S_SUSPENDED, Event, Refusal, Side, Status
from arrayd.replication.synchronous import formats
from arrayd.replication.synchronous.formats import Mirrored
from arrayd.replication.synchronous.losses import mark_lost, not_durable
from arrayd.replication.synchronous.overtaking import Overtaking
from arrayd.replication.synchronous.received import Read, Received, Still
from arrayd.replication.verifying.answering import still_sums
from arrayd.replication.verifying.comparing import UnderLocks
from arrayd.replication.verifying.verifier import Verifier
from arrayd.replication.writes import Range
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed

COOL_SECONDS = 5.0
"""Between two syncs of S-VOLs that were written to: a power loss takes no more than was written since."""
FENCE_ANSWER_SECONDS = 6.0
"""How long the other side may take to have its hosts wait."""

log = get_logger("replication")

STAND = frozenset(S_SUSPENDED) - OPENED
FAILURES = (FrameError, VolumeError, BitmapError, FormatError, BitmapFormatError)


class Receiving(Stage):
    """See the module. `stop` leaves it of no use, unless it refuses."""

    _activity: Activity
    _writes: Received
    _ranges: RangesOut

    def __init__(self, row: GroupRow, doors: Doors, told: Told) -> None:
        super().__init__(row, doors, told)
        self.copying: Copying | None = None
        """In COPY."""
        self.went_back = False
        """Whether it has stopped by before-images: the S-VOLs are what they were when the copy began."""
        self._volumes: dict[int, Volume] = {}
        self._stores = CopyStores(self)
        self._overtaking = Overtaking()
        self._pulling = Pulling(doors, row.peer)
        self._places = ChangingPlaces(self._pulling)
        self._tasks: set[asyncio.Task[None]] = set()
        self._life: int | None = None
        """Of the other side's stage."""
        self._prepared = False
        self._stopping = False
        self._has_failed = False
        self._copy_ended = False
        self._answering = 0
        self._idle: asyncio.Event | None = None
        """Set when nobody is being answered any more."""
        self._contact: float | None = None
        self._telling = Telling(lambda: self.copying, doors.now)

    # -- prepared ----------------------------------------------------------------------------------------------------

    async def prepare(self, found: bool = False) -> None:
        """See Stage."""
        row = self.row
        self._volumes = {pair.number: self.doors.volume(pair.volume) for pair in row.pairs}
        self._activity = await self._logs(anew=not found, found=found)
        try:
            await self._prepare(found)
        except BaseException:
            await self._stores.close(self.copying)
            await self._activity.close()
            raise
        self._ranges = RangesOut(Still(), {number: Read(volume) for number, volume in self._volumes.items()})
        self._writes = Received(self._volumes, self._activity, self._overtaking, self._stores.images)
        pulling = Pulling(self.doors, self.row.peer)
        self.verifier = Verifier(self, self._volumes, UnderLocks(lambda: self.row, pulling), pulling)
        self._prepared = True

    async def _logs(self, *, anew: bool, found: bool = False) -> Activity:
        names = {number: self.store_name("activity", number) for number in self._volumes}
        sizes = {number: volume.size for number, volume in self._volumes.items()}
        return await Activity.open(
            self.doors.stores, names, sizes, self.row.id, self.doors.boot, anew=anew, found=found
        )

    async def _prepare(self, found: bool) -> None:
        if found:
            # A change may have failed since one could not be synced; the next start would not know of it.
            self._activity.lost += await not_durable(self.row.name, self._volumes)
        if self._copies_now:
            if self.row.consistent:
                await self._stores.open_images(self._volumes)
            pairs = await self._stores.open_bitmaps(self._volumes)
            for pair in pairs:
                for lost in self._activity.lost:
                    if lost.number == pair.number:
                        await pair.bitmap.mark(lost.offset, lost.length)
                await pair.bitmap.save()
            self.copying = Copying(self.row, self._pulling, pairs, self._overtaking, self._moved)
            if self._activity.lost:
                # It is marked: a log of this boot, so that it is not taken for lost once more.
                await flush_all(self._volumes)
                await self._activity.close()
                self._activity = await self._logs(anew=True)
            return
        await clear_stores(self, {number: volume.size for number, volume in self._volumes.items()}, found)
        await mark_lost(self, self._volumes, self._activity.lost)

    @property
    def _copies_now(self) -> bool:
        return any(pair.state.status is Status.COPY for pair in self.row.pairs)

    # -- entered, and changed ----------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """See Stage."""
        await self._show()
        self._start()
        if not self._copies_now and (lost := self._activity.lost_bytes):
            reason = "power was lost, or what was written could not be synced"
            self._failed(VolumeFailed(f"{reason}: {lost} bytes may be older here, pairresync copies them"))

    async def _show(self) -> None:
        for pair in self.row.pairs:
            kind = UnreadableVolume if pair.state.status is Status.COPY else GuardedVolume
            await self.doors.show(pair.volume, kind(self._volumes[pair.number]))

    def _start(self) -> None:
        if self._has_failed or self._tasks:
            return
        self._begin(self._cool())
        if self.copying is not None and not self.copying.copied:
            self._begin(self.copying.run())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._until_stopped(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Stopped:
            pass
        except FAILURES as error:
            await self._note(error)
            self._failed(error)

    async def _note(self, error: Exception) -> None:
        """A sync may have failed: what it was to make durable may be gone after the next start, which would not know of
        it, if this array dies before the pairs are suspended."""
        if isinstance(error, VolumeError) and not self._has_failed:
            try:
                await self._activity.disown()
            except VolumeError as again:
                log.error("it is not kept that an S-VOL has failed", group=self.row.name, reason=str(again))

    async def _cool(self) -> None:
        while True:
            await self._pulling.sleep(COOL_SECONDS)
            await self._activity.cool(self._writes.sync)

    def _failed(self, error: Exception) -> None:
        """The pairs suspend: nothing is taken here until whoever has the groups stops this stage."""
        self._pulling.stop()
        if not self._has_failed:
            self._has_failed = True
            log.error("group stopped", group=self.row.name, why=str(Event.ERROR), reason=str(error))
            self.told.event(Event.ERROR, str(error))

    def changed(self, row: GroupRow) -> None:
        """See Stage. The pairs are the same ones."""
        assert set(row.states) == set(self.row.states), "another stage is prepared for other pairs"
        self.row = row
        copying = self.copying
        if copying is not None:
            copying.changed(row)
            if not self._copies_now:
                self.copying = None
                self._begin(self._settle(copying))

    async def _settle(self, copying: Copying) -> None:
        """The copy has ended, and the row says so: hosts may read, and before-images are not needed any more. What is
        not removed is so at the next start."""
        await self._show()
        self._stores.images.clear()
        await self._writes.carried_out()  # those that came before still keep what they write over
        self._stores.stay = True
        try:
            await self._stores.close(copying)
            await self._stores.remove_images()
        except VolumeError as error:
            log.warning("before-images stay", group=self.row.name, reason=str(error))

    def _moved(self) -> None:
        """Something was copied."""
        if self.copying is not None and self.copying.copied and not self._copy_ended:
            self._copy_ended = True
            self.told.event(Event.COPY_END, "")

    # -- asked -------------------------------------------------------------------------------------------------------

    async def answer(self, question: Question, call: Call) -> None:
        """See Stage."""
        self._contact = self.doors.clock() / 1e9
        self._answering += 1
        try:
            await self._answer(question, call)
        except FAILURES as error:
            if isinstance(error, VolumeError):
                await self._note(error)
                self._failed(error)
            call.answer(refused(Outcome.FAILED, str(error)))
        finally:
            self._answering -= 1
            if self._idle is not None and not self._answering:
                self._idle.set()

    async def _answer(self, question: Question, call: Call) -> None:
        if not self._prepared or self._stopping or self._has_failed:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} stands still here"))
        elif question.asked is Asked.BEGIN:
            await self._begin_life(*formats.decode_begin(question.fields), call)
        elif question.asked is Asked.MIRROR:
            await self._mirror(formats.decode_mirror(question.fields), call)
        elif question.asked is Asked.SUMS:
            await still_sums(self.row, question.fields, self._writes.check, self._volumes, call)
        elif question.asked is Asked.COPY:
            await self._ranges.copy(question.fields, call)
        else:
            await super().answer(question, call)

    async def _begin_life(self, generation: int, life: int, call: Call) -> None:
        """What was asked before is not carried out later: its asker may have given up waiting, and takes what is here
        then for all there is."""
        if generation != self.row.generation:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} is of generation {self.row.generation}"))
            return
        new, self._life = life != self._life, life
        await self._writes.carried_out()
        copies = self.copying is not None and not self._copy_ended
        if copies and new:
            assert self.copying is not None
            copies = self.copying.join_again()
        if self._stopping or self._has_failed:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} stands still here"))
        else:
            call.answer(formats.begun(copies, self._telling()))

    # -- hosts' writes -----------------------------------------------------------------------------------------------

    async def _mirror(self, told: Mirrored, call: Call) -> None:
        if told.generation != self.row.generation or told.life != self._life:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} does not know of this life"))
            return
        await self._writes.carry_out(told.writes)
        call.answer(asking.done(), keep=False)

    # -- ended -------------------------------------------------------------------------------------------------------

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See Stage. A swap has the other side's hosts wait, whose writes are answered first."""
        swaps = row is not None and row.side is Side.P_VOL
        if swaps and await self._places.fence(self.row, FENCE_ANSWER_SECONDS) is None:
            return NOT_IN_TIME
        self._stopping = True
        await self._halt()
        try:
            await self._come_to_end(row)
        except BitmapError as error:
            raise VolumeFailed(str(error)) from error
        return None

    async def _halt(self) -> None:
        """Nothing runs any more, and nobody is being answered."""
        if self.verifier is not None:
            await self.verifier.end()
        self._pulling.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._idle = asyncio.Event()
        if self._answering:
            await self._idle.wait()

    def too_late(self) -> Refusal | None:
        """See Stage: the other side's hosts wait for a while only."""
        return self._places.too_late(self.after)

    async def _come_to_end(self, row: GroupRow | None) -> None:
        if self._stores.stay:
            await self._stores.remove_images()
        if self.copying is not None:
            await self.copying.save()
        lost = await self._flushed(row)
        if not lost and not self._activity.lost:
            await self._activity.settle()  # what is lost is told again, if this change comes to nothing
        await self._activity.close()
        await self._stores.close(self.copying)
        await mark_lost(self, self._volumes, lost)
        states = set() if row is None else set(row.states.values())
        if self._stores.images and (states & OPENED or any(state.side is Side.P_VOL for state in states)):
            await go_back(self)
            self.went_back = True
        self.after = row

    async def _flushed(self, row: GroupRow | None) -> list[Range]:
        """The S-VOLs that cannot be made durable, all of each, where they are to stand: they may get older than hosts
        were answered. Raises VolumeError, where they go on, or hosts are to write to them."""
        lost = await not_durable(self.row.name, self._volumes)
        if lost and (row is None or not STAND.issuperset(row.states.values())):
            raise VolumeFailed("what was written to the S-VOLs cannot be synced")
        return lost

    async def close(self) -> None:
        """See Stage: what the next one does not need is removed."""
        self._stopping = True
        await self._halt()
        if not self._prepared:
            return
        await self._activity.close()
        await self._stores.close(self.copying)
        row, stores = self.after, self.doors.stores
        for number in self._volumes:
            if row is None or number not in row.states:
                await forget_stores(self, number)
            elif self.went_back or not row.consistent:
                await stores.remove(self.images_name(number))
            if row is None or number not in row.states or not runs(row):
                await stores.remove(self.store_name("activity", number))

    # -- shown -------------------------------------------------------------------------------------------------------

    async def differences(self, number: int, offset: int, limit: int) -> Differences | None:
        """See Stage: what is still to be copied."""
        pairs = () if self.copying is None else self.copying.pairs
        bitmap = next((pair.bitmap for pair in pairs if pair.number == number), None)
        return None if bitmap is None else differences(bitmap, offset, limit)

    def progress(self) -> Progress:
        """See Stage."""
        copying = self.copying
        return Progress(
            contact=self._contact,
            differing=copying.left if copying else None,
            copying=copying.job if copying else None,
            verifying=self.verifier.told() if self.verifier else None,
        )


def runs(row: GroupRow) -> bool:
    """Whether the next stage has activity logs, too: then those that are there are its own."""
    return RUNNING_STATES.issuperset(row.states.values())
