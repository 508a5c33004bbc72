"""The rows of the file and those made by command, and the order of their changes: one at a time, a reload included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from arrayd.config.schema import Config
from arrayd.estate.conflicts import conflicts
from arrayd.estate.errors import Conflict, Failed
from arrayd.estate.rows import Holdings, Rows
from arrayd.tables import Work
from arrayd.turns import CHANGES_MAX, Turns

T = TypeVar("T")

Save = Callable[[Work], Awaitable[None]]
"""Commits rows, durably, with whatever else is to be committed with them. Raises what it likes; then nothing is."""


class Ledger:
    """What there is now is in `held`. Raises Conflict, with a line for each, where the rows do not go with `config`."""

    def __init__(self, config: Config, rows: Rows) -> None:
        self.held = Holdings(config, rows)
        self.check(rows)
        self._turns = Turns()
        self._closed = False

    async def in_turn(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes a change when those before it have ended: see `Turns.take`."""
        if self._closed:
            raise Failed("the array stops")
        if self._turns.full:
            raise Failed(f"{CHANGES_MAX} changes wait already")
        return await self._turns.take(change)

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
        await self._turns.settle()
