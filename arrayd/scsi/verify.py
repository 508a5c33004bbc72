"""VERIFY and WRITE AND VERIFY, 10, 12 and 16 bytes (SBC-4, 5.36 to 5.39 and 5.44 to 5.46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.block import checked_transfer, transfer_bytes, whole_blocks
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, invalid_field
from arrayd.scsi.steps import scratch, settled, steps

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

MEDIUM_ONLY, EVERY_BLOCK, ONE_BLOCK = 0, 1, 3
"""BYTCHK (SBC-4, table 141): the medium can be read; it holds the Data-Out; each block of it holds the Data-Out."""


def byte_check(cdb: bytes) -> int:
    """The BYTCHK field."""
    return cdb[1] >> 1 & 0x03


def first_difference(left: bytes, right: bytes) -> int | None:
    """Where two strings of one length first differ, None where they don't. Halving: memcmp is what does the work."""
    if left == right:
        return None
    low, high = 0, len(left)
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def miscompare(offset: int) -> CheckCondition:
    """MISCOMPARE at byte `offset` of the Data-Out (SBC-4, 4.18.2)."""
    return CheckCondition(Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY, information=offset)


def _verify_data(unit: LogicalUnit, cdb: bytes) -> int:
    length = checked_transfer(unit, cdb)[1]
    check = byte_check(cdb)
    if check == EVERY_BLOCK:
        return length
    if check == ONE_BLOCK:
        return min(length, unit.disk.block_size)
    if check != MEDIUM_ONLY:
        raise invalid_field((1, 2))
    return 0


async def verify(unit: LogicalUnit, task: Task) -> None:
    """VERIFY: reads the range, and compares it as BYTCHK says."""
    offset, length = checked_transfer(unit, task.cdb)
    check = byte_check(task.cdb)
    if check == MEDIUM_ONLY:
        await _check_medium(unit, task, offset, length)
    elif check == EVERY_BLOCK:
        await _compare(unit, task, offset, whole_blocks(unit, task, length))
    else:
        await _compare_each_block(unit, task, offset, length)


async def _check_medium(unit: LogicalUnit, task: Task, offset: int, length: int) -> None:
    async with scratch(unit.scratch) as view:
        for at, size in steps(offset, length):
            if task.aborted:
                return
            await settled(unit.disk.read(at, view[:size]))


async def _compare(unit: LogicalUnit, task: Task, offset: int, data: memoryview) -> None:
    async with scratch(unit.scratch) as view:
        for at, size in steps(offset, len(data)):
            if task.aborted:
                return
            await settled(unit.disk.read(at, view[:size]))
            begin = at - offset
            different = first_difference(bytes(view[:size]), bytes(data[begin : begin + size]))
            if different is not None:
                raise miscompare(begin + different)


async def _compare_each_block(unit: LogicalUnit, task: Task, offset: int, length: int) -> None:
    block = bytes(whole_blocks(unit, task, unit.disk.block_size))
    if not block:
        return
    async with scratch(unit.scratch) as view:
        for at, size in steps(offset, length):
            if task.aborted:
                return
            await settled(unit.disk.read(at, view[:size]))
            different = first_difference(bytes(view[:size]), block * (size // len(block)))
            if different is not None:
                raise miscompare(different % len(block))


def _write_and_verify_data(unit: LogicalUnit, cdb: bytes) -> int:
    if byte_check(cdb) not in (MEDIUM_ONLY, EVERY_BLOCK):
        raise invalid_field((1, 2))
    return transfer_bytes(unit, cdb)


async def write_and_verify(unit: LogicalUnit, task: Task) -> None:
    """WRITE AND VERIFY: durable, then read again, and compared with BYTCHK=1."""
    offset, length = checked_transfer(unit, task.cdb)
    data = whole_blocks(unit, task, length)
    if not data:
        return
    await settled(unit.disk.write(offset, data, durable=True))
    if byte_check(task.cdb) == EVERY_BLOCK:
        await _compare(unit, task, offset, data)
    else:
        await _check_medium(unit, task, offset, len(data))


def _verify_row(name: str, opcode: int, usage: str) -> Command:
    return Command(name, opcode, None, bytes.fromhex(usage), verify, _verify_data, Reserved.READ, needs_medium=True)


def _write_row(name: str, opcode: int, usage: str) -> Command:
    return Command(
        name,
        opcode,
        None,
        bytes.fromhex(usage),
        write_and_verify,
        _write_and_verify_data,
        Reserved.WRITE,
        needs_medium=True,
        writes=True,
    )


COMMANDS = (
    _write_row("WRITE AND VERIFY(10)", 0x2E, "2ef6ffffffff00ffff04"),
    _verify_row("VERIFY(10)", 0x2F, "2ff6ffffffff00ffff04"),
    _write_row("WRITE AND VERIFY(16)", 0x8E, "8ef6ffffffffffffffffffffffff0004"),
    _verify_row("VERIFY(16)", 0x8F, "8ff6ffffffffffffffffffffffff0004"),
    _write_row("WRITE AND VERIFY(12)", 0xAE, "aef6ffffffffffffffff0004"),
    _verify_row("VERIFY(12)", 0xAF, "aff6ffffffffffffffff0004"),
)
