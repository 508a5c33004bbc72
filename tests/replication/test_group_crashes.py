"""A group of three P-VOLs through many lives: killed, and without power, in any call of any disk.

Whatever hosts did: after a restart and redo, the volumes are what the journal's records make of them in their order,
and every write that was answered is among these, or after a power loss every one that was durable. While it lives, the
volumes are the same: what overlaps ends up in the order in which it is in the journal.
"""

import asyncio
import itertools
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import Kind, Position, PrimaryJournal, Record
from arrayd.replication.journal.regions import START
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.redo import redo
from arrayd.replication.statuses import Event
from arrayd.volumes.file_volume import FileVolume
from tests.lab.search import examples
from tests.replication.modelled import BLOCK, Crash, Machine, ModelFile

GROUP = b"a group's number"
BLOCKS = 16
"""Of each volume: few, so that writes overlap."""
VOLUMES = 3
JOURNAL_BYTES = 160 * 4096
TURNS_MAX = 400

Key = tuple[int, int, int, int, bytes]
"""A write as it is known in the journal: volume, kind, offset, extent, data."""
Step = tuple[str, int, int]


def key(record: Record) -> Key:
    entry, data = record
    return entry.volume, entry.kind, entry.offset, entry.extent, bytes(data)


def after(content: bytearray, what: Key) -> None:
    _, kind, offset, extent, data = what
    content[offset : offset + extent] = data if kind == Kind.WRITE else bytes(extent)


@dataclass
class Site:
    """What outlives the process: four disks, and what is known of them."""

    files: list[ModelFile]
    base: list[bytearray]
    """The volumes before the first of `history`."""
    machine: Machine
    history: list[Key] = field(default_factory=list)
    """The records that are known, from `first` on."""
    first: Position = START
    asked: list[Key] = field(default_factory=list)
    """All writes of the last life."""
    answered: set[int] = field(default_factory=set)
    durable: set[int] = field(default_factory=set)
    """Which of them were answered, and which a power loss must not undo."""
    number: int = 0

    def expected(self) -> list[bytearray]:
        volumes = [bytearray(each) for each in self.base]
        for what in self.history:
            after(volumes[what[0]], what)
        return volumes


