"""SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-5, 6.43 and 6.30; pages: SPC-5, 7.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.cdb import be16
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field, invalid_parameter
from arrayd.scsi.steps import scratch, settled
from arrayd.volumes.volume import VolumeError

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

SUPPORTED_PAGES = 0x00
"""The one diagnostic page there is: its own list."""
PCV = 0x01
SELF_TEST_CODE, PF, SELF_TEST = 0xE0, 0x10, 0x04


def receive_diagnostic_results(_unit: LogicalUnit, task: Task) -> None:
    """RECEIVE DIAGNOSTIC RESULTS: the supported diagnostic pages, asked for by PCV=1 or by SEND DIAGNOSTIC before."""
    if task.cdb[1] & PCV and task.cdb[2] != SUPPORTED_PAGES:
        raise invalid_field(2)
    task.reply(bytes((SUPPORTED_PAGES, 0, 0, 1, SUPPORTED_PAGES)), be16(task.cdb, 3))


def _parameter_length(_unit: LogicalUnit, cdb: bytes) -> int:
    length = be16(cdb, 3)
    if cdb[1] & SELF_TEST_CODE:
        raise invalid_field((1, 7))
    if cdb[1] & SELF_TEST and length:
        raise invalid_field(3)
    if length and not cdb[1] & PF:
        raise invalid_field((1, 4))
    return length


async def send_diagnostic(unit: LogicalUnit, task: Task) -> None:
    """SEND DIAGNOSTIC: the default self-test, or the page that asks for the supported pages."""
    if task.wanted_out:
        _check_page(bytes(task.data_out[: task.wanted_out]))
    elif task.cdb[1] & SELF_TEST:
        await _self_test(unit)


def _check_page(data: bytes) -> None:
    if len(data) < 4:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if data[0] != SUPPORTED_PAGES:
        raise invalid_parameter(0)
    if be16(data, 2):
        raise invalid_parameter(2)


async def _self_test(unit: LogicalUnit) -> None:
    """Reads the first and the last block of the medium, where there is one that is ready."""
    if unit.volume is None or unit.not_ready is not None:
        return
    volume = unit.volume
    async with scratch(unit.scratch) as view:
        for offset in (0, volume.size - volume.block_size):
            try:
                await settled(volume.read(offset, view[: volume.block_size]))
            except VolumeError as error:
                raise CheckCondition(Key.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST) from error


COMMANDS = (
    Command(
        "RECEIVE DIAGNOSTIC RESULTS", 0x1C, None, bytes.fromhex("1c01ffffff04"), receive_diagnostic_results,
        reserved=Reserved.READ,
    ),
    Command(
        "SEND DIAGNOSTIC", 0x1D, None, bytes.fromhex("1df4ffffff04"), send_diagnostic, _parameter_length,
        Reserved.WRITE,
    ),
)  # fmt: skip
