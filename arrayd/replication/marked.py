"""A volume of a pair that is suspended and takes writes: each is marked in the pair's bitmap first (`bitmap/`).

A write whose region is marked already, or whose mark is done on the spot, goes to the volume then and there, as it does
without a pair. Any other waits for its mark, and holds the range meanwhile, so that no copy takes the data of before.
What overlaps keeps the order of the calls, and waits for locks of hosts, whoever was marked first.

It ends by being replaced, when the pair is resumed or ends:

1. `stop`: no later write is begun. They wait, in order.
2. `await drained()`: those before have ended, and nobody holds a lock.
3. `replace(volume)`: what waits goes by that volume, and so does whatever still comes here. Or `resume`: it goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from arrayd.replication.bitmap import Bitmap, Hold
from arrayd.replication.front import Front
from arrayd.volumes.range_locks import RangeLock, RangeLocks
from arrayd.volumes.volume import Volume, VolumeError, VolumeReadOnly, ended, finished

Begin = Callable[[Volume], Awaitable[None] | None]
"""`begin(volume)` carries a write out on that volume, as volumes do."""


class Kept(NamedTuple):
    """A write that waits for what comes after `stop`."""

    offset: int
    length: int
    begin: Begin
    outcome: asyncio.Future[None]


class MarkedVolume(Front):
    """`volume`, with its writes marked in `bitmap`, which is about it. Nobody else writes to it meanwhile, and its size
    does not change.

    `failed()` is called when a mark has failed: writes are refused then with the error of the bitmap."""

    def __init__(self, volume: Volume, bitmap: Bitmap, failed: Callable[[], None]) -> None:
        super().__init__(volume)
        self.bitmap = bitmap
        self.replaced = False
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._locks = RangeLocks()
        """Writes that are not done on the spot, locks that hosts hold, and once it is stopped all of the volume."""
        self._jobs: set[asyncio.Task[None]] = set()
        """Each holds a place in the locks until it has ended."""
        self._kept: deque[Kept] = deque()
        """As many as commands in flight at the most."""
        self._stop: RangeLock | None = None
        self._drained: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None
        """Of being stopped: done when it goes on, or is replaced."""
        self._instead: Volume | None = None
        # Closures, as in `FileVolume`: the innermost part of the hot path.
        if not self.read_only:
            self.commit_now = self._make_commit_now()  # type: ignore[assignment,method-assign]
            if self.write_cache:
                self.write_now = self._make_write_now()

    # -- on the spot -------------------------------------------------------------------------------------------------

    def _make_write_now(self) -> Callable[[int, memoryview], bool]:
        places, overlaps = self._locks.places, self._locks.overlaps
        mark_now, write_now = self.bitmap.mark_now, self.volume.write_now

        def marked_write_now(offset: int, view: memoryview) -> bool:
            length = len(view)
            if places and overlaps(offset, length):
                return False
            return mark_now(offset, length) and write_now(offset, view)

        return marked_write_now

    def _make_commit_now(self) -> Callable[[int, memoryview], asyncio.Future[None] | None]:
        places, overlaps = self._locks.places, self._locks.overlaps
        mark_now, commit_now = self.bitmap.mark_now, self.volume.commit_now

        def marked_commit_now(offset: int, view: memoryview) -> asyncio.Future[None] | None:
            """See `Volume.commit_now`."""
            length = len(view)
            if (places and overlaps(offset, length)) or not mark_now(offset, length):
                return None
            return commit_now(offset, view)

        return marked_commit_now

    # -- writes ------------------------------------------------------------------------------------------------------

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`. Raises what the bitmap failed with, too."""
        return self._take(offset, len(view), lambda volume: volume.write(offset, view, durable))

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        return self._take(offset, length, lambda volume: volume.unmap(offset, length))

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        return self._take(offset, length, lambda volume: volume.write_zeros(offset, length))

    def _take(self, offset: int, length: int, begin: Begin) -> Awaitable[None] | None:
        """The write is taken in the order of the calls where they overlap."""
        if self.read_only:
            raise VolumeReadOnly
        if self._instead is not None:
            return begin(self._instead)
        if self._stop is not None:
            kept = Kept(offset, length, begin, self._loop.create_future())
            self._kept.append(kept)
            return kept.outcome
        if self._locks.places and self._locks.overlaps(offset, length):
            return self._later(offset, length, begin)
        if not self.bitmap.mark_now(offset, length):
            return self._later(offset, length, begin)
        pending = begin(self.volume)
        if pending is None:
            return None
        place, hold = self._locks.hold(offset, length), self.bitmap.hold(offset, length)
        return asyncio.shield(self._job(self._see_through(place, hold, pending)))

    def _later(self, offset: int, length: int, begin: Begin) -> asyncio.Future[None]:
        """The place is taken now; the rest comes when it is held."""
        place = self._locks.hold(offset, length)
        return asyncio.shield(self._job(self._in_turn(place, offset, length, begin)))

    def _job(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Whoever gives up waiting for it does not end it: `drained` waits for its place."""
        job = self._loop.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def _see_through(self, place: RangeLock, hold: Hold, pending: Awaitable[None]) -> None:
        """What was marked on the spot, and is on its way."""
        async with place:
            with hold:
                await finished(pending)

    async def _in_turn(self, place: RangeLock, offset: int, length: int, begin: Begin) -> None:
        async with place:
            await self._mark_and_begin(offset, length, begin)

    async def _mark_and_begin(self, offset: int, length: int, begin: Begin) -> None:
        with self.bitmap.hold(offset, length):
            try:
                await self.bitmap.mark(offset, length)
            except VolumeError:
                self._failed()
                raise
            await finished(begin(self.volume))

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        return (self._instead or self.volume).flush()

    # -- locks -------------------------------------------------------------------------------------------------------

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""
        return self._locked(offset, length)

    @asynccontextmanager
    async def _locked(self, offset: int, length: int) -> AsyncIterator[None]:
        while self._over is not None and self._instead is None:
            await asyncio.shield(self._over)
        if self._instead is not None:
            async with self._instead.lock(offset, length):
                yield
        else:
            async with self._locks.hold(offset, length), self.volume.lock(offset, length):
                yield

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`: who has the lock goes on when others have been stopped."""
        if self.read_only:
            raise VolumeReadOnly
        if self._instead is not None:
            return self._instead.write_under_lock(offset, view, durable)

        def begin(volume: Volume) -> Awaitable[None] | None:
            return volume.write_under_lock(offset, view, durable)

        if not self.bitmap.mark_now(offset, len(view)):
            return ended(self._job(self._mark_and_begin(offset, len(view), begin)))
        pending = begin(self.volume)
        if pending is None:
            return None
        return self._held(self.bitmap.hold(offset, len(view)), pending)

    async def _held(self, hold: Hold, pending: Awaitable[None]) -> None:
        with hold:
            await finished(pending)

    # -- replaced ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begins no write any more but those of who holds a lock; later ones wait."""
        assert self._stop is None, "it is stopped already"
        self._over = self._loop.create_future()
        self._drained = self._loop.create_future()
        self._stop = self._locks.hold(0, self.size)
        self._stop.when_held(partial(self._drained.set_result, None))

    @property
    def stopped(self) -> bool:
        """Whether it begins no write of its own any more."""
        return self._stop is not None

    async def drained(self) -> None:
        """Waits until all that was begun before `stop` is in the volume, or was refused, and no lock is held."""
        assert self._drained is not None, "it is not stopped"
        await asyncio.shield(self._drained)

    def resume(self) -> None:
        """It is drained, and goes on as it was: what waits is marked, in order."""
        assert self._stop is not None
        self._stop.release()
        self._stop = None
        self._let_go(lambda each: self._take(each.offset, each.length, each.begin))
        over, self._over = self._over, None
        assert over is not None
        over.set_result(None)

    def replace(self, volume: Volume) -> None:
        """See `Volume.replace`: it is drained. The place that stops it is never given up: nothing is written on the
        spot by this way again. It may be replaced once more."""
        assert self._drained is not None
        assert self._drained.done()
        assert self._over is not None
        self._instead, self.replaced = volume, True
        self._let_go(lambda each: each.begin(volume))
        if not self._over.done():
            self._over.set_result(None)

    def _let_go(self, begin: Callable[[Kept], Awaitable[None] | None]) -> None:
        kept, self._kept = self._kept, deque()
        for each in kept:
            try:
                pending = begin(each)
            except Exception as error:
                _end(each.outcome, error)
                continue
            if pending is None:
                _end(each.outcome, None)
            else:
                self._job(finished(pending)).add_done_callback(partial(_pass_on, each.outcome))


def _pass_on(outcome: asyncio.Future[None], job: asyncio.Task[None]) -> None:
    _end(outcome, job.exception())


def _end(outcome: asyncio.Future[None], error: BaseException | None) -> None:
    """Ends the write, unless whoever waited for it has given up."""
    if outcome.done():
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)
