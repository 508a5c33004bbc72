"""READ CAPACITY (SBC-4, 5.19 and 5.20), and READ DEFECT DATA of a medium without defects (SBC-4, 5.21 and 5.22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.cdb import be16, be32, be64
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import invalid_field

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

LBPME_LBPRZ = 0xC0
"""Thin provisioned, and unmapped blocks read as zeros (SBC-4, table 88)."""

TOO_MANY_BLOCKS_10 = 0xFFFFFFFF

PRIMARY_AND_GROWN = 0x18
DEFECT_FORMAT = 0x07


def read_capacity_10(unit: LogicalUnit, task: Task) -> None:
    """READ CAPACITY(10): PMI is obsolete, so the LBA must be 0."""
    if be32(task.cdb, 2) and not task.cdb[8] & 0x01:
        raise invalid_field(2)
    volume = unit.disk
    last = min(volume.size // volume.block_size - 1, TOO_MANY_BLOCKS_10)
    task.data_in = last.to_bytes(4, "big") + volume.block_size.to_bytes(4, "big")


def read_capacity_16(unit: LogicalUnit, task: Task) -> None:
    """READ CAPACITY(16)."""
    if be64(task.cdb, 2) and not task.cdb[14] & 0x01:
        raise invalid_field(2)
    volume = unit.disk
    last = volume.size // volume.block_size - 1
    exponent = (volume.physical_block_size // volume.block_size).bit_length() - 1
    data = last.to_bytes(8, "big") + volume.block_size.to_bytes(4, "big")
    data += bytes((0, exponent, LBPME_LBPRZ if volume.thin else 0))
    task.reply(data.ljust(32, b"\0"), be32(task.cdb, 10))


def read_defect_data_10(_unit: LogicalUnit, task: Task) -> None:
    """READ DEFECT DATA(10): the list asked for, which is empty."""
    task.reply(bytes((0, _list_asked_for(task.cdb[2]), 0, 0)), be16(task.cdb, 7))


def read_defect_data_12(_unit: LogicalUnit, task: Task) -> None:
    """READ DEFECT DATA(12): the list asked for, which is empty."""
    task.reply(bytes((0, _list_asked_for(task.cdb[1]), 0, 0, 0, 0, 0, 0)), be32(task.cdb, 6))


def _list_asked_for(flags: int) -> int:
    """REQ_PLIST, REQ_GLIST and format come back as PLISTV, GLISTV and format."""
    return flags & (PRIMARY_AND_GROWN | DEFECT_FORMAT)


COMMANDS = (
    Command(
        "READ CAPACITY(10)", 0x25, None, bytes.fromhex("2500ffffffff00000104"), read_capacity_10,
        reserved=Reserved.ALLOWED, needs_medium=True,
    ),
    Command(
        "READ DEFECT DATA(10)", 0x37, None, bytes.fromhex("37001f00000000ffff04"), read_defect_data_10,
        reserved=Reserved.READ, needs_medium=True,
    ),
    Command(
        "READ CAPACITY(16)", 0x9E, 0x10, bytes.fromhex("9e10ffffffffffffffffffffffff0104"), read_capacity_16,
        reserved=Reserved.ALLOWED, needs_medium=True,
    ),
    Command(
        "READ DEFECT DATA(12)", 0xB7, None, bytes.fromhex("b71f00000000ffffffff0004"), read_defect_data_12,
        reserved=Reserved.READ, needs_medium=True,
    ),
)  # fmt: skip
