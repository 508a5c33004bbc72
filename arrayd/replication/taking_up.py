"""A group is taken up by the row it has: at a start, and where a change of its stage has failed.

It goes on in the stage of its row. If that cannot be prepared, nobody knows any more what the two sides have in common:
the bitmaps of all its pairs are made anew, all marked, S-VOLs that were followed are no point of the group's writes,
and the row is PSUE where the table of statuses allows it. If that cannot be done either, or the disk fails while the
journal of P-VOLs is redone, hosts see the volumes guarded, the row stays, and `trouble` says why, until a change or a
start goes well. So a row never says that a volume is followed, marked or open that is not, and hosts never see P-VOLs
without what they were answered.
"""

from __future__ import annotations

from dataclasses import replace

from arrayd.replication.choosing import of_one_mind
from arrayd.replication.fencing import outlast
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.in_force import STAGE_ERRORS, Stages
from arrayd.replication.pair_stores import make_bitmaps
from arrayd.replication.redo import RedoFailed
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import Event, Refusal
from arrayd.replication.transitions import Circumstances
from arrayd.replication.unsynced import write_again


class Stays(Exception):
    """The group stays in its stage: nothing has happened."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


async def take_up(stages: Stages) -> None:
    """Begins the stage of the row there is, as after a restart: see above. Raises STAGE_ERRORS where hosts cannot even
    be refused their writes."""
    row = await _synced(stages)
    stages.stage = stages.token = prepared = None
    try:
        token, stage = stages.made(row)
        await stage.prepare(found=True)
        prepared = stage
        await stages.enter(token, stage)
        return
    except Exception as error:
        stages.trouble = reason = stages.failed("its stage cannot be prepared", error)
        redone = not isinstance(error, RedoFailed)
    if prepared is not None:
        await stages.close(prepared)
    if not redone:
        await _stand(stages, row, reason)
        return
    try:
        await _begin_anew(stages, row, reason)
    except Exception as error:
        stages.failed("nor can it be suspended: hosts' writes are refused", error)
        await _stand(stages, stages.row(), reason)


async def _synced(stages: Stages) -> GroupRow:
    """The row, once what P-VOLs lack is written to them again where that can be."""
    row = stages.row()
    numbers = {pair.number for pair in row.pairs if pair.unsynced}
    if not numbers:
        return row
    try:
        synced, error = await write_again(row, stages.around.doors, numbers)
        if error is not None:
            stages.failed("what hosts were answered is not on P-VOLs", error)
        if synced:
            row = await stages.around.table.keep(stages.name, stages.around.commit, synced=synced)
    except Exception as not_kept:
        stages.failed("it is not kept what is on P-VOLs again", not_kept)
    return row


async def redo(stages: Stages, row: GroupRow, *, ends: bool) -> None:
    """P-VOLs that could not be taken up have what is in their journal, before they leave it: their stage is there then,
    and nobody sees it. A journal that a disk still does not let read is left only if the group `ends`; one that is
    damaged is left. Raises Stays, VolumeError."""
    if type(stages.stage) is stages.around.kinds.journaling:
        return  # it is there already: the change that it was for has come to nothing
    token, stage = stages.made(row)
    try:
        await stage.prepare(found=True)
    except RedoFailed as error:
        if ends and not error.begun:
            await outlast(stage)
            return
        raise Stays(Refusal(f"hosts' writes may be missing on the P-VOLs: {error}")) from error
    except STAGE_ERRORS:
        await outlast(stage)
        return
    standing, stages.stage, stages.token = stages.stage, stage, token
    if standing is not None:
        await stages.close(standing)


async def _begin_anew(stages: Stages, row: GroupRow, reason: str) -> None:
    kinds, doors = stages.around.kinds, stages.around.doors
    was = kinds.of(row)
    made: list[tuple[object, Stage]] = []

    async def between(_old: GroupRow | None, new: GroupRow | None) -> GroupRow | None:
        assert new is not None, "an error ends no pair"
        new = of_one_mind(new, doors.clock() / 1e9)
        if kinds.copied_to(row):
            new = replace(new, consistent=False)
        token, stage = stages.made(new)
        if was in (kinds.journaling, kinds.mirroring):
            await outlast(stage)
        if was is not kinds.standing:
            await make_bitmaps(stage, new.states, marked=True)
        # What is taken up again as it was is still what was found: hosts do not see what it lacks.
        await stage.prepare(found=was is kinds.of(new))
        made.append((token, stage))
        return new

    told = Circumstances(doors.clock() / 1e9, reason)
    try:
        await stages.around.table.happen(stages.name, Event.ERROR, None, told, stages.around.commit, between=between)
        if not made:
            await between(row, row)
    except BaseException:
        for _, stage in made:
            await stages.close(stage)
        raise
    await stages.enter(*made[0])


async def _stand(stages: Stages, row: GroupRow, reason: str) -> None:
    token, stage = stages.made(row, stages.around.kinds.standing)
    await stage.prepare(found=True)
    await stages.enter(token, stage)
    stages.trouble = reason
