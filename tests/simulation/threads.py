"""The one executor of an array, without threads: what is submitted runs on the loop's thread, at a later moment.

Which one, the seed says: mostly soon, sometimes much later, so that jobs overtake one another as those of real
threads do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures._base import PENDING
from typing import Any

from tests.simulation.doors import Killed, Life, living

QUICK_SECONDS = 100e-6
"""What a job takes on the average, before it begins and until it is heard of."""
SLOW_SECONDS = 30e-3
SLOW_SHARE = 0.03
"""So many jobs take about SLOW_SECONDS."""
VERY_SLOW_SECONDS = 0.5
"""What a job takes of a machine that is slow for a while."""


class NoCondition:
    """Stands for threading.Condition in a Future, where there are no threads."""

    def __enter__(self) -> None:
        """See Condition."""

    def __exit__(self, *_raised: object) -> None:
        """See Condition."""

    def notify_all(self) -> None:
        """See Condition."""


NO_CONDITION = NoCondition()


class SimJob(Future[Any]):
    """A Future that nobody waits for in a thread."""

    def __init__(self) -> None:
        # As Future.__init__ does it, which makes a condition first, at a price.
        self._condition = NO_CONDITION  # type: ignore[assignment]
        self._state = PENDING
        self._result = self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []


class SimExecutor(Executor):
    """Stands for ThreadPoolExecutor; it belongs to the life that makes it."""

    def __init__(self, _threads: int = 0, _prefix: str = "") -> None:
        self._life = living()
        self._waiting: dict[Future[Any], tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """See Executor."""
        assert not named
        self._life.before("thread", getattr(function, "__name__", ""))
        future = SimJob()
        self._waiting[future] = function, arguments
        asyncio.get_running_loop().call_later(_delay(self._life), self._run, future)
        return future

    def _run(self, future: Future[Any]) -> None:
        job = self._waiting.pop(future, None)
        if job is None:
            return  # it ran at the shutdown
        function, arguments = job
        self._life.elapsed = 0.0
        try:
            future.set_running_or_notify_cancel()
            result = function(*arguments)
            self._life.after("thread")
        except Killed:
            return
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            self._life.elapsed = 0.0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor: what was submitted is done before it ends."""
        assert wait
        assert not cancel_futures
        for future in list(self._waiting):
            self._run(future)


def _delay(life: Life) -> float:
    random = life.random
    if random.random() < life.slow_share:
        return random.expovariate(1 / VERY_SLOW_SECONDS)
    mean = SLOW_SECONDS if random.random() < SLOW_SHARE else QUICK_SECONDS
    return random.expovariate(1 / mean)
