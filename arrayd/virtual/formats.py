"""What is asked of another array for a virtual volume, and what it answers: payloads of REQUEST and ANSWER frames.

A request begins with its operation. All integers are big-endian. What every command needs has precompiled layouts, and
a property test proves that both agree.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from struct import Struct as Layout
from typing import NamedTuple

from construct import Bytes, Enum, GreedyBytes, Int8ub, Int16ub, Int32ub, Int64ub, PascalString, PrefixedArray, Struct

from arrayd.link.frames import FrameError
from arrayd.scsi.task import CDB

SERVICE = 1
"""The link's number of this service."""
HOPS_MAX = 8
"""Arrays in a row, from the one that the host is connected to."""
NEXUSES_MAX = 4096
"""I_T nexuses of one array; one more is refused."""
CDB_BYTES_MAX = 260
LENGTHS_MAX = 512
"""Answers that are kept packed: hosts have few favourite lengths."""


class Operation(IntEnum):
    """What is asked."""

    ATTACH = 1
    DETACH = 2
    EXECUTE = 3
    MANAGE = 4


class Outcome(IntEnum):
    """What became of it."""

    DONE = 0
    """The command has ended with a status; the function was carried out, or not, as its response says."""
    ABORTED = 1
    """The command was aborted: no host is told of it."""
    NO_NEXUS = 2
    """The other array knows of no such nexus; nothing was done."""
    REFUSED = 3
    """The other array will not have this nexus; nothing was done."""
    LOST = 4
    """The other array gave the nexus up while the command was carried out: nobody knows how far."""


TEXT = PascalString(Int8ub, "utf-8")

ATTACH = Struct(
    "operation" / Enum(Int8ub, Operation),
    "nexus" / Int32ub,  # a number of the asking array's own
    "initiator" / TEXT,  # iSCSI name
    "isid" / Bytes(6),
    "port" / Int16ub,  # relative target port identifier
    "group" / Int16ub,  # target port group
    "port_name" / TEXT,  # iqn…,t,0xTPGT
    "local" / Int8ub,  # 1 if it is on the machine of the array that it is connected to
    "path" / PrefixedArray(Int8ub, TEXT),  # the arrays it came by, the one whose port it is first
)
"""An I_T nexus of a host that the asking array, or one before it in the path, is connected to."""

DETACH = Struct("operation" / Enum(Int8ub, Operation), "nexus" / Int32ub)
"""I_T nexus loss."""

EXECUTE = Struct(
    "operation" / Enum(Int8ub, Operation),
    "attribute" / Int8ub,  # task attribute, as in RFC 7143, 11.3.1
    "cdb_length" / Int16ub,
    "nexus" / Int32ub,
    "lun" / Int64ub,
    "tag" / Int32ub,
    "expected_out" / Int32ub,  # bytes that the host is ready to send, and to take
    "expected_in" / Int32ub,
    # the CDB, and all of Data-Out
)
EXECUTE_HEAD = Layout(">BBHIQIII")
PLAIN = Layout(EXECUTE_HEAD.format + CDB.format[1:])
"""The same with a CDB of PLAIN_CDB_BYTES, as the integers that the fast path wants."""
PLAIN_CDB_BYTES = CDB.size

MANAGE = Struct(
    "operation" / Enum(Int8ub, Operation),
    "function" / Int8ub,  # as in RFC 7143, 11.5.1; TARGET WARM RESET is of this LUN alone
    "nexus" / Int32ub,
    "lun" / Int64ub,
    "tag" / Int32ub,  # of the task that an ABORT TASK is for
)

ANSWER = Struct(
    "outcome" / Enum(Int8ub, Outcome),
    "status" / Int8ub,  # of a command; of a function its response (RFC 7143, 11.6.1)
    "sense_length" / Int16ub,
    "wanted_out" / Int32ub,  # Data-Out that the command asks for, and Data-In that was left out, in bytes
    "text" / GreedyBytes,  # sense data, and then all of Data-In; of REFUSED the reason
)
ANSWER_HEAD = Layout(">BBHI")
ANSWER_BYTES = 512
"""What an answer comes to at the most beside Data-In, which is cut to what is expected."""
TEXT_BYTES_MAX = ANSWER_BYTES - ANSWER_HEAD.size
"""Longest sense data, or reason."""
GOOD_READ = ANSWER_HEAD.pack(Outcome.DONE, 0, 0, 0)
"""The head of an answer with status GOOD, and all of Data-In."""
OUTCOMES = frozenset(Outcome)


@lru_cache(LENGTHS_MAX)
def good_write(length: int) -> bytes:
    """The answer with status GOOD to a command that took so many bytes of Data-Out."""
    return ANSWER_HEAD.pack(Outcome.DONE, 0, 0, length)


class Answer(NamedTuple):
    """An answer taken apart; `text` and `data` lie in it."""

    outcome: int
    status: int
    wanted_out: int
    text: memoryview
    data: memoryview


def read_answer(payload: memoryview) -> Answer:
    """Takes an answer apart. Raises FrameError if it is none."""
    if len(payload) < ANSWER_HEAD.size:
        raise FrameError(f"an answer of {len(payload)} bytes")
    outcome, status, text_length, wanted_out = ANSWER_HEAD.unpack_from(payload)
    data_at = ANSWER_HEAD.size + text_length
    if text_length > TEXT_BYTES_MAX:
        raise FrameError(f"an answer with {text_length} bytes of sense data")
    if outcome not in OUTCOMES:
        raise FrameError(f"an answer with outcome {outcome}")
    if data_at > len(payload):
        raise FrameError("an answer that is shorter than its sense data")
    return Answer(outcome, status, wanted_out, payload[ANSWER_HEAD.size : data_at], payload[data_at:])
