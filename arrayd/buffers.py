"""Page-aligned buffers for data on its way, from one bounded pool.

Aligned because on some processors a copy whose source and destination differ by a few bytes modulo a page is several
times slower; from `mmap` because a bytearray can land anywhere. A buffer is owned by one task until it is released.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import OrderedDict
from collections.abc import Callable

SMALLEST_BUFFER = 64 * 1024
KEPT_BYTES = 64 * 1024 * 1024
"""Released memory that the pool keeps for the next taker."""


class PooledBuffer:
    """`view` is `length` bytes of page-aligned memory, owned until `release`."""

    __slots__ = ("_owners", "_pool", "memory", "view")

    def __init__(self, pool: BufferPool, memory: mmap.mmap, length: int) -> None:
        self._pool: BufferPool | None = pool
        self._owners: list[PooledBuffer] | None = None
        """Who owns the memory, if there are several."""
        self.memory = memory
        self.view = memoryview(memory)[:length]

    def share(self) -> PooledBuffer:
        """The same memory for one more owner: it is given back when all have released it."""
        assert self._pool is not None
        other = PooledBuffer(self._pool, self.memory, len(self.view))
        self._owners = other._owners = self._owners or [self]
        self._owners.append(other)
        return other

    def release(self) -> None:
        """Gives the memory back; a second call does nothing."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        self.view.release()
        if self._owners is not None:
            self._owners.remove(self)
            if self._owners:
                return
        pool.give_back(self.memory)


class BufferPool:
    """Buffers of up to `limit_bytes` in all; who finds it empty waits in order."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self._free_bytes = 0
        self._waiting: OrderedDict[Callable[[PooledBuffer], None], int] = OrderedDict()
        """Who waits, and for how many bytes, in order."""
        self._serving = False

    def take(self, length: int) -> PooledBuffer | None:
        """A buffer of `length` bytes, or None while the limit is reached or others wait."""
        size = _size_class(length)
        if self._waiting or (self.used_bytes + size > self.limit_bytes and self.used_bytes):
            return None
        return self._make(size, length)

    def take_beyond(self, length: int, factor: int) -> PooledBuffer | None:
        """A buffer for data that cannot wait, up to `factor` times the limit and past those who wait; then None."""
        size = _size_class(length)
        if self.used_bytes + size > self.limit_bytes * factor:
            return None
        return self._make(size, length)

    def take_later(self, length: int, taken: Callable[[PooledBuffer], None]) -> None:
        """Calls `taken` with a buffer, at once if there is room, else when its turn comes, unless `forget` is first.

        The queue is as long as the command windows of all sessions at the most. `taken` is known by itself: each call
        brings its own.
        """
        buffer = self.take(length)
        if buffer is None:
            assert taken not in self._waiting
            self._waiting[taken] = length
        else:
            taken(buffer)

    def forget(self, taken: Callable[[PooledBuffer], None]) -> None:
        """Takes `taken` out of those who wait: it does not want a buffer any more."""
        self._waiting.pop(taken, None)
        self._serve()

    def give_back(self, memory: mmap.mmap) -> None:
        """Takes `memory` back (see `PooledBuffer.release`) and serves who waits."""
        size = len(memory)
        self.used_bytes -= size
        if self._free_bytes + size <= KEPT_BYTES:
            self._free.setdefault(size, []).append(memory)
            self._free_bytes += size
        self._serve()

    def _serve(self) -> None:
        """Gives those who wait their turn; who gives its buffer back at once comes here again from within."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting:
                taken, length = next(iter(self._waiting.items()))
                size = _size_class(length)
                if self.used_bytes + size > self.limit_bytes and self.used_bytes:
                    return
                del self._waiting[taken]
                taken(self._make(size, length))
        finally:
            self._serving = False

    def _make(self, size: int, length: int) -> PooledBuffer:
        self.used_bytes += size
        free = self._free.get(size)
        if free:
            self._free_bytes -= size
            return PooledBuffer(self, free.pop(), length)
        return PooledBuffer(self, mmap.mmap(-1, size), length)


async def taken(pool: BufferPool, length: int) -> PooledBuffer:
    """A buffer of `length` bytes out of `pool`, when its turn comes; nobody has it if the caller has given up."""
    future: asyncio.Future[PooledBuffer] = asyncio.get_running_loop().create_future()

    def take(buffer: PooledBuffer) -> None:
        if future.done():
            buffer.release()
        else:
            future.set_result(buffer)

    pool.take_later(length, take)
    try:
        return await future
    except asyncio.CancelledError:
        pool.forget(take)
        if not future.cancelled():
            future.result().release()
        raise


def _size_class(length: int) -> int:
    """The power of two, SMALLEST_BUFFER or more, that holds `length` bytes."""
    return max(SMALLEST_BUFFER, 1 << (length - 1).bit_length() if length > 1 else 1)
