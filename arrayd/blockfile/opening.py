"""Opens files of block data: made durably with their folders, locked, as long as they should be."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path


def open_file(path: Path, size: int, allocate: bool, read_only: bool, larger: bool = False) -> int:
    """A descriptor of the file, locked and `size` bytes long; made if need be, and there after a power loss, too.

    A file that exists is opened for reading only with `read_only`; all of it gets disk with `allocate`; it may be
    longer with `larger`. Raises OSError, whose text says what to tell the user: in use, larger than `size`, or
    read-only and smaller, no regular file.
    """
    _make_folder(path.parent)
    try:
        descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if facts.st_size > size and not larger:
            raise OSError(
                errno.EFBIG, f"holds {facts.st_size} bytes, and the size wanted is {size}: a volume is not cut"
            )
        if facts.st_size < size and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(
                errno.EROFS,
                f"holds {facts.st_size} bytes, and the size wanted is {size}: it is read-only, and not grown",
            )
        if facts.st_size < size or (allocate and facts.st_size == size):
            resize(descriptor, size, allocate)
            sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_again(descriptor: int) -> int:
    """One more open file for the file that is open as `descriptor`. Raises OSError.

    The kernel reports a failed write-back once to each open file: whoever must hear of it needs one of its own.
    """
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "in use by another process, or by another volume") from None


def resize(descriptor: int, size: int, allocate: bool) -> None:
    """Grows or cuts the file, durably; all of it gets disk with `allocate`. Raises OSError."""
    os.ftruncate(descriptor, size)
    if allocate:
        os.posix_fallocate(descriptor, 0, size)
    os.fsync(descriptor)


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it, durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise OSError(errno.ENOTDIR, f"{folder} is not a folder") from None
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """A file that was just made survives a power loss once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Path, new: Path) -> None:
    """Gives a file another name in its folder, durably; it never takes the place of another. Raises OSError."""
    if new.exists():
        raise OSError(errno.EEXIST, f"{new} is in the place of {old.name}: move one of them away")
    old.rename(new)
    sync_folder(new.parent)


def replace(old: Path, new: Path) -> None:
    """Gives a file another name in its folder, durably, in the place of what has it. Raises OSError."""
    old.replace(new)
    sync_folder(new.parent)


def remove(path: Path) -> None:
    """Removes a file, durably. Raises OSError."""
    path.unlink()
    sync_folder(path.parent)
