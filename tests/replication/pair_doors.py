"""The doors of an array for a stage of P-VOLs, on files of a test, and calls of the other side that keep their answers.

What hosts see follows `show` as it does in an array: what waits in the front that was there goes by the new one.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from arrayd.blockfile import BlockFile, Writeback
from arrayd.buffers import PooledBuffer
from arrayd.link.channel import BYTES_MAX, Call
from arrayd.link.frames import FrameError
from arrayd.replication import asking
from arrayd.replication.asking import Followed, Range
from arrayd.replication.bitmap import Bitmap
from arrayd.replication.group_rows import GroupRow, PairRow, PeerRows
from arrayd.replication.journal import Position, Record
from arrayd.replication.journal.format import chain_start
from arrayd.replication.journal.regions import START
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.journaling import Journaling
from arrayd.replication.stages import Answer, Doors, Told
from arrayd.replication.statuses import Event, State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed
from tests.replication.runs import decode_run

THREADS = ThreadPoolExecutor(4)
PLENTY = 1 << 30
MIB = 1024 * 1024
GROUP = b"a group's number"
BOOT = b"this is the boot"
VOLUMES = 3


class FileStores:
    """Stores on files of a folder. `failing`: what all of it raises."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failing: VolumeError | None = None
        self.used: dict[str, FileVolume] = {}

    async def create(self, name: str, size: int) -> Volume:
        self._check(name)
        path = self.folder / name
        path.unlink(missing_ok=True)
        return await self._open(name, size)

    async def open(self, name: str) -> Volume | None:
        self._check(name)
        path = self.folder / name
        return await self._open(name, path.stat().st_size) if path.exists() else None

    async def _open(self, name: str, size: int) -> Volume:
        file = await BlockFile.open(self.folder / name, size, THREADS, Writeback(PLENTY), _failed)
        self.used[name] = volume = FileVolume(name, file)
        return volume

    async def close(self, name: str) -> None:
        await self.used.pop(name).close()

    async def remove(self, name: str) -> None:
        if self.failing is not None:
            raise self.failing
        if name in self.used:
            await self.close(name)
        (self.folder / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All but those that a journal has all the time: activity logs, and how far it is stored."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix not in (".activity", ".stored"))

    def _check(self, name: str) -> None:
        if self.failing is not None:
            raise self.failing
        assert name not in self.used


def _failed(error: OSError) -> VolumeFailed:
    return VolumeFailed(str(error))


class AskedCall:
    """A call of the other side's: `answered` is its answer, all of it, once there is one."""

    def __init__(self) -> None:
        self.buffer = None
        self.charged = 0
        self.head = b""
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.credit = BYTES_MAX

    def charge(self, count: int) -> None:
        self.charged += count
        if self.charged > self.credit:
            raise FrameError("no credit")

    def answer(
        self, head: bytes, data: memoryview | bytes = b"", buffer: PooledBuffer | None = None, keep: bool = True
    ) -> None:
        assert len(head) <= 4096
        assert len(head) + len(data) <= asking.ANSWER_BYTES_MAX
        assert len(data) <= self.charged, "charged for"
        self.answered.set_result(head + bytes(data))
        if buffer is not None:
            buffer.release()


@dataclass
class Site:
    """What an array has: files and what hosts see. `stage()` makes a stage of it."""

    folder: Path
    sizes: list[int]
    raw: dict[str, FileVolume] = field(default_factory=dict)
    shown: dict[str, Volume] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    time_ns: int = 1_000_000_000
    moment: float = 0.0

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path, journal_bytes: int = MIB, sizes: list[int] | None = None) -> AsyncIterator["Site"]:
        site = cls(folder, sizes or [MIB] * VOLUMES)
        (folder / "stores").mkdir(parents=True, exist_ok=True)
        named = {f"v{number}": size for number, size in enumerate(site.sizes)} | {"j": journal_bytes}
        for name, size in named.items():
            file = await BlockFile.open(folder / name, size, THREADS, Writeback(PLENTY), _failed)
            site.raw[name] = FileVolume(f"1:{name}", file)
        site.stores = FileStores(folder / "stores")
        try:
            yield site
        finally:
            for volume in (*site.raw.values(), *site.stores.used.values()):
                await volume.close()

    def __post_init__(self) -> None:
        self.stores: FileStores

    def row(
        self, state: State = State.P_COPY, generation: int = 1, epoch: int = 1, count: int | None = None
    ) -> GroupRow:
        pairs = tuple(
            PairRow(number, f"p{number}", f"v{number}", number, f"2:v{number}", state)
            for number in range(len(self.sizes) if count is None else count)
        )
        return GroupRow(GROUP, "g", 0, "j", "far", "2", 20, epoch, pairs, generation=generation)

    def doors(self) -> Doors:
        async def ask(_array: str, _question: bytes, _expects: int) -> Answer:
            raise AssertionError("the P-VOLs' side asks nothing")

        async def show(name: str, volume: Volume | None) -> None:
            before, new = self.shown.get(name), volume or self.raw[name]
            self.shown[name] = new
            if isinstance(before, JournaledVolume):
                before.replace(new)

        return Doors(
            "near", BOOT, lambda: self.time_ns, lambda: self.moment, ask, self.raw.__getitem__, show, self.stores
        )

    def told(self) -> Told:
        def event(event: Event, reason: str) -> None:
            self.events.append(event)
            self.reasons.append(reason)

        def seen(_rows: PeerRows) -> None:
            raise AssertionError("nobody was heard of")

        return Told(event, seen)

    async def begun(self, row: GroupRow | None = None, found: bool = False) -> "Primary":
        """The stage, entered."""
        stage = Journaling(row or self.row(), self.doors(), self.told())
        await stage.prepare(found)
        await stage.enter()
        return Primary(stage, self)


