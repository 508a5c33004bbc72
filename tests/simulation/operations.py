"""What the operator of a run of pairs does: anything, at any moment; and how he brings everything back to PAIR."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from arrayd.host.failure import CommandFailed
from arrayd.host.pair_status import PairStatus
from arrayd.host.pair_wait import Sides
from arrayd.replication.group_rows import PACE_MAX, Driver
from arrayd.replication.meetings import RUNNING_STATES
from arrayd.replication.statuses import Operation, Side, State, Status
from tests.simulation.coverage import MIRRORED, cell
from tests.simulation.faults import UNEVEN
from tests.simulation.linked import together
from tests.simulation.operating import Operator
from tests.simulation.watching import Watch
from tests.simulation.world import Violated

BETWEEN_SECONDS = 1.0
"""Between two verbs, on the average."""
SETTLED_SECONDS = 150
"""Within this all is PAIR again, once nothing fails any more."""
DISTURBED_SHARE, TAKEOVER_DISTURBED_SHARE = 0.2, 0.5
"""So often something fails meanwhile: see `Faults.disturb`."""
HASTY_SHARE, HASTY_SECONDS = 0.3, 0.15
"""So often the next verb comes after HASTY_SECONDS already, on the average, whatever the one before has begun."""
THERE_SHARE = 0.7
"""So often a takeover is asked for where the S-VOLs are, and not just anywhere."""
PATIENT_SHARE, PATIENCE_SECONDS = 0.6, 5.0
"""So often he waits for the end of a copy, and how long."""
PACES = (1, 2, 5, PACE_MAX)
VERBS = {
    "pairsplit": 3,
    "pairsplit -rw": 3,
    "pairresync": 8,
    "pairresync -swaps": 4,
    "pairresync -swapp": 3,
    "horctakeover": 6,
    "horctakeover -S": 2,
    "horctakeover --plan": 1,
    "pairsplit -S": 2,
    "paircreate": 4,
    "pairresync -c": 2,
    "replicate": 3,
    "pair-set driver": 1,
}
"""All verbs, and how often each comes."""
FITTING_SHARE = 0.6
"""So often a verb is one that does something with what the group shows."""
FITTING = {
    "SMPL": ("paircreate",),
    "COPY": ("pairsplit", "pairsplit -rw", "horctakeover", "horctakeover -S", "pairresync -c", "replicate"),
    "PAIR": (
        *("pairsplit", "pairsplit -rw", "horctakeover", "horctakeover", "horctakeover -S", "pairsplit -S"),
        "replicate",
    ),
    "PFUL": (
        *("pairsplit", "pairsplit -rw", "horctakeover", "horctakeover -S", "horctakeover --plan", "pairsplit -S"),
        "replicate",
    ),
    "PSUS": ("pairresync", "pairsplit -rw", "horctakeover", "horctakeover -S", "pairresync -swaps"),
    "SSUS -rw": ("pairresync", "pairresync -swaps", "pairresync -swapp", "horctakeover", "horctakeover -S"),
    "PSUE": ("pairresync", "pairresync -swaps", "pairresync -swapp", "horctakeover -S"),
    "PFUS": ("pairresync", "pairresync -swaps", "pairresync -swapp", "horctakeover -S", "pairsplit -rw"),
    "SSWS": ("pairresync -swaps", "pairresync -swapp", "pairsplit -S"),
}
NOT_MIRRORED = frozenset({"replicate", "pair-set driver"})
"""Verbs that there are not for a synchronous group."""
FITTING_MIRRORED = {
    **{status: tuple(name for name in names if name not in NOT_MIRRORED) for status, names in FITTING.items()},
    "PSUE": (*FITTING["PSUE"], "horctakeover"),
}
"""The P-VOLs' side takes writes again by a takeover there, where it was fenced."""
TURNS_MAX = 4
"""Turns of figure 16 that he goes through at once, at the most."""
DRIVING_SHARE = 0.5
"""So often he goes on driving it afterwards: the arrays do nothing by themselves then."""
SMPL_SHARE = 0.3
"""So often pairs that were ended are made again by the same hand, at once."""
SUSPENDED = frozenset({State.P_PSUS, State.P_PSUE, State.P_PSUE_FENCED, State.P_PFUS})


