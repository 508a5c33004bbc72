"""P-VOLs that could not be synced when their group was suspended: what the journal has of them is written again.

A flush is answered when the journal is synced, and a journal is not redone once its group is suspended: the volumes go
on by themselves then. Not one whose sync has failed. The kernel may have taken pages for clean that it could not write,
so what was answered as durable may be in the journal alone; and such a volume has failed until the array is started
again. So the row that suspends a pair says that its volume is `unsynced`.

At the next start, before hosts see such a volume, the records from redo on are written to it again: nobody has written
to it since. Where that cannot be hosts see nothing of it (`UnsureVolume`), and its pair stays as it is. A journal that
is damaged, or none of the group's any more, has nothing to give: that is told, and hosts see the volume as it is.
"""

from __future__ import annotations

from collections.abc import Collection

from arrayd.log import get_logger
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import JournalError, PrimaryJournal, Role
from arrayd.replication.journal.superblocks import has_journal
from arrayd.replication.redo import RedoFailed, flush_all, look_through, write_records
from arrayd.replication.stages import Doors
from arrayd.volumes.volume import Volume, VolumeError

log = get_logger("replication")


async def write_again(
    row: GroupRow, doors: Doors, numbers: Collection[int]
) -> tuple[set[int], RedoFailed | JournalError | None]:
    """Writes to these P-VOLs what they may lack. The numbers of those that have all there is then, durably, and what
    has failed. RedoFailed: the others are to be written again. JournalError: the journal is damaged, or another one, so
    that there is nothing that they could be given; hosts' writes may be missing."""
    volumes = {pair.number: doors.volume(pair.volume) for pair in row.pairs if pair.number in numbers}
    failure = None
    for number, volume in list(volumes.items()):
        try:
            await flush_all({number: volume})
        except VolumeError as error:  # it takes no write before another start
            failure = RedoFailed(error, begun=True)
            del volumes[number]
    if not volumes:
        return set(), failure
    try:
        journal = await _journal(row, doors.volume(row.journal_volume))
        begin, end = journal.regions.redo, journal.regions.stored
        await look_through(journal, begin, end)
    except JournalError as damaged:
        return set(volumes), damaged
    except VolumeError as error:
        return set(), failure or RedoFailed(error, begun=False)
    synced = set()
    for number, volume in volumes.items():
        try:
            await write_records(journal, begin, end, {number: volume})
            await flush_all({number: volume})
            synced.add(number)
            log.info("written again from the journal", group=row.name, volume=number)
        except (VolumeError, JournalError) as error:
            failure = RedoFailed(error, begun=True)
    return synced, failure


async def _journal(row: GroupRow, place: Volume) -> PrimaryJournal:
    """The one of the row's epoch. Raises JournalError, VolumeError."""
    if not await has_journal(place, Role.PRIMARY, row.id, row.epoch):
        raise JournalError(f"the journal of group {row.name}, epoch {row.epoch}, is not on its volume")
    return await PrimaryJournal.open(place)
