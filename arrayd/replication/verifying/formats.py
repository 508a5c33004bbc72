"""What is asked to compare the two sides of a group, and to have one become as the other is.

SUMS is asked of either side, MEND and CHECK of the side with the P-VOLs. Each is answered under the generation that it
was asked in. All integers are big-endian.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

from construct import GreedyBytes, Int8ub, Int16ub, Int32ub, Int64ub, Struct

from arrayd.replication.asking import POSITION, Asked, behind_done, done, head, parsed, position_of
from arrayd.replication.journal.format import FormatError
from arrayd.replication.journal.regions import START, Position
from arrayd.replication.sums import SUM_BYTES, SUM_BYTES_MIN, SUMS_MAX

MEND_BYTES_MAX = 256 * 1024
"""Of one MEND."""
TEXT_BYTES_MAX = 500
"""Of what is told about a damaged journal."""

SUMS = Struct("generation" / Int64ub, "number" / Int16ub, "offset" / Int64ub, "length" / Int32ub, "sum_bytes" / Int32ub)
SUMMED = Struct(
    "stored" / POSITION,  # what was summed has all of the group's writes before this, and none behind it
    "sums" / Int16ub,
    "others" / Int16ub,  # those of the side that asks, if this one has asked for them
    # so many CRC32C of 4 bytes each follow, first these, then those
)
MEND = Struct(
    "generation" / Int64ub,
    "number" / Int16ub,
    "offset" / Int64ub,
    "length" / Int32ub,
    "leads" / Int8ub,
    "restored" / POSITION,  # what `data` has
    "data" / GreedyBytes,  # what the S-VOLs have, of an asynchronous group; else none
)
CHECK = Struct("generation" / Int64ub, "at" / POSITION)
CHECKED = Struct("at" / POSITION, "end" / POSITION, "damage" / GreedyBytes)


class Leads(IntEnum):
    """Which side is right."""

    P_VOLS = 0
    S_VOLS = 1


class Summing(NamedTuple):
    """What SUMS asks for: of each `sum_bytes` from `offset` on."""

    number: int
    offset: int
    length: int
    sum_bytes: int


class Summed(NamedTuple):
    """Its answer; see SUMMED."""

    stored: Position
    sums: list[int]
    others: list[int]


class Mending(NamedTuple):
    """What MEND asks for: the range is written to both sides, in the group's order, as the side has it that leads."""

    number: int
    offset: int
    length: int
    leads: Leads
    restored: Position = START
    data: bytes = b""


class Checked(NamedTuple):
    """The answer to CHECK: all before `at` is whole, of what goes on to `end`; or what is not, in words."""

    at: Position
    end: Position
    damage: str = ""


def sums(group: bytes, generation: int, asked: Summing) -> bytes:
    """SUMS."""
    return _asked(Asked.SUMS, group, SUMS, generation=generation, **asked._asdict())


def mend(group: bytes, generation: int, asked: Mending) -> bytes:
    """MEND."""
    fields = asked._asdict() | {"restored": asked.restored._asdict()}
    return _asked(Asked.MEND, group, MEND, generation=generation, **fields)


def check(group: bytes, generation: int, at: Position) -> bytes:
    """CHECK."""
    return _asked(Asked.CHECK, group, CHECK, generation=generation, at=at._asdict())


def _asked(asked: Asked, group: bytes, layout: Struct, **fields: object) -> bytes:
    return head(asked, group) + bytes(layout.build(fields))


def decode_sums(payload: memoryview) -> tuple[int, Summing]:
    """With the generation. Raises FormatError."""
    told = parsed(SUMS, payload)
    each = told.sum_bytes
    _check(SUM_BYTES_MIN <= each <= SUM_BYTES and SUM_BYTES % each == 0, f"sums of each {each} bytes")
    _check(0 < told.length <= each * SUMS_MAX, f"sums of {told.length} bytes")
    return told.generation, Summing(told.number, told.offset, told.length, each)


def decode_mend(payload: memoryview) -> tuple[int, Mending]:
    """With the generation. Raises FormatError."""
    told = parsed(MEND, payload)
    _check(0 < told.length <= MEND_BYTES_MAX, f"{told.length} bytes to be mended")
    _check(told.leads in frozenset(Leads), f"side {told.leads}, which there is not")
    _check(len(told.data) in (0, told.length), f"{len(told.data)} bytes of {told.length}")
    leads, restored = Leads(told.leads), position_of(told.restored)
    return told.generation, Mending(told.number, told.offset, told.length, leads, restored, bytes(told.data))


def decode_check(payload: memoryview) -> tuple[int, Position]:
    """With the generation. Raises FormatError."""
    told = parsed(CHECK, payload)
    return told.generation, position_of(told.at)


def summed(told: Summed) -> bytes:
    """The answer to SUMS."""
    own, others = len(told.sums), len(told.others)
    fields = {"stored": told.stored._asdict(), "sums": own, "others": others}
    return done() + bytes(SUMMED.build(fields)) + struct.pack(f">{own + others}I", *told.sums, *told.others)


def checked(told: Checked) -> bytes:
    """The answer to CHECK."""
    fields: dict[str, Any] = {"at": told.at._asdict(), "end": told.end._asdict()}
    return done() + bytes(CHECKED.build(fields | {"damage": told.damage.encode()[:TEXT_BYTES_MAX]}))


def decode_summed(answer: memoryview, asked: Summing) -> Summed:
    """As many sums as were asked for, and as many of the others, or none. Raises Refused, FormatError."""
    rest = behind_done(answer)
    told = parsed(SUMMED, rest)
    count = -(-asked.length // asked.sum_bytes)
    _check(told.sums == count, f"{told.sums} sums, where {count} are due")
    _check(told.others in (0, count), f"{told.others} others, where {count} are due")
    try:
        found = struct.unpack(f">{told.sums + told.others}I", rest[SUMMED.sizeof() :])
    except struct.error as error:
        raise FormatError("sums that are cut short") from error
    return Summed(position_of(told.stored), list(found[:count]), list(found[count:]))


def decode_checked(answer: memoryview) -> Checked:
    """Raises Refused, FormatError."""
    told = parsed(CHECKED, behind_done(answer))
    return Checked(position_of(told.at), position_of(told.end), bytes(told.damage).decode(errors="replace"))


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FormatError(otherwise)
