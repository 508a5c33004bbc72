"""Arrays in a row, each in the process of the test: `c` has the volume, `b` leads to it, and `a` to `b`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.lab.array import SlowSyncs, slow_syncs
from tests.lab.disk import disk
from tests.lab.row import Row

__all__ = ["disk", "slow_syncs"]


@pytest.fixture
async def slow_row(slow_syncs: SlowSyncs, row: Row) -> AsyncIterator[Row]:
    """As `row`, with syncs that wait until the gate opens; at the end it is open, since arrays sync when they stop."""
    yield row
    slow_syncs.gate.set()


@pytest.fixture
async def row(disk: Path) -> AsyncIterator[Row]:
    """`c`, with `b` and `a` before it."""
    row = Row(disk)
    async with AsyncExitStack() as stack:
        for name, leads_to in (("c", None), ("b", ("c", 0)), ("a", ("b", 0))):
            await row.start(name, leads_to)
            stack.push_async_callback(_stop, row, name)
        yield row
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _stop(row: Row, name: str) -> None:
    if name in row.arrays:
        await row.stop(name)
