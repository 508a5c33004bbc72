"""What is asked of another array for a virtual volume, and what it answers: payloads of REQUEST and ANSWER frames.

A request begins with its operation. All integers are big-endian. What every command needs has precompiled layouts, and
a property test proves that both agree.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Layout

from construct import Bytes, Enum, GreedyBytes, Int8ub, Int16ub, Int32ub, Int64ub, PascalString, PrefixedArray, Struct

SERVICE = 1
"""The link's number of this service."""
HOPS_MAX = 8
"""Arrays in a row, from the one that the host is connected to."""
NEXUSES_MAX = 4096
"""I_T nexuses of one array; one more is refused."""
CDB_BYTES_MAX = 260


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
    "wanted_out" / Int32ub,  # Data-Out that the command asks for, in bytes
    "text" / GreedyBytes,  # sense data, and then all of Data-In; of REFUSED the reason
)
ANSWER_HEAD = Layout(">BBHI")
