"""What is told of a group in figures is what is known, and never negative."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.replication.figures import Figures, differing, figures, journal_status, percent
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal.regions import Position
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import State, Status
from tests.replication.tables import GROUP, MIRROR

AT = Position(10, 4096)
LATER = Position(30, 8192)


def row(state: State, **more: object) -> GroupRow:
    pairs = tuple(replace(pair, state=state) for pair in GROUP.pairs)
    return replace(GROUP, pairs=pairs, **more)  # type: ignore[arg-type]


def test_lag_is_what_is_stored_and_not_restored() -> None:
    told = figures(row(State.P_PAIR), Progress(stored=LATER, restored=AT, lag_s=1.5))
    assert told == Figures(30, 10, 1.5, 20, 4096)


def test_the_primary_goes_on_counting_where_the_other_side_is_silent() -> None:
    assert figures(row(State.P_PAIR), Progress(stored=LATER, restored=AT)) == Figures(30, 10, None, 20, 4096)


def test_a_side_that_follows_and_hears_nothing_knows_of_no_lag() -> None:
    assert figures(row(State.S_PAIR), Progress(stored=LATER, restored=AT)) == Figures(30, 10, None, None, None)


@pytest.mark.parametrize(("state", "kept"), [(State.S_SSUS, "restored"), (State.P_PSUS, "acknowledged")])
def test_what_the_row_keeps_stands_in_for_a_stage_that_does_not_know(state: State, kept: str) -> None:
    assert figures(row(state, **{kept: AT}), Progress()) == Figures(None, 10, None, None, None)
    assert figures(row(state), Progress()) == Figures(None, None, None, None, None)


@pytest.mark.parametrize("state", State)
def test_the_s_vols_of_a_synchronous_group_lag_behind_nothing_in_pair(state: State) -> None:
    """As the side with the P-VOLs knows: the other one may not have heard that they were suspended."""
    mirror = replace(MIRROR, pairs=tuple(replace(pair, state=state) for pair in MIRROR.pairs))
    expected = (0.0, 0, 0) if state is State.P_PAIR else (None, None, None)
    for progress in (Progress(), Progress(contact=1.0)):
        assert figures(mirror, progress) == Figures(None, None, *expected)


POSITIONS = st.none() | st.builds(Position, st.integers(0, 50), st.integers(0, 50))
NUMBERS = st.none() | st.floats(-5, 5)


@given(st.sampled_from([State.P_PAIR, State.S_PAIR]), POSITIONS, POSITIONS, NUMBERS)
def test_nothing_is_negative_and_no_write_is_restored_that_is_not_known(
    state: State, stored: Position | None, restored: Position | None, lag_s: float | None
) -> None:
    told = figures(row(state), Progress(stored=stored, restored=restored, lag_s=lag_s))
    assert all(each is None or each >= 0 for each in (told.lag_s, told.lag_writes, told.lag_bytes))
    assert told.sequence is None or told.restored is None or told.restored <= told.sequence


def test_percent_is_100_only_where_nothing_differs() -> None:
    pair = row(State.P_COPY).pairs[0]
    size = 1 << 40
    assert percent(pair, size, Progress()) is None
    assert percent(pair, size, Progress(differing={0: 4096})) == 99
    assert percent(pair, size, Progress(differing={0: size})) == 0
    assert percent(pair, size, Progress(differing={0: 0})) == 100
    assert percent(pair, size, Progress(differing={1: 0})) is None
    assert percent(row(State.P_PAIR).pairs[0], size, Progress()) == 100
    assert percent(row(State.P_PSUS).pairs[0], size, Progress()) is None


def test_of_a_copy_that_was_suspended_the_p_vols_do_not_know_what_is_left() -> None:
    """What hosts wrote since is marked here, and what was left of the copy at the other side."""
    pair = replace(row(State.P_PSUS).pairs[0], uncopied=True)
    told = Progress(differing={0: 4096})
    assert (percent(pair, 1 << 20, told), differing(pair, told)) == (None, None)
    copied = replace(pair, uncopied=False)
    assert (percent(copied, 1 << 20, told), differing(copied, told)) == (99, 4096)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.P_PAIR, "PJNN"),
        (State.P_COPY, "PJNN"),
        (State.P_PFUL, "PJNF"),
        (State.P_PSUS, "PJSN"),
        (State.P_PFUS, "PJSF"),
        (State.P_PSUE, "PJSE"),
        (State.S_PAIR, "SJNN"),
        (State.S_SSWS, "SJSN"),
        (State.S_SSUS, "SJSN"),
        (State.S_PFUS, "SJSF"),
    ],
)
def test_the_journals_status_is_the_worst_of_its_pairs(state: State, status: str) -> None:
    assert journal_status(row(state)) == status
    assert state.status is not Status.SMPL
