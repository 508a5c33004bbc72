"""The scenario of pairs: a group of three between two arrays, in either direction, whatever happens to them.

Hosts write to the volumes of both arrays, while an operator does anything at any moment, and anything fails that can:
arrays are killed and lose power, lines are cut and stalled, disks are full or fail, journals fill up. `watching.py`
holds the two sides to what they promise, `figures.py` to what they say. When nothing fails any more the operator brings
the pairs back to PAIR: then both sides are the same, and what hosts were answered is there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from random import Random
from typing import Any

from arrayd.host.groups import FENCE_LEVELS
from arrayd.replication.fencing import FENCE_SECONDS
from tests.simulation.backups import Backup
from tests.simulation.faults import Faults
from tests.simulation.figures import Figures
from tests.simulation.filling import Filling
from tests.simulation.hosts import BLOCK_BYTES, Initiator
from tests.simulation.linked import PORTS, together
from tests.simulation.mirror_watching import MirrorWatch
from tests.simulation.operating import Operator
from tests.simulation.operations import Operations
from tests.simulation.prefixes import check_same
from tests.simulation.sending import Way
from tests.simulation.watching import Watch
from tests.simulation.world import Machine, Violated, World, replaced
from tests.simulation.writers import Region, write_on

VOLUME_BYTES = 256 * 1024
BLOCKS = VOLUME_BYTES // BLOCK_BYTES
JOURNAL_BYTES = (192 * 1024, 256 * 1024, 2 * 1024 * 1024)
"""One of them: small journals fill up."""
COPY_BYTES = (32 * 1024, 128 * 1024, 2 * 1024 * 1024)
"""One of them: how much is copied at once. With small parts a copy takes its time, and is cut short in the middle."""
UNPAIRED_SECONDS = 0.5
"""How long hosts write before the pairs are made, on the average."""
VOLUMES = ("data", "log", "index")
JOURNAL, DEVICE, FAR_DEVICE = 3, 9, 10
"""LUNs, behind those of the volumes."""
GROUP = "group"
STREAMS = 3
BURSTS = 0.3
"""So often a host's writes come several at once: a journal has them in one run then."""
SECONDS_MIN, SECONDS_MAX = 9.0, 24.0
WRITES_MIN, FAULTS_MIN = 200, 5
"""What a run has at the least, and that each volume is written: until then it goes on for MORE_SECONDS at a time."""
MORE_SECONDS, MORE_TIMES_MAX = 3.0, 30
LOOK_SECONDS = 0.5
NOT_MIRRORED = ("fill_journal",)
"""Faults that cannot befall a synchronous group."""
MIRRORED_SHARE = 1 / 3
"""So often a group is synchronous, where the seed chooses."""
CALM_SECONDS = 3.0
"""How long it is written at the end, while nothing fails."""


