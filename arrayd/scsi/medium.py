"""Whether the medium is there and may be used: TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.

SPC-5, 6.49; SBC-4, 5.31 and 5.14; removable medium: SBC-4, 4.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.command import Command, Reserved, if_removable
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field
from arrayd.scsi.steps import settled

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import Task


class Medium:
    """The state of the medium: ejected, stopped, locked in by nexuses that prevent its removal."""

    def __init__(self) -> None:
        self.ejected = False
        self.stopped = False
        self.preventing: set[Nexus] = set()

    def refusal(self) -> CheckCondition | None:
        """Why the medium cannot be used, or None."""
        if self.ejected:
            return CheckCondition(Key.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
        if self.stopped:
            return CheckCondition(Key.NOT_READY, Asc.INITIALIZING_COMMAND_REQUIRED)
        return None

    def reset(self) -> None:
        """Logical unit reset: a stopped unit is started, nobody prevents removal any more (SPC-5, 6.15)."""
        self.stopped = False
        self.preventing.clear()


def unit_ready(_unit: LogicalUnit, _task: Task) -> None:
    """TEST UNIT READY (SPC-5, 6.49): what stands against it has been raised before it got here."""


async def start_stop_unit(unit: LogicalUnit, task: Task) -> None:
    """START STOP UNIT (SBC-4, 5.31).

    There are no power conditions to change to: a POWER CONDITION is taken and changes nothing, nor do START and LOEJ
    then mean anything. On a removable unit START=0 without LOEJ flushes and leaves the medium in use, as the field's
    conformance suite has it.
    """
    cdb, volume, medium = task.cdb, unit.disk, unit.medium
    refusal = unit.sanitizing.refusal()
    if refusal is not None:
        raise refusal
    if cdb[4] & 0xF0:
        return
    start, load_eject, no_flush = bool(cdb[4] & 0x01), bool(cdb[4] & 0x02), bool(cdb[4] & 0x04)
    if load_eject and not volume.removable:
        raise invalid_field((4, 1))
    if load_eject and medium.preventing:
        raise illegal_request(Asc.MEDIUM_REMOVAL_PREVENTED)
    if not start and not no_flush and not medium.ejected:
        await settled(volume.flush())
    if load_eject:
        _load_or_eject(unit, task.nexus, loaded=start)
    elif not volume.removable:
        medium.stopped = not start
    unit.refresh_all()


def _load_or_eject(unit: LogicalUnit, nexus: Nexus, loaded: bool) -> None:
    if loaded and unit.medium.ejected:
        unit.establish_for_others(Asc.MEDIUM_MAY_HAVE_CHANGED, nexus)
    unit.medium.ejected = not loaded
    unit.medium.stopped = False


def prevent_allow_medium_removal(unit: LogicalUnit, task: Task) -> None:
    """PREVENT ALLOW MEDIUM REMOVAL (SBC-4, 5.14): each nexus prevents for itself until it allows, or is lost."""
    if task.cdb[4] & 0x02:
        raise invalid_field((4, 1))
    if task.cdb[4] & 0x01:
        unit.medium.preventing.add(task.nexus)
    else:
        unit.medium.preventing.discard(task.nexus)


TEST_UNIT_READY = Command(
    "TEST UNIT READY", 0x00, None, bytes.fromhex("000000000004"), unit_ready, reserved=Reserved.ALLOWED,
    needs_medium=True,
)  # fmt: skip

COMMANDS = (
    Command(
        "START STOP UNIT", 0x1B, None, bytes.fromhex("1b010000f704"), start_stop_unit, reserved=Reserved.WRITE,
    ),
    Command(
        "PREVENT ALLOW MEDIUM REMOVAL", 0x1E, None, bytes.fromhex("1e0000000304"), prevent_allow_medium_removal,
        reserved=Reserved.WRITE, offered=if_removable,
    ),
)  # fmt: skip
