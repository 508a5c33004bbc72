"""A volume that loses power: of what was written since the last sync any part is there afterwards.

The file is a real one. What is written goes to it, and stays if the process is killed; at a power loss each page, or
each sector, gets what it had at the last sync or what any write since then gave it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from arrayd.blockfile import BlockFile, Writeback
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeFailed

THREADS = ThreadPoolExecutor(2)
PLENTY = 1 << 30


class Crash(Exception):
    """The process dies here."""


class Disk:
    """What outlives the process: the file, what of it is durable, and what was written since."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        path.write_bytes(bytes(size))
        self.durable = bytearray(size)
        self.since: list[tuple[int, bytes]] = []

    def lose_power(self, chance: random.Random, unit: int) -> None:
        """Of what is not durable, any units of any writes are there."""
        choices: dict[int, list[bytes]] = {}
        for offset, content in self.since:
            for at in range(0, len(content), unit):
                choices.setdefault(offset + at, []).append(content[at : at + unit])
        for at, contents in choices.items():
            chosen = chance.randrange(len(contents) + 1)
            if chosen:
                self.durable[at : at + unit] = contents[chosen - 1]
        self.since = []
        self.path.write_bytes(self.durable)

    @asynccontextmanager
    async def volume(self) -> AsyncIterator["LossyVolume"]:
        """The volume on it, for one life of a process."""
        file = await BlockFile.open(self.path, self.size, THREADS, Writeback(PLENTY))
        try:
            yield LossyVolume(file, self)
        finally:
            await file.close()


class LossyVolume(FileVolume):
    """`fuse`: so many calls go well, and in the next one the process dies, before or after it was carried out.
    `refused`: so many writes on the spot are refused. `sync_fails_after`: so many syncs go well, and the next one
    fails; what it was to write is taken for clean."""

    def __init__(self, file: BlockFile, disk: Disk) -> None:
        super().__init__("1:journal", file)
        self.disk = disk
        self.fuse: int | None = None
        self.carried_out = True
        self.refused = 0
        self.sync_fails_after = -1
        self.calls: list[str] = []
        on_the_spot = self.write_now

        def write_now(offset: int, view: memoryview) -> bool:
            if self.refused:
                self.refused -= 1
                return False
            self._alive()
            self.calls.append("write")
            dies = self._burn()
            if not dies or self.carried_out:
                self._log(offset, view)
                assert on_the_spot(offset, view)
            if dies:
                raise Crash
            return True

        self.write_now = write_now

    def _log(self, offset: int, view: memoryview) -> None:
        assert offset % 4096 == len(view) % 4096 == 0, "whole pages"
        self.disk.since.append((offset, bytes(view)))

    def _alive(self) -> None:
        """A process that has died does nothing more."""
        if self.fuse is not None and self.fuse < 0:
            raise Crash

    def _burn(self) -> bool:
        if self.fuse is None:
            return False
        self.fuse -= 1
        return self.fuse < 0

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        self._alive()
        self.calls.append("write")
        if self._burn():
            raise Crash
        self._log(offset, view)
        return self.file.write(offset, view)

    def flush(self) -> Awaitable[None] | None:
        return self._flush()

    async def _flush(self) -> None:
        self._alive()
        self.calls.append("flush")
        written = len(self.disk.since)
        if self._burn():
            raise Crash
        await asyncio.sleep(0)
        fails = self.sync_fails_after == 0
        self.sync_fails_after = max(self.sync_fails_after - 1, -1)
        for offset, content in () if fails else self.disk.since[:written]:
            self.disk.durable[offset : offset + len(content)] = content
        del self.disk.since[:written]
        if fails:
            raise VolumeFailed("gone")
