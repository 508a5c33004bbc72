"""What synchronous S-VOLs may have lost: what was written since they were synced last, without power, or where they
cannot be synced any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arrayd.log import get_logger
from arrayd.replication.pair_stores import whole_bitmap
from arrayd.replication.redo import flush_all
from arrayd.replication.stages import Stage
from arrayd.replication.writes import Range
from arrayd.volumes.volume import Volume, VolumeError

log = get_logger("replication")


async def not_durable(group: str, volumes: Mapping[int, Volume]) -> list[Range]:
    """Syncs the S-VOLs, by number; all of those that cannot be: what they have may be gone after the next start."""
    lost = []
    for number, volume in volumes.items():
        try:
            await flush_all({number: volume})
        except VolumeError as error:
            log.error("an S-VOL is not durable", group=group, volume=number, reason=str(error))
            lost.append(Range(number, 0, volume.size))
    return lost


async def mark_lost(stage: Stage, volumes: Mapping[int, Volume], lost: Sequence[Range]) -> None:
    """In the bitmaps of the stage, none of which is open: what may be older there than hosts were answered. Raises
    BitmapError, VolumeError."""
    for number in sorted({each.number for each in lost}):
        name = stage.bitmap_name(number)
        bitmap = await whole_bitmap(stage.doors, name, volumes[number].size, stage.row.id)
        try:
            for each in lost:
                if each.number == number:
                    await bitmap.mark(each.offset, each.length)
            await bitmap.save()
            await bitmap.close()
        finally:
            await stage.doors.stores.close(name)
