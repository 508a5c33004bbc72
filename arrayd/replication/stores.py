"""The files of pairs beside the tables, in `state_dir/pairs`: one a bitmap, one for the before-images of a volume.

`NAME` is a store. `NAME.new` is one that is being made, in whose place there is none yet; it gets its name when it is
as long as it is to be, durably. So a store is there whole, or not at all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TypeVar

from arrayd.blockfile import BlockFile, Ring, Writeback, remove, replace
from arrayd.log import get_logger
from arrayd.volumes.file_volume import FileVolume, volume_error
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed

T = TypeVar("T")

NAME = re.compile(r"([0-9a-f]{32})-[0-9]{1,5}\.[a-z]{1,16}")
"""Group, pair, and what it is."""
NEW = ".new"

log = get_logger("replication")


class FileStores:
    """See `stages.Stores`. `folder` is made with the first store; the rest is what files are opened with."""

    def __init__(self, folder: Path, executor: Executor, writeback: Writeback, ring: Ring | None = None) -> None:
        self._folder = folder
        self._executor = executor
        self._writeback = writeback
        self._ring = ring
        self._opened: dict[str, FileVolume] = {}

    async def create(self, name: str, size: int) -> Volume:
        """See `Stores.create`: `size` in bytes. There is always one, or none as before: a P-VOL's bitmap that is not
        whole tells that all is marked, and none that nothing is."""
        path = self._path(name)
        await self.close(name)
        new = path.with_name(name + NEW)
        if await self._in_thread(new.exists):
            await self._in_thread(partial(remove, new))
        file = await self._open(new, size)
        try:
            await self._in_thread(partial(replace, new, path))
        except BaseException:
            await file.close()
            raise
        file.path = path
        return self._keep(name, file)

    async def open(self, name: str) -> Volume | None:
        """See `Stores.open`. Raises VolumeFailed for one that somebody has not closed."""
        path = self._path(name)
        if name in self._opened:
            raise VolumeFailed(f"{path}: in use")
        if not await self._in_thread(path.exists):
            return None
        return self._keep(name, await self._open(path, 0))

    async def close(self, name: str) -> None:
        """See `Stores.close`."""
        volume = self._opened.pop(name, None)
        if volume is not None:
            await volume.close()

    async def remove(self, name: str) -> None:
        """See `Stores.remove`."""
        path = self._path(name)
        await self.close(name)
        for each in (path.with_name(name + NEW), path):
            if await self._in_thread(each.exists):
                await self._in_thread(partial(remove, each))

    async def close_all(self) -> None:
        """Closes what nobody has closed: the array stops."""
        for name in list(self._opened):
            await self.close(name)

    async def forget_others(self, groups: Collection[bytes]) -> None:
        """At a start: removes what is left of groups that are no more, by their ids; whatever else is in the folder
        stays. Raises VolumeError."""
        known = {group.hex() for group in groups}
        for name in await self._in_thread(self._names):
            found = NAME.fullmatch(name)
            if found is not None and found[1] not in known:
                await self.remove(name)
                log.info("removed what is left of a pair that is no more", store=name)

    def _names(self) -> list[str]:
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted({file.name.removesuffix(NEW) for file in files})

    def _path(self, name: str) -> Path:
        assert NAME.fullmatch(name), f"{name!r} is no name of a store"
        return self._folder / name

    def _keep(self, name: str, file: BlockFile) -> FileVolume:
        volume = self._opened[name] = FileVolume(f"pairs/{name}", file)
        return volume

    async def _open(self, path: Path, size: int) -> BlockFile:
        """A file of `size` bytes, or more."""
        try:
            return await BlockFile.open(
                path, size, self._executor, self._writeback, volume_error, larger=True, ring=self._ring
            )
        except OSError as error:
            raise _failed(path, error) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except OSError as error:
            raise _failed(self._folder, error) from error


def _failed(path: Path, error: OSError) -> VolumeError:
    return volume_error(OSError(error.errno, f"{path}: {error.strerror or error}"))
