"""How many commands are begun: so many that a stream of them takes little from the hosts' reads and writes."""

from __future__ import annotations

import asyncio

COMMANDS_PER_SECOND = 80
"""Begun in the long run, by whatever way they come. A command finds the processor's caches cold, and leaves them so for
others: 250 a second took a quarter of the reads of a neighbour at depth 32, 80 a twentieth."""
BURST = 64
"""So many at once are begun without waiting: as many as a command device holds."""


class Pace:
    """Who wants to begin a command takes a turn here."""

    def __init__(self) -> None:
        self._next_at = 0.0

    async def turn(self) -> None:
        """Waits for a turn, which is most often now."""
        now = asyncio.get_running_loop().time()
        interval = 1 / COMMANDS_PER_SECOND
        self._next_at = max(self._next_at, now - BURST * interval) + interval
        if self._next_at > now:
            await asyncio.sleep(self._next_at - now)
