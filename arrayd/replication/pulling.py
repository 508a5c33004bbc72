"""How the side with the S-VOLs asks the other one: until it is told to stop, and with growing pauses where it fails."""

from __future__ import annotations

import asyncio

from arrayd.link.channel import LinkError
from arrayd.link.peers import PAUSE_SECONDS, PAUSE_SECONDS_MAX
from arrayd.log import get_logger
from arrayd.replication.stages import Answer, Doors

NS = 1_000_000_000

log = get_logger("replication")


class Stopped(Exception):
    """Nothing is asked any more: what was under way is given up."""


class Pulling:
    """Questions to the array `peer`, and what waits for something besides: `stop` ends all of it."""

    def __init__(self, doors: Doors, peer: str) -> None:
        self.doors = doors
        self.peer = peer
        self.contact: float | None = None
        """When the last answer came, in seconds since 1970."""
        self._events: list[asyncio.Event] = []
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- stopped -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Whoever asks, sleeps or waits, now or later, gets `Stopped`."""
        if not self._stop.done():
            self._stop.set_result(None)
        for event in self._events:
            event.set()

    def resume(self) -> None:
        """It may be asked again."""
        if self._stop.done():
            self._stop = asyncio.get_running_loop().create_future()

    def check(self) -> None:
        """Raises Stopped if it is."""
        if self._stop.done():
            raise Stopped

    # -- asked -------------------------------------------------------------------------------------------------------

    async def ask(self, question: bytes, expects: int, seconds: float | None = None) -> memoryview:
        """The answer, which lasts as long as it is held. Raises as `answer` does."""
        return (await self.answer(question, expects, seconds)).kept()

    async def answer(self, question: bytes, expects: int, seconds: float | None = None) -> Answer:
        """The answer, where it was received. Raises LinkError, also if none comes in so many seconds, and Stopped."""
        self.check()
        asking = asyncio.ensure_future(self.doors.ask(self.peer, question, expects))
        try:
            await asyncio.wait((asking, self._stop), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait((asking,))
            if not asking.cancelled():
                asking.exception()  # heard, also if the caller is cancelled
        if asking.cancelled():
            self.check()
            raise LinkError(f"no answer from {self.peer} in {seconds} s", maybe_done=True)
        answer = asking.result()
        self.contact = self.doors.clock() / NS
        return answer

    # -- waited for --------------------------------------------------------------------------------------------------

    def event(self) -> asyncio.Event:
        """One that `wait` waits for."""
        event = asyncio.Event()
        self._events.append(event)
        return event

    async def wait(self, event: asyncio.Event) -> None:
        """Until it is set, and clears it. Raises Stopped."""
        await event.wait()
        event.clear()
        self.check()

    async def sleep(self, seconds: float) -> None:
        """Raises Stopped."""
        if seconds > 0:
            await asyncio.wait((self._stop,), timeout=seconds)
        self.check()


class Pauses:
    """Between one attempt that fails and the next: twice as long each time, as those of the link are."""

    def __init__(self, pulling: Pulling, what: str) -> None:
        self._pulling = pulling
        self._what = what
        self._next = PAUSE_SECONDS
        self._reason = ""

    async def failed(self, error: Exception) -> None:
        """Waits for a while; why is logged when it is another reason than before. Raises Stopped."""
        if str(error) != self._reason:
            self._reason = str(error)
            log.warning("tried again and again", what=self._what, array=self._pulling.peer, reason=self._reason)
        seconds, self._next = self._next, min(2 * self._next, PAUSE_SECONDS_MAX)
        await self._pulling.sleep(seconds)

    def went_well(self) -> None:
        """The next pause is short again."""
        self._next = PAUSE_SECONDS
        self._reason = ""
