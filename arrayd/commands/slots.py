"""The host's side of a command device (figure 8), for an array that commands another by a virtual volume (figure
22)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from arrayd.commands.formats import (
    BLOCK_BYTES,
    PAGE_BYTES,
    REQUEST_BYTES,
    SLOT_BYTES,
    Answer,
    FormatError,
    Request,
    State,
    answer_length,
    decode_answer,
    decode_description,
    whole_blocks,
)
from arrayd.commands.results import Result
from arrayd.scsi.inner_initiator import NotDoneError

PAUSE_SECONDS = 0.01
"""Before a slot is looked for, or an answer read, once more."""


class Lun(Protocol):
    """A LUN that is read and written."""

    async def read(self, offset: int, length: int) -> bytes:
        """Raises NotDoneError."""

    async def write(self, offset: int, data: bytes) -> None:
        """Raises NotDoneError."""


class NoAnswerError(Exception):
    """There is no answer; `result` and the text say why."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result


async def send(
    lun: Lun, request: Request, choose: Callable[[int], int], now: Callable[[], float], until: float
) -> Answer:
    """Has the array behind the command device `lun` execute `request`; its answer. `choose(n)` is a number below n, by
    chance. Raises NoAnswerError, at the time `until` at the latest.

    Whatever happens on the way, the same request is written again: nothing is executed twice.
    """
    why: str = "every slot is in use"
    result = Result.NO_SLOT
    try:
        data = whole_blocks(request.encode())
    except FormatError as error:
        raise NoAnswerError(Result.TOO_LONG, str(error)) from error
    while now() < until:
        try:
            answer = await _in_one_slot(lun, request, data, choose, now, until)
            if answer is not None:
                return answer
        except FormatError as error:
            raise NoAnswerError(Result.UNREACHABLE, f"the LUN is no command device: {error}") from error
        except NotDoneError as error:
            why, result = str(error), Result.UNREACHABLE
        await asyncio.sleep(PAUSE_SECONDS)
    raise NoAnswerError(result, why)


async def _in_one_slot(
    lun: Lun, request: Request, data: bytes, choose: Callable[[int], int], now: Callable[[], float], until: float
) -> Answer | None:
    """S801 to S805 in one slot; None: the slot, or every slot, is another's."""
    states = decode_description(await lun.read(0, PAGE_BYTES)).states
    usable = [number for number, state in enumerate(states) if state in (State.FREE, State.DELIVERED)]
    if not usable:
        return None
    at = (usable[choose(len(usable))] + 1) * SLOT_BYTES
    await lun.write(at, data)
    while now() < until:
        head = await lun.read(at + REQUEST_BYTES, PAGE_BYTES)
        answer = decode_answer(head)
        if answer.identification != request.identification:
            return None
        if answer.state != State.RUNNING:
            length = answer_length(head)
            if length > len(head):
                answer = decode_answer(await lun.read(at + REQUEST_BYTES, -(-length // BLOCK_BYTES) * BLOCK_BYTES))
            return answer if answer.identification == request.identification else None
        await asyncio.sleep(PAUSE_SECONDS)
    raise NoAnswerError(Result.EXPIRED, "the command has not ended in time")
