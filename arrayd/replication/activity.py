"""The activity log of P-VOLs: where a power loss may leave data whose records the journal has lost.

Neither journal nor P-VOLs are synced before a write is answered, and the kernel writes them back in any order: a P-VOL
may keep data of a record that is lost, which the S-VOL will never get. So a block of 15.75 MiB is *hot*, durably,
before the journal collects a write in it, and after a power loss all of it is copied again. It is hot until the journal
is synced with all of its records: redo brings these to the P-VOL, and the other side gets them. The P-VOLs need not be
synced for it, since redo never moves before they are.

A block is *fresh* from a write in it until the next `cool`: a write in a fresh block costs one look. The log has a
store of its own for each P-VOL, since the pair's bitmap comes and goes; it is laid out as a bitmap that has no bits
(`bitmap/format.py`). It keeps the boot in which it was made: after a power loss with hot blocks it stays as it is, in
any number of restarts, until the pairs are suspended and it is removed.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable, Iterable, Mapping

from arrayd.log import get_logger
from arrayd.replication.bitmap.bits import add, runs, value
from arrayd.replication.bitmap.format import (
    BLOCK_BITS,
    BOOT_BYTES,
    BOOT_PAGE,
    LOG_PAGE,
    PAGE_BITS,
    PAGE_ROW_BYTES,
    REGION_BYTES,
    SUPERBLOCK_BYTES,
    FormatError,
    Geometry,
    Superblock,
    decode_boot,
    decode_page,
    decode_superblock,
    encode_boot,
    encode_page,
)
from arrayd.replication.high_water import HighWater
from arrayd.replication.journal.regions import PAGE_BYTES
from arrayd.replication.stages import Stores
from arrayd.replication.writes import Placed, Range
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed, finished

HOT_BYTES = BLOCK_BITS * REGION_BYTES
"""What is hot together."""
HOT_MAX = 256
"""Hot blocks of a P-VOL, beyond which all that are not being written to cool down when another one becomes hot: some
4 GiB are copied again after a power loss, and what one long write needs besides."""
NO_BOOT = bytes(BOOT_BYTES)
"""Of a log that stands in for one that is lost: there is no such boot."""

Sync = Callable[[], Awaitable[object]]
"""Makes all records durable that the journal had collected before the call. Raises VolumeError."""

log = get_logger("replication")


class ActivityLog:
    """That of one P-VOL, open on `store`; `hot` are the blocks that it has."""

    def __init__(self, store: Volume, geometry: Geometry, hot: set[int]) -> None:
        self.hot = hot
        self.fresh = bytearray(geometry.blocks + 1)
        """By block, whether it is. One more, so that a look at the volume's end needs no care."""
        self._store = store
        self._geometry = geometry

    @classmethod
    async def create(cls, store: Volume, size: int, owner: bytes, boot: bytes, lost: bool) -> ActivityLog:
        """A new one about a volume of `size` bytes, durably, with no block that is hot, or all. Raises VolumeError."""
        geometry = Geometry(size)
        made = cls(store, geometry, set(range(geometry.blocks)) if lost else set())
        await made._write_head(BOOT_PAGE, encode_boot(boot))
        await made._write(range(geometry.log_pages))
        await finished(store.flush())
        await made._write_head(0, Superblock(owner, geometry).encode())
        await finished(store.flush())
        return made

    @classmethod
    async def open(cls, store: Volume, size: int, owner: bytes) -> tuple[ActivityLog, bytes | None]:
        """What is there, durably, and the boot of it. What it has is written again: what a sync that has failed left in
        the page cache alone counts as clean, and no later sync would write it. Raises FormatError, VolumeError."""
        page, geometry, hot = memoryview(mmap.mmap(-1, PAGE_BYTES)), Geometry(size), 0
        if store.size < geometry.bits_page * PAGE_BYTES:
            raise FormatError(f"an activity log of {store.size} bytes")
        await finished(store.read(0, page))
        if decode_superblock(bytes(page[:SUPERBLOCK_BYTES])) != (owner, geometry):
            raise FormatError("an activity log about another volume")
        await finished(store.read(BOOT_PAGE * PAGE_BYTES, page))
        boot = decode_boot(bytes(page))
        for number in range(geometry.log_pages):
            await finished(store.read((LOG_PAGE + number) * PAGE_BYTES, page))
            hot |= value(decode_page(bytes(page), LOG_PAGE + number)[0]) << number * PAGE_BITS
            await finished(store.write((LOG_PAGE + number) * PAGE_BYTES, page))
        await finished(store.flush())
        blocks = {each for first, end in runs(hot, PAGE_BITS) for each in range(first, min(end, geometry.blocks))}
        return cls(store, geometry, blocks), boot

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        return self._geometry.size

    def takes(self, offset: int, extent: int) -> bool:
        """Whether all blocks of the range are hot; they are fresh then."""
        first, end = offset // HOT_BYTES, -(-(offset + extent) // HOT_BYTES)
        if not self.hot.issuperset(range(first, end)):
            return False
        self.fresh[first:end] = b"\1" * (end - first)
        return True

    def cold(self, offset: int, extent: int) -> set[int]:
        """The blocks of the range that are not hot."""
        return set(range(offset // HOT_BYTES, -(-(offset + extent) // HOT_BYTES))) - self.hot

    async def heat(self, blocks: set[int]) -> None:
        """These are hot, and fresh, when it returns. Raises VolumeError."""
        await self._write(_pages(blocks), blocks)
        await finished(self._store.flush())
        self.hot |= blocks
        for each in blocks:
            self.fresh[each] = 1

    def rest(self) -> None:
        """No block is fresh any more, but those that are written to from now on."""
        self.fresh[:] = bytes(len(self.fresh))

    async def cool(self) -> None:
        """Blocks that are not fresh are not hot any more. Raises VolumeError: the disk may have more of them."""
        cold = {each for each in self.hot if not self.fresh[each]}
        # From here on a write there waits until it is hot again; the log may have it for longer.
        self.hot -= cold
        await self._write(_pages(cold))

    async def _write(self, pages: Iterable[int], more: Iterable[int] = ()) -> None:
        rows = {page: bytearray(PAGE_ROW_BYTES) for page in pages}
        for block in (*self.hot, *more):
            page, bit = divmod(block, PAGE_BITS)
            if page in rows:
                add(rows[page], bit, bit + 1)
        for page, row in rows.items():
            image = memoryview(encode_page(LOG_PAGE + page, row))
            await finished(self._store.write((LOG_PAGE + page) * PAGE_BYTES, image))

    async def _write_head(self, page: int, content: bytes) -> None:
        image = memoryview(mmap.mmap(-1, PAGE_BYTES))
        image[: len(content)] = content
        await finished(self._store.write(page * PAGE_BYTES, image))

    async def disown(self) -> None:
        """It is of no boot any more, durably: what is hot counts as lost at the next start, in this boot, too. Raises
        VolumeError."""
        await self._write_head(BOOT_PAGE, encode_boot(NO_BOOT))
        await finished(self._store.flush())

    async def settle(self) -> None:
        """Nothing is hot any more, durably. Raises VolumeError."""
        self.rest()
        await self.cool()
        await finished(self._store.flush())


def _pages(blocks: Iterable[int]) -> set[int]:
    return {each // PAGE_BITS for each in blocks}


class Activity:
    """The logs of a group's P-VOLs, by number; with none of a P-VOL all of it counts as hot. `lost` is what may
    differ, since records were lost."""

    def __init__(self, stores: Stores | None = None) -> None:
        self.logs: dict[int, ActivityLog] = {}
        self.lost: list[Range] = []
        self._stores = stores
        self._names: dict[int, str] = {}
        self._high_water: HighWater | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        stores: Stores,
        names: Mapping[int, str],
        sizes: Mapping[int, int],
        owner: bytes,
        boot: bytes,
        *,
        anew: bool,
        found: bool,
    ) -> Activity:
        """The logs in the stores `names` about volumes of `sizes` bytes. `anew`: new ones in the place of what there
        is. `found`: all of them must be there, so that one that is not tells that all of its volume may differ. Raises
        VolumeError: then none is open."""
        activity = cls(stores)
        try:
            for number, name in names.items():
                await activity._join(stores, number, name, sizes[number], owner, boot, anew, found)
        except BaseException:
            await activity.close()
            raise
        return activity

    async def _join(
        self, stores: Stores, number: int, name: str, size: int, owner: bytes, boot: bytes, anew: bool, found: bool
    ) -> None:
        store = None if anew else await stores.open(name)
        lost = found and store is None
        if store is not None:
            self._names[number] = name
            try:
                each, before = await ActivityLog.open(store, size, owner)
                if before == boot or each.hot:
                    self.logs[number] = each
                    if before != boot:
                        self._lose(number, each.hot, size)
                    return
            except FormatError as error:
                log.error("activity log unusable, all may differ", store=name, reason=str(error))
                lost = True
            del self._names[number]
            await stores.close(name)
        store = await stores.create(name, Geometry(size).bits_page * PAGE_BYTES)
        self._names[number] = name
        self.logs[number] = each = await ActivityLog.create(store, size, owner, NO_BOOT if lost else boot, lost)
        if lost:
            self._lose(number, each.hot, size)

    def _lose(self, number: int, blocks: Iterable[int], size: int) -> None:
        for each in blocks:
            self.lost.append(Range(number, each * HOT_BYTES, min(HOT_BYTES, size - each * HOT_BYTES)))

    async def measure(self, name: str, epoch: int, boot: bytes) -> None:
        """How far the journal of `epoch` is stored is noted in the store `name` from now on. Raises VolumeError."""
        assert self._stores is not None
        self._high_water = await HighWater.open(self._stores, name, epoch, boot)

    def lose(self) -> None:
        """Records were lost, though power was not: what is hot may differ."""
        if not self.lost:
            for number, each in self.logs.items():
                self._lose(number, each.hot, each.size)

    def note(self, records: int) -> None:
        """The journal has so many records, and the P-VOLs none of those that are new."""
        if self._high_water is not None:
            self._high_water.note(records)

    @property
    def lost_bytes(self) -> int:
        """All of `lost`."""
        return sum(each.length for each in self.lost)

    def takes(self, write: Placed) -> bool:
        """Whether it may be begun; it counts as being written then."""
        each = self.logs.get(write.number)
        return each is None or each.takes(write.offset, write.extent)

    async def admit(self, waiting: Iterable[Placed], sync: Sync) -> None:
        """Has the blocks of all these writes hot, together. Raises VolumeError."""
        wanted: dict[int, set[int]] = {}
        for each in waiting:
            own = self.logs.get(each.number)
            if own is not None and (cold := own.cold(each.offset, each.extent)):
                wanted.setdefault(each.number, set()).update(cold)
        if not wanted:
            return
        if any(len(self.logs[number].hot) + len(blocks) > HOT_MAX for number, blocks in wanted.items()):
            await self.cool(sync)
        async with self._turn:
            try:
                for number, blocks in wanted.items():
                    await self.logs[number].heat(blocks)
            except VolumeError as error:
                raise VolumeFailed(f"activity log: {error}") from error

    async def cool(self, sync: Sync) -> None:
        """Syncs the journal; what was not written to since the call is not hot any more. Raises VolumeError."""
        async with self._turn:
            hot = [each for each in self.logs.values() if each.hot]
            if not hot:
                return
            for each in hot:
                each.rest()
            await sync()
            for each in hot:
                await each.cool()

    async def disown(self) -> None:
        """What is hot counts as lost at the next start, though power was not. Raises VolumeError."""
        async with self._turn:
            for each in self.logs.values():
                await each.disown()

    async def settle(self) -> None:
        """Nothing is hot any more, durably: the journal is synced, and collects nothing. Raises VolumeError."""
        async with self._turn:
            for each in self.logs.values():
                await each.settle()

    async def close(self) -> None:
        """The logs are used no more, and stay."""
        async with self._turn:
            self.logs.clear()
            if self._high_water is not None:
                await self._high_water.close()
                self._high_water = None
            names, self._names = self._names, {}
            for name in names.values():
                assert self._stores is not None
                await self._stores.close(name)
