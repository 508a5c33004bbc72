"""The stage of P-VOLs that run (COPY, PAIR, PFUL): hosts' writes are journaled, and the journal is served (figure 10).

It is put together here of its parts: `group.py` and `journaled.py` are the way of a write, `serving.py` and
`copying_out.py` answer the other side, `fencing.py` holds writes while the sides change places, `suspending.py` marks
what differs when the stage ends by a suspension.

After such an end the journal is served on, for as long as `tail` says: so a split leaves the S-VOLs with all of the
group's writes up to it. It is ended then, and FOLLOW says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from arrayd.link.channel import Call
from arrayd.link.frames import FrameError
from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.activity import Activity
from arrayd.replication.asking import COMPARING, Asked, Outcome, Question, refused
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.copy_told import Heard
from arrayd.replication.copying_out import CopyingOut, Journaled
from arrayd.replication.fencing import FENCE, FENCED, NOT_ALL_THERE, Fencing, changed_places
from arrayd.replication.group import HAS_ROOM_SHARE, PrimaryGroup
from arrayd.replication.group_rows import Driver, GroupRow
from arrayd.replication.high_water import noted
from arrayd.replication.journal import FormatError, JournalDamaged, JournalError, Position, PrimaryJournal, Role
from arrayd.replication.journal.superblocks import has_journal
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.redo import RedoFailed, redo
from arrayd.replication.serving import JournalServer
from arrayd.replication.stages import Progress, Stage
from arrayd.replication.statuses import P_RUNNING, Event, Refusal, Side, State
from arrayd.replication.suspending import Bitmaps, stopped, suspend
from arrayd.replication.tending import Tending
from arrayd.replication.verifying.answering import Answers, JournaledBeside
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed

log = get_logger("replication")


class Journaling(Stage):
    """See the module; `prepare` makes what the rest needs."""

    _group: PrimaryGroup
    _server: JournalServer
    _copying: CopyingOut
    _answers: Answers
    _heard: Heard
    _bitmaps: Bitmaps
    _activity: Activity
    _fronts: Mapping[int, JournaledVolume]
    """What hosts see of the volumes, by the pair's number."""
    _tending: Tending
    _dropped = False
    """Whether the journal has lost records, so that what is left may be older than the P-VOLs."""
    _lost: Collection[int] = ()
    """The numbers of those that could not be synced at its end."""
    _prepared = False
    _stopping = False
    _ended = False
    """Whether it was suspended: the journal has its end from then on."""
    _contact: float | None = None
    _answering = 0
    _idle: asyncio.Event | None = None
    """Set when nobody is being answered any more."""
    _fencing: Fencing

    # -- begins ------------------------------------------------------------------------------------------------------

    async def prepare(self, found: bool = False) -> None:
        """See Stage: the journal is made, or opened and redone."""
        row = self.row
        volumes = {pair.number: self.doors.volume(pair.volume) for pair in row.pairs}
        place = self.doors.volume(row.journal_volume)
        # It is also there if this was tried before, and if pairs come to a group that runs, or some of them leave it.
        opened, self._dropped = await self._open_journal(place)
        if opened is None and found:
            raise JournalError(f"the journal of group {row.name}, epoch {row.epoch}, is not on its volume")
        if opened is not None and not self._dropped:
            await redo(opened, volumes)
        activity = await self._open_activity(volumes, anew=opened is None, found=found)
        try:
            journal = opened or await PrimaryJournal.create(place, row.id, row.epoch)
            await activity.measure(self.store_name("stored"), row.epoch, self.doors.boot)
            if self._dropped:
                activity.lose()
            self._make(journal, activity, volumes)
            if opened is not None:
                await self._fencing.stand_again()
        except BaseException:
            await activity.close()
            raise
        self._prepared = True

    def _make(self, journal: PrimaryJournal, activity: Activity, volumes: Mapping[int, Volume]) -> None:
        row, regions = self.row, journal.regions
        known = row.acknowledged
        acknowledged = known if known.follows(regions.oldest) and regions.stored.follows(known) else regions.oldest
        self._group = group = PrimaryGroup(journal, self.doors.clock, self._happened)
        group.activity = activity
        group.differing += activity.lost
        self._activity = activity
        self._fronts = {
            number: JournaledVolume(volume, group, number, write_cache=volume.write_cache)
            for number, volume in volumes.items()
        }
        self._bitmaps = Bitmaps(
            self.doors.stores,
            {number: volume.size for number, volume in volumes.items()},
            {number: self.bitmap_name(number) for number in volumes},
            row.id,
            self.doors.boot,
        )
        wanted = asyncio.Event()
        self._tending = Tending(row.name, self.doors.now, lambda: self.row.driver is Driver.ARRAYS, wanted)
        self._server = JournalServer(group, acknowledged, self.doors.clock, self.doors.now, wanted.set)
        self._heard = Heard()
        self._copying = CopyingOut(Journaled(group), self._fronts, self._bitmaps)
        self._answers = Answers(lambda: self.row, Journaled(group), self._fronts, JournaledBeside(journal))
        fronts = [self._fronts[number] for number in sorted(self._fronts)]
        self._fencing = Fencing(fronts, self.doors.stores, self.store_name(FENCE), self._server.end)

    async def _open_journal(self, place: Volume) -> tuple[PrimaryJournal | None, bool]:
        """The journal, if that of this epoch is there, and whether it has lost records since, with no loss of power:
        then the P-VOLs have all that was answered, and what is left of the journal may be older.

        Raises RedoFailed where the disk has failed, so that nobody knows what is in it, JournalError."""
        row, doors = self.row, self.doors
        try:
            if not await has_journal(place, Role.PRIMARY, row.id, row.epoch):
                return None, False
            before = await noted(doors.stores, self.store_name("stored"), row.epoch, doors.boot)
            journal = await PrimaryJournal.open(place)
            return journal, before > journal.regions.stored.sequence
        except VolumeError as error:
            raise RedoFailed(error, begun=False) from error

    async def _open_activity(self, volumes: Mapping[int, Volume], *, anew: bool, found: bool) -> Activity:
        return await Activity.open(
            self.doors.stores,
            {number: self.store_name("activity", number) for number in volumes},
            {number: volume.size for number, volume in volumes.items()},
            self.row.id,
            self.doors.boot,
            anew=anew,
            found=found,
        )

    async def enter(self) -> None:
        """See Stage."""
        if lost := self._activity.lost_bytes:
            # Before hosts see the volumes: their writes wait for the suspension.
            self._group.fail(Event.ERROR, f"records were lost: {lost} bytes may differ, pairresync copies them")
        for pair in self.row.pairs:
            await self.doors.show(pair.volume, self._fronts[pair.number])
        self._tend()
        self._tell_room()

    def _tend(self) -> None:
        self._tending.begin(self._group, self._server, self._copying)

    def changed(self, row: GroupRow) -> None:
        """See Stage."""
        super().changed(row)
        if self._tending.runs:
            self._tell_room()

    def _tell_room(self) -> None:
        """What the row shows of the room in the journal may be from before a restart, or of a copy."""
        group, states = self._group, set(self.row.states.values())
        if State.P_PFUL in states:
            group.nearly_full = True
        if State.P_PAIR in states and group.nearly_full:
            self._happened(Event.JOURNAL_NEARLY_FULL, "the journal is nearly full")
        elif State.P_PFUL in states and group.journal.regions.used_share <= HAS_ROOM_SHARE:
            group.nearly_full = False
            self._happened(Event.JOURNAL_HAS_ROOM, "the journal has room")

    def _happened(self, event: Event, reason: str) -> None:
        if not self._stopping:
            self.told.event(event, reason)

    async def purge(self) -> bool:
        """Purges all that the other side has said to have restored (figure 16); whether journal-out has moved.

        Raises JournalError, VolumeError."""
        if self._stopping:
            raise JournalError(f"group {self.row.name} is being suspended")
        before = self.journal.regions.oldest
        await self._server.purge(wholly=True)
        return self.journal.regions.oldest != before

    @property
    def journal(self) -> PrimaryJournal:
        """The primary journal, open."""
        return self._group.journal

    # -- asked -------------------------------------------------------------------------------------------------------

    async def answer(self, question: Question, call: Call) -> None:
        """See Stage."""
        self._contact = self.doors.clock() / 1e9
        self._answering += 1
        try:
            await self._answer(question, call)
        except (JournalError, BitmapError, FormatError, VolumeError, FrameError) as error:
            if isinstance(error, JournalDamaged):
                # It cannot be served, and would fill up: what the other side lacks is to be copied.
                self._group.fail(Event.ERROR, f"the journal is damaged: {error}")
            call.answer(refused(Outcome.FAILED, str(error)))
        finally:
            self._answering -= 1
            if self._idle is not None and not self._answering:
                self._idle.set()

    async def _answer(self, question: Question, call: Call) -> None:
        asked, _, fields = question
        if asked is Asked.FOLLOW and self._prepared:
            if fields.epoch == self.row.epoch:
                self._heard.hear(fields.copying, self.doors.now())
            await self._server.follow(fields, call)
            return
        runs = self._prepared and self._tending.runs and not self._stopping
        if runs and asked in COMPARING:
            await self._answers.answer(question, call)
        elif not runs or fields.generation != self.row.generation:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} is of generation {self.row.generation}"))
        elif asked is Asked.FENCE:
            await self._answer_fence(call)
        elif not await self._copying.answer(question, call):
            await super().answer(question, call)

    async def _answer_fence(self, call: Call) -> None:
        # One that ends is not fenced anew: hosts would wait as long as somebody asks. Nor is it told if it ends now.
        if not self._ends() and await self._fencing.stand() and not self._ends():
            call.answer(asking.fenced(self._group.journal.regions.stored), keep=False)
        else:
            call.answer(refused(Outcome.NOT_NOW, f"group {self.row.name} is being suspended"))

    def _ends(self) -> bool:
        return self._stopping or self._group.stopped

    def progress(self) -> Progress:
        """See Stage."""
        if not self._prepared:
            return Progress()
        told = replace(self._server.progress(), contact=self._contact)
        if State.P_COPY in self.row.states.values():
            return self._heard.progress(told, self.doors.now())
        return replace(told, differing=self._bitmaps.marked_bytes() or None)

    @property
    def acknowledged(self) -> Position:
        """The other side has said to have restored all before it, durably."""
        return self._server.acknowledged

    # -- ends --------------------------------------------------------------------------------------------------------

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See Stage. What differs is marked unless the group goes on journaling in the same epoch, ends, or has changed
        places with its other side."""
        if refusal := self._refusal(row):
            return refusal
        self._stopping, self.after = True, row
        self._bitmaps.withhold(True)
        await self._tending.end()
        try:
            refusal = await self._stop(row)
        except VolumeError:
            if not self._group.stopped:
                self._go_on()
            raise
        if refusal is not None:
            self._go_on()
            self._happened(Event.ERROR, refusal.text)
            return refusal
        await self._fencing.release()  # writes that have waited for it are kept by the group, which has stopped
        return None

    def _go_on(self) -> None:
        self._stopping, self.after = False, self.row
        self._bitmaps.withhold(False)
        self._tend()

    async def _stop(self, row: GroupRow | None) -> Refusal | None:
        if row is not None and not self._goes_on(row) and not changed_places(row):
            self._lost = await suspend(self._group, self._server.acknowledged, self._bitmaps)
        else:
            await self._bitmaps.close()
            _, lost = await stopped(self._group)
            text = f"volumes {lost} of group {self.row.name} are not durable"
            if row is not None and changed_places(row):
                # The other side has the P-VOLs now: suspended, this one would let hosts write to the rest of its own.
                if lost or not self._all_there():
                    raise VolumeFailed(text if lost else NOT_ALL_THERE.text)
            elif lost:
                # Their pairs are suspended by themselves: so it is known of them (`unsynced.py`).
                return Refusal(f"{text}: the group is being suspended")
            await self._settle()
        await self._activity.close()
        self._ended = True
        if row is None or self._goes_on(row):
            self._server.shut()
        self._server.end(True)
        return None

    @property
    def fenced(self) -> bool:
        """See Stage."""
        return self._prepared and self._fencing.stands

    @property
    def unsynced(self) -> Collection[int]:
        """See Stage. Of what has lost records nothing is written again."""
        return () if self._dropped else self._lost

    def _refusal(self, row: GroupRow | None) -> Refusal | None:
        """Why `row` may not be what is shown next, or not yet."""
        if row is not None and changed_places(row):
            return None if self._all_there() and not self._group.differing else NOT_ALL_THERE
        if self._fencing.stands and (row is None or not self._goes_on(row)):
            return FENCED
        return None

    def _all_there(self) -> bool:
        """Whether the other side has all of the group's writes. A fence does not outlive its time: then hosts may have
        written since the other side has taken their end for that of all."""
        return self._fencing.stands or self._server.acknowledged == self._group.journal.regions.stored

    async def _settle(self) -> None:
        """All is in the journal and in the volumes, durably: a power loss from now on changes nothing."""
        if self._group.journal.failure is not None or self._group.differing:
            return
        try:
            await self._activity.settle()
        except VolumeError as error:
            log.error("activity log not settled", group=self.row.name, reason=str(error))

    def _goes_on(self, row: GroupRow) -> bool:
        """Whether the group journals in the same epoch after this: the array stops, or pairs come or leave."""
        return row.epoch == self.row.epoch and all(state in P_RUNNING for state in row.states.values())

    def tail(self) -> bool:
        """Whether the other side still needs the journal, after `stop` for a suspension: `close` can wait then."""
        suspended = self.after is not None and self.after.side is Side.P_VOL and not self._goes_on(self.after)
        journal = self._group.journal
        if not self._ended or not suspended or journal.failure is not None:
            return False
        return self._server.acknowledged != journal.regions.stored

    async def close(self) -> None:
        """See Stage. Bitmaps of pairs that are no more are removed, and activity logs that are not needed any more."""
        if not self._prepared:
            return
        self._stopping = True
        await self._tending.end()  # where it did not come to its end, it goes on
        self._server.shut()
        if self._group.stopped:
            self._give_up()  # an answer may wait for a flush that is kept
        self._idle = asyncio.Event()
        if self._answering:
            await self._idle.wait()
        await self._server.close()
        await self._group.close()
        await self._activity.close()
        await self._bitmaps.close()  # likewise
        await self._fencing.release()
        await self._fencing.close()
        self._give_up()
        if not self._ended:
            return  # it was never entered: what bitmaps there are is not its own
        left = set() if self.after is None else {pair.number for pair in self.after.pairs}
        goes_on = self.after is not None and self._goes_on(self.after)
        logged = left if goes_on else set()
        if not goes_on:
            await self._fencing.forget()
            await self._forget(partial(self.doors.stores.remove, self.store_name("stored")))
        for number in self._fronts:
            if number not in left:
                await self._forget(partial(self._bitmaps.remove, number))
            if number not in logged:
                # What it had is in the pair's bitmap, or the other side has it all.
                await self._forget(partial(self.doors.stores.remove, self.store_name("activity", number)))

    def _give_up(self) -> None:
        for front in self._fronts.values():
            front.give_up(VolumeFailed("the volume is not served any more"))

    async def _forget(self, remove: Callable[[], Awaitable[None]]) -> None:
        try:
            await remove()
        except VolumeError as error:
            log.error("store not removed", group=self.row.name, reason=str(error))
