"""The stage of volumes that are suspended and take writes: P-VOLs, S-VOLs that were split writable or taken over.

What hosts write is marked in the bitmap of the pair first (`marked.py`), for a resync to copy. The bitmaps are there
when the stage begins: the one before has marked in them what the two sides differ in. They are saved now and then, so
that a power loss marks little that does not differ. One that fails is made anew, all marked, while hosts' writes wait;
as long as not even that goes, they are refused.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from arrayd.log import get_logger
from arrayd.replication.bitmap import Bitmap, BitmapError
from arrayd.replication.differences import Differences, differences
from arrayd.replication.group_rows import GroupRow, PairRow
from arrayd.replication.guarded import GuardedVolume, UnsureVolume
from arrayd.replication.marked import MarkedVolume
from arrayd.replication.pair_stores import forget_pair, gone, new_bitmap, open_bitmap
from arrayd.replication.redo import flush_all
from arrayd.replication.stages import Doors, Progress, Stage, Told
from arrayd.replication.statuses import Refusal
from arrayd.volumes.volume import Volume, VolumeError

SAVE_SECONDS = 5.0
"""Between two saves of the bitmaps, and between two attempts to make one anew."""

log = get_logger("replication")


@dataclass
class Marked:
    """A pair of the stage, with what hosts see of its volume once the stage is entered."""

    pair: PairRow
    volume: Volume
    store: str
    bitmap: Bitmap
    front: MarkedVolume | None = None


class Marking(Stage):
    """P_PSUS, P_PSUE, P_PFUS; S_SSUS_WRITABLE, S_SSWS."""

    def __init__(self, row: GroupRow, doors: Doors, told: Told) -> None:
        super().__init__(row, doors, told)
        self._marked: dict[int, Marked] = {}
        self._fronts: list[MarkedVolume] = []
        """All that hosts have seen here."""
        self._stores_open = False
        self._found = False
        """Whether it was taken up: what hosts were answered could not be written to volumes that are `unsynced` then,
        and they do not see them. Otherwise these have just failed, and take no write."""
        self._wake = asyncio.Event()
        self._ending = False
        self._careless = False
        """A bitmap could not be made anew: writes that fail do not have it tried again at once."""
        self._saver: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        """Pairs that have ended by themselves."""
        self._at_bitmaps = asyncio.Lock()

    # -- begun -------------------------------------------------------------------------------------------------------

    async def prepare(self, found: bool = False) -> None:
        """See `Stage.prepare`."""
        self._stores_open, self._found = True, found
        try:
            for pair in self.row.pairs:
                self._marked[pair.number] = await self._open(pair)
        except BaseException:
            await self._close_bitmaps()
            self._marked.clear()
            raise

    async def _open(self, pair: PairRow) -> Marked:
        volume, store = self.doors.volume(pair.volume), self.bitmap_name(pair.number)
        bitmap = await open_bitmap(self.doors, store, volume.size, self.row.id)
        if bitmap is None:
            log.error("a pair has no bitmap: all of it counts as different", group=self.row.name, pair=pair.name)
            bitmap = await new_bitmap(self.doors, store, volume.size, self.row.id, marked=True)
        elif bitmap.lost_blocks:
            log.warning("after a power loss more is marked", group=self.row.name, pair=pair.name)
        return Marked(pair, volume, store, bitmap)

    async def enter(self) -> None:
        """See `Stage.enter`."""
        await asyncio.gather(*(self._show(each) for each in self._marked.values()))
        self._saver = asyncio.ensure_future(self._keep_saved())

    async def _show(self, each: Marked) -> None:
        each.front = MarkedVolume(each.volume, each.bitmap, self._failed)
        self._fronts.append(each.front)
        unsure = each.pair.unsynced and self._found
        await self.doors.show(each.pair.volume, UnsureVolume(each.volume) if unsure else each.front)

    # -- saved -------------------------------------------------------------------------------------------------------

    def _failed(self) -> None:
        """A mark has failed, and a host's write with it: that is seen to at once, the first time."""
        if not self._careless:
            self._wake.set()

    async def _keep_saved(self) -> None:
        while not self._ending:
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            careless = False
            for number in list(self._marked):
                if not self._ending:
                    async with self._at_bitmaps:
                        careless |= not await self._save(number)
            self._careless = careless

    async def _save(self, number: int) -> bool:
        """Whether its bitmap is in order, or has been brought to be."""
        each = self._marked.get(number)
        if each is None:
            return True
        try:
            await self._saved(each)
        except VolumeError as error:
            return await self._renew(each, error)
        return True

    async def _saved(self, each: Marked) -> None:
        """Raises VolumeError: it has failed, now or before."""
        if each.bitmap.failure is not None:
            raise each.bitmap.failure
        await each.bitmap.save()

    async def _renew(self, each: Marked, error: VolumeError) -> bool:
        """Has another bitmap, while hosts' writes wait, and another volume that marks in it; whether that went."""
        front = each.front
        assert front is not None
        front.stop()
        await front.drained()
        try:
            await self._make_anew(each, error)
        except (VolumeError, BitmapError) as again:
            log.error("no bitmap: writes are refused", pair=each.pair.name, reason=str(again))
            front.resume()
            return False
        await self._show(each)
        return True

    async def _make_anew(self, each: Marked, error: VolumeError) -> None:
        log.error("a bitmap has failed: all of the pair counts as different", pair=each.pair.name, reason=str(error))
        await each.bitmap.close()
        await self.doors.stores.close(each.store)
        each.bitmap = await new_bitmap(self.doors, each.store, each.volume.size, self.row.id, marked=True)

    # -- ended -------------------------------------------------------------------------------------------------------

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See `Stage.stop`: the bitmaps have all that was written, and are closed; the volumes are durable, too. Where
        that cannot be, it goes on."""
        await self._end_saving()
        fronts = [each.front for each in self._marked.values() if each.front is not None]
        for front in fronts:
            front.stop()
        await asyncio.gather(*(front.drained() for front in fronts))
        try:
            # What is unsynced does not leave the suspension as it is: `unsynced.py`.
            await flush_all({number: each.volume for number, each in self._marked.items() if not each.pair.unsynced})
            for each in self._marked.values():
                await self._save_or_renew(each)
        except (VolumeError, BitmapError) as error:
            await self._go_on(fronts)
            raise VolumeError(str(error)) from error
        await self._close_bitmaps()
        self.after = row
        return None

    async def _save_or_renew(self, each: Marked) -> None:
        try:
            await self._saved(each)
        except VolumeError as error:
            await self._make_anew(each, error)

    async def _go_on(self, fronts: list[MarkedVolume]) -> None:
        for front in fronts:
            front.resume()
        self._ending = False
        self._saver = asyncio.ensure_future(self._keep_saved())

    async def _end_saving(self) -> None:
        """Waits for what the stage does by itself."""
        self._ending = True
        self._wake.set()
        if self._saver is not None:
            await self._saver
            self._saver = None
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _close_bitmaps(self) -> None:
        if self._stores_open:
            self._stores_open = False
            for each in self._marked.values():
                await self._close_bitmap(each)

    async def _close_bitmap(self, each: Marked) -> None:
        await each.bitmap.close()
        await self.doors.stores.close(each.store)

    async def close(self) -> None:
        """See `Stage.close`."""
        await self._end_saving()
        for front in self._fronts:
            if not front.stopped:
                front.stop()
            await front.drained()
        await self._close_bitmaps()
        for pair in gone(self.row, self.after):
            await forget_pair(self, pair)
        for front in self._fronts:
            if not front.replaced:
                # Nobody sees it any more, and what still waits there must end.
                front.replace(GuardedVolume(front.volume))

    def changed(self, row: GroupRow) -> None:
        """See `Stage.changed`: of pairs that have no row any more hosts see the volumes themselves."""
        for pair in gone(self.row, row):
            self._leaving.add(asyncio.ensure_future(self._leave(self._marked.pop(pair.number))))
        self.after = self.row = row

    async def _leave(self, each: Marked) -> None:
        async with self._at_bitmaps:
            if each.front is not None:
                each.front.stop()
                await each.front.drained()
            await self._close_bitmap(each)
            await forget_pair(self, each.pair)

    async def differences(self, number: int, offset: int, limit: int) -> Differences | None:
        """See `Stage.differences`."""
        each = self._marked.get(number)
        return None if each is None else differences(each.bitmap, offset, limit)

    def progress(self) -> Progress:
        """See `Stage.progress`."""
        return Progress(differing={number: each.bitmap.marked_bytes for number, each in self._marked.items()})
