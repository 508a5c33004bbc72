"""The tail of a journal: its stage has come to its end, and the other side may still read what is left in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from arrayd.replication.stages import Stage

TAIL_SECONDS = 60.0
"""How long a journal is served after its group was suspended, at the most."""
TAIL_CHECK_SECONDS = 0.2


@runtime_checkable
class Tailed(Protocol):
    """A stage that the other side may still need when it has come to its end."""

    def tail(self) -> bool:
        """Whether it does."""


class Tail:
    """That of one group, if it has one; `now()` is in seconds, and `close` lets go of its stage at the end."""

    def __init__(self, now: Callable[[], float], close: Callable[[Stage], Awaitable[None]]) -> None:
        self._now = now
        self._close = close
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.stage: Stage | None = None
        """It still answers the other side."""

    def begin(self, stage: Stage) -> bool:
        """Has the stage answer until the other side has all of it, and then closed. False: nobody needs it."""
        if not isinstance(stage, Tailed) or not stage.tail():
            return False
        self.stage = stage
        self._hurry.clear()
        self._task = asyncio.ensure_future(self._run(stage, stage))
        return True

    async def end(self) -> None:
        """Whether the other side has it all or not."""
        self._hurry.set()
        if self._task is not None:
            await self._task

    async def _run(self, stage: Stage, tailed: Tailed) -> None:
        deadline = self._now() + TAIL_SECONDS
        while not self._hurry.is_set() and self._now() < deadline and tailed.tail():
            try:
                async with asyncio.timeout(TAIL_CHECK_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                continue
        self.stage = None
        await self._close(stage)
