"""What hosts see in the place of a volume of a pair: reads are the volume's own, as fast as they are without.

What becomes of writes is for the kinds of it to say: `guarded.py` refuses them, `marked.py` marks them first.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager

from arrayd.volumes.volume import Extent, Volume, WarmFile


class LockedTogether(Volume):
    """A volume of which several ranges are locked together, so that they are read as they are at one moment."""

    @abstractmethod
    def lock_ranges(self, ranges: Sequence[tuple[int, int]]) -> AbstractAsyncContextManager[None]:
        """`lock` for several ranges, which are apart: offset and length of each."""


class Front(Volume):
    """`volume`, by another way: the same disk to hosts. Nobody reads or locks by the one what the other has not."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.identity = volume.identity
        self.block_size = volume.block_size
        self.physical_block_size = volume.physical_block_size
        self.read_only = volume.read_only
        self.write_cache = volume.write_cache
        self.removable = volume.removable
        self.thin = volume.thin
        # The volume's own, not one call more: reads are the hottest of all.
        self.read_now = volume.read_now
        self.fetch_now = volume.fetch_now  # type: ignore[method-assign]
        self.warm_file = volume.warm_file  # type: ignore[method-assign]
        self.write_now = not_now

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes: as many as the volume has, which may grow where it is in no pair yet."""
        return self.volume.size

    def warm_file(self, offset: int, length: int) -> WarmFile | None:
        """See `Volume.warm_file`."""
        return self.volume.warm_file(offset, length)

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        return self.volume.read(offset, view)

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        return self.volume.flush()

    def extents(self, offset: int, length: int, limit: int) -> Awaitable[list[Extent]]:
        """See `Volume.extents`."""
        return self.volume.extents(offset, length, limit)

    def allocated_bytes(self) -> int:
        """See `Volume.allocated_bytes`."""
        return self.volume.allocated_bytes()

    def available_bytes(self) -> int:
        """See `Volume.available_bytes`."""
        return self.volume.available_bytes()


def not_now(_offset: int, _view: memoryview) -> bool:
    """`Volume.write_now` of one that never writes on the spot."""
    return False
