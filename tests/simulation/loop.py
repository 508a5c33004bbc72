"""An asyncio event loop in virtual time: it waits for nobody, and does the same for the same seed.

Where nothing is ready the time moves to the next timer; where there is no timer either, nothing can ever happen any
more, which is an error. Sockets are those of `network.py`, and threads do not exist: `threads.py`.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio import events
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, Protocol, TypeVarTuple

from tests.simulation.doors import LIFE, Killed

TURN_SECONDS = 1e-6
"""What one turn of the loop takes: so that time passes for those who poll."""
CANCELLED_MAX = 64
"""Timers that nobody waits for any more, until they are thrown away."""
HEARD_SECONDS = 50e-6
"""How long it takes, on the average, until the loop hears of what a thread has done."""


Ts = TypeVarTuple("Ts")


class Stuck(Exception):
    """Nothing is left to happen, or the time is over, and whoever waits still waits."""


class Pollable(Protocol):
    """A socket, as the loop sees it."""

    def readable(self) -> bool:
        """Whether a read finds something."""

    def writable(self) -> bool:
        """Whether a write finds room."""


class SimTask(asyncio.Task[Any]):
    """A task whose hash does not tell where in memory it lies: sets of them have one order."""

    serial: int

    def __new__(cls, *_arguments: Any, loop: SimLoop, **_named: Any) -> SimTask:
        task: SimTask = super().__new__(cls)
        task.serial = next(loop.serials)
        return task

    def __hash__(self) -> int:
        return self.serial


class SimFuture(asyncio.Future[Any]):
    """Likewise."""

    serial: int

    def __new__(cls, *, loop: SimLoop) -> SimFuture:
        future: SimFuture = super().__new__(cls)
        future.serial = next(loop.serials)
        return future

    def __hash__(self) -> int:
        return self.serial


class SimHandle(events.Handle):
    """A Handle, which does not ask each time whether all this is debugged."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Sequence[Any], loop: SimLoop, context: Any) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None


class SimTimer(SimHandle, events.TimerHandle):
    """Likewise."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: Sequence[Any], loop: SimLoop, context: Any
    ) -> None:
        super().__init__(callback, args, loop, context)
        self._when = when
        self._scheduled = True


class SimLoop(asyncio.BaseEventLoop):
    """The loop; it gives up at `limit` seconds of virtual time."""

    _ready: Any
    _scheduled: Any
    _timer_cancelled_count: int

    def __init__(self, limit: float) -> None:
        self.serials = itertools.count(1)
        self._now = 0.0
        self._limit = limit
        self._pollable: dict[int, Pollable] = {}
        self._readers: dict[int, events.Handle] = {}
        self._writers: dict[int, events.Handle] = {}
        self.moved = False
        """Whether a socket may have become ready since they were asked."""
        self.faults: list[str] = []
        """What went wrong in callbacks and tasks that nobody awaits."""
        super().__init__()
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        """See AbstractEventLoop."""
        return SimFuture(loop=self)

    def _make_task(self, _loop: object, work: Coroutine[Any, Any, Any], context: Context | None = None) -> SimTask:
        task = SimTask(work, loop=self, context=context)
        life = (context or copy_context()).get(LIFE)
        if life is not None:
            life.adopt(task)
        return task

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """What BaseEventLoop calls again and again."""
        ready, scheduled = self._ready, self._scheduled
        if self.moved:
            self._poll()
        if not ready:
            self._wait()
        self._now = now = self._now + TURN_SECONDS
        while scheduled and scheduled[0][0] <= now:
            timer = heappop(scheduled)[2]
            if not timer._cancelled:
                ready.append(timer)
        take = ready.popleft
        for _ in range(len(ready)):
            handle = take()
            if handle._cancelled:
                continue
            context = handle._context
            life = context.get(LIFE)
            if life is None or life.alive:
                try:
                    context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.call_exception_handler({"message": f"in {handle!r}", "exception": error})

    _run_once = _take_turn

    def _wait(self) -> None:
        """Moves the time to the next timer. Raises Stuck."""
        scheduled = self._scheduled
        if self._timer_cancelled_count > CANCELLED_MAX:
            self._timer_cancelled_count = 0
            scheduled[:] = [each for each in scheduled if not each[2]._cancelled]
            heapify(scheduled)
        while scheduled and scheduled[0][2]._cancelled:
            heappop(scheduled)
        if self._stopping:  # type: ignore[attr-defined]
            return
        if not scheduled:
            raise Stuck("nothing is left to happen")
        self._now = max(self._now, scheduled[0][0])
        if self._now > self._limit:
            raise Stuck(f"{self._limit:g} s have passed")

    def _poll(self) -> None:
        ready, before = self._ready, len(self._ready)
        for descriptor, handle in self._readers.items():
            if self._pollable[descriptor].readable():
                ready.append(handle)
        for descriptor, handle in self._writers.items():
            if self._pollable[descriptor].writable():
                ready.append(handle)
        self.moved = len(ready) > before

    # -- what selectors and threads do elsewhere ---------------------------------------------------------------------

    def watch(self, descriptor: int, socket: Pollable) -> None:
        """There is a socket of this number."""
        self._pollable[descriptor] = socket

    def forget(self, descriptor: int) -> None:
        """There is none any more."""
        self._pollable.pop(descriptor, None)
        self.remove_reader(descriptor)
        self.remove_writer(descriptor)

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """See AbstractEventLoop."""
        self._readers[fd] = SimHandle(callback, args, self, None)
        self.moved = True

    def remove_reader(self, fd: Any) -> bool:
        """See AbstractEventLoop."""
        return _drop(self._readers, fd)

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """See AbstractEventLoop."""
        self._writers[fd] = SimHandle(callback, args, self, None)
        self.moved = True

    def remove_writer(self, fd: Any) -> bool:
        """See AbstractEventLoop."""
        return _drop(self._writers, fd)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See AbstractEventLoop."""
        self._check_closed()  # type: ignore[attr-defined]
        handle = SimHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See AbstractEventLoop: of two at the same time the one that was asked for first comes first."""
        timer = SimTimer(when, callback, args, self, context)
        heappush(self._scheduled, (when, next(self.serials), timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See AbstractEventLoop."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See AbstractEventLoop: what a thread says is heard a moment later."""
        life = LIFE.get(None)
        if life is None:
            return self.call_soon(callback, *args, context=context)
        later = life.elapsed + life.random.expovariate(1 / HEARD_SECONDS)
        return self.call_later(later, callback, *args, context=context)

    def _write_to_self(self) -> None:
        """Nobody sleeps: nobody is woken."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See AbstractEventLoop: what nobody hears of is a fault of the array's, unless it was killed."""
        error = context.get("exception")
        if not self.is_closed() and not isinstance(error, Killed):
            self.faults.append(f"{context.get('message')}: {error!r}")


def _drop(handles: dict[int, events.Handle], descriptor: int) -> bool:
    """One that is in the queue already is not run any more."""
    handle = handles.pop(descriptor, None)
    if handle is not None:
        handle.cancel()
    return handle is not None
