"""A host's verb in virtual time: it blocks, as `arrayctl` does, in a thread of its own, and time stands still until it
waits.

The loop and the thread take turns: while the verb computes the loop does nothing, and while the verb waits for an
answer, or for time to pass, the loop goes on. So a run is the same each time, whatever threads do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

Work = Coroutine[Any, Any, Any]
ASIDE = threading.local()
"""Of a verb's thread: who runs it."""


class GivenUp(BaseException):
    """The run has ended, and the verb with it."""


class Worker:
    """A thread, which does one thing after the other."""

    def __init__(self) -> None:
        self._begin = threading.Lock()
        self._begin.acquire()
        self._work: Callable[[], None] = lambda: None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._begin.acquire()
            self._work()

    def do(self, work: Callable[[], None]) -> None:
        """Has it done; it does nothing else now."""
        self._work = work
        self._begin.release()


IDLE: list[Worker] = []
"""To make a thread for each verb takes longer than most verbs do."""


class Aside:
    """One verb."""

    def __init__(self) -> None:
        self._asked: Work | None = None
        """What it waits for."""
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread_turn, self._loop_turn = threading.Lock(), threading.Lock()
        self._thread_turn.acquire()
        self._loop_turn.acquire()
        self._ended = self._given_up = False

    async def run(self, verb: Callable[[], T]) -> T:
        """Has it done: what it returns, or raises."""
        result: list[T] = []
        failed: list[BaseException] = []

        def work() -> None:
            ASIDE.current = self
            self._thread_turn.acquire()
            try:
                if not self._given_up:
                    result.append(verb())
            except BaseException as error:
                failed.append(error)
            self._ended = True
            self._loop_turn.release()

        worker = IDLE.pop() if IDLE else Worker()
        worker.do(work)
        try:
            await self._take_turns()
        finally:
            self._given_up = not self._ended
            while not self._ended:
                self._hand_over()
            IDLE.append(worker)
        if failed:
            raise failed[0]
        return result[0]

    async def _take_turns(self) -> None:
        self._hand_over()
        while not self._ended:
            asked, self._asked, self._error = self._asked, None, None
            assert asked is not None, "a verb that waits for nothing"
            try:
                self._outcome = await asked
            except Exception as error:
                self._error = error
            self._hand_over()

    def _hand_over(self) -> None:
        """The thread's turn, until it waits or has ended."""
        self._thread_turn.release()
        self._loop_turn.acquire()

    def wait(self, work: Work) -> Any:
        """From the verb: what `work` brings, on the loop. Raises what it raises."""
        self._check(work)
        self._asked = work
        self._loop_turn.release()
        self._thread_turn.acquire()
        self._check(work)
        if self._error is not None:
            raise self._error
        return self._outcome

    def _check(self, work: Work) -> None:
        if self._given_up:
            work.close()
            raise GivenUp


def wait(work: Work) -> Any:
    """See Aside.wait: of the verb whose thread this is."""
    aside: Aside = ASIDE.current
    return aside.wait(work)


def pause(seconds: float) -> None:
    """Stands for time.sleep."""
    wait(asyncio.sleep(seconds))
