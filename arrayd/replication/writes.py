"""Writes of hosts to the P-VOLs of a group, from when they are taken until they are answered.

A write of its own has a future of its own (`Write`). Those that hosts send as one PDU, and that the journal takes on
the spot, share one for each volume and commit (`Together`), and have a copy of their data: the receive buffer that it
came in is used again before the turn of the event loop is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from arrayd.replication.journal import Kind
from arrayd.volumes.volume import Volume

NOTHING = memoryview(b"")


class Range(NamedTuple):
    """`length` bytes from `offset` on of the group's volume `number`."""

    number: int
    offset: int
    length: int


class Placed(Protocol):
    """A write by where it goes: `extent` bytes from `offset` on of the group's volume `number`."""

    @property
    def number(self) -> int:
        """Of the volume in the group."""

    @property
    def offset(self) -> int:
        """In bytes, as the extent is."""

    @property
    def extent(self) -> int:
        """How much of the volume it changes."""


class Write:
    """One write: `extent` bytes from `offset` on of `volume`, the group's number `number`; `data` only of a WRITE.

    `durable`: it is answered when a power loss cannot undo it. `under_lock`: its host holds a lock on the range.
    `kind` None is no write: a flush. `keep(write)` takes it back when the group has stopped before it was done.
    """

    __slots__ = ("data", "durable", "extent", "keep", "kind", "number", "offset", "outcome", "under_lock", "volume")

    def __init__(
        self,
        volume: Volume,
        number: int,
        kind: Kind | None,
        offset: int,
        extent: int,
        data: memoryview,
        outcome: asyncio.Future[None],
        keep: Callable[[Write], None],
        *,
        durable: bool = False,
        under_lock: bool = False,
    ) -> None:
        self.volume = volume
        self.number = number
        self.kind = kind
        self.offset = offset
        self.extent = extent
        self.data = data
        self.outcome = outcome
        self.keep = keep
        self.durable = durable
        self.under_lock = under_lock

    def begin(self, volume: Volume, durable: bool = False) -> Awaitable[None] | None:
        """Carries it out on `volume`, as volumes do. Raises VolumeError."""
        if self.kind is None:
            return volume.flush()
        if self.kind == Kind.UNMAP:
            return volume.unmap(self.offset, self.extent)
        if self.kind == Kind.ZEROS:
            return volume.write_zeros(self.offset, self.extent)
        write = volume.write_under_lock if self.under_lock else volume.write
        return write(self.offset, self.data, durable)

    def done(self, error: BaseException | None = None) -> None:
        """It is answered, unless whoever waited has given up."""
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)

    def go_by(self, volume: Volume) -> None:
        """Carries it out on `volume` instead, and answers it when that has."""
        try:
            pending = self.begin(volume, self.durable)
        except Exception as error:
            self.done(error)
            return
        if pending is None:
            self.done()
        else:
            asyncio.ensure_future(pending).add_done_callback(self._ended)

    def _ended(self, job: asyncio.Future[None]) -> None:
        self.done(job.exception())


class Together:
    """Writes of one volume that one commit takes into the journal, and that are answered together: by `future`, which
    nobody may cancel. If one of them fails, all do."""

    __slots__ = ("_error", "_keep", "_left", "durable", "future", "issued", "number", "volume", "write_now")

    def __init__(self, volume: Volume, number: int, durable: bool, keep: Callable[[Write], None]) -> None:
        self.volume = volume
        self.write_now = volume.write_now
        self.number = number
        self.durable = durable
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.issued = False
        """Whether the commit has been: no other write can be with them any more."""
        self._keep = keep
        self._left = 1
        """Writes that must wait, and one for all others."""
        self._error: BaseException | None = None

    def one(self, offset: int, data: memoryview) -> Write:
        """One of the writes, which must wait for itself."""
        self._left += 1
        outcome: asyncio.Future[None] = self.future.get_loop().create_future()
        outcome.add_done_callback(lambda each: self.done(each.exception()))
        return Write(
            self.volume, self.number, Kind.WRITE, offset, len(data), data, outcome, self._keep, durable=self.durable
        )

    def rest(self) -> Write:
        """For what is left to do for all that did not have to wait: a sync."""
        self._left += 1
        outcome: asyncio.Future[None] = self.future.get_loop().create_future()
        outcome.add_done_callback(lambda each: self.done(each.exception()))
        return Write(self.volume, self.number, None, 0, 0, NOTHING, outcome, self._keep)

    def done(self, error: BaseException | None = None) -> None:
        """One that had to wait has ended, or all that had not."""
        self._left -= 1
        self._error = self._error or error
        if self._left:
            return
        if self._error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self._error)


Spot = tuple[Together, int, memoryview]
"""A write that was taken on the spot: whom it is with, where it goes, and its data."""


class Mark:
    """A place in the order of a group's writes: `passed` when all before it are on their way to their volumes."""

    __slots__ = ("_passed",)

    def __init__(self, passed: asyncio.Future[None]) -> None:
        self._passed = passed

    def pass_by(self) -> None:
        """All before it are."""
        if not self._passed.done():
            self._passed.set_result(None)


InOrder = Write | Mark
