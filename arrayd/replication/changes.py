"""The stage of one group, and how it changes: the four steps of `stages.py`, and what becomes of each that fails.

    stop refuses      nothing has happened: the stage goes on, and the refusal is the answer
    stop raises       the row stays, and the group is taken up by it again, as after a restart
    prepare raises    likewise, and the stage that was made is forgotten
    commit raises     likewise, and the stage that was made is closed; so too if it has become too late for it
    enter raises      it should not: the row is committed, and the group is taken up by that

A group that is taken up, at a start too, goes on in the stage of its row. If that cannot be prepared, nobody knows
any more what the two sides have in common: the bitmaps of all its pairs are made anew, all marked, S-VOLs that were
followed are no point of the group's writes, and the row is PSUE where the table of statuses allows it. If that cannot
be done either, or the disk fails while the journal of P-VOLs is redone, hosts see the volumes guarded, the row stays,
and `trouble` says why, until a change or a start goes well. So a row never says that a volume is followed, marked or
open that is not, and hosts never see P-VOLs without what they were answered.

Whoever calls sees to it that one change is made at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from arrayd.log import get_logger
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.choosing import Kinds, of_one_mind
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import JournalError
from arrayd.replication.pair_stores import forget_stores, make_bitmaps
from arrayd.replication.pairs import Between, Outcome, Pairs
from arrayd.replication.pairs import Save as Commit
from arrayd.replication.redo import RedoFailed
from arrayd.replication.stages import Doors, Stage, Told
from arrayd.replication.statuses import Event, Refusal, Side, Status
from arrayd.replication.tail import Tail
from arrayd.replication.transitions import Circumstances, positioned
from arrayd.tables.changes import Work
from arrayd.volumes.volume import VolumeError

STAGE_ERRORS = (VolumeError, JournalError, BitmapError)
"""What a stage raises that cannot be entered, or cannot come to its end."""

Save = Callable[[Work, GroupRow | None], Awaitable[None]]
"""`await save(work, row)` commits a change, after which the group has this row, with whatever else is to be committed.
Raises what it likes; then nothing is."""
Change = Callable[[Commit, Between], Awaitable[Outcome]]
"""One change of the pair management table, with what is to be called when it is computed."""

log = get_logger("replication")


class Stays(Exception):
    """The stage refuses to come to its end: nothing has happened."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the stages of all groups have: `commit` makes a change of the tables durable by itself, `note(severity,
    text)` tells the array's event log."""

    table: Pairs
    doors: Doors
    kinds: Kinds
    commit: Commit
    note: Callable[[str, str], None]


class Stages:
    """The stages of the group `name`, one at a time. `told(token)` is what the stage with this token tells; `token` is
    that of the one in force: what others tell comes too late, or too early."""

    def __init__(self, name: str, around: Surroundings, told: Callable[[object], Told]) -> None:
        self.name = name
        self.around = around
        self._told = told
        self.stage: Stage | None = None
        self.token: object = None
        self.trouble = ""
        """Why hosts see the volumes guarded although the row says otherwise; empty: they do not."""
        self.tail = Tail(around.doors.now, self.close)

    @property
    def answering(self) -> Stage | None:
        """The stage that answers what the other side asks."""
        return self.tail.stage or self.stage

    # -- a change ----------------------------------------------------------------------------------------------------

    async def change(self, change: Change, save: Save, *, marked: bool = True) -> Outcome:
        """Makes a change of the group; `marked`: S-VOLs that are new in it are taken to differ wholly (or in nothing).
        Raises Stays, what `save` and the table raise, and STAGE_ERRORS; then the row is as it was."""
        steps = _Steps(self, save, marked)
        try:
            outcome = await change(steps.save, steps.between)
        except Exception as error:
            await steps.undo(error)
            raise
        await steps.done()
        return outcome

    def made(self, row: GroupRow, kind: type[Stage] | None = None) -> tuple[object, Stage]:
        """A stage of this row, and its token."""
        token = object()
        return token, (kind or self.around.kinds.of(row))(row, self.around.doors, self._told(token))

    def goes_on(self, row: GroupRow, *, other_pairs: bool = False) -> bool:
        """Whether the stage there is does for this row, too; with `other_pairs` the same again, found as it ends."""
        stage = self.stage
        return (
            stage is not None
            and not self.trouble
            and type(stage) is self.around.kinds.of(row)
            and (other_pairs or stage.row.states.keys() == row.states.keys())
        )

    async def enter(self, token: object, stage: Stage) -> None:
        """Fourth step: it is in force from now on."""
        self.stage, self.token, self.trouble = stage, token, ""
        await stage.enter()

    # -- taken up ----------------------------------------------------------------------------------------------------

    async def take_up(self) -> None:
        """Begins the stage of the row there is, as after a restart: see above. Raises STAGE_ERRORS where hosts cannot
        even be refused their writes."""
        row = self._row()
        self.stage = self.token = prepared = None
        try:
            token, stage = self.made(row)
            await stage.prepare(found=True)
            prepared = stage
            await self.enter(token, stage)
            return
        except Exception as error:
            self.trouble = reason = self.failed("its stage cannot be prepared", error)
            redone = not isinstance(error, RedoFailed)
        if prepared is not None:
            await self.close(prepared)
        if not redone:
            await self._stand(row, reason)
            return
        try:
            await self._begin_anew(row, reason)
        except Exception as error:
            self.failed("nor can it be suspended: hosts' writes are refused", error)
            await self._stand(self._row(), reason)

    async def redo(self, row: GroupRow, *, ends: bool) -> None:
        """P-VOLs that could not be taken up have what is in their journal, before they leave it: their stage is there
        then, and nobody sees it. A journal that a disk still does not let read is left only if the group `ends`; one
        that is damaged is left. Raises Stays."""
        if type(self.stage) is self.around.kinds.journaling:
            return  # it is there already: the change that it was for has come to nothing
        token, stage = self.made(row)
        try:
            await stage.prepare(found=True)
        except RedoFailed as error:
            if ends and not error.begun:
                return
            raise Stays(Refusal(f"hosts' writes may be missing on the P-VOLs: {error}")) from error
        except STAGE_ERRORS:
            return
        standing, self.stage, self.token = self.stage, stage, token
        if standing is not None:
            await self.close(standing)

    async def _begin_anew(self, row: GroupRow, reason: str) -> None:
        kinds, doors = self.around.kinds, self.around.doors
        was = kinds.of(row)
        made: list[tuple[object, Stage]] = []

        async def between(_old: GroupRow | None, new: GroupRow | None) -> GroupRow | None:
            assert new is not None, "an error ends no pair"
            new = of_one_mind(new, doors.clock() / 1e9)
            if was is kinds.following:
                new = replace(new, consistent=False)
            token, stage = self.made(new)
            if was is not kinds.standing:
                await make_bitmaps(stage, new.states, marked=True)
            await stage.prepare()
            made.append((token, stage))
            return new

        told = Circumstances(doors.clock() / 1e9, reason)
        try:
            await self.around.table.happen(self.name, Event.ERROR, None, told, self.around.commit, between=between)
            if not made:
                await between(row, row)
        except BaseException:
            for _, stage in made:
                await self.close(stage)
            raise
        await self.enter(*made[0])

    async def _stand(self, row: GroupRow, reason: str) -> None:
        token, stage = self.made(row, self.around.kinds.standing)
        await stage.prepare(found=True)
        await self.enter(token, stage)
        self.trouble = reason

    def _row(self) -> GroupRow:
        row = self.around.table.group(self.name)
        assert row is not None, self.name
        return row

    def failed(self, what: str, error: Exception) -> str:
        """Tells of an error; its text."""
        reason = str(error) or type(error).__name__
        if isinstance(error, STAGE_ERRORS):
            log.error(what, group=self.name, reason=reason)
        else:
            log.error(what, group=self.name, exc_info=error)
        self.around.note("error", f"group {self.name}: {what}: {reason}")
        return reason

    # -- the end of a stage ------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """The array stops: the stage comes to its end, and the row stays."""
        await self.tail.end()
        stage, self.stage, self.token = self.stage, None, None
        if stage is None:
            return
        try:
            refusal = await stage.stop(stage.row)
            if refusal is not None:
                log.error("a stage does not end, and the array stops", group=self.name, reason=refusal.text)
        except Exception as error:
            self.failed("its stage did not end well", error)
        await self.close(stage)

    async def close(self, stage: Stage) -> None:
        """Lets go of a stage that is in force no more."""
        try:
            await stage.close()
        except Exception as error:
            self.failed("a stage was not closed well", error)


class _Steps:
    """The steps of one change, as the table comes to them."""

    def __init__(self, stages: Stages, save: Save, marked: bool) -> None:
        self._stages = stages
        self._save = save
        self._marked = marked
        self._old: GroupRow | None = None
        self._new: GroupRow | None = None
        """The row that is to be committed."""
        self._changes = False
        """Whether there is anything to be changed: the table has called."""
        self._stopped = False
        self._next: Stage | None = None
        self._token: object = None
        self._prepared = False
        self._fresh: set[int] = set()
        """Pairs whose bitmaps were made for this change."""

    async def between(self, old: GroupRow | None, new: GroupRow | None) -> GroupRow | None:
        """First and second step."""
        stages, stage = self._stages, self._stages.stage
        if new is not None:
            new = of_one_mind(new, stages.around.doors.clock() / 1e9)
        stands = self._stands(old, new)
        if stages.trouble and old is not None and not stands:
            kinds = stages.around.kinds
            if kinds.of(old) is kinds.journaling and (new is None or kinds.of(new) is not kinds.journaling):
                await stages.redo(old, ends=new is None)
                stage = stages.stage
            elif new is not None:
                new = self._out_of_trouble(old, new)
        self._changes, self._old, self._new = True, old, new
        if new is not None and (stands or stages.goes_on(new)):
            return new
        again = new is not None and stages.goes_on(new, other_pairs=True)
        if stage is not None:
            await stages.tail.end()
            self._stopped = True
            refusal = await stage.stop(stage.row if again else new)
            if refusal is not None:
                self._stopped = False
                raise Stays(refusal)
            if new is not None:
                self._new = new = positioned(new, stage.row, stage.progress().restored)
        if new is not None:
            await self._prepare(new, again)
        return new

    def _stands(self, old: GroupRow | None, new: GroupRow | None) -> bool:
        """Whether volumes that could not be taken up stay guarded: nothing is begun anew."""
        if not self._stages.trouble or old is None or new is None:
            return False
        kinds, copied = self._stages.around.kinds, any(each.status is Status.COPY for each in new.states.values())
        return old.states == new.states or (kinds.of(old) is kinds.of(new) is kinds.following and not copied)

    def _out_of_trouble(self, old: GroupRow, new: GroupRow) -> GroupRow:
        """Of S-VOLs whose stage could not be prepared nobody knows what they are: none is opened, none is a source."""
        kinds = self._stages.around.kinds
        if kinds.of(old) is not kinds.following:
            return new
        if kinds.of(new) in (kinds.marking, kinds.journaling):
            raise Stays(Refusal(f"the S-VOLs may be no point of the group's writes: {self._stages.trouble}"))
        return replace(new, consistent=False)

    async def _prepare(self, new: GroupRow, again: bool) -> None:
        stages = self._stages
        self._token, self._next = stages.made(new)
        fresh = new.states.keys() - (set() if self._old is None else self._old.states.keys())
        if fresh and new.side is Side.S_VOL:
            self._fresh = set(fresh)
            await make_bitmaps(self._next, fresh, marked=self._marked)
        if stages.trouble:
            await make_bitmaps(self._next, new.states, marked=True)
        await stages.around.table.reserve(new.epoch, stages.around.commit)
        await self._next.prepare(found=again)
        self._prepared = True

    async def save(self, work: Work) -> None:
        """Third step."""
        stage = self._stages.stage
        if self._stopped and stage is not None and (refusal := stage.too_late()) is not None:
            raise Stays(refusal)
        await self._save(work, self._new)

    async def undo(self, error: Exception) -> None:
        """One of them has failed."""
        stages, stage = self._stages, self._stages.stage
        if self._next is not None:
            if self._prepared:
                await stages.close(self._next)
            for number in self._fresh:
                await forget_stores(self._next, number)
        if self._stopped and stage is not None:
            stages.failed("a change of it has failed", error)
            stage.after = stage.row  # what it has is taken up again
            await stages.close(stage)
            await stages.take_up()

    async def done(self) -> None:
        """Fourth step, which nothing calls back."""
        stages, stage = self._stages, self._stages.stage
        if not self._changes:
            return
        if self._next is None and self._new is not None:
            assert stage is not None, "a row without a stage"
            stage.changed(self._new)
            return
        gone = set() if self._old is None else set(self._old.pairs)
        numbers = set() if self._new is None else self._new.states.keys()
        gone = {pair for pair in gone if pair.number not in numbers}
        entered = await self._enter()
        # Hosts' writes may wait for the stage to let go of them, so the volumes are shown before that, not after.
        shown = [asyncio.ensure_future(stages.around.doors.show(pair.volume, None)) for pair in gone]
        if shown:
            await asyncio.sleep(0)
        if stage is not None:
            await self._let_go(stage)
        for outcome in await asyncio.gather(*shown, return_exceptions=True):
            if isinstance(outcome, Exception):
                stages.failed("a volume is not shown as it is", outcome)
        if gone:
            assert self._old is not None, "what has gone was there"
            for pair in gone:
                await forget_stores(stage or stages.made(self._old)[1], pair.number)
        if not entered:
            assert self._next is not None
            await stages.close(self._next)
            await stages.take_up()

    async def _enter(self) -> bool:
        stages = self._stages
        if self._next is None:
            stages.stage, stages.token, stages.trouble = None, None, ""
            return True
        try:
            await stages.enter(self._token, self._next)
        except Exception as error:
            stages.failed("its stage was not entered", error)
            return False
        return True

    async def _let_go(self, stage: Stage) -> None:
        stages = self._stages
        if type(self._next) is not stages.around.kinds.marking or not stages.tail.begin(stage):
            await stages.close(stage)
