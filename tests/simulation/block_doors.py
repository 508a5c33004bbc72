"""The doors to block data: stand for the module `os`, `fcntl` and the system calls that `arrayd/blockfile/` makes.

Descriptors are numbers of our own, none of which is used twice: what is left of a dead life cannot touch a file of
another.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arrayd.blockfile import kernel
from tests.simulation.disk import Disk, Inode
from tests.simulation.doors import Killed, Life, living

FIRST_DESCRIPTOR = 1_000_000
COLD_SHARE = 0.15
"""So many reads are not in memory."""
SYNC_SECONDS = 8e-3
"""What a sync takes, on the average: the disk has what was written before it began."""
SELF_FD = "/proc/self/fd/"


class OpenFile:
    """One open file, or folder (without inode), of a life."""

    __slots__ = ("disk", "flags", "folder", "inode", "life", "name")

    def __init__(self, life: Life, disk: Disk, inode: Inode | None, folder: Path | None, flags: int) -> None:
        self.life = life
        self.disk = disk
        self.inode = inode
        self.folder = folder
        self.flags = flags
        self.name = inode.name if inode is not None else f"{folder.name if folder else ''}/"


class BlockDoors:
    """Stands for `os` in the modules of `arrayd/blockfile/`; what is not here, such as constants, is the real one's.
    `disk_of(life)` is the disk of its machine."""

    def __init__(self, disk_of: Callable[[Life], Disk]) -> None:
        self._disk_of = disk_of
        self._numbers = itertools.count(FIRST_DESCRIPTOR)
        self._open: dict[int, OpenFile] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("O_", "RWF_", "SEEK_", "SC_")) or name in ("sysconf", "strerror"):
            return getattr(os, name)
        raise AttributeError(f"the simulation has no os.{name}")

    def _file(self, descriptor: int) -> OpenFile:
        """Raises Killed for what is left of a dead life."""
        file = self._open[descriptor]
        if not file.life.alive:
            raise Killed
        return file

    def inode(self, descriptor: int) -> Inode:
        """The open file's. Raises Killed."""
        inode = self._file(descriptor).inode
        assert inode is not None
        return inode

    def forget(self, life: Life) -> None:
        """All files of a life that has ended are closed."""
        for file in self._open.values():
            if file.life is life and file.inode is not None and file.inode.locked_by is file:
                file.inode.locked_by = None

    # -- open and close ----------------------------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """open(2)."""
        life = living()
        disk = self._disk_of(life)
        text = str(path)
        if text.startswith(SELF_FD):
            again = self._file(int(text.removeprefix(SELF_FD)))
            return self._add(OpenFile(life, disk, again.inode, None, flags))
        life.before("open", Path(text).name)
        if flags & os.O_DIRECTORY:
            return self._add(OpenFile(life, disk, None, Path(text), flags))
        os.close(os.open(text, flags, mode))
        number = self._add(OpenFile(life, disk, disk.inode(text), None, flags))
        life.after("open")
        return number

    def _add(self, file: OpenFile) -> int:
        number = next(self._numbers)
        self._open[number] = file
        return number

    def close(self, descriptor: int) -> None:
        """close(2)."""
        file = self._file(descriptor)
        if file.inode is not None and file.inode.locked_by is file:
            file.inode.locked_by = None
        del self._open[descriptor]

    def flock(self, descriptor: int, _operation: int) -> None:
        """flock(2), exclusive, without waiting."""
        file, inode = self._file(descriptor), self.inode(descriptor)
        if inode.locked_by not in (None, file):
            raise BlockingIOError(errno.EAGAIN, "locked")
        inode.locked_by = file

    def fcntl(self, descriptor: int, _command: int) -> int:
        """fcntl(2), F_GETFL."""
        return self._file(descriptor).flags

    # -- data --------------------------------------------------------------------------------------------------------

    def preadv(self, descriptor: int, views: Any, offset: int, flags: int = 0) -> int:
        """preadv2(2)."""
        file = self._file(descriptor)
        disk = file.disk
        if flags & os.RWF_NOWAIT and disk.random.random() < COLD_SHARE:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        file.life.before("read", f"{file.name} {offset}")
        if disk.failing_reads:
            disk.failing_reads -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        count = os.preadv(self.inode(descriptor).fd, views, offset)
        file.life.after("read")
        return count

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        """pwrite(2): a kill in the middle of it leaves the first part."""
        file, inode = self._file(descriptor), self.inode(descriptor)
        disk, life = file.disk, file.life
        life.before("write", f"{file.name} {offset}+{len(data)}")
        disk.check_room()
        inode.about_to_change(offset, len(data), disk.random)
        count = 0
        if life.plan is not None and len(data) > kernel.PAGE_BYTES:
            count = os.pwrite(inode.fd, data[: kernel.PAGE_BYTES], offset)
            life.after("write")
        count += os.pwrite(inode.fd, data[count:], offset + count)
        life.after("write")
        return count

    def fdatasync(self, descriptor: int) -> None:
        """fdatasync(2)."""
        self._sync(descriptor, "fdatasync")

    def fsync(self, descriptor: int) -> None:
        """fsync(2), of a folder, too."""
        self._sync(descriptor, "fsync")

    def _sync(self, descriptor: int, door: str) -> None:
        file = self._file(descriptor)
        life, disk = file.life, file.disk
        life.before(door, file.name)
        # What is written while a sync goes on is not synced by it, as far as anybody knows.
        life.elapsed += disk.random.expovariate(1 / SYNC_SECONDS)
        if file.inode is None:
            assert file.folder is not None
            disk.sync_folder(file.folder)
        elif disk.failing_syncs and door == "fdatasync":
            disk.failing_syncs -= 1
            file.inode.sync_failed()
            disk.failed.add(file.inode.name)
            life.after(door)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        else:
            file.inode.synced()
        life.after(door)

    def ftruncate(self, descriptor: int, size: int) -> None:
        """ftruncate(2)."""
        file = self._file(descriptor)
        file.life.before("truncate", f"{file.name} {size}")
        os.ftruncate(self.inode(descriptor).fd, size)
        file.life.after("truncate")

    def posix_fallocate(self, descriptor: int, offset: int, length: int) -> None:
        """posix_fallocate(3)."""
        file = self._file(descriptor)
        file.life.before("allocate", f"{file.name} {offset}+{length}")
        file.disk.check_room()
        os.posix_fallocate(self.inode(descriptor).fd, offset, length)
        file.life.after("allocate")

    def fallocate(self, descriptor: int, mode: int, offset: int, length: int) -> None:
        """kernel.fallocate: a hole, or zeros."""
        file, inode = self._file(descriptor), self.inode(descriptor)
        file.life.before("fallocate", f"{file.name} {mode} {offset}+{length}")
        inode.about_to_change(offset, length, file.disk.random)
        if mode & kernel.PUNCH_HOLE:
            FALLOCATE(inode.fd, mode, offset, length)
        else:
            os.pwrite(inode.fd, bytes(length), offset)  # tmpfs knows no ZERO_RANGE
        file.life.after("fallocate")

    def lseek(self, descriptor: int, offset: int, how: int) -> int:
        """lseek(2), for holes."""
        return os.lseek(self.inode(descriptor).fd, offset, how)

    def fstat(self, descriptor: int) -> os.stat_result:
        """fstat(2)."""
        return os.fstat(self.inode(descriptor).fd)

    def fstatvfs(self, descriptor: int) -> os.statvfs_result:
        """fstatvfs(3)."""
        return os.fstatvfs(self.inode(descriptor).fd)

    def write_back(self, descriptor: int) -> None:
        """kernel.write_back: clean, and not durable."""
        self._file(descriptor).life.before("write back")

    def dirty_bytes(self, descriptor: int) -> int:
        """kernel.dirty_bytes."""
        return len(self.inode(descriptor).old) * kernel.PAGE_BYTES

    # What the modules of blockfile find under these names is in `stand_ins`.

    def residence(self, _descriptor: int, _size: int) -> AllResident:
        """kernel.Residence."""
        return AllResident()


