"""pairvolchk, pairevtwait, pairsyncwait: exit codes and pauses by what is heard; a silent side is never guessed at."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.commands.results import Result
from arrayd.host.attempts import PAUSE_MAX_S, PAUSE_MIN_S
from arrayd.host.pair_status import Heard, Silence
from arrayd.host.pair_wait import (
    TIMEOUT_S_MAX,
    Again,
    Ended,
    EventWaiting,
    Judged,
    Marker,
    Sides,
    Step,
    SyncWaiting,
    Waiting,
    pairevtwait_nowait,
    pairsyncwait_nowait,
    pairvolchk,
    wanted_statuses,
)
from arrayd.replication.exit_codes import EventWait, SyncWait
from arrayd.replication.statuses import State, Status
from tests.host.pairs import GROUP, said

P, S = "primary", "remote"
GONE = Silence("remote: no link", 1795857760.5)
PAIR = frozenset({Status.PAIR})


def sides(primary: Heard, remote: Heard, here: str = P) -> Sides:
    return Sides(GROUP, here, {P: primary, S: remote})


BOTH_PAIR = sides(said(P, State.P_PAIR), said(S, State.S_PAIR))
BOTH_COPY = sides(said(P, State.P_COPY), said(S, State.S_COPY))


def code(step: Step) -> int | None:
    """The exit code; None if it goes on."""
    return step.code if isinstance(step, Ended) else None


# -- pairvolchk --------------------------------------------------------------------------------------------------------


def test_pairvolchk_is_about_this_side() -> None:
    there = sides(said(P, State.P_PAIR), said(S, State.S_PAIR), here=S)
    assert [pairvolchk(each).code for each in (BOTH_PAIR, there)] == [2, 3]
    assert pairvolchk(BOTH_PAIR, status=True) == Ended(43, "data P-VOL PAIR, log P-VOL PAIR")
    assert pairvolchk(there, status=True).code == 53
    assert pairvolchk(sides(said(P, State.P_PAIR, asynchronous=False), GONE), status=True).code == 23
    assert pairvolchk(sides(said(P, State.SMPL), GONE)).code == 1


def test_pairvolchk_of_a_silent_side_is_an_error() -> None:
    silent = sides(said(P, State.P_PAIR), GONE, here=S)
    assert pairvolchk(silent, status=True) == Ended(
        Result.UNREACHABLE, "remote: no link, last heard of 2026-11-28 09:22:40.500 UTC"
    )
    assert pairvolchk(Sides(GROUP, P, {})).code == Result.UNREACHABLE


def test_an_answer_that_leaves_a_volume_out_is_none() -> None:
    assert pairvolchk(sides(said(S, State.S_PAIR), GONE)).text.startswith(
        "primary does not tell of all volumes of oradb"
    )


# -- pauses ------------------------------------------------------------------------------------------------------------


@given(timeout_s=st.floats(0, 100), took_s=st.floats(0, 2))
def test_pauses_grow_and_end_with_the_time(timeout_s: float, took_s: float) -> None:
    waiting, now, pauses = Waiting(1000.0, timeout_s), 1000.0, []
    while (again := waiting.again(now)) is not None:
        pauses.append(again.pause_s)
        now += again.pause_s + took_s
    assert all(0 < pause_s <= PAUSE_MAX_S for pause_s in pauses)
    assert pauses[:1] == ([min(PAUSE_MIN_S, 1000.0 + timeout_s - 1000.0)] if 1000.0 + timeout_s > 1000.0 else [])
    assert pauses[:-1] == sorted(pauses[:-1])
    assert len(pauses) <= 8 + timeout_s / PAUSE_MAX_S
    assert now >= 1000.0 + timeout_s


@pytest.mark.parametrize("timeout_s", [-1, math.nan, math.inf, TIMEOUT_S_MAX + 1])
def test_a_timeout_has_bounds(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="seconds, 0 to 1000000"):
        Waiting(0, timeout_s)


# -- pairevtwait -------------------------------------------------------------------------------------------------------


def test_waiting_for_pair() -> None:
    waiting = EventWaiting(PAIR, 100, 1)
    assert waiting.heard(BOTH_COPY, 100) == Again(PAUSE_MIN_S)
    half = sides(said(P, State.P_PAIR, State.P_COPY), said(S, State.S_PAIR))
    assert waiting.heard(half, 100.1) == Again(2 * PAUSE_MIN_S)
    assert waiting.heard(BOTH_PAIR, 100.2) == Ended(0, "data P-VOL PAIR, log P-VOL PAIR")


def test_time_is_up() -> None:
    waiting = EventWaiting(PAIR, 100, 1)
    assert waiting.heard(BOTH_COPY, 101) == Ended(EventWait.TIMEOUT, "data P-VOL COPY, log P-VOL COPY")
    assert code(EventWaiting(PAIR, 100, 0).heard(BOTH_PAIR, 100)) == EventWait.REACHED


def test_a_suspension_ends_it_unless_it_was_waited_for() -> None:
    failed = sides(said(P, State.P_PAIR, State.P_PSUE), said(S, State.S_PAIR))
    assert code(EventWaiting(PAIR, 0, 9).heard(failed, 0)) == EventWait.SUSPENDED
    assert code(EventWaiting({Status.PAIR, Status.PSUE}, 0, 9).heard(failed, 0)) == EventWait.REACHED
    full = sides(said(P, State.P_PFUS), said(S, State.S_PFUS))
    assert code(EventWaiting({Status.PSUS}, 0, 9).heard(full, 0)) == EventWait.REACHED


def test_the_p_vols_are_judged_wherever_they_are() -> None:
    split = sides(said(P, State.S_PAIR), said(S, State.P_PSUS))
    assert code(EventWaiting(PAIR, 0, 9).heard(split, 0)) is None
    assert code(EventWaiting(PAIR, 0, 9, Judged.LOCAL).heard(split, 0)) == EventWait.REACHED
    assert code(EventWaiting({Status.PSUS}, 0, 9).heard(split, 0)) == EventWait.REACHED


def test_the_s_vols_are_judged_wherever_they_are() -> None:
    for split in (
        sides(said(P, State.P_PSUS), said(S, State.S_SSUS)),
        sides(said(P, State.S_SSUS), said(S, State.P_PSUS)),
        sides(said(P, State.S_SSUS), GONE),
    ):
        assert code(EventWaiting({Status.SSUS}, 0, 9, Judged.S_VOLS).heard(split, 0)) == EventWait.REACHED
    ended = sides(said(P, State.SMPL), said(S, State.SMPL))
    assert code(EventWaiting({Status.SMPL}, 0, 9, Judged.S_VOLS).heard(ended, 0)) == EventWait.REACHED
    silent = sides(said(P, State.P_PSUS), GONE)
    assert code(EventWaiting({Status.SSUS}, 0, 9, Judged.S_VOLS).heard(silent, 9)) == EventWait.TIMEOUT


@pytest.mark.parametrize("here", [State.S_PAIR, State.S_SSWS, State.SMPL])
def test_a_silent_p_vol_is_waited_for(here: State) -> None:
    silent = sides(said(P, here), GONE)
    everything = frozenset(Status)
    assert code(EventWaiting(everything, 0, 9).heard(silent, 0)) is None
    assert EventWaiting(everything, 0, 9).heard(silent, 9) == Ended(
        EventWait.TIMEOUT, "remote: no link, last heard of 2026-11-28 09:22:40.500 UTC"
    )
    assert code(EventWaiting(everything, 0, 9, Judged.LOCAL).heard(silent, 0)) == EventWait.REACHED


@given(states=st.lists(st.sampled_from(State), min_size=1, max_size=6), wanted=st.sets(st.sampled_from(Status)))
def test_a_wait_ends_in_time_with_one_of_its_codes(states: list[State], wanted: set[Status]) -> None:
    waiting, now = EventWaiting(wanted, 0, 3), 0.0
    for turn in range(100):
        state = states[turn % len(states)]
        step = waiting.heard(sides(said(P, state), GONE), now)
        if isinstance(step, Ended):
            break
        now += step.pause_s
    assert isinstance(step, Ended)
    assert step.code in set(EventWait)
    assert now <= 3
    assert step.code != EventWait.REACHED or state.side == 2


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((State.SMPL,), 1), ((State.P_COPY,), 2), ((State.P_PAIR,), 3), ((State.P_PFUL,), 3), ((State.P_PSUS,), 4),
        ((State.P_PFUS,), 4), ((State.P_PSUE,), 5), ((State.P_PSUE_FENCED,), 5), ((State.S_SSUS,), 4),
        ((State.S_SSWS,), 4), ((State.P_PAIR, State.P_PFUL), 3), ((State.P_PAIR, State.P_COPY), 236),
    ],
)  # fmt: skip
def test_nowait_says_what_is_shown(states: tuple[State, ...], expected: int) -> None:
    assert pairevtwait_nowait(sides(said(P, *states), said(S, State.SMPL))).code == expected
    assert pairevtwait_nowait(sides(said(P, *states), GONE), Judged.LOCAL).code == expected


def test_nowait_does_not_guess() -> None:
    assert pairevtwait_nowait(sides(said(P, State.S_PAIR), GONE)).code == Result.UNREACHABLE


def test_what_may_be_waited_for() -> None:
    assert wanted_statuses(["pair", "PSUE"]) == {Status.PAIR, Status.PSUE}
    for given_ in ([], ["pdub"], ["pair", ""]):
        with pytest.raises(ValueError, match="one or more of smpl, copy, pair, psus, ssus, psue, ssws"):
            wanted_statuses(given_)


# -- pairsyncwait ------------------------------------------------------------------------------------------------------


def synced(sequence: int, restored: int, generation: int = 4) -> Sides:
    return sides(
        said(P, State.P_PAIR, sequence=sequence, generation=generation),
        said(S, State.S_PAIR, restored=restored, generation=generation),
    )


def test_waiting_for_what_was_written() -> None:
    waiting = SyncWaiting(0, 9)
    assert waiting.heard(synced(10, 3), 0) == Again(PAUSE_MIN_S)
    assert waiting.marker == Marker(4, 10)
    assert waiting.heard(synced(99, 9), 1) == Again(2 * PAUSE_MIN_S)
    assert waiting.heard(synced(100, 10), 2) == Ended(SyncWait.DONE, str(Marker(4, 10)))


def test_time_is_up_and_the_point_is_told() -> None:
    waiting = SyncWaiting(0, 9)
    assert waiting.heard(synced(10, 3), 9) == Ended(SyncWait.TIMEOUT, str(Marker(4, 10)))
    again = SyncWaiting(20, 9, waiting.marker)
    assert code(again.heard(synced(50, 10), 20)) == SyncWait.DONE


def test_a_resync_makes_a_point_meaningless() -> None:
    waiting = SyncWaiting(0, 9, Marker(4, 10))
    assert code(waiting.heard(synced(50, 50, generation=5), 0)) == SyncWait.CHANGED
    behind = sides(said(P, State.P_PAIR, generation=3, sequence=90, restored=90), GONE)
    assert code(waiting.heard(behind, 0)) is None


@pytest.mark.parametrize("state", [State.P_PSUS, State.P_PSUE, State.P_PFUS, State.SMPL])
def test_a_suspended_pair_breaks_it(state: State) -> None:
    suspended = sides(said(P, state, generation=0 if state is State.SMPL else 4), GONE)
    assert code(SyncWaiting(0, 9, Marker(4, 10)).heard(suspended, 0)) == SyncWait.BROKEN


def test_what_arrived_before_the_suspension_is_done() -> None:
    split = sides(said(P, State.P_PSUS), said(S, State.S_SSUS, restored=10))
    assert code(SyncWaiting(0, 9, Marker(4, 10)).heard(split, 0)) == SyncWait.DONE
    assert code(SyncWaiting(0, 9, Marker(4, 11)).heard(split, 0)) == SyncWait.BROKEN


def test_without_a_point_the_p_vols_must_be_in_pair() -> None:
    for states in ((State.P_COPY,), (State.P_PAIR, State.P_PSUS), (State.SMPL,)):
        there = sides(said(P, *states), said(S, State.SMPL))
        assert code(SyncWaiting(0, 9).heard(there, 0)) == 222
        assert pairsyncwait_nowait(there).code == 222


def test_a_silent_side_is_waited_for() -> None:
    waiting = SyncWaiting(0, 9)
    cut = sides(said(P, State.P_PAIR, sequence=10), GONE)
    assert code(SyncWaiting(0, 9).heard(sides(said(P, State.S_PAIR, restored=10), GONE), 0)) is None
    assert code(waiting.heard(cut, 0)) is None
    assert waiting.heard(cut, 9) == Ended(
        SyncWait.TIMEOUT, f"{Marker(4, 10)}; remote: no link, last heard of 2026-11-28 09:22:40.500 UTC"
    )


def test_nowait_tells_a_point_that_can_be_waited_for() -> None:
    told = pairsyncwait_nowait(synced(812, 3))
    assert told == Ended(0, "0000000000000004000000000000032c")
    assert Marker.read(told.text) == Marker(4, 812)
    assert pairsyncwait_nowait(sides(said(P, State.P_PAIR), GONE)).code == Result.UNREACHABLE


NUMBERS = st.integers(0, (1 << 64) - 1)


@given(generation=NUMBERS, sequence=NUMBERS)
def test_a_marker_is_read_as_it_was_printed(generation: int, sequence: int) -> None:
    assert Marker.read(str(Marker(generation, sequence))) == Marker(generation, sequence)


@given(text=st.text(max_size=20) | st.text("0123456789abcdef", min_size=33, max_size=34))
def test_anything_else_is_no_marker(text: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        Marker.read(text)