class Paired:
    """One run of it."""

    def __init__(self, world: World, mirrored: bool = False) -> None:
        self.world = world
        self.mirrored = mirrored
        self._journal_bytes = world.random("journal").choice(JOURNAL_BYTES)
        self._copy_bytes = world.random("copy").choice(COPY_BYTES)
        self.machines = [self._machine("near", "far", "1"), self._machine("far", "near", "2")]
        self.faults = Faults(world, self.machines, uneven=True, without=NOT_MIRRORED if mirrored else ())
        self.watch = (MirrorWatch if mirrored else Watch)(world, VOLUMES, VOLUME_BYTES, BLOCK_BYTES)
        fence = world.random("fence").choice(FENCE_LEVELS) if mirrored else None
        self.operator = Operator(world, GROUP, VOLUMES, JOURNAL, fence)
        self.regions: list[Region] = []
        for machine in self.machines:
            self.watch.add(machine)
            host = Initiator(machine, f"host-{machine.name}", world.random(machine.name))
            host.patience_s += FENCE_SECONDS
            promises = self.watch.promises[machine.name]
            self.regions += [
                Region(host, lun, promises[volume], range(BLOCKS), mixed=True) for lun, volume in enumerate(VOLUMES)
            ]
        near, far = (
            Initiator(machine, "operator", world.random(f"{machine.name} operator")) for machine in self.machines
        )
        for machine, here, there in zip(self.machines, (near, far), (far, near), strict=True):
            self.operator.ways[machine.name] = [
                Way(here, machine, DEVICE),
                Way(there, machine, FAR_DEVICE),
                Way(here, machine, 0, ()),
                Way(there, machine, 0, (machine.name,)),
            ]
        names = [machine.name for machine in self.machines]
        self.operations = Operations(self.operator, self.watch, names, world.random("operator"), mirrored)
        self.operations.disturbing = self._disturbed
        self.faults.making = self._fails
        self.faults.backup = lambda machine: Backup(machine, self.operator.executions)
        if not mirrored:
            self.faults.filling = Filling(world, self.regions, self.operations, self._journal_bytes)
        self.figures = Figures(self.operator, self.watch, self.machines, world.random("figures"))

    def _machine(self, name: str, other: str, serial: str) -> Machine:
        tree: dict[str, Any] = {
            "array": {"name": name, "serial": serial},
            "iscsi": {"poll_us": 0},
            "volumes": {
                **{volume: {"size": VOLUME_BYTES} for volume in VOLUMES},
                **({} if self.mirrored else {"journal": {"size": self._journal_bytes, "use": "journal"}}),
            },
            "luns": {
                **{lun: {"volume": volume} for lun, volume in enumerate(VOLUMES)},
                **({} if self.mirrored else {JOURNAL: {"volume": "journal"}}),
                DEVICE: {"command_device": {}},
                FAR_DEVICE: {"virtual": {"array": other, "lun": DEVICE}},
            },
            "link": {
                "listen": f"127.0.0.1:{PORTS[name]}",
                "arrays": {other: f"127.0.0.1:{PORTS[other]}"},
                "timeout": 3,
            },
        }
        return self.world.machine(name, tree, PORTS[name])

    def _fails(self, kind: str) -> None:
        self.operations.count(kind.replace("_", " "))

    @property
    def counts(self) -> Counter[str]:
        """What else is told of a run."""
        watch = self.watch
        held = Counter({f"held against the order: {why}": count for why, count in watch.checked.items()})
        held["volumes that were written"] = len(+self._writes())
        held["commands that were sent again"] = self.operator.executions.again
        held["figures that were compared"] = self.figures.compared
        held["verbs that were refused"] = self.operations.refused.total()
        return held + self.operations.made

    @property
    def commanded(self) -> int:
        """Commands that were sent."""
        return self.operator.commanded

    def stand_ins(self) -> dict[str, object]:
        """By dotted name, for `world.replaced`."""
        return {
            **self.watch.stand_ins(),
            **self.operator.stand_ins(),
            "arrayd.commands.pairing.JOURNAL_BYTES_MIN": min(JOURNAL_BYTES),
            "arrayd.replication.copying.COPY_BYTES": self._copy_bytes,
        }

    # -- the run -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. Raises Violated."""
        world = self.world
        for machine in self.machines:
            await self.faults.start(machine)
        try:
            await self._run()
        except Violated:
            self.watch.check_found()
            raise
        self.watch.check_found()
        for machine in self.machines:
            if await machine.stop() is not True:
                raise Violated(f"{machine.name} could not be stopped")
        world.trace.note("-", "the end")

    async def _run(self) -> None:
        world = self.world
        now = world.loop.time()
        length = SECONDS_MIN * (SECONDS_MAX / SECONDS_MIN) ** world.random("length").random()
        streams = [world.random(f"stream {number}") for number in range(STREAMS)]
        await self._disturb(streams, now + length, self._pair())
        for _ in range(MORE_TIMES_MAX):
            if not self._lacking():
                break
            if self.mirrored:  # hosts may write nowhere while P-VOLs are fenced
                await self.operations.step()
            await self._disturb(streams, world.loop.time() + MORE_SECONDS)
        else:
            raise Violated(f"the seed is not worth its name: {self._lacking()}")
        world.trace.note("-", "nothing fails any more")
        await self.faults.heal()
        calm = world.loop.time() + CALM_SECONDS
        await together(
            [write_on(self.regions, world.random(f"calm {number}"), calm, BURSTS) for number in range(STREAMS)]
            + [self._settle(calm)]
        )
        await self.operations.settle()
        self.watch.check_found()
        await self._compare()

    def _lacking(self) -> str:
        """What there was, if that is too little for the run to be worth its name."""
        writes = self._writes()
        enough = writes.total() >= WRITES_MIN and len(+writes) == len(VOLUMES)
        faults = self.faults.made.total()
        return "" if enough and faults >= FAULTS_MIN else f"writes {dict(writes)}, {faults} faults"

    def _writes(self) -> Counter[str]:
        """Of hosts, by the volume."""
        writes = Counter[str]()
        for region in self.regions:
            writes[VOLUMES[region.lun]] += region.writes
        return writes

    async def _disturb(self, streams: list[Random], until: float, first: Awaitable[None] | None = None) -> None:
        """Hosts write, and after `first` anything may be done, and fail."""
        await together(
            [
                *(write_on(self.regions, stream, until, BURSTS) for stream in streams),
                self._operate(until, first),
                self.figures.compare_until(until),
                self._until_found(until),
            ]
        )

    async def _disturbed(self, array: str | None) -> None:
        """Something fails while a verb is carried out."""
        await self.faults.disturb(array)

    async def _pair(self) -> None:
        """The pairs are made, after a while."""
        await asyncio.sleep(self.world.random("unpaired").expovariate(1 / UNPAIRED_SECONDS))
        await self.operations.do("paircreate")

    async def _operate(self, until: float, first: Awaitable[None] | None) -> None:
        if first is not None:
            await first
        await together([self.faults.make(until), self.operations.operate_until(until)])

    async def _settle(self, calm: float) -> None:
        await self.operations.settle()
        await self.figures.compare_until(calm)

    async def _until_found(self, until: float) -> None:
        while self.world.loop.time() < until:
            self.watch.look()
            self.watch.check_found()
            await asyncio.sleep(LOOK_SECONDS)

    async def _compare(self) -> None:
        """Both sides are the same, and what hosts were answered is there. Raises Violated."""
        for region in self.regions:
            if region.promise.is_open:
                await region.read_all()
                if not await region.flush():
                    raise Violated(f"{region.initiator.name}, LUN {region.lun}: cannot be flushed")
        near, far = (self.watch.contents(machine.name) for machine in self.machines)
        self.operator.executions.check()
        check_same(far, near, "the two sides, which are PAIR")


async def paired(world: World) -> None:
    """An asynchronous group."""
    await _run(world, mirrored=False)


async def mirrored(world: World) -> None:
    """A synchronous group, of any fence level."""
    await _run(world, mirrored=True)


async def pairs(world: World) -> None:
    """One or the other, as the seed has it."""
    await _run(world, mirrored=world.random("mode").random() < MIRRORED_SHARE)


async def _run(world: World, mirrored: bool) -> None:
    world.scenario = scenario = Paired(world, mirrored)
    with replaced(scenario.stand_ins()):
        await scenario.run()
