"""A logical volume on a sparse file (the patent's logical volume 209)."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from arrayd.blockfile import BlockFile
from arrayd.volumes.range_locks import RangeLock, RangeLocks
from arrayd.volumes.volume import Extent, Volume, VolumeFailed, VolumeFull, VolumeReadOnly

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileVolume(Volume):
    """A volume whose bytes are those of `file`, which it owns."""

    def __init__(
        self,
        identity: str,
        file: BlockFile,
        *,
        block_size: int = 512,
        write_cache: bool = True,
        read_only: bool = False,
        removable: bool = False,
        thin: bool = True,
    ) -> None:
        self.identity = identity
        self.file = file
        self.size = file.size
        self.block_size = block_size
        self.write_cache = write_cache
        self.read_only = read_only
        self.removable = removable
        self.thin = thin
        self.locks = RangeLocks()
        self.read_now = file.read_now
        self.write_now = self._make_write_now()

    def _make_write_now(self) -> Callable[[int, memoryview], bool]:
        locks, file_write_now, volume = self.locks, self.file.write_now, self

        def write_now(offset: int, view: memoryview) -> bool:
            if locks or not volume.write_cache or volume.read_only:
                return False
            return file_write_now(offset, view)

        return write_now

    def warm_file(self, offset: int, length: int) -> Callable[[int, int, int], int] | None:
        """See `Volume.warm_file`."""
        return self.file.send if self.file.warm(offset, length) else None

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        if self.read_now(offset, view):
            return None
        return _translated(self.file.read(offset, view))

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`."""
        self._check_writable()
        durable = durable or not self.write_cache
        if self.locks.overlaps(offset, len(view)):
            return self._write_in_turn(self.locks.hold(offset, len(view)), offset, view, durable)
        return self._write_unlocked(offset, view, durable)

    def _write_unlocked(self, offset: int, view: memoryview, durable: bool) -> Awaitable[None] | None:
        if self.file.write_now(offset, view):
            return _translated(self.file.sync()) if durable else None
        return self._write_in_turn(self.locks.hold(offset, len(view)), offset, view, durable)

    async def _write_in_turn(self, lock: RangeLock, offset: int, view: memoryview, durable: bool) -> None:
        async with lock:
            await _translated(self.file.write(offset, view))
        if durable:
            await _translated(self.file.sync())

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        return _translated(self.file.sync())

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        self._check_writable()
        return self._free(self.locks.hold(offset, length), offset, length)

    async def _free(self, lock: RangeLock, offset: int, length: int) -> None:
        async with lock:
            await _translated(self.file.punch(offset, length))
        if not self.write_cache:
            await _translated(self.file.sync())

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        self._check_writable()
        return self._zero(self.locks.hold(offset, length), offset, length)

    async def _zero(self, lock: RangeLock, offset: int, length: int) -> None:
        async with lock:
            await _translated(self.file.zero(offset, length))
        if not self.write_cache:
            await _translated(self.file.sync())

    async def extents(self, offset: int, length: int, limit: int) -> list[Extent]:
        """See `Volume.extents`."""
        return [Extent(*found) for found in await self.file.extents(offset, length, limit)]

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""
        return self.locks.hold(offset, length)

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`."""
        self._check_writable()
        return self._write_held(offset, view, durable or not self.write_cache)

    async def _write_held(self, offset: int, view: memoryview, durable: bool) -> None:
        if not self.file.write_now(offset, view):
            await _translated(self.file.write(offset, view))
        if durable:
            await _translated(self.file.sync())

    def allocated_bytes(self) -> int:
        """See `Volume.allocated_bytes`."""
        return self.file.allocated_bytes()

    def available_bytes(self) -> int:
        """See `Volume.available_bytes`."""
        return self.file.available_bytes()

    async def resize(self, size: int) -> None:
        """Grows the volume (or cuts it, where an operator asks for that)."""
        await self.file.resize(size)
        self.size = size

    def _check_writable(self) -> None:
        if self.read_only:
            raise VolumeReadOnly
        if self.file.failure is not None:
            _raise_as_volume_error(self.file.failure)


async def _translated(result: Awaitable[None]) -> None:
    """Awaits `result`; what the system says comes out as a VolumeError."""
    try:
        await result
    except OSError as error:
        _raise_as_volume_error(error)


def _raise_as_volume_error(error: OSError) -> NoReturn:
    if error.errno in NO_ROOM:
        raise VolumeFull(str(error)) from error
    raise VolumeFailed(str(error)) from error
