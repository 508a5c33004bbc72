"""Faults of replication, made on purpose: each breaks what a pair promises. Seeds of `paired.py` have to find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arrayd.replication import redo
from arrayd.replication.restoration import Restoration
from arrayd.volumes.volume import Volume

SKIPPED_EVERY = 20
CARRY_OUT = redo.carry_out


async def _skip_some(record: Any, volume: Volume) -> None:
    if record.entry.sequence % SKIPPED_EVERY:
        await CARRY_OUT(record, volume)


async def _one_block_on(record: Any, volume: Volume) -> None:
    """A record of the last block's neighbour goes there too."""
    entry, data = record
    if entry.offset + entry.extent < volume.size:
        record = type(record)(entry._replace(offset=entry.offset + 512), data)
    await CARRY_OUT(record, volume)


async def _told_first(self: Restoration, begin: Any, end: Any) -> None:
    """A position is told as restored before its records are carried out."""
    runs = [run async for run in self.journal.runs(begin, end)]
    await self.journal.restored(end)
    for run in runs:
        for record in run:
            await CARRY_OUT(record, self._volumes[record.entry.volume])


async def _backwards(self: Restoration, begin: Any, end: Any) -> None:
    """The records of a batch are carried out from the last to the first."""
    records = [record async for run in self.journal.runs(begin, end) for record in run]
    for record in reversed(records):
        await CARRY_OUT(record, self._volumes[record.entry.volume])
    await redo.flush_all(self._volumes)
    await self.journal.restored(end)


PAIR_MUTATIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "a record is not restored": {"arrayd.replication.restoration.carry_out": _skip_some},
    "a record is restored elsewhere": {"arrayd.replication.restoration.carry_out": _one_block_on},
    "restored is told before it is": {"arrayd.replication.restoration.Restoration._carry_out": _told_first},
    "a batch is restored out of order": {"arrayd.replication.restoration.Restoration._carry_out": _backwards},
}
"""By what goes wrong."""
