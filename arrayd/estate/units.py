"""The logical units that hosts see, as the LUN map has them."""

from __future__ import annotations

import asyncio

from arrayd.scsi.target import ScsiTarget


class Units:
    """Those of the SCSI target."""

    def __init__(self, target: ScsiTarget) -> None:
        self.target = target
        self._leaving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """Waits until no unit that left the LUN map works on its volume any more."""
        async with self._leaving:
            await self.target.settled()

    def settle(self) -> None:
        """The same, without waiting for it."""
        if not self._tasks:
            task = asyncio.ensure_future(self.settled())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits for what `settle` began."""
        if self._tasks:
            await asyncio.wait(self._tasks)
