"""Long work in bounded steps: what a handler awaits between them, and the scratch memory it works in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager

from arrayd.buffers import BufferPool, taken

STEP_BYTES = 256 * 1024
"""Data that one step reads, compares or writes: what the event loop does without looking up."""

SCRATCH_BYTES = 16 * STEP_BYTES
"""Scratch memory of a target. Its own pool: whoever holds scratch waits for no other memory, so nobody waits in a
circle when the pool that Data-Out lies in is used up."""


async def settled(pending: Awaitable[None] | None) -> None:
    """Awaits what a volume answered; where it answered at once, others get their turn."""
    if pending is None:
        await asyncio.sleep(0)
    else:
        await pending


def steps(offset: int, length: int, step: int = STEP_BYTES) -> Iterator[tuple[int, int]]:
    """`offset`, `length` cut into pieces of at most `step` bytes."""
    end = offset + length
    while offset < end:
        size = min(step, end - offset)
        yield offset, size
        offset += size


@asynccontextmanager
async def scratch(pool: BufferPool) -> AsyncIterator[memoryview]:
    """STEP_BYTES of memory to work in."""
    buffer = await taken(pool, STEP_BYTES)
    try:
        yield buffer.view
    finally:
        buffer.release()
