"""Waiting for what must come, and not for longer than a limit."""

import asyncio
import time
from collections.abc import Awaitable, Callable

LIMIT_SECONDS = 20.0
PAUSE_SECONDS = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Waits until it holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        await asyncio.sleep(PAUSE_SECONDS)


async def until_told(condition: Callable[[], Awaitable[bool]]) -> None:
    """The same of what has to be asked for."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, "it does not come"
        await asyncio.sleep(PAUSE_SECONDS)
