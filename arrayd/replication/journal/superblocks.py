"""The two superblocks of a journal: written in turn, so that what is being written is never the one in force."""

from __future__ import annotations

import mmap

from arrayd.replication.journal.format import (
    SUPERBLOCK_BYTES,
    SUPERBLOCK_PLACES,
    FormatError,
    Role,
    Superblock,
    decode_superblock,
)
from arrayd.replication.journal.regions import PAGE_BYTES
from arrayd.volumes.volume import Volume, finished


async def read_superblock(volume: Volume) -> Superblock | None:
    """The superblock in force; None if there is none, or none that this program knows. Raises VolumeFailed."""
    page = memoryview(mmap.mmap(-1, PAGE_BYTES))
    found: list[Superblock] = []
    for place in SUPERBLOCK_PLACES:
        if place + PAGE_BYTES > volume.size:
            continue
        await finished(volume.read(place, page))
        try:
            found.append(decode_superblock(bytes(page[:SUPERBLOCK_BYTES])))
        except FormatError:
            pass
    return max(found, key=lambda superblock: superblock.counter, default=None)


async def has_journal(volume: Volume, role: Role, group: bytes, epoch: int) -> bool:
    """Whether the journal of this role, group and epoch is what is on the volume. Raises VolumeFailed."""
    there = await read_superblock(volume)
    return there is not None and (there.role, there.group, there.epoch) == (role, group, epoch)


async def write_superblock(volume: Volume, superblock: Superblock) -> None:
    """Puts a superblock in force, durably: its counter is one more than that of the one before, so that it goes to the
    place of the one before that. Raises VolumeError."""
    page = memoryview(mmap.mmap(-1, PAGE_BYTES))
    page[:SUPERBLOCK_BYTES] = superblock.encode()
    place = SUPERBLOCK_PLACES[superblock.counter % len(SUPERBLOCK_PLACES)]
    await finished(volume.write(place, page))
    await finished(volume.flush())
