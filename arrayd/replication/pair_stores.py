"""The bitmap of a pair in its store: opened, made anew where it cannot be trusted, and forgotten with the pair.

A bitmap that is not there, or not whole, or has failed, may have lost marks: then all of the volume counts as
different. To copy too much costs time; to copy too little would leave two sides that differ for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from arrayd.log import get_logger
from arrayd.replication.activity import Activity
from arrayd.replication.bitmap import Bitmap, BitmapError, Geometry
from arrayd.replication.group_rows import GroupRow, PairRow
from arrayd.replication.stages import Doors, Stage
from arrayd.volumes.volume import VolumeError

log = get_logger("replication")


async def open_bitmap(doors: Doors, name: str, size: int, group: bytes) -> Bitmap | None:
    """The bitmap in the store `name` about a volume of `size` bytes of this group; None if there is none that is whole:
    then the store is closed. Raises VolumeError."""
    store = await doors.stores.open(name)
    if store is None:
        return None
    try:
        bitmap = await Bitmap.open(store, doors.boot)
        if (bitmap.owner, bitmap.size) == (group, size):
            return bitmap
        log.error("a bitmap is about another volume", store=name, size=bitmap.size, volume=size)
    except BitmapError as error:
        log.error("a bitmap is not whole", store=name, reason=str(error))
    except BaseException:
        await doors.stores.close(name)
        raise
    await doors.stores.close(name)
    return None


async def new_bitmap(doors: Doors, name: str, size: int, group: bytes, *, marked: bool) -> Bitmap:
    """A new one in the place of what there is, with all marked or nothing, durably. From the moment that what there was
    has gone there is none that is whole. Raises BitmapError, VolumeError; then the store is closed."""
    store = await doors.stores.create(name, Geometry(size).bytes_needed)
    try:
        return await Bitmap.create(store, size, group, doors.boot, marked=marked)
    except BaseException:
        await doors.stores.close(name)
        raise


async def whole_bitmap(doors: Doors, name: str, size: int, group: bytes) -> Bitmap:
    """The one that is there; if there is none that is whole, a new one with all marked. Raises BitmapError,
    VolumeError."""
    there = await open_bitmap(doors, name, size, group)
    return there if there is not None else await new_bitmap(doors, name, size, group, marked=True)


async def make_bitmaps(stage: Stage, numbers: Iterable[int], *, marked: bool) -> None:
    """Makes the bitmaps of these pairs of the stage's group anew, durably, all marked or clear, and leaves them closed.
    Raises VolumeError, BitmapError; some may be there then."""
    doors, wanted = stage.doors, set(numbers)
    for pair in stage.row.pairs:
        if pair.number in wanted:
            name = stage.bitmap_name(pair.number)
            bitmap = await new_bitmap(doors, name, doors.volume(pair.volume).size, stage.row.id, marked=marked)
            try:
                await bitmap.close()
            finally:
                await doors.stores.close(name)


async def clear_stores(stage: Stage, sizes: Mapping[int, int], found: bool) -> None:
    """S-VOLs, of which `sizes` are by number, that are followed by a journal differ in nothing else, and need no
    before-images; `found`: a bitmap that is there stays. Raises BitmapError, VolumeError."""
    doors = stage.doors
    for number, size in sizes.items():
        name = stage.bitmap_name(number)
        await doors.stores.remove(stage.images_name(number))
        there = await doors.stores.open(name) if found else None
        if there is None:
            await new_bitmap(doors, name, size, stage.row.id, marked=False)
        await doors.stores.close(name)


async def make_logs(stage: Stage, numbers: Iterable[int]) -> None:
    """Makes the activity logs of these pairs, which are new in a group that runs, durably, with nothing hot in them:
    one that is not there would be taken for lost. Raises VolumeError."""
    doors, wanted = stage.doors, set(numbers)
    sizes = {pair.number: doors.volume(pair.volume).size for pair in stage.row.pairs if pair.number in wanted}
    names = {number: stage.store_name("activity", number) for number in sizes}
    logs = await Activity.open(doors.stores, names, sizes, stage.row.id, doors.boot, anew=True, found=False)
    await logs.close()


def gone(before: GroupRow, after: GroupRow | None) -> list[PairRow]:
    """The pairs that have no row any more; None: the group has none."""
    return [pair for pair in before.pairs if after is None or pair.number not in after.states]


async def forget_pair(stage: Stage, pair: PairRow) -> None:
    """The pair has no row any more: hosts see its volume itself, and its stores go."""
    await stage.doors.show(pair.volume, None)
    await forget_stores(stage, pair.number)


async def forget_stores(stage: Stage, number: int) -> None:
    """Removes the stores of a pair that has no row any more. One that cannot be removed now goes at the next start."""
    for name in (stage.bitmap_name(number), stage.images_name(number), stage.store_name("activity", number)):
        try:
            await stage.doors.stores.remove(name)
        except VolumeError as error:
            log.error("a store of a pair that is no more stays", store=name, reason=str(error))