class Operations:
    """Those of one run."""

    def __init__(
        self, operator: Operator, watch: Watch, arrays: list[str], random: Random, mirrored: bool = False
    ) -> None:
        self.operator = operator
        self.made: Counter[str] = Counter()
        """Verbs and faults, each by what the group showed: see `coverage.py`."""
        self.refused: Counter[str] = Counter()
        self._watch = watch
        self._arrays = arrays
        self._random = random
        self._verbs: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "pairsplit": lambda: self._change(Operation.PAIRSPLIT),
            "pairsplit -rw": lambda: self._change(Operation.PAIRSPLIT_RW),
            "pairresync": lambda: self._change(Operation.PAIRRESYNC),
            "pairresync -swaps": lambda: self._change(Operation.PAIRRESYNC_SWAPS),
            "pairresync -swapp": lambda: self._change(Operation.PAIRRESYNC_SWAPP),
            "horctakeover": self._take_over,
            "horctakeover -S": self._take_over_forced,
            "horctakeover --plan": self._plan,
            "pairsplit -S": self._end_pairs,
            "paircreate": self._create,
            "pairresync -c": self._set_pace,
            "replicate": self._replicate,
            "pair-set driver": self._set_driver,
        }
        self.disturbing: Callable[[str | None], Coroutine[Any, Any, None]] | None = None
        """`disturbing(array)` is what may go wrong while a verb is carried out, at that array or at any."""
        verbs = VERBS if not mirrored else {name: n for name, n in VERBS.items() if name not in NOT_MIRRORED}
        self._weights = {name: weight * max(random.choice(UNEVEN), 0.2) for name, weight in verbs.items()}
        self._fitting = FITTING_MIRRORED if mirrored else FITTING
        self._kind = MIRRORED if mirrored else ""

    # -- anything ----------------------------------------------------------------------------------------------------

    async def operate_until(self, until: float) -> None:
        """One verb after the other. Raises Violated."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            hasty = self._random.random() < HASTY_SHARE
            await asyncio.sleep(self._random.expovariate(1 / (HASTY_SECONDS if hasty else BETWEEN_SECONDS)))
            if loop.time() < until:
                name = self._chosen()
                if not hasty and self._random.random() < PATIENT_SHARE:
                    await self._copied(until)
                work = [self.do(name)]
                disturbed = TAKEOVER_DISTURBED_SHARE if name == "horctakeover" else DISTURBED_SHARE
                if self._random.random() < disturbed and self.disturbing is not None:
                    work.append(self.disturbing(self._left() if name == "horctakeover" else None))
                await together(work)

    def _chosen(self) -> str:
        """The next verb."""
        names = list(self._weights)
        if self._random.random() < FITTING_SHARE:
            names = list(self._fitting[self.shown()])
        (name,) = self._random.choices(names, [self._weights[each] for each in names])
        return name

    async def _copied(self, until: float) -> None:
        """pairevtwait -s pair: a while, at the most, until a copy has ended."""
        loop = asyncio.get_running_loop()
        late = min(until, loop.time() + PATIENCE_SECONDS)
        while self.shown() == "COPY" and loop.time() < late:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def do_any(self) -> None:
        """One verb, each as likely as the others. Raises Violated."""
        await self.do(self._random.choice(list(self._weights)))

    async def do(self, name: str) -> None:
        """One verb. Raises Violated."""
        await self._told(name, self._verbs[name]())

    async def _told(self, name: str, verb: Coroutine[Any, Any, Any]) -> None:
        trace = self.operator.world.trace
        trace.note("operator", name)
        self.count(name)
        try:
            told = await verb
        except CommandFailed as failure:
            self.refused[name] += 1
            trace.note("operator", f"{name}: {failure.name}: {failure}")
        else:
            trace.note("operator", f"{name}: done{f': {told}' if told else ''}")

    def count(self, what: str) -> None:
        """A verb, or a fault, comes."""
        self.made[cell(f"{what}{self._kind}", self.shown())] += 1

    def shown(self) -> str:
        """What the group shows: of S-VOLs that lead, theirs; else of the P-VOLs."""
        stages = [side.stage for side in self._watch.sides.values() if side.stage is not None]
        states = [state for stage in stages for state in stage.row.states.values()]
        for each in (State.S_SSWS, State.S_SSUS_WRITABLE):
            if each in states:
                return "SSWS" if each is State.S_SSWS else "SSUS -rw"
        return next((state.status.value for state in states if state.side is Side.P_VOL), "SMPL")

    def _somewhere(self) -> str:
        return self._random.choice(self._arrays)

    async def _change(self, operation: Operation) -> Any:
        return await self.operator.change(self._somewhere(), operation)

    async def _take_over(self) -> Any:
        return await self.operator.take_over(self._taken_over())

    async def _take_over_forced(self) -> Any:
        return await self.operator.take_over(self._taken_over(), forced=True)

    def _left(self) -> str | None:
        """Where the P-VOLs are, which a takeover leaves."""
        rows = {array: side.row for array, side in self._watch.sides.items()}
        return next((each for each, row in rows.items() if row and row.side is Side.P_VOL), None)

    def _taken_over(self) -> str:
        """Where a takeover is asked for."""
        where = self._somewhere()
        if self._random.random() < THERE_SHARE:
            rows = {array: side.row for array, side in self._watch.sides.items()}
            where = next((each for each, row in rows.items() if row and row.side is Side.S_VOL), where)
        return where

    async def _plan(self) -> None:
        decision = await self.operator.plan(self._somewhere())
        for lost in (decision.lost.writes, decision.lost.bytes, decision.lost.seconds):
            if lost is not None and lost < 0:
                raise Violated(f"a plan tells of {lost} that would be lost")

    async def _end_pairs(self) -> Any:
        notes = await self._change(Operation.PAIRSPLIT_S)
        if self._random.random() < SMPL_SHARE:
            await self._create()
        return notes

    async def _create(self) -> None:
        await self.operator.create(self._somewhere(), self._random.choice(PACES))

    async def _set_pace(self) -> None:
        await self.operator.set_pace(self._somewhere(), self._random.choice(PACES))

    async def _replicate(self) -> None:
        """The host drives the loop of figure 16, for a while or until it does so again."""
        await self._drive(Driver.HOST)
        await self.operator.replicate(self._somewhere(), self._random.randint(1, TURNS_MAX))
        if self._random.random() >= DRIVING_SHARE:
            await self._drive(Driver.ARRAYS)

    async def _set_driver(self) -> None:
        """At one side: the other goes on as before."""
        await self.operator.set_driver(self._somewhere(), self._random.choice(list(Driver)))

    async def _drive(self, driver: Driver) -> None:
        for array in self._arrays:
            await self.operator.set_driver(array, driver)

    # -- and back ----------------------------------------------------------------------------------------------------

    async def settle(self) -> Sides:
        """Brings the group to PAIR, in whatever direction, with nothing behind; what both sides say then. Raises
        Violated."""
        sides: Sides | None = None
        for _ in range(SETTLED_SECONDS):
            await asyncio.sleep(1)
            try:
                sides = await self.operator.look()
            except CommandFailed:
                continue
            if is_settled(sides):
                return sides
            step = self._next(sides)
            if step is not None:
                await self._told(*step)
        raise Violated(f"not PAIR in {SETTLED_SECONDS} s: {told_of(sides)}")

    async def step(self) -> None:
        """One step of that. Raises Violated."""
        try:
            step = self._next(await self.operator.look())
        except CommandFailed:
            return
        if step is not None:
            await self._told(*step)

    def _next(self, sides: Sides) -> tuple[str, Coroutine[Any, Any, Any]] | None:
        """What is to be done; None: to wait."""
        here, there = sides.local, sides.remote
        if not isinstance(here, PairStatus) or not isinstance(there, PairStatus):
            return None
        if not here.by_number and not there.by_number:
            return "paircreate", self._create()
        if not here.by_number or not there.by_number or _contradict(here, there):
            return "pairsplit -S", self._change(Operation.PAIRSPLIT_S)
        shown = {state for each in (here, there) for state in each.by_number.values()}
        if State.S_SSWS in shown or (State.S_SSUS_WRITABLE in shown and self._random.random() < 0.5):
            s_vols = here if any(state.side is Side.S_VOL for state in here.by_number.values()) else there
            if self._random.random() < 0.5:
                work = self.operator.change(s_vols.array, Operation.PAIRRESYNC_SWAPS)
                return "pairresync -swaps", work
            p_vols = there if s_vols is here else here
            return "pairresync -swapp", self.operator.change(p_vols.array, Operation.PAIRRESYNC_SWAPP)
        if any(pair.error for each in (here, there) for pair in each.paired.values() if pair.state in RUNNING_STATES):
            return "pairsplit", self._change(Operation.PAIRSPLIT)  # it could not be taken up after a fault
        if shown & SUSPENDED:
            return "pairresync", self._change(Operation.PAIRRESYNC)
        if any(each.driver != Driver.ARRAYS for each in (here, there)):
            return "pair-set driver", self._drive(Driver.ARRAYS)
        if any(state.status is Status.COPY for state in shown):
            for each in (here, there):
                if each.pace is not None and each.pace < PACE_MAX:  # a slow one may take minutes over a slow line
                    return "pairresync -c", self.operator.set_pace(each.array, PACE_MAX)
        return None


def _contradict(here: PairStatus, there: PairStatus) -> bool:
    """Whether both have P-VOLs, or S-VOLs, in one generation: two verbs at once have reached one side each, and the
    sides stay so until they are taken apart (`meetings.py`)."""
    sides = {state.side for each in (here, there) for state in each.by_number.values()}
    sswss = [State.S_SSWS in each.by_number.values() for each in (here, there)]
    return len(sides) == 1 and here.generation == there.generation and sswss[0] == sswss[1]


def is_settled(sides: Sides) -> bool:
    """Whether both sides show PAIR, of the same generation, and that nothing is behind."""
    here, there = sides.local, sides.remote
    if not isinstance(here, PairStatus) or not isinstance(there, PairStatus):
        return False
    states = [set(each.by_number.values()) for each in (here, there)]
    alike = {frozenset(each) for each in states} == {frozenset({State.P_PAIR}), frozenset({State.S_PAIR})}
    if here.asynchronous:
        all_there = here.lag.writes == there.lag.writes == 0
    else:  # unless a side could not be taken up after a fault
        all_there = not any(pair.error for each in (here, there) for pair in each.paired.values())
    return alike and all_there and here.generation == there.generation and here.id == there.id


def told_of(sides: Sides | None) -> str:
    """What both sides say, in a line."""
    if sides is None:
        return "nothing is heard"
    return "; ".join(
        f"{name}: {[str(state) for state in each.by_number.values()]} generation {each.generation}, lag {each.lag}"
        if isinstance(each, PairStatus)
        else f"{name}: {each.reason}"
        for name, each in sides.heard.items()
    )
