"""A command by a command device (figure 8): the command device interface is written to it, and edited data read back.

    S801  the REQUEST is made: process number, presence of edited data, input parameter
    S802  the LUN is known; its description says which slots are free
    S803  the answer is read in any case, to learn of errors
    S804, S805  and holds the edited data

A slot that another host took first is left to it. When the slot holds another's command, because ours was answered and
the answer got lost, or the array started again, the same REQUEST is written once more, under the same number.
"""

from __future__ import annotations

from typing import Any

from arrayd.commands.formats import (
    PAGE_BYTES,
    Answer,
    FormatError,
    Request,
    State,
    answer_length,
    decode_description,
    whole_blocks,
)
from arrayd.commands.results import Result
from arrayd.host.attempts import Again, answer_to, not_in_format, operation_timeout
from arrayd.host.failure import CommandFailed
from arrayd.host.machine import choose
from arrayd.host.transport import Interrupted, Refused, Transport

USABLE = frozenset({State.FREE, State.DELIVERED})


class NotACommandDevice(Exception):
    """There is something else at this LUN."""


class DeviceErrand:
    """One command, by the command device behind `transport`. `name` stands in errors, `array` is who is to execute."""

    def __init__(self, transport: Transport, name: str, array: str, request: Request) -> None:
        self.reached = self.handed_over = False
        self._transport = transport
        self._name = name
        self._array = array
        self._request = request
        self._written = whole_blocks(request.encode())
        self._slot = 0
        """Offset of the slot that we believe ours, or 0, where the description is."""
        self._answer_at = 0

    def attempt(self, deadline: float) -> Answer:
        """See Errand. Raises NotACommandDevice too, before anything is written."""
        try:
            if not self._slot:
                self._hand_over(deadline)
            answer = answer_to(self._request.identification, lambda: self._read_answer(deadline), deadline)
        except FormatError as error:
            raise not_in_format(error, self._name) from None
        if answer is None:
            self._slot = 0
            raise Again(Result.UNREACHABLE, f"{self._name}: the slot was used again")
        return answer

    def _hand_over(self, deadline: float) -> None:
        """Writes the REQUEST into a slot that nobody uses."""
        told = self._description(deadline)
        usable = [number for number, state in enumerate(told.states[: told.slots]) if state in USABLE]
        if not usable:
            raise Again(Result.NO_SLOT, f"{self._name}: every slot is in use")
        slot = (choose(usable) + 1) * told.slot_bytes
        try:
            self._transport.write(slot, self._written, operation_timeout(deadline))
        except Refused as error:
            if error.out_of_sequence:
                raise Again(Result.NO_SLOT, f"{self._name}: other hosts took the slots") from None
            raise
        except Interrupted:
            self._believe(slot, told)
            raise
        self._believe(slot, told)

    def _believe(self, slot: int, told: Any) -> None:
        """The REQUEST is in this slot, or may be: the answer will tell."""
        self.handed_over = True
        self._slot, self._answer_at = slot, slot + told.request_bytes

    def _description(self, deadline: float) -> Any:
        """What the command device says of itself. Nothing is ever written to what does not say that it is one."""
        data = self._transport.read(0, PAGE_BYTES, operation_timeout(deadline))
        self.reached = True
        try:
            told = decode_description(data)
        except FormatError as error:
            raise NotACommandDevice(f"{self._name}: {error}") from None
        if self._array not in (told.name, told.serial):
            reason = f"{self._name} is the command device of {told.name}, not of {self._array}"
            raise CommandFailed(Result.USAGE, reason)
        if told.request_bytes < len(self._written):
            raise CommandFailed(Result.TOO_LONG, f"{self._name}: a command of at most {told.request_bytes} bytes")
        return told

    def _read_answer(self, deadline: float) -> bytes:
        """The ANSWER. A long one is read again as a whole: from the first read on the slot may change hands."""
        page = self._transport.read(self._answer_at, PAGE_BYTES, operation_timeout(deadline))
        if not any(page):
            return Answer(State.FREE).encode()  # a slot that nobody has used yet
        length = answer_length(page)
        if length <= PAGE_BYTES:
            return page
        return self._transport.read(self._answer_at, -(-length // PAGE_BYTES) * PAGE_BYTES, operation_timeout(deadline))
