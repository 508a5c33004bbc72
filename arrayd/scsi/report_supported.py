"""What a logical unit can do, told from the tables that make it do it.

REPORT SUPPORTED OPERATION CODES (SPC-5, 6.36) and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5, 6.37).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.cdb import be16, be32
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import invalid_field
from arrayd.scsi.task import Function
from arrayd.scsi.task_management import TARGET_FUNCTIONS, UNIT_FUNCTIONS

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

MAINTENANCE_IN = 0xA3

RCTD = 0x80
REPORTING_OPTIONS = 0x07
ALL_COMMANDS, WITHOUT_ACTION, WITH_ACTION, EITHER = 0, 1, 2, 3
"""REPORTING OPTIONS (SPC-5, table 274)."""

NOT_SUPPORTED, SUPPORTED = 0x01, 0x03
"""SUPPORT (SPC-5, table 279): not at all; as a standard says."""
CTDP_ONE = 0x80
CTDP, SERVACTV = 0x02, 0x01

TIMEOUTS_BYTES = 12
NOMINAL_SECONDS, RECOMMENDED_SECONDS = 1, 30
"""Command timeouts (SPC-5, 6.36.4): for commands that a disk below may delay."""
SLOW_RECOMMENDED_SECONDS = 3600
"""For commands that work on a whole volume."""

REPD = 0x80
ATS, ATSS, CTSS, LURS, TRS = 0x80, 0x40, 0x10, 0x08, 0x02
FUNCTION_BITS = {
    Function.ABORT_TASK: ATS,
    Function.ABORT_TASK_SET: ATSS,
    Function.CLEAR_TASK_SET: CTSS,
    Function.LUN_RESET: LURS,
    Function.TARGET_WARM_RESET: TRS,
}
"""Byte 0 of the answer (SPC-5, table 282); target reset is SPC-3's bit, which tools still show."""


def report_supported_operation_codes(unit: LogicalUnit, task: Task) -> None:
    """REPORT SUPPORTED OPERATION CODES: the whole table, or one row of it."""
    cdb = task.cdb
    option, timeouts = cdb[2] & REPORTING_OPTIONS, bool(cdb[2] & RCTD)
    rows = unit.commands.offered(unit)
    if option == ALL_COMMANDS:
        listed = b"".join(_descriptor(row, timeouts) for row in rows)
        data = len(listed).to_bytes(4, "big") + listed
    elif option in (WITHOUT_ACTION, WITH_ACTION, EITHER):
        data = _one_command(_asked_for(rows, option, cdb[3], be16(cdb, 4)), timeouts)
    else:
        raise invalid_field((2, 2))
    task.reply(data, be32(cdb, 6))


def _asked_for(rows: list[Command], option: int, opcode: int, action: int) -> Command | None:
    """The row that options 1 to 3 name (SPC-5, table 274)."""
    found = [row for row in rows if row.opcode == opcode]
    has_actions = any(row.action is not None for row in found)
    if found and option == WITHOUT_ACTION and has_actions:
        raise invalid_field((2, 2))
    if found and option == WITH_ACTION and not has_actions:
        raise invalid_field((2, 2))
    if not has_actions and option == EITHER and action:
        return None
    wanted = action if has_actions else None
    return next((row for row in found if row.action == wanted), None)


def _descriptor(row: Command, timeouts: bool) -> bytes:
    """SPC-5, table 276."""
    flags = (CTDP if timeouts else 0) | (SERVACTV if row.action is not None else 0)
    head = bytes((row.opcode, 0)) + (row.action or 0).to_bytes(2, "big") + bytes((0, flags))
    return head + len(row.usage).to_bytes(2, "big") + (_timeouts(row) if timeouts else b"")


def _one_command(row: Command | None, timeouts: bool) -> bytes:
    """SPC-5, table 278."""
    if row is None:
        return bytes((0, NOT_SUPPORTED, 0, 0))
    flags = SUPPORTED | (CTDP_ONE if timeouts else 0)
    return bytes((0, flags)) + len(row.usage).to_bytes(2, "big") + row.usage + (_timeouts(row) if timeouts else b"")


def _timeouts(row: Command) -> bytes:
    """The command timeouts descriptor (SPC-5, table 280)."""
    recommended = SLOW_RECOMMENDED_SECONDS if row.waits_for_others else RECOMMENDED_SECONDS
    head = (TIMEOUTS_BYTES - 2).to_bytes(2, "big") + bytes(2)
    return head + NOMINAL_SECONDS.to_bytes(4, "big") + recommended.to_bytes(4, "big")


def report_supported_task_management_functions(_unit: LogicalUnit, task: Task) -> None:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: basic data, or extended with REPD=1, which tells no timeouts."""
    supported = 0
    for function, bit in FUNCTION_BITS.items():
        if function in UNIT_FUNCTIONS or function in TARGET_FUNCTIONS:
            supported |= bit
    data = bytes((supported, 0, 0, 0))
    if task.cdb[2] & REPD:
        data = bytes((supported, 0, 0, 12)) + bytes(12)
    task.reply(data, be32(task.cdb, 6))


COMMANDS = (
    Command(
        "REPORT SUPPORTED OPERATION CODES", MAINTENANCE_IN, 0x0C, bytes.fromhex("a30c87ffffffffffffff0004"),
        report_supported_operation_codes, reserved=Reserved.READ,
    ),
    Command(
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", MAINTENANCE_IN, 0x0D, bytes.fromhex("a30d80000000ffffffff0004"),
        report_supported_task_management_functions, reserved=Reserved.READ,
    ),
)  # fmt: skip
