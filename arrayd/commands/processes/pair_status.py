"""The command that tells how a group goes on this array: `pair-status`, which `arrayd.host.pair_status` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from arrayd.commands.pairing import volume_at
from arrayd.commands.processes.pair_verify import VerifyShown, shown
from arrayd.commands.registry import REGISTRY, Input, Output
from arrayd.replication.figures import Figures, differing, figures, journal_status, percent
from arrayd.replication.group_rows import PAIRS_MAX, GroupRow, Mode, PairRow
from arrayd.replication.jobs import Job
from arrayd.replication.journal.regions import BLOCK_BYTES
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import State

if TYPE_CHECKING:
    from arrayd.commands.context import Context

ASYNC_FENCE = "ASYNC"
"""What stands for a fence level of asynchronous pairs, which have none. Those of others are told in capitals, too."""
UNSYNCED = "the volume could not be synced: what it lacks is in the journal, start the array again once its disk works"
"""Of a pair that is `unsynced`."""


class WhichGroup(Input):
    """The pairs of a group, or none; and LUNs that are told of besides, as SMPL if they are in none of these."""

    group: str | None = Field(default=None, min_length=1, max_length=64)
    luns: list[int] = Field(default_factory=list, max_length=PAIRS_MAX)


class PairShown(Output):
    """A volume, in a pair of the group or in none (SMPL): `holder` says what it is in another group. `percent` is of a
    copy, or of what both sides have the same; sizes and `differing` are in bytes; `volume` is its identity; `jid` is of
    the group's journal."""

    lun: int
    state: str
    number: int | None = None
    name: str | None = None
    volume: str
    size: int
    block_size: int
    fence: str | None = None
    percent: int | None = None
    ctg: int | None = None
    jid: int | None = None
    since: float | None = None
    error: str | None = None
    differing: int | None = None
    holder: str | None = None


class JournalShown(Output):
    """The group's journal on this array, with the columns of pairdisplay -v jnl."""

    jid: int
    mu: int
    ctg: int
    status: str
    links: int
    used_percent: int | None
    marker: int | None
    remaining: int | None
    blocks: int
    lun: int


class Lag(Output):
    """How far the S-VOLs are behind, as far as this array knows: nothing is guessed."""

    seconds: float | None
    writes: int | None
    bytes: int | None


class JobShown(Output):
    """How what takes long goes: bytes `done` since it began, or the array has started, and `left`, the rate of the last
    while in bytes a second, and how long what is left takes at that."""

    done: int | None
    left: int | None
    rate: int | None
    seconds_left: float | None


class Candidate(Output):
    """A volume that may become a journal."""

    lun: int
    name: str
    size: int


class PairStatus(Output):
    """How a group goes on this array; `contact`: when the other array was last heard of, in seconds since 1970;
    `links`: connections to it that live; `verify`: the one that runs, or was the last since the pairs have changed.
    What is not known is left out. A group that is not `asynchronous` has no journals, and no positions in them."""

    array: str
    serial: str
    asynchronous: bool = True
    id: str | None = None
    group: str | None = None
    generation: int = 0
    consistent: bool = False
    last_epoch: int
    driver: str | None = None
    pace: int | None = None
    copy_rate: int | None = None
    peer: str | None = None
    contact: float | None = None
    links: int | None = None
    sequence: int | None = None
    restored: int | None = None
    lag: Lag | None = None
    copying: JobShown | None = None
    restoring: JobShown | None = None
    verify: VerifyShown | None = None
    pairs: list[PairShown]
    journals: list[JournalShown]
    journal_candidates: list[Candidate]


@REGISTRY.command(60, "pair-status")
async def pair_status(context: Context, told: WhichGroup) -> PairStatus:
    """Say how a group goes on this array: its pairs, its journal, its lag."""
    table = context.replication.table
    row = None if told.group is None else table.group(told.group)
    status = PairStatus(
        array=context.name,
        serial=context.serial,
        group=told.group,
        last_epoch=table.last_epoch,
        pairs=[],
        journals=[],
        journal_candidates=_candidates(context),
    )
    if row is not None:
        _tell(context, row, status)
    there = {pair.lun for pair in status.pairs}
    status.pairs += [_simplex(context, lun) for lun in dict.fromkeys(told.luns) if lun not in there]
    return status


