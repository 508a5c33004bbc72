"""What goes from host to array and from array to array, byte by byte: command interfaces with a transfer destination
parameter (figures 26 and 38), and the edited data of those that have ended. All integers are big-endian.

WRITE BUFFER carries a MESSAGE to the first array.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from struct import Struct as Layout
from typing import Any

from construct import Const, Int8ub, Int16ub, Int32ub, PascalString, PrefixedArray, Struct

from arrayd.commands.formats import (
    EDITED_BYTES_MAX,
    IDENTIFICATION,
    INPUT_BYTES_MAX,
    VERSION,
    FormatError,
    Identification,
    Request,
    check,
    check_version,
    identified,
    unpack,
)

MESSAGE_BYTES_MAX = 256 * 1024
COMMANDS_MAX = 64
"""Commands in one message."""
ADDRESSES_MAX = 16
"""Addresses in one transfer destination parameter, and arrays that a message has passed."""
TIME_LIMIT_MS_MAX = 600_000
"""Longest time limit of a command in transit."""
IDENTIFICATION_AT = 12
"""Where it stands in a MESSAGE."""
BUFFER_MODE = 0x01
"""Mode of WRITE BUFFER and READ BUFFER (SPC-5, tables 223 and 405): vendor specific."""

TEXT_BYTES_MAX = 255

ADDRESS = PascalString(Int8ub, "utf-8")
"""Of an array: its name or its serial number."""


class Method(IntEnum):
    """How arrays find the next one on the path."""

    AS_CONFIGURED = 0
    """Each array by its own `commands.method`."""
    DELETE = 1
    """Figures 31 and 32: the address of the next array is deleted when it is sent there."""
    KEEP = 2
    """Figures 33 and 34: addresses are kept; each array finds its place among them."""
    SHORTEST = 3
    """Figure 37: to the farthest address that the array is connected with."""


METHODS = frozenset(Method)


class Part(IntEnum):
    """What a message is made of."""

    DESTINATION = 1
    """Transfer destination parameter."""
    CONTROL = 2
    """Control parameter and input parameter."""


GO_ON = 0x01
"""Flag of a message: commands behind one that failed are executed all the same."""
LOCAL = 0x02
"""Flag of a message: its initiator is on the machine of the first array, which sets it."""

MESSAGE = Struct(
    "magic" / Const(b"ACIF"),
    "version" / Int16ub,
    "flags" / Int8ub,
    "method" / Int8ub,
    "time_left" / Int32ub,  # milliseconds that the sender gives it from now on
    "identification" / IDENTIFICATION,
    "origin" / ADDRESS,  # who sent it first: empty in what a host writes; an array fills in the initiator's name
    "trail" / PrefixedArray(Int8ub, ADDRESS),  # arrays that it has passed, the first one first
    "parts" / Int8ub,
    # so many parts
)

MESSAGE_MAGIC = b"ACIF"
MESSAGE_HEAD = Layout(">4sHBBI8sQQ")
"""MESSAGE as far as its origin, precompiled."""

DESTINATION = Struct(
    "kind" / Const(Part.DESTINATION, Int8ub),
    "addresses" / PrefixedArray(Int8ub, ADDRESS),
)
CONTROL = Struct(
    "kind" / Const(Part.CONTROL, Int8ub),
    "process" / Int16ub,
    "edited" / Int8ub,
    "identification" / IDENTIFICATION,  # of this command: the message's, and a greater count with each command
    "length" / Int32ub,
    # the input parameter
)
CONTROL_HEAD = Layout(">BHB8sQQI")
"""CONTROL, precompiled."""

LISTED = Struct(
    "array" / ADDRESS,  # where it ended
    "process" / Int16ub,
    "result" / Int16ub,
    "identification" / IDENTIFICATION,
    "length" / Int32ub,
    # the edited data
)
LISTED_HEAD = Layout(">HH8sQQI")
"""LISTED behind its first field, precompiled."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A transfer destination parameter: addresses in the order of the path."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """Command interfaces on their way: figure 26 has one destination and one command, figure 38 several of each, and
    a command that is executed where it arrives has no destination before it."""

    identification: Identification
    parts: tuple[Destination | Request, ...]
    time_left_ms: int
    method: Method = Method.AS_CONFIGURED
    goes_on: bool = False
    origin: str = ""
    trail: tuple[str, ...] = ()
    local: bool = False

    @property
    def requests(self) -> list[Request]:
        """The commands in it, in order."""
        return [part for part in self.parts if isinstance(part, Request)]

    def encode(self) -> bytes:
        """A MESSAGE. Raises FormatError if it is too long."""
        flags = (GO_ON if self.goes_on else 0) | (LOCAL if self.local else 0)
        head = MESSAGE_HEAD.pack(MESSAGE_MAGIC, VERSION, flags, self.method, self.time_left_ms, *self.identification)
        trail = _encode_texts(self.trail)
        parts = b"".join(map(_encode_part, self.parts))
        data = b"".join((head, _encode_text(self.origin), trail, bytes((len(self.parts),)), parts))
        check(len(data) <= MESSAGE_BYTES_MAX, f"a message of {len(data)} bytes: {MESSAGE_BYTES_MAX} at the most")
        return data


def _encode_text(text: str) -> bytes:
    data = text.encode()
    check(len(data) <= TEXT_BYTES_MAX, f"a text of {len(data)} bytes: {TEXT_BYTES_MAX} at the most")
    return bytes((len(data),)) + data


