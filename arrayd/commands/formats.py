"""What a host writes to a command device and reads there, byte by byte (figure 6).

Declared once, with construct; all integers are big-endian. What every command needs has precompiled layouts, and a
property test proves that both agree. `docs/formats.md` says the same for people. A host's library
shares these with the array.

A *command device* is a LUN of SLOTS slots behind a description. The host writes a REQUEST at the beginning of a slot,
in one WRITE, and reads its ANSWER `REQUEST_BYTES` behind it. `messages.py` has what goes from array to array.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct as Layout
from typing import Any, NamedTuple

from construct import (
    Bytes,
    Const,
    ConstructError,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    PaddedString,
    Padding,
    Struct,
)

from arrayd.commands.results import Result

VERSION = 1
"""Version of all these formats."""
BLOCK_BYTES = 512
"""Of a command device."""
PAGE_BYTES = 4096
SLOTS = 64
"""Commands that one command device holds at once."""
SLOT_BYTES = 256 * 1024
REQUEST_BYTES = 64 * 1024
"""The first part of a slot, which is written; the answer is read behind it."""
DEVICE_BYTES = (1 + SLOTS) * SLOT_BYTES
HEAD_BYTES = 64
"""Of a REQUEST and of an ANSWER; the parameter, or the edited data, follows."""
INPUT_BYTES_MAX = REQUEST_BYTES - HEAD_BYTES
EDITED_BYTES_MAX = 128 * 1024
REASON_CHARACTERS_MAX = 500
"""Of an error, as it is told."""
ACKNOWLEDGE = 0
"""Process number of a REQUEST that frees the slot: the answer has come."""


class FormatError(Exception):
    """What came is not in the format; the text says what is wrong with it."""


class Identification(NamedTuple):
    """The identification number of a command: whose it is (8 bytes, chosen at random), since when that host counts, and
    its count. Of two commands of a host the later one has the greater `(epoch, counter)`."""

    host: bytes
    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.host.hex()}-{self.epoch:x}-{self.counter:x}"


NOBODY = Identification(bytes(8), 0, 0)
"""Where no command is meant."""

IDENTIFICATION = Struct("host" / Bytes(8), "epoch" / Int64ub, "counter" / Int64ub)
IDENTIFICATION_LAYOUT = Layout(">8sQQ")
IDENTIFICATION_BYTES = IDENTIFICATION_LAYOUT.size
IDENTIFICATION_AT = 16
"""Where it stands in a REQUEST and in an ANSWER."""

DESCRIPTION = Struct(
    "magic" / Const(b"arrayd command device\n".ljust(32, b"\0")),
    "version" / Int16ub,
    "slots" / Int16ub,
    "slot_bytes" / Int32ub,  # slot n begins at (n + 1) * slot_bytes
    "request_bytes" / Int32ub,  # the answer begins so many bytes behind the beginning of the slot
    "name" / PaddedString(64, "utf-8"),  # of the array
    "serial" / PaddedString(32, "utf-8"),
    "commands" / Int64ub,  # that were begun since the array started
    Padding(1024 - 148),
    "states" / Bytes(SLOTS),  # of each slot, a byte: State
)
"""The first page of a command device. It is read only."""
COMMANDS_AT = 140
"""Where `commands` stands in it: the rest, but for the states, does not change."""


class State(IntEnum):
    """Of a slot, and of its command."""

    FREE = 0
    """Nobody uses the slot."""
    RUNNING = 1
    """The command was taken and has not ended."""
    DONE = 2
    """The command has ended; its answer has not been read."""
    DELIVERED = 3
    """The answer has been read: the slot may be used again."""


STATES = frozenset(State)


REQUEST = Struct(
    "magic" / Const(b"ACMD"),
    "version" / Int16ub,
    "process" / Int16ub,  # control parameter: the number of the command
    "edited" / Int8ub,  # control parameter: 1 if edited data is asked for, 0 if not
    Padding(3),
    "length" / Int32ub,  # of the input parameter, in bytes
    "identification" / IDENTIFICATION,
    Padding(HEAD_BYTES - 40),
    # the input parameter: a JSON object in UTF-8; nothing stands for {}
)
"""Figure 6: control parameter and input parameter of the command device interface."""
REQUEST_MAGIC = b"ACMD"
REQUEST_HEAD = Layout(">4sHHB3xI8sQQ24x")
"""REQUEST, precompiled."""

ANSWER = Struct(
    "magic" / Const(b"AANS"),
    "version" / Int16ub,
    "state" / Int8ub,
    "edited" / Int8ub,  # 1 if edited data follows
    "result" / Int16ub,
    Padding(2),
    "length" / Int32ub,  # of the edited data, in bytes
    "identification" / IDENTIFICATION,
    Padding(HEAD_BYTES - 40),
    # the edited data: JSON in UTF-8
)
"""Figure 6: edited data, and what became of the command. An error has edited data, asked for or not:
`{"error": text, "at": name of the array}`."""
ANSWER_MAGIC = b"AANS"
ANSWER_HEAD = Layout(">4sHBBH2xI8sQQ24x")
"""ANSWER, precompiled."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command for the array that reads it. `input` is JSON text."""

    process: int
    identification: Identification
    input: bytes = b""
    edited: bool = True

    def encode(self) -> bytes:
        """A REQUEST. Raises FormatError if it is too long."""
        if len(self.input) > INPUT_BYTES_MAX:
            raise FormatError(f"an input parameter of {len(self.input)} bytes: {INPUT_BYTES_MAX} at the most")
        head = REQUEST_HEAD.pack(
            REQUEST_MAGIC, VERSION, self.process, self.edited, len(self.input), *self.identification
        )
        return head + self.input


