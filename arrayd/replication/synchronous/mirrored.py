"""A P-VOL of a synchronous pair, as hosts see it: reads are the volume's own, writes go to both arrays (`mirror.py`).

Each write has its range from when it is taken until it has ended on both sides: what overlaps waits for it, in order,
and so do locks of hosts and of what is copied. So both sides have overlapping writes in one order, and what is copied
has all of a write or nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from arrayd.replication.front import Front, LockedTogether
from arrayd.replication.journal import Kind
from arrayd.replication.synchronous.mirror import Mirror, MirroredWrite
from arrayd.replication.writes import NOTHING, Write
from arrayd.volumes.range_locks import RangeLock, RangeLocks
from arrayd.volumes.volume import Volume, VolumeError, VolumeReadOnly


class Holder:
    """Who has locks on `volume` itself, and whoever writes by what has replaced it meanwhile waits for him, too."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.ranges = ranges
        self._among: list[set[Holder]] = []
        self._places: list[RangeLock] = []

    def enters(self, holders: set[Holder]) -> None:
        """He is one of these."""
        holders.add(self)
        self._among.append(holders)

    def goes_on(self, locks: RangeLocks) -> None:
        """He has places in other locks, too: before all others."""
        self._places += [locks.hold(*each) for each in self.ranges]

    def leaves(self) -> None:
        """He has let go of the locks."""
        for holders in self._among:
            holders.discard(self)
        for place in self._places:
            place.when_held(place.release)


class MirroredVolume(Front, LockedTogether):
    """`volume` as the P-VOL `number` of the group of `mirror`. Nobody else writes to it meanwhile, and its size does
    not change."""

    def __init__(self, volume: Volume, mirror: Mirror, number: int) -> None:
        super().__init__(volume)
        self.mirror = mirror
        self.number = number
        self._loop = asyncio.get_running_loop()
        self._locks = RangeLocks()
        """Writes until they have ended, and locks of others."""
        self._holders: set[Holder] = set()
        self._instead: Volume | None = None
        self._given_up: VolumeError | None = None
        self._kept: deque[Write] = deque()
        """Writes that wait for `replace`; as many as commands in flight at the most."""

    # -- writes ------------------------------------------------------------------------------------------------------

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write`: durable when it is so on both sides."""
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
        """The write is taken in the order of the calls where they overlap."""
        write = self._write(kind, offset, extent, data, durable)
        write.place = place = self._locks.hold(offset, extent)
        place.when_held(lambda: self._submit(write))
        return write.outcome

    def _write(self, kind: Kind | None, offset: int, extent: int, data: memoryview, durable: bool) -> MirroredWrite:
        if self.read_only and kind is not None:
            raise VolumeReadOnly
        outcome: asyncio.Future[None] = self._loop.create_future()
        write = MirroredWrite(
            self.volume, self.number, kind, offset, extent, data, outcome, self._keep, durable=durable
        )
        write.place = None
        return write

    def _submit(self, write: MirroredWrite) -> None:
        if self._instead is None:
            self.mirror.submit(write)
        else:
            write.let_go()
            write.go_by(self._instead)

    def flush(self) -> Awaitable[None] | None:
        """See `Volume.flush`: on both sides."""
        flush = self._write(None, 0, 0, NOTHING, False)
        self._submit(flush)
        return flush.outcome

    # -- locks -------------------------------------------------------------------------------------------------------

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
            if (volume := self._instead) is None:
                volume, holder = self.volume, Holder(ranges)
                holder.enters(self._holders)
                held.callback(holder.leaves)
            for each in ranges:
                await held.enter_async_context(volume.lock(*each))
            yield

    def write_under_lock(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        """See `Volume.write_under_lock`."""
        write = self._write(Kind.WRITE, offset, len(view), view, durable or not self.write_cache)
        write.under_lock = True
        self._submit(write)
        return write.outcome

    # -- when the group has stopped ----------------------------------------------------------------------------------

    def _keep(self, write: Write) -> None:
        """The group does not mirror it any more."""
        assert isinstance(write, MirroredWrite)
        write.let_go()
        if self._instead is not None:
            write.go_by(self._instead)
        elif self._given_up is not None:
            write.done(self._given_up)
        else:
            self._kept.append(write)

    def give_up(self, error: VolumeError) -> None:
        """The group has stopped, and nothing follows: all writes that wait, and all that come, end with `error`."""
        assert self.mirror.stopped
        self._given_up = error
        kept, self._kept = self._kept, deque()
        for write in kept:
            write.done(error)

    def replace(self, volume: Volume) -> None:
        """The group has stopped (see `mirror.py`): all writes that wait go by `volume` now, in order, and whatever
        comes here later. `volume` is the same disk, by another way: reads and locks of the two are one."""
        assert self.mirror.stopped
        assert self._instead is None
        self._instead = volume
        if isinstance(volume, MirroredVolume):
            # Else what comes by that one would be on the other side already while it waits for the lock on this one.
            for holder in list(self._holders):
                holder.goes_on(volume._locks)
                holder.enters(volume._holders)
        kept, self._kept = self._kept, deque()
        for write in kept:
            write.go_by(volume)
