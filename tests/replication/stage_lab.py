"""Stages that note what is called in which order, and fail where they are told to; and arrays that have them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any, ClassVar, cast

from arrayd.link.channel import Call, LinkError
from arrayd.replication.asking import Question, done
from arrayd.replication.bitmap import Bitmap
from arrayd.replication.choosing import Kinds
from arrayd.replication.group_rows import GroupRow, PairRow
from arrayd.replication.in_force import Surroundings
from arrayd.replication.room import Replication
from arrayd.replication.stages import Answer, Doors, Progress, Stage
from arrayd.replication.statuses import Operation, Refusal, State, Status
from arrayd.tables import Work
from arrayd.tables.pairs import put_group
from arrayd.volumes.volume import Volume, VolumeError
from tests.replication.tables import Database, NotSavedError
from tests.scsi.memory_volume import MemoryVolume

KIB = 1024
PLAIN = "plain"
BOOT = b"b" * 16
PAIR_A = PairRow(0, "data", "v0", 0, "2:v0")
PAIR_B = PairRow(1, "log", "v1", 1, "2:v1")
GROUP = GroupRow(b"\x01" * 16, "oradb", 0, "j0", "there", "2", 20, 1, (PAIR_A, PAIR_B))


class FakeStage(Stage):
    """One of the four, in a lab."""

    lab: ClassVar[Lab]
    kind: ClassVar[str]

    async def prepare(self, found: bool = False) -> None:
        await self.lab.called(self, "prepare found" if found else "prepare")

    async def enter(self) -> None:
        await self.lab.called(self, "enter")
        for pair in self.row.pairs:
            await self.doors.show(pair.volume, MemoryVolume(self.kind, KIB))

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        return await self.lab.called(self, f"stop for {summary(row)}")

    def too_late(self) -> Refusal | None:
        return self.lab.too_late

    async def close(self) -> None:
        await self.lab.called(self, "close")

    def changed(self, row: GroupRow) -> None:
        super().changed(row)
        self.lab.calls.append(f"{self.kind} changed to {summary(row)}")

    async def answer(self, question: Question, call: Call) -> None:
        self.lab.calls.append(f"{self.kind} answers {question.asked.name}")
        await self.lab.called(self, "answer")
        call.answer(done())

    def progress(self) -> Progress:
        return self.lab.progress


class FakeStores:
    """Stores in memory."""

    def __init__(self) -> None:
        self.there: dict[str, MemoryVolume] = {}
        self.fails = False

    async def create(self, name: str, size: int) -> Volume:
        if self.fails:
            raise VolumeError("no room for stores")
        self.there[name] = MemoryVolume(name, size)
        return self.there[name]

    async def open(self, name: str) -> Volume | None:
        return self.there.get(name)

    async def close(self, name: str) -> None:
        assert name in self.there, name

    async def remove(self, name: str) -> None:
        self.there.pop(name, None)


class FakeCall:
    """A question from the other array, and its answer once there is one."""

    def __init__(self) -> None:
        self.came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def answered(self) -> bool:
        return self.came.done()

    def answer(self, head: bytes, data: bytes = b"", buffer: object = None, keep: bool = True) -> None:
        self.came.set_result(head + data)


class Lab:
    """One array with pairs. `fails` has what calls of stages raise or refuse, by "KIND CALL", each once; `gates` hold
    them up."""

    def __init__(self, name: str = "here", other: str = "there") -> None:
        self.name, self.other = name, other
        self.database = Database()
        self.calls: list[str] = []
        self.notes: list[str] = []
        self.fails: dict[str, list[Exception | Refusal]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.shown: dict[str, str] = {}
        self.progress = Progress()
        self.too_late: Refusal | None = None
        self.stores = FakeStores()
        self.volumes = {f"v{number}": MemoryVolume(f"1:v{number}", 64 * KIB) for number in range(4)}
        self.commit_fails = self.save_fails = 0
        self.stages: list[FakeStage] = []
        self.skipped = 0.0
        self.peer: Lab | None = None
        self.questions = 0
        kinds = [self._kind(kind) for kind in Kinds._fields]
        self.kinds = Kinds(*kinds)
        self.begin()

    def _kind(self, kind: str) -> type[Stage]:
        lab = self

        def made(stage: FakeStage, *parts: Any) -> None:
            Stage.__init__(stage, *parts)
            lab.stages.append(stage)

        return type(kind, (FakeStage,), {"lab": self, "kind": kind, "__init__": made})

    def begin(self) -> None:
        """The array as it is started on what the tables have; hosts see nothing yet."""
        self.table = self.database.pairs()
        self.shown = {}
        doors = Doors(
            self.name,
            BOOT,
            lambda: 7_000_000_000,
            lambda: asyncio.get_running_loop().time() + self.skipped,
            self.ask,
            lambda name: self.volumes[name],
            self.show,
            self.stores,
        )
        note = lambda severity, text: self.notes.append(f"{severity}: {text}")  # noqa: E731
        self.room = Replication(Surroundings(self.table, doors, self.kinds, self.commit, note))

    async def called(self, stage: FakeStage, call: str) -> Refusal | None:
        what = f"{stage.kind} {call}"
        if call != "answer":
            self.calls.append(what)
        key = f"{stage.kind} {call.partition(' ')[0]}"
        if key in self.gates:
            await self.gates[key].wait()
        failing = self.fails.get(key)
        if failing:
            outcome = failing.pop(0)
            if isinstance(outcome, Refusal):
                return outcome
            raise outcome
        return None

    async def show(self, name: str, volume: Volume | None) -> None:
        self.shown[name] = PLAIN if volume is None else volume.identity
        if volume is None:
            self.calls.append(f"show {name} plain")

    async def commit(self, work: Work) -> None:
        if self.commit_fails:
            self.commit_fails -= 1
            raise NotSavedError
        await self.database.save(work)
        self.calls.append("commit")

    async def save(self, work: Work, _row: GroupRow | None) -> None:
        if self.save_fails:
            self.save_fails -= 1
            raise NotSavedError
        await self.commit(work)

    async def ask(self, array: str, question: bytes, _expects: int) -> Answer:
        self.questions += 1
        if self.peer is None:
            raise LinkError(f"no connection to {array}", maybe_done=False)
        call = FakeCall()
        self.peer.room.service(self.name)(cast(Call, call), memoryview(question))
        return Answer(memoryview(await call.came))

    # -- what is looked at -------------------------------------------------------------------------------------------

    async def holding(self, *states: State, unsynced: Collection[int] = (), **more: Any) -> None:
        """The array with one group, whose pairs show these, started."""
        pairs = tuple(
            replace(pair, state=state, error="why" if state.status is Status.PSUE else "")
            for pair, state in zip((PAIR_A, PAIR_B), states, strict=False)
        )
        row = replace(GROUP, peer=self.other, pairs=pairs, **more).with_unsynced(unsynced, True)
        put_group(row.stored(), row.stored_pairs(row.pairs), (), f"{9:016x}")(self.database.connection)
        self.begin()
        await self.room.start()

    def row(self) -> GroupRow:
        row = self.table.group("oradb")
        assert row is not None
        return row

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return all(group._turns.idle for group in self.room._groups.values())

    @property
    def states(self) -> str:
        return summary(self.table.group("oradb"))

    @property
    def stage(self) -> FakeStage:
        stage = self.room._groups["oradb"].stages.stage
        assert isinstance(stage, FakeStage)
        return stage

    def taken(self) -> list[str]:
        """The calls since the last look."""
        calls, self.calls = self.calls, []
        return calls

    async def happen(self, operation: Operation, **more: Any) -> Any:
        return await self.room.happen("oradb", operation, more.pop("peer", None), self.save, **more)

    def check(self) -> None:
        """What hosts see is what the row says, or less; and the row is what the tables have."""
        assert self.database.pairs().groups() == self.table.groups()
        row = self.table.group("oradb")
        for name in ("v0", "v1"):
            if row is None or name not in {pair.volume for pair in row.pairs}:
                assert self.shown.get(name, PLAIN) == PLAIN
                continue
            kind = cast(Any, self.kinds.of(row)).kind
            trouble = self.room._groups["oradb"].stages.trouble
            assert self.shown[name] == ("standing" if trouble else kind), (self.states, trouble, self.calls)

    async def end(self) -> None:
        await self.room.stop()
        self.database.close()


def summary(row: GroupRow | None) -> str:
    return "nothing" if row is None else ", ".join(str(pair.state) for pair in row.pairs)


def two() -> tuple[Lab, Lab]:
    """Two arrays that are linked."""
    here, there = Lab("here", "there"), Lab("there", "here")
    here.peer, there.peer = there, here
    return here, there


async def marked(lab: Lab) -> dict[str, int]:
    """Bytes that are marked in each bitmap there is."""
    return {name: (await Bitmap.open(store, BOOT)).marked_bytes for name, store in lab.stores.there.items()}


WHOLE = {f"{GROUP.id.hex()}-{number}.bitmap": 64 * 1024 for number in (0, 1)}
"""All of both volumes."""
