"""READ and WRITE, 6, 10, 12 and 16 bytes, the long way (SBC-4, 5.15 to 5.18 and 5.40 to 5.43); see also `fast_path`.

Here also what every command on a range of blocks checks alike.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from arrayd.buffers import taken
from arrayd.scsi.cdb import block_range
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, invalid_field
from arrayd.scsi.task import MAX_TRANSFER_BYTES, SENDFILE_BYTES, FileExtent, Task

if TYPE_CHECKING:
    from arrayd.buffers import PooledBuffer
    from arrayd.scsi.logical_unit import LogicalUnit

PROTECT = 0xE0
FUA = 0x08
SIX_BYTE_OPCODES = 0x20
"""Operation codes below this have 6-byte CDBs: no protection, no FUA."""

TRANSFER_LENGTH_AT = {0: 4, 1: 7, 2: 7, 4: 10, 5: 6}
"""Where TRANSFER LENGTH stands in a CDB, by group code."""


def checked_range(unit: LogicalUnit, cdb: bytes) -> tuple[int, int]:
    """Offset and length in bytes of the CDB's range of blocks, which lies within capacity.

    A range of no blocks must start within it, too. The sense data names the first block that is not there.
    """
    volume = unit.disk
    lba, blocks = block_range(cdb)
    capacity = volume.size // volume.block_size
    if lba >= capacity or lba + blocks > capacity:
        raise CheckCondition(Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE, information=max(lba, capacity))
    return lba * volume.block_size, blocks * volume.block_size


def check_protection(cdb: bytes) -> None:
    """RDPROTECT, WRPROTECT, VRPROTECT and ORPROTECT must be 0: no volume has protection information."""
    if cdb[0] >= SIX_BYTE_OPCODES and cdb[1] & PROTECT:
        raise invalid_field((1, 7))


def checked_transfer(unit: LogicalUnit, cdb: bytes) -> tuple[int, int]:
    """`checked_range` for what is transferred at once, within the limit that VPD page B0h tells."""
    check_protection(cdb)
    offset, length = checked_range(unit, cdb)
    if length > MAX_TRANSFER_BYTES:
        raise invalid_field(TRANSFER_LENGTH_AT[cdb[0] >> 5])
    return offset, length


def transfer_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """Data-Out of a command that transfers its range of blocks."""
    return checked_transfer(unit, cdb)[1]


def forces_unit_access(cdb: bytes) -> bool:
    """FUA: to the medium and from it, not only to and from a cache."""
    return cdb[0] >= SIX_BYTE_OPCODES and bool(cdb[1] & FUA)


def whole_blocks(unit: LogicalUnit, task: Task, length: int) -> memoryview:
    """The whole blocks of Data-Out that came, `length` bytes at the most (a host may send fewer than its CDB says)."""
    length = min(length, len(task.data_out))
    return task.data_out[: length - length % unit.disk.block_size]


def read(unit: LogicalUnit, task: Task) -> Awaitable[None] | None:
    """READ: into a pooled buffer, or by naming the file that a long warm range lies in."""
    volume = unit.disk
    offset, length = checked_transfer(unit, task.cdb)
    if not length:
        return None
    if forces_unit_access(task.cdb):
        return _read_from_medium(unit, task, offset, length)
    if task.takes_file and length >= SENDFILE_BYTES:
        file = volume.warm_file(offset, length)
        if file is not None:
            task.data_in = FileExtent(file, offset, length)
            return None
    buffer = unit.buffers.take(length)
    if buffer is None:
        return _read_later(unit, task, offset, length)
    return _read_into(unit, task, offset, buffer)


def _read_into(unit: LogicalUnit, task: Task, offset: int, buffer: PooledBuffer) -> Awaitable[None] | None:
    try:
        pending = unit.disk.read_from(task.nexus.origin, offset, buffer.view)
    except BaseException:
        buffer.release()
        raise
    if pending is not None:
        return _finish_read(task, buffer, pending)
    task.buffer = buffer
    task.data_in = buffer.view
    return None


async def _finish_read(task: Task, buffer: PooledBuffer, pending: Awaitable[None]) -> None:
    try:
        await pending
    except BaseException:
        buffer.release()
        raise
    task.buffer = buffer
    task.data_in = buffer.view


async def _read_later(unit: LogicalUnit, task: Task, offset: int, length: int) -> None:
    buffer = await taken(unit.buffers, length)
    if task.aborted:
        buffer.release()
        return
    pending = _read_into(unit, task, offset, buffer)
    if pending is not None:
        await pending


async def _read_from_medium(unit: LogicalUnit, task: Task, offset: int, length: int) -> None:
    """FUA: what a cache holds goes to the medium before it is read (SBC-4, 4.15)."""
    if unit.disk.write_cache:
        pending = unit.disk.flush()
        if pending is not None:
            await pending
    await _read_later(unit, task, offset, length)


def write(unit: LogicalUnit, task: Task) -> Awaitable[None] | None:
    """WRITE: durable before it is answered with FUA, or without a write cache."""
    offset, length = checked_transfer(unit, task.cdb)
    data = whole_blocks(unit, task, length)
    if not data:
        return None
    return unit.disk.write_from(task.nexus.origin, offset, data, forces_unit_access(task.cdb))


def _read_row(name: str, opcode: int, usage: str) -> Command:
    return Command(name, opcode, None, bytes.fromhex(usage), read, reserved=Reserved.READ, needs_medium=True)


def _write_row(name: str, opcode: int, usage: str) -> Command:
    return Command(
        name, opcode, None, bytes.fromhex(usage), write, transfer_bytes, Reserved.WRITE, needs_medium=True, writes=True
    )


READ_10 = _read_row("READ(10)", 0x28, "28f8ffffffff00ffff04")
WRITE_10 = _write_row("WRITE(10)", 0x2A, "2af8ffffffff00ffff04")

COMMANDS = (
    _read_row("READ(6)", 0x08, "081fffffff04"),
    _write_row("WRITE(6)", 0x0A, "0a1fffffff04"),
    READ_10,
    WRITE_10,
    _read_row("READ(16)", 0x88, "88f8ffffffffffffffffffffffff0004"),
    _write_row("WRITE(16)", 0x8A, "8af8ffffffffffffffffffffffff0004"),
    _read_row("READ(12)", 0xA8, "a8f8ffffffffffffffff0004"),
    _write_row("WRITE(12)", 0xAA, "aaf8ffffffffffffffff0004"),
)
