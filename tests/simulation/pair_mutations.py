"""Faults of replication, made on purpose: each breaks what a pair promises. Seeds of `paired.py` have to find it."""

from __future__ import annotations

import asyncio
from typing import Any

from arrayd.replication import asking, redo
from arrayd.replication.activity import ActivityLog
from arrayd.replication.asking import position_of
from arrayd.replication.bitmap import Bitmap
from arrayd.replication.copying import HEAD_BYTES, Copying
from arrayd.replication.fencing import Fence
from arrayd.replication.following import Following
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.guarded import GuardedVolume
from arrayd.replication.journal import Kind, PrimaryJournal
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.restoration import Restoration
from arrayd.replication.serving import JournalServer
from arrayd.replication.statuses import Event
from arrayd.volumes.volume import Volume, finished
from tests.simulation.faults import KINDS
from tests.simulation.mutations import MUTATIONS

SKIPPED_EVERY = 20
SYNCS_FAIL = KINDS | {"fail_syncs": 20}
"""Faults of runs in which syncs fail more often: one in a thousand others finds what that alone brings about."""
CARRY_OUT = redo.carry_out


async def _skip_some(record: Any, volume: Volume) -> None:
    if record.entry.sequence % SKIPPED_EVERY:
        await finished(CARRY_OUT(record, volume))


async def _one_block_on(record: Any, volume: Volume) -> None:
    """A record of the last block's neighbour goes there too."""
    entry, data = record
    if entry.offset + entry.extent < volume.size:
        record = type(record)(entry._replace(offset=entry.offset + 512), data)
    await finished(CARRY_OUT(record, volume))


async def _told_first(self: Restoration, begin: Any, end: Any) -> None:
    """A position is told as restored before its records are carried out."""
    runs = [run async for run in self.journal.runs(begin, end)]
    await self.journal.restored(end)
    for run in runs:
        for record in run:
            await finished(CARRY_OUT(record, self._volumes[record.entry.volume]))


async def _backwards(self: Restoration, begin: Any, end: Any) -> None:
    """The records of a batch are carried out from the last to the first."""
    records = [record async for run in self.journal.runs(begin, end) for record in run]
    for record in reversed(records):
        await finished(CARRY_OUT(record, self._volumes[record.entry.volume]))
    await redo.flush_all(self._volumes)
    await self.journal.restored(end)


def _answer_first(self: JournaledVolume, *told: Any) -> asyncio.Future[None]:
    """A write that is not taken on the spot is answered, and then journaled."""
    TAKE(self, *told).add_done_callback(lambda done: done.cancelled() or done.exception())
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answered.set_result(None)
    return answered


def _volume_first(self: PrimaryGroup, write: Any) -> None:
    """A write is in the volume before it is in the journal."""
    if not self.stopped and write.kind is Kind.WRITE:
        write.volume.write_now(write.offset, write.data)
    SUBMIT(self, write)


async def _redo_nothing(journal: PrimaryJournal, _volumes: Any) -> Any:
    return journal.regions.redo


async def _as_if_written(_row: Any, _doors: Any, numbers: set[int]) -> tuple[set[int], None]:
    return numbers, None


async def _acknowledge_asked(self: JournalServer, fields: Any, call: Any) -> None:
    """Whatever was asked for counts as restored before."""
    await self._hear(position_of(fields.at))
    await FOLLOW(self, fields, call)


async def _sync_nothing(self: Any) -> Any:
    """A journal is as good as synced when it is written."""
    await self.commit()
    self.regions.sync(self.regions.stored)
    return self.regions.stored


