"""Machines with whole arrays on them, in one process and in virtual time, everything decided by one seed.

`World.installed()` puts the doors of the simulation in the place of the real ones, for as long as it is entered. A
scenario makes machines, starts arrays on them, and does with them what it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from arrayd import log
from arrayd.array import BOOT_BYTES, Array, StartError
from arrayd.blockfile.writeback import Writeback
from arrayd.config.schema import Config
from arrayd.config.validation import validate
from arrayd.scsi.target import ScsiTarget
from tests.simulation import block_doors, network, table_doors
from tests.simulation.block_doors import BlockDoors
from tests.simulation.disk import Disk
from tests.simulation.doors import LIFE, Gone, Life, Plan, close_wholly, living
from tests.simulation.loop import SimLoop
from tests.simulation.network import Network
from tests.simulation.table_doors import TableDoors
from tests.simulation.threads import SimExecutor
from tests.simulation.trace import Lines, Log

TMPFS = Path("/dev/shm")
SINCE_1970 = 1_800_000_000.0
"""When a simulation begins, by the clocks of its machines."""
VIRTUAL_SECONDS_MAX = 600.0
WRITEBACK_BYTES = 256 * 1024
GRANT_BYTES = 16 * 1024
"""Small bounds, so that writes meet them."""


class Violated(Exception):
    """A promise was not kept: the text says which."""


class Ordered(dict[Any, None]):
    """A set whose order is that of its making, not that of addresses."""

    def add(self, member: Any) -> None:
        """See set."""
        self[member] = None

    def discard(self, member: Any) -> None:
        """See set."""
        self.pop(member, None)


class SimTarget(ScsiTarget):
    """A target whose nexuses stand in one order."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.nexuses = Ordered()  # type: ignore[assignment]


class NoServer:
    """Stands for the iSCSI server: hosts of a simulation attach to the target."""

    def __init__(self, node: Any, _poll_us: int, _random_bytes: object) -> None:
        self.node = node

    def listen(self, _addresses: object) -> list[Any]:
        """See Server."""
        return []

    def idle(self) -> bool:
        """See Server."""
        return True

    def announce_shutdown(self, _seconds: int) -> None:
        """See Server."""

    def pause(self) -> None:
        """See Server."""

    def close(self) -> None:
        """See Server."""

    def stop_listening(self) -> None:
        """See Server."""


