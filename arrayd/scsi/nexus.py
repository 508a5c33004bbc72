"""An I_T nexus: which logical units an initiator port sees by a target port, and its task management (SAM-5, 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from arrayd.scsi.logical_unit import LogicalUnit
from arrayd.scsi.sense import Asc
from arrayd.scsi.task import FastTable, Function, FunctionResponse, Task

if TYPE_CHECKING:
    from arrayd.scsi.target import ScsiTarget

NEVER_FAST: FastTable = {}


class Nexus:
    """One I_T nexus. `transport_id` is the initiator port's TransportID (SPC-5, 7.6.4.7), `port` the relative target
    port identifier."""

    def __init__(
        self, target: ScsiTarget, initiator: str, isid: bytes, port: int, visible: frozenset[int] | None
    ) -> None:
        self.target = target
        self.initiator = initiator
        self.isid = isid
        self.port = port
        self.visible = visible
        self.units: dict[int, LogicalUnit] = {}
        self.fast: dict[int, FastTable] = {}

    @property
    def initiator_port(self) -> str:
        """The iSCSI initiator port name: `name,i,0xISID` (RFC 7143, 4.2.7.1 and SPC-5, 7.6.4.7)."""
        return f"{self.initiator},i,0x{self.isid.hex()}"

    def sees(self, number: int) -> bool:
        """Whether LUN masking lets this nexus see LUN `number`; LUN 0 it always sees, as a controller if need be."""
        return self.visible is None or number in self.visible

    def enter(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.enter`."""
        task.nexus = self
        unit = self.units.get(task.lun)
        (self.target.absent if unit is None else unit).enter(task)

    def execute(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.execute`."""
        unit: LogicalUnit = task.unit
        unit.execute(task)

    def manage(self, function: int, lun: int, tag: int, done: Callable[[int], None]) -> None:
        """See `arrayd.scsi.task.Nexus.manage`."""
        if function in (Function.TARGET_WARM_RESET, Function.TARGET_COLD_RESET):
            self.target.reset(self, lambda: done(FunctionResponse.COMPLETE))
            return
        unit = self.units.get(lun)
        if unit is None:
            done(FunctionResponse.LUN_DOES_NOT_EXIST)
        elif function == Function.ABORT_TASK:
            tasks = [task for task in unit.tasks if task.nexus is self and task.tag == tag]
            response = FunctionResponse.COMPLETE if tasks else FunctionResponse.TASK_DOES_NOT_EXIST
            unit.abort(tasks, lambda: done(response))
        elif function == Function.ABORT_TASK_SET:
            unit.abort([task for task in unit.tasks if task.nexus is self], lambda: done(FunctionResponse.COMPLETE))
        elif function == Function.CLEAR_TASK_SET:
            self._clear_task_set(unit, done)
        elif function == Function.LUN_RESET:
            reset_units((unit,), self, Asc.BUS_DEVICE_RESET, lambda: done(FunctionResponse.COMPLETE))
        elif function == Function.TASK_REASSIGN:
            done(FunctionResponse.REASSIGNMENT_NOT_SUPPORTED)
        else:
            done(FunctionResponse.NOT_SUPPORTED)

    def _clear_task_set(self, unit: LogicalUnit, done: Callable[[int], None]) -> None:
        """CLEAR TASK SET: the tasks of every nexus; the others learn of theirs by a unit attention (SAM-5, 7.5)."""
        tasks = list(unit.tasks)
        for nexus in {task.nexus for task in tasks if task.nexus is not self}:
            unit.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, nexus)
        unit.abort(tasks, lambda: done(FunctionResponse.COMPLETE))

    def detach(self) -> None:
        """See `arrayd.scsi.task.Nexus.detach`."""
        self.target.detach(self)


def reset_units(units: Iterable[LogicalUnit], originator: Nexus, asc: Asc, ended: Callable[[], None]) -> None:
    """Resets `units` as `originator` asked; `ended` is called when all their tasks are gone."""
    pending = list(units)
    left = [len(pending)]

    def one(unit: LogicalUnit) -> None:
        unit.reset()
        unit.establish_for_others(asc, None)
        left[0] -= 1
        if left[0] == 0:
            ended()

    if not pending:
        ended()
    for unit in pending:
        unit.abort(list(unit.tasks), lambda unit=unit: one(unit))  # type: ignore[misc]