def _tell(context: Context, row: GroupRow, status: PairStatus) -> None:
    at_work = context.replication.at_work(row.name)
    stage = None if at_work is None else at_work.stages.stage
    progress = Progress() if stage is None else stage.progress()
    told = figures(row, progress)
    contacts = [at for at in (progress.contact, None if at_work is None else at_work.contact) if at is not None]
    trouble = "" if at_work is None else at_work.stages.trouble
    lun_of = context.estate.ledger.held.lun_of
    status.id, status.group, status.generation = row.id.hex(), row.name, row.generation
    status.consistent, status.driver, status.pace = row.consistent, row.driver.value, row.pace
    status.copy_rate = row.copy_rate
    status.asynchronous = row.mode is Mode.ASYNC
    status.peer, status.contact, status.links = row.peer, max(contacts, default=None), _links(context, row)
    status.sequence, status.restored = told.sequence, told.restored
    status.lag = Lag(seconds=told.lag_s, writes=told.lag_writes, bytes=told.lag_bytes)
    status.copying, status.restoring = _job(progress.copying), _job(progress.restoring)
    status.verify = shown(progress.verifying)
    status.pairs = [
        _pair(context, row, pair, lun_of[pair.volume], progress, trouble) for pair in row.pairs if pair.volume in lun_of
    ]
    if row.journal is not None and row.journal in lun_of:
        status.journals = [_journal(context, row, lun_of[row.journal], progress, told)]


def _links(context: Context, row: GroupRow) -> int:
    return sum(link.connected for link in context.links() if link.array == row.peer)


def _job(job: Job | None) -> JobShown | None:
    if job is None:
        return None
    rate, seconds = job.rate, job.seconds_left
    return JobShown(
        done=job.done,
        left=job.left,
        rate=None if rate is None else round(rate),
        seconds_left=None if seconds is None else round(seconds, 1),
    )


def _pair(context: Context, row: GroupRow, pair: PairRow, lun: int, progress: Progress, trouble: str) -> PairShown:
    volume = context.estate.volumes.opened[pair.volume]
    return PairShown(
        lun=lun,
        state=str(pair.state),
        number=pair.number,
        name=pair.name,
        volume=volume.identity,
        size=volume.size,
        block_size=volume.block_size,
        fence=ASYNC_FENCE if row.mode is Mode.ASYNC else row.fence.upper(),
        percent=percent(pair, volume.size, progress),
        ctg=row.ctg,
        jid=None if row.journal is None else row.ctg,
        since=pair.since,
        error=trouble or (UNSYNCED if pair.unsynced else pair.error) or None,
        differing=differing(pair, progress),
    )


def _journal(context: Context, row: GroupRow, lun: int, progress: Progress, told: Figures) -> JournalShown:
    share = progress.used_share
    behind = None if told.sequence is None or told.restored is None else told.sequence - told.restored
    return JournalShown(
        jid=row.ctg,
        mu=0,
        ctg=row.ctg,
        status=journal_status(row),
        links=_links(context, row),
        used_percent=None if share is None else round(100 * min(share, 1.0)),
        marker=told.sequence,
        remaining=behind,
        blocks=context.estate.volumes.opened[row.journal_volume].size // BLOCK_BYTES,
        lun=lun,
    )


def _simplex(context: Context, lun: int) -> PairShown:
    name, volume = volume_at(context, lun)
    return PairShown(
        lun=lun,
        state=str(State.SMPL),
        volume=volume.identity,
        size=volume.size,
        block_size=volume.block_size,
        holder=context.replication.table.role(name),
    )


def _candidates(context: Context) -> list[Candidate]:
    held, table = context.estate.ledger.held, context.replication.table
    return [
        Candidate(lun=lun, name=name, size=held.volumes[name].size)
        for name, lun in sorted(held.lun_of.items(), key=lambda each: each[1])
        if held.volumes[name].use == "journal" and table.holds(name) is None
    ]