class AllResident:
    """Stands for kernel.Residence: whether a read is cold is found out when it is tried."""

    def covers(self, _offset: int, _length: int) -> bool:
        """See Residence."""
        return True

    def map(self, _size: int) -> None:
        """See Residence."""

    def close(self) -> None:
        """See Residence."""


class Locks:
    """Stands for the module `fcntl` in `opening.py`."""

    LOCK_EX, LOCK_NB, F_GETFL = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.F_GETFL

    def __init__(self, doors: BlockDoors) -> None:
        self.flock = doors.flock
        self.fcntl = doors.fcntl


FALLOCATE = kernel.fallocate
"""The real one."""


def stand_ins(doors: BlockDoors) -> dict[str, object]:
    """What takes the place of what, by dotted name."""
    modules = ("file", "opening", "threads", "syncs", "kernel")
    return {
        **{f"arrayd.blockfile.{name}.os": doors for name in modules},
        "arrayd.blockfile.opening.fcntl": Locks(doors),
        "arrayd.blockfile.kernel.fallocate": doors.fallocate,
        "arrayd.blockfile.kernel.write_back": doors.write_back,
        "arrayd.blockfile.kernel.dirty_bytes": doors.dirty_bytes,
        "arrayd.blockfile.kernel.in_tmpfs": lambda _descriptor: False,
        "arrayd.blockfile.kernel.Residence": doors.residence,
    }
