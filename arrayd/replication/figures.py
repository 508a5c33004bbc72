"""What is told of a group in figures: lag, how much is copied, its journal's status. Pure; None is what is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from arrayd.replication.group_rows import GroupRow, Mode, PairRow
from arrayd.replication.journal.regions import START
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import Side, State, Status

SIDE_LETTERS: Mapping[Side, str] = {Side.P_VOL: "P", Side.S_VOL: "S"}
JOURNAL_STATUSES: Mapping[Status, str] = {
    Status.PSUE: "JSE",
    Status.PFUS: "JSF",
    Status.PSUS: "JSN",
    Status.SSUS: "JSN",
    Status.SSWS: "JSN",
    Status.PFUL: "JNF",
    Status.PAIR: "JNN",
    Status.COPY: "JNN",
}
"""JNLS, behind the letter of the side; the first that any pair of the group shows."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a group on this array. `sequence` and `restored` count writes: all that this array knows of, and those that
    the S-VOLs have for certain."""

    sequence: int | None
    restored: int | None
    lag_s: float | None
    lag_writes: int | None
    lag_bytes: int | None


UNKNOWN = Figures(None, None, None, None, None)
BOTH_HAVE_ALL = Figures(None, None, 0.0, 0, 0)
"""Of P-VOLs of a synchronous group in PAIR: whatever was answered is on both sides. Nobody counts it."""


def figures(row: GroupRow, progress: Progress) -> Figures:
    """How far the S-VOLs are. A side that follows and does not hear of the other knows of no lag; what the row keeps
    stands in for what a stage does not know. Nothing is ever negative: writes that the S-VOLs have are known of."""
    if row.mode is Mode.SYNC:
        return BOTH_HAVE_ALL if all(pair.state is State.P_PAIR for pair in row.pairs) else UNKNOWN
    kept = row.restored if row.side is Side.S_VOL else row.acknowledged
    restored = progress.restored or (kept if kept != START else None)
    stored = progress.stored
    if stored is None:
        return Figures(None, None if restored is None else restored.sequence, None, None, None)
    lag_s = None if progress.lag_s is None else max(0.0, progress.lag_s)
    if restored is None:
        return Figures(stored.sequence, None, lag_s, None, None)
    if restored.sequence > stored.sequence:
        stored = restored
    known = row.side is Side.P_VOL or lag_s is not None
    return Figures(
        stored.sequence,
        restored.sequence,
        lag_s,
        stored.sequence - restored.sequence if known else None,
        max(0, stored.byte - restored.byte) if known else None,
    )


def differing(pair: PairRow, progress: Progress) -> int | None:
    """Bytes of a pair that are marked as differing, or are still to be copied. What is marked here of P-VOLs that were
    suspended in COPY is not all of it."""
    return None if progress.differing is None or pair.uncopied else progress.differing.get(pair.number)


def percent(pair: PairRow, size: int, progress: Progress) -> int | None:
    """Of a copy: how much of it is done. Else: how much of the volume is the same on both sides."""
    marked = differing(pair, progress)
    if marked is not None:
        return 100 * max(size - marked, 0) // size
    return 100 if pair.state.status in (Status.PAIR, Status.PFUL) else None


def journal_status(row: GroupRow) -> str:
    """JNLS, as pairdisplay -v jnl has it."""
    shown = {pair.state.status for pair in row.pairs}
    return SIDE_LETTERS[row.side] + next(text for status, text in JOURNAL_STATUSES.items() if status in shown)
