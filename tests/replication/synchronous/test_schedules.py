"""Random schedules of overlapping writes, deaths, cuts, suspensions and resyncs: what hosts were answered stays, and
both sides are alike in the end.

The rows are changed here as `changes.py` and the rules of meetings do it, with what a commit may do: go well or not.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.replication import pulling
from arrayd.replication.choosing import KINDS
from arrayd.replication.group_rows import Fence, GroupRow
from arrayd.replication.pair_stores import make_bitmaps
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import P_RUNNING, S_RUNNING, Event, Side, State
from arrayd.replication.synchronous import mirror, mirroring, receiving
from arrayd.volumes.volume import VolumeError, VolumeFailed, finished
from tests.replication.modelled import Crash
from tests.replication.synchronous.hosts import BLOCK, BLOCKS, SIZE, Hosts
from tests.replication.synchronous.sides import NUMBERS, Array, Sides, suspended, turns
from tests.simulation.loop import SimLoop

RUNNING = frozenset((*P_RUNNING, *S_RUNNING))
LIMIT_SECONDS = 600.0
"""Of virtual time: whoever still waits then waits for ever."""


class Pairing:
    """The two sides, their rows, and hosts."""

    def __init__(self, seed: int, fence: Fence, refusals: float) -> None:
        self.sides = Sides(SIZE, fence, seed=seed, refusals=refusals)
        self.near, self.far = self.sides.near, self.sides.far
        self.hosts = Hosts(self.sides)
        self.chance = random.Random(seed)
        self.commits = True
        """Whether the next commit goes well."""

    async def begin(self) -> None:
        far = self.sides.row(self.far, State.S_COPY)
        await make_bitmaps(KINDS.of(far)(far, self.far.doors(), self.far.told()), NUMBERS, marked=True)
        self.far.row, self.near.row = far, self.sides.row(self.near, State.P_COPY)
        await self._change(self.far, far)
        await self._change(self.near, self.near.row)

    # -- changes of rows ---------------------------------------------------------------------------------------------

    async def _change(self, array: Array, row: GroupRow) -> None:
        """As `changes.py` does it; the process may die in it."""
        machine, old = array.machine, array.stage
        try:
            await self._steps(array, row)
        except (VolumeError, Crash):
            if not machine.dead:
                assert old is not None
                assert old is array.stage
                with suppress(Crash):
                    await self._undo(array, old)
        if machine.dead and array.machine is machine:
            await self.kill(array)

    async def _steps(self, array: Array, row: GroupRow) -> None:
        old = array.stage
        if old is not None:
            refusal = await old.stop(row)
            assert refusal is None, refusal
        new = KINDS.of(row)(row, array.doors(), array.told())
        await new.prepare()
        if not self.commits and old is not None:
            self.commits = True
            await new.close()
            await self._undo(array, old)
            return
        array.stage, array.row = new, row
        array.events.clear()
        await new.enter()
        if old is not None:
            await old.close()

    async def _undo(self, array: Array, old: Stage) -> None:
        """The disks are in order by then."""
        self.heal()
        old.after = old.row
        await old.close()
        array.events.clear()
        await self._take_up(array)

    def heal(self) -> None:
        for file in (*self.near.files.values(), *self.far.files.values()):
            file.fails = None

    async def _take_up(self, array: Array) -> None:
        array.stage = stage = KINDS.of(array.row)(array.row, array.doors(), array.told())
        await stage.prepare(found=True)
        await stage.enter()

    async def kill(self, array: Array, power: bool = False) -> None:
        """It dies, and goes on at once by its row."""
        safe = self._is_safe()
        self.heal()
        array.kill()
        if array is self.near:
            self.hosts.die()
        await turns(2)
        array.revive(power)
        array.events.clear()
        await self._take_up(array)
        if array is not self.near:
            return
        await self.seen()
        if power and not (safe and self._state(self.near) is State.P_PAIR):
            self.hosts.take_as_it_is()  # or the S-VOLs could not be asked
        self.hosts.check(f"after a death, power {power}")

    def _is_safe(self) -> bool:
        """Whether a power loss of the P-VOLs' side takes nothing that was answered."""
        far = self.far.stage
        both = self.near.row.states[NUMBERS[0]] is State.P_PAIR and self.far.row.states[NUMBERS[0]] is State.S_PAIR
        return both and far is not None and not getattr(far, "_has_failed", True) and not self.near.events

    async def seen(self) -> None:
        """Until hosts can read the P-VOLs."""
        reading = [asyncio.ensure_future(self._read(number)) for number in NUMBERS]
        async with asyncio.timeout(5):
            while not all(each.done() for each in reading):
                await self.manage()
                await asyncio.sleep(0.0005)
        for each in reading:
            each.result()

    async def _read(self, number: int) -> None:
        """A change that comes to nothing ends what waits with an error: then again."""
        while True:
            try:
                await finished(self.sides.host(number).read(0, memoryview(bytearray(BLOCK))))
                return
            except VolumeFailed:
                await asyncio.sleep(0)

    # -- what happens by itself --------------------------------------------------------------------------------------

    def _state(self, array: Array) -> State:
        return array.row.states[NUMBERS[0]]

    async def manage(self) -> None:
        """Carries out events, and has the sides meet."""
        for array in (self.near, self.far):
            if array.machine.dead:
                await self.kill(array)
            await self._after_events(array)
        if self.sides.cut:
            return
        near, far = self._state(self.near), self._state(self.far)
        if near is State.P_PAIR and not self.hosts.tasks and not getattr(self.near.stage, "_unsure", ()):
            self.hosts.are_the_same()
        if far is State.S_PSUE and near in RUNNING:
            await self._suspend(self.near, State.P_PSUE)
        elif near not in RUNNING and far in RUNNING:
            await self._suspend(self.far, State.S_PSUE)
        elif near is State.P_COPY and far is State.S_PAIR and self.near.row.generation == self.far.row.generation:
            self._move(self.near, State.P_PAIR)

    async def _after_events(self, array: Array) -> None:
        events, array.events[:] = [event for event, _ in array.events], []
        if self._state(array) not in RUNNING:
            return
        if Event.ERROR in events or Event.ERROR_FENCED in events:
            side_fails = State.P_PSUE if array is self.near else State.S_PSUE
            fenced = array is self.near and (Event.ERROR_FENCED in events or self.sides.fence is Fence.DATA)
            await self._suspend(array, State.P_PSUE_FENCED if fenced else side_fails)
        elif Event.COPY_END in events and self._state(array) is State.S_COPY:
            self._move(array, State.S_PAIR)

    def _move(self, array: Array, state: State) -> None:
        row = replace(suspended(array.row, state), consistent=True)
        array.row = row
        assert array.stage is not None
        array.stage.changed(row)

    async def _suspend(self, array: Array, state: State) -> None:
        await self._change(array, suspended(array.row, state))

    async def resync(self) -> None:
        """As a host does it, when both are suspended."""
        await self.manage()
        if self.sides.cut or self._state(self.near) in RUNNING or self._state(self.far) in RUNNING:
            return
        generation = max(self.near.row.generation, self.far.row.generation) + 1
        for array, state in ((self.far, State.S_COPY), (self.near, State.P_COPY)):
            if self._state(array).side is array.row.side and self._state(array) not in RUNNING:
                await self._change(array, replace(suspended(array.row, state), generation=generation))
        both = self._state(self.near) in RUNNING and self._state(self.far) in RUNNING
        if not both or self.near.row.generation != self.far.row.generation:
            for array in (self.near, self.far):
                if self._state(array) in RUNNING:
                    await self._suspend(array, State.P_PSUE if array is self.near else State.S_PSUE)

    # -- one step, and the end ---------------------------------------------------------------------------------------

    async def step(self, kind: str, a: int, b: int, c: int) -> None:
        if kind == "write":
            self.hosts.write(NUMBERS[a % 2], b % BLOCKS, 1 + c % 6)
        elif kind == "turns":
            await turns(a % 30)
        elif kind == "wait":
            await asyncio.sleep(0.001)
        elif kind == "kill":
            await self.kill(self.near if a % 2 else self.far, power=bool(b % 2))
        elif kind == "fuse":
            (self.near if a % 2 else self.far).machine.fuse = b % 20
        elif kind == "cut":
            self.sides.cut = bool(a % 2)
        elif kind == "split":
            if self._state(self.near) in RUNNING:
                await self._suspend(self.near, State.P_PSUS)
        elif kind == "no commit":
            self.commits = False
        elif kind == "resync":
            await self.resync()
        elif kind == "full":
            (self.near if a % 2 else self.far).files[NUMBERS[b % 2]].fails = VolumeFailed("full")
        elif kind == "heal":
            self.heal()
        elif kind == "slow":
            self.sides.turns = a % 4
        await self.manage()

    async def end(self) -> None:
        """All is healed, and both sides are alike once they are PAIR."""
        self.sides.cut, self.commits = False, True
        self.heal()
        for array in (self.near, self.far):
            array.machine.fuse = None
        async with asyncio.timeout(20):
            while not (
                self._state(self.near) is State.P_PAIR
                and self._state(self.far) is State.S_PAIR
                and not self.hosts.tasks
                and not getattr(self.near.stage, "_unsure", ())
            ):
                await self.manage()
                await self.resync()
                await asyncio.sleep(0.0005)
        assert self.near.row.side is Side.P_VOL
        assert self.sides.alike()
        self.hosts.check("in the end")
        for array in (self.near, self.far):
            assert array.stage is not None
            assert await array.stage.stop(array.row) is None
            await array.stage.close()
            assert not array.stores.open_names


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAUSE_SECONDS", 0.0005)
    monkeypatch.setattr(pulling, "PAUSE_SECONDS_MAX", 0.0005)
    monkeypatch.setattr(mirror, "AGAIN_SECONDS", 0.002)
    monkeypatch.setattr(mirroring, "COOL_SECONDS", 0.0007)
    monkeypatch.setattr(receiving, "COOL_SECONDS", 0.0009)


