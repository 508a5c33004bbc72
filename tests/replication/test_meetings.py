"""Two sides of a pair: settled while they see each other, settled again after a cut, and a way back from everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from arrayd.replication.exit_codes import Peer
from arrayd.replication.meetings import COUNTERPART, Age, alone, contradict, half, met, settled, together
from arrayd.replication.statuses import Event, Operation, Refusal, Side, State, Status, Writes, follows
from tests.replication.rows import (
    BY_TAKEOVER,
    HAPPENINGS,
    NOTHING,
    Pair,
    after_takeover,
    consistent_after,
    heard_of,
    meeting,
    sides,
    turned,
)

SETTLED = {
    (State.SMPL, State.SMPL),
    (State.P_COPY, State.S_COPY),
    (State.P_PAIR, State.S_PAIR),
    (State.P_PFUL, State.S_PFUL),
    (State.P_PSUS, State.S_SSUS),
    (State.P_PSUS, State.S_SSUS_WRITABLE),
    (State.P_PSUS, State.S_SSWS),
    (State.P_PSUE, State.S_PSUE),
    (State.P_PSUE_FENCED, State.S_PSUE),
    (State.P_PSUE_FENCED, State.S_SSWS),
    (State.P_PFUS, State.S_PFUS),
}
"""What both sides of a pair show that were never cut off."""
AFTER_A_CUT = {(State.P_PSUE_FENCED, State.S_SSUS_WRITABLE)}
"""And what they may show besides after a cut, if not one of them is SMPL and the other suspended."""


def in_sight(pair: Pair) -> Iterator[tuple[str, Pair]]:
    """What an operator at either side, and the world, can do while the sides see each other."""
    for happening in HAPPENINGS:
        if happening not in BY_TAKEOVER:
            both = together(pair.here, pair.there, happening, consistent=pair.consistent)
            if not isinstance(both, Refusal):
                yield happening, Pair(*both, consistent_after(pair, happening))
    for side in (pair, turned(pair)):
        after = after_takeover(side, heard_of(side))
        if isinstance(after, Pair):
            yield "horctakeover", after if side is pair else turned(after)


def reached(start: Pair) -> set[Pair]:
    """Every pair of rows that any sequence of operations and events leads to."""
    found, fresh = {start}, [start]
    while fresh:
        for _, after in in_sight(fresh.pop()):
            if after not in found:
                found.add(after)
                fresh.append(after)
    return found


REACHED = reached(NOTHING)


def test_in_sight_of_each_other_the_sides_stay_settled() -> None:
    """Exhaustive, from SMPL and SMPL."""
    assert {sides(pair) for pair in REACHED} == SETTLED
    assert all(settled(pair.here, pair.there) for pair in REACHED)
    assert {pair.here.side for pair in REACHED} == set(Side)


def test_settled_pairs_are_these_and_no_others() -> None:
    expected = SETTLED | AFTER_A_CUT
    found = {(a, b) for a, b in product(State, State) if settled(a, b) and not half(a, b)}
    assert found == expected | {(b, a) for a, b in expected}
    halves = {b for a, b in product(State, State) if settled(a, b) and half(a, b) and a is State.SMPL}
    running = {State[f"{side}_{status}"] for side in "PS" for status in ("COPY", "PAIR", "PFUL")}
    assert halves == set(State) - running - {State.SMPL}


def test_whoever_looks_first_both_settle_as_the_same() -> None:
    """Of all rows, whatever they show, but two that contradict in one generation."""
    for here, there, age in product(State, State, Age):
        if here.side is not there.side or age is not Age.SAME:
            after = meeting(Pair(here, there, True), age)
            assert settled(after.here, after.there), (here, there, age)


def test_a_counterpart_is_settled_with_its_state() -> None:
    assert all(settled(state, counterpart) for state, counterpart in COUNTERPART.items())


def test_nothing_is_told_to_sides_that_have_not_met() -> None:
    """A P-VOL that was suspended, and an S-VOL that does not know: a resync would go unnoticed there."""
    with pytest.raises(AssertionError, match="have not met"):
        together(State.P_PFUS, State.S_PAIR, Operation.PAIRRESYNC, consistent=True)


def cut_off(pair: Pair) -> set[Pair]:
    """Every pair of rows that the sides reach, each by itself."""
    found, fresh = {pair}, [pair]
    while fresh:
        each = fresh.pop()
        for side in (each, turned(each)):
            steps: list[Pair | Refusal] = [after_takeover(side, Peer.SILENT)]
            for happening in HAPPENINGS:
                here = alone(side.here, happening, consistent=side.consistent)
                one_side = happening not in BY_TAKEOVER and not (
                    happening is Event.COPY_END and side.here.side is not Side.S_VOL
                )
                if isinstance(here, State) and one_side:
                    steps.append(Pair(here, side.there, consistent_after(side, happening)))
            for after in steps:
                if isinstance(after, Pair):
                    step = after if side is each else turned(after)
                    if step not in found:
                        found.add(step)
                        fresh.append(step)
    return found


def leads_back(pair: Pair) -> None:
    """pairsplit -S ends it; and a pair that was taken over or split is PAIR again after a resync of either kind."""
    assert together(pair.here, pair.there, Operation.PAIRSPLIT_S, consistent=pair.consistent) == NOTHING[:2]
    if half(pair.here, pair.there) or pair.here is State.SMPL:
        return
    p_vol, s_vol = sides(pair)
    for operation in (Operation.PAIRRESYNC_SWAPS, Operation.PAIRRESYNC_SWAPP):
        both = together(p_vol, s_vol, operation, consistent=True)
        if p_vol.writes is not Writes.JOURNALED:
            assert both == (State.S_COPY, State.P_COPY)
            assert together(*both, Event.COPY_END, consistent=True) == (State.S_PAIR, State.P_PAIR)
    resync = together(p_vol, s_vol, Operation.PAIRRESYNC, consistent=pair.consistent)
    assert isinstance(resync, Refusal) == (s_vol is State.S_SSWS)


@pytest.mark.parametrize("age", Age)
def test_after_a_cut_the_sides_settle_and_a_way_leads_back(age: Age) -> None:
    parted = {after for pair in REACHED for after in cut_off(pair)}
    assert len(parted) > 100
    for pair in parted:
        after = meeting(pair, age)
        assert settled(after.here, after.there)
        leads_back(after)


def test_a_command_that_reached_one_side_only_leaves_a_way_back() -> None:
    ways = 0
    for pair in REACHED:
        for operation in Operation:
            here = follows(pair.here, operation, consistent=pair.consistent)
            if isinstance(here, State) and here is not pair.here:
                after = meeting(Pair(here, pair.there, pair.consistent), Age.NEWER)
                assert settled(after.here, after.there), (pair, operation)
                leads_back(after)
                ways += 1
    assert ways > 50


def test_a_resync_that_reached_one_side_only_is_no_pair() -> None:
    """The S-VOL never heard that the pair was suspended: what it lacks is not passed over."""
    after = meeting(Pair(State.P_COPY, State.S_PAIR, True), Age.NEWER)
    assert (after.here, after.there) == (State.P_PSUS, State.S_SSUS)
    assert meeting(Pair(State.P_COPY, State.S_PAIR, True), Age.SAME)[:2] == (State.P_PAIR, State.S_PAIR)


def test_sides_that_contradict_in_one_generation_are_these() -> None:
    """Whoever may lead in one generation is the one that was taken over; the rest stays so, whoever looks first."""
    both = {(state, peer) for state in State for peer in State if contradict(state, peer)}
    assert both == {(peer, state) for state, peer in both}
    same = {(state, peer) for state in State for peer in State if state.side is peer.side and state is not State.SMPL}
    assert same - both == {(s, p) for s, p in same if (s is State.S_SSWS) is not (p is State.S_SSWS)}
    assert (State.P_COPY, State.P_COPY) in both
    assert not any(settled(*each) for each in both)


def test_meeting_never_closes_what_a_host_may_have_written_to() -> None:
    for state, peer, age in product((State.S_SSUS_WRITABLE, State.S_SSWS), State, Age):
        if peer.side is not Side.S_VOL:
            assert met(state, peer, age) is state
        assert met(state, peer, age).writes is not Writes.REFUSED


def test_meeting_never_journals_past_what_was_marked() -> None:
    """Who marks a bitmap, or met one who does, follows only by a copy."""
    for state, peer, age in product(State, State, Age):
        after = met(state, peer, age)
        if state.writes is Writes.MARKED and after is not state:
            assert after.status not in (Status.PAIR, Status.PFUL), (state, peer, age)


def test_a_swap_that_met_a_takeover_gives_way_to_it() -> None:
    after = meeting(Pair(State.S_PAIR, State.S_SSWS, True), Age.SAME)
    assert (after.here, after.there) == (State.P_PSUS, State.S_SSWS)