class Machine:
    """The computer of one array: its disk, its clock, and the life on it, if there is one."""

    def __init__(self, world: World, name: str, tree: Mapping[str, Any]) -> None:
        self.world = world
        self.name = name
        self.folder = world.folder / name
        self.folder.mkdir()
        self.random = world.random(f"machine {name}")
        self.disk = Disk(self.folder, world.random(f"disk {name}"))
        self.tree: dict[str, Any] = {**tree, "state_dir": str(self.folder)}
        self.clock_offset = 0.0
        self.lives = 0
        self.boots = 1
        """Times that it got power."""
        self.life: Life | None = None
        self.array: Array | None = None
        self.there = asyncio.Event()
        """Set while hosts reach the array."""
        self.next_plan: Plan | None = None
        """How the next life is to end."""
        self.died: list[Life] = []
        self.restarting: Callable[[Machine, bool], None] = lambda _machine, _power: None
        """What is to be known when files come back as the disk has them; with whether there was a power loss."""

    @property
    def alive(self) -> Life:
        """The life of the array that hosts reach. Raises Gone."""
        if self.life is None or not self.life.alive or not self.there.is_set():
            raise Gone
        return self.life

    @property
    def boot(self) -> bytes:
        """What an array takes for the boot id."""
        return f"{self.name[:8]} {self.boots}".encode().ljust(BOOT_BYTES)

    @property
    def is_down(self) -> bool:
        """Whether there is no life on it."""
        return self.life is None

    async def start(self) -> bool:
        """Starts the array; whether that went well, and it was not killed meanwhile. Raises Violated."""
        assert self.life is None
        world = self.world
        self.lives += 1
        self.life = life = Life(self.name, self.lives, self.random, world.trace, self._ended)
        life.plan, self.next_plan = self.next_plan, None
        world.network.with_power.add(self.name)
        world.trace.note(self.name, f"starts, life {self.lives}")
        array = Array(self._config())
        task = await self._ending(life, array.start)
        if task is None:
            return False
        error = task.exception()
        if error is None:
            self.array = array
            self.there.set()
            return True
        life.over()
        if isinstance(error, StartError) and world.faulty:
            world.trace.note(self.name, f"did not start: {error}".replace(str(world.folder), ""))
            return False
        raise Violated(f"{self.name} does not start: {error!r}") from error

    async def _ending(self, life: Life, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Future[Any] | None:
        """Waits for what a life does; None: it was killed meanwhile."""
        over: asyncio.Future[None] = self.world.loop.create_future()
        life.waiting[over] = None
        try:
            task = life.run(_begin, work)
            task.add_done_callback(partial(_let_go, over))
            await over
        except Gone:
            return None
        finally:
            life.waiting.pop(over, None)
        return task

    def _config(self) -> Config:
        config, mistakes = validate(Config, self.tree, self.folder)
        assert config is not None, mistakes
        return config

    async def stop(self) -> bool | None:
        """Stops the array as an operator does: whether all volumes were synced; None: it was killed meanwhile. Raises
        Gone."""
        life, array = self.alive, self.array
        assert array is not None
        self.there.clear()
        self.world.trace.note(self.name, "stops")
        task = await self._ending(life, array.stop)
        if task is None:
            return None
        synced: bool = task.result()
        if life.alive:
            life.over()
        return synced

    def _ended(self, life: Life) -> None:
        """A life of it has ended."""
        self.there.clear()
        world = self.world
        if life.power:
            world.network.with_power.discard(self.name)
            self.boots += 1
        world.network.forget(life)
        world.blocks.forget(life)
        world.tables.forget(life)
        self.died.append(life)
        if life.died_at is not None:
            world.deaths["power loss" if life.power else "kill", life.died_at] += 1
        self.life = self.array = None
        self.restarting(self, life.power)
        self.disk.restart(life.power)


def _begin(work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(work())


def _let_go(over: asyncio.Future[None], _task: asyncio.Future[Any]) -> None:
    if not over.done():
        over.set_result(None)


class World:
    """Everything there is in one run. `show` takes each line of the trace."""

    def __init__(self, seed: int, show: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.loop = SimLoop(VIRTUAL_SECONDS_MAX)
        self.trace = Lines(self.loop.time, show)
        self.folder = Path(tempfile.mkdtemp(prefix="arrayd-simulation-", dir=TMPFS if TMPFS.is_dir() else None))
        self.log = Log(self.trace, str(self.folder))
        self.network = Network(self.loop, self.random("network"))
        self.machines: dict[str, Machine] = {}
        self.blocks = BlockDoors(lambda life: self.machines[life.name].disk)
        self.tables = TableDoors()
        self.deaths: Counter[tuple[str, str]] = Counter()
        """How lives ended, and at which moment."""
        self.scenario: Any = None
        """What runs in it."""
        self.faulty = True
        """Whether faults happen still."""

    def random(self, of: str) -> Random:
        """A source of chance of its own for each that needs one."""
        return Random(f"{self.seed} {of}")

    def machine(self, name: str, tree: Mapping[str, Any], port: int) -> Machine:
        """A new machine; others reach its array at `port`."""
        machine = self.machines[name] = Machine(self, name, tree)
        self.network.machines[port] = name
        return machine

    def run(self, scenario: Callable[[World], Any]) -> None:
        """Runs `await scenario(world)`. Raises Violated, and Stuck."""
        with self.installed():
            try:
                self.loop.run_until_complete(scenario(self))
                if self.loop.faults:
                    raise Violated(f"a fault of the program: {self.loop.faults[0]}")
            finally:
                self._end()

    # -- doors -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """While entered, arrays of this process live in this world."""
        stand_ins = {
            **block_doors.stand_ins(self.blocks),
            **table_doors.stand_ins(self.tables),
            **network.stand_ins(self.network),
            "arrayd.array.os": ArrayOs(),
            "arrayd.array.time": Clocks(self),
            "arrayd.array._boot": lambda: self.machines[living().name].boot,
            "arrayd.array.ThreadPoolExecutor": SimExecutor,
            "arrayd.array.Ring": NoRing,
            "arrayd.array.Writeback": SmallWriteback,
            "arrayd.array.Server": NoServer,
            "arrayd.array.ScsiTarget": SimTarget,
            "arrayd.array._raise_descriptor_limit": lambda: None,
            "arrayd.blockfile.writeback.GRANT_BYTES": GRANT_BYTES,
        }
        with replaced(stand_ins):
            self.log.configure()
            try:
                yield
            finally:
                log.configure(level="warning")

    def _end(self) -> None:
        """Nothing of it goes on, and nothing is left."""
        lives = [life for machine in self.machines.values() for life in (*machine.died, machine.life) if life]
        for life in lives:
            life.alive = False
        hook, sys.unraisablehook = sys.unraisablehook, lambda _told: None
        try:
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                close_wholly(task.get_coro())
            self.loop.close()
            for life in lives:
                life.bury()
                self.tables.forget(life)
        finally:
            sys.unraisablehook = hook
        for machine in self.machines.values():
            machine.disk.close()
        shutil.rmtree(self.folder)


class ArrayOs:
    """Stands for `os` in `arrayd/array.py`: randomness."""

    def urandom(self, count: int) -> bytes:
        """See os.urandom."""
        return living().random.randbytes(count)


class Clocks:
    """Stands for `time` in `arrayd/array.py`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.monotonic = world.loop.time

    def time(self) -> float:
        """Seconds since 1970, by the clock of the machine."""
        life = LIFE.get(None)
        offset = self._world.machines[life.name].clock_offset if life is not None else 0.0
        return SINCE_1970 + self._world.loop.time() + offset

    def time_ns(self) -> int:
        """The same in nanoseconds."""
        return round(self.time() * 1e9)


class NoRing:
    """Stands for Ring: the kernel offers none."""

    @classmethod
    def or_none(cls) -> None:
        """See Ring."""
        return


class SmallWriteback:
    """Stands for Writeback: another bound, and files in one order."""

    @classmethod
    def for_this_machine(cls) -> Writeback:
        """See Writeback."""
        writeback = Writeback(WRITEBACK_BYTES)
        writeback.shares = Ordered()  # type: ignore[assignment]
        return writeback


@contextlib.contextmanager
def replaced(stand_ins: Mapping[str, object]) -> Iterator[None]:
    """Puts each in the place of what has that dotted name, and everything back at the end."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for name, stand_in in stand_ins.items():
            place, attribute = _place(name)
            before.append((place, attribute, getattr(place, attribute)))
            setattr(place, attribute, stand_in)
        yield
    finally:
        for place, attribute, value in reversed(before):
            setattr(place, attribute, value)


def _place(name: str) -> tuple[Any, str]:
    """The module or class that a dotted name ends in, and the attribute."""
    path, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(path), attribute
    except ModuleNotFoundError:
        module, _, owner = path.rpartition(".")
        return getattr(importlib.import_module(module), owner), attribute