Steps = list[tuple[str, int, int, int]]


async def through(seed: int, fence: Fence, steps: Steps) -> None:
    pairing = Pairing(seed, fence, refusals=0.3)
    try:
        await pairing.begin()
        for step in steps:
            await pairing.step(*step)
        await pairing.end()
    finally:
        await bury(pairing)


async def bury(pairing: Pairing) -> None:
    """What dead processes have left ends, while there is somebody who knows of it."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    pairing.sides.never.cancel()


KIND_WEIGHTS = {
    "write": 40, "turns": 12, "wait": 8, "kill": 6, "fuse": 3, "cut": 4, "split": 3, "no commit": 2, "resync": 8,
    "slow": 2, "full": 2, "heal": 4,
}  # fmt: skip


def random_steps(chance: random.Random) -> Steps:
    kinds = chance.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()), k=chance.randrange(10, 120))
    return [(kind, chance.randrange(100), chance.randrange(100), chance.randrange(100)) for kind in kinds]


def in_virtual_time(seed: int, fence: Fence, steps: Steps) -> None:
    with asyncio.Runner(loop_factory=lambda: SimLoop(LIMIT_SECONDS)) as runner:
        runner.run(through(seed, fence, steps))


SEEDS = int(os.environ.get("ARRAYD_SCHEDULES", "25"))
"""As many of each fence level."""


@pytest.mark.parametrize("fence", Fence)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_schedules(seed: int, fence: Fence) -> None:
    chance = random.Random(seed * 3 + list(Fence).index(fence))
    in_virtual_time(seed, fence, random_steps(chance))


some = st.integers(0, 99)
a_step = st.tuples(
    st.sampled_from([kind for kind, weight in KIND_WEIGHTS.items() for _ in range(weight)]), some, some, some
)


@settings(max_examples=4 * SEEDS, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), fence=st.sampled_from(list(Fence)), steps=st.lists(a_step, max_size=60))
def test_any_schedule(seed: int, fence: Fence, steps: Steps) -> None:
    in_virtual_time(seed, fence, steps)
