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


class Reserved(Enum):
    """What a reservation held by another nexus does to a command (SPC-5, table 67; SBC-4, table 13)."""

    ALLOWED = "allowed whoever holds what"
    READ = "conflicts with exclusive access"
    WRITE = "conflicts with write exclusive and exclusive access"
    OWN_RULE = "decides by service action (PERSISTENT RESERVE, RESERVE, RELEASE)"


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

    def find(self, cdb: bytes) -> Command:
        """The row for `cdb`; raises CheckCondition when there is none."""
        opcode = cdb[0]
        command = self._plain.get(opcode)
        if command is not None:
            return command
        if opcode not in self._with_actions:
            raise illegal_request(self._unknown, field=None if self._unknown is not Asc.INVALID_OPERATION_CODE else 0)
        command = self._actions.get((opcode, cdb[1] & 0x1F))
        if command is None:
            raise illegal_request(Asc.INVALID_FIELD_IN_CDB, (1, 4))
        return command
