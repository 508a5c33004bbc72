"""The beginning of the scenario of pairs: a group of three between two arrays, its host's writes, crashes and cuts.

A host writes to the P-VOLs from the creation of the pairs on, while arrays are killed and restarted, machines lose
power, and lines are cut and stalled. When that has stopped both sides say PAIR, the P-VOLs have kept what
is promised of any volume, and the S-VOLs are the same. Whenever the S-VOLs' side has told a position as restored and
its row is consistent, the S-VOLs are the group's writes up to there (`prefixes.py`), until a resync after a power loss
at the P-VOLs' side begins another order. What is to come: an operator, full journals and disks that fail.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from arrayd.commands import slots
from arrayd.commands.formats import Identification, Request
from arrayd.commands.processes import REGISTRY
from arrayd.commands.results import Result
from tests.simulation.faults import Faults
from tests.simulation.hosts import BLOCK_BYTES, HostLun, Initiator
from tests.simulation.linked import PORTS, together
from tests.simulation.prefixes import Prefixes, stand_ins
from tests.simulation.promises import Promise
from tests.simulation.world import Machine, Violated, World, replaced
from tests.simulation.writers import READ_ALL_BLOCKS, Region, write_on

VOLUME_BYTES = 256 * 1024
BLOCKS = VOLUME_BYTES // BLOCK_BYTES
JOURNAL_BYTES = 32 * 1024 * 1024
VOLUMES = ("data", "log", "index")
JOURNAL, DEVICE = 3, 9
"""LUNs, behind those of the volumes."""
GROUP, GROUP_ID = "group", "ab" * 16
STREAMS = 3
SECONDS_MIN, SECONDS_MAX = 3.0, 20.0
COMMAND_SECONDS = 20.0
SETTLED_SECONDS = 60
PAIRED = {"near": "P-VOL PAIR", "far": "S-VOL PAIR"}
LEFT_OUT = ("full", "fail_syncs", "fail_reads", "fail_commits")
"""Faults that suspend pairs: an operator has to resynchronize them."""


class Paired:
    """One run of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.near = self._machine("near", "far", "1")
        self.far = self._machine("far", "near", "2")
        machines = [self.near, self.far]
        self.faults = Faults(world, machines, LEFT_OUT)
        self.promises = {volume: Promise(volume, BLOCKS) for volume in VOLUMES}
        self.near.restarting = self._restarting
        self._hosts = {each.name: Initiator(each, f"host-{each.name}", world.random(each.name)) for each in machines}
        self._devices = {name: HostLun(host, DEVICE) for name, host in self._hosts.items()}
        self._random = world.random("operator")
        self._counter = itertools.count(1)
        near = self._hosts["near"]
        self.regions = [
            Region(near, lun, self.promises[volume], range(BLOCKS)) for lun, volume in enumerate(VOLUMES)
        ]  # fmt: skip
        self.commanded = 0
        self.prefixes = Prefixes(len(VOLUMES), VOLUME_BYTES)
        self.told = 0
        """What was restored last, whether it was consistent or not."""
        self.resynced = False
        """Another order of writes has begun, with volumes that are not empty."""
        self.broken: Violated | None = None
        """What was found first where only the array would have heard of it."""

    def _machine(self, name: str, other: str, serial: str) -> Machine:
        tree: dict[str, Any] = {
            "array": {"name": name, "serial": serial},
            "iscsi": {"poll_us": 0},
            "volumes": {
                **{volume: {"size": VOLUME_BYTES} for volume in VOLUMES},
                "journal": {"size": JOURNAL_BYTES, "use": "journal"},
            },
            "luns": {
                **{lun: {"volume": volume} for lun, volume in enumerate(VOLUMES)},
                JOURNAL: {"volume": "journal"},
                DEVICE: {"command_device": {}},
            },
            "link": {
                "listen": f"127.0.0.1:{PORTS[name]}",
                "arrays": {other: f"127.0.0.1:{PORTS[other]}"},
                "timeout": 3,
            },
        }
        return self.world.machine(name, tree, PORTS[name])

    def _restarting(self, _machine: Machine, power: bool) -> None:
        if power:
            for promise in self.promises.values():
                promise.lost_power()

    def given(self, *write: Any) -> None:
        """A primary journal has taken a write: see Prefixes."""
        self._find(lambda: self.prefixes.was_given(*write))

    def restored(self, name: str, sequence: int) -> None:
        """The array `name` has restored so many records, durably."""
        self.told = sequence
        array = self.world.machines[name].array
        row = array.replication.table.group(GROUP) if array is not None else None
        if row is not None and row.consistent:
            paths = [self.world.machines[name].folder / "volumes" / f"{volume}.img" for volume in VOLUMES]
            self._find(lambda: self.prefixes.check(sequence, paths))

    def _find(self, look: Callable[[], None]) -> None:
        if self.resynced:
            return
        try:
            look()
        except Violated as violated:
            if self.broken is None:
                self.world.trace.note("-", f"found: {violated}")
            self.broken = self.broken or violated

    def _check_found(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def _command(self, machine: Machine, name: str, told: dict[str, Any]) -> dict[str, Any]:
        """The edited data of a command. Raises Violated, and NoAnswerError."""
        number = Identification(b"operator", 1, next(self._counter))
        request = Request(REGISTRY.by_name[name].number, number, json.dumps(told).encode())
        self.commanded += 1
        now = self.world.loop.time
        answer = await slots.send(
            self._devices[machine.name], request, self._random.randrange, now, now() + COMMAND_SECONDS
        )
        if answer.result != Result.OK:
            raise Violated(f"{name} at {machine.name}: {Result(answer.result).name} {answer.edited.decode()}")
        edited: dict[str, Any] = json.loads(answer.edited)
        return edited

    async def _create(self) -> None:
        """paircreate, as a host's tool does it."""
        luns = {"luns": list(range(len(VOLUMES)))}
        found = {
            machine.name: await self._command(machine, "pair-status", luns) for machine in (self.near, self.far)
        }  # fmt: skip
        for machine, other, side in ((self.near, self.far, "P"), (self.far, self.near, "S")):
            there = {pair["lun"]: pair["volume"] for pair in found[other.name]["pairs"]}
            pairs = [
                {
                    "number": lun,
                    "name": volume,
                    "lun": lun,
                    "peer_lun": lun,
                    "peer_volume": there[lun],
                    "peer_size": VOLUME_BYTES,
                }
                for lun, volume in enumerate(VOLUMES)
            ]
            told = {
                "group": GROUP,
                "id": GROUP_ID,
                "side": side,
                "epoch": 1,
                "pairs": pairs,
                "peer": other.name,
                "peer_serial": other.tree["array"]["serial"],
                "journal": JOURNAL,
                "peer_journal": JOURNAL,
            }
            await self._command(machine, "pair-create", told)

    async def run(self) -> None:
        """All of it. Raises Violated."""
        world = self.world
        for machine in (self.near, self.far):
            await self.faults.start(machine)
        await self._create()
        length = SECONDS_MIN * (SECONDS_MAX / SECONDS_MIN) ** world.random("length").random()
        until = world.loop.time() + length
        streams = [write_on(self.regions, world.random(f"stream {number}"), until) for number in range(STREAMS)]
        await together([*streams, self.faults.make(until)])
        self._check_found()
        world.trace.note("-", "nothing fails any more")
        await self.faults.heal()
        await self._settle()
        for region in self.regions:
            await region.read_all()
        await self._compare()
        self.restored("far", self.told)
        self._check_found()
        for machine in (self.near, self.far):
            if await machine.stop() is not True:
                raise Violated(f"{machine.name} could not be stopped")

    async def _settle(self) -> None:
        """Waits until both sides say PAIR, and that nothing is behind; what a power loss has suspended is resynced.
        Raises Violated."""
        told: dict[str, dict[str, Any]] = {}
        for _ in range(SETTLED_SECONDS):
            await asyncio.sleep(1)
            settled = True
            for machine in (self.near, self.far):
                told[machine.name] = status = await self._command(machine, "pair-status", {"group": GROUP})
                states = {pair["state"] for pair in status["pairs"]}
                settled = settled and states == {PAIRED[machine.name]} and status["lag"].get("writes") == 0
            if settled:
                return
            if {pair["state"] for pair in told["near"]["pairs"]} == {"P-VOL PSUE"}:
                await self._resync(told)
        raise Violated(f"not PAIR in {SETTLED_SECONDS} s: {told}")

    async def _resync(self, told: dict[str, dict[str, Any]]) -> None:
        """pairresync, as a host's tool does it. Where the sides have not met yet, it is refused."""
        self.resynced = True
        epoch = max(each["last_epoch"] for each in told.values()) + 1
        for machine, other in ((self.near, self.far), (self.far, self.near)):
            own, there = told[machine.name], told[other.name]
            states = {str(pair["number"]): pair["state"] for pair in there["pairs"]}
            rows = {"generation": there["generation"], "consistent": there["consistent"], "states": states}
            asked = {"group": GROUP, "generation": own["generation"], "rows": rows, "epoch": epoch}
            try:
                await self._command(machine, "pair-resync", asked)
            except Violated as refused:
                self.world.trace.note("operator", str(refused))
                return

    async def _compare(self) -> None:
        """The S-VOLs are the same. Raises Violated."""
        for lun, volume in enumerate(VOLUMES):
            for lba in range(0, BLOCKS, READ_ALL_BLOCKS):
                p_vol, s_vol = [await host.read(lun, lba, READ_ALL_BLOCKS) for host in self._hosts.values()]
                if not (p_vol.good and s_vol.good):
                    raise Violated(f"{volume} cannot be read: {p_vol}, {s_vol}")
                if p_vol.data != s_vol.data:
                    raise Violated(f"{volume}: its S-VOL differs, from block {lba} on")


async def paired(world: World) -> None:
    """See the module."""
    world.scenario = scenario = Paired(world)
    with replaced(stand_ins(scenario)):
        await scenario.run()
