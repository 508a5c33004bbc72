"""One group at work: whatever is to be done with it, operations of hosts, events of its stage and meetings, in turn.

While something is told to both sides together they do not meet (`meetings.py`). A host tells one side after the other;
between the two, neither may learn from the rows of the other. So a side that was told something together with the other
says for a while that its rows are held (`PeerRows.held`), and neither side learns anything then, unless the rows go
with each other already: that is when both have been told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from arrayd.link.channel import Call
from arrayd.log import get_logger
from arrayd.replication.asking import Outcome as Answered
from arrayd.replication.asking import Question, refused
from arrayd.replication.changes import Change, Save, carried_out
from arrayd.replication.group_rows import Driver, GroupRow, PeerRows
from arrayd.replication.in_force import STAGE_ERRORS, Stages, Surroundings
from arrayd.replication.meetings import RUNNING_STATES, settled
from arrayd.replication.pairs import Outcome, PairsError
from arrayd.replication.stages import Told
from arrayd.replication.statuses import Event, Happening, Operation, Refusal
from arrayd.replication.taking_up import Stays, take_up
from arrayd.replication.transitions import NOT_MET, Circumstances, shown
from arrayd.tables.changes import TablesError, Work
from arrayd.tables.estate import nothing
from arrayd.turns import CHANGES_MAX, Turns

TOGETHER_SECONDS = 5.0
"""So long after one side was told something that both are told, the other may still be told it."""
EVENT_RETRY_SECONDS = 1.0
"""Before an event that could not be committed is tried again."""

T = TypeVar("T")

log = get_logger("replication")


class AtWork:
    """The group `name`, whether it has a row yet or not. `changed` is called when its row is another one."""

    def __init__(self, name: str, around: Surroundings) -> None:
        self.name = name
        self.changed: Callable[[], None] = lambda: None
        self.contact: float | None = None
        """When the other side's rows were last seen, in seconds since 1970."""
        self.stages = Stages(name, around, self._told)
        self._around = around
        self._turns = Turns()
        self._telling = 0
        """Operations that are told to both sides, and have not ended here."""
        self._held_until = 0.0
        self._overtaken = False
        """Whether the other side does not know the row yet."""
        self._seen: PeerRows | None = None
        self._happened: list[tuple[object, Event]] = []
        """What stages have told, and is still to be carried out, in order."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._learning: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def row(self) -> GroupRow | None:
        """What this side shows."""
        return self._around.table.group(self.name)

    @property
    def following(self) -> bool:
        """Whether its stage asks the other side by itself."""
        return type(self.stages.stage) is self._around.kinds.following

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Goes on after a restart. Raises STAGE_ERRORS where hosts cannot even be refused their writes."""
        await self._turns.take(partial(take_up, self.stages))

    async def stop(self) -> None:
        """Lets the changes under way end, and then its stage; the row stays."""
        self._stopped = True
        await self._turns.take(self.stages.end)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._turns.settle()

    async def settled(self) -> None:
        """Waits for the changes under way."""
        await self._turns.settle()

    # -- what hosts want ---------------------------------------------------------------------------------------------

    async def create(self, group: GroupRow, operation: Operation, save: Save, *, copy: bool) -> GroupRow:
        """Makes the group, or adds its pairs to the one that is there: see `Pairs.create`. Not to `copy` means that
        the sides are the same already. Raises PairsError, STAGE_ERRORS, and what `save` does."""
        made = await self._take(partial(self._create, group, operation, save, copy), together=True)
        if isinstance(made, Refusal):
            raise PairsError(f"group {self.name}: {made.text}")
        assert made is not None, "what is made has a row"
        return made

    async def _create(self, group: GroupRow, operation: Operation, save: Save, copy: bool) -> Outcome:
        row = self.row
        if row is not None and not all(pair.state in RUNNING_STATES for pair in row.pairs):
            raise PairsError(f"group {self.name}: it is suspended: pairresync first")
        table = self._around.table
        when = self._around.doors.clock() / 1e9

        async def change(commit: Any, between: Any) -> Outcome:
            return await table.create(group, operation, when, commit, between)

        return await self._saved(change, save, marked=copy)

    async def happen(
        self,
        operation: Operation,
        peer: PeerRows | None,
        save: Save,
        *,
        generation: int | None = None,
        epoch: int | None = None,
        pair: int | None = None,
        together: bool = False,
    ) -> Outcome:
        """Carries out this side's part of an operation: see `Pairs.happen`. `generation` is what the host saw of this
        side's rows; `together`: the other side is told, too. `save` is called once where it is not refused. Raises
        PairsError, STAGE_ERRORS, and what `save` does."""
        change = partial(self._happening, operation, peer, epoch=epoch, pair=pair)
        return await self._take(partial(self._happen, change, save, generation), together=together)

    async def _happen(self, change: Callable[[], Change], save: Save, generation: int | None) -> Outcome:
        row = self.row
        if row is not None and generation not in (None, row.generation):
            return NOT_MET
        return await self._saved(change(), save)

    async def keep(
        self, save: Save, *, pace: int | None, driver: Driver | None, copy_rate: int | None = None
    ) -> GroupRow:
        """Keeps what is no matter of states: see `Pairs.keep`. Raises PairsError, and what `save` does."""
        kept = await self._take(partial(self._keep, save, pace, driver, copy_rate))
        assert isinstance(kept, GroupRow)
        return kept

    async def _keep(self, save: Save, pace: int | None, driver: Driver | None, copy_rate: int | None) -> Outcome:
        async def change(commit: Any, _between: Any) -> Outcome:
            return await self._around.table.keep(self.name, commit, pace=pace, driver=driver, copy_rate=copy_rate)

        async def whole(work: Work, _row: GroupRow | None) -> None:
            await save(work, None)

        kept = await self._saved(change, whole)
        if isinstance(kept, GroupRow) and self.stages.stage is not None:
            self.stages.stage.changed(kept)
        return kept

    # -- changes -----------------------------------------------------------------------------------------------------

    async def _take(self, change: Callable[[], Coroutine[Any, Any, Outcome]], *, together: bool = False) -> Outcome:
        if self._turns.full:
            raise PairsError(f"group {self.name}: {CHANGES_MAX} changes wait already")
        if together:
            self._telling += 1
            change = partial(self._together, change)
        return await self._in_turn(change)

    async def _in_turn(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes a change when those before it have ended, and has both sides meet when it has."""
        try:
            return await self._turns.take(change)
        finally:
            overtaken, self._overtaken = self._overtaken, False
            if overtaken:
                self.changed()

    def _happening(
        self,
        happening: Happening,
        peer: PeerRows | None,
        error: str = "",
        epoch: int | None = None,
        pair: int | None = None,
    ) -> Change:
        table, told = self._around.table, Circumstances(self._around.doors.clock() / 1e9, error, epoch)

        async def change(commit: Any, between: Any) -> Outcome:
            return await table.happen(self.name, happening, peer, told, commit, pair, between)

        return change

    async def _together(self, change: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """A change that the other side is told, too."""
        before = self.row
        try:
            return await change()
        finally:
            self._telling -= 1
            if self.row != before:
                self._held_until = self._around.doors.now() + TOGETHER_SECONDS

    async def _saved(self, change: Change, save: Save, *, marked: bool = True) -> Outcome:
        """A change, and if there is nothing to be changed the answer to whoever asked for it."""
        before, saved = self.row, False

        async def once(work: Work, row: GroupRow | None) -> None:
            nonlocal saved
            await save(work, row)
            saved = True

        try:
            outcome = await carried_out(self.stages, change, once, marked=marked)
        except Stays as stays:
            return stays.refusal
        if isinstance(outcome, Refusal):
            return outcome
        if not saved:
            await save(nothing, outcome)
        self._overtaken |= self.row != before
        return self.row

    async def _commit(self, work: Work, _row: GroupRow | None) -> None:
        await self._around.commit(work)

    # -- what its stage tells ----------------------------------------------------------------------------------------

    def _told(self, token: object) -> Told:
        return Told(partial(self._event, token), self.seen)

    def _event(self, token: object, what: Event, reason: str) -> None:
        if self._stopped or self._happened[-1:] == [(token, what)]:
            return
        self._happened.append((token, what))
        self._begin(self._after_event(token, what, reason))

    async def _after_event(self, token: object, what: Event, reason: str) -> None:
        """Until it is carried out, or another stage is in force."""
        try:
            carried_out = False
            while not carried_out:
                carried_out = await self._in_turn(partial(self._carry_out, token, what, reason))
                await asyncio.sleep(0 if carried_out else EVENT_RETRY_SECONDS)
        finally:
            self._happened.remove((token, what))

    async def _carry_out(self, token: object, what: Event, reason: str) -> bool:
        if token is not self.stages.token:
            return True
        before = self.row
        try:
            outcome = await carried_out(self.stages, self._happening(what, None, reason), self._commit)
        except (Stays, PairsError, TablesError, *STAGE_ERRORS) as error:
            log.warning("an event is not carried out", group=self.name, what=what.value, reason=str(error))
            return False
        after = self.row
        if isinstance(outcome, GroupRow) and after is not None and after != before:
            severity = "error" if what in (Event.ERROR, Event.ERROR_FENCED, Event.JOURNAL_FULL) else "info"
            text = f"{what.value}{f': {reason}' if reason else ''}"
            self._around.note(severity, f"group {self.name}: {text}: {_summary(after)}")
            self._overtaken = True
        return True

    # -- meetings ----------------------------------------------------------------------------------------------------

    def rows(self) -> PeerRows:
        """What the other side is told that this one shows."""
        row = self.row
        return PeerRows() if row is None else PeerRows.of(row, held=self._held)

    @property
    def _held(self) -> bool:
        return self._telling > 0 or self._around.doors.now() < self._held_until

    def seen(self, rows: PeerRows) -> None:
        """What the other side shows: this one learns from it, soon."""
        if self._stopped:
            return
        self.contact = self._around.doors.clock() / 1e9
        self._seen = rows
        if self._learning is None or self._learning.done():
            self._learning = self._begin(self._learn())

    async def _learn(self) -> None:
        while self._seen is not None:
            await self._in_turn(self._meet)

    async def _meet(self) -> None:
        rows, self._seen = self._seen, None
        row, table = self.row, self._around.table
        if rows is None or row is None or self.stages.stage is None:
            return
        if rows.held or self._held:
            if not go_together(row, rows):
                return
            self._held_until = 0.0
        told = Circumstances(self._around.doors.clock() / 1e9)

        async def change(commit: Any, between: Any) -> Outcome:
            return await table.meet(self.name, rows, told, commit, between)

        try:
            await carried_out(self.stages, change, self._commit)
        except Stays as stays:
            await self._give_up(stays.refusal)
        except (PairsError, TablesError, *STAGE_ERRORS) as error:
            log.warning("nothing is learned from the other side", group=self.name, reason=str(error))
        after = self.row
        if after is not None and after.states != row.states:
            self._around.note("info", f"group {self.name}: the other array shows it so: {_summary(after)}")
        self._overtaken |= after != row

    async def _give_up(self, refusal: Refusal) -> None:
        """The stage cannot become what the other side has made of the pair: it is suspended, and somebody decides."""
        try:
            await carried_out(self.stages, self._happening(Event.ERROR, None, refusal.text), self._commit)
        except (Stays, PairsError, TablesError, *STAGE_ERRORS) as error:
            log.warning("a group is not suspended", group=self.name, reason=str(error))

    # -- what the other side asks ------------------------------------------------------------------------------------

    def answer(self, question: Question, call: Call) -> None:
        """Has a question answered, which is not MEET."""
        self._begin(self._answer(question, call))

    async def _answer(self, question: Question, call: Call) -> None:
        stage = self.stages.answering
        reason = f"group {self.name} stands still here"
        try:
            if stage is not None:
                await stage.answer(question, call)
        except Exception:
            log.exception("a question is not answered", group=self.name, asked=question.asked.name)
            reason = "a fault of the array: its log says more"
        finally:
            if not call.answered:
                call.answer(refused(Answered.NOT_NOW, reason))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("what was to be done with a group has failed", group=self.name, exc_info=task.exception())


def go_together(row: GroupRow, peer: PeerRows) -> bool:
    """Whether both sides show what they may go on to show: none has anything to learn."""
    return row.generation == peer.generation and all(settled(pair.state, shown(peer, pair)) for pair in row.pairs)


def _summary(row: GroupRow) -> str:
    return ", ".join(f"{pair.name} {pair.state}" for pair in row.pairs[:4]) + (" …" if len(row.pairs) > 4 else "")
