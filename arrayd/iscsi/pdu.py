"""Every PDU of iSCSI, declared once (RFC 7143, section 11); builds and parses whatever is not hot.

A declaration reads like its figure in the standard: fields in order, width in bits, 48 bytes in all. Reserved fields
are `Padding`: sent as zero, ignored on receipt. Integers are big-endian. `layout.py` builds and parses by what is
declared here. The read/write path has precompiled layouts of its own in `wire.py`; a property test proves that the two
agree on every field.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    Bytewise,
    Construct,
    ConstructError,
    Default,
    FixedSized,
    Flag,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Int32ub,
    Padding,
    Prefixed,
    Struct,
    Switch,
    Terminated,
    this,
)

from arrayd.iscsi.layout import Layout

BHS_BYTES = 48
"""Length of a basic header segment (RFC 7143, 11.2.1)."""
PAD_BYTES = 4
"""Segments are padded with zeros to a multiple of this (RFC 7143, 11.1)."""
AHS_BYTES_MAX = 255 * 4
"""TotalAHSLength is one byte and counts 4-byte words (RFC 7143, 11.2.1.5)."""
DATA_SEGMENT_BYTES_MAX = 0xFFFFFF
"""DataSegmentLength is three bytes (RFC 7143, 11.2.1.6)."""
NO_TAG = 0xFFFFFFFF
"""The reserved value of initiator task tag, target transfer tag and referenced task tag."""


class Opcode(IntEnum):
    """Opcodes (RFC 7143, 11.2.1.2). Initiator opcodes are below 20h."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


class RejectReason(IntEnum):
    """Reasons of a Reject PDU (RFC 7143, 11.17.1)."""

    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    TOO_MANY_IMMEDIATE_COMMANDS = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_DATA_ACK = 0x08
    INVALID_PDU_FIELD = 0x09
    OUT_OF_TARGET_TRANSFER_TAGS = 0x0A
    WAITING_FOR_LOGOUT = 0x0C


class ResponseCode(IntEnum):
    """iSCSI service response of a SCSI Response (RFC 7143, 11.4.3)."""

    COMMAND_COMPLETED = 0x00
    TARGET_FAILURE = 0x01


class LogoutReason(IntEnum):
    """Reasons of a Logout Request (RFC 7143, 11.14.1)."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    REMOVE_CONNECTION_FOR_RECOVERY = 2


class LogoutResponse(IntEnum):
    """Responses to a Logout Request (RFC 7143, 11.15.1)."""

    CLOSED = 0
    CID_NOT_FOUND = 1
    RECOVERY_NOT_SUPPORTED = 2
    CLEANUP_FAILED = 3


class AsyncEvent(IntEnum):
    """Events of an Asynchronous Message (RFC 7143, 11.9.1)."""

    SCSI_EVENT = 0
    LOGOUT_REQUESTED = 1
    CONNECTION_WILL_BE_DROPPED = 2
    SESSION_WILL_BE_DROPPED = 3
    NEGOTIATION_REQUESTED = 4
    TASKS_TERMINATED = 5
    VENDOR_SPECIFIC = 255


class SnackType(IntEnum):
    """Types of a SNACK Request (RFC 7143, 11.16.1)."""

    DATA_OR_R2T = 0
    STATUS = 1
    DATA_ACK = 2
    R_DATA = 3


class LoginStatus(IntEnum):
    """Status-Class (high byte) and Status-Detail (low byte) of a Login Response (RFC 7143, 11.13.5)."""

    SUCCESS = 0x0000
    TARGET_MOVED_TEMPORARILY = 0x0101
    TARGET_MOVED_PERMANENTLY = 0x0102
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    TARGET_REMOVED = 0x0204
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE_IN_SESSION = 0x0208
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class Stage(IntEnum):
    """Login stages, the values of CSG and NSG (RFC 7143, 11.12.3)."""

    SECURITY_NEGOTIATION = 0
    LOGIN_OPERATIONAL_NEGOTIATION = 1
    FULL_FEATURE_PHASE = 3


class AhsType(IntEnum):
    """Types of an additional header segment (RFC 7143, 11.2.2.1)."""

    EXTENDED_CDB = 1
    EXPECTED_BIDIRECTIONAL_READ_DATA_LENGTH = 2


class ProtocolError(Exception):
    """The peer broke RFC 7143; `reason` is what a Reject PDU says of it."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.reason = reason


def bits(name: str, width: int, default: int = 0) -> Construct:
    """An unsigned field of `width` bits."""
    return name / Default(BitsInteger(width), default)


def octets(name: str, count: int) -> Construct:
    """A field of `count` bytes that are not a number."""
    return name / Default(Bytewise(Bytes(count)), bytes(count))


def flag(name: str, default: bool = False) -> Construct:
    """A field of one bit."""
    return name / Default(Flag, default)


def _bhs(*fields: Construct) -> Construct:
    """A basic header segment: the opcode byte, then `fields` (RFC 7143, 11.2.1)."""
    return BitStruct(Padding(1), flag("immediate"), bits("opcode", 6), *fields)


