"""A file of block data: the only place in the project that reads, writes, syncs, frees or sends block data.

What can be done without blocking is done on the spot; the rest goes to the one executor, and comes back through a
future of the loop. Syncs are grouped: one fdatasync answers everything that waited when it began. A failed fdatasync
is never retried into success: the file stays failed, since the kernel may have dropped the pages it could not write.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_ZERO_RANGE = 0x10
CACHESTAT_SYSCALL = 451
"""cachestat(2), Linux 6.5, the same number on every architecture."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TMPFS_MAGIC = 0x01021994
UNSYNCED_BYTES_MAX = 256 * 1024 * 1024
"""Bytes written and not yet synced, beyond which `write_now` refuses: past the kernel's dirty limit pwrite sleeps."""
UNSYNCED_BYTES_START = UNSYNCED_BYTES_MAX // 2
"""Unsynced bytes at which a sync in the background begins."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent"))


class BlockFile:
    """One file of `size` bytes, opened exclusively; with `allocate` all of it has disk.

    `read_now(offset, view)` and `write_now(offset, view)` are closures: they are the innermost part of the hot path.
    Raises OSError where the system does; BlockingIOError from the constructor when another process has the file.
    """

    def __init__(self, path: Path, size: int, executor: Executor, allocate: bool = False) -> None:
        self.path = path
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self.descriptor).st_size != size:
                os.ftruncate(self.descriptor, size)
                os.fsync(self.descriptor)
            if allocate:
                os.posix_fallocate(self.descriptor, 0, size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.size = size
        self.failure: OSError | None = None
        self.in_memory = self._reads_never_block()
        self._unsynced = 0
        self._sync_waiting: list[asyncio.Future[None]] = []
        self._sync_running = False
        self._range = _Range()
        self._stat = _CacheStat()
        self._has_cachestat = True
        self.read_now = self._make_read_now()
        self.write_now = self._make_write_now()

    def _reads_never_block(self) -> bool:
        """True for files in memory (tmpfs), which know no RWF_NOWAIT and need none."""
        try:
            os.preadv(self.descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return _file_system(self.descriptor) == TMPFS_MAGIC
        return False

    # -- on the spot -------------------------------------------------------------------------------------------------

    def _make_read_now(self) -> Callable[[int, memoryview], bool]:
        preadv, descriptor = os.preadv, self.descriptor
        flags = 0 if self.in_memory else os.RWF_NOWAIT

        def read_now(offset: int, view: memoryview) -> bool:
            """Fills `view` if all of it is in memory."""
            try:
                return preadv(descriptor, (view,), offset, flags) == len(view)
            except OSError:
                return False

        return read_now

    def _make_write_now(self) -> Callable[[int, memoryview], bool]:
        pwrite, descriptor = os.pwrite, self.descriptor
        if self.in_memory:

            def write_in_memory(offset: int, view: memoryview) -> bool:
                try:
                    return pwrite(descriptor, view, offset) == len(view)
                except OSError:
                    return False

            return write_in_memory

        def write_now(offset: int, view: memoryview) -> bool:
            """Writes `view` into the page cache, unless so much is unsynced that the kernel might make us sleep."""
            self._unsynced = unsynced = self._unsynced + len(view)
            if unsynced > UNSYNCED_BYTES_START and not self._room(unsynced):
                self._unsynced -= len(view)
                return False
            try:
                return pwrite(descriptor, view, offset) == len(view)
            except OSError:
                return False

        return write_now

    def _room(self, unsynced: int) -> bool:
        """Starts a sync in the background, and says whether more may be written meanwhile."""
        if not self._sync_running:
            self._begin_sync()
        return unsynced <= UNSYNCED_BYTES_MAX and self.failure is None

    def warm(self, offset: int, length: int) -> bool:
        """Whether every page of the range is in memory (a hint: it may be gone a moment later)."""
        if not self._has_cachestat:
            return False
        first = offset - offset % PAGE_BYTES
        self._range.offset, self._range.length = first, offset + length - first
        result = _libc.syscall(
            CACHESTAT_SYSCALL, self.descriptor, ctypes.byref(self._range), ctypes.byref(self._stat), 0
        )
        if result != 0:
            self._has_cachestat = False
            return False
        return bool(self._stat.cached >= -(-self._range.length // PAGE_BYTES))

    def send(self, socket: int, offset: int, length: int) -> int:
        """Sends from the file to a non-blocking socket without a copy; bytes sent. Raises BlockingIOError."""
        return os.sendfile(socket, self.descriptor, offset, length)

    # -- in the executor ---------------------------------------------------------------------------------------------

    def _job(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Runs `work` in the executor."""
        return self._loop.run_in_executor(self._executor, work)

    def read(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        """Fills `view`, in the executor."""
        return self._job(lambda: self._read_wholly(offset, view))

    def _read_wholly(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = os.preadv(self.descriptor, (view[done:],), offset + done)
            if count == 0:
                raise OSError(errno.EIO, "the file is shorter than its volume", str(self.path))
            done += count

    def write_inline(self, offset: int, view: memoryview) -> None:
        """Writes `view` in the calling thread."""
        done = 0
        while done < len(view):
            done += os.pwrite(self.descriptor, view[done:], offset + done)

    def write(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        """Writes `view` into the page cache, in the executor, where it may sleep."""
        self._unsynced += len(view)
        return self._job(lambda: self.write_inline(offset, view))

    def punch(self, offset: int, length: int) -> asyncio.Future[None]:
        """Frees the range; it reads as zeros."""
        return self._job(lambda: self._fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length))

    def zero(self, offset: int, length: int) -> asyncio.Future[None]:
        """Makes the range zeros and keeps it allocated."""
        return self._job(lambda: self._zero(offset, length))

    def _zero(self, offset: int, length: int) -> None:
        try:
            self._fallocate(FALLOC_ZERO_RANGE, offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)
            self._fallocate(0, offset, length)

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        arguments = (ctypes.c_int(self.descriptor), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length))
        while _libc.fallocate(*arguments) != 0:
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code), str(self.path))

    def extents(self, offset: int, length: int, limit: int) -> asyncio.Future[list[tuple[int, int, bool]]]:
        """At most `limit` (offset, length, mapped) from `offset` on, by SEEK_DATA and SEEK_HOLE."""
        return self._job(lambda: self._find_extents(offset, offset + length, limit))

    def _find_extents(self, at: int, end: int, limit: int) -> list[tuple[int, int, bool]]:
        found: list[tuple[int, int, bool]] = []
        while at < end and len(found) < limit:
            try:
                data = min(os.lseek(self.descriptor, at, os.SEEK_DATA), end)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = end
            mapped = data == at
            after = min(os.lseek(self.descriptor, at, os.SEEK_HOLE), end) if mapped else data
            found.append((at, after - at, mapped))
            at = after
        return found

    def resize(self, size: int) -> asyncio.Future[None]:
        """Grows or cuts the file, durably."""

        def work() -> None:
            os.ftruncate(self.descriptor, size)
            os.fsync(self.descriptor)

        self.size = size
        return self._job(work)

    # -- durability --------------------------------------------------------------------------------------------------

    def sync(self) -> asyncio.Future[None]:
        """Done when everything written before the call is durable. One fdatasync serves all who wait for it."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.failure is not None:
            future.set_exception(self.failure)
            return future
        self._sync_waiting.append(future)
        if not self._sync_running:
            self._sync_running = True
            self._loop.call_soon(self._begin_sync)
        return future

    def _begin_sync(self) -> None:
        """Starts one fdatasync for all who wait now. By `call_soon`, so that it serves a whole batch of commands."""
        self._sync_running = True
        waiting, self._sync_waiting = self._sync_waiting, []
        self._unsynced, unsynced = 0, self._unsynced
        self._executor.submit(self._sync_in_thread, waiting, unsynced)

    def _sync_in_thread(self, waiting: list[asyncio.Future[None]], unsynced: int) -> None:
        failure = None
        try:
            os.fdatasync(self.descriptor)
        except OSError as error:
            failure = error
        self._loop.call_soon_threadsafe(self._synced, waiting, unsynced, failure)

    def _synced(self, waiting: list[asyncio.Future[None]], unsynced: int, failure: OSError | None) -> None:
        if failure is not None:
            self.failure = failure
            self._unsynced += unsynced
            waiting += self._sync_waiting
            self._sync_waiting = []
        for future in waiting:
            if future.done():
                continue
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)
        if self._sync_waiting:
            self._begin_sync()
        else:
            self._sync_running = False

    # -- facts -------------------------------------------------------------------------------------------------------

    def allocated_bytes(self) -> int:
        """Disk in use by the file."""
        return os.fstat(self.descriptor).st_blocks * 512

    def available_bytes(self) -> int:
        """Disk left in the file system."""
        facts = os.fstatvfs(self.descriptor)
        return facts.f_bavail * facts.f_frsize

    def close(self) -> None:
        """Closes the file; whoever syncs does so before."""
        os.close(self.descriptor)


def _file_system(descriptor: int) -> int:
    """The magic number of the file system that holds `descriptor` (statfs(2))."""
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(descriptor, ctypes.byref(buffer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(buffer[0])
