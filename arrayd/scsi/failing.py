"""What a host is told when the handler of its command raised: the same of a logical unit and of a virtual volume."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from arrayd.log import get_logger
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, ReservationConflict, illegal_request
from arrayd.scsi.task import Status, Task
from arrayd.volumes.volume import VolumeFailed, VolumeFull, VolumeNotReady, VolumeReadOnly, VolumeRefused

if TYPE_CHECKING:
    from arrayd.scsi.unit import Unit

log = get_logger("scsi")


def error_of(future: asyncio.Future[None]) -> BaseException | None:
    """What a handler that has ended raised; one that was cancelled has not done its work either."""
    return asyncio.CancelledError() if future.cancelled() else future.exception()


def failed(unit: Unit, task: Task, command: Command, error: BaseException) -> None:
    """Turns what a handler raised into status and sense; what nobody foresaw is logged, and the task fails."""
    if isinstance(error, ReservationConflict):
        task.status = Status.RESERVATION_CONFLICT
    elif isinstance(error, CheckCondition):
        unit.fail(task, error)
    elif isinstance(error, VolumeFull):
        unit.fail(task, CheckCondition(Key.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED))
    elif isinstance(error, VolumeReadOnly):
        unit.fail(task, CheckCondition(Key.DATA_PROTECT, Asc.WRITE_PROTECTED))
    elif isinstance(error, VolumeRefused):
        unit.fail(task, illegal_request(Asc.COMMAND_SEQUENCE_ERROR))
    elif isinstance(error, VolumeNotReady):
        unit.fail(task, CheckCondition(Key.NOT_READY, Asc.MANUAL_INTERVENTION_REQUIRED))
    elif isinstance(error, VolumeFailed):
        asc = Asc.WRITE_ERROR if command.reserved is Reserved.WRITE else Asc.UNRECOVERED_READ_ERROR
        unit.fail(task, CheckCondition(Key.MEDIUM_ERROR, asc))
    else:
        log.error("command failed", opcode=task.cdb[0], lun=unit.number, exc_info=error)
        unit.fail(task, CheckCondition(Key.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE))
