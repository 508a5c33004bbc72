"""The operator of a group of pairs: the verbs of `arrayctl`, as `arrayd/host/` carries them out, on both arrays.

A verb runs in a thread of its own (`aside.py`). It reaches each array by that array's command device, as a host does
that is connected with both; now and then a command is sent again, by any way. What a verb may end with while things
fail are honest results; a fault of the program is none.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from arrayd.commands import slots
from arrayd.commands.formats import Identification, Request
from arrayd.commands.processes import REGISTRY
from arrayd.commands.results import Result
from arrayd.host import pair_changes, pair_commands, pair_making, pair_replicating, pair_takeover
from arrayd.host.answers import edited_data
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import Group, GroupVolume, Leg, Mode
from arrayd.host.host import Host
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_status import PairStatus, parse
from arrayd.host.pair_wait import Sides
from arrayd.replication.group_rows import Driver
from arrayd.replication.statuses import Operation
from tests.simulation import aside
from tests.simulation.aside import Aside
from tests.simulation.executions import Executions, Sent
from tests.simulation.sending import Sender, Way
from tests.simulation.world import Violated, World

POLL_SECONDS = 0.05
"""Between two looks for an answer: `arrayctl` looks more often, which is most of what it does."""
ANSWER_SECONDS = 60.0
"""How long a verb waits for the answer to one command."""
AGAIN_SHARE = 0.25
"""So often a command that changes something is sent once before, by any way, and its answer waited for
IMPATIENT_SECONDS, on the average; and so often once more after its answer."""
IMPATIENT_SECONDS = 0.3
LEFT_OUT = frozenset({Result.USAGE, Result.MALFORMED, Result.UNKNOWN_COMMAND, Result.BAD_INPUT, Result.INTERNAL})
"""What no verb may end with, whatever fails: a fault of the program."""

T = TypeVar("T")


class Operator:
    """Whoever has the group `name`, whose volumes lie at LUNs 0 and up of both arrays."""

    def __init__(
        self, world: World, name: str, volumes: tuple[str, ...], journal: int, fence: str | None = None
    ) -> None:
        """`fence` is the level of a synchronous group, which has no journals."""
        self.world = world
        self.name = name
        self.luns = list(range(len(volumes)))
        self.ways: dict[str, list[Way]] = {}
        """By array: first that by its own command device, which verbs take."""
        self.executions = Executions()
        self.commanded = 0
        self._fence = fence
        self._random = world.random("operator's slots")
        self._sender = Sender(world, world.random("sent again"), ANSWER_SECONDS)
        self._again = world.random("again")
        self._ids = world.random("operator's ids")
        self._counter = itertools.count(1)
        self._group: Callable[[], Group] = lambda: Group(
            name,
            tuple(GroupVolume(each, dict.fromkeys(self.ways, lun)) for lun, each in enumerate(volumes)),
            dict.fromkeys(self.ways, journal) if fence is None else {},
            (self._leg(),),
        )

    def _leg(self) -> Leg:
        start, end = self.ways
        return Leg(start, end, Mode.ASYNC) if self._fence is None else Leg(start, end, Mode.SYNC, self._fence)

    # -- commands ----------------------------------------------------------------------------------------------------

    async def command(self, array: str, command: str | int, told: dict[str, Any], seconds: float) -> Any:
        """The edited data of one command. Raises CommandFailed."""
        number = REGISTRY.by_name[command].number if isinstance(command, str) else command
        request = Request(number, Identification(b"operator", 1, next(self._counter)), json.dumps(told).encode())
        self.commanded += 1
        now, sent = self.world.loop.time, Sent(array, request, self.executions)
        await self._send_again(array, request, sent, self._again.expovariate(1 / IMPATIENT_SECONDS))
        try:
            answer = await slots.send(
                self.ways[array][0].device, request, self._random.randrange, now, now() + min(seconds, ANSWER_SECONDS)
            )
        except slots.NoAnswerError as error:
            raise CommandFailed(error.result, str(error), array) from error
        sent.heard(answer)
        await self._send_again(array, request, sent, ANSWER_SECONDS)
        return edited_data(answer, array)

    async def _send_again(self, array: str, request: Request, sent: Sent, seconds: float) -> None:
        """Sends it now and then, as a host does that has heard no answer. Raises Violated."""
        if sent.changes and self._again.random() < AGAIN_SHARE:
            self.executions.again += 1
            answer = await self._sender.send(request, self._again.choice(self.ways[array]), seconds)
            if answer is not None:
                sent.heard(answer)

    async def status(self, array: str, seconds: float) -> PairStatus:
        """What an array says of the group. Raises CommandFailed."""
        told = {"group": self.name, "luns": self.luns}
        return parse(await self.command(array, "pair-status", told, seconds))

    # -- verbs -------------------------------------------------------------------------------------------------------

    async def _verb(self, here: str, verb: Callable[[Arrays], T]) -> T:
        """Raises CommandFailed: an honest one. Raises Violated."""
        arrays = Arrays(cast("Host", ByDevice(self, ANSWER_SECONDS)), self._group(), here)
        try:
            return await Aside().run(lambda: verb(arrays))
        except CommandFailed as failure:
            if failure.result in LEFT_OUT:
                raise Violated(f"a verb at {here} ended with {failure.name}: {failure}") from failure
            raise

    async def change(self, here: str, operation: Operation) -> list[str]:
        """pairsplit and pairresync, with their options."""
        return await self._verb(here, lambda arrays: pair_changes.carry_out(arrays, operation))

    async def take_over(self, here: str, forced: bool = False) -> pair_takeover.Taken:
        """horctakeover."""
        return await self._verb(here, lambda arrays: pair_takeover.take_over(arrays, forced=forced))

    async def plan(self, here: str) -> pair_takeover.Decision:
        """horctakeover --plan."""
        return await self._verb(here, lambda arrays: pair_takeover.decide(arrays, arrays.ask()))

    async def create(self, p_vols: str, pace: int) -> None:
        """paircreate."""
        wanted = pair_making.Wanted(p_vols, pace=pace)
        await self._verb(p_vols, lambda arrays: pair_making.create(arrays, wanted))

    async def set_pace(self, array: str, pace: int) -> None:
        """Another pace of copies, at one side."""
        await self.command(array, pair_commands.Process.PAIR_SET, {"group": self.name, "pace": pace}, ANSWER_SECONDS)

    async def set_driver(self, array: str, driver: Driver) -> None:
        """Who goes through the loop of figure 16, at one side."""
        told = {"group": self.name, "driver": driver.value}
        await self.command(array, pair_commands.Process.PAIR_SET, told, ANSWER_SECONDS)

    async def replicate(self, here: str, turns: int) -> None:
        """replicate, for so many turns."""

        def loop(arrays: Arrays) -> None:
            replicating = pair_replicating.Replicating(arrays, lambda _row: None)
            for _ in range(turns):
                replicating.turn()

        await self._verb(here, loop)

    async def look(self) -> Sides:
        """What both sides say."""
        return await self._verb(next(iter(self.ways)), lambda arrays: arrays.ask())

    def stand_ins(self) -> dict[str, object]:
        """By dotted name, for `world.replaced`: a host's tool has the time of the world."""
        return {
            **self.executions.stand_ins(),
            "arrayd.commands.slots.PAUSE_SECONDS": POLL_SECONDS,
            "arrayd.host.machine.monotonic": self.world.loop.time,
            "arrayd.host.machine.pause": aside.pause,
            "arrayd.host.pair_making.random_bytes": self._ids.randbytes,
        }


class ByDevice:
    """Stands for Host: each array is reached by its own command device, and waited for so many seconds."""

    def __init__(self, operator: Operator, seconds: float) -> None:
        self._operator = operator
        self.way = SimpleNamespace(method="command-device", timeout_s=seconds)
        self.table = SimpleNamespace(rows={}, onward=lambda _array, _other: None)

    def by(self, timeout_s: float) -> ByDevice:
        """See Host."""
        return ByDevice(self._operator, timeout_s)

    def route(self, array: str) -> Any:
        """See Host."""
        return SimpleNamespace(asked=array, addresses=())

    def send(self, array: str, command: str | int, **told: Any) -> Any:
        """See Host. Raises CommandFailed."""
        return aside.wait(self._operator.command(array, command, told, self.way.timeout_s))
