"""Which stage a row has: one for all pairs of a group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from arrayd.replication.choosing import KINDS, of_one_mind
from arrayd.replication.following import Following
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journaling import Journaling
from arrayd.replication.marking import Marking
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import P_RUNNING, S_RUNNING, State, Status, Writes
from tests.replication.tables import GROUP

PAIRED = [state for state in State if state is not State.SMPL]


def row(*states: State) -> GroupRow:
    pairs = (
        replace(pair, state=state, error="why" if state.status is Status.PSUE else "")
        for pair, state in zip(GROUP.pairs, states, strict=True)
    )
    return replace(GROUP, pairs=tuple(pairs))


@pytest.mark.parametrize("state", PAIRED)
def test_a_stage_does_with_writes_what_the_table_of_statuses_says(state: State) -> None:
    stage = KINDS.of(row(state, state))
    assert (stage is Journaling) == (state in P_RUNNING) == (state.writes is Writes.JOURNALED)
    assert (stage is Following) == (state in S_RUNNING)
    assert (stage is Marking) == (state.writes is Writes.MARKED)
    assert (stage in (Following, Standing)) == (state.writes is Writes.REFUSED)


@pytest.mark.parametrize(
    ("states", "stage"),
    [
        ((State.P_COPY, State.P_PAIR), Journaling),
        ((State.S_COPY, State.S_PFUL), Following),
        ((State.P_PSUS, State.P_PSUE), Marking),
        ((State.S_SSUS, State.S_PSUE), Standing),
        ((State.S_SSUS, State.S_SSUS_WRITABLE), Standing),
    ],
)
def test_pairs_that_differ_have_one_stage(states: tuple[State, State], stage: type) -> None:
    assert KINDS.of(row(*states)) is stage
    assert of_one_mind(row(*states), 7.0) == row(*states)


@pytest.mark.parametrize(
    ("states", "after"),
    [
        ((State.P_PAIR, State.P_PSUE), (State.P_PSUS, State.P_PSUE)),
        ((State.P_PSUS, State.P_COPY), (State.P_PSUS, State.P_PSUS)),
        ((State.S_SSUS, State.S_PAIR), (State.S_SSUS, State.S_SSUS)),
    ],
)
def test_a_group_runs_as_a_whole_or_not_at_all(states: tuple[State, State], after: tuple[State, State]) -> None:
    new = of_one_mind(row(*states), 7.0)
    assert tuple(new.states.values()) == after
    for pair, before, now in zip(new.pairs, states, after, strict=True):
        assert (pair.since == 7.0) == (before is not now)
