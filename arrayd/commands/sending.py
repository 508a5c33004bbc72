"""An array that commands others by itself: "each of the storage devices may be equipped with a command setting section
701 and a command transmission section 702", and "with a data generation section 2701 and a data transmission section".
"""

from __future__ import annotations

import math
from collections.abc import Callable

from arrayd.commands import slots
from arrayd.commands.formats import Identification, Request, error_text
from arrayd.commands.messages import Destination, Ended, Message, Method
from arrayd.commands.transit import Transit
from arrayd.origin import Origin

MARGIN_SECONDS = 0.2
"""A message has so much less time than who waits for it: so it is its answer that says what went wrong."""


class Sender:
    """Sends commands of the array `name`: by `transit`, or by the LUN that `lun(number)` leads to. `choose(n)` is a
    number below n, by chance; `now()` the time in seconds; `host` and `epoch` begin its identification numbers."""

    def __init__(
        self,
        name: str,
        transit: Transit,
        lun: Callable[[int], slots.Lun],
        host: bytes,
        epoch: int,
        choose: Callable[[int], int],
        now: Callable[[], float],
    ) -> None:
        self._name = name
        self._transit = transit
        self._lun = lun
        self._host = host
        self._epoch = epoch
        self._choose = choose
        self._now = now
        self._counter = 0
        self._stopped = False

    def stop(self) -> None:
        """Nobody waits for an answer any more."""
        self._stopped = True

    def _time(self) -> float:
        return math.inf if self._stopped else self._now()

    def _identify(self) -> Identification:
        self._counter += 1
        return Identification(self._host, self._epoch, self._counter)

    async def send_addressed(
        self, path: tuple[str, ...], process: int, told: bytes, seconds: float, method: Method = Method.AS_CONFIGURED
    ) -> Ended:
        """Has the last array of `path` execute a command, by a message that the others pass on (figures 28 and 30)."""
        identification = self._identify()
        request = Request(process, identification, told)
        parts = (Destination(path), request) if path else (request,)
        message = Message(identification, parts, max(int(seconds * 1000), 1), method, origin=self._name)
        item = self._transit.take(Origin(self._name, is_array=True), message)
        await item.over.wait()
        assert item.ended is not None
        return item.ended[0]

    async def send_by_lun(self, lun: int, process: int, told: bytes, seconds: float) -> Ended:
        """Has the array execute a command to whose command device the virtual volume `lun` leads (figures 8 and 22)."""
        request = Request(process, self._identify(), told)
        until = self._now() + max(seconds - MARGIN_SECONDS, seconds / 2)
        try:
            answer = await slots.send(self._lun(lun), request, self._choose, self._time, until)
        except slots.NoAnswerError as error:
            edited = error_text(f"LUN {lun}: {error}", self._name)
            return Ended(self._name, process, request.identification, error.result, edited)
        return Ended("", process, request.identification, answer.result, answer.edited)
