"""A volume that hosts read and do not write: an S-VOL that its journal writes to, a fenced P-VOL, a journal's own LUN.

Hosts are told DATA PROTECT, WRITE PROTECTED; MODE SENSE says so before they try. Whoever owns the volume writes to it
as ever: only hosts see it by this way.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager

from arrayd.replication.front import Front
from arrayd.volumes.volume import Volume, VolumeFailed, VolumeReadOnly


class GuardedVolume(Front):
    """`volume` without its writes: each raises VolumeReadOnly. `unsure`: a P-VOL that a redo may yet give older data,
    so that no flush can promise that what was written before stays."""

    def __init__(self, volume: Volume, unsure: bool = False) -> None:
        super().__init__(volume)
        self.read_only = True
        self._unsure = unsure

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        if self._unsure:
            raise VolumeFailed("its journal is not redone")
        return super().flush()

    def write(self, _offset: int, _view: memoryview, _durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`."""
        raise VolumeReadOnly

    def unmap(self, _offset: int, _length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        raise VolumeReadOnly

    def write_zeros(self, _offset: int, _length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        raise VolumeReadOnly

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`: what is compared under it holds still, and is not written then."""
        return self.volume.lock(offset, length)

    def write_under_lock(self, _offset: int, _view: memoryview, _durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`."""
        raise VolumeReadOnly
