"""Two sides of a group, a synchronous one unless told otherwise, on disks in memory, each with its stage, which ask one
another without a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from arrayd.link.channel import Call, LinkError
from arrayd.replication import asking
from arrayd.replication.asking import Outcome
from arrayd.replication.choosing import KINDS
from arrayd.replication.group_rows import Fence, GroupRow, Mode, PairRow, PeerRows
from arrayd.replication.pair_stores import make_bitmaps
from arrayd.replication.stages import Answer, Doors, Stage, Told
from arrayd.replication.statuses import Event, Side, State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import Volume
from tests.replication.following_doors import MemoryStores
from tests.replication.modelled import Crash, Machine, ModelFile
from tests.replication.pair_doors import AskedCall

GROUP = b"a mirrored group"
REGION = 4096
JOURNAL_BYTES = 4 * 1024 * 1024
NUMBERS = (0, 3)
COUNTERPARTS = {State.P_COPY: State.S_COPY, State.P_PAIR: State.S_PAIR}


class LifeFile:
    """A disk as one life of a process has it: once that is dead nothing that it seems to do has an effect, though
    another one lives on the same disk."""

    def __init__(self, file: ModelFile, machine: Machine) -> None:
        self._file = file
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write_now(self, offset: int, view: memoryview) -> bool:
        if self._machine.dead:
            raise Crash
        return self._file.write_now(offset, view)

    def write(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        return self._later(lambda: self._file.write(offset, view))

    def punch(self, offset: int, length: int) -> asyncio.Future[None]:
        return self._later(lambda: self._file.punch(offset, length))

    zero = punch

    def sync(self) -> asyncio.Future[None]:
        return self._later(self._file.sync)

    def _later(self, call: Callable[[], asyncio.Future[None]]) -> asyncio.Future[None]:
        if self._machine.dead:
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(Crash())
            return failed
        return call()


class LifeStores:
    """The stores, likewise."""

    def __init__(self, stores: MemoryStores, machine: Machine) -> None:
        self._stores = stores
        self._machine = machine

    async def create(self, name: str, size: int) -> Volume:
        self._check()
        return self._of(await self._stores.create(name, size))

    async def open(self, name: str) -> Volume | None:
        self._check()
        assert name not in self._stores.open_names, f"{name} is open"
        found = await self._stores.open(name)
        return None if found is None else self._of(found)

    def _of(self, volume: Volume) -> Volume:
        assert isinstance(volume, FileVolume)
        return FileVolume(volume.identity, cast(Any, LifeFile(cast(Any, volume.file), self._machine)))

    async def close(self, name: str) -> None:
        if not self._machine.dead:
            await self._stores.close(name)

    async def remove(self, name: str) -> None:
        self._check()
        await self._stores.remove(name)

    def _check(self) -> None:
        if self._machine.dead:
            raise Crash


class Array:
    """One of the two: what outlives its process, and the stage it has."""

    def __init__(self, name: str, peer: str, size: int, seed: int, refusals: float = 0.0) -> None:
        self.name = name
        self.peer = peer
        self.machine = Machine(seed)
        self.files = {number: ModelFile(self.machine, size, refusals) for number in NUMBERS}
        self.journal = ModelFile(self.machine, JOURNAL_BYTES, refusals)
        self.stores = MemoryStores(self.machine, refusals)
        self.events: list[tuple[Event, str]] = []
        self.shown: dict[str, Volume] = {}
        self.boot = 1
        self.stage: Stage | None = None
        self.row: GroupRow
        self.sides: Sides
        self.lives = 0

    def doors(self) -> Doors:
        """Of one life of the process."""
        machine = self.machine
        volumes = {
            f"v{number}": FileVolume(f"v{number}", cast(Any, LifeFile(file, machine)))
            for number, file in self.files.items()
        }
        volumes["journal"] = FileVolume("journal", cast(Any, LifeFile(self.journal, machine)))

        async def show(name: str, volume: Volume | None) -> None:
            if machine.dead:
                return
            new = volume or volumes[name]
            before = self.shown.get(name)
            self.shown[name] = new
            if before is not None:
                before.replace(new)

        self.lives += 1
        life = self.lives
        return Doors(
            self.name, bytes([self.boot]) * 16, lambda: life, lambda: asyncio.get_running_loop().time(),
            self.sides.ask_from(self), volumes.__getitem__, show, LifeStores(self.stores, machine),
        )  # fmt: skip

    def told(self) -> Told:
        """Events go to `events`."""

        def seen(_rows: PeerRows) -> None:
            raise AssertionError("nobody has met")

        machine = self.machine
        return Told(lambda event, reason: None if machine.dead else self.events.append((event, reason)), seen)

    async def begin(self, row: GroupRow, found: bool = False) -> Stage:
        """The stage of this row, entered, in the place of the one there is."""
        old, self.row = self.stage, row
        if old is not None:
            refusal = await old.stop(row)
            assert refusal is None, refusal
        self.stage = stage = KINDS.of(row)(row, self.doors(), self.told())
        await stage.prepare(found)
        await stage.enter()
        if old is not None:
            await old.close()
        return stage

    def kill(self) -> None:
        """The process is no more; what it seems to do has no effect."""
        self.machine.dead = True
        self.stage = None

    def revive(self, power: bool = False) -> None:
        """Another process may begin on the same disks."""
        old = self.machine
        self.machine = Machine(0)
        self.machine.chance = old.chance
        self.stores.machine = self.machine
        for file in (*self.files.values(), self.journal, *self.stores.files.values()):
            file.machine = self.machine
            if power:
                file.lose_power(512)
        self.boot += power
        self.shown.clear()
        self.stores.open_names.clear()

    async def marked(self, number: int) -> list[tuple[int, int]]:
        """What the bitmap of a pair has."""
        found = await self.stage.differences(number, 0, 100) if self.stage is not None else None
        assert found is not None
        return found.ranges

    async def ask(self, question: bytes) -> memoryview:
        """What its stage answers."""
        call = AskedCall()
        assert self.stage is not None
        await self.stage.answer(asking.decode_question(memoryview(question)), cast(Call, call))
        return memoryview(call.answered.result())

    def hold(self, number: int) -> asyncio.Event:
        """All writes to a volume wait from now on, until it is set."""
        file, go = self.files[number], asyncio.Event()
        original = file.write

        def write(offset: int, view: memoryview) -> asyncio.Future[None]:
            async def later() -> None:
                await go.wait()
                await original(offset, view)

            return asyncio.ensure_future(later())

        file.refusals, file.write = 1.0, write  # type: ignore[method-assign]
        return go

    def contents(self) -> dict[int, bytes]:
        return {number: bytes(file.content) for number, file in self.files.items()}


class Sides:
    """`near` has the P-VOLs at first."""

    def __init__(
        self, size: int, fence: Fence = Fence.NEVER, seed: int = 1, refusals: float = 0.0, mode: Mode = Mode.SYNC
    ) -> None:
        self.mode = mode
        self.near = Array("near", "far", size, seed, refusals)
        self.far = Array("far", "near", size, seed + 1, refusals)
        self.near.sides = self.far.sides = self
        self.fence = fence
        self.cut = False
        self.turns = 0
        """Of the loop, that a question and an answer each take."""
        self.asked: list[asking.Asked] = []
        self.copied: list[tuple[int, int, int]] = []
        """What was asked for by COPY: number, offset, length."""
        self.never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """What a dead process waits for. It keeps whoever does so."""

    def row(self, array: Array, state: State, generation: int = 1, *, consistent: bool = False) -> GroupRow:
        pairs = tuple(PairRow(number, f"p{number}", f"v{number}", number, f"2:v{number}", state) for number in NUMBERS)
        journal, lun = ("journal", 20) if self.mode is Mode.ASYNC else (None, None)
        return GroupRow(
            GROUP, "g", 0, journal, array.peer, "2", lun, 1, pairs, mode=self.mode, pace=15, fence=self.fence,
            generation=generation, consistent=consistent,
        )  # fmt: skip

    async def pair(self, state: State = State.P_COPY, *, marked: bool = True) -> None:
        """Both sides begin."""
        far = self.row(self.far, COUNTERPARTS[state], consistent=state is State.P_PAIR)
        await make_bitmaps(KINDS.of(far)(far, self.far.doors(), self.far.told()), NUMBERS, marked=marked)
        await self.far.begin(far)
        await self.near.begin(self.row(self.near, state, consistent=state is State.P_PAIR))

    def ask_from(self, asker: Array) -> Any:
        machine = asker.machine

        async def ask(array: str, question: bytes, expects: int) -> Answer:
            assert array == asker.peer
            other = self.far if asker is self.near else self.near
            await self._travel()
            if machine.dead:
                await asyncio.shield(self.never)
            told = asking.decode_question(memoryview(bytes(question)))
            self.asked.append(told.asked)
            if told.asked is asking.Asked.COPY:
                self.copied += [(told.fields.number, *each) for each in told.fields.ranges]
            call = AskedCall()
            stage, there = other.stage, other.machine
            if stage is None or there.dead:
                raise LinkError("nobody is there", maybe_done=True)
            answering = asyncio.ensure_future(stage.answer(told, cast(Call, call)))
            while not answering.done():
                await asyncio.wait((answering,), timeout=0.001)
                if there.dead:
                    raise LinkError("it has died", maybe_done=True)
            if isinstance(answering.exception(), Crash) or other.stage is not stage:
                raise LinkError("it has died", maybe_done=True)
            answering.result()
            answer = call.answered.result()
            assert len(answer) <= expects
            await self._travel()
            if machine.dead:
                await asyncio.shield(self.never)
            return Answer(memoryview(answer))

        return ask

    async def _travel(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.cut:
            raise LinkError("cut", maybe_done=True)

    def host(self, number: int) -> Volume:
        """What a host sees of a P-VOL."""
        return self.near.shown[f"v{number}"]

    async def write(self, number: int, offset: int, data: bytes) -> None:
        """A host's, answered."""
        pending = self.host(number).write(offset, memoryview(data))
        if pending is not None:
            await pending

    def alike(self) -> bool:
        return self.near.contents() == self.far.contents()

    async def close(self) -> None:
        for array in (self.near, self.far):
            if array.stage is not None:
                await array.stage.stop(array.row)
                await array.stage.close()


async def turns(count: int = 50) -> None:
    """Of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until_in_time(holds: Callable[[], bool], seconds: float = 5) -> None:
    """Until it holds, soon."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def suspended(row: GroupRow, state: State, **changes: Any) -> GroupRow:
    """The row in another state."""
    return replace(row, pairs=tuple(replace(pair, state=state) for pair in row.pairs), **changes)


__all__ = ["GROUP", "NUMBERS", "REGION", "Array", "Outcome", "Side", "Sides", "suspended", "turns", "until_in_time"]
