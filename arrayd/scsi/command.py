"""What the table of opcodes says of a command, and how a command is found in it.

`opcodes.py` holds the rows. Dispatch, CDB usage data, REPORT SUPPORTED OPERATION CODES and the reservation rules all
come from them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from arrayd.scsi.sense import Asc, illegal_request
from arrayd.scsi.task import FastTable, Task

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus

SERVICE_ACTION = 0x1F
"""The service action in byte 1 of a CDB."""
NACA = 0x04
"""Normal ACA, in the control byte (SAM-5, 5.2): not offered, so a CDB must not ask for it."""


class Reserved(Enum):
    """What a reservation held by another nexus does to a command (SPC-5, table 67; SBC-4, table 13)."""

    ALLOWED = "allowed whoever holds what"
    READ = "conflicts with exclusive access"
    WRITE = "conflicts with write exclusive and exclusive access"
    OWN_RULE = "decides by service action (PERSISTENT RESERVE, RESERVE, RELEASE)"


def always(_unit: LogicalUnit) -> bool:
    """For commands that every unit with the table offers."""
    return True


def if_removable(unit: LogicalUnit) -> bool:
    """For commands that only a unit with removable medium offers."""
    return unit.disk.removable


def if_thin(unit: LogicalUnit) -> bool:
    """For commands that only a thin provisioned unit offers."""
    return unit.disk.thin


def no_data_out(_unit: LogicalUnit, _cdb: bytes) -> int:
    """For commands without a parameter list or data."""
    return 0


@dataclass(frozen=True, slots=True)
class Command:
    """One row. `usage` is the CDB usage data of SPC-5, 6.36.3: as long as the CDB, its first byte the opcode.

    `action` is the service action (low 5 bits of byte 1), or None when the opcode has none. `data_out` gives the
    Data-Out bytes a CDB asks for (and may raise CheckCondition).
    """

    name: str
    opcode: int
    action: int | None
    usage: bytes
    handler: Callable[[LogicalUnit, Task], Awaitable[None] | None]
    data_out: Callable[[LogicalUnit, bytes], int] = no_data_out
    reserved: Reserved = Reserved.WRITE
    needs_medium: bool = False
    """Refused while the unit is not ready."""
    ignores_attention: bool = False
    """INQUIRY, REPORT LUNS and REQUEST SENSE leave unit attentions pending (SAM-5, 5.14)."""
    writes: bool = False
    """Refused while the unit is write protected."""
    waits_for_others: bool = False
    """Begun only when every task before it has ended, whatever its attribute."""
    offered: Callable[[LogicalUnit], bool] = always
    """Whether this unit has the command at all."""


class CommandTable:
    """The rows for one kind of logical unit, found by opcode and service action.

    `fast` makes the fast table of a unit for a nexus that nothing stands against; `unknown` is the code for opcodes
    that have no row.
    """

    def __init__(
        self,
        commands: Iterable[Command],
        fast: Callable[[LogicalUnit, Nexus], FastTable],
        unknown: Asc = Asc.INVALID_OPERATION_CODE,
    ) -> None:
        self.commands = tuple(commands)
        self.fast = fast
        self._unknown = unknown
        self._plain = {command.opcode: command for command in self.commands if command.action is None}
        self._actions = {(command.opcode, command.action): command for command in self.commands}
        self._with_actions = {command.opcode for command in self.commands if command.action is not None}

    def find(self, unit: LogicalUnit, cdb: bytes) -> Command:
        """The row for `cdb` on `unit`; raises CheckCondition when there is none."""
        opcode = cdb[0]
        command = self._plain.get(opcode)
        if command is None and opcode in self._with_actions:
            command = self._actions.get((opcode, cdb[1] & SERVICE_ACTION))
            if command is None or not command.offered(unit):
                raise illegal_request(Asc.INVALID_FIELD_IN_CDB, (1, 4))
        if command is None or not command.offered(unit):
            raise illegal_request(self._unknown, field=0 if self._unknown is Asc.INVALID_OPERATION_CODE else None)
        control = len(command.usage) - 1
        if cdb[control] & NACA:
            raise illegal_request(Asc.INVALID_FIELD_IN_CDB, (control, 2))
        return command

    def offered(self, unit: LogicalUnit) -> list[Command]:
        """The rows that `unit` has, in the order of operation code and service action."""
        rows = [command for command in self.commands if command.offered(unit)]
        return sorted(rows, key=lambda command: (command.opcode, command.action or 0))
