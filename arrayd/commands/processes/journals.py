"""Commands that do one step of a group's work on this array, for a host that drives it (figure 16): journal acquisition
(figure 13), restoration (figure 14), purge (figure 15), a copy (figure 11), and the pointers of the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from arrayd.commands.processes.pairs import pair_refusals
from arrayd.commands.registry import REGISTRY, CommandError, Input, Output
from arrayd.commands.results import Result
from arrayd.link.channel import LinkError
from arrayd.replication import steps
from arrayd.replication.asking import Refused
from arrayd.replication.bitmap import FormatError as BitmapFormatError
from arrayd.replication.group_rows import Driver, Mode
from arrayd.replication.journal import FormatError
from arrayd.replication.journal.regions import AuxiliaryRegions, PrimaryRegions
from arrayd.replication.journal.regions import Position as JournalPosition
from arrayd.replication.pulling import Stopped
from arrayd.replication.stages import Stage

if TYPE_CHECKING:
    from arrayd.commands.context import Context


class GroupName(Input):
    """The name of a group."""

    group: str = Field(min_length=1, max_length=64)


class Position(Output):
    """A place in the group's writes: so many were stored before it, ever, and so many bytes of their data."""

    sequence: int
    byte: int


class JournalPointers(Output):
    """The journal of a group on this array (figure 15): `lbas` are LBAs of its volume, `positions` the same as they
    count and never wrap."""

    group: str
    role: str
    epoch: int
    used_percent: int
    lbas: dict[str, int]
    positions: dict[str, Position]


PRIMARY = ("journal_out", "redo", "synced", "journal_in")
AUXILIARY = ("restoration_completed", "to_be_restored", "read_completed", "to_be_read")


@REGISTRY.command(70, "journal-status")
async def journal_status(context: Context, told: GroupName) -> JournalPointers:
    """Say where the pointers of a group's journal are (figure 15)."""
    stage = _stage(context, told)
    pointers = _pointers(stage)
    if pointers is None:
        raise CommandError(Result.CONFLICT, f"group {told.group}: no journal is in use here: {_shown(stage)}")
    return pointers


def _pointers(stage: Stage) -> JournalPointers | None:
    regions = steps.positions(stage)
    if regions is None:
        return None
    role, names = ("primary", PRIMARY) if isinstance(regions, PrimaryRegions) else ("auxiliary", AUXILIARY)
    return JournalPointers(
        group=stage.row.name,
        role=role,
        epoch=stage.row.epoch,
        used_percent=round(100 * min(regions.used_share, 1.0)),
        lbas=steps.lbas(regions),
        positions=_positions(regions, names),
    )


def _positions(regions: PrimaryRegions | AuxiliaryRegions, names: tuple[str, ...]) -> dict[str, Position]:
    told: tuple[JournalPosition, ...] = regions.positions
    return {name: Position(sequence=at.sequence, byte=at.byte) for name, at in zip(names, told, strict=True)}


class Stepped(Output):
    """`done`: there was something to do; `journal`: this array's, after that; `left`: bytes that are still to be
    copied, where there is a copy."""

    group: str
    done: bool
    journal: JournalPointers | None
    left: int | None


@REGISTRY.command(71, "journal-acquire")
async def journal_acquire(context: Context, told: GroupName) -> Stepped:
    """Copy records of the primary journal to this array's, once (figure 13): at the S-VOLs' side."""
    return await _step(context, told, steps.acquire, "acquired")


@REGISTRY.command(72, "journal-restore")
async def journal_restore(context: Context, told: GroupName) -> Stepped:
    """Write records of this array's journal to the S-VOLs, once (figure 14)."""
    return await _step(context, told, steps.restore, "restored")


@REGISTRY.command(73, "journal-purge")
async def journal_purge(context: Context, told: GroupName) -> Stepped:
    """Release the records of the primary journal that the S-VOLs have, once (figure 16): at the P-VOLs' side."""
    return await _step(context, told, steps.purge, "purged")


@REGISTRY.command(74, "pair-copy")
async def pair_copy(context: Context, told: GroupName) -> Stepped:
    """Copy some of what differs from the P-VOLs, once (figure 11): at the S-VOLs' side."""
    return await _step(context, told, steps.copy, "copied")


async def _step(context: Context, told: GroupName, of: Callable[[Stage], steps.Step | None], done: str) -> Stepped:
    stage = _stage(context, told)
    step, group = of(stage), f"group {told.group}"
    if step is None:
        raise CommandError(Result.CONFLICT, f"{group}: nothing is {done} here: {_shown(stage)}")
    if stage.row.driver is Driver.ARRAYS:
        raise CommandError(Result.CONFLICT, f"{group}: the arrays drive it themselves: pair-set driver=host")
    try:
        with pair_refusals():
            there_was = await step()
    except LinkError as error:
        raise CommandError(Result.UNDELIVERABLE, f"{stage.row.peer} cannot be reached: {error}") from error
    except Refused as error:
        raise CommandError(Result.CONFLICT, f"{stage.row.peer} does not answer that now: {error}") from error
    except Stopped as error:
        raise CommandError(Result.CONFLICT, f"{group}: it is just being changed: {_shown(stage)}") from error
    except (FormatError, BitmapFormatError) as error:
        raise CommandError(Result.FAILED, f"what {stage.row.peer} answers cannot be taken: {error}") from error
    copying = stage.progress().copying
    left = None if copying is None else copying.left
    return Stepped(group=told.group, done=there_was, journal=_pointers(stage), left=left)


def _stage(context: Context, told: GroupName) -> Stage:
    row = context.replication.table.group(told.group)
    if row is not None and row.mode is Mode.SYNC:
        raise CommandError(Result.CONFLICT, f"group {told.group}: it is synchronous: no journal, and nothing to drive")
    at_work = context.replication.at_work(told.group)
    stage = None if at_work is None else at_work.stages.stage
    if stage is None:
        raise CommandError(Result.NOT_FOUND, f"group {told.group}: there is none")
    return stage


def _shown(stage: Stage) -> str:
    return ", ".join(sorted({str(state) for state in stage.row.states.values()}))
