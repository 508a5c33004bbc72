"""The parameter list of EXTENDED COPY (LID1) and what RECEIVE COPY RESULTS gives back (SPC-4, 6.4.3 to 6.4.6 and 6.18).

Only what VMware's hosts use: copy sources and copy destinations (CSCDs) named by a designator of VPD page 83h, and
segments from block device to block device.
"""

from __future__ import annotations

from dataclasses import dataclass

from construct import BitsInteger, BitStruct, Bytes, Const, Flag, Int8ub, Int16ub, Int24ub, Int32ub, Int64ub, Padding
from construct import Struct as Format

from arrayd.scsi.sense import Asc, illegal_request, invalid_parameter

CSCDS_MAX = 16
SEGMENTS_MAX = 64
DESCRIPTORS_BYTES_MAX = 4096
"""CSCD and segment descriptors of one command: how many of each, and bytes of both."""
SEGMENT_BYTES_MAX = 65535 * 4096
"""What one segment can copy, by the width of its fields."""
CONCURRENT_COPIES_MAX = 8
"""Copies that one logical unit manages at a time."""

HEADER_BYTES = 16
PARAMETER_LIST_MAX = 64 * 1024

IDENTIFICATION_CSCD = 0xE4
CSCD_BYTES = 32
BLOCK_TO_BLOCK = 0x02
BLOCK_TO_BLOCK_BYTES = 28
BLOCK_DEVICE = 0x00

LIST_ID_HOLD, LIST_ID_RESERVED, LIST_ID_DISCARD, LIST_ID_NONE = range(4)
"""LIST ID USAGE (SPC-4, table 106): remember what was held, -, forget it, there is no list identifier."""

HEADER = Format(
    "list_id" / Int8ub,
    "flags" / BitStruct(Padding(2), "str" / Flag, "list_id_usage" / BitsInteger(2), "priority" / BitsInteger(3)),
    "cscds_length" / Int16ub,
    Padding(4),
    "segments_length" / Int32ub,
    "inline_length" / Int32ub,
)
"""The head of the parameter list (SPC-4, table 105)."""

CSCD = Format(
    "type" / Const(IDENTIFICATION_CSCD, Int8ub),
    "device_type" / BitStruct(Padding(3), "code" / BitsInteger(5)),
    "relative_initiator_port" / Int16ub,
    "code_set" / BitStruct(Padding(4), "code" / BitsInteger(4)),
    "designator_type" / BitStruct(Padding(2), "association_and_type" / BitsInteger(6)),
    Padding(1),
    "designator_length" / Int8ub,
    "designator" / Bytes(20),
    "pad" / BitStruct(Padding(5), "pad" / Flag, Padding(2)),
    "block_bytes" / Int24ub,
)
"""Identification descriptor CSCD descriptor of a block device (SPC-4, tables 114 and 118)."""

SEGMENT = Format(
    "type" / Const(BLOCK_TO_BLOCK, Int8ub),
    "flags" / BitStruct(Padding(6), "dc" / Flag, "cat" / Flag),
    "length" / Const(BLOCK_TO_BLOCK_BYTES - 4, Int16ub),
    "source" / Int16ub,
    "destination" / Int16ub,
    Padding(2),
    "blocks" / Int16ub,
    "source_lba" / Int64ub,
    "destination_lba" / Int64ub,
)
"""Block device to block device segment descriptor (SPC-4, table 124)."""

OPERATING_PARAMETERS = Format(
    "available_data" / Const(42, Int32ub),
    "snlid" / Const(1, Int8ub),
    Padding(3),
    "cscds_max" / Const(CSCDS_MAX, Int16ub),
    "segments_max" / Const(SEGMENTS_MAX, Int16ub),
    "descriptors_bytes_max" / Const(DESCRIPTORS_BYTES_MAX, Int32ub),
    "segment_bytes_max" / Const(SEGMENT_BYTES_MAX, Int32ub),
    "inline_bytes_max" / Const(0, Int32ub),
    "held_bytes_max" / Const(0, Int32ub),
    "stream_bytes_max" / Const(0, Int32ub),
    Padding(2),
    "total_concurrent_copies" / Const(CONCURRENT_COPIES_MAX, Int16ub),
    "concurrent_copies" / Const(CONCURRENT_COPIES_MAX, Int8ub),
    "segment_granularity" / Const(9, Int8ub),
    "inline_granularity" / Const(0, Int8ub),
    "held_granularity" / Const(0, Int8ub),
    Padding(3),
    "descriptors" / Const(bytes((2, BLOCK_TO_BLOCK, IDENTIFICATION_CSCD))),
)
"""RECEIVE COPY OPERATING PARAMETERS (SPC-4, table 237); granularities are powers of two, in bytes."""

