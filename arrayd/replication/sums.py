"""Sums of what a volume has, by which two sides find where they differ without sending it: CRC32C of each piece, so
that what differs in one run of 32 bits or fewer is always found, and anything else but once in four billion times.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Sequence

from crc32c import crc32c

from arrayd.replication.asking import Range
from arrayd.volumes.volume import Volume, finished

SUM_BYTES = 64 * 1024
"""What one sum is about at the most, and how much is read at a time."""
SUM_BYTES_MIN = 4096
"""And at the least: a region of a bitmap."""
SUMS_MAX = 1024
"""Of one question."""
TURN_BYTES = 512 * 1024
"""Of so much sums are made before others get their turn: less than 1 ms of work."""


async def sums_of(volume: Volume, offset: int, length: int, sum_bytes: int = SUM_BYTES) -> list[int]:
    """CRC32C of each `sum_bytes` of the range, the last one of what is left; SUMS_MAX of them at the most. Raises
    VolumeError."""
    assert SUM_BYTES % sum_bytes == 0, sum_bytes
    assert 0 < length <= sum_bytes * SUMS_MAX, length
    memory = memoryview(mmap.mmap(-1, SUM_BYTES))
    sums: list[int] = []
    for at in range(offset, offset + length, SUM_BYTES):
        view = memory[: min(SUM_BYTES, offset + length - at)]
        if not volume.read_now(at, view):
            await finished(volume.read(at, view))
        sums += [crc32c(view[begin : begin + sum_bytes]) for begin in range(0, len(view), sum_bytes)]
        if not (at + SUM_BYTES - offset) % TURN_BYTES:
            await asyncio.sleep(0)
    return sums


async def warmed(volume: Volume, offset: int, length: int) -> None:
    """What of the range is not in memory is read, so that its sums are made soon. Raises VolumeError."""
    memory = memoryview(mmap.mmap(-1, SUM_BYTES))
    for at in range(offset, offset + length, SUM_BYTES):
        view = memory[: min(SUM_BYTES, offset + length - at)]
        if volume.warm_file(at, len(view)) is None:
            await finished(volume.read(at, view))


def differing(offset: int, length: int, sum_bytes: int, here: Sequence[int], there: Sequence[int]) -> list[Range]:
    """Where the sums of a range are not the same: pieces of `sum_bytes`, joined where they touch."""
    found: list[Range] = []
    for at, (own, other) in enumerate(zip(here, there, strict=True)):
        if own == other:
            continue
        begin = offset + at * sum_bytes
        end = min(begin + sum_bytes, offset + length)
        if found and sum(found[-1]) == begin:
            begin = found.pop().offset
        found.append(Range(begin, end - begin))
    return found
