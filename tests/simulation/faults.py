"""What goes wrong: machines lose power, arrays are killed, lines are cut, disks are full or fail, clocks jump.

Each kind of fault is one method, which makes it and has it end again; `Faults.make` chooses one after the other. A kill
comes at a chosen moment at a door of the array: at any, or at one of those that are seldom passed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.disk import FULL_SHARE
from tests.simulation.doors import Gone, Plan
from tests.simulation.world import Machine, World

if TYPE_CHECKING:
    from tests.simulation.backups import Backup
    from tests.simulation.filling import Filling

BETWEEN_SECONDS = 1.5
"""Between two faults, on the average."""
DOORS = (
    *("write", "read", "fdatasync", "fsync", "open", "truncate"),
    *("commit", "commit", "commit", "thread", "send", "receive", "dial", "accept"),
    *("answer", "durable answer", "durable answer"),
)
"""Where a kill is aimed at; `allocate`, `tables` and others are met on the way."""
DOORS_OF_CHANGES = (
    *("open", "truncate", "allocate", "fallocate", "fsync", "fdatasync", "write", "read", "thread"),
    *("commit", "commit", "tables", "listen", "dial", "accept", "send", "send", "receive"),
)
"""Likewise while an array of pairs starts, or carries out a verb: then it passes doors that it never passes else."""
POWER_LOSS_SHARE = 0.4
CALLS_MAX = 120
CALLS_AT_A_DOOR_MAX = 4
CALLS_SOON_MAX = 40
"""Likewise of a life that is to end in the middle of something."""
TROUBLE_POWER_LOSS_SHARE = 0.7
STRUCK_WITHIN_SECONDS = 3.0
"""A kill that has met no such moment by then is made at once."""
BUSY_CHECKS, BUSY_CHECK_SECONDS = 100, 5e-3
"""How often it is looked whether a line is busy before it is cut."""
DOWN_SECONDS = (0.01, 2.0)
"""How long an array is away, on the average: one or the other."""
BACKUP_SECONDS = 3.0
"""How old tables are that are put back, on the average."""
CLOCK_SECONDS = 1000.0
STARTS_MAX = 20
UNEVEN = (0, 0, 1, 1, 4)
"""By one of these a kind is more or less frequent in one run than on the average."""
KINDS = {
    "kill": 6,
    "kill_at_start": 2,
    "stop_and_start": 1,
    "cut": 3,
    "stall": 3,
    "refuse": 1,
    "full": 1,
    "slow_down": 1,
    "fail_syncs": 1,
    "fail_reads": 1,
    "fail_commits": 1,
    "turn_clock": 1,
}
"""All kinds, by the names of their methods: how often each comes."""
UNEVEN_KINDS = {"start_in_trouble": 2, "fill_journal": 2, "start_with_old_tables": 1}
"""Likewise those that come in uneven runs only, which are runs of pairs."""


class Faults:
    """Those of one run, on these machines. `uneven`: some kinds come more often than in other runs, and some never;
    those of `without` cannot be."""

    def __init__(
        self, world: World, machines: list[Machine], uneven: bool = False, without: Sequence[str] = ()
    ) -> None:
        self._world = world
        self._machines = machines
        self._random: Random = world.random("faults")
        self.made: Counter[str] = Counter()
        self._doors_of_changes = DOORS_OF_CHANGES if uneven else DOORS
        self.making: Callable[[str], None] = lambda _kind: None
        """What is to be known when one is made."""
        self.backup: Callable[[Machine], Backup] | None = None
        """`backup(machine)` makes one of its tables, where there are pairs in them."""
        self.filling: Filling | None = None
        """Who fills journals, where there are some."""
        weights = {**KINDS, **(UNEVEN_KINDS if uneven else {})}
        weights = {kind: weight for kind, weight in weights.items() if kind not in without}
        self._weights = {kind: n * (self._random.choice(UNEVEN) if uneven else 1) for kind, n in weights.items()}
        if not any(self._weights.values()):
            self._weights = weights

    async def make(self, until: float) -> None:
        """One fault after the other, some of them at once."""
        going: list[asyncio.Task[None]] = []
        while self._world.loop.time() < until:
            await asyncio.sleep(self._random.expovariate(1 / BETWEEN_SECONDS))
            going.append(asyncio.ensure_future(self.make_one()))
            if self._random.random() < 0.7:
                await going[-1]
        await asyncio.gather(*going)

    async def make_one(self, alike: bool = False) -> None:
        """One fault, of any kind that comes in this run; `alike`: each is as frequent as the others."""
        weights = [weight and 1 if alike else weight for weight in self._weights.values()]
        (kind,) = self._random.choices(list(self._weights), weights)
        await getattr(self, kind)()

    def _made(self, kind: str) -> None:
        """One is made now: it is not counted where there is nothing that it could befall."""
        self.made[kind] += 1
        self.making(kind)
        self._world.trace.note("fault", kind)

    def _machine(self) -> Machine:
        return self._random.choice(self._machines)

    def _other(self, machine: Machine) -> Machine:
        return self._random.choice([each for each in self._machines if each is not machine])

    async def _a_while(self, mean: float) -> None:
        await asyncio.sleep(self._random.expovariate(1 / mean))

    # -- lives -------------------------------------------------------------------------------------------------------

    def _is_power_loss(self, machine: Machine) -> bool:
        return self._random.random() < POWER_LOSS_SHARE

    def _plan(self, machine: Machine, calls: int = CALLS_MAX, doors: Sequence[str] = DOORS) -> Plan:
        power = self._is_power_loss(machine)
        if self._random.random() < 0.4:
            return Plan(self._random.randint(1, calls), None, power)
        return Plan(self._random.randint(1, CALLS_AT_A_DOOR_MAX), self._random.choice(doors), power)

    async def kill(self, calls: int = CALLS_MAX, doors: Sequence[str] = DOORS, at: Machine | None = None) -> None:
        """An array is killed, or its machine loses power."""
        machine = at or self._machine()
        life = machine.life
        if life is None or life.plan is not None:
            return
        self._made("kill")
        plan = life.plan = self._plan(machine, calls, doors)
        await self._struck(machine, plan)
        await self._a_while(self._random.choice(DOWN_SECONDS))
        await self.start(machine)

    async def _struck(self, machine: Machine, plan: Plan) -> None:
        """Until a life has ended as planned."""
        life, loop = machine.life, self._world.loop
        late = loop.time() + STRUCK_WITHIN_SECONDS
        while life is not None and life.is_to_end(plan) and loop.time() < late:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if life is not None and life.is_to_end(plan):
            life.kill("at rest", plan.power)

    async def disturb(self, array: str | None) -> None:
        """Whatever comes in the middle of a verb: mostly an array is killed, that one or any."""
        (kind,) = self._random.choices((self.kill, self.start_in_trouble, self.cut), (6, 2, 2))
        at = next((each for each in self._machines if each.name == array), None)
        await (self.kill(CALLS_SOON_MAX, self._doors_of_changes, at) if kind == self.kill else kind())

    async def start_in_trouble(self) -> None:
        """An array is killed, and its disk is full or fails when it starts again."""
        machine = self._machine()
        if machine.life is None or machine.life.plan is not None:
            return
        self._made("start_in_trouble")
        plan = machine.life.plan = self._plan(machine)
        plan.power = self._random.random() < TROUBLE_POWER_LOSS_SHARE
        await self._struck(machine, plan)
        await self._a_while(self._random.choice(DOWN_SECONDS))
        disk = machine.disk
        trouble = self._random.choice(("full", "full", "reads", "syncs"))
        if trouble == "full":
            # Less often than else: or else nothing would begin that can be left in the middle.
            disk.full, disk.full_share = True, self._random.choice((0.1, 0.3, FULL_SHARE))
        elif trouble == "reads":
            disk.failing_reads = self._random.randint(1, 3)
        else:
            disk.failing_syncs = 1
        await self.start(machine)
        await self._a_while(2.0)
        if trouble == "full":
            disk.full, disk.full_share = False, FULL_SHARE
        elif trouble == "syncs":
            disk.failing_syncs = 0
            await self._again_if_failed(machine)

    async def kill_at_start(self) -> None:
        """An array is killed while it starts, or stops."""
        machine = self._machine()
        if machine.life is None or machine.life.plan is not None:
            return
        self._made("kill_at_start")
        plan = self._plan(machine, doors=self._doors_of_changes)
        if self._random.random() < 0.5:
            machine.life.kill("at rest", self._is_power_loss(machine))
            await self._a_while(self._random.choice(DOWN_SECONDS))
            if machine.is_down:
                machine.next_plan = plan
        else:
            machine.life.plan = plan
            await self._stop(machine)
        await self.start(machine)
        await self._struck(machine, plan)  # it may be there before that moment has come
        await self.start(machine)

    async def stop_and_start(self) -> None:
        """An operator restarts an array."""
        machine = self._machine()
        if machine.life is not None:
            self._made("stop_and_start")
        await self._stop(machine)
        await self._a_while(self._random.choice(DOWN_SECONDS))
        await self.start(machine)

    async def start_with_old_tables(self) -> None:
        """An array is stopped, or killed, and its tables are those of a while ago when it starts again, if it can make
        up for that."""
        assert self.backup is not None
        machine = self._machine()
        backup = self.backup(machine)
        await self._a_while(BACKUP_SECONDS)
        if machine.life is None or machine.life.plan is not None:
            return
        if self._random.random() < 0.5:
            await self._stop(machine)
        else:
            machine.life.kill("at rest", self._is_power_loss(machine))
        if machine.is_down:
            fits = backup.fits()
            self._made("start_with_old_tables" if fits else "stop_and_start")
            if fits:
                backup.put_back()
        await self._a_while(self._random.choice(DOWN_SECONDS))
        await self.start(machine)

    async def _stop(self, machine: Machine) -> None:
        try:
            await machine.stop()
        except Gone:
            return

    async def start(self, machine: Machine) -> None:
        """Starts an array, unless it is there, as often as it takes."""
        for _ in range(STARTS_MAX):
            if machine.life is not None or await machine.start():
                return
            await self._a_while(self._random.choice(DOWN_SECONDS))

    # -- lines -------------------------------------------------------------------------------------------------------

    def _line(self) -> tuple[str, str]:
        machine = self._machine()
        return machine.name, self._other(machine).name

    async def cut(self) -> None:
        """Connections end, while something is on its way."""
        line = self._line()
        for _ in range(BUSY_CHECKS):
            if self._world.network.busy(*line):
                break
            await self._a_while(BUSY_CHECK_SECONDS)
        self._made("cut")
        self._world.network.cut(*line)

    async def stall(self) -> None:
        """Nothing comes through for a while; then the connections go on, or end."""
        line = self._line()
        self._made("stall")
        self._world.network.stall(*line, True)
        await self._a_while(2.0 if self._random.random() < 0.5 else 8.0)
        if self._random.random() < 0.3:
            self._world.network.cut(*line)
        self._world.network.stall(*line, False)

    async def refuse(self) -> None:
        """Connections end, and there are no new ones for a while."""
        line = self._line()
        self._made("refuse")
        self._world.network.line(*line).refused = True
        self._world.network.cut(*line)
        await self._a_while(4.0)
        self._world.network.line(*line).refused = False

    async def fill_journal(self) -> None:
        """Nothing comes through while hosts write much, and for a while after."""
        assert self.filling is not None
        if not await self.filling.ready():
            return
        line = self._line()
        self._made("fill_journal")
        self._world.network.stall(*line, True)
        await self.filling.fill()
        then = asyncio.ensure_future(self.filling.then(self))
        await self._a_while(2.0)
        self._world.network.stall(*line, False)
        await then

    # -- disks and clocks --------------------------------------------------------------------------------------------

    async def full(self) -> None:
        """A disk has no room for a while."""
        machine = self._machine()
        self._made("full")
        machine.disk.full = True
        await self._a_while(2.0)
        machine.disk.full = False

    async def slow_down(self) -> None:
        """A disk is slow for a while."""
        life = self._machine().life
        if life is not None:
            self._made("slow_down")
            life.slow_share = self._random.choice((0.1, 0.5))
            await self._a_while(4.0)
            life.slow_share = 0.0

    async def fail_syncs(self) -> None:
        """A sync fails: the volume has failed until an operator starts the array again."""
        machine = self._machine()
        self._made("fail_syncs")
        machine.disk.failing_syncs = 1
        await self._a_while(3.0)
        machine.disk.failing_syncs = 0
        await self._again_if_failed(machine)

    async def _again_if_failed(self, machine: Machine) -> None:
        """An operator restarts an array that has a volume which has failed."""
        if machine.disk.failed:
            await self._stop(machine)
            await self.start(machine)

    async def fail_reads(self) -> None:
        """Some reads fail."""
        self._made("fail_reads")
        self._machine().disk.failing_reads = self._random.randint(1, 3)

    async def fail_commits(self) -> None:
        """A commit of the tables fails."""
        self._made("fail_commits")
        self._world.tables.failing_commits[self._machine().name] = 1

    async def turn_clock(self) -> None:
        """A clock is set to another time."""
        self._made("turn_clock")
        self._machine().clock_offset += self._random.uniform(-CLOCK_SECONDS, CLOCK_SECONDS)

    # -- end ---------------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Nothing is wrong any more, and nothing goes wrong: arrays are there, linked, with disks that work."""
        world = self._world
        world.faulty = False
        world.tables.failing_commits.clear()
        for machine in self._machines:
            disk = machine.disk
            disk.full, disk.failing_syncs, disk.failing_reads = False, 0, 0
            machine.next_plan = None
            if machine.life is not None:
                machine.life.plan, machine.life.slow_share = None, 0.0
                if disk.failed:
                    await self._stop(machine)
            for other in self._machines:
                if other is not machine:
                    world.network.line(machine.name, other.name).refused = False
                    world.network.stall(machine.name, other.name, False)
        for machine in self._machines:
            await self.start(machine)
