"""The layouts of the read/write path as precompiled structs (RFC 7143, section 11; declared in full in `pdu.py`).

construct costs about 100 times as much on a 48-byte header, so what every READ and WRITE goes through is unpacked and
packed here. A property test proves that both codecs agree on every field.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from arrayd.iscsi.pdu import NO_TAG, Opcode
from arrayd.scsi.task import CDB

SERIAL_MASK = 0xFFFFFFFF
"""Sequence numbers are 32 bits and wrap (RFC 1982)."""
LENGTH_MASK = 0xFFFFFF
"""The data segment length in the word it shares with TotalAHSLength."""
FINAL = 0x80
DATA_IN_STATUS = 0x01
DATA_IN_OVERFLOW = 0x04
DATA_IN_UNDERFLOW = 0x02
RESPONSE_OVERFLOW = 0x04
RESPONSE_UNDERFLOW = 0x02

COMMAND = Struct(">BBxxIQIIII" + CDB.format[1:])
"""SCSI Command (11.3): opcode, flags, TotalAHSLength and DataSegmentLength, LUN, ITT, expected data transfer length,
CmdSN, ExpStatSN; the CDB as `CDB` has it."""

DATA_OUT = Struct(">BBxxIQII4xI4xII4x")
"""SCSI Data-Out (11.7): opcode, flags, lengths, LUN, ITT, TTT, ExpStatSN, DataSN, Buffer Offset."""

DATA_IN = Struct(">BBxBIQ8I")
"""SCSI Data-In (11.7): opcode, flags, status, lengths, LUN, ITT, TTT, StatSN, ExpCmdSN, MaxCmdSN, DataSN, Buffer
Offset, residual count."""

RESPONSE = Struct(">BBBBI8x8I")
"""SCSI Response (11.4): opcode, flags, response, status, lengths, ITT, SNACK tag, StatSN, ExpCmdSN, MaxCmdSN,
ExpDataSN, bidirectional residual count, residual count."""

READY_TO_TRANSFER = Struct(">BBxxIQ8I")
"""R2T (11.8): opcode, flags, lengths, LUN, ITT, TTT, StatSN, ExpCmdSN, MaxCmdSN, R2TSN, Buffer Offset, Desired Data
Transfer Length."""

ANSWER = Struct(">16s5I12x")
"""A Data-In or SCSI Response that carries status GOOD and no residual, in one call: its first 16 bytes, then ITT, TTT
or SNACK tag, StatSN, ExpCmdSN, MaxCmdSN, and zeros (DataSN, offset, residual)."""

GOOD_RESPONSE_HEAD = RESPONSE.pack(Opcode.SCSI_RESPONSE, FINAL, 0, 0, 0, *[0] * 8)[:16]


HEADS_MAX = 512
"""Heads that are kept packed: initiators have few favourite lengths."""


@lru_cache(HEADS_MAX)
def good_data_in_head(length: int) -> bytes:
    """The first 16 bytes of a Data-In that carries all `length` bytes of a command and its status GOOD."""
    flags = FINAL | DATA_IN_STATUS
    return DATA_IN.pack(Opcode.DATA_IN, flags, 0, length, 0, 0, NO_TAG, *[0] * 6)[:16]


def serial_before(a: int, b: int) -> bool:
    """Whether sequence number `a` comes before `b` (RFC 1982)."""
    return a != b and ((b - a) & SERIAL_MASK) < 0x80000000