class Primary:
    """A stage, and what the other side asks it."""

    def __init__(self, stage: Journaling, site: Site) -> None:
        self.stage = stage
        self.site = site
        self.chains = {START: chain_start(GROUP, stage.row.epoch)}

    @property
    def journal_in(self) -> Position:
        stored = self.stage.progress().stored
        assert stored is not None
        return stored

    async def write(self, number: int, offset: int, data: bytes) -> None:
        """A host's, answered."""
        pending = self.site.shown[f"v{number}"].write(offset, memoryview(data))
        if pending is not None:
            await pending

    def begin(self, question: bytes) -> AskedCall:
        """Asks; the answer comes."""
        call = AskedCall()
        self.asking = asyncio.ensure_future(
            self.stage.answer(asking.decode_question(memoryview(question)), cast(Call, call))
        )
        return call

    async def ask(self, question: bytes) -> memoryview:
        call = self.begin(question)
        await self.asking
        return memoryview(call.answered.result())

    def question(
        self, at: Position, restored: Position = START, wait_ms: int = 0, bytes_max: int = MIB, epoch: int | None = None
    ) -> bytes:
        return asking.follow(GROUP, epoch or self.stage.row.epoch, at, restored, bytes_max, wait_ms)

    def run_of(self, answer: memoryview, at: Position) -> tuple[Followed, list[Record], Position]:
        """What an answer to FOLLOW tells, proven by its chain."""
        told, run = asking.decode_followed(answer)
        records, chain = decode_run(run, at, self.stage.row.epoch, self.chains[at])
        end = records[-1].entry.end if records else at
        self.chains[end] = chain
        return told, records, end

    async def follow(
        self, at: Position, restored: Position = START, wait_ms: int = 0, bytes_max: int = MIB
    ) -> tuple[Followed, list[Record], Position]:
        return self.run_of(await self.ask(self.question(at, restored, wait_ms, bytes_max)), at)

    async def follow_all(self, at: Position = START) -> tuple[list[Record], Position]:
        """To the end of what is stored."""
        all_records: list[Record] = []
        while True:
            told, records, at = await self.follow(at)
            all_records += records
            if at == told.stored:
                return all_records, at

    async def copy(self, number: int, ranges: list[Range]) -> tuple[Position, list[asking.CopyPiece]]:
        answer = await self.ask(asking.copy(GROUP, self.stage.row.generation, number, ranges))
        return asking.decode_copied(answer)

    async def marked(self, number: int) -> list[tuple[int, int]]:
        """What the bitmap of a pair has, as the next stage finds it."""
        stores, name = self.site.stores, self.stage.bitmap_name(number)
        volume = await stores.open(name)
        assert volume is not None
        bitmap = await Bitmap.open(volume, BOOT)
        found = list(bitmap.ranges())
        await bitmap.close()
        await stores.close(name)
        return found

    async def leave(self) -> None:
        """As an array that stops."""
        await self.stage.stop(self.stage.row)
        await self.stage.close()
