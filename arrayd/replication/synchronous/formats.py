"""What the P-VOLs' side of a synchronous group asks the other one, besides what all groups ask (`asking.py`).

BEGIN says which life of the stage asks from now on, before hosts see the P-VOLs; MIRROR carries their writes. SUMS and
COPY, too, are asked, of what may differ after the P-VOLs' side has died. All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from construct import Flag, GreedyBytes, Int8ub, Int16ub, Int64ub, PrefixedArray, Struct

from arrayd.replication.asking import Asked, behind_done, done, head, parsed
from arrayd.replication.journal.format import FormatError

BATCH_BYTES = 256 * 1024
"""Of data in one MIRROR; a single write may be longer."""
BATCH_WRITES = 64
"""Of one MIRROR."""

BEGIN = Struct("generation" / Int64ub, "life" / Int64ub)
BEGUN = Struct(
    "copies" / Flag,  # the copy has not ended: what differs goes from the P-VOLs to the S-VOLs
    "copying" / GreedyBytes,  # how it goes: see `copy_told.py`
)
MIRROR = Struct(
    "generation" / Int64ub,
    "life" / Int64ub,
    "writes"
    / PrefixedArray(
        Int16ub, Struct("number" / Int16ub, "kind" / Int8ub, "flags" / Int8ub, "offset" / Int64ub, "extent" / Int64ub)
    ),
    # the data of those that have some follows, one behind the other
)

MIRROR_HEAD, WRITE_LAYOUT = struct.Struct(">QQH"), struct.Struct(">HBBQQ")
"""MIRROR, precompiled: what it has before its writes, and each of these."""
DURABLE = 0x01
"""Flag of a write: it is answered when a power loss cannot undo it."""


class Kind(IntEnum):
    """What is done to an S-VOL. The numbers are those of a journal's records, where it has them."""

    FLUSH = 0
    """What was answered before is made durable. No extent."""
    WRITE = 1
    UNMAP = 2
    ZEROS = 3


KINDS = frozenset(Kind)


class Carried(NamedTuple):
    """One write: `extent` bytes from `offset` on of the volume `number`; `data` only of a WRITE."""

    number: int
    kind: Kind
    durable: bool
    offset: int
    extent: int
    data: memoryview


class Mirrored(NamedTuple):
    """What MIRROR says."""

    generation: int
    life: int
    writes: list[Carried]


def begin(group: bytes, generation: int, life: int) -> bytes:
    """BEGIN."""
    return head(Asked.BEGIN, group) + bytes(BEGIN.build({"generation": generation, "life": life}))


def mirror(group: bytes, generation: int, life: int, writes: Sequence[Carried]) -> bytes:
    """MIRROR. The data is copied."""
    packed = b"".join(
        WRITE_LAYOUT.pack(each.number, each.kind, DURABLE * each.durable, each.offset, each.extent) for each in writes
    )
    begin = head(Asked.MIRROR, group) + MIRROR_HEAD.pack(generation, life, len(writes))
    return b"".join((begin, packed, *(each.data for each in writes)))


def decode_begin(payload: memoryview) -> tuple[int, int]:
    """Generation and life. Raises FormatError."""
    told = parsed(BEGIN, payload)
    return told.generation, told.life


def decode_mirror(payload: memoryview) -> Mirrored:
    """What is behind the head of MIRROR. Raises FormatError."""
    try:
        generation, life, count = MIRROR_HEAD.unpack_from(payload)
        at = MIRROR_HEAD.size + count * WRITE_LAYOUT.size
        told = list(WRITE_LAYOUT.iter_unpack(payload[MIRROR_HEAD.size : at]))
    except struct.error as error:
        raise FormatError("a MIRROR that is cut short") from error
    _check(len(told) == count <= BATCH_WRITES and count > 0, f"a MIRROR of {count} writes")
    writes = []
    for number, kind, flags, offset, extent in told:
        _check(kind in KINDS and flags in (0, DURABLE), f"a write of kind {kind}, flags {flags}")
        data = payload[at : at + extent] if kind == Kind.WRITE else payload[:0]
        _check(kind != Kind.WRITE or len(data) == extent, "a write that is cut short")
        _check(bool(extent) is (kind != Kind.FLUSH), f"{extent} bytes of kind {kind}")
        at += len(data)
        writes.append(Carried(number, Kind(kind), bool(flags), offset, extent, data))
    _check(at == len(payload), "bytes behind the last write")
    return Mirrored(generation, life, writes)


def begun(copies: bool, copying: bytes = b"") -> bytes:
    """The answer to BEGIN."""
    return done() + bytes(BEGUN.build({"copies": copies, "copying": copying}))


def decode_begun(answer: memoryview) -> tuple[bool, bytes]:
    """Whether the copy has not ended there, and how it goes. Raises Refused, FormatError."""
    told = parsed(BEGUN, behind_done(answer))
    return bool(told.copies), bytes(told.copying)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FormatError(otherwise)