COPY_STATUS = Format(
    "available_data" / Const(8, Int32ub),
    "status" / Int8ub,
    "segments_processed" / Int16ub,
    "transfer_count_units" / Const(1, Int8ub),
    "transfer_count" / Int32ub,
)
"""RECEIVE COPY STATUS (LID1) (SPC-4, table 241); the transfer count is in KiB."""


@dataclass(frozen=True, slots=True)
class Cscd:
    """A copy source or copy destination: `designator` is a whole designation descriptor, as in VPD page 83h."""

    device_type: int
    designator: bytes
    block_bytes: int


@dataclass(frozen=True, slots=True)
class Segment:
    """`blocks` of the source's size (or the destination's, with `counts_destination`) from LBA to LBA."""

    source: int
    destination: int
    blocks: int
    counts_destination: bool
    source_lba: int
    destination_lba: int


@dataclass(frozen=True, slots=True)
class CopyList:
    """One parameter list; `list_id` is None when the copy is not to be asked for afterwards."""

    list_id: int | None
    cscds: list[Cscd]
    segments: list[Segment]


def parse(data: bytes) -> CopyList:
    """Reads a parameter list. Raises CheckCondition (ILLEGAL REQUEST); then nothing is copied."""
    if len(data) < HEADER_BYTES:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    header = HEADER.parse(data)
    described = header.cscds_length + header.segments_length
    if described > DESCRIPTORS_BYTES_MAX or HEADER_BYTES + described + header.inline_length > len(data):
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if header.inline_length:
        raise illegal_request(Asc.INLINE_DATA_LENGTH_EXCEEDED)
    usage = header.flags.list_id_usage
    if usage == LIST_ID_RESERVED:
        raise invalid_parameter((1, 4))
    if usage == LIST_ID_NONE and header.list_id:
        raise invalid_parameter(0)
    end_of_cscds = HEADER_BYTES + header.cscds_length
    return CopyList(
        None if usage == LIST_ID_NONE else header.list_id,
        _parse_cscds(data[:end_of_cscds]),
        _parse_segments(data[: HEADER_BYTES + described], end_of_cscds),
    )


def _parse_cscds(data: bytes) -> list[Cscd]:
    """The CSCD descriptors that stand between the header and the end of `data`."""
    starts = range(HEADER_BYTES, len(data), CSCD_BYTES)
    if len(starts) > CSCDS_MAX:
        raise illegal_request(Asc.TOO_MANY_TARGET_DESCRIPTORS)
    cscds = []
    for at in starts:
        if data[at] != IDENTIFICATION_CSCD:
            raise illegal_request(Asc.UNSUPPORTED_TARGET_DESCRIPTOR)
        if at + CSCD_BYTES > len(data):
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        fields = CSCD.parse(data[at : at + CSCD_BYTES])
        length = fields.designator_length
        if length > len(fields.designator):
            raise invalid_parameter(at + 7)
        head = bytes((fields.code_set.code, fields.designator_type.association_and_type, 0, length))
        cscds.append(Cscd(fields.device_type.code, head + fields.designator[:length], fields.block_bytes))
    return cscds


def _parse_segments(data: bytes, at: int) -> list[Segment]:
    """The segment descriptors from `at` to the end of `data`."""
    segments: list[Segment] = []
    while at < len(data):
        if len(segments) == SEGMENTS_MAX:
            raise illegal_request(Asc.TOO_MANY_SEGMENT_DESCRIPTORS)
        if data[at] != BLOCK_TO_BLOCK:
            raise illegal_request(Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR)
        if at + BLOCK_TO_BLOCK_BYTES > len(data):
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        if int.from_bytes(data[at + 2 : at + 4], "big") != BLOCK_TO_BLOCK_BYTES - 4:
            raise invalid_parameter(at + 2)
        fields = SEGMENT.parse(data[at : at + BLOCK_TO_BLOCK_BYTES])
        segments.append(
            Segment(
                fields.source,
                fields.destination,
                fields.blocks,
                fields.flags.dc,
                fields.source_lba,
                fields.destination_lba,
            )
        )
        at += BLOCK_TO_BLOCK_BYTES
    return segments
