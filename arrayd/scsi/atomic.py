"""Commands that read, decide and write as one: COMPARE AND WRITE and ORWRITE(16) (SBC-4, 5.3 and 5.12).

Both hold a lock on their range, so that no other write to it takes effect in between. WRITE ATOMIC(16) is not offered:
a power loss in the middle of a write can leave part of it on the medium, and nothing here undoes that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from arrayd.scsi.block import check_protection, checked_transfer, forces_unit_access, transfer_bytes, whole_blocks
from arrayd.scsi.cdb import be64
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request
from arrayd.scsi.steps import scratch, settled, steps
from arrayd.scsi.verify import first_difference, miscompare

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task
    from arrayd.volumes.volume import Volume

COMPARE_AND_WRITE_BLOCKS_MAX = 255
"""As many as the CDB's NUMBER OF LOGICAL BLOCKS can say (VPD page B0h)."""
BLOCKS_AT = 13


def _compared_range(unit: LogicalUnit, cdb: bytes) -> tuple[int, int]:
    """Offset and length in bytes of a COMPARE AND WRITE."""
    check_protection(cdb)
    volume = unit.disk
    lba, blocks = be64(cdb, 2), cdb[BLOCKS_AT]
    capacity = volume.size // volume.block_size
    if lba >= capacity or lba + blocks > capacity:
        raise CheckCondition(Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE, information=max(lba, capacity))
    return lba * volume.block_size, blocks * volume.block_size


def _compare_and_write_data(unit: LogicalUnit, cdb: bytes) -> int:
    return 2 * _compared_range(unit, cdb)[1]


async def compare_and_write(unit: LogicalUnit, task: Task) -> None:
    """COMPARE AND WRITE: the first half of the Data-Out is what must be there, the second what is written then."""
    offset, length = _compared_range(unit, task.cdb)
    if task.expected_out != task.wanted_out or len(task.data_out) != task.wanted_out:
        raise illegal_request(Asc.INVALID_FIELD_IN_CDB, BLOCKS_AT)
    if not length:
        return
    expected, written = task.data_out[:length], task.data_out[length:]
    async with scratch(unit.scratch) as view, _locked(unit, offset, length) as volume:
        for at, size in steps(offset, length):
            await settled(volume.read(at, view[:size]))
            begin = at - offset
            different = first_difference(bytes(view[:size]), bytes(expected[begin : begin + size]))
            if different is not None:
                raise miscompare(begin + different)
        if not task.aborted:
            await settled(volume.write_under_lock(offset, written, forces_unit_access(task.cdb)))


@asynccontextmanager
async def _locked(unit: LogicalUnit, offset: int, length: int) -> AsyncIterator[Volume]:
    """The volume of the unit, as it is when its lock is asked for: who has that writes by this one and no other."""
    volume = unit.disk
    async with volume.lock(offset, length):
        yield volume


async def orwrite(unit: LogicalUnit, task: Task) -> None:
    """ORWRITE(16): sets the bits of the Data-Out, with no other write in between."""
    offset, length = checked_transfer(unit, task.cdb)
    data = whole_blocks(unit, task, length)
    if not data:
        return
    durable = forces_unit_access(task.cdb)
    async with scratch(unit.scratch) as view, _locked(unit, offset, len(data)) as volume:
        for at, size in steps(offset, len(data)):
            if task.aborted:
                return
            part = view[:size]
            await settled(volume.read(at, part))
            begin = at - offset
            merged = int.from_bytes(part, "little") | int.from_bytes(data[begin : begin + size], "little")
            part[:] = merged.to_bytes(size, "little")
            await settled(volume.write_under_lock(at, part, durable))


COMMANDS = (
    Command(
        "COMPARE AND WRITE", 0x89, None, bytes.fromhex("89f8ffffffffffffffff000000ff0004"), compare_and_write,
        _compare_and_write_data, Reserved.WRITE, needs_medium=True, writes=True,
    ),
    Command(
        "ORWRITE(16)", 0x8B, None, bytes.fromhex("8bf8ffffffffffffffffffffffff0004"), orwrite, transfer_bytes,
        Reserved.WRITE, needs_medium=True, writes=True,
    ),
)  # fmt: skip
