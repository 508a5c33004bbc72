"""Frames of the link, declared once: a header of 24 bytes and a payload. All integers are big-endian.

construct's declarations are the documentation, and build and parse the handshake. Every other frame goes through the
precompiled `HEADER` and `SHORT_HEADER`; a property test proves that they agree.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Layout

from construct import Bytes, Const, Enum, GreedyRange, Int8ub, Int16ub, Int32ub, Int64ub, PascalString, Struct
from crc32c import crc32c

VERSION = 3
"""Version of the protocol that this program speaks."""
PAYLOAD_BYTES_MAX = 256 * 1024
"""Longest payload of a frame. Others may come between the frames of a longer message."""
HANDSHAKE_BYTES_MAX = 1024
"""Longest payload before the peer has proven who it is."""
NAME_BYTES_MAX = 64
NONCE_BYTES = 32
PROOF_BYTES = 32


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    GOODBYE = 5
    BEAT = 6
    ECHO = 7
    REQUEST = 8
    ANSWER = 9
    ASK = 10
    UNKNOWN = 11


MORE = 0x01
"""Flag: the message goes on in another frame of the same kind and number. The first of several has no data, but says
how much there is (`OPENING`), so that it can be received where it is wanted."""

FRAME = Struct(
    "crc" / Int32ub,  # CRC32C of all that follows, payload included
    "length" / Int32ub,  # of the payload, in bytes
    "kind" / Enum(Int8ub, Kind),
    "flags" / Int8ub,
    "service" / Int16ub,  # of REQUESTs: what they are for; otherwise 0
    "number" / Int64ub,  # of a message in several frames; of a BEAT, repeated by its ECHO; of what is UNKNOWN; else 0
    "received" / Int32ub,  # frames received on this connection, modulo 2**32
)
"""A frame's header."""

SHORT = Struct(
    "length" / Int32ub,  # of the message
    "number" / Int64ub,  # of a request, repeated by its answer
    # the message
)
"""What stands before each of the messages in a REQUEST or an ANSWER, one or more, that need no more than one frame."""

HEADER = Layout(">IIBBHQI")
HEADER_BYTES = HEADER.size
SHORT_HEADER = Layout(">IQ")
SHORT_HEADER_BYTES = SHORT_HEADER.size
CRC = Layout(">I")
CRC_BYTES = CRC.size
OPENING = Layout(">I")
"""What the first payload of a message in several frames begins with: the bytes of its data, which come in the frames
after it. The rest of it is the message's head."""

NAME = PascalString(Int8ub, "utf-8")

HELLO = Struct(
    "magic" / Const(b"arrayd link\n"),
    "version" / Int16ub,
    "name" / NAME,  # of the array
    "serial" / NAME,
    "incarnation" / Int64ub,  # another number each time the array starts
    "nonce" / Bytes(NONCE_BYTES),
    "requests_max" / Int16ub,  # so many requests it takes at once
    "bytes_max" / Int64ub,  # so many bytes these and their answers may come to
)
"""HELLO, of who dials, and CHALLENGE, of who answers: who I am, and what I take."""

PROOF = Struct(
    "proof" / Bytes(PROOF_BYTES),  # that I know the secret: see handshake.py
)
"""PROOF, of who dials, and WELCOME, of who answers."""

NUMBERS = GreedyRange(Int64ub)
"""ASK, the first frame of each side after the handshake: the requests of mine that I have no answer to."""


class FrameError(Exception):
    """What came is no frame, or none that may come now; the connection ends."""


def frame(
    kind: Kind, payload: bytes = b"", *, flags: int = 0, service: int = 0, number: int = 0, received: int = 0
) -> bytes:
    """A whole frame."""
    data = HEADER.pack(0, len(payload), kind, flags, service, number, received & 0xFFFFFFFF)[CRC_BYTES:] + payload
    return CRC.pack(crc32c(data)) + data


def short(number: int, message: bytes) -> bytes:
    """A message that needs no more than one frame, as it stands in a payload."""
    return SHORT_HEADER.pack(len(message), number) + message
