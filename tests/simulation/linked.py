"""The scenario of two linked arrays: volumes on each, one of them seen through the other, and commands to both.

Hosts write to a volume of each array, with and without FUA and flushes; to one volume of the far array, half of it
there and half of it by a virtual LUN of the near one. Other hosts make volumes and LUNs, by command devices near and
far and by messages. All the while anything fails that can. When that has stopped everything has to be as it was
promised, twice: as the arrays are, and after they were stopped and started once more.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.simulation import commanding
from tests.simulation.commanding import Commander, check_once
from tests.simulation.faults import Faults
from tests.simulation.hosts import HostLun, Initiator
from tests.simulation.promises import Promise
from tests.simulation.sending import Way
from tests.simulation.world import Machine, Violated, World
from tests.simulation.writers import Region, write_on

VOLUME_BYTES = 256 * 1024
BLOCKS = VOLUME_BYTES // 512
PORTS = {"near": 7001, "far": 7002}
DATA, SHARED, THROUGH, DEVICE, FAR_DEVICE = 0, 1, 5, 9, 10
"""LUNs: a volume of its own, the volume that both arrays show, that one through the other array, command devices."""
STREAMS = 5
SECONDS_MIN, SECONDS_MAX = 3.0, 30.0
"""How long hosts write and things fail; the seed says how long, and most are short."""
LINKED_SECONDS = 60.0


class Linked:
    """One run of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.near = self._machine("near", "far", "1")
        self.far = self._machine("far", "near", "2")
        self.machines = [self.near, self.far]
        self.faults = Faults(world, self.machines)
        self.promises = {
            "near": {"data": Promise("near", BLOCKS)},
            "far": {"data": Promise("far", BLOCKS), "shared": Promise("shared", BLOCKS)},
        }
        near, far = (
            Initiator(machine, f"host-{machine.name}", world.random(machine.name)) for machine in self.machines
        )
        shared = self.promises["far"]["shared"]
        self.regions = [
            Region(near, DATA, self.promises["near"]["data"], range(BLOCKS)),
            Region(far, DATA, self.promises["far"]["data"], range(BLOCKS)),
            Region(far, SHARED, shared, range(BLOCKS // 2)),
            Region(near, THROUGH, shared, range(BLOCKS // 2, BLOCKS)),
        ]
        self._hosts = {"near": near, "far": far}
        self.commanders = [self._commander(number) for number in range(2)]

    def _machine(self, name: str, other: str, serial: str) -> Machine:
        cached = self.world.random(f"cached {name}").random() < 0.8
        tree: dict[str, Any] = {
            "array": {"name": name, "serial": serial},
            "iscsi": {"poll_us": 0},
            "volumes": {
                "data": {"size": VOLUME_BYTES, "write_cache": cached},
                "shared": {"size": VOLUME_BYTES, "physical_block_size": 4096},
            },
            "luns": {
                DATA: {"volume": "data"},
                SHARED: {"volume": "shared"},
                THROUGH: {"virtual": {"array": other, "lun": SHARED}},
                DEVICE: {"command_device": {}},
                FAR_DEVICE: {"virtual": {"array": other, "lun": DEVICE}},
            },
            "link": {
                "listen": f"127.0.0.1:{PORTS[name]}",
                "arrays": {other: f"127.0.0.1:{PORTS[other]}"},
                "timeout": 3,
            },
        }
        machine = self.world.machine(name, tree, PORTS[name])
        machine.restarting = self._restarting
        return machine

    def _restarting(self, machine: Machine, power: bool) -> None:
        for volume, promise in self.promises[machine.name].items():
            if power or f"{volume}.img" in machine.disk.failed:
                promise.lost_power(power)

    def _commander(self, number: int) -> Commander:
        name = f"admin-{number}"
        near, far = (Initiator(machine, name, self.world.random(name + machine.name)) for machine in self.machines)
        ways = [
            Way(near, self.near, DEVICE),
            Way(near, self.far, FAR_DEVICE),
            Way(near, self.near, DATA, ()),
            Way(near, self.far, DATA, ("far",)),
            Way(far, self.near, DATA, ("near",)),
        ]
        home = {"near": HostLun(near, DEVICE), "far": HostLun(far, DEVICE)}
        commander = Commander(self.world, number, ways, home)
        commander.mapped = self._mapped
        return commander

    def _mapped(self, machine: Machine, volume: str, lun: int) -> None:
        """Hosts write to a volume that was made by command, too."""
        blocks = commanding.VOLUME_BYTES // 512
        promise = self.promises[machine.name][volume] = Promise(volume, blocks)
        self.regions.append(Region(self._hosts[machine.name], lun, promise, range(blocks)))

    @property
    def commanded(self) -> int:
        """Commands that were sent."""
        return sum(len(commander.commands) for commander in self.commanders)

    # -- the run -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. Raises Violated."""
        world = self.world
        for machine in self.machines:
            await self.faults.start(machine)
        length = SECONDS_MIN * (SECONDS_MAX / SECONDS_MIN) ** world.random("length").random()
        until = world.loop.time() + length
        work = [
            *(write_on(self.regions, world.random(f"stream {number}"), until) for number in range(STREAMS)),
            *(commander.command_until(until) for commander in self.commanders),
            self.faults.make(until),
        ]
        await together(work)
        world.trace.note("-", "nothing fails any more")
        await self.faults.heal()
        await self.check()
        for machine in self.machines:
            if await machine.stop() is not True:
                raise Violated(f"{machine.name} could not be stopped")
        for machine in self.machines:
            await self.faults.start(machine)
        await self.check()

    async def check(self) -> None:
        """Everything is as promised. Raises Violated."""
        await self._linked()
        await together([commander.settle() for commander in self.commanders])
        for commander in self.commanders:
            commander.compare()
        check_once(self.world)
        for region in self.regions:
            await region.read_all()
            if not await region.flush():
                raise Violated(f"{region.initiator.name}, LUN {region.lun}: cannot be flushed")

    async def _linked(self) -> None:
        """The arrays find each other again."""
        late = self.world.loop.time() + LINKED_SECONDS
        while not all(self._is_up(machine) for machine in self.machines):
            if self.world.loop.time() > late:
                raise Violated(f"the arrays have not found each other in {LINKED_SECONDS:g} s")
            await asyncio.sleep(0.5)

    def _is_up(self, machine: Machine) -> bool:
        array: Any = machine.array
        return all(peer.stream is not None for peer in array._links.peers.values())


async def together(work: list[Any]) -> None:
    """All of it at once; the first that fails ends the rest."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


async def linked(world: World) -> Linked:
    """See the module."""
    scenario = Linked(world)
    world.scenario = scenario
    await scenario.run()
    return scenario
