"""Changes one at a time, in the order in which they are asked for; each goes on to its end, whoever stops waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

CHANGES_MAX = 256
"""Changes that wait for their turn, and the one that is made; one more is refused."""

T = TypeVar("T")


class Turns:
    """The changes of one thing. Who asks for one looks at `full` before, and says in its own words that it refuses."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    @property
    def full(self) -> bool:
        """Whether no more changes may wait."""
        return len(self._changes) >= CHANGES_MAX

    @property
    def idle(self) -> bool:
        """Whether no change is under way, and none waits."""
        return not self._changes

    async def take(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes a change when those before it have ended. Whoever gives up waiting does not call it back: it goes on,
        so that what is committed is also done. Raises what the change does."""
        task = asyncio.ensure_future(self._when_due(change))
        self._changes.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Waits for the changes under way."""
        while self._changes:
            await asyncio.wait(self._changes)

    async def _when_due(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._turn:
            return await change()

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # was heard, even if whoever waited has given up
