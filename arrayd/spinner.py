"""Adaptive polling: after activity the event loop spins for a while before it sleeps.

At depth 1 the wake-up of an idle processor is what takes the time. By the clock, and not by the loop's time: uvloop's
counts in milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import time


class Spinner:
    """Keeps the event loop from sleeping for `microseconds` after each touch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, microseconds: int) -> None:
        self._loop = loop
        self.seconds = microseconds / 1e6
        self._until = 0.0
        self._spinning = False

    def touch(self) -> None:
        """There was activity: spin on from now."""
        self._until = time.monotonic() + self.seconds
        if not self._spinning and self.seconds:
            self._spinning = True
            self._loop.call_soon(self._spin)

    def _spin(self) -> None:
        """A callback that is always ready keeps the loop polling; at its end the loop sleeps again. Who has something
        to do goes first: what we poll for may be what it makes."""
        if time.monotonic() < self._until:
            os.sched_yield()
            self._loop.call_soon(self._spin)
        else:
            self._spinning = False