_FINAL = flag("final", True)
_LENGTHS = (bits("total_ahs_length", 8), bits("data_segment_length", 24))
_STAGES = (flag("transit"), flag("continue_"), Padding(2), bits("csg", 2), bits("nsg", 2))
_LUN = bits("lun", 64)
_ITT = bits("initiator_task_tag", 32)
_NO_ITT = bits("initiator_task_tag", 32, NO_TAG)
_TTT = bits("target_transfer_tag", 32, NO_TAG)
_SESSION = (octets("isid", 6), bits("tsih", 16))
_CID = (bits("cid", 16), Padding(16))
_FROM_INITIATOR = (bits("cmd_sn", 32), bits("exp_stat_sn", 32))
_EXP_STAT_SN = (Padding(32), bits("exp_stat_sn", 32))
_FROM_TARGET = (bits("stat_sn", 32), bits("exp_cmd_sn", 32), bits("max_cmd_sn", 32))

# fmt: off
HEADERS: dict[Opcode, Construct] = {
    Opcode.NOP_OUT: _bhs(  # 11.18
        _FINAL, Padding(23), *_LENGTHS, _LUN, _ITT, _TTT, *_FROM_INITIATOR, Padding(128),
    ),
    Opcode.SCSI_COMMAND: _bhs(  # 11.3
        flag("final"), flag("read"), flag("write"), Padding(2), bits("attribute", 3), Padding(16), *_LENGTHS,
        _LUN, _ITT, bits("expected_data_transfer_length", 32), *_FROM_INITIATOR, octets("cdb", 16),
    ),
    Opcode.TASK_MANAGEMENT_REQUEST: _bhs(  # 11.5
        _FINAL, bits("function", 7), Padding(16), *_LENGTHS, _LUN, _ITT, bits("referenced_task_tag", 32, NO_TAG),
        *_FROM_INITIATOR, bits("ref_cmd_sn", 32), bits("exp_data_sn", 32), Padding(64),
    ),
    Opcode.LOGIN_REQUEST: _bhs(  # 11.12
        *_STAGES, bits("version_max", 8), bits("version_min", 8), *_LENGTHS,
        *_SESSION, _ITT, *_CID, *_FROM_INITIATOR, Padding(128),
    ),
    Opcode.TEXT_REQUEST: _bhs(  # 11.10
        flag("final"), flag("continue_"), Padding(22), *_LENGTHS, _LUN, _ITT, _TTT, *_FROM_INITIATOR, Padding(128),
    ),
    Opcode.DATA_OUT: _bhs(  # 11.7
        flag("final"), Padding(23), *_LENGTHS, _LUN, _ITT, _TTT, *_EXP_STAT_SN,
        Padding(32), bits("data_sn", 32), bits("buffer_offset", 32), Padding(32),
    ),
    Opcode.LOGOUT_REQUEST: _bhs(  # 11.14
        _FINAL, bits("reason", 7), Padding(16), *_LENGTHS, Padding(64), _ITT, *_CID, *_FROM_INITIATOR, Padding(128),
    ),
    Opcode.SNACK_REQUEST: _bhs(  # 11.16
        _FINAL, Padding(3), bits("type", 4), Padding(16), *_LENGTHS, _LUN, _ITT, _TTT, *_EXP_STAT_SN,
        Padding(64), bits("beg_run", 32), bits("run_length", 32),
    ),
    Opcode.NOP_IN: _bhs(  # 11.19
        _FINAL, Padding(23), *_LENGTHS, _LUN, _ITT, _TTT, *_FROM_TARGET, Padding(96),
    ),
    Opcode.SCSI_RESPONSE: _bhs(  # 11.4
        _FINAL, Padding(2), flag("bidirectional_overflow"), flag("bidirectional_underflow"),
        flag("overflow"), flag("underflow"), Padding(1), bits("response", 8), bits("status", 8), *_LENGTHS,
        Padding(64), _ITT, bits("snack_tag", 32), *_FROM_TARGET,
        bits("exp_data_sn", 32), bits("bidirectional_residual_count", 32), bits("residual_count", 32),
    ),
    Opcode.TASK_MANAGEMENT_RESPONSE: _bhs(  # 11.6
        _FINAL, Padding(7), bits("response", 8), Padding(8), *_LENGTHS,
        Padding(64), _ITT, Padding(32), *_FROM_TARGET, Padding(96),
    ),
    Opcode.LOGIN_RESPONSE: _bhs(  # 11.13
        *_STAGES, bits("version_max", 8), bits("version_active", 8), *_LENGTHS,
        *_SESSION, _ITT, Padding(32), *_FROM_TARGET, bits("status", 16), Padding(80),
    ),
    Opcode.TEXT_RESPONSE: _bhs(  # 11.11
        flag("final"), flag("continue_"), Padding(22), *_LENGTHS, _LUN, _ITT, _TTT, *_FROM_TARGET, Padding(96),
    ),
    Opcode.DATA_IN: _bhs(  # 11.7
        flag("final"), flag("acknowledge"), Padding(3), flag("overflow"), flag("underflow"), flag("has_status"),
        Padding(8), bits("status", 8), *_LENGTHS, _LUN, _ITT, _TTT, *_FROM_TARGET,
        bits("data_sn", 32), bits("buffer_offset", 32), bits("residual_count", 32),
    ),
    Opcode.LOGOUT_RESPONSE: _bhs(  # 11.15
        _FINAL, Padding(7), bits("response", 8), Padding(8), *_LENGTHS, Padding(64), _ITT, Padding(32),
        *_FROM_TARGET, Padding(32), bits("time2wait", 16), bits("time2retain", 16), Padding(32),
    ),
    Opcode.R2T: _bhs(  # 11.8
        _FINAL, Padding(23), *_LENGTHS, _LUN, _ITT, _TTT, *_FROM_TARGET,
        bits("r2t_sn", 32), bits("buffer_offset", 32), bits("desired_data_transfer_length", 32),
    ),
    Opcode.ASYNC_MESSAGE: _bhs(  # 11.9
        _FINAL, Padding(23), *_LENGTHS, _LUN, _NO_ITT, Padding(32), *_FROM_TARGET,
        bits("async_event", 8), bits("async_vcode", 8), bits("parameter1", 16),
        bits("parameter2", 16), bits("parameter3", 16), Padding(32),
    ),
    Opcode.REJECT: _bhs(  # 11.17
        _FINAL, Padding(7), bits("reason", 8), Padding(8), *_LENGTHS,
        Padding(64), _NO_ITT, Padding(32), *_FROM_TARGET, bits("data_sn", 32), Padding(64),
    ),
}
"""The basic header segment of each opcode, 48 bytes."""
# fmt: on

