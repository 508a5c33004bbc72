"""The one table of operation codes: every command that each kind of logical unit has.

The rows stand with the code that carries them out; dispatch, CDB usage data, REPORT SUPPORTED OPERATION CODES and the
reservation rules all read them from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi import (
    alua,
    atomic,
    block,
    cache,
    capacity,
    copy,
    data_buffer,
    diagnostics,
    mode_commands,
    provisioning,
    report_supported,
    reserve_commands,
    sanitize,
    verify,
)
from arrayd.scsi.command import CommandTable
from arrayd.scsi.fast_path import fast
from arrayd.scsi.inquiry import INQUIRY
from arrayd.scsi.kinds import DISK, NO_DEVICE, STORAGE_ARRAY_CONTROLLER
from arrayd.scsi.log_pages import LOG_SENSE
from arrayd.scsi.medium import COMMANDS as MEDIUM_COMMANDS
from arrayd.scsi.medium import TEST_UNIT_READY
from arrayd.scsi.report import REPORT_LUNS
from arrayd.scsi.request_sense import REQUEST_SENSE
from arrayd.scsi.sense import Asc

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import FastTable

_ANY_LUN = (INQUIRY, REQUEST_SENSE, REPORT_LUNS)

_ANY_UNIT = (
    *_ANY_LUN,
    TEST_UNIT_READY,
    *mode_commands.COMMANDS,
    *data_buffer.COMMANDS,
    *diagnostics.COMMANDS,
    *report_supported.COMMANDS,
    *alua.COMMANDS,
)

_BLOCK_DEVICE = (
    *_ANY_UNIT,
    *MEDIUM_COMMANDS,
    *capacity.COMMANDS,
    LOG_SENSE,
    *block.COMMANDS,
    *verify.COMMANDS,
    *cache.COMMANDS,
    *atomic.COMMANDS,
    *provisioning.COMMANDS,
    *sanitize.COMMANDS,
    *reserve_commands.COMMANDS,
    *copy.COMMANDS,
)


_COMMAND_DEVICE_NAMES = frozenset(
    (
        *("READ(6)", "READ(10)", "READ(12)", "READ(16)", "WRITE(6)", "WRITE(10)", "WRITE(12)", "WRITE(16)"),
        *("READ CAPACITY(10)", "READ CAPACITY(16)", "SYNCHRONIZE CACHE(10)", "SYNCHRONIZE CACHE(16)", "LOG SENSE"),
        *("TEST UNIT READY", "MODE SENSE(6)", "MODE SENSE(10)", "WRITE BUFFER", "READ BUFFER(10)"),
        *("INQUIRY", "REQUEST SENSE", "REPORT LUNS", "REPORT SUPPORTED OPERATION CODES"),
        *("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "REPORT TARGET PORT GROUPS"),
    )
)
_COMMAND_DEVICE = tuple(row for row in _BLOCK_DEVICE if row.name in _COMMAND_DEVICE_NAMES)
"""Of a disk what it takes to be found, written and read. One host must not stop it for the others: nothing that
reserves, erases, ejects or sets anything."""


def never_fast(_unit: LogicalUnit, _nexus: Nexus) -> FastTable:
    """For units without a medium."""
    return {}


TABLES: dict[int, CommandTable] = {
    DISK: CommandTable(_BLOCK_DEVICE, fast),
    STORAGE_ARRAY_CONTROLLER: CommandTable(_ANY_UNIT, never_fast),
    NO_DEVICE: CommandTable(_ANY_LUN, never_fast, unknown=Asc.LOGICAL_UNIT_NOT_SUPPORTED),
}
"""By peripheral device type."""
COMMAND_DEVICE = CommandTable(_COMMAND_DEVICE, never_fast)
"""Of a disk whose WRITEs are commands (figure 5)."""
