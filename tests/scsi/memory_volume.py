"""A volume in memory, for tests of what stands above volumes: it can hold requests back, fail, and be full."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from arrayd.volumes.volume import Extent, Volume, VolumeError, WarmFile

PAGE_BYTES = 4096
"""Mapped or not, by pages of this size."""


class MemoryVolume(Volume):
    """`held`, while it is set, makes every request wait until the event is set; `failure` makes every one raise."""

    def __init__(self, identity: str = "410001:data", size: int = 1 << 20, block_size: int = 512) -> None:
        self.identity = identity
        self.size = size
        self.block_size = self.physical_block_size = block_size
        self.read_only = False
        self.write_cache = True
        self.removable = False
        self.thin = True
        self.read_now = self._read_now
        self.write_now = self._write_now
        self.data = bytearray(size)
        self.mapped: set[int] = set()
        self.held: asyncio.Event | None = None
        self.failure: VolumeError | None = None
        self.waiting = 0
        """Requests that `held` holds back."""

    def _read_now(self, offset: int, view: memoryview) -> bool:
        if self.held is not None or self.failure is not None:
            return False
        view[:] = self.data[offset : offset + len(view)]
        return True

    def _write_now(self, offset: int, view: memoryview) -> bool:
        if self.held is not None or self.failure is not None or self.read_only:
            return False
        self._put(offset, view)
        return True

    def _put(self, offset: int, view: memoryview | bytes) -> None:
        self.data[offset : offset + len(view)] = view
        self.mapped.update(range(offset // PAGE_BYTES, (offset + len(view) + PAGE_BYTES - 1) // PAGE_BYTES))

    def _do(self, work: Callable[[], None]) -> Awaitable[None] | None:
        if self.failure is not None:
            raise self.failure
        if self.held is None:
            work()
            return None
        return self._do_later(self.held, work)

    async def _do_later(self, held: asyncio.Event, work: Callable[[], None]) -> None:
        self.waiting += 1
        await held.wait()
        self.waiting -= 1
        work()

    def warm_file(self, _offset: int, _length: int) -> WarmFile | None:
        return None

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        def work() -> None:
            view[:] = self.data[offset : offset + len(view)]

        return self._do(work)

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        return self._do(lambda: self._put(offset, view))

    def flush(self) -> Awaitable[None] | None:
        if self.read_only:
            return None
        return self._do(lambda: None)

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        def work() -> None:
            self.data[offset : offset + length] = bytes(length)
            whole = range((offset + PAGE_BYTES - 1) // PAGE_BYTES, (offset + length) // PAGE_BYTES)
            self.mapped.difference_update(whole)

        return self._do(work)

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        return self._do(lambda: self._put(offset, bytes(length)))

    async def extents(self, offset: int, length: int, limit: int) -> list[Extent]:
        found: list[Extent] = []
        end = offset + length
        while offset < end:
            mapped = offset // PAGE_BYTES in self.mapped
            stop = min(end, (offset // PAGE_BYTES + 1) * PAGE_BYTES)
            if found and found[-1].mapped == mapped:
                found[-1] = Extent(found[-1].offset, stop - found[-1].offset, mapped)
            elif len(found) == limit:
                break
            else:
                found.append(Extent(offset, stop - offset, mapped))
            offset = stop
        return found

    @asynccontextmanager
    async def lock(self, _offset: int, _length: int) -> AsyncIterator[None]:
        yield

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        return self.write(offset, view, durable)

    def allocated_bytes(self) -> int:
        return len(self.mapped) * PAGE_BYTES

    def available_bytes(self) -> int:
        return self.size - self.allocated_bytes()


class CommittingVolume(MemoryVolume):
    """A volume without a write cache, durable when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.write_cache = False
        self.synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refuses = False

    def commit_now(self, offset: int, view: memoryview) -> asyncio.Future[None] | None:
        """Writes at once; `synced` says when that is durable."""
        if self.refuses:
            return None
        self.data[offset : offset + len(view)] = view
        return self.synced


class WarmVolume(MemoryVolume):
    """A volume that sends long reads as one on a file in page cache does; `cold`: none."""

    def __init__(self, size: int = 4 << 20) -> None:
        super().__init__(size=size)
        self.cold = False

    def warm_file(self, _offset: int, _length: int) -> WarmFile | None:
        return None if self.cold else self

    def send(self, descriptor: int, offset: int, length: int) -> int:
        """See WarmFile."""
        return os.write(descriptor, self.data[offset : offset + length])

    def load(self, offset: int, view: memoryview) -> None:
        """See WarmFile."""
        view[:] = self.data[offset : offset + len(view)]


class ColdVolume(MemoryVolume):
    """A volume whose data is on a disk that brings it when the test says so: `fetched` has what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.cold = True
        self.fetched: list[tuple[int, memoryview, asyncio.Future[None]]] = []

    def _read_now(self, offset: int, view: memoryview) -> bool:
        return not self.cold and super()._read_now(offset, view)

    def fetch_now(self, offset: int, view: memoryview) -> asyncio.Future[None] | None:
        """See `Volume.fetch_now`."""
        if not self.cold:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fetched.append((offset, view, future))
        return future

    def bring(self, error: VolumeError | None = None) -> None:
        """The oldest read that was asked for ends."""
        offset, view, future = self.fetched.pop(0)
        if error is not None:
            future.set_exception(error)
        else:
            view[:] = self.data[offset : offset + len(view)]
            future.set_result(None)
