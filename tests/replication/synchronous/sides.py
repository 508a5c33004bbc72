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
        volumes = {f"v{number}": FileVolume(f"v{number}", cast(Any, file)) for number, file in self.files.items()}
        volumes["journal"] = FileVolume("journal", cast(Any, self.journal))

        async def show(name: str, volume: Volume | None) -> None:
            new = volume or volumes[name]
            before = self.shown.get(name)
            self.shown[name] = new
            if before is not None:
                before.replace(new)

        self.lives += 1
        life = self.lives
        return Doors(
            self.name, bytes([self.boot]) * 16, lambda: life, lambda: asyncio.get_running_loop().time(),
            self.sides.ask_from(self), volumes.__getitem__, show, self.stores,
        )  # fmt: skip

    def told(self) -> Told:
        """Events go to `events`."""

        def seen(_rows: PeerRows) -> None:
            raise AssertionError("nobody has met")

        return Told(lambda event, reason: self.events.append((event, reason)), seen)

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
                await asyncio.Future()
            told = asking.decode_question(memoryview(bytes(question)))
            self.asked.append(told.asked)
            call = AskedCall()
            stage, there = other.stage, other.machine
            if stage is None or there.dead:
                raise LinkError("nobody is there", maybe_done=True)
            answering = asyncio.ensure_future(stage.answer(told, cast(Call, call)))
            await asyncio.wait((answering,))
            if isinstance(answering.exception(), Crash) or other.stage is not stage:
                raise LinkError("it has died", maybe_done=True)
            answering.result()
            answer = call.answered.result()
            assert len(answer) <= expects
            await self._travel()
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


async def until_in_time(holds: Callable[[], bool], seconds: float = 5) -> None:
    """Until it holds, soon."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def suspended(row: GroupRow, state: State) -> GroupRow:
    """The row in another state."""
    return replace(row, pairs=tuple(replace(pair, state=state) for pair in row.pairs))


__all__ = ["GROUP", "NUMBERS", "REGION", "Array", "Outcome", "Side", "Sides", "suspended", "until_in_time"]