LAYOUTS = {opcode: Layout(header) for opcode, header in HEADERS.items()}
"""The same, to build and parse with."""

# 11.2.2: AHSLength counts neither itself nor AHSType nor the padding; the reserved byte it does count.
AHS = Struct(
    "length" / Int16ub,
    "type" / Int8ub,
    "content"
    / FixedSized(
        this.length,
        Switch(
            this.type,
            {
                AhsType.EXTENDED_CDB: Struct(Padding(1), "cdb_rest" / GreedyBytes),
                AhsType.EXPECTED_BIDIRECTIONAL_READ_DATA_LENGTH: Struct(Padding(1), "read_length" / Int32ub),
            },
            default=GreedyBytes,
        ),
    ),
    Padding(lambda context: -(context.length + 3) % PAD_BYTES),
)
"""One additional header segment."""

AHS_SEQUENCE = Struct("segments" / GreedyRange(AHS), Terminated)
"""The additional header segments of one PDU, as long as TotalAHSLength says."""

SENSE_SEGMENT = Struct("sense" / Prefixed(Int16ub, GreedyBytes), "rest" / GreedyBytes)
"""Data segment of a SCSI Response with sense, and of an Asynchronous Message (RFC 7143, 11.4.7 and 11.9.4)."""


def pad(segment: bytes) -> bytes:
    """`segment` with the zeros that fill it to a 4-byte boundary."""
    return segment + bytes(-len(segment) % PAD_BYTES)


def parse_header(bhs: bytes) -> Any:
    """The fields of a 48-byte basic header segment; a ProtocolError if its opcode is none or it is cut off."""
    if len(bhs) != BHS_BYTES:
        raise ProtocolError(f"a header of {len(bhs)} bytes", RejectReason.INVALID_PDU_FIELD)
    try:
        opcode = Opcode(bhs[0] & 0x3F)
    except ValueError:
        raise ProtocolError(f"opcode {bhs[0] & 0x3F:#04x}", RejectReason.COMMAND_NOT_SUPPORTED) from None
    return LAYOUTS[opcode].parse(bhs)


def parse_ahs(segments: bytes) -> list[Any]:
    """The additional header segments of a PDU, each with `type` and `content`; a ProtocolError if they don't fit."""
    try:
        return list(AHS_SEQUENCE.parse(segments).segments)
    except ConstructError as error:
        raise ProtocolError("additional header segments", RejectReason.INVALID_PDU_FIELD) from error


def build_header(opcode: Opcode, **fields: object) -> bytes:
    """A 48-byte basic header segment. Fields not given are zero, tags not given are the reserved tag."""
    layout = LAYOUTS[opcode]
    if not fields.keys() <= layout.names:
        raise TypeError(f"{opcode.name} has no field {', '.join(sorted(fields.keys() - layout.names))}")
    return layout.build({"opcode": opcode, **fields})


def build(opcode: Opcode, data: bytes = b"", ahs: bytes = b"", **fields: object) -> bytes:
    """A whole PDU without digests: header with its lengths, AHS (already padded), padded data segment."""
    assert len(ahs) % PAD_BYTES == 0
    assert len(ahs) <= AHS_BYTES_MAX
    assert len(data) <= DATA_SEGMENT_BYTES_MAX
    header = build_header(opcode, total_ahs_length=len(ahs) // PAD_BYTES, data_segment_length=len(data), **fields)
    return header + ahs + pad(data)