def decode_request(data: bytes) -> Request:
    """The REQUEST that `data` begins with. Raises FormatError."""
    magic, version, process, edited, length, *number = unpack(REQUEST_HEAD, data, 0, "a command")
    check(magic == REQUEST_MAGIC, "not a command")
    check_version(version, "a command")
    check(edited <= 1, f"presence of edited data is {edited}: 0 or 1")
    there = len(data) - HEAD_BYTES
    check(length <= there, f"an input parameter of {length} bytes, of which {there} were written")
    return Request(process, identified(number), bytes(data[HEAD_BYTES : HEAD_BYTES + length]), bool(edited))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command. `edited` is JSON text, empty where there is none."""

    state: State
    identification: Identification = NOBODY
    result: Result | int = Result.OK
    edited: bytes = b""

    def encode(self) -> bytes:
        """An ANSWER."""
        edited = self.edited
        head = ANSWER_HEAD.pack(
            ANSWER_MAGIC, VERSION, self.state, bool(edited), self.result, len(edited), *self.identification
        )
        return head + edited


def decode_answer(data: bytes) -> Answer:
    """The ANSWER that `data` begins with; its edited data as far as it is there. Raises FormatError."""
    magic, version, state, _, result, length, *number = unpack(ANSWER_HEAD, data, 0, "an answer")
    check(magic == ANSWER_MAGIC, "not an answer")
    check_version(version, "an answer")
    check(state in STATES, f"state {state}")
    check(length <= EDITED_BYTES_MAX, f"edited data of {length} bytes: {EDITED_BYTES_MAX} at the most")
    return Answer(State(state), Identification(*number), result, bytes(data[HEAD_BYTES : HEAD_BYTES + length]))


def answer_length(head: bytes) -> int:
    """Bytes of the whole ANSWER that begins so. Raises FormatError."""
    magic, *_, length, _host, _epoch, _counter = unpack(ANSWER_HEAD, head, 0, "an answer")
    check(magic == ANSWER_MAGIC, "not an answer")
    return HEAD_BYTES + int(length)


def decode_description(data: bytes) -> Any:
    """The DESCRIPTION that a command device begins with. Raises FormatError."""
    try:
        told = DESCRIPTION.parse(bytes(data))
    except (ConstructError, UnicodeDecodeError) as error:
        raise FormatError("not a command device") from error
    check_version(told.version, "a command device")
    return told


def written_by(data: bytes, at: int) -> Identification:
    """The identification number at `at` in what is no REQUEST or MESSAGE: its answer says whose it is, if it can."""
    where = bytes(data[at : at + IDENTIFICATION_BYTES]).ljust(IDENTIFICATION_BYTES, b"\0")
    return Identification(*IDENTIFICATION_LAYOUT.unpack(where))


def error_text(reason: str, at: str) -> bytes:
    """The edited data of an error."""
    return to_json({"error": reason[:REASON_CHARACTERS_MAX], "at": at})


def to_json(value: Mapping[str, Any] | list[Any]) -> bytes:
    """JSON text as it is carried."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def whole_blocks(data: bytes) -> bytes:
    """`data` as it is written: zeros behind it, to the end of a block."""
    return data + bytes(-len(data) % BLOCK_BYTES)


# -- parsing -----------------------------------------------------------------------------------------------------------


def check(holds: bool, otherwise: str) -> None:
    """Raises FormatError, with what is wrong, unless it holds."""
    if not holds:
        raise FormatError(otherwise)


def check_version(version: int, what: str) -> None:
    """Raises FormatError for another version than ours."""
    check(version == VERSION, f"{what} of version {version}: this is version {VERSION}")


def unpack(layout: Layout, data: bytes, at: int, what: str) -> tuple[Any, ...]:
    """What `layout` finds at `at`. Raises FormatError if it is not all there."""
    check(len(data) >= at + layout.size, f"not {what}")
    return layout.unpack_from(data, at)


def identified(number: Sequence[Any]) -> Identification:
    """The identification number of a command: host, epoch, counter. Raises FormatError for one without a host."""
    check(number[0] != NOBODY.host, "an identification number without a host")
    return Identification(*number)
