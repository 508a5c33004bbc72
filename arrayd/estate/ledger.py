"""The rows of the file and those made by command, and the order of their changes: one at a time, a reload included."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from arrayd.config import Config
from arrayd.estate.conflicts import conflicts
from arrayd.estate.errors import Conflict, Failed
from arrayd.estate.rows import Holdings, Rows
from arrayd.tables import Work

CHANGES_MAX = 256
"""Changes that wait for their turn, and the one that is made; one more is refused."""

T = TypeVar("T")

Save = Callable[[Work], Awaitable[None]]
"""Commits rows, durably, with whatever else is to be committed with them. Raises what it likes; then nothing is."""


class Ledger:
    """What there is now is in `held`. Raises Conflict, with a line for each, where the rows do not go with `config`."""

    def __init__(self, config: Config, rows: Rows) -> None:
        self.held = Holdings(config, rows)
        self.check(rows)
        self._turn = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def in_turn(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes a change when those before it have ended. Whoever gives up waiting does not call it back: it goes on,
        so that what is committed is also done."""
        if self._closed:
            raise Failed("the array stops")
        if len(self._changes) >= CHANGES_MAX:
            raise Failed(f"{CHANGES_MAX} changes wait already")
        task = asyncio.ensure_future(self._when_due(change))
        self._changes.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    async def _when_due(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._turn:
            return await change()

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # was heard, even if whoever waited has given up

    def check(self, rows: Rows, config: Config | None = None) -> None:
        """Raises Conflict where such rows do not go with the configuration: this one, or the one there is."""
        found = conflicts(config or self.held.config, rows)
        if found:
            raise Conflict("\n".join(found))

    async def commit(self, rows: Rows, work: Work, save: Save) -> None:
        """Commits `work`; `rows` are those made by command from then on. Raises what `save` does."""
        await save(work)
        self.held = Holdings(self.held.config, rows)

    def take(self, config: Config) -> None:
        """The configuration is this one from now on."""
        self.held = Holdings(config, self.held.rows)

    async def close(self) -> None:
        """Waits for the changes under way, and takes no more."""
        self._closed = True
        while self._changes:
            await asyncio.wait(self._changes)
