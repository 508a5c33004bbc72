"""A fence around the P-VOLs of a group, so that the sides can change places (figures 19 to 21).

Hosts' writes to them wait, and what was taken before is in the journal and in the volumes: so journal-in is the end of
the group's writes. The other side must have gone through with it within FENCE_SECONDS, counted from when it was last
told of the end, or the fence lets go; it counts a shorter time from when it asked. So the fence still stands whenever
the other side takes the P-VOLs' place.

A fence outlives the death of the array: before the other side is told of the end there is a store that says so, and
after a restart the fence stands for as long again, before hosts see the P-VOLs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from arrayd.log import get_logger
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.stages import Stage, Stores
from arrayd.replication.statuses import Refusal, State
from arrayd.volumes.volume import VolumeError

FENCE_SECONDS = 20
"""How long it stands by itself."""
NOT_ALL_THERE = Refusal("hosts have written here what the other side, which has the P-VOLs now, has not")
FENCED = Refusal("the other side may be about to have the P-VOLs: again in a moment")
CHANGED_PLACES = (State.S_PAIR, State.S_PFUL)
"""What follows on a swap: the other side has all of the group's writes, so that nothing differs."""
FENCE = "fence"
"""The kind of its store."""
STORE_BYTES = 4096
"""Of the store, in which is nothing: it counts that it is there."""

log = get_logger("replication")


class Fenced(Protocol):
    """A volume as hosts see it."""

    @property
    def size(self) -> int:
        """Bytes."""

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""

    def lock_coming(self) -> AbstractAsyncContextManager[None]:
        """All of it, against whatever comes by this way: for one that nothing has gone by yet."""


class Fence:
    """Around `volumes`, always taken in one order; from when it is made until `release`, or until it lapses. `again`:
    one that stood before, around volumes that nobody has seen yet. It stands at once then, whatever still goes on by
    the ways before these, and lets hosts be shown them."""

    def __init__(self, volumes: Sequence[Fenced], again: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._volumes = volumes
        self._again = again
        self._loop = loop
        self._stands: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._task = loop.create_task(self._stand())

    async def _stand(self) -> None:
        async with AsyncExitStack() as locks:
            for volume in self._volumes:
                await locks.enter_async_context(volume.lock_coming() if self._again else volume.lock(0, volume.size))
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
        self._timer = self._loop.call_later(FENCE_SECONDS, self.lapse)

    def lapse(self) -> None:
        """Hosts' writes go on, once it stands."""
        if not self._over.done():
            self._over.set_result(None)

    async def over(self) -> None:
        """Until it has been let go of."""
        await asyncio.wait((self._task,))

    async def release(self) -> None:
        """Lets go of it, whether it stands yet or not: hosts' writes go on."""
        self.lapse()
        if not self._stands.done():
            self._task.cancel()
        await self.over()


class Fencing:
    """The fence of a stage around `volumes`, if there is one. `ends(whether)` is told when it stands, and when it has
    lapsed by itself: while it stands the journal has its end. `name` is its store."""

    def __init__(self, volumes: Sequence[Fenced], stores: Stores, name: str, ends: Callable[[bool], None]) -> None:
        self._volumes = volumes
        self._stores = stores
        self._name = name
        self._ends = ends
        self._fence: Fence | None = None
        self._task: asyncio.Task[None] | None = None
        self._kept = False
        """Whether the store is there."""
        self._keeping = asyncio.Lock()
        """Held by who makes the store, or removes it."""
        self._released = False

    async def stand_again(self) -> None:
        """Before hosts see the volumes: one that stood when the array died does so again, since the other side may take
        the P-VOLs' place by what it was told then. Raises VolumeError."""
        self._kept = await _is_kept(self._stores, self._name)
        if self._kept:
            await self._set(again=True).wait()

    @property
    def stands(self) -> bool:
        """Whether hosts' writes wait, and the other side has been told so, or may have been."""
        return self._fence is not None and self._fence.stands

    async def stand(self) -> bool:
        """Hosts' writes wait from now on, all of them, for FENCE_SECONDS, and for as long after a restart; whether it
        is so. Raises VolumeError: it is not."""
        fence = self._set()
        await fence.wait()
        if fence.stands:
            await self._keep(fence)
            fence.prolong()
        return fence.stands

    async def _keep(self, fence: Fence) -> None:
        """From now on it outlives the death of the array. Raises VolumeError: then it is let go of."""
        async with self._keeping:
            if self._kept or not fence.stands:
                return
            try:
                await self._stores.create(self._name, STORE_BYTES)
                await self._stores.close(self._name)
            except VolumeError:
                fence.lapse()
                raise
            self._kept = True

    def _set(self, again: bool = False) -> Fence:
        """The one that there is, or a new one."""
        if self._fence is None:
            self._fence = Fence(self._volumes, again)
            self._task = asyncio.create_task(self._watch(self._fence))
        return self._fence

    async def _watch(self, fence: Fence) -> None:
        await fence.wait()
        if fence.stands:
            self._ends(True)
            await fence.over()
        if not self._released:
            self._ends(False)
            await self.forget()
        self._fence = None

    async def release(self) -> None:
        """The stage comes to its end, and writes that wait are kept: it is not said that the journal goes on."""
        self._released = True
        if self._fence is not None:
            await self._fence.release()

    async def forget(self) -> None:
        """It does not outlive the death of the array any more. If that fails hosts' writes wait for a while after the
        next start."""
        async with self._keeping:
            self._kept = False
            try:
                await self._stores.remove(self._name)
            except VolumeError as error:
                log.warning("a fence is not forgotten", store=self._name, reason=str(error))

    async def close(self) -> None:
        """Waits for what is at work, once it was released or has lapsed."""
        if self._task is not None:
            await asyncio.wait((self._task,))


async def outlast(stage: Stage) -> None:
    """Of P-VOLs whose stage cannot be prepared, which hosts do not write to yet: waits until no other side counts on a
    fence any more that stood when the array died. Raises VolumeError."""
    stores, name = stage.doors.stores, stage.store_name(FENCE)
    if await _is_kept(stores, name):
        log.warning("hosts wait: the other side may be about to have the P-VOLs", group=stage.row.name)
        await asyncio.sleep(FENCE_SECONDS)
        await stores.remove(name)


async def _is_kept(stores: Stores, name: str) -> bool:
    if await stores.open(name) is None:
        return False
    await stores.close(name)
    return True


def changed_places(row: GroupRow) -> bool:
    """Whether what were P-VOLs have become S-VOLs by a swap."""
    return all(state in CHANGED_PLACES for state in row.states.values())
