"""What arrays ask each other over the link about commands, and the answers: payloads of REQUEST and ANSWER frames.

A request begins with its operation, an answer with its outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum

from arrayd.commands.formats import (
    EDITED_BYTES_MAX,
    IDENTIFICATION_LAYOUT,
    FormatError,
    Identification,
    identified,
    unpack,
)
from arrayd.link.channel import Call, LinkError, Request

SERVICE = 2
"""The link's number of this service."""
EXPECTED_BYTES = 2 * EDITED_BYTES_MAX
"""What an answer may come to."""


class Operation(IntEnum):
    """What is asked."""

    SUBMIT = 1
    """A message follows: take it (S3101)."""
    OBTAIN = 2
    """An identification number follows: the edited data of that message (S3201)."""
    TEST = 3
    """Four bytes follow, the length of the answer, and any number of others: what the link takes there and back."""


class Outcome(IntEnum):
    """The answer."""

    TAKEN = 0
    """Of SUBMIT: the message is in the command cache."""
    RUNNING = 1
    """Of OBTAIN: not ended yet; ask again."""
    ENDED = 2
    """Of OBTAIN: what became of its commands follows."""
    UNKNOWN = 3
    """Of OBTAIN: there is no such message."""
    MALFORMED = 4
    """Why follows."""


Send = Callable[[str, Request], None]
"""`send(array, request)` puts a request on the link with an array."""


async def ask(send: Send, array: str, payload: bytes, expects: int = EXPECTED_BYTES) -> bytes:
    """The answer of an array. Raises LinkError. Cancelled, it leaves the request to itself."""
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def ended(answer: memoryview | LinkError) -> None:
        if came.done():
            return
        if isinstance(answer, LinkError):
            came.set_exception(answer)
        else:
            came.set_result(bytes(answer))

    send(array, Request(SERVICE, payload[:1], payload[1:], expects, ended))
    return await came


def answer(call: Call, outcome: Outcome, data: bytes = b"") -> None:
    """Answers what another array asked."""
    call.answer(bytes((outcome,)), data)


def submit(message: bytes) -> bytes:
    """SUBMIT."""
    return bytes((Operation.SUBMIT,)) + message


def obtain(identification: Identification) -> bytes:
    """OBTAIN."""
    return bytes((Operation.OBTAIN,)) + IDENTIFICATION_LAYOUT.pack(*identification)


TEST_BYTES_MAX = 4 * 1024 * 1024
"""One way, of a TEST."""


def test(there: int, back: int) -> bytes:
    """TEST, of `there` bytes, answered with `back` bytes."""
    return bytes((Operation.TEST,)) + back.to_bytes(4, "big") + bytes(there)


def answer_test(data: bytes) -> bytes:
    """What is answered to a TEST, behind the outcome. Raises FormatError."""
    length = int.from_bytes(data[1:5], "big")
    if len(data) < 5 or length > TEST_BYTES_MAX:
        raise FormatError(f"a test of {length} bytes: {TEST_BYTES_MAX} at the most")
    return bytes(length)


def decode_identification(data: bytes) -> Identification:
    """What OBTAIN asks for. Raises FormatError."""
    return identified(unpack(IDENTIFICATION_LAYOUT, data, 0, "an identification number"))


def outcome_of(answer: bytes) -> Outcome:
    """Raises FormatError."""
    try:
        return Outcome(answer[0])
    except (IndexError, ValueError):
        raise FormatError("an answer that is none") from None
