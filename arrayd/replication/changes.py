"""A change of the stage of one group: the four steps of `stages.py`, and what becomes of each that fails.

    stop refuses      nothing has happened: the stage goes on, and the refusal is the answer
    stop raises       the row stays, and the group is taken up by it again (`taking_up.py`), as after a restart
    prepare raises    likewise, and the stage that was made is forgotten
    commit raises     likewise, and the stage that was made is closed; so too if it has become too late for it
    enter raises      it should not: the row is committed, and the group is taken up by that

Whoever calls sees to it that one change is made at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from arrayd.replication.choosing import of_one_mind
from arrayd.replication.fencing import FENCED, NOT_ALL_THERE, changed_places
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.in_force import Stages
from arrayd.replication.pair_stores import forget_stores, make_bitmaps, make_logs
from arrayd.replication.pairs import Between, Outcome
from arrayd.replication.pairs import Save as Commit
from arrayd.replication.redo import RedoFailed
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import Refusal, Side, Status
from arrayd.replication.taking_up import Stays, redo, take_up
from arrayd.replication.transitions import positioned
from arrayd.replication.unsynced import write_again
from arrayd.tables.changes import Work

Save = Callable[[Work, GroupRow | None], Awaitable[None]]
"""`await save(work, row)` commits a change, after which the group has this row, with whatever else is to be committed.
Raises what it likes; then nothing is."""
Change = Callable[[Commit, Between], Awaitable[Outcome]]
"""One change of the pair management table, with what is to be called when it is computed."""


async def carried_out(stages: Stages, change: Change, save: Save, *, marked: bool = True) -> Outcome:
    """Makes a change of the group; `marked`: S-VOLs that are new in it are taken to differ wholly (or in nothing).
    Raises Stays, what `save` and the table raise, and STAGE_ERRORS; then the row is as it was."""
    steps = _Steps(stages, save, marked)
    try:
        outcome = await change(steps.save, steps.between)
    except Exception as error:
        await steps.undo(error)
        raise
    await steps.done()
    return outcome


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
                await redo(stages, old, ends=new is None)
                stage = stages.stage
            elif new is not None:
                new = self._out_of_trouble(old, new)
        if old is not None and not stands:
            new = await self._synced(old, new)
        self._changes, self._old, self._new = True, old, new
        if new is not None and (stands or stages.goes_on(new)):
            return new
        again = new is not None and stages.goes_on(new, other_pairs=True)
        if again and stage is not None and stage.fenced:
            raise Stays(FENCED)  # whoever waits for a lock behind the fence would go by the next stage, past its fence
        if stage is not None:
            await stages.tail.end()
            self._stopped = True
            refusal = await stage.stop(stage.row if again else new)
            if refusal is not None:
                self._stopped = False
                raise Stays(refusal)
            if new is not None:
                new = positioned(new, stage.row, stage.progress().restored)
                self._new = new = new.with_unsynced(stage.unsynced, True)
        if new is not None:
            await self._prepare(new, again)
        return new

    def _stands(self, old: GroupRow | None, new: GroupRow | None) -> bool:
        """Whether volumes that could not be taken up stay guarded: nothing is begun anew."""
        if not self._stages.trouble or old is None or new is None:
            return False
        kinds, copied = self._stages.around.kinds, any(each.status is Status.COPY for each in new.states.values())
        if kinds.of(old) is kinds.of(new) is kinds.mirroring:
            return True  # what they lack they get from the other side, as they are found at the next start
        both_followed = kinds.copied_to(old) and kinds.copied_to(new)
        return old.states == new.states or (both_followed and not copied)

    async def _synced(self, old: GroupRow, new: GroupRow | None) -> GroupRow | None:
        """Before P-VOLs are anything else than suspended they have what hosts were answered: see `unsynced.py`."""
        kinds, there = self._stages.around.kinds, set[int]() if new is None else new.states.keys()
        suspended = new is not None and new.side is Side.P_VOL and kinds.of(new) in (kinds.marking, kinds.standing)
        numbers = {pair.number for pair in old.pairs if pair.unsynced and not (suspended and pair.number in there)}
        if not numbers:
            return new
        synced, error = await write_again(old, self._stages.around.doors, numbers)
        left = numbers - synced
        if left and (left & there or not isinstance(error, RedoFailed) or error.begun):
            raise Stays(Refusal(f"what hosts were answered is not on the P-VOLs: {error}"))
        return None if new is None else new.with_unsynced(synced, False)

    def _out_of_trouble(self, old: GroupRow, new: GroupRow) -> GroupRow:
        """Of S-VOLs whose stage could not be prepared nobody knows what they are: none is opened, none is a source. Nor
        of synchronous P-VOLs whether they have what the other side has."""
        kinds = self._stages.around.kinds
        if kinds.of(old) is kinds.mirroring and changed_places(new):
            raise Stays(NOT_ALL_THERE)
        if not kinds.copied_to(old):
            return new
        if kinds.of(new) in (kinds.marking, kinds.journaling, kinds.mirroring):
            raise Stays(Refusal(f"the S-VOLs may be no point of the group's writes: {self._stages.trouble}"))
        return replace(new, consistent=False)

    async def _prepare(self, new: GroupRow, again: bool) -> None:
        stages = self._stages
        self._token, self._next = stages.made(new)
        fresh = new.states.keys() - (set() if self._old is None else self._old.states.keys())
        if fresh and new.side is Side.S_VOL:
            self._fresh = set(fresh)
            await make_bitmaps(self._next, fresh, marked=self._marked)
        if fresh and again and stages.around.kinds.of(new) is not stages.around.kinds.following:
            await make_logs(self._next, fresh)
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
            await take_up(stages)

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
            await take_up(stages)

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
