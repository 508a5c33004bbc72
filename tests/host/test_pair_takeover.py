"""horctakeover in every state of a pair, against the tables of takeovers and meetings; its plan; what goes wrong."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_commands import Process
from arrayd.host.pair_takeover import NAMES, decide, take_over
from arrayd.replication.exit_codes import UNMATCHED, Peer, Takeover, takeover
from arrayd.replication.meetings import Age, met, settled
from arrayd.replication.statuses import COPYING, NEVER_WHOLE, NO_PAIR, P_VOL_HERE, Refusal, Side, State
from tests.host.pair_faults import after, losing, refusing
from tests.host.pair_runs import Lab, lab
from tests.replication.rows import Pair, after_takeover, heard_of

__all__ = ["lab"]

ENDS = [(here, there) for here, there in product(State, State) if settled(here, there)]
LOST = ("writes_lost", "bytes_lost", "seconds_lost")
NOTHING = {"writes_lost": 0, "bytes_lost": 0, "seconds_lost": 0.0}
UNKNOWN = dict.fromkeys(LOST)


def outcome(lab: Lab, **options: bool) -> int:
    """The exit code."""
    try:
        return take_over(lab.arrays(), **options).code
    except CommandFailed as failure:
        return failure.result


def shown(lab: Lab) -> tuple[State, State]:
    (here,), (there,) = lab.two.states
    return here, there


@pytest.mark.parametrize("consistent", [True, False])
def test_in_every_state(lab: Lab, consistent: bool) -> None:
    codes = set()
    for here, there in ENDS:
        lab.two.put(here, there, consistent=consistent)
        pair = Pair(here, there, consistent)
        taken = takeover(here, heard_of(pair), consistent=consistent)
        code = outcome(lab)
        if isinstance(taken, Refusal):
            assert (code, shown(lab)) == (Result.CONFLICT, (here, there))
        else:
            codes.add(code)
            expected = after_takeover(pair, heard_of(pair))
            assert isinstance(expected, Pair)
            lab.two.meet()
            assert (code, shown(lab)) == (taken, expected[:2]), (here, there)
            assert outcome(lab) == (Result.CONFLICT if shown(lab)[0] is State.SMPL else Takeover.NOTHING)
    assert codes == (set(Takeover) if consistent else {0, 1, 3, 4})


@pytest.mark.parametrize("consistent", [True, False])
def test_in_every_state_while_the_other_array_is_silent(lab: Lab, consistent: bool) -> None:
    codes = set()
    for here, there in ENDS:
        lab.two.put(here, there, consistent=consistent)
        lab.two.gone = {"remote"}
        taken = takeover(here, Peer.SILENT, consistent=consistent)
        code = outcome(lab)
        lab.two.gone = set()
        if isinstance(taken, Refusal):
            assert (code, shown(lab)) == (Result.CONFLICT, (here, there))
        else:
            codes.add(code)
            alone = after_takeover(Pair(here, there, consistent), Peer.SILENT)
            assert isinstance(alone, Pair)
            assert (code, shown(lab)) == (taken, alone[:2])
    assert codes == ({0, 4, 5} if consistent else {0, 4})


def test_it_says_what_it_did(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    ran = lab.run("horctakeover -g oradb -t 60")
    assert ran == (1, "oradb\tswap-takeover\t1\tprimary\tP-VOL PAIR\t-\n", "")
    ran = lab.run("horctakeover -g oradb")
    assert ran == (0, "oradb\tnop-takeover\t0\tprimary\tP-VOL PAIR\t-\n", "")
    lab.two.gone = {"primary"}
    ran = lab.run("horctakeover -g oradb --at remote --json")
    assert ran.code == 5
    assert json.loads(ran.out) == [{
        "group": "oradb", "takeover": "SVOL-SSUS-takeover", "exit": 5, "array": "remote", "shows": "S-VOL SSWS",
        "sequence": 812,
    }]  # fmt: skip


@pytest.mark.parametrize(
    ("here", "there", "consistent", "refused"),
    [
        (State.SMPL, State.SMPL, True, NO_PAIR),
        (State.S_COPY, State.P_COPY, True, COPYING),
        (State.S_SSUS, State.P_PSUS, False, NEVER_WHOLE),
    ],
)
def test_refusals(lab: Lab, here: State, there: State, consistent: bool, refused: Refusal) -> None:
    lab.two.put(here, there, consistent=consistent)
    assert lab.bad("horctakeover -g oradb") == (Result.CONFLICT, f"primary: {refused.text}")


def test_figure_19_the_s_vols_side_is_told_of_a_swap_first(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    order: list[str] = []
    for name in ("primary", "remote"):
        lab.two.faults[name, Process.PAIR_SWAP] = after(lambda name=name: order.append(name))  # type: ignore[misc]
    assert outcome(lab) == Takeover.SWAP
    assert order == ["primary", "remote"]
    assert [len(message.requests) for message in lab.two.messages] == [2, 2]
    told = [array.told[-1][1] for array in lab.two.arrays.values()]
    assert [each["epoch"] for each in told] == [4, 4]
    assert told[0]["rows"]["states"]["0"] == "P-VOL PAIR"
    assert told[1]["rows"]["states"]["0"] == "S-VOL PAIR"


def test_the_s_vols_side_may_be_the_far_one(lab: Lab) -> None:
    lab.through_primary_alone()
    lab.two.put(State.P_PAIR, State.S_PAIR)
    order: list[str] = []
    for name in ("primary", "remote"):
        lab.two.faults[name, Process.PAIR_SWAP] = after(lambda name=name: order.append(name))  # type: ignore[misc]
    assert lab.run("horctakeover -g oradb --at remote").code == Takeover.SWAP
    assert order == ["remote", "primary"]
    assert set(lab.two.asked) == {"primary"}


# -- the plan ----------------------------------------------------------------------------------------------------------


def plan(lab: Lab, options: str = "") -> dict[str, Any]:
    """What --plan says; it does nothing."""
    before = lab.two.states
    (row,) = json.loads(lab.good(f"horctakeover -g oradb --plan --json {options}"))
    assert lab.two.states == before
    assert all(array.told == [] for array in lab.two.arrays.values())
    assert isinstance(row, dict)
    return row


def lost(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in LOST}


def test_a_plan_says_what_is_then_done(lab: Lab) -> None:
    for (here, there), gone in product(ENDS, (set(), {"remote"})):
        lab.two.put(here, there)
        lab.two.gone = set(gone)
        decision = decide(lab.arrays(), lab.arrays().ask())
        assert outcome(lab) == decision.code, (here, there)


def test_a_swap_loses_nothing(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    row = plan(lab)
    assert (row["takeover"], row["exit"], row["shows"], row["peer"]) == (
        "swap-takeover", 1, "S-VOL PAIR", "peer answers",
    )  # fmt: skip
    assert lost(row) == NOTHING


def test_what_a_silent_array_had_is_unknown(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    lab.two.gone = {"remote"}
    lab.two["primary"].more = {"sequence": 900, "restored": 812, "lag": {"seconds": 3.0, "writes": 88, "bytes": 9}}
    row = plan(lab)
    assert (row["takeover"], row["exit"], row["peer"]) == ("SVOL-SSUS-takeover", 5, "peer silent")
    assert lost(row) == UNKNOWN
    assert row["last_contact"] == 1795857760.5
    assert row["reason"] == "remote: nobody listens"
    shown_row = lab.good("horctakeover -g oradb --plan").rstrip("\n").split("\t")
    assert shown_row[6:10] == ["unknown", "unknown", "unknown", "2026-11-28T09:22:40Z"]
    lab.two["primary"].more = {"contact": None}
    assert lab.good("horctakeover -g oradb --plan").split("\t")[9] == "unknown"


def test_what_an_array_tells_that_cannot_be_swapped_with(lab: Lab) -> None:
    """The host hears both, and the arrays do not hear each other."""
    lab.two.put(State.S_PAIR, State.P_PAIR)
    journal = {"jid": 1, "status": "SJNN", "lun": 20, "links": 0, "marker": 900}
    lab.two.link = False
    lab.two["primary"].more = {"journals": [journal], "restored": 850, "sequence": 900}
    lab.two["remote"].more = {"sequence": 900, "lag": {"seconds": 3.5, "writes": 88, "bytes": 360448}}
    row = plan(lab)
    assert (row["takeover"], row["exit"]) == ("SVOL-SSUS-takeover", 5)
    assert lost(row) == {"writes_lost": 88, "bytes_lost": 360448, "seconds_lost": 3.5}
    lab.two["remote"].more = {"sequence": 850, "lag": {"seconds": 3.5, "writes": 88, "bytes": 360448}}
    assert lost(plan(lab)) == NOTHING
    lab.two["remote"].more = {"sequence": 900}
    assert lost(plan(lab)) == UNKNOWN
    assert lab.run("horctakeover -g oradb").code == Takeover.SVOL_SSUS
    assert shown(lab) == (State.S_SSWS, State.P_PAIR)


def test_what_was_written_beside_a_split_pair(lab: Lab) -> None:
    """How much the other side has marked is told; how much more a copy that was cut short has brought is not known."""
    lab.two.put(State.S_SSUS, State.P_PSUS)
    assert (lost(plan(lab)), plan(lab)["reason"]) == (UNKNOWN, None)
    pairs: list[dict[str, Any]] = [
        {"lun": 5 + number, "state": "P-VOL PSUS", "number": number, "differing": 4096 * number} for number in (0, 1)
    ]
    lab.two["remote"].more = {"pairs": pairs, "lag": {"seconds": 0, "writes": 0, "bytes": 0}}
    assert (lost(plan(lab)), plan(lab)["reason"]) == (UNKNOWN, "remote has marked 4096 bytes as differing")
    pairs[0]["differing"] = None  # it was suspended in COPY
    assert plan(lab)["reason"] is None


@pytest.mark.parametrize("here", [State.S_COPY, State.S_PAIR])
def test_what_a_copy_has_brought_is_lost_with_it(lab: Lab, here: State) -> None:
    """S-VOLs go back to where they were before it: the lag of the copy says nothing about that."""
    lab.two.put(here, State.P_COPY if here is State.S_COPY else State.P_PAIR)
    lab.two["remote"].more = {"sequence": 900, "lag": {"seconds": 1.5, "writes": 7, "bytes": 512}}
    known = {"writes_lost": 7, "bytes_lost": 512, "seconds_lost": 1.5}
    row = plan(lab, "-S")
    assert row["takeover"] == "SVOL-SSUS-takeover"
    assert lost(row) == (known if here is State.S_PAIR else UNKNOWN)
    lab.two.ahead("primary")
    assert lost(plan(lab, "-S")) == UNKNOWN


def test_a_refusal_in_a_plan(lab: Lab) -> None:
    """Nobody knows what is lost where the copy is given up, and lag and position are not those of a point."""
    lab.two.put(State.S_COPY, State.P_COPY)
    lab.two["remote"].more = {"sequence": 900, "lag": {"seconds": 0, "writes": 0, "bytes": 0}}
    row = plan(lab)
    assert (row["takeover"], row["exit"], row["reason"]) == ("refused", 135, COPYING.text)
    assert (lost(row), row["last_contact"]) == (UNKNOWN, 1795857760.5)
    lab.two.gone = {"remote"}
    lab.two.put(State.S_COPY, State.P_COPY, consistent=False)
    row = plan(lab)
    assert (row["takeover"], row["reason"]) == ("refused", NEVER_WHOLE.text)
    assert (lost(row), row["last_contact"]) == (UNKNOWN, 1795857760.5)
    lab.two.put(State.SMPL, State.SMPL)
    assert (plan(lab)["takeover"], lost(plan(lab))) == ("refused", UNKNOWN)


def test_no_plan_without_this_side(lab: Lab) -> None:
    lab.two.gone = {"primary"}
    code, reason = lab.bad("horctakeover -g oradb --plan")
    assert (code, reason.startswith("primary: nobody listens, last heard of ")) == (Result.UNREACHABLE, True)


# -- forced, and what goes wrong ---------------------------------------------------------------------------------------


def test_forced_though_the_other_answers(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    assert lab.run("horctakeover -g oradb -S").code == Takeover.SVOL_SSUS
    assert shown(lab) == (State.S_SSWS, State.P_PAIR)
    assert lab.two["primary"].told[-1] == (Process.PAIR_TAKEOVER, {"group": "oradb", "generation": 4, "rows": None})
    assert lab.two["remote"].told == []
    lab.two.put(State.P_PAIR, State.S_PAIR)
    assert lab.bad("horctakeover -g oradb -S") == (Result.CONFLICT, f"primary: {P_VOL_HERE.text}")


@pytest.mark.parametrize(
    ("result", "gone"),
    [
        (Result.EXPIRED, True), (Result.UNDELIVERABLE, True), (Result.INTERRUPTED, True),
        (Result.BUSY, False), (Result.NOT_AUTHORISED, False), (Result.UNKNOWN_COMMAND, False),
    ],
)  # fmt: skip
def test_an_array_that_does_not_tell_is_not_gone(lab: Lab, result: Result, gone: bool) -> None:
    """Going on without it loses writes: that is asked for, or there is no other way."""
    lab.through_primary_alone()
    for options in ("--plan", ""):
        lab.two.put(State.S_PAIR, State.P_PAIR)
        lab.two.faults["remote", Process.PAIR_STATUS] = refusing(result, "not now")
        ran = lab.run(f"horctakeover -g oradb {options}")
        if gone:
            assert ran.code == (0 if options else Takeover.SVOL_SSUS)
        else:
            assert (ran.code, shown(lab)) == (result, (State.S_PAIR, State.P_PAIR))
            assert ran.error.rstrip().endswith("-S takes the S-VOLs over without the other array")
    lab.two.put(State.S_PAIR, State.P_PAIR)
    lab.two.faults["remote", Process.PAIR_STATUS] = refusing(result, "not now")
    assert lab.run("horctakeover -g oradb -S").code == Takeover.SVOL_SSUS


def test_a_swap_that_is_refused_changes_nothing(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    lab.two.faults["primary", Process.PAIR_SWAP] = refusing(Result.FAILED, "remote does not hold still")
    assert lab.bad("horctakeover -g oradb") == (
        Result.FAILED,
        "primary: remote does not hold still; horctakeover -S takes the S-VOLs over without the other array",
    )
    assert shown(lab) == (State.S_PAIR, State.P_PAIR)
    assert lab.two["remote"].told == []


def test_a_swap_that_the_other_side_does_not_hear_of_is_one_all_the_same(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    lab.two.faults["remote", Process.PAIR_SWAP] = refusing(Result.BUSY, "too much to do")
    ran = lab.run("horctakeover -g oradb")
    assert ran.code == Takeover.SWAP
    assert ran.error == "arrayctl: remote: too much to do; it takes its place when the arrays meet\n"
    lab.two.meet()
    assert shown(lab) == (State.P_PAIR, State.S_PAIR)


@pytest.mark.parametrize(
    ("here", "there", "gone", "process", "code"),
    [
        (State.S_PAIR, State.P_PAIR, False, Process.PAIR_SWAP, Takeover.SWAP),
        (State.S_PAIR, State.P_PAIR, True, Process.PAIR_TAKEOVER, Takeover.SVOL_SSUS),
        (State.S_SSUS, State.P_PSUS, False, Process.PAIR_TAKEOVER, Takeover.SVOL_SSUS),
        (State.S_SSUS, State.SMPL, False, Process.PAIR_DELETE, Takeover.SVOL),
        (State.P_PSUE_FENCED, State.S_PSUE, False, Process.PAIR_TAKEOVER, Takeover.PVOL_PSUE),
        (State.P_PSUE_FENCED, State.SMPL, False, Process.PAIR_DELETE, Takeover.PVOL_SMPL),
    ],
)
def test_a_lost_answer_is_looked_for(
    lab: Lab, here: State, there: State, gone: bool, process: Process, code: Takeover
) -> None:
    lab.two.put(here, there)
    lab.two.gone = {"remote"} if gone else set()
    lab.two.faults["primary", process] = losing
    ran = lab.run("horctakeover -g oradb")
    assert ran.code == code
    assert NAMES[code] in ran.out


def test_an_array_that_stops_meanwhile(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)

    def lost_with_it(operation: Any) -> Any:
        lab.two.going = {"primary", "remote"}
        return losing(operation)

    lab.two.faults["primary", Process.PAIR_SWAP] = lost_with_it
    code, reason = lab.bad("horctakeover -g oradb")
    assert code in (Result.EXPIRED, Result.UNREACHABLE)
    assert reason.endswith("; whether primary has taken over is not known: again, or pairdisplay")


def test_a_state_that_changes_meanwhile_is_looked_at_again(lab: Lab) -> None:
    """The P-VOLs are split between the question and the swap."""
    lab.two.put(State.S_PAIR, State.P_PAIR)

    lab.two.faults["primary", Process.PAIR_SWAP] = after(lambda: lab.two.put(State.S_SSUS, State.P_PSUS, generation=5))
    assert outcome(lab) == Takeover.SVOL_SSUS
    assert shown(lab)[0] is State.S_SSWS


def test_what_is_refused_before_they_have_met_may_be_taken_then(lab: Lab) -> None:
    lab.two.put(State.S_COPY, State.P_PSUS)
    assert outcome(lab) == Takeover.SVOL_SSUS
    assert shown(lab)[0] is State.S_SSWS


def test_pairs_that_differ_are_not_taken_over(lab: Lab) -> None:
    lab.two.put(State.S_PAIR, State.P_PAIR)
    pairs = [
        {"lun": 0, "state": "S-VOL PAIR", "number": 0, "name": "data"},
        {"lun": 1, "state": "S-VOL SSUS", "number": 1, "name": "log"},
    ]
    lab.two["primary"].more = {"pairs": pairs}
    assert lab.bad("horctakeover -g oradb") == (
        UNMATCHED, "primary: the volumes of the group differ: data S-VOL PAIR, log S-VOL SSUS",
    )  # fmt: skip


def test_a_takeover_while_cut_off_is_found_when_the_arrays_meet(lab: Lab) -> None:
    """A host that is quicker than the arrays waits until they have met."""
    lab.two.put(State.S_PAIR, State.P_PAIR)
    lab.two.gone = {"remote"}
    assert outcome(lab) == Takeover.SVOL_SSUS
    lab.two.gone = set()
    assert met(State.P_PAIR, State.S_SSWS, Age.OLDER) is State.P_PSUS
    assert lab.good("pairresync -g oradb -swaps") == ""
    assert shown(lab) == (State.P_COPY, State.S_COPY)
    assert [next(iter(each)).side for each in lab.two.states] == [Side.P_VOL, Side.S_VOL]
