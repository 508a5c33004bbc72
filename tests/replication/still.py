"""Volumes and stores in memory, and the doors of an array to them, for tests of stages that copy nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

from arrayd.replication.bitmap import Bitmap, Geometry
from arrayd.replication.group_rows import GroupRow, PairRow
from arrayd.replication.marked import MarkedVolume
from arrayd.replication.stages import Answer, Doors, Told
from arrayd.replication.statuses import State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import Volume, VolumeFailed
from tests.replication.modelled import Machine, ModelFile

MIB = 1024 * 1024
SIZE = 2 * MIB
"""Of a volume of the array."""
BLOCK = 15 * MIB + 768 * 1024
"""Of a volume, what shares one sync of a bitmap."""
GROUP = bytes(range(16))
ONE, TWO = b"1" * 16, b"2" * 16
"""Boots of the machine."""
NAMES = ("data", "log")


def volume_of(file: ModelFile, **settings: Any) -> FileVolume:
    return FileVolume("1:v", cast(Any, file), **settings)


class MarkedParts:
    """A volume and its bitmap, each on a disk of one machine, and the volume that marks."""

    def __init__(self, seed: int = 1, refusals: float = 0.0, size: int = BLOCK + MIB, **settings: Any) -> None:
        self.machine = Machine(seed)
        self.file = ModelFile(self.machine, size, refusals)
        self.bits = ModelFile(self.machine, Geometry(size).bytes_needed, refusals)
        self.raw = volume_of(self.file, **settings)
        self.failed = 0

    async def make(self) -> None:
        self.bitmap = await Bitmap.create(volume_of(self.bits), self.file.size, GROUP, ONE)
        self.volume = MarkedVolume(self.raw, self.bitmap, self._tell)
        self.file.calls.clear()
        self.bits.calls.clear()

    def _tell(self) -> None:
        self.failed += 1


def block(byte: int, length: int = 4096) -> memoryview:
    return memoryview(bytes([byte]) * length)


def pending(answer: Awaitable[None] | None) -> asyncio.Future[None]:
    """What must wait, begun: who awaits it or not."""
    assert answer is not None
    return asyncio.ensure_future(answer)


def content(volume: Volume, offset: int, length: int = 4096) -> bytes:
    view = bytearray(length)
    assert volume.read_now(offset, memoryview(view))
    return bytes(view)


def row_of(state: State, **changes: Any) -> GroupRow:
    """The group, with a pair of each of NAMES."""
    pairs = tuple(PairRow(number, name, name, number, f"2:{name}", state) for number, name in enumerate(NAMES))
    return GroupRow(GROUP, "g", 0, "j", "b", "2", 20, 1, changes.pop("pairs", pairs), **changes)


class MemoryStores:
    """See `Stores`. `fails`: what calls raise that make or open one, or only the one of the name `failing`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.files: dict[str, ModelFile] = {}
        self.opened: set[str] = set()
        self.fails: VolumeFailed | None = None
        self.failing: str | None = None

    def _check(self, name: str) -> None:
        if self.fails is not None and self.failing in (None, name):
            raise self.fails

    async def create(self, name: str, size: int) -> Volume:
        await self.remove(name)
        self._check(name)
        self.files[name] = ModelFile(self.machine, size, 0)
        return await self._open(name)

    async def open(self, name: str) -> Volume | None:
        assert name not in self.opened, "it is open already"
        return await self._open(name) if name in self.files else None

    async def _open(self, name: str) -> Volume:
        self._check(name)
        self.opened.add(name)
        return volume_of(self.files[name])

    async def close(self, name: str) -> None:
        self.opened.discard(name)

    async def remove(self, name: str) -> None:
        self.opened.discard(name)
        self.files.pop(name, None)


class Still:
    """The array: volumes by name, stores, and what hosts see."""

    def __init__(self) -> None:
        self.machine = Machine(1)
        self.files = {name: ModelFile(self.machine, SIZE, 0) for name in NAMES}
        self.raw = {name: volume_of(file) for name, file in self.files.items()}
        self.seen: dict[str, Volume] = dict(self.raw)
        self.stores = MemoryStores(self.machine)
        self.doors = Doors(
            "a", ONE, lambda: 0, lambda: 0.0, self._ask, self.raw.__getitem__, self._show, cast(Any, self.stores)
        )
        self.told = Told(lambda event, reason: None, lambda rows: None)

    async def _ask(self, _array: str, _question: bytes, _expects: int) -> Answer:
        raise AssertionError("it asks nothing")

    async def _show(self, name: str, volume: Volume | None) -> None:
        """As `estate.fronts` does it."""
        old, new = self.seen[name], volume or self.raw[name]
        self.seen[name] = new
        if new is not old:
            old.replace(new)
        async with self.raw[name].lock(0, SIZE):
            return

    async def make_bitmaps(self, *marked: int) -> None:
        """Those of the group, with the regions of these offsets marked in each, and closed."""
        for number in range(len(NAMES)):
            name = f"{GROUP.hex()}-{number}.bitmap"
            bitmap = await Bitmap.create(await self.stores.create(name, Geometry(SIZE).bytes_needed), SIZE, GROUP, ONE)
            for offset in marked:
                await bitmap.mark(offset, 512)
            await self.stores.close(name)

    async def ranges(self, number: int, boot: bytes = ONE) -> list[tuple[int, int]]:
        """What a bitmap that is closed has."""
        name = f"{GROUP.hex()}-{number}.bitmap"
        store = await self.stores.open(name)
        assert store is not None
        bitmap = await Bitmap.open(store, boot)
        await self.stores.close(name)
        return list(bitmap.ranges())
