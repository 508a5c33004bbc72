"""Locks on ranges of a volume, given in the order in which they were asked for where they overlap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType


class RangeLock:
    """One place in the queue of `RangeLocks`, taken when it is made and kept until `release`.

    Either `when_held` is called with what is to happen then, or the lock is entered by `async with`.
    """

    __slots__ = ("_behind", "_held", "_locks", "_waits_for", "end", "start")

    def __init__(self, locks: RangeLocks, start: int, end: int) -> None:
        self._locks = locks
        self._waits_for = 0
        self._behind: list[RangeLock] = []
        self._held: Callable[[], None] | None = None
        self.start = start
        self.end = end

    def stand_behind(self, other: RangeLock) -> None:
        """This lock is not held before `other` is released."""
        other._behind.append(self)
        self._waits_for += 1

    def when_held(self, held: Callable[[], None]) -> None:
        """Calls `held` when every earlier lock that overlaps is released, which may be now."""
        if self._waits_for:
            self._held = held
        else:
            held()

    def release(self) -> None:
        """Gives the place up, and the turn to those behind."""
        del self._locks.places[self]
        for lock in self._behind:
            lock._waits_for -= 1
            if not lock._waits_for and lock._held is not None:
                lock._held()

    async def __aenter__(self) -> None:
        held = asyncio.get_running_loop().create_future()
        self.when_held(lambda: None if held.done() else held.set_result(None))
        try:
            await held
        except BaseException:
            # Those behind keep their order: the place is passed on when its turn comes.
            self.when_held(self.release)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RangeLocks:
    """Places held or waited for, oldest first; as many as tasks in flight at the most. Falsy when there are none."""

    def __init__(self) -> None:
        self.places: dict[RangeLock, None] = {}

    def __bool__(self) -> bool:
        return bool(self.places)

    def overlaps(self, start: int, length: int) -> bool:
        """Whether anybody holds or waits for a part of the range."""
        end = start + length
        return any(other.start < end and start < other.end for other in self.places)

    def hold(self, start: int, length: int) -> RangeLock:
        """A place in the queue for the range, from this call on."""
        end = start + length
        lock = RangeLock(self, start, end)
        for other in self.places:
            if other.start < end and start < other.end:
                lock.stand_behind(other)
        self.places[lock] = None
        return lock

    @asynccontextmanager
    async def hold_all(self, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[None]:
        """Holds several ranges, which are apart: offset and length of each."""
        # All places at once: else another one, who is in between on two of them, would wait for us and we for him.
        places = [self.hold(*each) for each in ranges]
        async with AsyncExitStack() as held:
            try:
                while places:
                    await held.enter_async_context(places.pop(0))
            except BaseException:
                for place in places:
                    place.when_held(place.release)
                raise
            yield