def _mark_some(self: Bitmap, offset: int, length: int) -> bool:
    return (offset // 4096) % 3 == 0 or MARK(self, offset, length)


def _end_soon(self: Following) -> None:
    """A copy ends when nothing is marked any more, wherever the S-VOLs are."""
    self._due.set()
    if self.journal is None:
        return
    self.acquisition.room.set()
    if not self._copy_ended and self.copying is not None and self.copying.copied:
        self._copy_ended = True
        self.told.event(Event.COPY_END, "")


async def _redo_later(self: Restoration) -> None:
    """What was being restored when the array died counts as restored."""
    regions = self.journal.regions
    if not self.ends and regions.oldest != regions.to_be_restored:
        await self.journal.restored(regions.to_be_restored)
    else:
        await REDO(self)


async def _swap_at_once(self: Following) -> bool:
    """The sides change places without the last of the group's writes."""
    await DRAIN(self)
    return True


async def _drain_nothing(_self: Following, _until: float) -> bool:
    return True


async def _fence_nobody(self: Fence) -> None:
    """Hosts' writes go on while the sides change places."""
    self.prolong()
    self._stands.set_result(None)
    await self._over


async def heat_in_memory(self: ActivityLog, blocks: set[int]) -> None:
    self.hot |= blocks
    for each in blocks:
        self.fresh[each] = 1


async def _join_nothing(self: Copying, pair: Any) -> None:
    """The bitmap of the P-VOL is given up, and not joined."""
    question = asking.joined(self.row.id, self.row.generation, pair.number)
    asking.decode_done(await self._pulling.ask(question, HEAD_BYTES))


async def _flush_nothing(_volumes: Any) -> None:
    return


async def _never(_stage: Any) -> bool:
    return False


async def nothing(*_told: Any) -> None:
    return


def _join_as_synced(self: PrimaryGroup, number: int, volume: Volume) -> None:
    self.volumes[number] = volume


class _Never(Exception):
    """Nobody raises it."""


TAKE, SUBMIT, FOLLOW = JournaledVolume._take, PrimaryGroup.submit, JournalServer.follow
MARK, REDO, DRAIN = Bitmap.mark_now, Restoration.redo, Following._drain_fenced
HERE = "arrayd.replication"
AGAIN = "a command that was executed is executed again"

PAIR_MUTATIONS: dict[str, dict[str, Any]] = {
    "a write is answered before it is journaled": {f"{HERE}.journaled.JournaledVolume._take": _answer_first},
    "a write is in the volume before it is journaled": {f"{HERE}.group.PrimaryGroup.submit": _volume_first},
    "the tail is not redone": {f"{HERE}.journaling.redo": _redo_nothing},
    "what could not be synced is not written again": {
        f"{HERE}.taking_up.write_again": _as_if_written,
        "tests.simulation.faults.KINDS": SYNCS_FAIL,
    },
    "hosts see what is redone in part": {f"{HERE}.taking_up.RedoFailed": _Never},
    "what was not restored is purged": {f"{HERE}.serving.JournalServer.follow": _acknowledge_asked},
    "records are served that are not synced": {f"{HERE}.journal.primary.PrimaryJournal.sync": _sync_nothing},
    "the activity log is not written": {f"{HERE}.activity.ActivityLog.heat": heat_in_memory},
    "what was there before the pair is not synced": {f"{HERE}.group.PrimaryGroup.join": _join_as_synced},
    "a bit is forgotten": {f"{HERE}.bitmap.bitmap.Bitmap.mark_now": _mark_some},
    "a bitmap is given up and not joined": {f"{HERE}.copying.Copying._join": _join_nothing},
    "a record is not restored": {f"{HERE}.restoration.carry_out": _skip_some},
    "a record is restored elsewhere": {f"{HERE}.restoration.carry_out": _one_block_on},
    "restored is told before it is": {f"{HERE}.restoration.Restoration._carry_out": _told_first},
    "restored is told before it is durable": {f"{HERE}.restoration.flush_all": _flush_nothing},
    "a batch is restored out of order": {f"{HERE}.restoration.Restoration._carry_out": _backwards},
    "a restore that was cut short is not done again": {f"{HERE}.restoration.Restoration.redo": _redo_later},
    "COPY ends too early": {f"{HERE}.following.Following._moved": _end_soon},
    "before-images are not kept": {f"{HERE}.before_images.BeforeImages.keep": nothing},
    "a copy that was cut short leads": {f"{HERE}.standing._leads": lambda _row: False},
    "S-VOLs that stand in a copy are read": {f"{HERE}.standing.half_copied": _never},
    "S-VOLs are read while they are copied": {f"{HERE}.guarded.UnreadableVolume.read": GuardedVolume.read},
    "S-VOLs are not guarded": {f"{HERE}.following.GuardedVolume": lambda volume: volume},
    "a swap does not drain": {
        f"{HERE}.following.Following._drain_fenced": _swap_at_once,
        f"{HERE}.following.Following._drain": _drain_nothing,
    },
    "a fence holds nobody": {f"{HERE}.fencing.Fence._stand": _fence_nobody},
    "a side that was written follows": {
        f"{HERE}.journaling.Journaling._all_there": lambda _self: True,
        f"{HERE}.fencing.Fencing.stand_again": nothing,
    },
    AGAIN: MUTATIONS[AGAIN],
}
"""By what goes wrong."""
FIRST_FOUND = {
    "a write is answered before it is journaled": 1,
    "a write is in the volume before it is journaled": 3,
    "the tail is not redone": 3,
    "what could not be synced is not written again": 17,
    "hosts see what is redone in part": 20,
    "what was not restored is purged": 1,
    "records are served that are not synced": 8,
    "the activity log is not written": 27,
    "what was there before the pair is not synced": 10,
    "a bit is forgotten": 6,
    "a bitmap is given up and not joined": 1,
    "a record is not restored": 1,
    "a record is restored elsewhere": 1,
    "restored is told before it is": 1,
    "restored is told before it is durable": 5,
    "a batch is restored out of order": 1,
    "a restore that was cut short is not done again": 25,
    "COPY ends too early": 6,
    "before-images are not kept": 8,
    "a copy that was cut short leads": 29,
    "S-VOLs that stand in a copy are read": 7,
    "S-VOLs are read while they are copied": 1,
    "S-VOLs are not guarded": 1,
    "a swap does not drain": 1,
    "a fence holds nobody": 2,
    "a side that was written follows": 106,
    AGAIN: 1,
}
"""The first of the scenario's seeds that finds each."""
