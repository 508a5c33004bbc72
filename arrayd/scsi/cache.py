"""SYNCHRONIZE CACHE and PRE-FETCH, 10 and 16 bytes (SBC-4, 5.34, 5.35, 5.13 and 5.14)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from arrayd.scsi.block import checked_range
from arrayd.scsi.cdb import block_range
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.steps import scratch, settled, steps
from arrayd.scsi.task import Status

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

IMMED = 0x02

PREFETCH_BYTES_MAX = 64 * 1024 * 1024
"""What one PRE-FETCH brings into memory at the most: more does not count as fitting into the cache."""


def synchronize_cache(unit: LogicalUnit, task: Task) -> Awaitable[None] | None:
    """SYNCHRONIZE CACHE: the whole cache, whatever range is named."""
    checked_range(unit, task.cdb)
    pending = unit.disk.flush()
    if pending is not None and task.cdb[1] & IMMED:
        unit.in_background(settled(pending))
        return None
    return pending


def pre_fetch(unit: LogicalUnit, task: Task) -> Awaitable[None] | None:
    """PRE-FETCH: CONDITION MET says that the whole range fits into memory, GOOD that only part of it does."""
    offset, length = checked_range(unit, task.cdb)
    if not block_range(task.cdb)[1]:
        length = unit.disk.size - offset
    if length <= PREFETCH_BYTES_MAX:
        task.status = Status.CONDITION_MET
    fetching = _fetch(unit, task, offset, min(length, PREFETCH_BYTES_MAX))
    if task.cdb[1] & IMMED:
        unit.in_background(fetching)
        return None
    return fetching


async def _fetch(unit: LogicalUnit, task: Task, offset: int, length: int) -> None:
    async with scratch(unit.scratch) as view:
        for at, size in steps(offset, length):
            if task.aborted:
                return
            await settled(unit.disk.read(at, view[:size]))


def _synchronize_row(name: str, opcode: int, usage: str) -> Command:
    return Command(
        name, opcode, None, bytes.fromhex(usage), synchronize_cache, reserved=Reserved.WRITE, needs_medium=True
    )


def _pre_fetch_row(name: str, opcode: int, usage: str) -> Command:
    return Command(name, opcode, None, bytes.fromhex(usage), pre_fetch, reserved=Reserved.READ, needs_medium=True)


COMMANDS = (
    _pre_fetch_row("PRE-FETCH(10)", 0x34, "3402ffffffff00ffff04"),
    _synchronize_row("SYNCHRONIZE CACHE(10)", 0x35, "3502ffffffff00ffff04"),
    _pre_fetch_row("PRE-FETCH(16)", 0x90, "9002ffffffffffffffffffffffff0004"),
    _synchronize_row("SYNCHRONIZE CACHE(16)", 0x91, "9102ffffffffffffffffffffffff0004"),
)
