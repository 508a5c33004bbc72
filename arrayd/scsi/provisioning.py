"""Thin provisioning: UNMAP, WRITE SAME, GET LBA STATUS (SBC-4, 4.7, 5.33, 5.48, 5.49 and 5.9)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from typing import TYPE_CHECKING

from arrayd.scsi.block import TRANSFER_LENGTH_AT, check_protection, checked_range
from arrayd.scsi.cdb import be16, be32, be64, block_range
from arrayd.scsi.command import Command, Reserved, if_thin
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field, invalid_parameter
from arrayd.scsi.steps import STEP_BYTES, scratch, settled, steps

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task
    from arrayd.volumes.volume import Extent, Volume

UNMAP_BLOCKS_MAX = 1024 * 1024
UNMAP_DESCRIPTORS_MAX = 256
"""Most blocks and descriptors of one UNMAP (VPD page B0h)."""
WRITE_SAME_BLOCKS_MAX = 0xFFFF
"""Most blocks that one WRITE SAME writes or unmaps: as many as WRITE SAME(10) can say (VPD page B0h)."""
UNMAP_STEP_BYTES = 256 * 1024 * 1024
"""What is unmapped or zeroed before others get their turn."""
UNMAP_RANGES_AT_ONCE = 32
"""So many ranges of one UNMAP are under way together: to wait for each costs several times what it takes itself."""
LBA_STATUS_DESCRIPTORS_MAX = 1024
"""Most extents that one GET LBA STATUS tells."""

ALLOCATION_BYTES = 4096
"""What the disk below allocates at once."""
THRESHOLD_SET_BYTES = 1024 * 1024
"""What log page 0Ch counts in."""

UNMAP_ANCHOR = 0x01
UNMAP_HEADER_BYTES = 8
UNMAP_DESCRIPTOR_BYTES = 16

ANCHOR, UNMAP_BIT, OBSOLETE, NDOB = 0x10, 0x08, 0x06, 0x01
"""Byte 1 of WRITE SAME; NDOB is WRITE SAME(16)'s."""
WRITE_SAME_16 = 0x93

MAPPED, DEALLOCATED = 0, 1
"""Provisioning status (SBC-4, table 76)."""


