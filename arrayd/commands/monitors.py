"""Monitors: commands that this array has others execute again and again, and events when that begins to fail or goes
well again. "The first storage device can detect the status, such as, a failure of the third storage device."
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import Field

from arrayd.commands.events import Events
from arrayd.commands.formats import REASON_CHARACTERS_MAX
from arrayd.commands.messages import Ended
from arrayd.commands.registry import Output
from arrayd.commands.targets import Told
from arrayd.log import get_logger

log = get_logger("commands")

MONITORS_MAX = 64
EVERY_SECONDS_MIN = 0.1
EVERY_SECONDS_MAX = 3600.0


class Settings(Told):
    """What a monitor does: a command, whom to, and how often."""

    every: float = Field(default=1.0, ge=EVERY_SECONDS_MIN, le=EVERY_SECONDS_MAX, description="seconds")


class Monitor(Output):
    """A monitor, and how it went."""

    name: str
    settings: Settings
    asked: int = 0
    failed: int = 0
    ok: bool | None = None
    """None: not asked yet."""
    reason: str = ""
    changed: float | None = None
    """When it last began to fail, or to go well: seconds since 1970."""


Ask = Callable[[Told], Awaitable[Ended]]


@dataclass(slots=True)
class Running:
    """A monitor at work."""

    monitor: Monitor
    task: asyncio.Task[None]


class Monitors:
    """The monitors of one array; `ask(told)` sends a command, `clock()` is the time in seconds since 1970."""

    def __init__(self, ask: Ask, events: Events, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._events = events
        self._clock = clock
        self._running: dict[str, Running] = {}

    def list(self) -> list[Monitor]:
        """All of them, by name."""
        return [self._running[name].monitor for name in sorted(self._running)]

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, name: str, settings: Settings) -> None:
        """Asks from now on."""
        monitor = Monitor(name=name, settings=settings)
        self._running[name] = Running(monitor, asyncio.ensure_future(self._watch(monitor)))

    def end(self, name: str) -> None:
        """Asks no more."""
        self._running.pop(name).task.cancel()

    async def stop(self) -> None:
        """Ends all of them."""
        running = [each.task for each in self._running.values()]
        self._running.clear()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _watch(self, monitor: Monitor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                ended = await self._ask(monitor.settings)
                self._note(monitor, not ended.result, _reason(ended))
            except Exception as error:
                log.exception("monitor failed", monitor=monitor.name)
                self._note(monitor, False, f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX])
            await asyncio.sleep(max(monitor.settings.every - (loop.time() - begun), 0.0))

    def _note(self, monitor: Monitor, ok: bool, reason: str) -> None:
        monitor.asked += 1
        monitor.failed += not ok
        monitor.reason = "" if ok else reason
        if ok != monitor.ok:
            before, monitor.ok, monitor.changed = monitor.ok, ok, self._clock()
            if not ok:
                self._events.add("error", "monitor", f"{monitor.name} fails: {reason}", monitor=monitor.name)
            elif before is not None:
                self._events.add("info", "monitor", f"{monitor.name} goes well again", monitor=monitor.name)


def _reason(ended: Ended) -> str:
    try:
        told = json.loads(ended.edited)
        return f"{told['error']} (at {told['at']})"[:REASON_CHARACTERS_MAX]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"result {ended.result}"
