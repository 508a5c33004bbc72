"""Locks on ranges of a volume, given in the order in which they were asked for where they overlap."""

from __future__ import annotations

import asyncio
from types import TracebackType


class RangeLock:
    """One place in the queue of `RangeLocks`, taken when it is made; `async with` waits for it, and gives it up."""

    __slots__ = ("_earlier", "_locks", "end", "ended", "start")

    def __init__(self, locks: RangeLocks, start: int, end: int, earlier: list[RangeLock]) -> None:
        self._locks = locks
        self._earlier = earlier
        self.start = start
        self.end = end
        self.ended: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:
        try:
            while self._earlier:
                await self._earlier[-1].wait()
                self._earlier.pop()
        except BaseException:
            self._release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    async def wait(self) -> None:
        """Returns when this lock is given up."""
        if self not in self._locks.ranges:
            return
        if self.ended is None:
            self.ended = asyncio.get_running_loop().create_future()
        await asyncio.shield(self.ended)

    def _release(self) -> None:
        self._earlier.clear()
        self._locks.ranges.remove(self)
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)


class RangeLocks:
    """Ranges held or waited for, oldest first; as many as tasks in flight at the most. Falsy when there are none."""

    def __init__(self) -> None:
        self.ranges: list[RangeLock] = []

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def overlaps(self, start: int, length: int) -> bool:
        """Whether anybody holds or waits for a part of the range."""
        end = start + length
        return any(other.start < end and start < other.end for other in self.ranges)

    def hold(self, start: int, length: int) -> RangeLock:
        """A place in the queue for the range, from this call on. Whoever asks must enter it: a place is kept."""
        end = start + length
        earlier = [other for other in self.ranges if other.start < end and start < other.end]
        lock = RangeLock(self, start, end, earlier)
        self.ranges.append(lock)
        return lock
