"""horctakeover: what it does at this side, what would be lost by it, and doing it.

What it does is the table's (`exit_codes.TAKEOVERS`), by what this side shows and by what is heard of the other. The
other side counts as silent, too, where it answers the host but no connection between the two arrays stands: the pair
cannot be swapped then. Nothing is guessed about what would be lost: what nobody tells is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from arrayd.commands.results import Result
from arrayd.host import pair_commands
from arrayd.host.answers import Command, Ended
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_asking import NOT_DONE, Arrays, check_gone
from arrayd.host.pair_changes import LOOK_AGAIN, has_come_to, have_met, looks, refusal
from arrayd.host.pair_page import CONTACT, shown
from arrayd.host.pair_status import Heard, PairStatus, Silence
from arrayd.host.pair_wait import Sides
from arrayd.host.show import Column, size
from arrayd.replication import exit_codes
from arrayd.replication.exit_codes import CARRIED_OUT, UNMATCHED, Peer, Takeover
from arrayd.replication.statuses import FOLLOWING, NO_PAIR, P_VOL_HERE, Operation, Refusal, Side, State, follows

NAMES: Mapping[Takeover, str] = {
    Takeover.NOTHING: "nop-takeover",
    Takeover.SWAP: "swap-takeover",
    Takeover.SVOL: "SVOL-takeover",
    Takeover.PVOL_SMPL: "PVOL-SMPL-takeover",
    Takeover.PVOL_PSUE: "PVOL-PSUE-takeover",
    Takeover.SVOL_SSUS: "SVOL-SSUS-takeover",
}
"""As CCI has them."""
LOSES_NOTHING = frozenset({Takeover.NOTHING, Takeover.SWAP, Takeover.PVOL_SMPL, Takeover.PVOL_PSUE})
"""This side has all that was written, or gets it first."""

MIRRORED = frozenset({State.P_PAIR, State.P_PSUE_FENCED})
"""P-VOLs of a synchronous group that have taken no write which the S-VOLs, in PAIR, have not."""
DATA = "DATA"
"""The fence level of P-VOLs that never take a write alone."""

WITHOUT_IT = "horctakeover -S takes the S-VOLs over without the other array"

PLAN = (
    Column("Group", "group"),
    Column("Takeover", "takeover"),
    Column("Exit", "exit"),
    Column("Array", "array"),
    Column("Shows", "shows"),
    Column("Peer", "peer"),
    Column("Writes lost", "writes_lost"),
    Column("Bytes lost", "bytes_lost", size),
    Column("Seconds lost", "seconds_lost"),
    CONTACT,
    Column("Reason", "reason"),
)
FIGURES = ("writes_lost", "bytes_lost", "seconds_lost", "last_contact")
"""Of a plan: None is not nothing, but unknown."""
DONE = (
    Column("Group", "group"),
    Column("Takeover", "takeover"),
    Column("Exit", "exit"),
    Column("Array", "array"),
    Column("Shows", "shows"),
    Column("Sequence", "sequence"),
)


@dataclass(frozen=True, slots=True)
class Lost:
    """What the P-VOLs had and the S-VOLs would not have, at the most; None: nobody knows."""

    writes: int | None = None
    bytes: int | None = None
    seconds: float | None = None


NOTHING_LOST = Lost(0, 0, 0.0)
NOT_KNOWN = Lost()
"""Also where the takeover is refused: what another way to have the volumes written would cost nobody has told."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What horctakeover does now, or why nothing."""

    taken: Takeover | Refusal
    peer: Peer
    here: PairStatus
    there: Heard
    lost: Lost

    @property
    def code(self) -> int:
        """The exit code that it ends with."""
        return Result.CONFLICT if isinstance(self.taken, Refusal) else self.taken


