"""Bitmaps of a group's pairs as they are made: all marked, where nothing is known of what the sides have in common."""

from __future__ import annotations

from collections.abc import Iterable

from arrayd.replication.bitmap import Bitmap, Geometry
from arrayd.replication.stages import Stage
from arrayd.volumes.volume import VolumeError


async def make_bitmaps(stage: Stage, numbers: Iterable[int], *, marked: bool) -> None:
    """Makes the bitmaps of these pairs of the stage's group anew, durably, all marked or clear, and leaves them closed.
    Raises VolumeError, BitmapError; some may be there then."""
    doors, row = stage.doors, stage.row
    wanted = set(numbers)
    for pair in row.pairs:
        if pair.number not in wanted:
            continue
        size, name = doors.volume(pair.volume).size, stage.bitmap_name(pair.number)
        store = await doors.stores.create(name, Geometry(size).bytes_needed)
        try:
            bitmap = await Bitmap.create(store, size, row.id, doors.boot, marked=marked)
            await bitmap.close()
        finally:
            await doors.stores.close(name)


async def forget(stage: Stage, numbers: Iterable[int]) -> VolumeError | None:
    """Removes the stores of these pairs: they have ended. The first error, if a file stays: it is in nobody's way, as
    no other group has its id."""
    failed: VolumeError | None = None
    for number in numbers:
        for name in (stage.bitmap_name(number), stage.images_name(number)):
            try:
                await stage.doors.stores.remove(name)
            except VolumeError as error:
                failed = failed or error
    return failed
