"""The stage of synchronous P-VOLs that run (COPY, PAIR): hosts' writes go to both arrays (`mirror.py`, figure 24).

The other side pulls the copy, as of any pair; FENCE has hosts wait while the sides change places. When the pairs are
suspended, what could not be mirrored is marked, and the P-VOLs are durable before: so what a power loss takes from them
later was never answered.

After a death of this side, by a kill or without power, P-VOLs and S-VOLs may differ where it was being written, which
is what the activity log has as hot. In PAIR the S-VOLs have all that hosts were answered, so the P-VOLs get what they
have there (`reconciling.py`), before hosts see them; in COPY it is copied again. If the other side cannot be asked, the
pairs are suspended, and it is marked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from arrayd.link.channel import Call, LinkError
from arrayd.link.frames import FrameError
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.activity import HOT_BYTES, Activity
from arrayd.replication.asking import COMPARING, Asked, Outcome, Question, Refused, refused
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.copy_told import TELL_SECONDS, Heard
from arrayd.replication.copying_out import CopyingOut
from arrayd.replication.fencing import FENCE, FENCED, NOT_ALL_THERE, Fencing, changed_places
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import FormatError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.redo import flush_all
from arrayd.replication.stages import Doors, Progress, Stage, Told
from arrayd.replication.statuses import P_RUNNING, Event, Refusal, State
from arrayd.replication.suspending import Bitmaps, Differing
from arrayd.replication.synchronous import formats
from arrayd.replication.synchronous.mirror import BEGUN_BYTES, Mirror
from arrayd.replication.synchronous.mirrored import MirroredVolume
from arrayd.replication.synchronous.receiving import runs
from arrayd.replication.synchronous.reconciling import reconcile
from arrayd.replication.synchronous.waiting import WaitingVolume
from arrayd.replication.verifying.answering import Answers, MirroredBeside
from arrayd.replication.writes import Range
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed

RECONCILE_SECONDS = 10.0
"""How long hosts wait after a restart until the other side says what it has."""
COOL_SECONDS = 5.0
"""Between two syncs of P-VOLs that were written to: what is hot has been written to since then."""

log = get_logger("replication")

FAILURES = (FrameError, VolumeError, BitmapError, FormatError)


class Mirroring(Stage):
    """See the module; `prepare` makes what the rest needs."""

    _activity: Activity
    _answers: Answers
    _bitmaps: Bitmaps
    _copying: CopyingOut
    _fencing: Fencing
    _fronts: Mapping[int, MirroredVolume]
    """What hosts see of the volumes, by the pair's number."""
    _mirror: Mirror
    _volumes: Mapping[int, Volume]

    def __init__(self, row: GroupRow, doors: Doors, told: Told) -> None:
        super().__init__(row, doors, told)
        self._pulling = Pulling(doors, row.peer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[WaitingVolume] = []
        self._unsure: list[Range] = []
        """Where the other side may have something else, since this one has died."""
        self._prepared = False
        self._synced = False
        """Whether what hosts wrote before they saw this stage, which is in no activity log, is durable."""
        self._stopping = False
        self._ended = False
        self._answering = 0
        self._idle: asyncio.Event | None = None
        """Set when nobody is being answered any more."""
        self._contact: float | None = None
        self._heard = Heard()

    # -- begins ------------------------------------------------------------------------------------------------------

    async def prepare(self, found: bool = False) -> None:
        """See Stage."""
        row, doors = self.row, self.doors
        self._volumes = volumes = {pair.number: doors.volume(pair.volume) for pair in row.pairs}
        sizes = {number: volume.size for number, volume in volumes.items()}
        if not found:
            # What cannot be made durable leads nobody; and there is less left to be synced once hosts see it.
            await flush_all(volumes)
        names = {number: self.store_name("activity", number) for number in volumes}
        self._activity = await Activity.open(
            doors.stores, names, sizes, row.id, doors.boot, anew=not found, found=found
        )
        try:
            self._bitmaps = Bitmaps(
                doors.stores, sizes, {number: self.bitmap_name(number) for number in volumes}, row.id, doors.boot
            )
            self._mirror = Mirror(row, self._pulling, volumes, self._activity, doors.clock(), self._happened)
            self._fronts = {number: MirroredVolume(volume, self._mirror, number) for number, volume in volumes.items()}
            self._copying = CopyingOut(self, self._fronts, self._bitmaps)
            self._answers = Answers(
                lambda: self.row, self, self._fronts, MirroredBeside(lambda: self.row, self._pulling)
            )
            fronts = [self._fronts[number] for number in sorted(self._fronts)]
            self._fencing = Fencing(fronts, doors.stores, self.store_name(FENCE), lambda _stands: None)
            if found:
                await self._look_at_what_is_hot(sizes)
                await self._fencing.stand_again()
        except BaseException:
            await self._bitmaps.close()
            await self._activity.close()
            raise
        self._prepared = True

    async def _look_at_what_is_hot(self, sizes: Mapping[int, int]) -> None:
        """It is marked, until it is known to be the same on both sides."""
        for number, each in self._activity.logs.items():
            for block in sorted(each.hot):
                offset = block * HOT_BYTES
                self._unsure.append(Range(number, offset, min(HOT_BYTES, sizes[number] - offset)))
        if self._unsure:
            await self._mark(self._unsure)

    async def _mark(self, ranges: list[Range], whole: list[int] | None = None) -> None:
        """Raises VolumeError."""
        differing = Differing(self._volumes)
        for each in ranges:
            if each.length:
                differing.add(each.number, each.offset, each.length)
        differing.add_whole(whole or ())
        try:
            await self._bitmaps.opened_or_made()
            await self._bitmaps.mark(differing)
        except BitmapError as error:
            raise VolumeFailed(str(error)) from error

    async def enter(self) -> None:
        """See Stage."""
        if self._unsure:
            self._waiting = [WaitingVolume(self._volumes[pair.number]) for pair in self.row.pairs]
            for pair, waiting in zip(self.row.pairs, self._waiting, strict=True):
                await self.doors.show(pair.volume, waiting)
            self._begin(self._reconcile())
        else:
            await self._show()
            self._begin(self._begin_life())
        self._begin(self._cool())
        self._begin(self._watch_copy())

    async def _show(self) -> None:
        for pair in self.row.pairs:
            await self.doors.show(pair.volume, self._fronts[pair.number])

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._until_stopped(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Stopped:
            pass
        except (LinkError, Refused, FormatError) as error:
            self._mirror.fail_as(error, "the other side does not say what it has")
        except (VolumeError, BitmapError) as error:
            self._mirror.fail(Event.ERROR, str(error))

    async def _begin_life(self) -> None:
        await self._sync()
        await self._mirror.begin_life()

    async def _sync(self) -> None:
        """Once the other side has copied what was there, a power loss must not take it away here."""
        await flush_all(self._volumes)
        self._synced = True

    async def _reconcile(self) -> None:
        copies = await self._mirror.begin_life(self.doors.now() + RECONCILE_SECONDS)
        if not copies:
            await reconcile(self.row, self._pulling, self._volumes, self._unsure)
            for number in self._volumes:
                await self._bitmaps.remove(number)
        # What it was that is hot: a kill leaves it in memory alone.
        await self._sync()
        await self._activity.settle()
        self._unsure = []
        await self._show()

    async def _cool(self) -> None:
        while True:
            await self._pulling.sleep(COOL_SECONDS)
            if not self._unsure:
                await self._activity.cool(self._mirror.sync)

    async def _watch_copy(self) -> None:
        """In COPY the other side is asked how it goes; it may be another life of it, which does not know this one."""
        row = self.row
        question = formats.begin(row.id, row.generation, self._mirror.life)
        while State.P_COPY in self.row.states.values():
            await self._pulling.sleep(TELL_SECONDS)
            with suppress(LinkError, Refused):
                _, copying = formats.decode_begun(await self._pulling.ask(question, BEGUN_BYTES, RECONCILE_SECONDS))
                self._heard.hear(copying, self.doors.now())

    def _happened(self, event: Event, reason: str) -> None:
        if not self._stopping:
            self.told.event(event, reason)

    def changed(self, row: GroupRow) -> None:
        """See Stage."""
        super().changed(row)
        self._mirror.row = row

    # -- copied from -------------------------------------------------------------------------------------------------

    def position(self) -> Position | None:
        """See `copying_out.Source`: there are no positions; what is read under a lock is whole."""
        return None if self._mirror.stopped else START

    def needs_flush(self, _number: int) -> bool:
        """See `copying_out.Source`: COPY is not answered before that."""
        return False

    # -- asked -------------------------------------------------------------------------------------------------------

    async def answer(self, question: Question, call: Call) -> None:
        """See Stage."""
        self._contact = self.doors.clock() / 1e9
        self._answering += 1
        try:
            await self._answer(question, call)
        except FAILURES as error:
            call.answer(refused(Outcome.FAILED, str(error)))
        finally:
            self._answering -= 1
            if self._idle is not None and not self._answering:
                self._idle.set()

    async def _answer(self, question: Question, call: Call) -> None:
        asked, _, fields = question
        if asked in COMPARING and self._prepared and not (self._ends() or self._unsure):
            await self._answers.answer(question, call)
        elif not self._prepared or self._ends() or asked not in ANSWERED or fields.generation != self.row.generation:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} is of generation {self.row.generation}"))
        elif asked is Asked.COPY and not self._synced:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name}: what was there before is not synced yet"))
        elif self._mirror.copies is None:
            # A bitmap that it has joined, of a life before this one, does not have what is marked since.
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} has not begun"))
        elif asked is Asked.COPY:
            await self._copying.copy(fields, call)
        elif asked is Asked.BITMAP:
            await self._copying.bitmap(fields, call)
        elif asked is Asked.JOINED:
            await self._copying.joined(fields, call)
        elif not self._unsure and await self._fencing.stand() and not self._ends():
            call.answer(asking.fenced(START), keep=False)
        else:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} is being suspended"))

    def _ends(self) -> bool:
        return self._stopping or self._mirror.stopped

    def progress(self) -> Progress:
        """See Stage."""
        if not self._prepared:
            return Progress()
        paired = State.P_PAIR in self.row.states.values() and not self._mirror.stopped
        told = Progress(
            lag_s=0.0 if paired else None, contact=self._contact, differing=self._bitmaps.marked_bytes() or None
        )
        if State.P_COPY in self.row.states.values():
            return self._heard.progress(told, self.doors.now())
        return told

    # -- ends --------------------------------------------------------------------------------------------------------

    @property
    def fenced(self) -> bool:
        """See Stage."""
        return self._prepared and self._fencing.stands

    def _refusal(self, row: GroupRow | None) -> Refusal | None:
        """Why `row` may not be what is shown next, or not yet."""
        if row is not None and changed_places(row):
            return NOT_ALL_THERE if self._mirror.differing or self._unsure else None
        if self._fencing.stands and (row is None or not _goes_on(row)):
            return FENCED
        return None

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See Stage. What differs is marked unless the group goes on, ends, or has changed places."""
        if refusal := self._refusal(row):
            return refusal
        self._stopping, self.after = True, row
        self._bitmaps.withhold(True)
        await self._mirror.stop()
        self._pulling.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)
        lost = await self._flushed()
        differing = [*self._mirror.differing, *self._unsure]
        if row is not None and changed_places(row):
            # The other side has the P-VOLs now: what it has not was never answered here.
            if lost or differing:
                raise VolumeFailed(NOT_ALL_THERE.text)
        elif row is not None and not _goes_on(row):
            await self._mark(differing, lost)
        await self._bitmaps.close()
        if not lost and not differing:
            # What differs stays hot until the row is committed that says so (`_forget`): a death before takes it up.
            await self._activity.settle()
        await self._activity.close()
        self._ended = True
        await self._fencing.release()
        return None

    async def _flushed(self) -> list[int]:
        """The numbers of those that cannot be made durable: all of them may differ."""
        lost = []
        for number, volume in self._volumes.items():
            try:
                await flush_all({number: volume})
            except VolumeError as error:
                log.error("a P-VOL is not durable", group=self.row.name, volume=number, reason=str(error))
                lost.append(number)
        return lost

    async def close(self) -> None:
        """See Stage. Stores that are not needed any more are removed."""
        if not self._prepared:
            return
        self._stopping = True
        self._pulling.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._mirror.close()
        await self._fencing.release()
        # Before the answers are waited for: one may wait for a lock, whose holder waits for a write that is kept.
        error = VolumeFailed("the volume is not served any more")
        for front in self._fronts.values():
            front.give_up(error)
        for waiting in self._waiting:
            waiting.give_up(error)
        self._idle = asyncio.Event()
        if self._answering:
            await self._idle.wait()
        await self._activity.close()
        await self._bitmaps.close()
        await self._fencing.close()
        if self._ended:
            await self._forget()

    async def _forget(self) -> None:
        row = self.after
        goes_on = row is not None and _goes_on(row)
        if not goes_on:
            await self._fencing.forget()
        left = set() if row is None else set(row.states)
        for number in self._fronts:
            try:
                if number not in left:
                    await self._bitmaps.remove(number)
                if row is None or number not in left or not runs(row):
                    await self.doors.stores.remove(self.store_name("activity", number))
            except VolumeError as error:
                log.error("store not removed", group=self.row.name, reason=str(error))


ANSWERED = frozenset((Asked.COPY, Asked.BITMAP, Asked.JOINED, Asked.FENCE))


def _goes_on(row: GroupRow) -> bool:
    """Whether the group goes on as it is: the array stops, or pairs come or leave."""
    return all(state in P_RUNNING for state in row.states.values())
