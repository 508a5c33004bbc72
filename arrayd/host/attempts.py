"""Tries again what did not get through, until an answer comes or time is up.

Safe because the command keeps its identification number: an array that has carried it out answers from what it
remembers, and never carries it out twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from arrayd.commands.formats import Answer, FormatError, Identification, State, decode_answer
from arrayd.commands.results import Result
from arrayd.host.failure import CommandFailed
from arrayd.host.machine import monotonic, pause, remaining
from arrayd.host.transport import Interrupted, Refused, Unreachable

OPERATION_TIMEOUT_S = 15.0
"""For one read or write. Longer than arrays wait for one another by default, so that they can say what is wrong."""
OPERATION_TIMEOUT_MIN_S = 1.0
"""For the last one before time is up: longer than an array holds a read, so that it says what it knows."""
PAUSE_MIN_S = 0.01
PAUSE_MAX_S = 1.0
"""Between attempts; each pause is twice the one before."""
POLL_S = 0.05
"""An array holds the read of an answer while the command runs. One that does not is asked so often."""


class Again(Exception):
    """Not now: the slot is another host's, or none is free. `result` and the text say why, if time is up."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result


class Errand(Protocol):
    """A command that is to be handed over and whose answer is to be read."""

    reached: bool
    """Whether the array was heard of since it was begun."""
    handed_over: bool
    """Whether the array may have it already."""

    def attempt(self, deadline: float) -> Answer:
        """The answer. Raises Again, TransportError and CommandFailed."""


def until_answered(errand: Errand, deadline: float) -> Answer:
    """The answer of the array, before `deadline` of the machine's clock. Raises CommandFailed."""
    pause_s = PAUSE_MIN_S
    while True:
        try:
            return errand.attempt(deadline)
        except Refused as error:
            raise CommandFailed(Result.UNREACHABLE, str(error)) from None
        except Unreachable as error:
            # What was there a moment ago may come back; what was never there is named wrongly.
            if not (errand.reached or errand.handed_over):
                raise CommandFailed(Result.UNREACHABLE, str(error)) from None
            result, reason = Result.UNREACHABLE, str(error)
        except Interrupted as error:
            errand.reached = True
            result, reason = Result.UNREACHABLE, str(error)
        except Again as error:
            result, reason = error.result, str(error)
        if remaining(deadline) <= pause_s:
            known = "; whether it was carried out is not known" if errand.handed_over else ""
            raise CommandFailed(result, f"{reason}, till time was up{known}")
        pause(pause_s)
        pause_s = min(PAUSE_MAX_S, 2 * pause_s)


def operation_timeout(deadline: float) -> float:
    """Seconds for one read or write."""
    return min(OPERATION_TIMEOUT_S, max(OPERATION_TIMEOUT_MIN_S, remaining(deadline)))


def answer_to(identification: Identification, read: Callable[[], bytes], deadline: float) -> Answer | None:
    """The answer that `read` brings once the command has ended; None if what it brings is of another command.

    Raises CommandFailed when the command has not ended in time, FormatError, TransportError.
    """
    while True:
        asked = monotonic()
        answer = decode_answer(read())
        if answer.identification != identification or answer.state is State.FREE:
            return None
        if answer.state is not State.RUNNING:
            return answer
        if not remaining(deadline):
            raise CommandFailed(Result.EXPIRED, "it has not ended in time; it goes on")
        if monotonic() - asked < POLL_S:
            pause(POLL_S)


def not_in_format(error: FormatError, where: str) -> CommandFailed:
    """What an array that speaks otherwise is to us."""
    return CommandFailed(Result.UNREACHABLE, f"{where} answers in another format: {error}")
