"""Sums of what a volume has, by which two sides find where they differ without sending it."""

from __future__ import annotations

import asyncio
import mmap

from crc32c import crc32c

from arrayd.replication.synchronous.formats import SUM_BYTES, SUMS_MAX
from arrayd.volumes.volume import Volume, finished

TURN_SUMS = 8
"""So many are made before others get their turn: less than 1 ms of work."""


async def sums_of(volume: Volume, offset: int, length: int) -> list[int]:
    """CRC32C of each SUM_BYTES of the range, the last one of what is left; SUMS_MAX of them at the most. Raises
    VolumeError."""
    assert 0 < length <= SUM_BYTES * SUMS_MAX
    memory = memoryview(mmap.mmap(-1, SUM_BYTES))
    sums = []
    for number, at in enumerate(range(offset, offset + length, SUM_BYTES), 1):
        view = memory[: min(SUM_BYTES, offset + length - at)]
        if not volume.read_now(at, view):
            await finished(volume.read(at, view))
        sums.append(crc32c(view))
        if not number % TURN_SUMS:
            await asyncio.sleep(0)
    return sums
