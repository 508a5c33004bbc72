"""A P-VOL: a volume whose writes are journaled first (`group.py`). Reads go to the volume, as if it were not one.

A read never finds less than was answered: a write is in its volume before. Where writes overlap, the journal has them
in the order in which they end up in the volume: both get them in one order, and a host that holds a lock waits for
what is on its way, while what comes later waits for the lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from arrayd.replication.activity import HOT_BYTES
from arrayd.replication.front import LockedTogether
from arrayd.replication.group import SPOT_BYTES_MAX, PrimaryGroup
from arrayd.replication.journal import JournalFull, Kind
from arrayd.replication.writes import NOTHING, Together, Write
from arrayd.volumes.range_locks import RangeLocks
from arrayd.volumes.volume import Extent, Volume, VolumeError, VolumeReadOnly, WarmFile


class JournaledVolume(LockedTogether):
    """`volume` as the P-VOL `number` of `group`.

    `volume` has a write cache, whatever hosts are told by `write_cache`: the journal makes writes durable. Nobody else
    writes to it meanwhile, and its size does not change.
    """

    answers_later = True

    def __init__(self, volume: Volume, group: PrimaryGroup, number: int, *, write_cache: bool = True) -> None:
        self.volume = volume
        self.group = group
        self.number = number
        self.identity = volume.identity
        self.size = volume.size
        self.block_size = volume.block_size
        self.physical_block_size = volume.physical_block_size
        self.read_only = volume.read_only
        self.removable = volume.removable
        self.thin = volume.thin
        self.write_cache = write_cache
        self.read_now = volume.read_now
        self.write_now = _not_now
        self._loop = asyncio.get_running_loop()
        self._locks = RangeLocks()
        """Locks that hosts hold, and the writes that wait for them."""
        self._instead: Volume | None = None
        self._given_up: VolumeError | None = None
        self._kept: deque[Write] = deque()
        """Writes that wait for `replace`; as many as commands in flight at the most."""
        group.join(number, volume)
        # Closures, as in `FileVolume`: the innermost part of the hot path.
        self.commit_now = self._make_commit_now()  # type: ignore[assignment,method-assign]

    # -- reads -------------------------------------------------------------------------------------------------------

    def fetch_now(self, offset: int, view: memoryview) -> asyncio.Future[None] | None:
        """See `Volume.fetch_now`."""
        return self.volume.fetch_now(offset, view)

    def warm_file(self, offset: int, length: int) -> WarmFile | None:
        """See `Volume.warm_file`."""
        return self.volume.warm_file(offset, length)

    def read(self, offset: int, view: memoryview) -> Awaitable[None] | None:
        """See `Volume.read`."""
        return self.volume.read(offset, view)

    def extents(self, offset: int, length: int, limit: int) -> Awaitable[list[Extent]]:
        """See `Volume.extents`."""
        return self.volume.extents(offset, length, limit)

    def allocated_bytes(self) -> int:
        """See `Volume.allocated_bytes`."""
        return self.volume.allocated_bytes()

    def available_bytes(self) -> int:
        """See `Volume.available_bytes`."""
        return self.volume.available_bytes()

    # -- writes ------------------------------------------------------------------------------------------------------

    def _make_commit_now(self) -> Callable[[int, memoryview], asyncio.Future[None] | None]:
        group, number, locks, places, kind = self.group, self.number, self._locks, self._locks.places, Kind.WRITE
        append_now, durable, read_only = group.journal.append_now, not self.write_cache, self.read_only
        # Blocks of which the activity log has that they are being written to: of what is taken on the spot, which is
        # less than one of them, the first and the last are all.
        log, block = group.activity.logs.get(number), HOT_BYTES
        fresh = b"\1" * (self.size // block + 1) if log is None else log.fresh
        together: Together | None = None

        def commit_now(offset: int, view: memoryview) -> asyncio.Future[None] | None:
            """See `Volume.commit_now`: all that the journal collects in this turn is answered together."""
            nonlocal together
            length = len(view)
            if not group.takes or group.spot_bytes + length > SPOT_BYTES_MAX or read_only:
                return None
            if places and locks.overlaps(offset, length):
                return None
            if not (fresh[offset // block] and fresh[(offset + length - 1) // block]):
                return None
            if not group.due:
                group.begin_turn()
            try:
                if not append_now(number, kind, offset, length, view, group.time):
                    return None
            except JournalFull:
                return None
            if together is None or together.issued:
                together = Together(self.volume, number, durable, self._keep)
            group.spot_bytes += length
            group.collected.append((together, offset, memoryview(bytes(view))))
            return together.future

        return commit_now

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`: durable when it is so in the journal."""
        return self._take(Kind.WRITE, offset, len(view), view, durable or not self.write_cache)

    def unmap(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.unmap`."""
        if not self.thin:
            return self.write_zeros(offset, length)
        return self._take(Kind.UNMAP, offset, length, NOTHING, not self.write_cache)

    def write_zeros(self, offset: int, length: int) -> Awaitable[None] | None:
        """See `Volume.write_zeros`."""
        return self._take(Kind.ZEROS, offset, length, NOTHING, not self.write_cache)

    def _take(self, kind: Kind, offset: int, extent: int, data: memoryview, durable: bool) -> asyncio.Future[None]:
        """The write is taken in the order of the calls, or behind a lock that it overlaps."""
        write = self._write(kind, offset, extent, data, durable)
        if not self._locks.places or not self._locks.overlaps(offset, extent):
            self._submit(write)
            return write.outcome
        place = self._locks.hold(offset, extent)

        def held() -> None:
            # From here on journal and volume keep the order. Not released here: every place behind would be released
            # from within the release of the one before.
            self._submit(write)
            self._loop.call_soon(place.release)

        place.when_held(held)
        return write.outcome

    def _write(self, kind: Kind | None, offset: int, extent: int, data: memoryview, durable: bool) -> Write:
        if self.read_only and kind is not None:
            raise VolumeReadOnly
        outcome: asyncio.Future[None] = self._loop.create_future()
        return Write(self.volume, self.number, kind, offset, extent, data, outcome, self._keep, durable=durable)

    def _submit(self, write: Write) -> None:
        if self._instead is None:
            self.group.submit(write)
        else:
            write.go_by(self._instead)

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`: the journal is synced, which is enough."""
        flush = self._write(None, 0, 0, NOTHING, False)
        if self._instead is None:
            self.group.flush(flush)
        else:
            flush.go_by(self._instead)
        return flush.outcome

    def lock(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """See `Volume.lock`."""
        return self.lock_ranges([(offset, length)])

    def lock_coming(self) -> AbstractAsyncContextManager[None]:
        """All of it, against whatever comes by this way: for one that nothing has gone by yet."""
        return self._locks.hold(0, self.size)

    @asynccontextmanager
    async def lock_ranges(self, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[None]:
        """`lock` for several ranges, which are apart: offset and length of each."""
        async with self._locks.hold_all(ranges), AsyncExitStack() as held:
            # What comes later waits for the place, in its turn. What the journal has already goes to the volume first,
            # whose own lock then waits for that.
            await self.group.all_issued()
            for each in ranges:
                await held.enter_async_context((self._instead or self.volume).lock(*each))
            yield

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`."""
        write = self._write(Kind.WRITE, offset, len(view), view, durable or not self.write_cache)
        write.under_lock = True
        self._submit(write)
        return write.outcome

    # -- when the group has stopped ----------------------------------------------------------------------------------

    def _keep(self, write: Write) -> None:
        """The group does not journal it any more."""
        if self._instead is not None:
            write.go_by(self._instead)
        elif self._given_up is not None:
            write.done(self._given_up)
        else:
            self._kept.append(write)

    def give_up(self, error: VolumeError) -> None:
        """The group has stopped, and nothing follows: all writes that wait, and all that come, end with `error`."""
        assert self.group.stopped
        self._given_up = error
        kept, self._kept = self._kept, deque()
        for write in kept:
            write.done(error)

    def replace(self, volume: Volume) -> None:
        """The group has stopped (see `group.py`): all writes that wait go by `volume` now, in order, and whatever comes
        here later. `volume` is the same disk, by another way: reads and locks of the two are one.

        Who puts `volume` in the place of this one has its unit make the tables of fast commands anew: until then no
        write is taken on the spot."""
        assert self.group.stopped
        assert self._instead is None
        self._instead = volume
        kept, self._kept = self._kept, deque()
        for write in kept:
            write.go_by(volume)


def _not_now(_offset: int, _view: memoryview) -> bool:
    return False