def decide(arrays: Arrays, sides: Sides, *, forced: bool = False) -> Decision:
    """What it does at this side; `forced` (-S): the S-VOLs are taken over though the other side answers. Raises
    CommandFailed where this side says nothing, or its volumes differ."""
    here, there = sides.local, sides.remote
    if isinstance(here, Silence):
        raise CommandFailed(sides.silence_code(), sides.silences())
    peer = _peer(here, there, forced=forced)
    states = here.by_number.values()
    if not forced:
        # What would be lost by going on without an array that is there is for an operator to say.
        check_gone(sides, WITHOUT_IT if any(state.side is Side.S_VOL for state in states) else "")
    if not states:
        return Decision(NO_PAIR, peer, here, there, NOT_KNOWN)
    if forced and any(state.side is Side.P_VOL for state in states):
        return Decision(P_VOL_HERE, peer, here, there, NOT_KNOWN)
    takes = [exit_codes.takeover(state, peer, consistent=here.consistent) for state in states]
    refused = next((each for each in takes if isinstance(each, Refusal)), None)
    if refused is None and len(set(takes)) > 1:
        differ = ", ".join(f"{pair.name or number} {pair.state}" for number, pair in sorted(here.paired.items()))
        raise CommandFailed(UNMATCHED, f"the volumes of the group differ: {differ}", arrays.local)
    if refused is not None:
        return Decision(refused, peer, here, there, NOT_KNOWN)
    lost = NOTHING_LOST if takes[0] in LOSES_NOTHING else _lost(here, there)
    return Decision(takes[0], peer, here, there, lost)


def _peer(here: PairStatus, there: Heard, *, forced: bool) -> Peer:
    if isinstance(there, Silence):
        return Peer.SILENT
    if not here.by_number.keys() & there.by_number.keys():
        return Peer.HAS_NO_PAIR
    told = [here.links, *(journal.links for journal in here.journals)]
    links = [each for each in told if each is not None]
    return Peer.SILENT if forced or (links and not any(links)) else Peer.ANSWERS


def _lost(here: PairStatus, there: Heard) -> Lost:
    """What the other side has told of writes that this one has not. This side restores what its journal holds before
    its volumes are opened, so that is not lost; of the rest the other side knows how much it is at the most. Of a copy
    nobody knows: its S-VOLs go back to where they were before it; nor of suspended pairs, which may have been one."""
    if not here.asynchronous:
        return NOTHING_LOST if _both_have_all(here, there) else NOT_KNOWN
    if isinstance(there, Silence) or not there.by_number:
        return NOT_KNOWN
    follows_on = {*here.by_number.values(), *there.by_number.values()} <= FOLLOWING
    if not follows_on or here.generation != there.generation:
        return NOT_KNOWN
    if here.restored is not None and there.sequence is not None and here.restored >= there.sequence:
        return NOTHING_LOST
    return Lost(there.lag.writes, there.lag.bytes, there.lag.seconds)


def _both_have_all(here: PairStatus, there: Heard) -> bool:
    """Whether S-VOLs of a synchronous group are known to have all that hosts were answered. They have as long as both
    sides show PAIR, and where a P-VOL that could not be mirrored takes no write any more. Of an array that is silent
    that is known by the fence level: of level data it does not go on alone."""
    if set(here.by_number.values()) != {State.S_PAIR}:
        return False
    if isinstance(there, Silence):
        return _fences(here) == {DATA}
    shown_there = set(there.by_number.values())
    return bool(shown_there) and shown_there <= MIRRORED and here.generation == there.generation


def _fences(here: PairStatus) -> set[str | None]:
    return {pair.fence for pair in here.paired.values()}


# -- telling -----------------------------------------------------------------------------------------------------------


def plan_row(arrays: Arrays, decision: Decision) -> dict[str, Any]:
    """What `horctakeover --plan` shows; what would be lost and is not known is UNKNOWN for people, None for JSON."""
    there = decision.there
    return {
        "group": arrays.group.name,
        "takeover": "refused" if isinstance(decision.taken, Refusal) else NAMES[decision.taken],
        "exit": int(decision.code),
        "array": arrays.local,
        "shows": shown(decision.here.by_number),
        "peer": decision.peer.value,
        "writes_lost": decision.lost.writes,
        "bytes_lost": decision.lost.bytes,
        "seconds_lost": decision.lost.seconds,
        "last_contact": there.last_contact if isinstance(there, Silence) else decision.here.contact,
        "reason": _reason(decision),
    }


def _reason(decision: Decision) -> str | None:
    """Why it is refused, or what else is known: why the other side is silent, what it has marked."""
    if isinstance(decision.taken, Refusal):
        return decision.taken.text
    if isinstance(decision.there, Silence):
        return "; ".join((decision.there.reason, *_why(decision)))
    marked = [pair.differing for pair in decision.there.paired.values()]
    known = [differing for differing in marked if differing is not None]
    if not known or len(known) < len(marked) or decision.taken in LOSES_NOTHING:
        return None  # what one pair has marked is not known: the sum is none of the group
    return f"{decision.there.array} has marked {sum(known)} bytes as differing"


