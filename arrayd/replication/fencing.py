"""A fence around the P-VOLs of a group, so that the sides can change places (figures 19 to 21).

Hosts' writes to them wait, and what was taken before is in the journal and in the volumes: so journal-in is the end of
the group's writes. The other side must have gone through with it within FENCE_SECONDS, counted from when it was last
told of the end, or the fence lets go; it counts a shorter time from when it asked. So the fence still stands whenever
the other side takes the P-VOLs' place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from arrayd.replication.journaled import JournaledVolume

FENCE_SECONDS = 20
"""How long it stands by itself."""


class Fence:
    """Around `volumes`, always taken in one order; from when it is made until `release`, or until it lapses."""

    def __init__(self, volumes: Sequence[JournaledVolume]) -> None:
        loop = asyncio.get_running_loop()
        self._volumes = volumes
        self._loop = loop
        self._stands: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._task = loop.create_task(self._stand())

    async def _stand(self) -> None:
        async with AsyncExitStack() as locks:
            for volume in self._volumes:
                await locks.enter_async_context(volume.lock(0, volume.size))
            self.prolong()
            self._stands.set_result(None)
            await self._over
        if self._timer is not None:
            self._timer.cancel()

    @property
    def stands(self) -> bool:
        """Whether hosts' writes wait, all of them, and will for FENCE_SECONDS if it is prolonged now."""
        return self._stands.done() and not self._over.done()

    async def wait(self) -> None:
        """Until it stands, or is over."""
        await asyncio.wait((self._stands, self._over), return_when=asyncio.FIRST_COMPLETED)

    def prolong(self) -> None:
        """It stands for FENCE_SECONDS from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(FENCE_SECONDS, self._lapse)

    def _lapse(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def over(self) -> None:
        """Until it has been let go of."""
        await asyncio.wait((self._task,))

    async def release(self) -> None:
        """Lets go of it, whether it stands yet or not: hosts' writes go on."""
        self._lapse()
        if not self._stands.done():
            self._task.cancel()
        await self.over()
