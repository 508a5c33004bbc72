"""The bitmap of a pair in its store: opened, made anew where it cannot be trusted, and forgotten with the pair.

A bitmap that is not there, or not whole, or has failed, may have lost marks: then all of the volume counts as
different. To copy too much costs time; to copy too little would leave two sides that differ for ever.
"""

from __future__ import annotations

from arrayd.log import get_logger
from arrayd.replication.bitmap import Bitmap, BitmapError, Geometry
from arrayd.replication.group_rows import GroupRow, PairRow
from arrayd.replication.stages import Doors, Stage, Stores
from arrayd.volumes.volume import VolumeError

log = get_logger("replication")


async def open_bitmap(doors: Doors, name: str, size: int) -> Bitmap | None:
    """The bitmap in the store `name` about a volume of `size` bytes; None if there is none that is whole: then the
    store is closed. Raises VolumeError."""
    store = await doors.stores.open(name)
    if store is None:
        return None
    try:
        bitmap = await Bitmap.open(store, doors.boot)
        if bitmap.size == size:
            return bitmap
        log.error("a bitmap is about another size", store=name, size=bitmap.size, volume=size)
    except BitmapError as error:
        log.error("a bitmap is not whole", store=name, reason=str(error))
    except BaseException:
        await doors.stores.close(name)
        raise
    await doors.stores.close(name)
    return None


async def full_bitmap(stores: Stores, name: str, size: int, group: bytes, boot: bytes) -> Bitmap:
    """A new one in the place of what there is, with all marked, durably. From the moment that what there was has gone
    there is none that is whole. Raises BitmapError, VolumeError; then the store is closed."""
    store = await stores.create(name, Geometry(size).bytes_needed)
    try:
        bitmap = await Bitmap.create(store, size, group, boot, marked=True)
    except BaseException:
        await stores.close(name)
        raise
    return bitmap


def gone(before: GroupRow, after: GroupRow | None) -> list[PairRow]:
    """The pairs that have no row any more; None: the group has none."""
    return [pair for pair in before.pairs if after is None or pair.number not in after.states]


async def forget_pair(stage: Stage, pair: PairRow) -> None:
    """The pair has no row any more: hosts see its volume itself, and its stores go. One that cannot be removed now goes
    at the next start."""
    await stage.doors.show(pair.volume, None)
    for name in (stage.bitmap_name(pair.number), stage.images_name(pair.number)):
        try:
            await stage.doors.stores.remove(name)
        except VolumeError as error:
            log.error("a store of a pair that is no more stays", store=name, reason=str(error))
