"""How many commands are begun: so many that a stream of them takes little from the hosts' reads and writes."""

from __future__ import annotations

import asyncio

COMMANDS_PER_SECOND = 250
"""Begun in the long run, by whatever way they come. A command takes 0.2 ms of a processor with its WRITE and READ: so
many take a twentieth of one."""
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
