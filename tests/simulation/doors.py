"""The doors of an array to the real world, as a simulation counts them: each call through one is a moment to die.

A *machine* is the computer of one array: its disk, its clock. A *life* is one run of the array on it. Whatever a life
does belongs to it by a context variable, which asyncio hands on from callback to callback. A life that was killed is
not asked again: the loop runs nothing of it, and every door is closed to it, so that no `finally` tidies up.
"""

from __future__ import annotations

import contextvars
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

TASKS_LOOKED_THROUGH = 512
"""After so many tasks more those that have ended are let go."""
FINALLY_MAX = 64
"""Of one coroutine, with those that it awaits."""


class Killed(BaseException):
    """The process that made this call is no more. No `except Exception` takes it."""


class Gone(Exception):
    """A host asked an array that is not there, or is not any more."""


class Trace(Protocol):
    """Where everything that happens is noted."""

    def note(self, who: str, what: str) -> None:
        """One line."""


@dataclass
class Plan:
    """How a life is to end: at the `left`-th moment from now at `door`, or at any (None), by a power loss or a kill."""

    left: int
    door: str | None = None
    power: bool = False


class Life:
    """One run of an array on the machine `name`; `random` is the machine's source of chance, `ended(life)` is called
    when it has been killed, to see to its machine."""

    def __init__(self, name: str, number: int, random: Random, trace: Trace, ended: Callable[[Life], None]) -> None:
        self.name = name
        self.number = number
        self.random = random
        self.alive = True
        self.plan: Plan | None = None
        self.died_at: str | None = None
        self.power = False
        """Whether it died by a power loss."""
        self.calls: Counter[str] = Counter()
        self.slow_share = 0.0
        """So many jobs are very slow for now."""
        self.elapsed = 0.0
        """Seconds that the job which runs now has taken: so much later it is heard of."""
        self.tasks: list[Any] = []
        self._many = TASKS_LOOKED_THROUGH
        self._trace = trace
        self._ended = ended
        self.waiting: dict[Any, None] = {}
        """Futures of hosts that wait for it."""
        self._context = contextvars.Context()
        self._context.run(LIFE.set, self)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls into the array from without. Raises Gone."""
        if not self.alive:
            raise Gone
        try:
            return self._context.copy().run(function, *arguments)
        except Killed:
            raise Gone from None

    def context(self) -> contextvars.Context:
        """A context in which what is done is done by this life."""
        return self._context.copy()

    def adopt(self, task: Any) -> None:
        """A task of its own: kept until it ends, so that it is not tidied up when nobody else knows it any more."""
        self.tasks.append(task)
        if len(self.tasks) > self._many:
            self.tasks = [each for each in self.tasks if not each.done()]
            self._many = len(self.tasks) + TASKS_LOOKED_THROUGH

    def before(self, door: str, what: object = "") -> None:
        """A call through a door begins. Raises Killed, and nothing of it happens."""
        if not self.alive:
            raise Killed
        self.calls[door] += 1
        self._trace.note(self.name, f"{door} {what}")
        if self.plan is not None:
            self._moment(door, "before")

    def after(self, door: str) -> None:
        """The call has been made, and its outcome goes back now. Raises Killed: the array never hears of it."""
        if self.plan is not None:
            self._moment(door, "after")

    def _moment(self, door: str, when: str) -> None:
        plan = self.plan
        assert plan is not None
        if plan.door is None or plan.door == door:
            plan.left -= 1
            if plan.left <= 0:
                self.kill(f"{when} {door}", plan.power)
                raise Killed

    def kill(self, at: str, power: bool) -> None:
        """Ends it here and now; the second time does nothing."""
        if self.alive:
            self.alive = False
            self.plan = None
            self.died_at, self.power = at, power
            self._trace.note(self.name, f"{'POWER LOSS' if power else 'KILLED'} {at}")
            self.over()

    def is_to_end(self, plan: Plan) -> bool:
        """Whether it lives, and that is still how it is to end."""
        return self.plan is plan

    def over(self) -> None:
        """It has ended, by itself or not: whoever waits for it hears so."""
        self.alive = False
        waiting, self.waiting = self.waiting, {}
        for future in waiting:
            if not future.done():
                future.set_exception(Gone())
                future.exception()  # whoever waited may have heard of it already
        self._ended(self)

    def bury(self) -> None:
        """Takes what is left of it apart, once the loop is closed."""
        for task in self.tasks:
            task._log_destroy_pending = False
            if task.done():
                task._log_traceback = False
                continue
            close_wholly(task.get_coro())
        self.tasks.clear()


def close_wholly(work: Any) -> None:
    """Closes a coroutine of a dead life, each `await` in a `finally` of which is told that it will not be."""
    for _ in range(FINALLY_MAX):
        try:
            work.close()
        except BaseException:
            continue  # its `finally` found the doors closed, or wanted to wait
        return


LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("life")
"""Whose code runs now; nothing for hosts and for the world."""


def living() -> Life:
    """The life whose code runs now. Raises Killed in what is left of a dead one."""
    life = LIFE.get(None)
    if life is None or not life.alive:
        raise Killed
    return life
