"""An addressed command (figures 26, 30, 38 and 40): a message goes to the first array by WRITE BUFFER, and its answer
comes back by READ BUFFER. No command device is needed; any LUN will do.

Messages and answers meet in a lane, the buffer ID, of this host's nexus. Another process of the same nexus may use the
same lane: the identification number of an answer tells, and then the message is written again, in another lane.
"""

from __future__ import annotations

from arrayd.commands.formats import EDITED_BYTES_MAX, HEAD_BYTES, NOBODY, Answer, FormatError, State, decode_answer
from arrayd.commands.messages import Message
from arrayd.commands.results import Result
from arrayd.host.attempts import Again, answer_to, not_in_format, operation_timeout
from arrayd.host.machine import choose
from arrayd.host.transport import Interrupted, Refused, Transport

LANES = range(256)
ANSWER_BYTES_MAX = HEAD_BYTES + EDITED_BYTES_MAX
NEVER_CAME = frozenset({Result.UNKNOWN_IDENTIFICATION})
"""Results that say that the message is to be sent again: the array started anew, or forgot the lane."""


class MessageErrand:
    """One message, to the array behind `transport`. `name` stands in errors."""

    def __init__(self, transport: Transport, name: str, message: Message) -> None:
        self.reached = self.handed_over = False
        self._transport = transport
        self._name = name
        self._identification = message.identification
        self._message = message.encode()
        self._lane = -1
        """Where the message was written; -1: nowhere yet."""

    def attempt(self, deadline: float) -> Answer:
        """See Errand."""
        try:
            if self._lane < 0:
                self._hand_over(choose(LANES), deadline)
            answer = answer_to(self._identification, lambda: self._read(deadline), deadline)
        except FormatError as error:
            raise not_in_format(error, self._name) from None
        if answer is None or answer.result in NEVER_CAME:
            self._lane = -1
            raise Again(Result.UNREACHABLE, f"{self._name}: the message was not kept")
        return answer

    def _hand_over(self, lane: int, deadline: float) -> None:
        try:
            self._transport.write_buffer(lane, self._message, operation_timeout(deadline))
        except Interrupted:
            self._lane, self.handed_over = lane, True  # it may be there: the answer will tell
            raise
        self._lane, self.handed_over = lane, True

    def _read(self, deadline: float) -> bytes:
        """What the lane holds. That the array knows of no message in it is an answer of nobody's."""
        try:
            data = self._transport.read_buffer(self._lane, ANSWER_BYTES_MAX, operation_timeout(deadline))
        except Refused as error:
            if error.out_of_sequence:
                return Answer(State.FREE).encode()
            raise
        return self._claimed(data)

    def _claimed(self, data: bytes) -> bytes:
        """An error about a message in which the array found no number is an error about ours."""
        answer = decode_answer(data)
        refused = answer.state is State.DONE and answer.result not in (Result.OK, *NEVER_CAME)
        if answer.identification != NOBODY or not refused:
            return data
        return Answer(State.DONE, self._identification, answer.result, answer.edited).encode()