class Life:
    """One life of the process: opens the journal, redoes it, and serves hosts until it dies."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.machine = site.machine
        self.waiting: set[asyncio.Future[None]] = set()
        self.told: list[Event] = []

    async def open(self, power: bool) -> None:
        site = self.site
        raw = [FileVolume(f"1:{number}", cast(Any, file)) for number, file in enumerate(site.files)]
        volumes = dict(enumerate(raw[:VOLUMES]))
        self.journal = await PrimaryJournal.open(raw[VOLUMES])
        await self.read_history()
        self.check_answered(power)
        await redo(self.journal, volumes)
        if power:
            self.check_after_power_loss()
        else:
            self.check_volumes()
        self.group = PrimaryGroup(self.journal, itertools.count(1).__next__, lambda event, _: self.told.append(event))
        self.volumes = [JournaledVolume(volume, self.group, number) for number, volume in volumes.items()]
        site.asked, site.answered, site.durable = [], set(), set()

    async def read_history(self) -> None:
        """What the journal has, behind what was known of it before it was purged."""
        site, regions = self.site, self.journal.regions
        at = max(regions.oldest, site.first)
        del site.history[at.sequence - site.first.sequence :]
        async for run in self.journal.runs(at, regions.stored):
            site.history += [key(record) for record in run]

    def check_answered(self, power: bool) -> None:
        site = self.site
        safe = site.durable if power else site.answered
        missing = Counter(site.asked[each] for each in safe) - Counter(site.history)
        assert not missing, missing

    def check_volumes(self) -> None:
        for number, expected in enumerate(self.site.expected()):
            assert self.site.files[number].content == expected, f"volume {number}"

    def check_after_power_loss(self) -> None:
        """Blocks that lost writes were for may have any of these; that is what comes to be from now on."""
        site = self.site
        # Of two that free the same blocks nobody can tell which one is lost.
        kept = {what for what in site.history if what[1] == Kind.WRITE}
        lost = [what for what in site.asked if what not in kept]
        for number, expected in enumerate(site.expected()):
            content = site.files[number].content
            for at in range(0, len(content), BLOCK):
                here = bytes(content[at : at + BLOCK])
                may = {bytes(expected[at : at + BLOCK])}
                for what in lost:
                    if what[0] == number and what[2] <= at < what[2] + what[3]:
                        after(image := bytearray(len(content)), what)
                        may.add(bytes(image[at : at + BLOCK]))
                assert here in may, f"volume {number} at {at}"
            site.base[number] = bytearray(content)
        site.first, site.history = self.journal.regions.stored, []

    # -- what hosts do -----------------------------------------------------------------------------------------------

    async def live(self, steps: list[Step]) -> None:
        for what, number, more in steps:
            if self.group.stopped:
                # The journal is full: what it has is in the volumes, and what waits is in neither.
                await self.group.stop()
                await self.read_history()
                self.check_volumes()
                return
            await getattr(self, what)(number, more)
        await self.idle(0, 0)

    def ask(self, what: Key, pending: asyncio.Future[None], durable: bool) -> None:
        site = self.site
        number = len(site.asked)
        site.asked.append(what)
        self.waiting.add(pending)

        def ended(future: asyncio.Future[None]) -> None:
            self.waiting.discard(future)
            if not self.machine.dead and future.exception() is None:
                site.answered.add(number)
                if durable:
                    site.durable.add(number)

        pending.add_done_callback(ended)

    def data(self, blocks: int) -> memoryview:
        self.site.number += 1
        return memoryview(b"".join(self.site.number.to_bytes(4, "big") + bytes([at]) * 508 for at in range(blocks)))

    def one(self, number: int, more: int) -> None:
        volume, at = number % VOLUMES, number // VOLUMES % BLOCKS
        blocks = min(1 + more % 5, BLOCKS - at)
        offset, length = at * BLOCK, blocks * BLOCK
        pvol, kind = self.volumes[volume], (more // 5) % 8
        if kind == 0:
            what: Key = (volume, Kind.UNMAP, offset, length, b"")
            self.ask(what, cast(Any, pvol.unmap(offset, length)), False)
        elif kind == 1:
            what = (volume, Kind.ZEROS, offset, length, b"")
            self.ask(what, cast(Any, pvol.write_zeros(offset, length)), False)
        else:
            data = self.data(blocks)
            what = (volume, Kind.WRITE, offset, length, bytes(data))
            scratch = memoryview(bytearray(data))
            shared = pvol.commit_now(offset, scratch) if kind > 3 else None
            if shared is not None:
                # The receive buffer is used again.
                scratch[:] = bytes(length)
                self.ask(what, shared, False)
            else:
                self.ask(what, cast(Any, pvol.write(offset, scratch, durable=kind == 2)), kind == 2)

    async def burst(self, number: int, more: int) -> None:
        for each in range(1 + more % 7):
            self.one(number + each * (1 + more % 3), more + each * 11)

    async def turn(self, number: int, _more: int) -> None:
        for _ in range(1 + number % 4):
            await asyncio.sleep(0)

    async def compare_and_write(self, number: int, more: int) -> None:
        job = asyncio.ensure_future(self._compare_and_write(number, more))
        self.waiting.add(job)
        job.add_done_callback(self.waiting.discard)

    async def _compare_and_write(self, number: int, more: int) -> None:
        volume, at = number % VOLUMES, number // VOLUMES % BLOCKS
        pvol, offset, data = self.volumes[volume], at * BLOCK, self.data(1)
        here, then = bytearray(BLOCK), bytearray(BLOCK)
        async with pvol.lock(offset, BLOCK):
            assert pvol.read_now(offset, memoryview(here))
            await self.turn(more, 0)
            assert pvol.read_now(offset, memoryview(then))
            assert here == then, "changed under a lock"
            pending = pvol.write_under_lock(offset, data, durable=bool(more % 2))
            self.ask((volume, Kind.WRITE, offset, BLOCK, bytes(data)), cast(Any, pending), bool(more % 2))
            await cast(Any, pending)
            assert pvol.read_now(offset, memoryview(then))
            assert then == data, "not there after the answer"

    async def flush(self, number: int, _more: int) -> None:
        volume, site = number % VOLUMES, self.site
        before = {each for each in site.answered if site.asked[each][0] == volume}
        pending = cast("asyncio.Future[None]", self.volumes[volume].flush())
        self.waiting.add(pending)

        def ended(future: asyncio.Future[None]) -> None:
            self.waiting.discard(future)
            if not self.machine.dead and future.exception() is None:
                site.durable |= before

        pending.add_done_callback(ended)

    async def purge(self, _number: int, _more: int) -> None:
        """The other side has all that is in the journal now."""
        end = await self.group.checkpoint()
        await self.read_history()
        await self.group.purge(end)

    async def idle(self, _number: int, _more: int) -> None:
        """When nothing is under way the volumes are what the journal says."""
        for _ in range(TURNS_MAX):
            if not self.waiting or self.group.stopped:
                break
            await asyncio.sleep(0)
        if not self.group.stopped:
            await self.read_history()
            self.check_volumes()


async def one_life(site: Site, steps: list[Step], power: bool, fuse: int | None) -> bool:
    """Whether it got as far as serving hosts."""
    machine = site.machine
    unforeseen: list[BaseException] = []

    def failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not machine.dead and error is not None:
            unforeseen.append(error)

    asyncio.get_running_loop().set_exception_handler(failed)
    machine.dead, machine.fuse = False, fuse
    life, opened = Life(site), False

    async def live() -> None:
        nonlocal opened
        await life.open(power)
        opened = True
        await life.live(steps)

    living = asyncio.ensure_future(live())
    for _ in range(TURNS_MAX * (len(steps) + 4)):
        await asyncio.sleep(0)
        if living.done() or machine.dead:
            break
    else:
        raise AssertionError("stuck")
    machine.dead = True
    with suppress(Crash):
        if living.done():
            living.result()
    assert not unforeseen, unforeseen
    return opened


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("burst",) * 6 + ("turn",) * 3 + ("compare_and_write", "flush", "purge", "idle")),
        st.integers(0, 200),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=25,
)
LIVES = st.lists(
    st.tuples(STEPS, st.one_of(st.none(), st.integers(0, 80)), st.sampled_from(("kill", "power"))),
    min_size=1,
    max_size=5,
)


@settings(max_examples=examples(60), deadline=None)
@given(LIVES, st.integers(0, 1 << 30), st.sampled_from((0.0, 0.1, 0.5)), st.sampled_from((512, 4096)))
def test_volumes_are_what_the_journal_says(
    lives: list[tuple[list[Step], int | None, str]], seed: int, refusals: float, unit: int
) -> None:
    machine = Machine(seed)
    files = [ModelFile(machine, BLOCKS * BLOCK, refusals) for _ in range(VOLUMES)]
    files.append(ModelFile(machine, JOURNAL_BYTES, refusals))
    site = Site(files, [bytearray(BLOCKS * BLOCK) for _ in range(VOLUMES)], machine)

    async def make() -> None:
        await PrimaryJournal.create(FileVolume("1:journal", cast(Any, files[VOLUMES])), GROUP, 1)

    asyncio.run(make())
    power = False
    for steps, fuse, end in [*lives, ([("burst", 1, 31)], None, "kill")]:
        if asyncio.run(one_life(site, steps, power, fuse)):
            power = False
        if end == "power":
            power = True
            for number, file in enumerate(files):
                file.lose_power(unit if number == VOLUMES else BLOCK)
