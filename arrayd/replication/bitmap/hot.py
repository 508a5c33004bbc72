"""Which blocks of a bitmap may be newer than the disk: its log, which is what a mark has to wait for.

A bit that is set is in the page cache before its write is, which is enough for a kill. For a power loss it would have
to be synced, for each region that a host writes to for the first time. Instead the block that it is in is *hot*, which
is durable before: after a power loss all of a hot block counts as set. So only the first mark of a block waits for a
sync. A hot block is *fresh* from a mark in it until a sync that began after that mark; others may cool down.
"""

from __future__ import annotations

from collections.abc import Iterator

from arrayd.replication.bitmap.bits import add, has, value
from arrayd.replication.bitmap.format import LOG_PAGE, PAGE_ROW_BYTES
from arrayd.replication.bitmap.store import Store

HOT_MAX = 256
"""Hot blocks, beyond which those that are not fresh cool down when another one becomes hot: some 4 GiB of the volume
are copied again after a power loss. A host that writes all over more than that waits for a sync more often."""


class HotBlocks:
    """The log of a bitmap that was just made or opened: no block is hot. One call of `heat` or `cool` at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._length = store.geometry.log_pages * PAGE_ROW_BYTES
        self._hot = bytearray(self._length)
        self._fresh = bytearray(self._length)
        self._logged = 0
        """What the log on the disk has, or is about to."""

    def takes(self, first: int, end: int) -> bool:
        """Whether bits may be set in these blocks without waiting."""
        return has(self._hot, first, end)

    def marked(self, first: int, end: int) -> None:
        """Bits are about to be set in these blocks, all of which are hot."""
        add(self._fresh, first, end)

    @property
    def any(self) -> bool:
        """Whether a power loss would set more than is set."""
        return value(self._hot) != 0

    async def heat(self, blocks: int) -> None:
        """These blocks, and maybe more, are hot when it returns. Raises VolumeError."""
        hot, fresh = value(self._hot), value(self._fresh)
        new = blocks & ~hot
        if not new:
            return
        if (hot | new).bit_count() > HOT_MAX:
            hot &= fresh | blocks
            self._hot[:] = self._row(hot)
        await self._write(hot | new)
        await self.sync()
        self._hot[:] = self._row(hot | new)

    async def cool(self) -> None:
        """Only the blocks in which bits were set since the call are hot when it returns. Raises VolumeError."""
        await self.sync()
        if self._logged & ~value(self._fresh):
            hot = value(self._hot) & value(self._fresh)
            self._hot[:] = self._row(hot)
            await self._write(hot)
            await self.sync()

    async def sync(self) -> None:
        """Makes durable what was written before. Raises VolumeError."""
        self._fresh[:] = bytes(self._length)
        await self._store.flush()

    async def _write(self, hot: int) -> None:
        before, row = self._row(self._logged), self._row(hot)
        self._logged = hot
        for page, begin in self._pages():
            mine = row[begin : begin + PAGE_ROW_BYTES]
            if mine != before[begin : begin + PAGE_ROW_BYTES] and not self._store.write_now(LOG_PAGE + page, mine):
                await self._store.write(LOG_PAGE + page, mine)

    def _row(self, hot: int) -> bytes:
        return hot.to_bytes(self._length, "little")

    def _pages(self) -> Iterator[tuple[int, int]]:
        """Each page of the log, and where it begins in the row."""
        return enumerate(range(0, self._length, PAGE_ROW_BYTES))
