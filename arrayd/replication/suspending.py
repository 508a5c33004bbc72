"""What the S-VOLs may not have when the P-VOLs of a group are suspended: it is marked in the bitmaps, durably.

That is all that the other side has not said to have restored, from the entries of the journal's records, and what a
volume has refused. More than differs may be marked, never less: the other side may have restored more than it has said,
and goes on doing so while the journal is served to its end. Where the journal cannot be read, or a volume cannot be
synced, the whole volume is marked.

Bitmaps are opened, or made, before hosts' writes have to wait, if there is the time, and most of the journal is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any

from arrayd.log import get_logger
from arrayd.replication.bitmap import REGION_BYTES, Bitmap, BitmapError, Geometry
from arrayd.replication.bitmap.bits import add, value
from arrayd.replication.bitmap.format import PAGE_BITS, PAGE_ROW_BYTES
from arrayd.replication.bitmap.taking import spans
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import JournalError, Position, PrimaryJournal
from arrayd.replication.stages import Stores
from arrayd.replication.writes import Range
from arrayd.volumes.volume import Volume, VolumeError, finished

TOGETHER_MAX = 8
"""Bitmaps that are opened, made or saved at once: each waits for the disk some times."""

log = get_logger("replication")


class Differing:
    """What of the volumes of a group is to be marked: rows of bits by number and page; `whole` are the numbers of those
    of which all is."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.rows: dict[int, dict[int, bytearray]] = {number: {} for number in numbers}
        self.whole: set[int] = set()

    def add(self, number: int, offset: int, extent: int) -> None:
        """That range of the volume `number`; nothing if the group has none of this number any more."""
        rows = self.rows.get(number)
        if rows is None:
            return
        for page, low, high in spans(offset // REGION_BYTES, (offset + extent - 1) // REGION_BYTES + 1):
            row = rows.get(page)
            if row is None:
                row = rows[page] = bytearray(PAGE_ROW_BYTES)
            if high - low == PAGE_BITS:
                row[:] = b"\xff" * PAGE_ROW_BYTES
            else:
                add(row, low, high)

    def add_whole(self, numbers: Iterable[int]) -> None:
        """All of these volumes."""
        self.whole |= set(numbers) & self.rows.keys()

    async def add_records(self, journal: PrimaryJournal, at: Position, end: Position) -> None:
        """What the records from `at` to `end` change; all volumes whole if these cannot be read."""
        if at == end:
            return
        try:
            async for changes in journal.changes(at, end):
                for change in changes:
                    self.add(*change)
                await asyncio.sleep(0)
        except (JournalError, VolumeError) as error:
            log.error("journal unreadable, all is marked", group=journal.group.hex(), reason=str(error))
            self.add_whole(self.rows)

    async def mark(self, number: int, bitmap: Bitmap) -> None:
        """Marks in the bitmap of the volume `number` what there is of it, durably. Raises VolumeError."""
        if number in self.whole:
            await bitmap.mark_all()
        else:
            full = Geometry(bitmap.size).full
            await bitmap.mark_pages({page: value(row) & full(page) for page, row in self.rows[number].items()})
        await bitmap.save()


class Bitmaps:
    """The bitmaps of a group's volumes, of which `sizes` are by number; `names` are their stores, `owner` is the group.

    Those that are there are read by BITMAP and given up by JOINED (`copying_out.py`), until they are withheld. All of
    it raises VolumeError and BitmapError."""

    def __init__(
        self, stores: Stores, sizes: Mapping[int, int], names: Mapping[int, str], owner: bytes, boot: bytes
    ) -> None:
        self.sizes = sizes
        self._stores = stores
        self._names = names
        self._owner = owner
        self._boot = boot
        self._open: dict[int, Bitmap] = {}
        self._missing: set[int] = set()
        """Of which there is none, as was seen."""
        self._turns = {number: asyncio.Lock() for number in sizes}
        self._withheld = False

    def withhold(self, withheld: bool) -> None:
        """Whether the other side has no use of them any more: what it asked before must not take away what is marked
        now."""
        self._withheld = withheld

    async def found(self, number: int) -> Bitmap | None:
        """The one of this volume, open; None: there is none."""
        async with self._turns[number]:
            self._check()
            return await self._found(number)

    async def give_up(self, number: int) -> None:
        """The other side has the one of this volume, joined to its own."""
        async with self._turns[number]:
            self._check()
            await self._remove(number)

    def _check(self) -> None:
        if self._withheld:
            raise BitmapError("the group is being suspended")

    async def _found(self, number: int) -> Bitmap | None:
        if number in self._open or number in self._missing:
            return self._open.get(number)
        name = self._names[number]
        store = await self._stores.open(name)
        if store is None:
            self._missing.add(number)
            return None
        self._open[number] = bitmap = await self._opened(number, store)
        return bitmap

    async def _opened(self, number: int, store: Volume) -> Bitmap:
        """The bitmap on `store`. One that is not whole, or about another volume, tells nothing: all is marked then."""
        name = self._names[number]
        try:
            bitmap = await self._or_closed(name, Bitmap.open(store, self._boot))
            if (bitmap.owner, bitmap.size) == (self._owner, self.sizes[number]):
                return bitmap
            reason = f"it is about a volume of {bitmap.size} bytes"
            await self._stores.close(name)
        except BitmapError as error:
            reason = str(error)
        log.error("bitmap unusable, all is marked", store=name, reason=reason)
        return await self._made(number, marked=True)

    async def _made(self, number: int, marked: bool) -> Bitmap:
        size, name = self.sizes[number], self._names[number]
        store = await self._stores.create(name, Geometry(size).bytes_needed)
        return await self._or_closed(name, Bitmap.create(store, size, self._owner, self._boot, marked=marked))

    async def _or_closed(self, name: str, opening: Coroutine[Any, Any, Bitmap]) -> Bitmap:
        try:
            return await opening
        except BaseException:
            await self._stores.close(name)
            raise

    async def opened_or_made(self) -> dict[int, Bitmap]:
        """All of them, by number; those that were not there have nothing marked."""

        async def one(number: int) -> None:
            async with self._turns[number], together:
                if await self._found(number) is None:
                    self._open[number] = await self._made(number, marked=False)
                    self._missing.discard(number)

        together = asyncio.Semaphore(TOGETHER_MAX)
        await all_ended(one(number) for number in self.sizes)
        return dict(self._open)

    async def mark(self, differing: Differing) -> None:
        """Marks what differs, durably, in the bitmaps, all of which are open."""

        async def one(number: int, bitmap: Bitmap) -> None:
            async with together:
                await differing.mark(number, bitmap)

        together = asyncio.Semaphore(TOGETHER_MAX)
        await all_ended(one(number, bitmap) for number, bitmap in self._open.items())

    async def remove(self, number: int) -> None:
        """There is none of this volume any more."""
        async with self._turns[number]:
            await self._remove(number)

    async def _remove(self, number: int) -> None:
        await self._close(number)
        await self._stores.remove(self._names[number])
        self._missing.add(number)

    async def close(self) -> None:
        """They are used no more here, and stay."""
        for number in list(self._open):
            async with self._turns[number]:
                await self._close(number)

    async def _close(self, number: int) -> None:
        bitmap = self._open.pop(number, None)
        if bitmap is not None:
            await bitmap.close()
            await self._stores.close(self._names[number])

    def marked_bytes(self) -> dict[int, int]:
        """What is marked in those that are open, by number."""
        return {number: bitmap.marked_bytes for number, bitmap in self._open.items()}


async def suspend(group: PrimaryGroup, acknowledged: Position, bitmaps: Bitmaps) -> list[int]:
    """Stops the group, and marks all that is in its volumes and the S-VOLs may not have: they have what is before
    `acknowledged`. The numbers of the volumes that cannot be synced. May be done again. Raises VolumeError: it is not
    done, and hosts' writes wait."""
    journal = group.journal
    try:
        await bitmaps.opened_or_made()
    except BitmapError as error:
        raise VolumeError(str(error)) from error
    differing = Differing(bitmaps.sizes)
    before = journal.regions.stored
    await differing.add_records(journal, acknowledged, before)
    ranges, lost = await stopped(group)
    await differing.add_records(journal, before, journal.regions.stored)
    for number, offset, length in ranges:
        differing.add(number, offset, length)
    differing.add_whole(lost)
    try:
        await bitmaps.mark(differing)
    finally:
        # One that has failed is opened anew when this is done again.
        await bitmaps.close()
    return lost


async def stopped(group: PrimaryGroup) -> tuple[list[Range], list[int]]:
    """`PrimaryGroup.stop`, whatever its volumes do: also the numbers of those that cannot be made durable. These must
    not keep hosts from the others: a group that is suspended is not redone."""
    if not group.stopped:
        # Hosts' writes go on while most of it is synced. Whatever fails, what is under way is waited for below.
        with suppress(VolumeError):
            await group.checkpoint()
    try:
        return await group.stop(), []
    except VolumeError as error:
        log.error("a volume is not durable", group=group.journal.group.hex(), reason=str(error))
    lost = []
    for number, volume in group.volumes.items():
        try:
            await finished(volume.flush())
        except VolumeError:
            lost.append(number)
    return group.differing, lost


async def all_ended(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Waits for all of them, and raises what one has raised that has failed."""
    for failed in await asyncio.gather(*jobs, return_exceptions=True):
        if failed is not None:
            raise failed
