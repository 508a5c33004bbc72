"""Two sides that are compared while hosts write, with bits flipped behind their backs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arrayd.replication.group_rows import Mode
from arrayd.replication.statuses import Refusal, State
from arrayd.replication.verifying.formats import Leads
from arrayd.replication.verifying.told import Outcome, Verifying
from arrayd.replication.verifying.verifier import Verifier
from tests.replication.synchronous.sides import NUMBERS, REGION, Sides, until_in_time

PART_BYTES = 1024 * 1024
SIZE = 2 * PART_BYTES + 9 * REGION
Region = tuple[int, int]
"""A pair's number and an offset in it."""


class Compared:
    """Sides in PAIR, alike, with something in them."""

    def __init__(self, mode: Mode, seed: int = 1, refusals: float = 0.1) -> None:
        self.sides = Sides(SIZE, seed=seed, refusals=refusals, mode=mode)
        self.chance = random.Random(seed)
        self.kept: set[Region] = set()
        """Where nobody writes."""
        self.writes = 0

    async def begin(self) -> None:
        for number in NUMBERS:
            data = self.chance.randbytes(SIZE // 4) + bytes(SIZE - SIZE // 4)
            for array in (self.sides.near, self.sides.far):
                array.files[number].content[:] = array.files[number].durable[:] = data
        await self.sides.pair(State.P_PAIR, marked=False)

    @property
    def verifier(self) -> Verifier:
        stage = self.sides.far.stage
        assert stage is not None
        assert stage.verifier is not None
        return stage.verifier

    def flip(self, far: bool, region: Region, count: int = 1) -> None:
        """Bits of a region are others, and nobody knows; nobody writes there."""
        number, offset = region
        content = (self.sides.far if far else self.sides.near).files[number].content
        for _ in range(count):
            content[offset + self.chance.randrange(REGION)] ^= 1 << self.chance.randrange(8)
        self.kept.add(region)

    def regions(self, count: int) -> list[Region]:
        """Some of them, each another one."""
        places = [(number, at * REGION) for number in NUMBERS for at in range(SIZE // REGION)]
        return self.chance.sample(places, count)

    @property
    def _full(self) -> bool:
        """Whether the journal would be before long: a host's machine is not as quick as this one."""
        stage = self.sides.near.stage
        return stage is not None and (stage.progress().used_share or 0.0) > 0.4

    async def write(self) -> None:
        """A host's, anywhere but in `kept`."""
        number, blocks = self.chance.choice(NUMBERS), self.chance.randrange(1, 40)
        offset = self.chance.randrange(SIZE // 512 - blocks) * 512
        length = blocks * 512
        if any(each == number and offset < at + REGION and at < offset + length for each, at in self.kept):
            return
        self.writes += 1
        kind = self.chance.randrange(8)
        volume = self.sides.host(number)
        if kind == 0:
            pending = volume.write_zeros(offset, length)
        else:
            data = memoryview(self.chance.randbytes(length))
            pending = None if volume.write_now(offset, data) else volume.write(offset, data)
        if pending is not None:
            await pending

    @asynccontextmanager
    async def written(self, writers: int = 4) -> AsyncIterator[None]:
        """By hosts, all the time."""
        ends = False

        async def writing() -> None:
            while not ends:
                await self.write()
                await asyncio.sleep(0.001 if self._full else 0)

        tasks = [asyncio.ensure_future(writing()) for _ in range(writers)]
        try:
            yield
        finally:
            ends = True
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)

    async def verify(self, leads: Leads | None = None, pair: int | None = None) -> Verifying:
        """One, to its end."""
        begun = self.verifier.begin(pair, leads)
        assert not isinstance(begun, Refusal), begun
        return await self.ended()

    async def ended(self) -> Verifying:
        verifier = self.verifier
        await until_in_time(lambda: self.told(verifier).outcome is not Outcome.RUNNING, 60)
        return self.told(verifier)

    @staticmethod
    def told(verifier: Verifier) -> Verifying:
        told = verifier.told()
        assert told is not None
        return told

    async def alike(self) -> None:
        await until_in_time(self.sides.alike)


def found(told: Verifying) -> set[Region]:
    """The regions that it has found."""
    return {
        (each.number, at)
        for each in told.findings.found
        for at in range(each.offset, each.offset + each.length, REGION)
    }
