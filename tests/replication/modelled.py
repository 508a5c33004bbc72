"""A disk in memory for `FileVolume`, which loses power: what waits ends some turns of the loop later, as chance has it.

`Machine` is what the disks of one machine share: whether it lives, and when it dies. A call that the process dies in
has its effect or not; after that none has any, whatever the dead process still seems to do.
"""

import asyncio
import random
from collections.abc import Callable

from arrayd.volumes.volume import VolumeFailed

BLOCK = 512


class Crash(Exception):
    """The process dies here, or is dead."""


class Machine:
    """`fuse`: so many calls of disks go well, and the process dies in the next one."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.fuse: int | None = None
        self.dead = False

    def call(self, effect: Callable[[], None]) -> None:
        """One call of a disk."""
        if self.dead:
            raise Crash
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                if self.chance.random() < 0.5:
                    effect()
                self.dead = True
                raise Crash
        effect()

    def later(self, effect: Callable[[], None]) -> asyncio.Future[None]:
        """A call that ends after some turns, with its effect then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        left = self.chance.randrange(4)

        def turn() -> None:
            nonlocal left
            if left:
                left -= 1
                loop.call_soon(turn)
                return
            try:
                self.call(effect)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        loop.call_soon(turn)
        return future


class ModelFile:
    """What `FileVolume` wants of a `BlockFile`. `refusals`: how likely it is that a write must wait."""

    wary = 0

    def __init__(self, machine: Machine, size: int, refusals: float) -> None:
        self.machine = machine
        self.size = size
        self.refusals = refusals
        self.content = bytearray(size)
        """What the process sees, and any after it."""
        self.durable = bytearray(size)
        self.since: list[tuple[int, int, bytes]] = []
        """What was written since the last sync, numbered."""
        self.puts = 0
        self.failure: OSError | None = None
        self.fails: Exception | None = None
        """What every write raises that waits, and every sync."""
        self.sync_fails_after = -1
        """So many syncs go well, and the next one fails; -1: all go well. What it was to write is taken for clean."""
        self.calls: list[str] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def put(self, offset: int, data: bytes) -> None:
        self.content[offset : offset + len(data)] = data
        self.since.append((self.puts, offset, data))
        self.puts += 1

    def read_now(self, offset: int, view: memoryview) -> bool:
        view[:] = self.content[offset : offset + len(view)]
        return True

    def warm(self, _offset: int, _length: int) -> bool:
        return True

    async def extents(self, offset: int, length: int, _limit: int) -> list[tuple[int, int, bool]]:
        return [(offset, length, True)]

    def write_now(self, offset: int, view: memoryview) -> bool:
        if self.fails is not None or self.machine.chance.random() < self.refusals:
            return False
        self.calls.append("write")
        self.machine.call(lambda: self.put(offset, bytes(view)))
        return True

    def write(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        def effect() -> None:
            if self.fails is not None:
                raise self.fails
            # The memory is looked at when the thread runs.
            self.put(offset, bytes(view))

        self.calls.append("write later")
        return self.machine.later(effect)

    def punch(self, offset: int, length: int) -> asyncio.Future[None]:
        return self.write(offset, memoryview(bytes(length)))

    zero = punch

    def sync(self) -> asyncio.Future[None]:
        count = self.puts
        self.calls.append("sync")

        def effect() -> None:
            if self.fails is not None:
                raise self.fails
            fails = self.sync_fails_after == 0
            self.sync_fails_after = max(self.sync_fails_after - 1, -1)
            while self.since and self.since[0][0] < count:
                _, offset, data = self.since.pop(0)
                if not fails:
                    self.durable[offset : offset + len(data)] = data
            if fails:
                raise VolumeFailed("gone")

        return self.machine.later(effect)

    commit = sync

    def lose_power(self, unit: int) -> None:
        """Of what is not durable, any units of any writes are there."""
        choices: dict[int, list[bytes]] = {}
        for _, offset, data in self.since:
            for at in range(0, len(data), unit):
                choices.setdefault(offset + at, []).append(data[at : at + unit])
        for at, contents in choices.items():
            chosen = self.machine.chance.randrange(len(contents) + 1)
            if chosen:
                self.durable[at : at + unit] = contents[chosen - 1]
        self.since = []
        self.content[:] = self.durable
