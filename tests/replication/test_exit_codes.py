"""Exit codes of the verbs about pairs, against CCI's numbers; horctakeover, by state and by what the peer is."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.commands.results import Result
from arrayd.replication.exit_codes import (
    ASYNCHRONOUS,
    CARRIED_OUT,
    NOWAIT_CODES,
    STATUS_CODES,
    TAKEOVERS,
    UNMATCHED,
    EventWait,
    Peer,
    SyncWait,
    Takeover,
    pairevtwait,
    pairevtwait_nowait,
    pairsyncwait,
    pairvolchk,
    pairvolchk_ss,
    takeover,
)
from arrayd.replication.meetings import Age
from arrayd.replication.statuses import Refusal, Side, State, Status, Writes, follows
from tests.lab.search import examples
from tests.replication.rows import Pair, after_takeover, meeting

# -- horctakeover ------------------------------------------------------------------------------------------------------


def test_horctakeover_of_an_s_vol() -> None:
    """Swapped if the peer is there, SSWS if not."""
    pair = Pair(State.S_PAIR, State.P_PAIR, True)
    assert takeover(pair.here, Peer.ANSWERS, consistent=True) is Takeover.SWAP
    assert after_takeover(pair, Peer.ANSWERS) == Pair(State.P_PAIR, State.S_PAIR, True)
    assert takeover(pair.here, Peer.SILENT, consistent=True) is Takeover.SVOL_SSUS
    alone_ = after_takeover(pair, Peer.SILENT)
    assert alone_ == Pair(State.S_SSWS, State.P_PAIR, True)
    assert meeting(alone_, Age.NEWER) == Pair(State.S_SSWS, State.P_PSUS, True)


def test_after_horctakeover_the_host_may_write_and_again_there_is_nothing_to_do() -> None:
    seen = set()
    for state, peer, consistent in product(State, Peer, (False, True)):
        taken = takeover(state, peer, consistent=consistent)
        if isinstance(taken, Refusal):
            continue
        seen.add(taken)
        operation = CARRIED_OUT[taken]
        after = state if operation is None else follows(state, operation, consistent=consistent)
        assert isinstance(after, State)
        assert after.writes is not Writes.REFUSED
        if after is not State.SMPL:
            assert takeover(after, peer, consistent=consistent) is Takeover.NOTHING
    assert seen == set(Takeover)


def test_horctakeover_is_refused_in_no_pair_and_where_no_point_is_kept() -> None:
    refused = {
        (state, peer, consistent)
        for state, peer, consistent in product(State, Peer, (False, True))
        if isinstance(takeover(state, peer, consistent=consistent), Refusal)
    }
    assert {(state, peer) for state, peer, consistent in refused if consistent} == {
        *product([State.SMPL], Peer),
        (State.S_COPY, Peer.ANSWERS),  # the copy ends, and then nothing is lost
    }
    followers = {State.S_PAIR, State.S_PFUL}  # these are consistent, or would not be so called
    readers = {state for state in State if state.side is Side.S_VOL} - {State.S_SSWS}
    assert {state for state, peer, _ in refused if peer is Peer.ANSWERS} == {State.SMPL} | readers - followers
    assert {state for state, peer, _ in refused if peer is Peer.SILENT} == {State.SMPL} | readers


# -- exit codes --------------------------------------------------------------------------------------------------------

CCI_CODES = {
    "SMPL": (11, 11), "P_COPY": (22, 42), "P_PAIR": (23, 43), "P_PSUS": (24, 44), "P_PSUE": (25, 45),
    "P_PFUL": (None, 47), "P_PFUS": (None, 48), "S_COPY": (32, 52), "S_PAIR": (33, 53), "S_SSUS": (34, 54),
    "S_PSUE": (35, 55), "S_PFUL": (None, 57), "S_PFUS": (None, 58), "S_SSWS": (30, 50),
}  # fmt: skip
"""pairvolchk -ss, synchronous and asynchronous."""


@pytest.mark.parametrize("name", CCI_CODES)
def test_pairvolchk(name: str) -> None:
    state, (synchronous, asynchronous) = State[name], CCI_CODES[name]
    assert pairvolchk([state]) == {"": 1, "P": 2, "S": 3}[name.rpartition("_")[0]]
    assert pairvolchk_ss([state, state], asynchronous=True) == asynchronous
    if synchronous is not None:
        assert pairvolchk_ss([state], asynchronous=False) == synchronous


def test_every_state_has_a_code_of_its_own() -> None:
    assert {(state.side, state.status) for state in State} == {key for key in STATUS_CODES if key[1] is not Status.PDUB}
    both = [code + more for code in STATUS_CODES.values() for more in (0, ASYNCHRONOUS)]
    assert len(set(both)) == len(both)
    assert max(both) < 128


def test_pairvolchk_of_a_group_whose_volumes_differ() -> None:
    assert pairvolchk_ss([State.P_PAIR, State.P_PSUE], asynchronous=False) == 26
    assert pairvolchk_ss([State.S_PAIR, State.S_PSUE], asynchronous=True) == 56
    assert pairvolchk_ss([State.P_PAIR, State.P_COPY], asynchronous=True) == 42
    assert pairvolchk([State.P_PAIR, State.S_PAIR]) == UNMATCHED
    assert pairvolchk_ss([State.P_PAIR, State.SMPL], asynchronous=True) == UNMATCHED


@given(st.lists(st.sampled_from(State), min_size=1, max_size=8), st.booleans())
@settings(max_examples=examples(200))
def test_a_groups_code_does_not_depend_on_the_order(states: list[State], asynchronous: bool) -> None:
    code = pairvolchk_ss(states, asynchronous=asynchronous)
    assert code == pairvolchk_ss(states[::-1] + states, asynchronous=asynchronous)
    side = pairvolchk(states)
    assert (side == UNMATCHED) == (code == UNMATCHED)
    tens = {Side.NONE: 1, Side.P_VOL: 2 + 2 * asynchronous, Side.S_VOL: 3 + 2 * asynchronous}
    assert side == UNMATCHED or code // 10 == tens[Side(side)]


def test_what_stops_a_command_is_128_or_more_and_no_result_of_another_kind() -> None:
    stopped = [UNMATCHED, EventWait.TIMEOUT, EventWait.SUSPENDED]
    assert all(128 <= code < 256 for code in stopped)
    assert not set(stopped) & set(Result)
    answers = {*Takeover, *SyncWait, EventWait.REACHED, *Side, *STATUS_CODES.values()}
    assert all(0 <= code < 128 for code in answers)


@pytest.mark.parametrize(
    ("wanted", "shown", "ended"),
    [
        ("PAIR", "COPY", None),
        ("PAIR", "PAIR", EventWait.REACHED),
        ("PAIR", "PFUL", EventWait.REACHED),
        ("PFUL", "PAIR", None),
        ("PAIR", "PSUE", EventWait.SUSPENDED),
        ("PAIR", "PFUS", EventWait.SUSPENDED),
        ("PSUS", "PFUS", EventWait.REACHED),
        ("PSUS", "SSUS", EventWait.REACHED),
        ("PSUS", "PSUE", EventWait.SUSPENDED),
        ("PSUE", "PSUE", EventWait.REACHED),
        ("SMPL", "SMPL", EventWait.REACHED),
        ("SMPL", "PAIR", None),
    ],
)
def test_pairevtwait(wanted: str, shown: str, ended: EventWait | None) -> None:
    assert pairevtwait(Status(wanted), Status(shown)) is ended


def test_pairevtwait_nowait_has_a_code_for_every_status_of_a_volume() -> None:
    assert NOWAIT_CODES.keys() == set(Status) - {Status.PDUB}
    assert [pairevtwait_nowait([Status(each)]) for each in ("SMPL", "COPY", "PAIR", "PSUS", "PSUE")] == [1, 2, 3, 4, 5]
    assert pairevtwait_nowait([Status.PAIR, Status.PFUL]) == NOWAIT_CODES[Status.PAIR]
    assert pairevtwait_nowait([Status.PAIR, Status.COPY]) == UNMATCHED


def test_pairsyncwait() -> None:
    assert [(each.value, each.name) for each in SyncWait] == [
        (0, "DONE"),
        (1, "TIMEOUT"),
        (2, "BROKEN"),
        (3, "CHANGED"),
    ]
    for state in State:
        assert pairsyncwait(state, reached=True, resynced=True) is SyncWait.CHANGED
        assert pairsyncwait(state, reached=True, resynced=False) is SyncWait.DONE
        goes_on = state.status in (Status.PAIR, Status.PFUL)
        assert pairsyncwait(state, reached=False, resynced=False) is (None if goes_on else SyncWait.BROKEN)


def test_horctakeovers_codes_are_ccis() -> None:
    assert [each.name for each in Takeover] == ["NOTHING", "SWAP", "SVOL", "PVOL_SMPL", "PVOL_PSUE", "SVOL_SSUS"]
    assert list(Takeover) == list(range(6))
    assert set(TAKEOVERS) == set(Peer)
