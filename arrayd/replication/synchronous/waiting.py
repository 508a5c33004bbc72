"""A P-VOL of which it is not known yet what it has: hosts' reads and writes wait for a moment, until it is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from arrayd.replication.front import Front, not_now
from arrayd.volumes.volume import Extent, Volume, VolumeError, finished

T = TypeVar("T")


class WaitingVolume(Front):
    """`volume`, once `replace` says by which way: what waits goes on in the order of the calls."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.read_now = not_now
        self.fetch_now = lambda _offset, _view: None  # type: ignore[method-assign]
        self.warm_file = lambda _offset, _length: None  # type: ignore[method-assign,assignment]
        self._loop = asyncio.get_running_loop()
        self._instead: asyncio.Future[Volume] = self._loop.create_future()
        self._jobs: set[asyncio.Task[Any]] = set()
        """As many as commands in flight at the most."""

    def replace(self, volume: Volume) -> None:
        """See `Volume.replace`. May be called again."""
        if self._instead.done():
            self._instead = self._loop.create_future()
        self._instead.set_result(volume)

    def give_up(self, error: VolumeError) -> None:
        """Nothing follows: what waits ends with `error`."""
        if not self._instead.done():
            self._instead.set_exception(error)
            self._instead.exception()  # nobody may have waited

    async def _volume(self) -> Volume:
        return await asyncio.shield(self._instead)

    def _later(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        job = self._loop.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return asyncio.shield(job)

    async def _go_by(self, begin: Callable[[Volume], Awaitable[None] | None]) -> None:
        await finished(begin(await self._volume()))

    # -- see `Volume` ------------------------------------------------------------------------------------------------

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        return self._later(self._go_by(lambda volume: volume.read(offset, view)))

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`."""
        return self._later(self._go_by(lambda volume: volume.write(offset, view, durable)))

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        return self._later(self._go_by(lambda volume: volume.flush()))

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        return self._later(self._go_by(lambda volume: volume.unmap(offset, length)))

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        return self._later(self._go_by(lambda volume: volume.write_zeros(offset, length)))

    def extents(self, offset: int, length: int, limit: int) -> Awaitable[list[Extent]]:
        """See `Volume.extents`."""

        async def found() -> list[Extent]:
            return await (await self._volume()).extents(offset, length, limit)

        return self._later(found())

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""
        return self._lock(offset, length)

    @asynccontextmanager
    async def _lock(self, offset: int, length: int) -> AsyncIterator[None]:
        async with (await self._volume()).lock(offset, length):
            yield

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`."""
        return self._later(self._go_by(lambda volume: volume.write_under_lock(offset, view, durable)))
