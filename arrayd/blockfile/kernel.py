"""What Linux knows of a file and Python's `os` does not offer: system calls by ctypes, which lets other threads run.

fallocate(2), lseek(2) for holes, mincore(2), cachestat(2), sync_file_range(2), statfs(2); limits for dirty pages.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10
CACHESTAT_SYSCALL = 451
"""cachestat(2), Linux 6.5, the same number on every architecture."""
SYNC_WAIT_BEFORE, SYNC_WRITE, SYNC_WAIT_AFTER = 1, 2, 4
PROT_NONE = 0
MAP_SHARED = 1
TMPFS_MAGIC = 0x01021994
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

CGROUP_MEMORY_SHARE = 8
"""Of a control group's memory limit, one part in so many may be dirty: the kernel throttles at a tenth to a fifth."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_MAP_FAILED = ctypes.c_void_p(-1).value


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def system_call(number: int, *arguments: object) -> int:
    """A system call that the C library has no function for. Raises OSError."""
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise _error()
    return result


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises OSError."""
    while _libc.fallocate(descriptor, mode, offset, length) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _error()


def write_back(descriptor: int) -> None:
    """Writes the dirty pages of a file to the disk and waits for them: they are clean then, and not yet durable.

    Raises OSError; an error that was met while writing comes out here, and a later fdatasync does not repeat it.
    """
    if _libc.sync_file_range(descriptor, 0, 0, SYNC_WAIT_BEFORE | SYNC_WRITE | SYNC_WAIT_AFTER) != 0:
        raise _error()


def in_tmpfs(descriptor: int) -> bool:
    """Whether the file lives in memory."""
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(descriptor, ctypes.byref(buffer)) != 0:
        raise _error()
    return int(buffer[0]) == TMPFS_MAGIC


def extents(descriptor: int, at: int, end: int, limit: int) -> list[tuple[int, int, bool]]:
    """At most `limit` of (offset, length, mapped) between `at` and `end`, without a gap, by SEEK_DATA and SEEK_HOLE."""
    # In tmpfs SEEK_HOLE goes from page to page to the next hole, be it at the end of the file, whoever asks for a part.
    if at < end and in_tmpfs(descriptor) and _is_in_memory(descriptor, at, end):
        return [(at, end - at, True)]
    found: list[tuple[int, int, bool]] = []
    while at < end and len(found) < limit:
        try:
            data = min(os.lseek(descriptor, at, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = end
        mapped = data == at
        after = min(os.lseek(descriptor, at, os.SEEK_HOLE), end) if mapped else data
        found.append((at, after - at, mapped))
        at = after
    return found


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent"))


def dirty_bytes(descriptor: int) -> int | None:
    """Bytes of the file that are dirty or being written back; None where the kernel cannot tell."""
    told = _cache_stat(descriptor, 0, 0)
    return None if told is None else int(told.dirty + told.writeback) * PAGE_BYTES


def _is_in_memory(descriptor: int, at: int, end: int) -> bool:
    """Whether there is a page for all of the range; False where the kernel cannot tell."""
    told = _cache_stat(descriptor, at, end - at)
    return told is not None and bool(told.cached >= -(-end // PAGE_BYTES) - at // PAGE_BYTES)


def _cache_stat(descriptor: int, offset: int, length: int) -> _CacheStat | None:
    """The pages of a range (length 0: of all behind `offset`) by what they are; None where the kernel cannot tell."""
    told = _CacheStat()
    try:
        system_call(CACHESTAT_SYSCALL, descriptor, ctypes.byref(_Range(offset, length)), ctypes.byref(told), 0)
    except OSError:
        return None
    return told


class Residence:
    """Tells which pages of a file are in memory, read and ready.

    By mincore(2) on a mapping that nobody touches: cachestat(2) also counts pages whose read is still under way, and
    whoever takes them waits for the disk.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._address: int | None = None
        self._size = 0
        self._pages = bytearray()
        self.map(size)

    def map(self, size: int) -> None:
        """The file is `size` bytes now."""
        self.close()
        if size:
            address = _libc.mmap(None, size, PROT_NONE, MAP_SHARED, self._descriptor, 0)
            # Without address space for it nothing counts as resident: slower, and right.
            self._address = None if address == _MAP_FAILED else address
            self._size = size

    def covers(self, offset: int, length: int) -> bool:
        """Whether all of the range is in memory; it may be gone a moment later."""
        if self._address is None or offset + length > self._size:
            return False
        first = offset - offset % PAGE_BYTES
        count = -(-(offset + length - first) // PAGE_BYTES)
        if len(self._pages) < count:
            self._pages = bytearray(count)
            self._vector = (ctypes.c_char * count).from_buffer(self._pages)
            self._vector_address = ctypes.addressof(self._vector)
        if _libc.mincore(self._address + first, count * PAGE_BYTES, self._vector_address) != 0:
            return False
        return self._pages.count(1, 0, count) == count

    def close(self) -> None:
        """Gives the mapping up; it holds the file open."""
        if self._address is not None:
            _libc.munmap(self._address, self._size)
            self._address = None


def dirty_limit() -> int:
    """Bytes that may be dirty before the kernel makes writers sleep (balance_dirty_pages in mm/page-writeback.c)."""
    told = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    free_run = (int(told["nr_dirty_threshold"]) + int(told["nr_dirty_background_threshold"])) // 2 * PAGE_BYTES
    return min([free_run, *(limit // CGROUP_MEMORY_SHARE for limit in _cgroup_limits())])


def _cgroup_limits() -> list[int]:
    """The memory limits of the control groups that this process is in (cgroup v2)."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        if line.startswith("0::/"):
            group = root / line.removeprefix("0::/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    limits += _limit(folder / "memory.max")
    return limits


def _limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []
