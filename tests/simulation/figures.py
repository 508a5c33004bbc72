"""What an array says of a group, held against what is so: states, positions, lag. Nothing is guessed, nothing negative.

While a question is on its way things move on, so a figure is right that was so at some moment between question and
answer.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import NamedTuple

from arrayd.host.failure import CommandFailed
from arrayd.host.pair_status import PairStatus
from arrayd.replication.following import Following
from arrayd.replication.journaling import Journaling
from arrayd.replication.statuses import Side
from tests.simulation.operating import Operator
from tests.simulation.watching import Watch
from tests.simulation.world import Machine, Violated

ASK_SECONDS = 3.0
BETWEEN_SECONDS = 1.0
"""Between two questions, on the average."""
SILENT_SECONDS = 9.0
"""What was heard so long ago tells nothing of how it goes now: an array says so after 5 s."""


class Moment(NamedTuple):
    """What is so on one array."""

    life: int
    generation: int
    epoch: int
    stored: int
    """Records that its primary journal was given, or that the other side's was."""
    restored: int


class Figures:
    """Asks the arrays again and again."""

    def __init__(self, operator: Operator, watch: Watch, machines: list[Machine], random: Random) -> None:
        self._operator = operator
        self._watch = watch
        self._machines = machines
        self._random = random
        self.compared = 0
        """Answers that were held against what is so."""

    async def compare_until(self, until: float) -> None:
        """Raises Violated."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._random.expovariate(1 / BETWEEN_SECONDS))
            machine = self._random.choice(self._machines)
            before = self._moment(machine)
            try:
                status = await self._operator.status(machine.name, ASK_SECONDS)
            except CommandFailed:
                continue
            after = self._moment(machine)
            if before is not None and after is not None:
                self._compare(machine, before, status, after)

    def _moment(self, machine: Machine) -> Moment | None:
        side, life = self._watch.sides[machine.name], machine.life
        array = machine.array
        if array is None or life is None or side.row is None:
            return None
        row = array.replication.table.group(self._operator.name)
        at_work = array.replication.at_work(self._operator.name)
        if row is None or at_work is None or at_work.stages.stage is not side.stage:
            return None
        primary = machine.name if row.side is Side.P_VOL else self._watch.other(machine.name)
        order = self._watch.orders.get((primary, row.epoch))
        other = self._watch.other(primary)
        told = self._watch.sides[other].told.get(row.epoch, 0)
        return Moment(life.number, row.generation, row.epoch, order.last if order is not None else 0, told)

    def _compare(self, machine: Machine, before: Moment, status: PairStatus, after: Moment) -> None:
        same = before[:3] == after[:3] and status.generation == after.generation
        stage = self._watch.sides[machine.name].stage
        self._check(machine, status, "lag", status.lag.writes, 0, None)
        self._check(machine, status, "lag in bytes", status.lag.bytes, 0, None)
        if not same or not isinstance(stage, Journaling | Following):
            return
        self.compared += 1
        self._check(machine, status, "restored", status.restored, 0, after.restored)
        if isinstance(stage, Journaling):
            self._check(machine, status, "sequence", status.sequence, 0, after.stored)
        elif before.restored and not stage._stores.images:
            self._check(machine, status, "restored", status.restored, before.restored, after.restored)
        if status.sequence is not None and status.restored is not None:
            behind = status.sequence - status.restored
            self._check(machine, status, "lag", status.lag.writes, behind, behind)
        told = stage.acquisition._told_at if isinstance(stage, Following) else None
        if told is not None and self._operator.world.loop.time() - told > SILENT_SECONDS + ASK_SECONDS:
            self._check(machine, status, "lag of a side that is not heard", status.lag.writes, None, None)

    def _check(
        self,
        machine: Machine,
        status: PairStatus,
        what: str,
        found: float | None,
        least: float | None,
        most: float | None,
    ) -> None:
        """None is what is not known, which is never wrong."""
        if found is None:
            return
        if least is None or found < least or (most is not None and found > most):
            states = sorted({str(state) for state in status.by_number.values()})
            raise Violated(f"{machine.name} {states}: {what} is told as {found}, not {least} to {most}")
