"""P-VOLs that could not be synced when their group was suspended: the next start writes what the journal has of them.

A flush is answered when the journal is synced, and a journal is not redone once its group is suspended: the volumes go
on by themselves then. Not one whose sync has failed, which has failed until the array is started again; what was
answered as durable may be in the journal alone, since the kernel takes the pages for clean that it could not write. So
it is noted, before the suspension is, of which volumes that is. At the next start, before hosts see them, the records
from redo on are written to them again. Nobody has written to them since.
"""

from __future__ import annotations

import mmap
from struct import Struct as Layout

from arrayd.log import get_logger
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import JournalError, PrimaryJournal, Role
from arrayd.replication.journal.regions import PAGE_BYTES
from arrayd.replication.journal.superblocks import has_journal
from arrayd.replication.redo import RedoFailed, carry_out
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import P_RUNNING, Side
from arrayd.volumes.volume import Volume, VolumeError, finished

EPOCH = Layout(">Q")
"""What a note begins with: the epoch of the journal that has the writes."""
UNSYNCED = "unsynced"

log = get_logger("replication")


async def note_unsynced(stage: Stage, group: PrimaryGroup, numbers: list[int]) -> None:
    """Notes, durably, that these volumes of a group that has stopped are to be written again. Raises VolumeError.

    Where the journal has failed, too, nothing is: what is in it may be older than the volumes."""
    if numbers and group.journal.failure is None:
        await group.journal.sync()
        for number in numbers:
            await _note(stage, number)


async def _note(stage: Stage, number: int) -> None:
    name, stores = stage.store_name(UNSYNCED, number), stage.doors.stores
    store = await stores.create(name, PAGE_BYTES)
    try:
        page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        EPOCH.pack_into(page, 0, stage.row.epoch)
        await finished(store.write(0, page))
        await finished(store.flush())
    finally:
        await stores.close(name)


async def redo_unsynced(stage: Stage) -> None:
    """At a start: writes to the volumes of the stage's group what is noted. Of P-VOLs that run all is redone anyway.
    One that cannot be synced again stays noted: it takes no write before another start. Raises RedoFailed,
    VolumeError."""
    row, doors = stage.row, stage.doors
    noted = [pair for pair in row.pairs if await _is_noted(stage, pair.number)]
    failed: set[int] = set()
    if noted and row.side is Side.P_VOL and not set(P_RUNNING) & set(row.states.values()):
        try:
            failed = await _redo(stage, {pair.number: doors.volume(pair.volume) for pair in noted})
        except JournalError as error:
            log.error("writes of hosts may be missing", group=row.name, reason=str(error))
    for pair in noted:
        if pair.number not in failed:
            await doors.stores.remove(stage.store_name(UNSYNCED, pair.number))


async def _is_noted(stage: Stage, number: int) -> bool:
    """Whether a volume is to be written again from the journal of the row's epoch. Raises VolumeError."""
    name, stores = stage.store_name(UNSYNCED, number), stage.doors.stores
    store = await stores.open(name)
    if store is None:
        return False
    try:
        page = memoryview(mmap.mmap(-1, PAGE_BYTES))
        await finished(store.read(0, page))
    finally:
        await stores.close(name)
    return EPOCH.unpack_from(page) == (stage.row.epoch,)


async def _redo(stage: Stage, volumes: dict[int, Volume]) -> set[int]:
    """The numbers of those that cannot be synced. Raises JournalError: the journal is not there, or damaged;
    RedoFailed."""
    failed = await _not_synced(volumes)
    volumes = {number: volume for number, volume in volumes.items() if number not in failed}
    row, place = stage.row, stage.doors.volume(stage.row.journal)
    try:
        if not await has_journal(place, Role.PRIMARY, row.id, row.epoch):
            raise JournalError(f"the journal of group {row.name}, epoch {row.epoch}, is not on its volume")
        journal = await PrimaryJournal.open(place)
        async for run in journal.runs(journal.regions.redo, journal.regions.stored):
            for record in run:
                volume = volumes.get(record.entry.volume)
                if volume is not None:
                    await finished(carry_out(record, volume))
    except VolumeError as error:
        raise RedoFailed(error, begun=True) from error
    return failed | await _not_synced(volumes)


async def _not_synced(volumes: dict[int, Volume]) -> set[int]:
    """Syncs them; the numbers of those that have failed, and take no write any more."""
    failed = set()
    for number, volume in volumes.items():
        try:
            await finished(volume.flush())
        except VolumeError as error:
            log.error("a volume is not durable", volume=number, reason=str(error))
            failed.add(number)
    return failed
