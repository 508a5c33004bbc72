"""A logical volume on a sparse file (the patent's logical volume 209)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from arrayd.blockfile import BlockFile
from arrayd.volumes.range_locks import RangeLocks
from arrayd.volumes.volume import (
    Extent,
    Volume,
    VolumeError,
    VolumeFailed,
    VolumeFull,
    VolumeReadOnly,
    WarmFile,
    ended,
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileVolume(Volume):
    """A volume whose bytes are the first `size` of `file`, which it owns; all of them, if not said otherwise."""

    def __init__(
        self,
        identity: str,
        file: BlockFile,
        *,
        size: int | None = None,
        block_size: int = 512,
        physical_block_size: int | None = None,
        write_cache: bool = True,
        read_only: bool = False,
        removable: bool = False,
        thin: bool = True,
    ) -> None:
        self.identity = identity
        self.file = file
        self.size = file.size if size is None else size
        self.block_size = block_size
        self.physical_block_size = physical_block_size or block_size
        self.write_cache = write_cache
        self.read_only = read_only
        self.removable = removable
        self.thin = thin
        self.locks = RangeLocks()
        self.read_now = file.read_now
        self.write_now = self._make_write_now()

    def _make_write_now(self) -> Callable[[int, memoryview], bool]:
        if self.read_only or not self.write_cache:
            return lambda offset, view: False
        places, file_write_now = self.locks.places, self.file.write_now

        def write_now(offset: int, view: memoryview) -> bool:
            return not places and file_write_now(offset, view)

        return write_now

    def commit_now(self, offset: int, view: memoryview) -> asyncio.Future[None] | None:
        """See `Volume.commit_now`."""
        if self.read_only or self.locks.places or not self.file.write_now(offset, view):
            return None
        return self.file.commit()

    def fetch_now(self, offset: int, view: memoryview) -> asyncio.Future[None] | None:
        """See `Volume.fetch_now`."""
        return self.file.read(offset, view) if self.file.wary else None

    def warm_file(self, offset: int, length: int) -> WarmFile | None:
        """See `Volume.warm_file`."""
        return self.file if self.file.warm(offset, length) else None

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        # Who is wary has just been asked, and a ring reads what is in memory on the spot, too.
        return None if not self.file.wary and self.read_now(offset, view) else self.file.read(offset, view)

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`."""
        self._check_writable()
        durable = durable or not self.write_cache
        if not self.locks.overlaps(offset, len(view)) and self.file.write_now(offset, view):
            return self.file.sync() if durable else None
        return self._in_turn(offset, len(view), partial(self.file.write, offset, view), durable)

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`; of a volume that is only read there is nothing."""
        return None if self.read_only else self.file.sync()

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        if not self.thin:
            return self.write_zeros(offset, length)
        self._check_writable()
        return self._in_turn(offset, length, partial(self.file.punch, offset, length), not self.write_cache)

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        self._check_writable()
        return self._in_turn(offset, length, partial(self.file.zero, offset, length), not self.write_cache)

    def _in_turn(
        self, offset: int, length: int, start: Callable[[], asyncio.Future[None]], durable: bool
    ) -> asyncio.Future[None]:
        """Starts a job on the range when no earlier one is at work on it. The range stays locked until the job has
        ended, even if nobody waits for it any more."""
        outcome: asyncio.Future[None] = self.file.loop.create_future()
        lock = self.locks.hold(offset, length)

        def ended(job: asyncio.Future[None]) -> None:
            lock.release()
            if durable and job.exception() is None:
                self.file.sync().add_done_callback(partial(_pass_on, outcome))
            else:
                _pass_on(outcome, job)

        def begin() -> None:
            if self.file.failure is None:
                start().add_done_callback(ended)
            else:
                # Not here: every lock behind would be released from within the release of the one before.
                self.file.loop.call_soon(lock.release)
                if not outcome.done():
                    outcome.set_exception(volume_error(self.file.failure))

        lock.when_held(begin)
        return outcome

    async def extents(self, offset: int, length: int, limit: int) -> list[Extent]:
        """See `Volume.extents`."""
        return [Extent(*found) for found in await self.file.extents(offset, length, limit)]

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""
        return self.locks.hold(offset, length)

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`."""
        self._check_writable()
        durable = durable or not self.write_cache
        if self.file.write_now(offset, view):
            return self.file.sync() if durable else None
        return self._write_held(offset, view, durable)

    async def _write_held(self, offset: int, view: memoryview, durable: bool) -> None:
        await ended(self.file.write(offset, view))
        if durable:
            await self.file.sync()

    def allocated_bytes(self) -> int:
        """See `Volume.allocated_bytes`."""
        return self.file.allocated_bytes()

    def available_bytes(self) -> int:
        """See `Volume.available_bytes`."""
        return self.file.available_bytes()

    async def reserve(self, size: int) -> None:
        """Makes the file `size` bytes, as far as the volume may `resize` then. Raises VolumeFull, VolumeFailed."""
        await self.file.resize(size, allocate=not self.thin)

    def resize(self, size: int) -> None:
        """The volume is `size` bytes from now on; its file is as long at least."""
        self.size = size

    async def close(self) -> None:
        """Closes the file once no thread works on it; nobody uses the volume any more."""
        await self.file.close()

    def _check_writable(self) -> None:
        if self.read_only:
            raise VolumeReadOnly
        if self.file.failure is not None:
            raise volume_error(self.file.failure)


def volume_error(error: OSError) -> VolumeError:
    """What the system says of a file, as an error of the volume on it."""
    return (VolumeFull if error.errno in NO_ROOM else VolumeFailed)(str(error))


def _pass_on(outcome: asyncio.Future[None], job: asyncio.Future[None]) -> None:
    """Gives the end of `job` to `outcome`, unless whoever waited for that has given up."""
    error = job.exception()
    if outcome.done():
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)
