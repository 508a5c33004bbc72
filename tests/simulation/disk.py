"""The disk of a machine: what of its files a power loss leaves.

The files themselves, in a folder of tmpfs, are what the page cache holds: a kill loses nothing of it. For each page
that is not synced the disk remembers what the last sync left, or what was written back meanwhile by itself. A power
loss keeps of each such page the new or the old, or tears it at 512 bytes; names that were made or changed since their
folder was synced are there or not.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from random import Random

PAGE_BYTES = 4096
SECTOR_BYTES = 512
TABLES = ("tables.db", "lock")
"""Files beside those of block data begin so."""
WRITTEN_BACK_SHARE = 0.1
"""So often a page that is overwritten before it is synced was written back before."""


FULL_SHARE = 0.7


class Inode:
    """One file. `old` is what the disk holds of pages that are newer in the page cache, by page number."""

    def __init__(self, path: str) -> None:
        self.name = os.path.basename(path)
        self.fd = os.open(path, os.O_RDWR)
        """Held as long as the disk is: a number of the file system is not used twice."""
        self.old: dict[int, bytes] = {}
        self.lost: dict[int, bytes] = {}
        """Likewise, of pages that could not be written: they are taken for clean, and nobody tries again."""
        self.durable_size = os.fstat(self.fd).st_size
        self.locked_by: object = None

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.fd).st_size

    def about_to_change(self, offset: int, length: int, random: Random) -> None:
        """Notes what the disk holds of a range that is written next."""
        for page in range(offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES)):
            if page in self.lost:
                self.old[page] = self.lost.pop(page)
            elif page not in self.old or random.random() < WRITTEN_BACK_SHARE:
                self.old[page] = self.page(page)

    def page(self, number: int) -> bytes:
        """As the page cache holds it."""
        return os.pread(self.fd, PAGE_BYTES, number * PAGE_BYTES).ljust(PAGE_BYTES, b"\0")

    def synced(self) -> None:
        """All of it is on the disk."""
        self.old.clear()
        self.durable_size = self.size

    def sync_failed(self) -> None:
        """What was to be written is dropped."""
        self.lost.update(self.old)
        self.old.clear()

    def lose(self, random: Random, power: bool) -> None:
        """What a restart leaves: of what could not be written, and after a power loss of what was not synced."""
        for page, old in sorted({**self.lost, **(self.old if power else {})}.items()):
            os.pwrite(self.fd, _torn(self.page(page), old, random), page * PAGE_BYTES)
        self.lost.clear()
        if power:
            self.old.clear()
            if self.size != self.durable_size and random.random() < 0.5:
                os.ftruncate(self.fd, self.durable_size)
            self.durable_size = self.size


def _torn(new: bytes, old: bytes, random: Random) -> bytes:
    """A page of which some is new and some old."""
    choice = random.random()
    if choice < 0.4:
        return new
    if choice < 0.8:
        return old
    sectors = range(0, PAGE_BYTES, SECTOR_BYTES)
    return b"".join(random.choice((new, old))[at : at + SECTOR_BYTES] for at in sectors)


class Disk:
    """All files below `folder`; `random` is its source of chance."""

    def __init__(self, folder: Path, random: Random) -> None:
        self.folder = folder
        self.random = random
        self._inodes: dict[int, Inode] = {}
        self._folders: dict[Path, dict[str, Inode]] = {}
        """What each folder held when it was synced last."""
        self.full = False
        """Whether writes find no room: so many of them as `full_share` says."""
        self.full_share = FULL_SHARE
        self.failing_syncs = 0
        self.failing_reads = 0
        """So many of the next ones fail."""
        self.failed: set[str] = set()
        """Files that could not be synced in this life."""

    def inode(self, path: str) -> Inode:
        """The file at `path`. Raises OSError."""
        number = os.stat(path).st_ino
        found = self._inodes.get(number)
        if found is None:
            found = self._inodes[number] = Inode(path)
            self._folders.setdefault(Path(path).parent, {})
        found.name = os.path.basename(path)
        return found

    def sync_folder(self, folder: Path) -> None:
        """The names in it are durable."""
        self._folders[folder] = self._names(folder)

    def _names(self, folder: Path) -> dict[str, Inode]:
        """The files of block data in it; tables see to themselves."""
        with os.scandir(folder) as entries:
            names = sorted(each.name for each in entries if each.is_file() and not each.name.startswith(TABLES))
        return {name: self.inode(f"{folder}/{name}") for name in names}

    def check_room(self) -> None:
        """Raises OSError where a write finds no room."""
        if self.full and self.random.random() < self.full_share:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restart(self, power: bool) -> None:
        """The machine, or the array on it, comes back."""
        for inode in self._inodes.values():
            inode.lose(self.random, power)
            inode.locked_by = None
        self.failed.clear()
        if power:
            for folder, names in self._folders.items():
                self._lose_names(folder, names)

    def _lose_names(self, folder: Path, names: dict[str, Inode]) -> None:
        there = self._names(folder)
        if there == names or self.random.random() < 0.5:
            self._folders[folder] = there
            return
        kept = {inode: _whole(inode) for inode in names.values()}
        for name in there:
            (folder / name).unlink()
        for name, inode in names.items():
            self._make_again(folder / name, kept[inode])
        self.sync_folder(folder)

    def _make_again(self, path: Path, data: bytes) -> None:
        with open(path, "wb") as file:
            for at in range(0, len(data), PAGE_BYTES):
                piece = data[at : at + PAGE_BYTES]
                if any(piece):
                    file.seek(at)
                    file.write(piece)
            file.truncate(len(data))

    def close(self) -> None:
        """Gives the files back."""
        for inode in self._inodes.values():
            with suppress(OSError):
                os.close(inode.fd)
        self._inodes.clear()


def _whole(inode: Inode) -> bytes:
    return os.pread(inode.fd, inode.size, 0)
