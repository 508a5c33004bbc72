"""Messages that WRITE BUFFER brings, and what READ BUFFER fetches for them (figure 27, and figure 30 from the array's
side). See `arrayd.scsi.data_buffer`.
"""

from __future__ import annotations

from dataclasses import replace

from arrayd.commands.formats import Answer, FormatError, Identification, State, error_text, written_by
from arrayd.commands.messages import IDENTIFICATION_AT, Ended, decode_message
from arrayd.commands.results import Result
from arrayd.commands.transit import Item, Transit, wait
from arrayd.origin import Origin

HOLD_SECONDS = 0.2
"""READ BUFFER for a message that has not ended is held for so long, in case it ends."""


class Lanes:
    """Takes messages for `transit`; `name` is the array's."""

    def __init__(self, name: str, transit: Transit) -> None:
        self._name = name
        self._transit = transit

    def take(self, origin: Origin, message: bytes) -> Lane | Ready:
        """See `arrayd.scsi.data_buffer.Commander`."""
        try:
            told = decode_message(message)
            if told.origin or told.trail or told.local:
                raise FormatError("a message that says who sent it, and by which way: that is for arrays to say")
        except FormatError as error:
            identification = written_by(message, IDENTIFICATION_AT)
            return Ready(Answer(State.DONE, identification, Result.MALFORMED, error_text(str(error), self._name)))
        told = replace(told, origin=origin.name, trail=origin.path, local=origin.local)
        item = self._transit.take(origin, told)
        if self._transit.find(told.identification) is not item:
            return Ready(answer_of(item))  # refused: it is not in the cache
        return Lane(self._transit, self._name, told.identification)


class Lane:
    """A message in the cache, as long as it is there: see `arrayd.scsi.data_buffer.Sent`."""

    def __init__(self, transit: Transit, name: str, identification: Identification) -> None:
        self._transit = transit
        self._name = name
        self._identification = identification

    async def answer(self) -> bytes:
        """READ BUFFER."""
        item = self._transit.find(self._identification)
        if item is None:
            reason = "the command cache has forgotten it: write it again, and nothing is executed twice"
            edited = error_text(reason, self._name)
            return Answer(State.DONE, self._identification, Result.UNKNOWN_IDENTIFICATION, edited).encode()
        await wait(item, HOLD_SECONDS)
        return answer_of(item).encode()


class Ready:
    """A message that was answered at once: see `arrayd.scsi.data_buffer.Sent`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer.encode()

    def answer(self) -> bytes:
        """READ BUFFER."""
        return self._answer


def answer_of(item: Item) -> Answer:
    """What is told of a message: of one command its own answer, of several a list."""
    message = item.message
    if item.ended is None:
        return Answer(State.RUNNING, message.identification)
    if len(item.ended) == 1:
        only = item.ended[0]
        return Answer(State.DONE, message.identification, only.result, only.edited)
    result = next((each.result for each in item.ended if each.result), Result.OK)
    listed = b"[" + b",".join(map(_listed, item.ended)) + b"]"
    return Answer(State.DONE, message.identification, result, listed)


def _listed(ended: Ended) -> bytes:
    """A JSON object; the edited data is JSON already."""
    head = f'{{"array":"{ended.array}","process":{ended.process},"result":{int(ended.result)}'.encode()
    return head + (b',"edited":' + ended.edited if ended.edited else b"") + b"}"
