"""An I_T nexus: which logical units an initiator port sees by a target port (SAM-5, 4.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arrayd.origin import Origin, over_link
from arrayd.scsi.alua import Port
from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.task import DeliveryFailure, FastTable, FunctionResponse, Task
from arrayd.scsi.task_management import manage

if TYPE_CHECKING:
    from arrayd.scsi.data_buffer import Sent
    from arrayd.scsi.target import ScsiTarget
    from arrayd.scsi.unit import Unit


class Nexus:
    """One I_T nexus: an initiator port, and a target port of this array or, over the link, of another: `path` then has
    the names of the arrays in between, the one whose port it is first (figure 22)."""

    def __init__(
        self,
        target: ScsiTarget,
        initiator: str,
        isid: bytes,
        port: Port,
        visible: frozenset[int] | None,
        path: tuple[str, ...] = (),
        local: bool = False,
    ) -> None:
        self.target = target
        self.initiator = initiator
        self.isid = isid
        self.target_port = port
        self.port = port.identifier
        """The relative target port identifier."""
        self.path = path
        self.origin = over_link(initiator, path, local) if path else Origin(initiator, local=local)
        """Who a command that comes by this nexus comes from."""
        self.visible = visible
        self.units: dict[int, Unit] = {}
        self.fast: dict[int, FastTable] = {}
        self.sent: dict[int, Sent] = {}
        """Command interfaces that it wrote, at whatever unit, by buffer ID."""

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
        unit: Unit = task.unit
        unit.execute(task)

    def fail(self, task: Task, failure: DeliveryFailure) -> None:
        """See `arrayd.scsi.task.Nexus.fail`."""
        unit: Unit = task.unit
        if not task.immediate_status:
            task.immediate_status = True
            unit.fail(task, CheckCondition(Key.ABORTED_COMMAND, Asc(failure)))
        unit.execute(task)

    def manage(self, function: int, lun: int, tag: int, done: Callable[[int], None]) -> None:
        """See `arrayd.scsi.task.Nexus.manage`."""
        manage(self, function, lun, tag, done)

    def reset_unit(self, lun: int, done: Callable[[int], None]) -> None:
        """The part that a target reset of another array has here: one logical unit is reset, as by a power on."""
        unit = self.units.get(lun)
        if unit is None:
            done(FunctionResponse.LUN_DOES_NOT_EXIST)
        else:
            unit.reset_for(self, Asc.POWER_ON_OR_RESET, lambda: done(FunctionResponse.COMPLETE))

    def detach(self) -> None:
        """See `arrayd.scsi.task.Nexus.detach`."""
        self.target.detach(self)
