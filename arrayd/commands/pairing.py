"""What a pair asks of the estate before it is made, in the ledger's turn: volumes of the right use and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from arrayd.commands.registry import CommandError
from arrayd.commands.results import Result
from arrayd.replication.group_rows import Driver, Fence, GroupRow, Mode, PairRow
from arrayd.replication.journal.format import WRITE_BYTES_MAX
from arrayd.replication.pairs import PairsError
from arrayd.volumes.file_volume import FileVolume

if TYPE_CHECKING:
    from arrayd.commands.context import Context

JOURNAL_BYTES_MIN = 4 * WRITE_BYTES_MAX
"""A shorter journal is no use: it is nearly full with some of the longest writes."""


@dataclass(frozen=True, slots=True)
class WantedPair:
    """A pair as it is told to one side; sizes are the other side's, in bytes."""

    number: int
    name: str
    lun: int
    peer_lun: int
    peer_volume: str
    peer_size: int
    peer_block_size: int


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """A group as it is told to one side: journals by their LUNs, where it has any."""

    id: bytes
    name: str
    peer: str
    peer_serial: str
    journal: int | None
    peer_journal: int | None
    epoch: int
    mode: Mode
    fence: Fence
    pace: int
    driver: Driver
    copy_rate: int | None
    pairs: Sequence[WantedPair]


def group_row(context: Context, wanted: WantedGroup) -> GroupRow:
    """The row of the group, with those of its pairs that are not there yet, SMPL. Raises CommandError; ValueError for
    what no row can be; PairsError."""
    present = context.replication.table.group(wanted.name)
    if present is not None and (present.id, present.peer) != (wanted.id, wanted.peer):
        raise _conflict(f"group {wanted.name}: there is one already, with array {present.peer}")
    if present is not None and (present.mode, present.fence) != (wanted.mode, wanted.fence):
        what = "asynchronous" if present.mode is Mode.ASYNC else f"synchronous, of fence level {present.fence}"
        raise _conflict(f"group {wanted.name}: there is one already, {what}")
    if wanted.peer not in context.estate.ledger.held.connections:
        raise CommandError(Result.NOT_FOUND, f"array {wanted.peer}: not connected with it")
    serials = {link.serial for link in context.links() if link.array == wanted.peer and link.serial}
    if serials - {wanted.peer_serial}:
        raise _conflict(f"array {wanted.peer}: its serial is {serials.pop()}, not {wanted.peer_serial}")
    known = set() if present is None else {_same(pair) for pair in present.pairs}
    pairs = []
    for pair in wanted.pairs:
        volume = _pair_volume(context, pair)
        row = PairRow(pair.number, pair.name, volume, pair.peer_lun, pair.peer_volume)
        if _same(row) not in known:
            pairs.append(row)
    if present is not None:
        return replace(present, pairs=tuple(sorted(pairs, key=lambda pair: pair.number))) if pairs else present
    return GroupRow(
        wanted.id,
        wanted.name,
        context.replication.free_ctg(),
        None if wanted.journal is None else _journal(context, wanted.journal),
        wanted.peer,
        wanted.peer_serial,
        wanted.peer_journal,
        wanted.epoch,
        tuple(sorted(pairs, key=lambda pair: pair.number)),
        wanted.mode,
        wanted.pace,
        wanted.driver,
        copy_rate=wanted.copy_rate,
        fence=wanted.fence,
    )


def _same(pair: PairRow) -> tuple[object, ...]:
    """By which a pair is known again that was told before."""
    return pair.number, pair.name, pair.volume, pair.peer_lun, pair.peer_volume


def _pair_volume(context: Context, pair: WantedPair) -> str:
    name, volume = volume_at(context, pair.lun)
    settings = context.estate.ledger.held.volumes[name]
    where = f"pair {pair.name}: LUN {pair.lun}: volume {name}"
    if settings.use != "data":
        raise _conflict(f"{where} is a journal")
    if settings.read_only:
        raise _conflict(f"{where} is read-only")
    if volume.file.failure is not None:
        raise _conflict(f"{where} has failed")
    if volume.size != pair.peer_size:
        raise _conflict(f"{where} has {volume.size} bytes, and the other array's {pair.peer_size}: they must be equal")
    if volume.block_size != pair.peer_block_size:
        raise _conflict(
            f"{where} has blocks of {volume.block_size} bytes, and the other array's {pair.peer_block_size}"
        )
    return name


def _journal(context: Context, lun: int) -> str:
    name, volume = volume_at(context, lun)
    settings = context.estate.ledger.held.volumes[name]
    where = f"journal: LUN {lun}: volume {name}"
    if settings.use != "journal":
        raise _conflict(f"{where} is not marked `use: journal`")
    if settings.read_only:
        raise _conflict(f"{where} is read-only")
    if volume.size < JOURNAL_BYTES_MIN:
        raise _conflict(f"{where} has {volume.size} bytes: a journal has {JOURNAL_BYTES_MIN} at the least")
    held = context.replication.table.holds(name)
    if held is not None:
        raise PairsError(f"{where} is {held}")
    return name


def volume_at(context: Context, lun: int) -> tuple[str, FileVolume]:
    """The volume of this array at a LUN, and its name. Raises CommandError."""
    row = context.estate.ledger.held.luns.get(lun)
    if row is None or row.volume is None:
        raise CommandError(Result.NOT_FOUND, f"LUN {lun}: there is no volume of this array")
    return row.volume, context.estate.volumes.opened[row.volume]


def _conflict(reason: str) -> CommandError:
    return CommandError(Result.CONFLICT, reason)
