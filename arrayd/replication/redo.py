"""Redo: after a restart the tail of a primary journal is written to its P-VOLs again. Whoever was there already is
written the same once more, in the same order, so nothing changes by it: once all of it is done. In between a P-VOL may
have older data than it had, which hosts must not see, nor write to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from arrayd.replication.journal import JournalError, Kind, Position, PrimaryJournal, Record
from arrayd.volumes.volume import Volume, VolumeError, finished

PATTERN_BYTES = 256 * 1024
"""Of a WRITE SAME so much is written at once."""


class RedoFailed(VolumeError):
    """The disk has failed meanwhile. `begun`: P-VOLs may have older data than they had, until redo is done again."""

    def __init__(self, error: Exception, begun: bool) -> None:
        super().__init__(f"the journal is not redone: {error}")
        self.begun = begun


def carry_out(record: Record, volume: Volume) -> Awaitable[None] | None:
    """Does to `volume` what the record says: on the spot (None), as nearly all of them, or when it is awaited. Raises
    VolumeError, also out of the awaitable."""
    entry, data = record
    if entry.kind == Kind.WRITE and volume.write_now(entry.offset, data):
        return None
    return _carry_out_later(record, volume)


async def _carry_out_later(record: Record, volume: Volume) -> None:
    entry, data = record
    if entry.kind == Kind.WRITE:
        await finished(volume.write(entry.offset, data))
    elif entry.kind == Kind.UNMAP:
        await finished(volume.unmap(entry.offset, entry.extent))
    elif entry.kind == Kind.ZEROS:
        await finished(volume.write_zeros(entry.offset, entry.extent))
    else:
        step = max(entry.length, PATTERN_BYTES - PATTERN_BYTES % entry.length)
        repeated = memoryview(bytes(data) * (min(step, entry.extent) // entry.length))
        end = entry.offset + entry.extent
        for at in range(entry.offset, end, step):
            await finished(volume.write(at, repeated[: end - at]))


async def flush_all(volumes: Mapping[int, Volume]) -> None:
    """Makes what was written to the volumes durable. Raises VolumeFailed."""
    flushes = [asyncio.ensure_future(finished(volume.flush())) for volume in volumes.values()]
    if flushes:
        await asyncio.wait(flushes)
    for each in flushes:
        each.result()


async def look_through(journal: PrimaryJournal, begin: Position, end: Position) -> set[int]:
    """The numbers of the volumes that the records are of. What is not whole is not begun: raises JournalError,
    VolumeError."""
    numbers: set[int] = set()
    async for run in journal.runs(begin, end):
        numbers.update(record.entry.volume for record in run)
    return numbers


async def write_records(journal: PrimaryJournal, begin: Position, end: Position, volumes: Mapping[int, Volume]) -> None:
    """Does to the volumes, by number, what the records say, in order. Raises JournalError, VolumeError."""
    async for run in journal.runs(begin, end):
        for record in run:
            volume = volumes.get(record.entry.volume)
            if volume is not None:
                await finished(carry_out(record, volume))


async def redo(journal: PrimaryJournal, volumes: Mapping[int, Volume]) -> Position:
    """Writes all records from redo on to their volumes, durably, and moves redo behind them; up to where that is.

    Raises JournalError (also if a record is of no volume of `volumes`): nothing is written then; RedoFailed,
    VolumeError: then it is done again from where redo was.
    """
    begin, end = journal.regions.redo, journal.regions.stored
    try:
        numbers = await look_through(journal, begin, end)
    except VolumeError as error:
        raise RedoFailed(error, begun=False) from error
    if strange := numbers - volumes.keys():
        raise JournalError(f"there are records of volume {min(strange)}, which is none")
    try:
        await write_records(journal, begin, end, volumes)
        await flush_all(volumes)
    except VolumeError as error:
        raise RedoFailed(error, begun=True) from error
    await journal.sync()
    journal.redone(end)
    await journal.save()
    return end
