"""An I_T nexus: which logical units an initiator port sees by a target port (SAM-5, 4.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.task import DeliveryFailure, FastTable, Task
from arrayd.scsi.task_management import manage

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.target import ScsiTarget


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

    def see(self, luns: frozenset[int] | None) -> None:
        """See `arrayd.scsi.task.Nexus.see`."""
        if luns != self.visible:
            self.visible = luns
            self.target.show(self)

    def enter(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.enter`."""
        task.nexus = self
        unit = self.units.get(task.lun)
        (self.target.absent if unit is None else unit).enter(task)

    def execute(self, task: Task) -> None:
        """See `arrayd.scsi.task.Nexus.execute`."""
        unit: LogicalUnit = task.unit
        unit.execute(task)

    def fail(self, task: Task, failure: DeliveryFailure) -> None:
        """See `arrayd.scsi.task.Nexus.fail`."""
        unit: LogicalUnit = task.unit
        if not task.immediate_status:
            task.immediate_status = True
            unit.fail(task, CheckCondition(Key.ABORTED_COMMAND, Asc(failure)))
        unit.execute(task)

    def manage(self, function: int, lun: int, tag: int, done: Callable[[int], None]) -> None:
        """See `arrayd.scsi.task.Nexus.manage`."""
        manage(self, function, lun, tag, done)

    def detach(self) -> None:
        """See `arrayd.scsi.task.Nexus.detach`."""
        self.target.detach(self)
