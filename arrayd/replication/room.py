"""Everything an array has for pairs, put together: its groups at work, their meetings, and what other arrays ask.

Whatever changes a row goes through here (figure 10's table is changed by nobody else), one change of a group at a time:
`at_work.py`. `changes.py` has what a change does to the stage of a group, `choosing.py` which stage a row has.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial

from arrayd.link.channel import Call, Service
from arrayd.replication.asking import Asked, Outcome, Question, met, refused, rows_of
from arrayd.replication.at_work import TOGETHER_SECONDS, AtWork
from arrayd.replication.changes import Save
from arrayd.replication.group_rows import CTG_MAX, Driver, GroupRow, PeerRows
from arrayd.replication.in_force import STAGE_ERRORS, Surroundings
from arrayd.replication.journal import FormatError
from arrayd.replication.meeting import Meeting
from arrayd.replication.over_link import service
from arrayd.replication.pairs import Outcome as PairOutcome
from arrayd.replication.pairs import Pairs, PairsError
from arrayd.replication.statuses import Operation


class ReplicationError(Exception):
    """A group cannot even be shown guarded, so that nothing may be shown at all: why, in a line."""


class Replication:
    """The groups of one array. The volumes are open, and hosts see none of them before `start` has ended."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._groups: dict[str, AtWork] = {}
        self._meetings: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[bytes, float] = {}
        """Groups that have ended a moment ago, and when: the other side is still to be told, perhaps."""
        self._coming: set[bytes] = set()
        """Groups that are being made, which takes its time for large S-VOLs."""
        self._stopped = False

    @property
    def table(self) -> Pairs:
        """The pair management table."""
        return self._around.table

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes up all groups: hosts that see volumes from then on see those of pairs as their rows say. Raises
        ReplicationError."""
        for row in self.table.groups():
            self._groups[row.name] = AtWork(row.name, self._around)
        outcomes = await asyncio.gather(*(each.start() for each in self._groups.values()), return_exceptions=True)
        for name, outcome in zip(self._groups, outcomes, strict=True):
            if isinstance(outcome, STAGE_ERRORS):
                raise ReplicationError(f"group {name}: {outcome}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        for at_work in self._groups.values():
            self._meet(at_work)

    async def stop(self) -> None:
        """Ends the meetings, and then the stages: no host writes any more, and the volumes are still open."""
        self._stopped = True
        meetings = list(self._meetings.values())
        for meeting in meetings:
            meeting.cancel()
        await asyncio.gather(*meetings, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in self._groups.values()))

    def _meet(self, at_work: AtWork) -> None:
        if at_work.name not in self._meetings and not self._stopped:
            meeting = Meeting(at_work, self._around.doors.ask)
            self._meetings[at_work.name] = asyncio.ensure_future(meeting.run())

    # -- groups ------------------------------------------------------------------------------------------------------

    def at_work(self, name: str) -> AtWork | None:
        """A group that there is."""
        return self._groups.get(name)

    def free_ctg(self) -> int:
        """The lowest CTG number that no group has. Raises PairsError."""
        used = {row.ctg for row in self.table.groups()}
        for number in range(CTG_MAX + 1):
            if number not in used:
                return number
        raise PairsError(f"there are {CTG_MAX + 1} groups, as many as there may be")

    async def settled(self, name: str) -> None:
        """Waits for the changes of a group that are under way."""
        if (at_work := self._groups.get(name)) is not None:
            await at_work.settled()

    async def create(self, group: GroupRow, operation: Operation, save: Save, *, copy: bool) -> GroupRow:
        """Makes a group, or adds pairs to it: see `AtWork.create`. The caller sees to it that the estate does not
        change meanwhile."""
        at_work = self._groups.get(group.name) or AtWork(group.name, self._around)
        self._coming.add(group.id)
        try:
            made = await at_work.create(group, operation, save, copy=copy)
        except BaseException:
            if at_work.row is None:
                await at_work.stop()
            raise
        finally:
            self._coming.discard(group.id)
        self._groups[group.name] = at_work
        self._meet(at_work)
        return made

    async def happen(
        self,
        name: str,
        operation: Operation,
        peer: PeerRows | None,
        save: Save,
        *,
        generation: int | None = None,
        epoch: int | None = None,
        pair: int | None = None,
        together: bool = False,
    ) -> PairOutcome:
        """Carries out an operation: see `AtWork.happen`. A group that has no pair left is no more."""
        at_work = self._groups.get(name)
        if at_work is None:
            at_work = AtWork(name, self._around)  # the table says what becomes of what is in no pair
        before = at_work.row
        with self.table.ending(name) if operation is Operation.PAIRSPLIT_S else nullcontext():
            outcome = await at_work.happen(
                operation, peer, save, generation=generation, epoch=epoch, pair=pair, together=together
            )
        if before is not None and at_work.row is None:
            await self._end(before, at_work)
        return outcome

    async def _end(self, row: GroupRow, at_work: AtWork) -> None:
        now = self._around.doors.now()
        self._ended = {group: at for group, at in self._ended.items() if now - at < TOGETHER_SECONDS}
        self._ended[row.id] = now
        if self._groups.get(row.name) is at_work:
            del self._groups[row.name]
            meeting = self._meetings.pop(row.name)
            meeting.cancel()
            await asyncio.gather(meeting, return_exceptions=True)
            await at_work.stop()

    async def keep(
        self, name: str, save: Save, *, pace: int | None, driver: Driver | None, copy_rate: int | None = None
    ) -> GroupRow | None:
        """Keeps what is no matter of states: see `AtWork.keep`. None: there is no such group."""
        at_work = self._groups.get(name)
        return None if at_work is None else await at_work.keep(save, pace=pace, driver=driver, copy_rate=copy_rate)

    # -- what other arrays ask ---------------------------------------------------------------------------------------

    def service(self, array: str) -> Service:
        """Service 3, for an array of this name."""
        return service(partial(self._asked, array))

    def _asked(self, array: str, question: Question, call: Call) -> None:
        at_work = self._of(array, question.group)
        if at_work is None or self._stopped:
            call.answer(self._no_group(array, question.group))
        elif question.asked is Asked.MEET:
            try:
                rows = rows_of(question.fields)
            except FormatError as error:
                call.answer(refused(Outcome.FAILED, str(error)))
                return
            call.answer(met(at_work.rows()))
            at_work.seen(rows)
        else:
            at_work.answer(question, call)

    def _of(self, array: str, group: bytes) -> AtWork | None:
        """A group that this array has with that one."""
        for at_work in self._groups.values():
            row = at_work.row
            if row is not None and row.id == group:
                return at_work if row.peer == array else None
        return None

    def _no_group(self, array: str, group: bytes) -> bytes:
        ended = self._ended.get(group)
        just_ended = ended is not None and self._around.doors.now() - ended < TOGETHER_SECONDS
        if self._stopped or just_ended or group in self._coming:
            return refused(
                Outcome.NOT_NOW, "the array stops" if self._stopped else "the group is just made or ended here"
            )
        return refused(Outcome.NO_GROUP, f"there is no such group with {array}")
