"""A logical unit and its device server (SAM-5, 4.6): task set, unit attentions, dispatch by the table of opcodes.

Three kinds share this class: a block device (a volume), the accessible storage array controller that stands at LUN 0
when no volume does (type 0Ch), and the unit that answers for LUNs that are not there (type 1Fh).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from arrayd.log import get_logger
from arrayd.scsi.alua import PortGroups
from arrayd.scsi.command import Command, CommandTable
from arrayd.scsi.copy import Copies
from arrayd.scsi.data_buffer import Commander, DataBuffers
from arrayd.scsi.failing import error_of, failed
from arrayd.scsi.medium import Medium
from arrayd.scsi.mode import ModePages
from arrayd.scsi.reservations import Reservations
from arrayd.scsi.sanitize import Sanitizing
from arrayd.scsi.sense import Asc, CheckCondition, Key, ReservationConflict
from arrayd.scsi.task import Attribute, FastTable, Status, Task
from arrayd.scsi.task_management import UNIT_FUNCTIONS
from arrayd.volumes.volume import Volume

if TYPE_CHECKING:
    from arrayd.buffers import BufferPool
    from arrayd.scsi.nexus import Nexus

UNIT_ATTENTIONS_MAX = 16
"""Unit attentions kept per nexus; what comes on top replaces the oldest but the first."""

log = get_logger("scsi")


class LogicalUnit:
    """One logical unit. `number` is its LUN; `volume` None for the kinds without a medium."""

    def __init__(
        self,
        number: int,
        device_type: int,
        identity: str,
        commands: CommandTable,
        buffers: BufferPool,
        scratch: BufferPool,
        port_groups: PortGroups,
        reservations: Reservations,
        volume: Volume | None = None,
        commander: Commander | None = None,
    ) -> None:
        self.number = number
        self.device_type = device_type
        self.identity = identity
        self.commands = commands
        self.buffers = buffers
        self.scratch = scratch
        """For work in steps: see `arrayd.scsi.steps`."""
        self.port_groups = port_groups
        self.reservations = reservations
        self.reservations.changed = self.refresh_all
        self.volume = volume
        self.mode_pages = ModePages(volume)
        self.tasks: dict[Task, None] = {}
        self.attentions: dict[Nexus, deque[Asc]] = {}
        self.fast_tables: dict[Nexus, FastTable] = {}
        self.medium = Medium()
        self.sanitizing = Sanitizing()
        self.data_buffers = DataBuffers(commander)
        self.copies = Copies()
        self.fetches = 0
        """Reads that were begun on the spot and wait for the disk: they are at work, and have no task here."""
        self._at_work: set[asyncio.Future[None]] = set()
        """Handlers that were not done at once, and what commands with IMMED left behind."""
        self._waiting: deque[Task] = deque()
        """Tasks that wait for an ordered task, or are one (SAM-5, 8.6); bounded by the command windows."""
        self._running_waiting = False
        self._ordered: Task | None = None
        """The ordered task at work, which all after it wait for."""
        self._told: set[Task] = set()
        """Aborted tasks that end with status TASK ABORTED."""

    @property
    def disk(self) -> Volume:
        """The volume of a unit that has one: for the commands of block devices. It may be `replace`d while one waits:
        who works in steps asks for it anew with each, and only who holds a lock stays with the volume that gave it."""
        assert self.volume is not None
        return self.volume

    @property
    def write_protected(self) -> bool:
        """Whether writes are refused: a read-only volume, or SWP in the control mode page."""
        return self.volume is None or self.volume.read_only or self.mode_pages.software_write_protect

    @property
    def _holds_up(self) -> bool:
        """Whether tasks may have to wait, so that none may go past those that do."""
        return bool(self._waiting) or self._ordered is not None

    @property
    def not_ready(self) -> CheckCondition | None:
        """Why medium access is refused now (ejected, stopped, sanitizing or failed to), or None."""
        return self.sanitizing.refusal() or self.medium.refusal()

    # -- nexuses and unit attentions ---------------------------------------------------------------------------------

    def attach(self, nexus: Nexus, table: FastTable) -> None:
        """A nexus sees this unit from now on; its commands go fast by `table` while nothing stands against it."""
        self.fast_tables[nexus] = table
        if nexus.path:
            self.port_groups.meet(nexus.target_port)
        self.attentions[nexus] = deque((Asc.POWER_ON_OR_RESET,), UNIT_ATTENTIONS_MAX)
        self.refresh(nexus)

    def detach(self, nexus: Nexus) -> None:
        """I_T nexus loss: what this unit kept for `nexus` goes (SAM-5, 6.3.4)."""
        self.fast_tables.pop(nexus).clear()
        self.attentions.pop(nexus)
        self.medium.preventing.discard(nexus)
        self.data_buffers.nexus_lost(nexus)
        self.copies.nexus_lost(nexus)
        self.reservations.nexus_lost(nexus)

    def establish(self, asc: Asc, nexus: Nexus) -> None:
        """Establishes a unit attention condition for one nexus (SAM-5, 5.14)."""
        pending = self.attentions.get(nexus)
        if pending is not None and asc not in pending:
            if asc is Asc.POWER_ON_OR_RESET or asc is Asc.BUS_DEVICE_RESET:
                pending.clear()
            pending.append(asc)
            self.refresh(nexus)

    def establish_for_others(self, asc: Asc, originator: Nexus | None) -> None:
        """Establishes a unit attention condition for every nexus but `originator`."""
        for nexus in list(self.attentions):
            if nexus is not originator:
                self.establish(asc, nexus)

    def take_attention(self, nexus: Nexus) -> Asc | None:
        """The oldest unit attention of `nexus`, which is cleared by reporting it."""
        pending = self.attentions.get(nexus)
        if not pending:
            return None
        asc = pending.popleft()
        self.refresh(nexus)
        return asc

    def clear_attention(self, asc: Asc, nexus: Nexus) -> None:
        """Takes `asc` back from `nexus`, which has learned of it in another way."""
        pending = self.attentions.get(nexus)
        if pending is not None and asc in pending:
            pending.remove(asc)
            self.refresh(nexus)

    def refresh(self, nexus: Nexus) -> None:
        """Opens or closes the fast path of `nexus`, by what stands against its commands now."""
        table = self.fast_tables[nexus]
        table.clear()
        if self.volume is None or self.attentions[nexus] or self._holds_up or self.not_ready is not None:
            return
        table.update(self.commands.fast(self, nexus))

    def refresh_all(self) -> None:
        """`refresh` for every nexus: after a change of reservations, capacity, mode pages or readiness."""
        for nexus in self.fast_tables:
            self.refresh(nexus)

    def replace(self, volume: Volume) -> None:
        """`volume` is the medium from now on: the same disk, by another way. Tasks go on, and use it with the next step
        they take; hosts see by MODE SENSE whether it may be written."""
        self.volume = self.mode_pages.volume = volume
        self.refresh_all()

    # -- tasks -------------------------------------------------------------------------------------------------------

    def enter(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.enter`."""
        self.tasks[task] = None
        task.unit = self
        try:
            command = self.commands.find(self, task.cdb)
            task.command = command
            asc = None if command.ignores_attention else self.take_attention(task.nexus)
            if asc is not None:
                raise CheckCondition(Key.UNIT_ATTENTION, asc)
            self.check_access(task, command)
            task.wanted_out = command.data_out(self, task.cdb)
        except CheckCondition as error:
            self.fail(task, error)
            task.immediate_status = True
        except ReservationConflict:
            task.status = Status.RESERVATION_CONFLICT
            task.immediate_status = True

    def check_access(self, task: Task, command: Command) -> None:
        """Raises what stands between this nexus and `command`: reservations, readiness."""
        if self.reservations.conflicts(task.nexus, command, task.cdb):
            raise ReservationConflict
        self.port_groups.state_conflict(task.nexus, command)
        if command.needs_medium:
            not_ready = self.not_ready
            if not_ready is not None:
                self.sanitizing.told()
                raise not_ready
        if command.writes and self.write_protected:
            raise CheckCondition(Key.DATA_PROTECT, Asc.WRITE_PROTECTED)

    def may(self, nexus: Nexus, command: Command) -> bool:
        """Whether `nexus` may send `command` as things stand: asked once for the fast path, not with each command."""
        if command.writes and self.write_protected:
            return False
        try:
            self.port_groups.state_conflict(nexus, command)
        except CheckCondition:
            return False
        return not self.reservations.conflicts(nexus, command, command.usage)

    def execute(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.execute`."""
        if task.aborted or task.immediate_status:
            self._end(task)
        elif self._must_wait(task):
            self._waiting.append(task)
            self.refresh_all()
        else:
            self._run(task)

    def _must_wait(self, task: Task) -> bool:
        """Task attributes (SAM-5, 8.6): an ordered task waits for all before it, and all after wait for it."""
        if task.attribute == Attribute.HEAD_OF_QUEUE:
            return False
        return bool(self._waiting) or self._is_held_up(task)

    def _is_held_up(self, task: Task) -> bool:
        """Whether what is at work keeps `task`, which is next, from being executed."""
        if self._ordered is not None:
            return True
        command: Command = task.command
        waits = task.attribute == Attribute.ORDERED or command.waits_for_others
        return waits and (self.fetches > 0 or any(other.executing for other in self.tasks))

    def fetch_ended(self) -> None:
        """A read that was begun on the spot has ended: who waited for all before it may have waited for this one."""
        self.fetches -= 1
        if self._waiting and not self._running_waiting:
            self._run_waiting()

    def _run(self, task: Task) -> None:
        task.executing = True
        try:
            self.check_access(task, task.command)
            result = task.command.handler(self, task)
        except Exception as error:
            failed(self, task, task.command, error)
            result = None
        if result is None:
            self._end(task)
        else:
            future = asyncio.ensure_future(result)
            self._at_work.add(future)
            future.add_done_callback(partial(self._ended, task))
            if task.attribute == Attribute.ORDERED:
                self._ordered = task
                self.refresh_all()

    def _ended(self, task: Task, future: asyncio.Future[None]) -> None:
        self._at_work.discard(future)
        error = error_of(future)
        if error is not None:
            failed(self, task, task.command, error)
        self._end(task)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Has `work` done beside the tasks (IMMED); `stop` waits for it. It may fail: the medium then says so."""
        future = asyncio.ensure_future(work)
        self._at_work.add(future)
        future.add_done_callback(self._background_ended)

    def _background_ended(self, future: asyncio.Future[None]) -> None:
        self._at_work.discard(future)
        error = future.exception()
        if error is not None:
            log.error("background work failed", lun=self.number, exc_info=error)

    async def stop(self) -> None:
        """Waits until no handler is at work any more; a SANITIZE is broken off. The unit takes no task after that."""
        self.sanitizing.stop()
        while self._at_work:
            await asyncio.wait(self._at_work)

    def fail(self, task: Task, error: CheckCondition) -> None:
        """Ends `task` with CHECK CONDITION and sense data in the format that D_SENSE asks for."""
        task.status = Status.CHECK_CONDITION
        task.sense = self.sense_data(error)

    def sense_data(self, error: CheckCondition) -> bytes:
        """What hosts are told of `error`."""
        return error.descriptor() if self.mode_pages.descriptor_sense else error.fixed()

    def _end(self, task: Task) -> None:
        task.executing = False
        self.tasks.pop(task, None)
        if task is self._ordered:
            self._ordered = None
            self.refresh_all()
        if task.aborted:
            task.status = Status.TASK_ABORTED if task in self._told else Status.GOOD
            self._told.discard(task)
        if task.finished is not None:
            for finished in task.finished:
                finished()
        task.done(task)
        if self._waiting and not self._running_waiting:
            self._run_waiting()

    def _run_waiting(self) -> None:
        """Runs what need not wait any longer. What ends on the spot comes back here by `_end`: once is enough."""
        waiting = self._waiting
        self._running_waiting = True
        while waiting:
            head = waiting[0]
            if self._is_held_up(head):
                break
            waiting.popleft()
            self._run(head)
        self._running_waiting = False
        self.refresh_all()

    def manage(self, nexus: Nexus, function: int, tag: int, done: Callable[[int], None]) -> None:
        """See `arrayd.scsi.unit.Unit`."""
        UNIT_FUNCTIONS[function](nexus, self, tag, done)

    def reset_for(self, originator: Nexus, asc: Asc, ended: Callable[[], None]) -> None:
        """See `arrayd.scsi.unit.Unit`."""

        def reset() -> None:
            # Every nexus is told, the one that asked too (SAM-5, 6.3.3; the conformance suite's MultipathIO.Reset), but
            # for one that resets a unit to be rid of its own PREVENT: there the suite takes that for a failure.
            knowing = originator if originator in self.medium.preventing else None
            self.reset()
            self.establish_for_others(asc, knowing)
            ended()

        self.abort(list(self.tasks), reset, originator)

    def abort(self, tasks: list[Task], ended: Callable[[], None], originator: Nexus | None = None) -> None:
        """Aborts `tasks`; `ended` is called once none of them can touch the medium or a buffer any more.

        With TAS=1 those of other nexuses than `originator`, who asked for it, end with status TASK ABORTED.
        """
        left = [len(tasks)]

        def one_ended() -> None:
            left[0] -= 1
            if left[0] == 0:
                ended()

        if not tasks:
            ended()
        telling = originator is not None and self.mode_pages.task_aborted_status
        for task in tasks:
            task.aborted = True
            if telling and task.nexus is not originator:
                self._told.add(task)
            task.finished = [*(task.finished or ()), one_ended]
        self.sanitizing.wake()
        for task in tasks:
            if not task.executing:
                if task in self._waiting:
                    self._waiting.remove(task)
                self._end(task)

    def dismiss(self) -> None:
        """The unit leaves the LUN map: its tasks are aborted, and end with status TASK ABORTED."""
        tasks = list(self.tasks)
        self._told.update(tasks)
        self.abort(tasks, lambda: None)

    def reset(self) -> None:
        """Logical unit reset (SAM-5, 6.3.3), once its tasks are aborted."""
        self.reservations.reset()
        self.mode_pages.reset()
        self.medium.reset()
        self.refresh_all()
