"""REQUEST SENSE (SPC-5, 6.39): sense data as parameter data, with status GOOD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.kinds import NO_DEVICE
from arrayd.scsi.sense import Asc, CheckCondition, Key

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

DESC = 0x01


def request_sense(unit: LogicalUnit, task: Task) -> None:
    """A pending unit attention, which that clears; else why the unit is not ready, with progress; else nothing."""
    attention = unit.take_attention(task.nexus)
    if unit.device_type == NO_DEVICE:
        sense = CheckCondition(Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)
    elif attention is not None:
        sense = CheckCondition(Key.UNIT_ATTENTION, attention)
    else:
        sense = unit.not_ready or CheckCondition(Key.NO_SENSE, Asc.NONE)
    task.reply(sense.descriptor() if task.cdb[1] & DESC else sense.fixed(), task.cdb[4])


REQUEST_SENSE = Command(
    "REQUEST SENSE",
    0x03,
    None,
    bytes.fromhex("03010000ff04"),
    request_sense,
    reserved=Reserved.ALLOWED,
    ignores_attention=True,
)
