"""Rows of the pair management table before and after what happens to a group: pure, without a table or a clock.

States are as the table of statuses and the rules of meetings have them. Here is what a row keeps besides: when, why,
the generation, and whether the S-VOLs are consistent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from arrayd.replication.group_rows import ERROR_CHARACTERS_MAX, Fence, GroupRow, PairRow, PeerRows
from arrayd.replication.journal.regions import START, Position
from arrayd.replication.meetings import Age, alone, contradict, met, settled, together
from arrayd.replication.statuses import FOLLOWING, P_RUNNING, Event, Happening, Operation, Refusal, Side, State, Status

NOT_MET = Refusal("the two arrays have not told each other yet what became of the pair: again in a moment")
CONTRADICT = Refusal("both arrays show the same side, as after a resync and a swap at once: pairsplit -S ends the pair")
NEW_GENERATION = frozenset(
    {
        Operation.PAIRCREATE_VL,
        Operation.PAIRCREATE_VR,
        Operation.PAIRRESYNC,
        Operation.PAIRRESYNC_SWAPS,
        Operation.PAIRRESYNC_SWAPP,
        Operation.SWAP,
        Operation.SVOL_SSUS,
        Operation.PVOL_PSUE,
    }
)
"""Starts of a copy, swaps and takeovers: where they change something, a new generation of the rows begins."""
COPIES = frozenset({State.P_COPY, State.S_COPY})
HEARD = "the other array shows that the pair is suspended, or that its S-VOL was taken over"
"""Why a pair is PSUE that is so since the sides met."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is kept with a transition: when it was (seconds since 1970), why, if it is an error, and the epoch of the
    journal where a new one begins."""

    when: float
    error: str = ""
    epoch: int | None = None


def shown(peer: PeerRows, pair: PairRow) -> State:
    """What the other side shows of a pair."""
    return peer.states.get(pair.number, State.SMPL)


def what_follows(group: GroupRow, pair: PairRow, happening: Happening, peer: PeerRows | None) -> State | Refusal:
    """What this side shows of a pair after what happens."""
    if peer is None:
        by_itself = alone(pair.state, happening, consistent=group.consistent)
        return by_itself if isinstance(by_itself, Refusal) else _fenced(group, pair, by_itself)
    there = shown(peer, pair)
    if not settled(pair.state, there):
        return CONTRADICT if peer.generation == group.generation and contradict(pair.state, there) else NOT_MET
    both = together(pair.state, there, happening, consistent=group.consistent)
    return both if isinstance(both, Refusal) else _fenced(group, pair, both[0])


def learned(group: GroupRow, pair: PairRow, peer: PeerRows, age: Age) -> State:
    """What this side shows of a pair after it saw the other side's rows. P-VOLs of fence level data that ran take no
    write beside S-VOLs that were taken over, either: it would be lost when these are copied back."""
    there = shown(peer, pair)
    taken_over = there is State.S_SSWS and pair.state in P_RUNNING and group.fence is Fence.DATA
    return State.P_PSUE_FENCED if taken_over else _fenced(group, pair, met(pair.state, there, age))


def _fenced(group: GroupRow, pair: PairRow, state: State) -> State:
    """The state that follows, or the fenced one: whoever tells of an error, P-VOLs of fence level data take no write
    after it. Those that are told to take writes again (PVOL-PSUE-takeover) are PSUE already."""
    fails = state is State.P_PSUE and pair.state not in (State.P_PSUE, State.P_PSUE_FENCED)
    return State.P_PSUE_FENCED if fails and group.fence is Fence.DATA else state


def sides_differ(group: GroupRow, states: Mapping[int, State]) -> bool:
    """Whether some of the pairs, of those that do not end, would be on another side than the rest."""
    sides = {states.get(pair.number, pair.state).side for pair in group.pairs}
    return len(sides - {Side.NONE}) > 1


def moved(
    group: GroupRow, states: Mapping[int, State], happening: Happening | None, circumstances: Circumstances
) -> GroupRow | None:
    """The row after its pairs took these states; None: no pair is left. `happening` is None where the sides met."""
    after = [(pair, states.get(pair.number, pair.state)) for pair in group.pairs]
    pairs = tuple(pair_in(pair, state, circumstances) for pair, state in after if state is not State.SMPL)
    if not pairs:
        return None
    new = replace(group, pairs=pairs)
    if pairs == group.pairs:
        return group
    if circumstances.epoch is not None:
        new = replace(new, epoch=circumstances.epoch, restored=START, acknowledged=START)
    if happening in NEW_GENERATION:
        new = replace(new, generation=group.generation + 1)
    if happening is Event.COPY_END and all(pair.state in FOLLOWING for pair in pairs):
        new = replace(new, consistent=True)
    return new


def positioned(new: GroupRow, before: GroupRow, restored: Position | None) -> GroupRow:
    """The row with how far the S-VOLs are, as the stage of the row `before` that has ended knows: positions of one
    epoch, which go forward only. S-VOLs whose copy has not ended are at none."""
    if restored is None or new.epoch != before.epoch:
        return new
    if new.side is Side.S_VOL:
        if any(pair.state.status is Status.COPY for pair in before.pairs):
            return new
        return replace(new, restored=restored) if restored.follows(new.restored) else new
    return replace(new, acknowledged=restored) if restored.follows(new.acknowledged) else new


def pair_in(pair: PairRow, state: State, circumstances: Circumstances) -> PairRow:
    """A pair in another state, or in the same."""
    if state is pair.state:
        return pair
    # A P-VOL that is fenced no more is PSUE for the same reason as before.
    error = (circumstances.error[:ERROR_CHARACTERS_MAX] or pair.error) if state.status is Status.PSUE else ""
    suspended = state.side is Side.P_VOL and state not in P_RUNNING
    uncopied = suspended and (pair.uncopied or pair.state in COPIES)
    return replace(pair, state=state, since=circumstances.when, error=error, uncopied=uncopied)
