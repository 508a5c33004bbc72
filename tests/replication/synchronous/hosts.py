"""Hosts that write to synchronous P-VOLs, and what may be where because of it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from arrayd.volumes.volume import VolumeError
from tests.replication.modelled import Crash
from tests.replication.synchronous.sides import NUMBERS, REGION, Array, Sides

BLOCK = 512
BLOCKS = 20
"""That are written to, of each volume: some regions."""
SIZE = 16 * REGION


@dataclass
class Written:
    """A write of a host: when it began, and from when on it can have no effect any more."""

    number: int
    blocks: range
    begun: int
    ended: float = math.inf
    answered: bool = False
    failed: bool = False
    """Its host was told so: it may be there, or come later, until both sides are the same again."""


@dataclass
class Hosts:
    """What hosts have written to `sides`, and what may be where because of it."""

    sides: Sides
    writes: dict[int, Written] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    allowed: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    time: int = 0

    def tick(self) -> int:
        self.time += 1
        return self.time

    def write(self, number: int, first: int, count: int) -> None:
        blocks, write_id = range(first, min(first + count, BLOCKS)), len(self.writes) + 1
        self.writes[write_id] = Written(number, blocks, self.tick())
        for block in blocks:
            self.allowed.setdefault((number, block), {0}).add(write_id)
        task = asyncio.ensure_future(self._write(write_id))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _write(self, write_id: int) -> None:
        write = self.writes[write_id]
        data = write_id.to_bytes(4, "big") * (BLOCK // 4) * len(write.blocks)
        machine = self.sides.near.machine
        try:
            await self.sides.write(write.number, write.blocks[0] * BLOCK, data)
        except (VolumeError, Crash):
            write.failed = not machine.dead
            return
        if machine.dead:
            return
        write.answered, write.ended = True, self.tick()
        for block in write.blocks:
            allowed = self.allowed[write.number, block]
            gone = {each for each in allowed if each != write_id and self._ended(each) < write.begun}
            allowed -= gone

    def _ended(self, write_id: int) -> float:
        return self.writes[write_id].ended if write_id else -1

    def die(self) -> None:
        """Those that were not answered never will be."""
        for task in list(self.tasks):
            task.cancel()
        for write in self.writes.values():
            if write.ended == math.inf:
                write.ended = self.tick()

    def are_the_same(self) -> None:
        """Both sides are: what hosts were told has failed does not come any more."""
        for write in self.writes.values():
            if write.failed and write.ended == math.inf:
                write.ended = self.tick()

    def contents(self, array: Array) -> dict[tuple[int, int], int]:
        return {
            (number, block): int.from_bytes(array.files[number].content[block * BLOCK : block * BLOCK + 4], "big")
            for number in NUMBERS
            for block in range(BLOCKS)
        }

    def take_as_it_is(self) -> None:
        """Power was lost where that may take what was answered."""
        for place, content in self.contents(self.sides.near).items():
            self.allowed[place] = {content} | {
                each for each in self.allowed.get(place, {0}) if each and self._ended(each) == math.inf
            }

    def check(self, why: str) -> None:
        wrong = {
            place: (content, self.allowed.get(place, {0}))
            for place, content in self.contents(self.sides.near).items()
            if content not in self.allowed.get(place, {0})
        }
        assert not wrong, f"{why}: {wrong}"