def granularity_blocks(unit: LogicalUnit) -> int:
    """Logical blocks that the disk below allocates, and so frees, at once."""
    return max(1, ALLOCATION_BYTES // unit.disk.block_size)


def threshold_exponent(unit: LogicalUnit) -> int:
    """A threshold set is 2**this logical blocks (SBC-4, 4.7.3.7.1)."""
    return (THRESHOLD_SET_BYTES // unit.disk.block_size).bit_length() - 1


def _unmap_parameters(_unit: LogicalUnit, cdb: bytes) -> int:
    if cdb[1] & UNMAP_ANCHOR:
        raise invalid_field((1, 0))
    return be16(cdb, 7)


async def unmap(unit: LogicalUnit, task: Task) -> None:
    """UNMAP (SBC-4, 5.33): every descriptor is checked before the first range is unmapped."""
    for together in _together(_unmap_ranges(unit, task)):
        if task.aborted:
            return
        await _unmap_all(unit.disk, together)


def _together(ranges: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The ranges in steps, which come in groups of UNMAP_RANGES_AT_ONCE and UNMAP_STEP_BYTES at the most."""
    group: list[tuple[int, int]] = []
    total = 0
    for offset, length in ranges:
        for at, size in steps(offset, length, UNMAP_STEP_BYTES):
            if group and (len(group) == UNMAP_RANGES_AT_ONCE or total + size > UNMAP_STEP_BYTES):
                yield group
                group, total = [], 0
            group.append((at, size))
            total += size
    if group:
        yield group


async def _unmap_all(disk: Volume, ranges: Iterable[tuple[int, int]]) -> None:
    """Unmaps them; when one fails, once the others have ended. Raises what the first of them that failed did."""
    under_way: list[Awaitable[None]] = []
    try:
        for at, size in ranges:
            pending = disk.unmap(at, size)
            if pending is not None:
                under_way.append(pending)
    finally:
        results = await asyncio.gather(*under_way, return_exceptions=True)
    for result in results:
        if result is not None:
            raise result
    if not under_way:
        await asyncio.sleep(0)


def _unmap_ranges(unit: LogicalUnit, task: Task) -> list[tuple[int, int]]:
    """Offsets and lengths in bytes out of the parameter list; a descriptor that is cut off is ignored."""
    data = bytes(task.data_out[: task.wanted_out])
    if not task.wanted_out:
        return []
    if len(data) < UNMAP_HEADER_BYTES:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    end = min(len(data), UNMAP_HEADER_BYTES + be16(data, 2))
    block_size = unit.disk.block_size
    capacity, total, ranges = unit.disk.size // block_size, 0, []
    for at in range(UNMAP_HEADER_BYTES, end - UNMAP_DESCRIPTOR_BYTES + 1, UNMAP_DESCRIPTOR_BYTES):
        lba, blocks = be64(data, at), be32(data, at + 8)
        if lba + blocks > capacity:
            raise CheckCondition(Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE, information=max(lba, capacity))
        total += blocks
        ranges.append((lba * block_size, blocks * block_size))
        if total > UNMAP_BLOCKS_MAX:
            raise invalid_parameter(at + 8)
        if len(ranges) > UNMAP_DESCRIPTORS_MAX:
            raise invalid_parameter(2)
    return ranges


def _has_data_out(cdb: bytes) -> bool:
    return not (cdb[0] == WRITE_SAME_16 and cdb[1] & NDOB)


def _write_same_data(unit: LogicalUnit, cdb: bytes) -> int:
    check_protection(cdb)
    if cdb[1] & ANCHOR:
        raise invalid_field((1, 4))
    if cdb[1] & (OBSOLETE if cdb[0] == WRITE_SAME_16 else OBSOLETE | NDOB):
        raise invalid_field((1, 2))
    if cdb[1] & UNMAP_BIT and not unit.disk.thin:
        raise invalid_field((1, 3))
    _write_same_range(unit, cdb)
    return unit.disk.block_size if _has_data_out(cdb) else 0


def _write_same_range(unit: LogicalUnit, cdb: bytes) -> tuple[int, int]:
    """Offset and length in bytes; 0 blocks are refused (WSNZ=1)."""
    offset, length = checked_range(unit, cdb)
    if not 0 < block_range(cdb)[1] <= WRITE_SAME_BLOCKS_MAX:
        raise invalid_field(TRANSFER_LENGTH_AT[cdb[0] >> 5])
    return offset, length


async def write_same(unit: LogicalUnit, task: Task) -> None:
    """WRITE SAME: zeros are unmapped (UNMAP=1) or written as zeros at once, anything else is written in steps."""
    cdb = task.cdb
    offset, length = _write_same_range(unit, cdb)
    # One block exactly: a host that sends more or less means another block size.
    if _has_data_out(cdb) and (task.expected_out != task.wanted_out or len(task.data_out) != task.wanted_out):
        raise illegal_request(Asc.INVALID_FIELD_IN_CDB)
    block = bytes(task.data_out[: task.wanted_out])
    if any(block):
        await _write_repeatedly(unit, task, block, offset, length)
        return
    for at, size in steps(offset, length, UNMAP_STEP_BYTES):
        if task.aborted:
            return
        await settled(unit.disk.unmap(at, size) if cdb[1] & UNMAP_BIT else unit.disk.write_zeros(at, size))


async def _write_repeatedly(unit: LogicalUnit, task: Task, block: bytes, offset: int, length: int) -> None:
    async with scratch(unit.scratch) as view:
        filled = min(STEP_BYTES, length)
        view[:filled] = block * (filled // len(block))
        for at, size in steps(offset, length):
            if task.aborted:
                return
            await settled(unit.disk.write(at, view[:size]))


async def get_lba_status(unit: LogicalUnit, task: Task) -> None:
    """GET LBA STATUS(16) (SBC-4, 5.9): extents from the starting LBA on, as many as fit, one at the least."""
    volume = unit.disk
    lba, allocation = be64(task.cdb, 2), be32(task.cdb, 10)
    capacity = volume.size // volume.block_size
    if lba >= capacity:
        raise CheckCondition(Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE, information=lba)
    limit = min(max(1, (allocation - 8) // 16), LBA_STATUS_DESCRIPTORS_MAX)
    offset = lba * volume.block_size
    extents = await volume.extents(offset, volume.size - offset, limit)
    listed = b"".join(_lba_status(extent, volume.block_size, volume.thin) for extent in extents)
    task.reply((4 + len(listed)).to_bytes(4, "big") + bytes(4) + listed, allocation)


def _lba_status(extent: Extent, block_size: int, thin: bool) -> bytes:
    """SBC-4, table 75. What is longer than a descriptor can say is told in part."""
    blocks = min(extent.length // block_size, 0xFFFFFFFF)
    status = MAPPED if extent.mapped or not thin else DEALLOCATED
    return (extent.offset // block_size).to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes((status, 0, 0, 0))


COMMANDS = (
    Command(
        "WRITE SAME(10)", 0x41, None, bytes.fromhex("41f8ffffffff00ffff04"), write_same, _write_same_data,
        Reserved.WRITE, needs_medium=True, writes=True,
    ),
    Command(
        "UNMAP", 0x42, None, bytes.fromhex("42010000000000ffff04"), unmap, _unmap_parameters,
        Reserved.WRITE, needs_medium=True, writes=True, offered=if_thin,
    ),
    Command(
        "WRITE SAME(16)", WRITE_SAME_16, None, bytes.fromhex("93f9ffffffffffffffffffffffff0004"), write_same,
        _write_same_data, Reserved.WRITE, needs_medium=True, writes=True,
    ),
    Command(
        "GET LBA STATUS(16)", 0x9E, 0x12, bytes.fromhex("9e12ffffffffffffffffffffffff0004"), get_lba_status,
        reserved=Reserved.READ, needs_medium=True,
    ),
)  # fmt: skip
