"""Hosts that fill the journal of a group: what is done when it is nearly full (PFUL) or full (PFUS), which a group is
for a short time only and seldom by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.simulation.doors import Gone
from tests.simulation.faults import Faults
from tests.simulation.hosts import BLOCK_BYTES
from tests.simulation.operations import Operations
from tests.simulation.world import World
from tests.simulation.writers import Region

WRITES, BLOCKS_MAX = 32, 200
"""So many writes, or some more, fill a journal; and how long they are at the most."""
READY_SECONDS = 6.0
"""How long it is waited for PAIR before."""
CHECK_SECONDS = 0.05
FULL_SHARE = 0.4
"""So often it is filled until it is full."""
BY_HAND_SHARE = 0.6
"""So often what comes then is a verb, and else a fault."""


class Filling:
    """Of the journals, of so many bytes, of the group that `regions` are written of."""

    def __init__(self, world: World, regions: Sequence[Region], operations: Operations, bytes_each: int) -> None:
        self._loop = world.loop
        self._regions = regions
        self._operations = operations
        self._blocks = min(BLOCKS_MAX, bytes_each // WRITES // BLOCK_BYTES)
        self._random = world.random("filling")

    async def ready(self) -> bool:
        """Waits a while for PAIR, which alone becomes PFUL; whether the group shows it."""
        late = self._loop.time() + READY_SECONDS
        while self._operations.shown() != "PAIR" and self._loop.time() < late:  # noqa: ASYNC110
            await asyncio.sleep(CHECK_SECONDS)
        return self._operations.shown() == "PAIR"

    async def fill(self) -> None:
        """Hosts write to the P-VOLs until their journal is nearly full, or full, or the group is something else."""
        until_full = self._random.random() < FULL_SHARE
        while_shown = ("PAIR", "PFUL") if until_full else ("PAIR",)
        for _ in range(2 * WRITES):
            if self._operations.shown() not in while_shown:
                return
            region = self._random.choice(self._regions)
            start = self._random.randrange(region.lbas.stop - self._blocks)
            lbas = range(start, start + self._blocks)
            if region.promise.is_open and region.is_free(lbas):
                try:
                    await region.write(lbas, fua=False)
                except Gone:
                    return

    async def then(self, faults: Faults) -> None:
        """Something is done to it at once. Raises Violated."""
        if self._operations.shown() in ("PFUL", "PFUS"):
            by_hand = self._random.random() < BY_HAND_SHARE
            await (self._operations.do_any() if by_hand else faults.make_one(alike=True))
