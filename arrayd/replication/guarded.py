"""A volume that hosts read and do not write: an S-VOL that its journal writes to, a fenced P-VOL, a journal's own LUN.

Hosts are told DATA PROTECT, WRITE PROTECTED; MODE SENSE says so before they try. Whoever owns the volume writes to it
as ever: only hosts see it by this way. What is no state of its group they do not read either (NOT READY): an S-VOL in
the middle of a copy, a P-VOL whose journal is not redone.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager

from arrayd.replication.front import Front, not_now
from arrayd.volumes.volume import Volume, VolumeNotReady, VolumeReadOnly


class GuardedVolume(Front):
    """`volume` without its writes: each raises VolumeReadOnly."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.read_only = True

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`: what hosts have written is durable since before, unless the volume has failed."""
        return self.volume.flush()

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


class UnreadableVolume(GuardedVolume):
    """An S-VOL that is a mix of what it was and what a copy has brought: nothing is read, which raises
    VolumeNotReady."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.read_now = not_now
        self.fetch_now = lambda _offset, _view: None  # type: ignore[method-assign]
        self.warm_file = lambda _offset, _length: None  # type: ignore[method-assign,assignment]

    def read(self, _offset: int, _view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        raise VolumeNotReady("what is there is no state of its group")


class UnsureVolume(UnreadableVolume):
    """A P-VOL whose journal is not redone, or that is `unsynced`. It may have older data than hosts were answered, or
    get some by the redo: no flush promises that what is there stays, either."""

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`."""
        raise VolumeNotReady("what hosts were answered may be missing")
