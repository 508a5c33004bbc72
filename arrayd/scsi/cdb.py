"""Command descriptor blocks that name a range of blocks (SPC-5, 4.2.5.2; SBC-4, 5): where the LBA and the length stand.

The `construct` formats document the layouts; `block_range` reads the same fields by precompiled `struct` layouts, and
a property test holds the two together.
"""

from __future__ import annotations

from struct import Struct

from construct import Int8ub, Int16ub, Int32ub, Int64ub
from construct import Struct as Format

READ_WRITE_6 = Format(
    "operation_code" / Int8ub,
    "logical_block_address_high" / Int8ub,
    "logical_block_address" / Int16ub,
    "transfer_length" / Int8ub,
    "control" / Int8ub,
)
"""READ(6) and WRITE(6): 21 bits of LBA, of which the high 5 stand in the low bits of byte 1; length 0 means 256."""

READ_WRITE_10 = Format(
    "operation_code" / Int8ub,
    "flags" / Int8ub,
    "logical_block_address" / Int32ub,
    "group_number" / Int8ub,
    "transfer_length" / Int16ub,
    "control" / Int8ub,
)
"""Every 10-byte command with a range of blocks."""

READ_WRITE_12 = Format(
    "operation_code" / Int8ub,
    "flags" / Int8ub,
    "logical_block_address" / Int32ub,
    "transfer_length" / Int32ub,
    "group_number" / Int8ub,
    "control" / Int8ub,
)
"""Every 12-byte command with a range of blocks."""

READ_WRITE_16 = Format(
    "operation_code" / Int8ub,
    "flags" / Int8ub,
    "logical_block_address" / Int64ub,
    "transfer_length" / Int32ub,
    "group_number" / Int8ub,
    "control" / Int8ub,
)
"""Every 16-byte command with a range of blocks."""

_RANGE_6 = Struct(">xBHB")
_RANGE_10 = Struct(">2xIxH")
_RANGE_12 = Struct(">2xII")
_RANGE_16 = Struct(">2xQI")

SIX_BYTE_BLOCKS_AT_ZERO = 256


def block_range(cdb: bytes) -> tuple[int, int]:
    """LBA and number of blocks of a CDB, whose length follows from the group code in its first byte."""
    group = cdb[0] >> 5
    if group == 0:
        high, low, blocks = _RANGE_6.unpack_from(cdb)
        return (high & 0x1F) << 16 | low, blocks or SIX_BYTE_BLOCKS_AT_ZERO
    layout = _RANGE_16 if group == 4 else _RANGE_12 if group == 5 else _RANGE_10
    lba, blocks = layout.unpack_from(cdb)
    return lba, blocks


def be16(data: bytes | memoryview, at: int) -> int:
    """The big-endian 16-bit field at byte `at`."""
    return int.from_bytes(data[at : at + 2], "big")


def be24(data: bytes | memoryview, at: int) -> int:
    """The big-endian 24-bit field at byte `at`."""
    return int.from_bytes(data[at : at + 3], "big")


def be32(data: bytes | memoryview, at: int) -> int:
    """The big-endian 32-bit field at byte `at`."""
    return int.from_bytes(data[at : at + 4], "big")


def be64(data: bytes | memoryview, at: int) -> int:
    """The big-endian 64-bit field at byte `at`."""
    return int.from_bytes(data[at : at + 8], "big")
