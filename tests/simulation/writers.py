"""Hosts that write volumes, read them back, and flush them, by whatever way they see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from arrayd.scsi.sense import Key
from tests.simulation.doors import Gone
from tests.simulation.hosts import Initiator, Response
from tests.simulation.promises import Promise, Work, overlap
from tests.simulation.world import Violated

BLOCKS_MAX = 24
READ_ALL_BLOCKS = 64
TRIES = 30
"""So often, a second apart, something is tried that must go well once faults have stopped."""
THINKING_SECONDS = 0.7
"""Between two commands of one writer, on the average."""
BUSY_SECONDS = 2e-3
BUSY_SHARE = 0.5
"""So often the next command comes after BUSY_SECONDS already."""
PATIENCE_SECONDS = 2.0
"""How long a host waits for an array that is gone."""
BURST, BURST_SHARE = 5, 0.1
"""Commands at once, and how often."""
FLUSHES_UP_TO, READS_FROM, FUA_SHARE = 0.1, 0.7, 0.25
"""What commands are: flushes, writes, some of them with FUA, and reads."""
LONG_SHARE, LONG_BLOCKS_MAX = 0.03, 200
OVERLAP_SHARE, OTHER_WORK_SHARE = 0.15, 0.2
GUARDED = " 27/00"
"""Additional sense of a write that was refused since the volume may not be written."""
EXPECTED_KEYS = frozenset({Key.MEDIUM_ERROR, Key.DATA_PROTECT, Key.ABORTED_COMMAND, Key.NOT_READY})
"""Sense keys with which a command may end while there are faults."""


class Region:
    """Blocks `lbas` of the volume of `promise`, which one host writes by one LUN."""

    def __init__(self, initiator: Initiator, lun: int, promise: Promise, lbas: range, mixed: bool = False) -> None:
        self.initiator = initiator
        self.lun = lun
        self.promise = promise
        self.lbas = lbas
        self.mixed = mixed
        """Whether it is written with UNMAP and WRITE SAME, too, with long writes, and some that overlap others."""
        self._busy: list[range] = []
        self._read: list[range] = []
        self.writes = 0
        """That were carried out, as the host was told."""

    def choose(self, random: Random) -> range | None:
        """Blocks that nobody writes or reads now."""
        count = random.choice((1, 2, 8, random.randint(1, BLOCKS_MAX)))
        if self.mixed and random.random() < LONG_SHARE:
            count = random.randint(BLOCKS_MAX, LONG_BLOCKS_MAX)
        start = random.randrange(self.lbas.start, self.lbas.stop - count)
        if count == 8:
            start -= start % 8
        chosen = range(start, start + count)
        return chosen if self.is_free(chosen) else None

    def choose_again(self, random: Random) -> range | None:
        """Some that are written now, and that nobody reads."""
        if not self.mixed or not self._busy or random.random() >= OVERLAP_SHARE:
            return None
        busy = random.choice(self._busy)
        start = random.randrange(max(busy.start - 2, self.lbas.start), busy.stop)
        chosen = range(start, min(start + random.randint(1, len(busy)), self.lbas.stop))
        return chosen if not any(overlap(chosen, read) for read in self._read) else None

    def is_free(self, lbas: range) -> bool:
        """Whether nobody writes or reads them now."""
        return not any(overlap(lbas, busy) for busy in (*self._busy, *self._read))

    async def write(self, lbas: range, fua: bool, work: Work = Work.DATA) -> None:
        """One write of them."""
        self._busy.append(lbas)
        sent = self.promise.write(lbas, work)
        try:
            answered = partial(self.promise.was_answered, sent, fua and work is Work.DATA)
            response = await self._sent(sent.data, lbas, fua, work, answered)
            if response.good:
                self.writes += 1
            else:
                self._check(response)
                if str(response).endswith(GUARDED):
                    self.promise.was_refused(sent)
        finally:
            self._busy.remove(lbas)
            self.promise.ended(sent)
        if self.promise.fault is not None:
            raise self.promise.fault

    async def write_somehow(self, lbas: range, random: Random) -> None:
        """One write of them, of some kind."""
        work = Work.DATA
        if self.mixed and random.random() < OTHER_WORK_SHARE:
            work = random.choice((Work.SAME, Work.ZEROS, Work.UNMAP))
        await self.write(lbas, fua=random.random() < FUA_SHARE, work=work)

    async def _sent(self, data: bytes, lbas: range, fua: bool, work: Work, answered: Callable[[], None]) -> Response:
        host, lun = self.initiator, self.lun
        if work is Work.DATA:
            return await host.write(lun, lbas.start, data, fua, answered)
        if work is Work.UNMAP:
            return await host.unmap(lun, lbas, answered)
        return await host.write_same(lun, lbas, data, answered)

    async def read(self, lbas: range) -> bool:
        """One read of them; whether it went well."""
        self._read.append(lbas)
        try:
            era, tenure, still = self.promise.era, self.promise.tenure, self.promise.still
            response = await self.initiator.read(self.lun, lbas.start, len(lbas))
            if response.good:
                self.promise.was_read(lbas, response.data, era, tenure, still)
            else:
                self._check(response)
            return response.good
        finally:
            self._read.remove(lbas)

    async def flush(self) -> bool:
        """One SYNCHRONIZE CACHE; whether it went well."""
        answered = partial(self.promise.was_flushed, self.promise.flush())
        response = await self.initiator.flush(self.lun, answered)
        if not response.good:
            self._check(response)
        return response.good

    def _check(self, response: Response) -> None:
        world = self.initiator.machine.world
        if response.aborted or response.key in EXPECTED_KEYS:
            world.trace.note(self.initiator.name, f"LUN {self.lun}: {response}")
            return
        raise Violated(f"{self.initiator.name}, LUN {self.lun}: {response}")

    async def read_all(self) -> None:
        """Reads all that was ever written, until it can be read. Raises Violated."""
        for lbas in runs([lba for lba in self.promise.written if lba in self.lbas], READ_ALL_BLOCKS):
            for _ in range(TRIES):
                if await self.read(lbas):
                    break
                await asyncio.sleep(1)
            else:
                raise Violated(f"{self.initiator.name}, LUN {self.lun}: {lbas} cannot be read any more")


def runs(lbas: Sequence[int], limit: int) -> list[range]:
    """Ascending numbers as ranges of at most `limit`."""
    found: list[range] = []
    for lba in lbas:
        if found and found[-1].stop == lba and len(found[-1]) < limit:
            found[-1] = range(found[-1].start, lba + 1)
        else:
            found.append(range(lba, lba + 1))
    return found


async def write_on(regions: Sequence[Region], random: Random, until: float, bursts: float = BURST_SHARE) -> None:
    """One host's stream of commands, one after the other, but for `bursts`: so often several come at once."""
    loop = asyncio.get_running_loop()
    region = random.choice(regions)
    while loop.time() < until:
        if random.random() < BUSY_SHARE:
            await asyncio.sleep(random.expovariate(1 / BUSY_SECONDS))
        else:
            await asyncio.sleep(random.expovariate(1 / THINKING_SECONDS))
            region = random.choice(regions)
            if region.mixed and not region.promise.is_open:
                region = random.choice(regions)  # mostly where it may be written
        if random.random() < bursts:
            await asyncio.gather(*(_one_of_burst(region, random) for _ in range(BURST)))
        else:
            await _one(region, random, random.random())


async def _one_of_burst(region: Region, random: Random) -> None:
    """One of several at once: writes and flushes."""
    await asyncio.sleep(random.expovariate(1 / BUSY_SECONDS))
    await _one(region, random, random.random() * READS_FROM)


async def _one(region: Region, random: Random, choice: float) -> None:
    """One command: which, `choice` says."""
    lbas = (region.choose_again(random) if choice < READS_FROM else None) or region.choose(random)
    try:
        if choice < FLUSHES_UP_TO:
            await region.flush()
        elif lbas is not None and choice < READS_FROM:
            await region.write_somehow(lbas, random)
        elif lbas is not None:
            await region.read(lbas)
    except Gone:
        await _again(region, lbas, random)


async def _again(region: Region, lbas: range | None, random: Random) -> None:
    """A host that lost its array tries what it did last once more, as soon as it can."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await region.initiator.machine.there.wait()
        await asyncio.sleep(random.expovariate(1 / BUSY_SECONDS))
        if lbas is not None and region.is_free(lbas):
            await region.write_somehow(lbas, random)
    except (Gone, TimeoutError):
        return