def _why(decision: Decision) -> Iterator[str]:
    """Why it is known what a silent array had of a synchronous group in PAIR, or not."""
    if decision.here.asynchronous or set(decision.here.by_number.values()) != {State.S_PAIR}:
        return
    levels = " and ".join(sorted(str(each).lower() for each in _fences(decision.here)))
    alone = "takes no write alone, unless it was told to (horctakeover or pairsplit there)"
    yield f"of fence level {levels} it {alone if decision.lost == NOTHING_LOST else 'may have taken writes alone'}"


# -- doing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What was done: the exit code, what is shown of it, and what else is to be told."""

    code: int
    row: dict[str, Any]
    notes: list[str]


def take_over(arrays: Arrays, *, forced: bool = False) -> Taken:
    """Does it. Raises CommandFailed: nothing was done, or the text says that this is not known."""
    for late in looks():
        sides = arrays.ask()
        decision = decide(arrays, sides, forced=forced)
        if isinstance(decision.taken, Refusal):
            if late or have_met(sides):
                raise refusal(arrays.local, decision.taken)
            continue
        operation = CARRIED_OUT[decision.taken]
        if operation is None:
            return _taken(arrays, decision.taken, decision.here.by_number, None)
        taken = _carry_out(arrays, decision, decision.taken, operation, late=late)
        if taken is not None:
            return taken
    raise AssertionError("the last look has an end")


def _carry_out(
    arrays: Arrays, decision: Decision, taken: Takeover, operation: Operation, *, late: bool
) -> Taken | None:
    """What was done; None: the arrays have moved on, and are to be looked at again. Raises CommandFailed."""
    after = _after(decision, operation)
    first, *others = arrays.tell(_told(arrays, decision, operation))
    if first.result == Result.OK:
        failed = [each.reason for each in others if each.result != Result.OK]
        return _taken(
            arrays, taken, after, first.edited, [f"{each}; it takes its place when the arrays meet" for each in failed]
        )
    if first.result not in NOT_DONE and _carried_out(arrays, after, first):
        return _taken(arrays, taken, after, None)
    if late or first.result not in LOOK_AGAIN:
        otherwise = f"; {WITHOUT_IT}" if operation is Operation.SWAP else ""
        raise CommandFailed(first.result, first.reason + otherwise)
    return None


def _told(arrays: Arrays, decision: Decision, operation: Operation) -> list[Command]:
    """A swap is both sides', and the S-VOLs' side, which is this one, carries it out first; all others are this side's
    alone."""
    group, here, there = arrays.group.name, decision.here, decision.there
    if operation is not Operation.SWAP:
        return [pair_commands.change(arrays.local, group, operation, here, None)]
    assert isinstance(there, PairStatus), "no swap with an array that is silent"
    return [
        pair_commands.change(arrays.local, group, operation, here, there),
        pair_commands.change(arrays.remote, group, operation, there, here),
    ]


def _after(decision: Decision, operation: Operation) -> dict[int, State]:
    """What this side shows when it has carried it out, by the pairs' numbers."""
    after = {
        number: follows(state, operation, consistent=decision.here.consistent)
        for number, state in decision.here.by_number.items()
    }
    return {number: state for number, state in after.items() if isinstance(state, State)}


def _carried_out(arrays: Arrays, after: Mapping[int, State], ended: Ended) -> bool:
    """Whether this side shows what it was told to come to, of which the answer was lost. Raises CommandFailed."""
    here = arrays.ask().local
    if isinstance(here, Silence):
        unknown = f"whether {arrays.local} has taken over is not known: again, or pairdisplay"
        raise CommandFailed(ended.result, f"{ended.reason}; {unknown}")
    return has_come_to(here, after)


def _taken(
    arrays: Arrays, taken: Takeover, after: Mapping[int, State], edited: Any, notes: list[str] | None = None
) -> Taken:
    sequence = edited.get(pair_commands.SEQUENCE) if isinstance(edited, dict) else None
    row = {
        "group": arrays.group.name,
        "takeover": NAMES[taken],
        "exit": int(taken),
        "array": arrays.local,
        "shows": shown(after),
        "sequence": sequence if isinstance(sequence, int) else None,
    }
    return Taken(taken, row, notes or [])
