"""The one interface behind every LUN: a row of bytes that is read, written, flushed and trimmed.

A volume answers at once, or says that it will: `read_now` and `write_now` do the whole transfer on the spot or refuse
it with no effect (the hot path: no allocation, no coroutine); every other call returns None when it is done, or an
awaitable that is done when it is. Whoever returns an awaitable needs the caller's memory until then, whatever happens
to the awaiting side: a caller that gives up keeps the memory alive and untouched until the awaitable has ended.

Offsets and lengths are bytes, multiples of `block_size`, and within `size`: callers check.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

from arrayd.origin import Origin


class WarmFile(Protocol):
    """A file with data in memory. What of it is gone meanwhile is waited for."""

    def send(self, socket: int, offset: int, length: int) -> int:
        """Sends from it to a non-blocking socket, without a copy; bytes sent. Raises BlockingIOError, and OSError."""

    def load(self, offset: int, view: memoryview) -> None:
        """Fills `view` from it. Raises OSError."""


class VolumeError(Exception):
    """An operation on a volume failed."""


class VolumeFull(VolumeError):
    """There is no room on the disk below: nothing of the write need have happened, nothing acknowledged is lost."""


class VolumeFailed(VolumeError):
    """The medium failed; after a failed sync the volume stays failed until an operator acts."""


class VolumeNotReady(VolumeError):
    """The volume gives nothing until an operator acts: what it has may be older than what was acknowledged."""


class VolumeReadOnly(VolumeError):
    """The volume refuses writes."""


class VolumeRefused(VolumeError):
    """The volume refuses this write, as things stand."""


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes from `offset`: mapped (backed by disk) or not (reads as zeros)."""

    offset: int
    length: int
    mapped: bool


class Volume(ABC):
    """A volume. `identity` is unique across arrays and never changes: the serial number that hosts see."""

    identity: str
    size: int
    """Bytes."""
    block_size: int
    """Bytes of a logical block: 512 or 4096."""
    physical_block_size: int
    """Bytes that hosts are told to align to: `block_size` or more, up to 4096."""
    read_only: bool
    write_cache: bool
    """True: a write is acknowledged before it is durable, and `flush` makes it so (WCE=1)."""
    removable: bool
    thin: bool
    """True: unmapping frees disk."""
    takes_commands: bool = False
    """Whether WRITEs to it are commands: a command device."""
    answers_later: bool = False
    """Whether writes on the spot go by `commit_now` although there is a write cache: a volume that answers all of a
    batch together when something else is done, too."""
    read_now: Callable[[int, memoryview], bool]
    """`read_now(offset, view)` fills `view` without blocking, or returns False (cold, remote, failed…)."""
    write_now: Callable[[int, memoryview], bool]
    """`write_now(offset, view)` writes as `write` would, without blocking, or returns False having written nothing."""

    def commit_now(self, _offset: int, _view: memoryview) -> asyncio.Future[None] | None:
        """Writes `view` on the spot, like `write_now` but whatever the write cache is, and returns the future of its
        being durable: one for all writes that the same sync makes so, which nobody may cancel. None: refused, with
        nothing written, as a volume does that cannot. A volume with a write cache that `answers_later` returns the
        future of the writes' being done as `write` would do them."""
        return None

    def fetch_now(self, _offset: int, _view: memoryview) -> asyncio.Future[None] | None:
        """Begins to fill `view` from a disk, and returns the future of its being there, which nobody may cancel. None:
        refused, with nothing begun, as a volume does that had better be asked to `read`."""
        return None

    @abstractmethod
    def warm_file(self, offset: int, length: int) -> WarmFile | None:
        """The file that the range lies in, so that it goes from there without a copy, or a piece at a time; None when
        not all of it is in memory, or in no file."""

    @abstractmethod
    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """Fills `view` from `offset`. Raises VolumeFailed (also out of the awaitable)."""

    @abstractmethod
    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """Writes `view` at `offset`; durable (FUA) before it is done if `durable` or without a write cache.

        Writes that overlap take effect in the order of their calls. Raises VolumeFull, VolumeFailed, VolumeReadOnly.
        """

    def read_from(self, _origin: Origin, offset: int, view: memoryview) -> Awaitable[None] | None:
        """`read`, for a volume to which it matters who reads."""
        return self.read(offset, view)

    def write_from(
        self, _origin: Origin, offset: int, view: memoryview, durable: bool = False
    ) -> Awaitable[None] | None:
        """`write`, for a volume to which it matters who writes. Raises VolumeRefused as well."""
        return self.write(offset, view, durable)

    @abstractmethod
    def flush(self) -> Awaitable[None] | None:
        """Makes every write that was done before the call durable. Raises VolumeFailed."""

    @abstractmethod
    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """Frees the range: it reads as zeros afterwards."""

    @abstractmethod
    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """Makes the range read as zeros, with its disk still allocated."""

    @abstractmethod
    def extents(self, offset: int, length: int, limit: int) -> Awaitable[list[Extent]]:
        """The first `limit` extents at most, in order and without a gap, from `offset` on."""

    @abstractmethod
    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """While held, no write of others to the range takes effect (`write_under_lock` is for the holder)."""

    @abstractmethod
    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """`write` for the holder of a `lock` that covers the range."""

    def replace(self, _volume: Volume) -> None:
        """Hosts see `volume` in the place of this one from now on: the same disk, by another way. What waits here goes
        by it, in order. A volume that lets nothing wait has nothing to do."""
        return

    @abstractmethod
    def allocated_bytes(self) -> int:
        """Disk in use, in bytes."""

    @abstractmethod
    def available_bytes(self) -> int:
        """Disk that writes to unmapped blocks could still take, in bytes."""


async def ended(job: asyncio.Future[None]) -> None:
    """Awaits `job` to its end: being cancelled meanwhile does not let go of the memory and the lock that it needs."""
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((job,))
        raise


async def finished(pending: Awaitable[None] | None) -> None:
    """Awaits what a volume answered, to its end even when cancelled: it needs the caller's memory until then."""
    if pending is not None:
        await ended(asyncio.ensure_future(pending))
