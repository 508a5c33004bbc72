"""A virtual volume (figures 3, 4 and 22): what stands at a LUN whose logical unit is another array's.

Commands go to that array as they are, and its answers come back, sense data and residuals included. It keeps the unit
attentions, reservations and mode pages of the nexus. What is decided here is what only this array knows: REPORT LUNS,
a LUN map that changed, command interfaces (they are for the array that the host is connected to, at whatever LUN), and
what to answer when the other array cannot be reached.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from arrayd.scsi.command import Command
from arrayd.scsi.data_buffer import COMMAND_INTERFACES, Commander, DataBuffers, is_command_interface
from arrayd.scsi.failing import error_of, failed
from arrayd.scsi.inquiry import INQUIRY
from arrayd.scsi.report import REPORT_LUNS
from arrayd.scsi.request_sense import REQUEST_SENSE
from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.task import (
    MAX_TRANSFER_BYTES,
    Attribute,
    FastTable,
    Function,
    FunctionResponse,
    Relayed,
    Status,
    Task,
)

if TYPE_CHECKING:
    from arrayd.scsi.nexus import Nexus

ATTENTIONS_MAX = 4
IGNORE_ATTENTIONS = frozenset(row.opcode for row in (INQUIRY, REPORT_LUNS, REQUEST_SENSE) if row.ignores_attention)


class Remote(Protocol):
    """A logical unit of another array."""

    def meet(self, nexus: Nexus) -> None:
        """A nexus sees the unit from now on."""

    def execute(self, nexus: Nexus, task: Task, ended: Callable[[], None]) -> None:
        """Has the task carried out there: `ended` is called once, when nothing of it goes on; then status, sense,
        `data_in`, `wanted_out` and `aborted` are as that array says, or say that it could not be asked."""

    def manage(self, nexus: Nexus, function: int, task: Task | None, done: Callable[[int], None]) -> None:
        """Has a task management function carried out there, for `task` if it is for one."""

    def fast(self, nexus: Nexus, unit: VirtualUnit) -> FastTable:
        """What the nexus may have done there without a task: what is begun is in `unit.relayed`, until it tells
        `unit.relay_ended`."""

    def forget(self, nexus: Nexus) -> None:
        """A nexus does not see the unit any more."""


class VirtualUnit:
    """One virtual volume: LUN `number`, which leads to `remote`."""

    def __init__(self, number: int, remote: Remote, commander: Commander | None = None) -> None:
        self.number = number
        self.data_buffers = DataBuffers(commander)
        self.remote = remote
        self.tasks: dict[Task, None] = {}
        self.relayed: dict[Relayed, None] = {}
        """Commands that were sent on the spot: they are at work, and have no task here."""
        self._fast: dict[Nexus, tuple[FastTable, FastTable]] = {}
        """The fast table of each nexus, and what is in it while nothing stands against its commands."""
        self._attentions: dict[Nexus, deque[Asc]] = {}
        self._waiting: deque[Task] = deque()
        """Tasks behind an ordered one, or that one behind others (SAM-5, 8.6): on their way, tasks keep no order."""
        self._ordered: Task | None = None
        """The ordered task at work, which all after it wait for."""
        self._told: set[Task] = set()
        """Aborted tasks that end with status TASK ABORTED."""
        self._left: asyncio.Future[None] | None = None
        self._at_work: set[asyncio.Future[None]] = set()
        """Answers to command interfaces that are waited for."""

    # -- nexuses and unit attentions ---------------------------------------------------------------------------------

    def attach(self, nexus: Nexus, table: FastTable) -> None:
        """See `arrayd.scsi.unit.Unit`; the other array has a unit attention for a nexus that is new to it."""
        self._attentions[nexus] = deque(maxlen=ATTENTIONS_MAX)
        self.remote.meet(nexus)
        self._fast[nexus] = table, self.remote.fast(nexus, self)
        self._refresh(nexus)

    def detach(self, nexus: Nexus) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        self._fast.pop(nexus)[0].clear()
        del self._attentions[nexus]
        self.data_buffers.nexus_lost(nexus)
        self.remote.forget(nexus)

    def establish(self, asc: Asc, nexus: Nexus) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        pending = self._attentions.get(nexus)
        if pending is not None and asc not in pending:
            pending.append(asc)
            self._refresh(nexus)

    def clear_attention(self, asc: Asc, nexus: Nexus) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        pending = self._attentions.get(nexus)
        if pending is not None and asc in pending:
            pending.remove(asc)
            self._refresh(nexus)

    def _refresh(self, nexus: Nexus) -> None:
        """Opens or closes the fast path of a nexus: what has to wait must not be gone past."""
        table, open_table = self._fast[nexus]
        table.clear()
        if not self._attentions[nexus] and not self._waiting and self._ordered is None:
            table.update(open_table)

    def _refresh_all(self) -> None:
        for nexus in self._fast:
            self._refresh(nexus)

    # -- tasks -------------------------------------------------------------------------------------------------------

    def enter(self, task: Task) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        self.tasks[task] = None
        task.unit = self
        pending = self._attentions[task.nexus]
        if pending and task.cdb[0] not in IGNORE_ATTENTIONS:
            self.fail(task, CheckCondition(Key.UNIT_ATTENTION, pending.popleft()))
            self._refresh(task.nexus)
            task.immediate_status = True
        elif self._is_for_us(task):
            self._enter_here(task)
        else:
            task.wanted_out = min(task.expected_out, MAX_TRANSFER_BYTES)

    def _is_for_us(self, task: Task) -> bool:
        """Whether it is a command interface that a host here writes, or reads the answer to."""
        return not task.nexus.path and is_command_interface(task.cdb)

    def _enter_here(self, task: Task) -> None:
        try:
            task.wanted_out = COMMAND_INTERFACES[task.cdb[0]].data_out(self, task.cdb)  # type: ignore[arg-type]
        except CheckCondition as error:
            self.fail(task, error)
            task.immediate_status = True

    def execute(self, task: Task) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        if task.aborted or task.immediate_status:
            self._end(task)
        elif self._must_wait(task):
            self._waiting.append(task)
            self._refresh_all()
        else:
            self._run(task)

    def _must_wait(self, task: Task) -> bool:
        return task.attribute != Attribute.HEAD_OF_QUEUE and (bool(self._waiting) or self._is_held_up(task))

    def _is_held_up(self, task: Task) -> bool:
        if self._ordered is not None:
            return True
        return task.attribute == Attribute.ORDERED and (
            bool(self.relayed) or any(other.executing for other in self.tasks)
        )

    def _run(self, task: Task) -> None:
        task.executing = True
        if task.attribute == Attribute.ORDERED:
            self._ordered = task
            self._refresh_all()
        if task.cdb[0] == REPORT_LUNS.opcode:
            self._run_here(task, REPORT_LUNS)
        elif self._is_for_us(task):
            self._run_here(task, COMMAND_INTERFACES[task.cdb[0]])
        else:
            self.remote.execute(task.nexus, task, partial(self._end, task))

    def _run_here(self, task: Task, command: Command) -> None:
        """What is of this array, not of that."""
        try:
            pending = command.handler(self, task)  # type: ignore[arg-type]
        except Exception as error:
            failed(self, task, command, error)
            pending = None
        if pending is None:
            self._end(task)
        else:
            future = asyncio.ensure_future(pending)
            self._at_work.add(future)
            future.add_done_callback(partial(self._ended_here, task, command))

    def _ended_here(self, task: Task, command: Command, future: asyncio.Future[None]) -> None:
        self._at_work.discard(future)
        error = error_of(future)
        if error is not None:
            failed(self, task, command, error)
        self._end(task)

    def fail(self, task: Task, error: CheckCondition) -> None:
        """See `arrayd.scsi.unit.Unit`; in the fixed format, since D_SENSE is known to the other array."""
        task.status = Status.CHECK_CONDITION
        task.sense = error.fixed()

    def _end(self, task: Task) -> None:
        task.executing = False
        self.tasks.pop(task, None)
        if task is self._ordered:
            self._ordered = None
            self._refresh_all()
        if task in self._told:
            self._told.discard(task)
            task.status = Status.TASK_ABORTED
        for finished in task.finished or ():
            finished()
        task.done(task)
        self._one_less()

    def relay_ended(self, relayed: Relayed) -> None:
        """What was sent on the spot has ended."""
        del self.relayed[relayed]
        if self._waiting or self._left is not None:
            self._one_less()

    def _one_less(self) -> None:
        """Runs what need not wait any longer."""
        if self._waiting:
            while self._waiting and not self._is_held_up(self._waiting[0]):
                self._run(self._waiting.popleft())
            self._refresh_all()
        if self._left is not None and not self.tasks and not self.relayed and not self._left.done():
            self._left.set_result(None)

    # -- task management ---------------------------------------------------------------------------------------------

    def manage(self, nexus: Nexus, function: int, tag: int, done: Callable[[int], None]) -> None:
        """See `arrayd.scsi.unit.Unit`: carried out there, and answered when the tasks have ended here, too."""
        task = next((task for task in self.tasks if task.nexus is nexus and task.tag == tag), None)
        if function == Function.ABORT_TASK:
            if task is None:
                done(FunctionResponse.TASK_DOES_NOT_EXIST)
                return
            affected = [task]
        else:
            whole_set = function != Function.ABORT_TASK_SET
            affected = [other for other in self.tasks if whole_set or other.nexus is nexus]
        relayed = [] if function == Function.ABORT_TASK else list(self.relayed)
        told: list[int] = []

        def one_part_done(response: int | None = None) -> None:
            if response is not None:
                told.append(response)
            left[0] -= 1
            if left[0] == 0:
                done(told[0])

        left = [2 + len(relayed)]
        for one in relayed:
            one.when_ended(lambda _ended: one_part_done())
        self.remote.manage(nexus, function, task if function == Function.ABORT_TASK else None, one_part_done)
        self._end_all(affected, one_part_done)

    def abort(self, tasks: list[Task], ended: Callable[[], None], originator: Nexus | None = None) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        for task in tasks:
            if task.executing and not self._is_for_us(task):
                self.remote.manage(task.nexus, Function.ABORT_TASK, task, lambda _response: None)
        self._end_all(tasks, ended)

    def _end_all(self, tasks: list[Task], ended: Callable[[], None]) -> None:
        """Ends what has not been sent; `ended` when the rest has come back."""
        left = [len(tasks) + 1]

        def one_ended() -> None:
            left[0] -= 1
            if left[0] == 0:
                ended()

        for task in tasks:
            task.aborted = True
            task.finished = [*(task.finished or ()), one_ended]
        for task in tasks:
            if not task.executing:
                if task in self._waiting:
                    self._waiting.remove(task)
                self._end(task)
        one_ended()

    def reset_for(self, originator: Nexus, asc: Asc, ended: Callable[[], None]) -> None:
        """See `arrayd.scsi.unit.Unit`: the other array resets its unit, that one alone, and tells everybody."""
        function = Function.TARGET_WARM_RESET if asc is Asc.POWER_ON_OR_RESET else Function.LUN_RESET
        self.manage(originator, function, 0, lambda _response: ended())

    def dismiss(self) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        tasks = list(self.tasks)
        self._told.update(tasks)
        self.abort(tasks, lambda: None)

    async def stop(self) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        while self.tasks or self.relayed:
            self._left = asyncio.get_running_loop().create_future()
            await self._left
