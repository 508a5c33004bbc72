"""The table of pair statuses: every cell as it was read and agreed to, and what a row promises by itself."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from arrayd.replication.exit_codes import Peer, Takeover, takeover
from arrayd.replication.meetings import OTHER_SIDE, alone, together
from arrayd.replication.status_page import COLUMN, page
from arrayd.replication.statuses import (
    NEED_PEER,
    TABLE,
    Event,
    Happening,
    Operation,
    Refusal,
    Side,
    State,
    Writes,
    asked,
    column,
    follows,
)
from tests.replication.rows import HAPPENINGS

GOLDEN = Path(__file__).parent / "statuses.golden.txt"


def test_every_cell_is_as_it_was_agreed_to() -> None:
    """After a change that is meant: `python -c "from arrayd.replication.status_page import page; print(page(), end='')"
    > tests/replication/statuses.golden.txt`, and read the difference."""
    assert page() == GOLDEN.read_text()


def test_no_cell_is_missing() -> None:
    assert set(TABLE) == set(HAPPENINGS)
    assert all(set(cells) == set(State) for cells in TABLE.values())
    text = GOLDEN.read_text()
    for state in State:
        (block,) = [each for each in text.split("\n\n") if each.startswith(f"{state}\n-")]
        lines = block.splitlines()
        assert [line[:COLUMN].rstrip() for line in lines[4:-1]] == [
            *HAPPENINGS,
            *(f"horctakeover, {peer.value}" for peer in Peer),
        ]
        assert all(line[COLUMN:] for line in lines[2:])


def test_a_column_has_each_row_once() -> None:
    with pytest.raises(AssertionError, match="no cell"):
        column((tuple(State)[1:], 1))
    with pytest.raises(AssertionError, match="two cells"):
        column((tuple(State), 1), ((State.SMPL,), 2))


def test_every_refusal_says_what_to_do() -> None:
    refusals = {cell.text for cells in TABLE.values() for cell in cells.values() if isinstance(cell, Refusal)}
    assert len(refusals) > 5
    verbs = ("paircreate", "pairsplit", "pairresync", "pairevtwait", "horctakeover")
    assert [text for text in refusals if not any(verb in text for verb in verbs)] == []


DIAGRAM = [
    # from (P-VOL, S-VOL), by, to
    ("SMPL SMPL", Operation.PAIRCREATE_VL, "P_COPY S_COPY"),
    ("P_COPY S_COPY", Event.COPY_END, "P_PAIR S_PAIR"),
    ("P_COPY S_COPY", Operation.PAIRSPLIT, "P_PSUS S_SSUS"),
    ("P_PAIR S_PAIR", Operation.PAIRSPLIT, "P_PSUS S_SSUS"),
    ("P_COPY S_COPY", Event.ERROR, "P_PSUE S_PSUE"),
    ("P_PAIR S_PAIR", Event.ERROR, "P_PSUE S_PSUE"),
    ("P_PAIR S_PAIR", Event.JOURNAL_NEARLY_FULL, "P_PFUL S_PFUL"),
    ("P_PFUL S_PFUL", Event.JOURNAL_FULL, "P_PFUS S_PFUS"),
    ("P_PFUL S_PFUL", Event.JOURNAL_HAS_ROOM, "P_PAIR S_PAIR"),
    ("P_PSUS S_SSUS", Operation.PAIRRESYNC, "P_COPY S_COPY"),
    ("P_PSUE S_PSUE", Operation.PAIRRESYNC, "P_COPY S_COPY"),
    ("P_PFUS S_PFUS", Operation.PAIRRESYNC, "P_COPY S_COPY"),
    ("P_PAIR S_PAIR", Operation.SWAP, "S_PAIR P_PAIR"),
    ("P_PSUS S_SSWS", Operation.PAIRRESYNC_SWAPS, "S_COPY P_COPY"),
    ("P_PSUS S_SSWS", Operation.PAIRRESYNC_SWAPP, "S_COPY P_COPY"),
]


@pytest.mark.parametrize(("before", "happening", "after"), DIAGRAM)
def test_the_transitions_that_users_of_cci_know(before: str, happening: Happening, after: str) -> None:
    (p_vol, s_vol), (p_after, s_after) = ([State[name] for name in names.split()] for names in (before, after))
    assert together(p_vol, s_vol, happening, consistent=True) == (p_after, s_after)
    mirrored = OTHER_SIDE.get(happening, happening)
    assert together(s_vol, p_vol, mirrored, consistent=True) == (s_after, p_after)


def test_pairresync_is_refused_after_a_takeover_and_pairsplit_s_never() -> None:
    for consistent in (False, True):
        refusal = together(State.P_PSUS, State.S_SSWS, Operation.PAIRRESYNC, consistent=consistent)
        assert isinstance(refusal, Refusal)
        assert "-swaps" in refusal.text
        assert {follows(state, Operation.PAIRSPLIT_S, consistent=consistent) for state in State} == {State.SMPL}


def test_what_a_host_may_write() -> None:
    journaled = {state for state in State if state.writes is Writes.JOURNALED}
    assert journaled == {State.P_COPY, State.P_PAIR, State.P_PFUL}
    refused = {state for state in State if state.writes is Writes.REFUSED}
    writable = {State.S_SSUS_WRITABLE, State.S_SSWS}
    assert refused == {state for state in State if state.side is Side.S_VOL} - writable | {State.P_PSUE_FENCED}
    assert [state for state in State if state.writes is Writes.PLAIN] == [State.SMPL]


def test_an_asynchronous_p_vol_never_refuses_its_host() -> None:
    """Whatever happens to it but a swap that was asked for, and a synchronous pair's fence."""
    for state, happening in product(State, HAPPENINGS):
        if state.side is Side.P_VOL and state.writes is not Writes.REFUSED and happening is not Event.ERROR_FENCED:
            after = follows(state, happening, consistent=True)
            refuses = isinstance(after, State) and after.writes is Writes.REFUSED
            assert not refuses or (isinstance(after, State) and after.side is Side.S_VOL), (state, happening)


def test_a_copy_that_was_never_whole_is_not_used() -> None:
    for state, happening in product(State, HAPPENINGS):
        after = follows(state, happening, consistent=False)
        if state.side is Side.S_VOL and isinstance(after, State) and happening is not Operation.SWAP:
            opened = after.writes is not Writes.REFUSED and after is not state and after is not State.SMPL
            assert not opened, (state, happening)
    for state, peer in product(State, Peer):
        taken = takeover(state, peer, consistent=False)
        assert taken not in (Takeover.SVOL, Takeover.SVOL_SSUS)


def test_swaps_and_swapp_are_asked_for_at_their_sides() -> None:
    for state, operation in product(State, Operation):
        wrong = {Operation.PAIRRESYNC_SWAPS: Side.P_VOL, Operation.PAIRRESYNC_SWAPP: Side.S_VOL}.get(operation)
        refusal = asked(state, operation)
        assert (refusal is not None) == (state.side is wrong)


def test_what_is_done_twice_is_done_once() -> None:
    """The second time is taken with no effect, or refused; swaps apart."""
    for state, operation in product(State, Operation):
        once = follows(state, operation, consistent=True)
        if isinstance(once, State) and operation is not Operation.SWAP:
            assert follows(once, operation, consistent=True) is once or isinstance(
                follows(once, operation, consistent=True), Refusal
            )


def test_one_side_does_not_do_what_needs_two() -> None:
    for state, happening in product(State, HAPPENINGS):
        after = alone(state, happening, consistent=True)
        if happening in NEED_PEER:
            assert isinstance(after, Refusal) or after is state
