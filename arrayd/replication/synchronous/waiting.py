"""A P-VOL of which it is not known yet what it has: hosts' reads and writes wait for a moment, until it is replaced."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from arrayd.replication.front import Front, not_now
from arrayd.volumes.volume import Extent, Volume, VolumeError, VolumeNotReady

T = TypeVar("T")

Begin = Callable[[Volume], Awaitable[Any] | None]
"""`begin(volume)` does what was asked for by that volume, as volumes do."""


class WaitingVolume(Front):
    """`volume`, once `replace` says by which way: what waits goes on then and there, in the order of the calls."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.read_now = not_now
        self.fetch_now = lambda _offset, _view: None  # type: ignore[method-assign]
        self.warm_file = lambda _offset, _length: None  # type: ignore[method-assign,assignment]
        self._loop = asyncio.get_running_loop()
        self._instead: Volume | None = None
        self._given_up: VolumeError | None = None
        self._kept: deque[tuple[Begin, asyncio.Future[Any]]] = deque()
        """As many as commands in flight at the most."""

    def replace(self, volume: Volume) -> None:
        """See `Volume.replace`. May be called again."""
        self._instead = volume
        kept, self._kept = self._kept, deque()
        for begin, outcome in kept:
            try:
                pending = begin(volume)
            except Exception as error:
                _end(outcome, None, error)
                continue
            if pending is None:
                _end(outcome, None, None)
            else:
                asyncio.ensure_future(pending).add_done_callback(partial(_pass_on, outcome))

    def give_up(self, error: VolumeError) -> None:
        """Nothing follows: what waits ends with `error`."""
        if self._instead is None:
            self._given_up = error
            kept, self._kept = self._kept, deque()
            for _, outcome in kept:
                _end(outcome, None, error)

    def _go_by(self, begin: Callable[[Volume], Awaitable[T] | None]) -> Awaitable[T] | None:
        if self._instead is not None:
            return begin(self._instead)
        if self._given_up is not None:
            raise self._given_up
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._kept.append((begin, outcome))
        return outcome

    # -- see `Volume` ------------------------------------------------------------------------------------------------

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        return self._go_by(lambda volume: volume.read(offset, view))

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`."""
        return self._go_by(lambda volume: volume.write(offset, view, durable))

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        return self._go_by(lambda volume: volume.flush())

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        return self._go_by(lambda volume: volume.unmap(offset, length))

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        return self._go_by(lambda volume: volume.write_zeros(offset, length))

    async def extents(self, offset: int, length: int, limit: int) -> list[Extent]:
        """See `Volume.extents`."""
        found = self._go_by(lambda volume: volume.extents(offset, length, limit))
        assert found is not None
        return await found

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""
        return self._lock(offset, length)

    @asynccontextmanager
    async def _lock(self, offset: int, length: int) -> AsyncIterator[None]:
        replaced: Awaitable[None] | None = self._go_by(lambda _volume: None)
        if replaced is not None:
            await replaced
        assert self._instead is not None
        async with self._instead.lock(offset, length):
            yield

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`. Whoever has a lock got it from what this one was replaced by. One that has it
        from before does not wait: nothing could be brought to his range as long as he has it."""
        if self._instead is None:
            raise VolumeNotReady("it is not known yet what the volume has")
        return self._instead.write_under_lock(offset, view, durable)


def _pass_on(outcome: asyncio.Future[Any], job: asyncio.Future[Any]) -> None:
    error = job.exception()
    _end(outcome, job.result() if error is None else None, error)


def _end(outcome: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Ends what waited, unless whoever asked has given up."""
    if outcome.done():
        return
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)
