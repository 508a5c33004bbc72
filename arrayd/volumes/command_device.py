"""A command device: a volume whose WRITEs are commands, and whose READs fetch what became of them (figure 5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from arrayd.origin import Origin
from arrayd.volumes.volume import Extent, Volume, VolumeReadOnly, WarmFile


class Mailbox(Protocol):
    """What is behind it; see `arrayd.commands.mailbox`."""

    device: str
    size: int

    def read(self, origin: Origin, offset: int, view: memoryview) -> Awaitable[None] | None:
        """Fills `view`."""

    def write(self, origin: Origin, offset: int, data: bytes) -> Awaitable[None] | None:
        """Takes a command. Raises VolumeRefused."""


NOBODY = Origin("")


class CommandDevice(Volume):
    """The volume in front of `mailbox`."""

    block_size = 512
    physical_block_size = 4096
    read_only = False
    write_cache = False
    removable = False
    thin = False
    takes_commands = True

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.identity = mailbox.device
        self.size = mailbox.size
        self.read_now = self.write_now = _not_now

    def warm_file(self, _offset: int, _length: int) -> WarmFile | None:
        """See Volume: it lies in no file."""
        return None

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See Volume: who is nobody is told nothing that was written."""
        return self.mailbox.read(NOBODY, offset, view)

    def read_from(self, origin: Origin, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See Volume."""
        return self.mailbox.read(origin, offset, view)

    def write(self, _offset: int, _view: memoryview, _durable: bool = False) -> Awaitable[None] | None:
        """See Volume: commands come by WRITE alone, which says from whom."""
        raise VolumeReadOnly

    def write_from(
        self, origin: Origin, offset: int, view: memoryview, _durable: bool = False
    ) -> Awaitable[None] | None:
        """See Volume."""
        return self.mailbox.write(origin, offset, bytes(view))

    def flush(self) -> Awaitable[None] | None:
        """See Volume: nothing is cached."""
        return None

    def unmap(self, _offset: int, _length: int) -> Awaitable[None] | None:
        """See Volume."""
        raise VolumeReadOnly

    def write_zeros(self, _offset: int, _length: int) -> Awaitable[None] | None:
        """See Volume."""
        raise VolumeReadOnly

    async def extents(self, offset: int, length: int, _limit: int) -> list[Extent]:
        """See Volume."""
        return [Extent(offset, length, True)]

    def lock(self, _offset: int, _length: int) -> AbstractAsyncContextManager[None]:
        """See Volume: a command is taken whole, whoever holds a lock."""
        return _unlocked()

    def write_under_lock(self, _offset: int, _view: memoryview, _durable: bool = False) -> Awaitable[None] | None:
        """See Volume."""
        raise VolumeReadOnly

    def allocated_bytes(self) -> int:
        """See Volume."""
        return 0

    def available_bytes(self) -> int:
        """See Volume."""
        return 0


def _not_now(_offset: int, _view: memoryview) -> bool:
    return False


@asynccontextmanager
async def _unlocked() -> AsyncIterator[None]:
    yield