def _encode_texts(texts: tuple[str, ...]) -> bytes:
    return bytes((len(texts),)) + b"".join(map(_encode_text, texts))


def _encode_part(part: Destination | Request) -> bytes:
    if isinstance(part, Destination):
        return bytes((Part.DESTINATION,)) + _encode_texts(part.addresses)
    head = CONTROL_HEAD.pack(Part.CONTROL, part.process, part.edited, *part.identification, len(part.input))
    return head + part.input


class Cursor:
    """Takes what is in `data` apart, from its beginning. Raises FormatError where something is not there."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.at = 0

    def fields(self, layout: Layout) -> tuple[Any, ...]:
        """What `layout` finds."""
        told = unpack(layout, self.data, self.at, self.what)
        self.at += layout.size
        return told

    def byte(self) -> int:
        """One byte."""
        check(self.at < len(self.data), f"not {self.what}")
        self.at += 1
        return self.data[self.at - 1]

    def take(self, length: int) -> bytes:
        """So many bytes."""
        end = self.at + length
        check(end <= len(self.data), f"not {self.what}")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def text(self) -> str:
        """A length of one byte, and so many bytes of UTF-8."""
        try:
            return self.take(self.byte()).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"not {self.what}") from error

    def texts(self) -> tuple[str, ...]:
        """A count of one byte, and so many texts."""
        return tuple(self.text() for _ in range(self.byte()))


def decode_message(data: bytes) -> Message:
    """The MESSAGE that `data` is. Raises FormatError."""
    check(len(data) <= MESSAGE_BYTES_MAX, f"a message of {len(data)} bytes: {MESSAGE_BYTES_MAX} at the most")
    cursor = Cursor(data, "a message")
    magic, version, flags, method, time_left, *number = cursor.fields(MESSAGE_HEAD)
    check(magic == MESSAGE_MAGIC, "not a message")
    check_version(version, "a message")
    check(not flags & ~(GO_ON | LOCAL), f"flags {flags:#04x}")
    check(method in METHODS, f"method {method}")
    check(0 < time_left <= TIME_LIMIT_MS_MAX, f"a time limit of {time_left} ms: 1 to {TIME_LIMIT_MS_MAX}")
    origin, trail = cursor.text(), cursor.texts()
    check(len(trail) <= ADDRESSES_MAX, f"{len(trail)} arrays passed: {ADDRESSES_MAX} at the most")
    parts = tuple(_decode_part(cursor) for _ in range(cursor.byte()))
    check(cursor.at == len(data), f"{len(data) - cursor.at} bytes behind the message")
    _check_parts(parts)
    return Message(
        identified(number), parts, time_left, Method(method), bool(flags & GO_ON), origin, trail, bool(flags & LOCAL)
    )


def _decode_part(cursor: Cursor) -> Destination | Request:
    kind = cursor.byte()
    if kind == Part.DESTINATION:
        addresses = cursor.texts()
        fit = 0 < len(addresses) <= ADDRESSES_MAX and all(addresses)
        check(fit, f"{len(addresses)} addresses: 1 to {ADDRESSES_MAX}, none of them empty")
        return Destination(addresses)
    check(kind == Part.CONTROL, f"a part of kind {kind}")
    cursor.at -= 1
    _, process, edited, *number, length = cursor.fields(CONTROL_HEAD)
    check(edited <= 1, f"presence of edited data is {edited}: 0 or 1")
    check(length <= INPUT_BYTES_MAX, f"an input parameter of {length} bytes: {INPUT_BYTES_MAX} at the most")
    return Request(process, identified(number), cursor.take(length), bool(edited))


def _check_parts(parts: tuple[Destination | Request, ...]) -> None:
    """Every destination is that of a command; identification numbers are not used twice."""
    if not parts or isinstance(parts[-1], Destination):
        raise FormatError("no command for a transfer destination")
    for part, following in pairwise(parts):
        if isinstance(part, Destination) and isinstance(following, Destination):
            raise FormatError("no command for a transfer destination")
    numbers = [part.identification for part in parts if isinstance(part, Request)]
    if len(numbers) > COMMANDS_MAX:
        raise FormatError(f"{len(numbers)} commands: {COMMANDS_MAX} at the most")
    if len(set(numbers)) < len(numbers):
        raise FormatError("two commands with one identification number")


# -- edited data of several commands ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """One command of a message that has ended: at which array, and how."""

    array: str
    process: int
    identification: Identification
    result: int
    edited: bytes

    def encode(self) -> bytes:
        """A LISTED."""
        head = LISTED_HEAD.pack(self.process, self.result, *self.identification, len(self.edited))
        return _encode_text(self.array) + head + self.edited


def decode_ended(data: bytes) -> list[Ended]:
    """Any number of LISTED, one behind the other. Raises FormatError."""
    cursor = Cursor(data, "a result")
    ended: list[Ended] = []
    while cursor.at < len(data):
        array = cursor.text()
        process, result, *number, length = cursor.fields(LISTED_HEAD)
        check(length <= EDITED_BYTES_MAX, f"edited data of {length} bytes: {EDITED_BYTES_MAX} at the most")
        check(len(ended) < COMMANDS_MAX, f"more than {COMMANDS_MAX} results")
        ended.append(Ended(array, process, Identification(*number), result, cursor.take(length)))
    return ended
