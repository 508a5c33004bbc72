"""The verbs of pairs at a synchronous group: no journals, fence levels, and what is lost by a takeover."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host.pair_commands import Process
from arrayd.replication import exit_codes
from arrayd.replication.exit_codes import INVALID_VOLUME, UNCONFORMED, EventWait, SyncWait, Takeover
from arrayd.replication.group_rows import Fence
from arrayd.replication.meetings import settled
from arrayd.replication.statuses import P_SUSPENDED, State, Status
from tests.host.pair_faults import refusing
from tests.host.pair_runs import Lab, lab

__all__ = ["lab"]

WITH_A_JOURNAL = (Status.PFUL, Status.PFUS)
STATES = [state for state in State if state.status not in WITH_A_JOURNAL]
ENDS = [(here, there) for here, there in product(STATES, STATES) if settled(here, there)]
MODE = "groups.oradb.legs[0].mode: sync"
NOTHING = {"writes_lost": 0, "bytes_lost": 0, "seconds_lost": 0.0}
UNKNOWN = dict.fromkeys(NOTHING)
BY_FENCE = {
    Fence.NEVER: "never it may have taken writes alone",
    Fence.STATUS: "status it may have taken writes alone",
    Fence.DATA: "data it takes no write alone, unless it was told to (horctakeover or pairsplit there)",
}


@pytest.fixture
def mirror(lab: Lab) -> Lab:
    """The path table names a synchronous group."""
    text = lab.file.read_text().replace("    journals: {primary: 20, remote: 20}\n", "")
    lab.file.write_text(text.replace("mode: async", "mode: sync, fence: status"))
    return lab


def put(lab: Lab, here: State, there: State, fence: Fence = Fence.STATUS, **more: Any) -> None:
    """Both sides show these, of a synchronous group."""
    lab.two.put(here, there, **more)
    for name, state in (("primary", here), ("remote", there)):
        if state is not State.SMPL:
            lab.two.mirror(name, fence)


# -- paircreate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fence"), [("", "status"), ("-f never", "never"), ("-f data", "data"), ("-f status -vl", "status")]
)
def test_what_both_are_told(mirror: Lab, options: str, fence: str) -> None:
    assert mirror.good(f"paircreate -g oradb {options} -c 9 --copy-rate 1MiB") == ""
    assert mirror.two.states == ({State.P_COPY}, {State.S_COPY})
    assert [len(message.requests) for message in mirror.two.messages] == [2, 2]
    for array in mirror.two.arrays.values():
        ((process, told),) = array.told
        assert process == Process.PAIR_CREATE
        kept = {key: told.get(key) for key in ("mode", "fence", "driver", "pace", "copy", "copy_rate")}
        assert kept == {
            "mode": "sync", "fence": fence, "driver": "arrays", "pace": 9, "copy": True, "copy_rate": 1 << 20,
        }  # fmt: skip
        assert not {"journal", "peer_journal"} & told.keys()


def test_without_a_journal_volume_anywhere(mirror: Lab) -> None:
    for array in mirror.two.arrays.values():
        array.journals.clear()
    mirror.good("paircreate -g oradb")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("-f async", f"-f async: expected never, data, status, or no -f: {MODE}"),
        ("-jp 20", f"-jp: a synchronous group has no journals: {MODE}"),
        ("-js 20", f"-js: a synchronous group has no journals: {MODE}"),
        ("--driver host", f"--driver host: the arrays drive a synchronous group: {MODE}"),
    ],
)
def test_what_contradicts_the_path_table_is_refused_in_a_line(mirror: Lab, options: str, reason: str) -> None:
    told = f"{reason}. Try: arrayctl paircreate --help"
    assert mirror.bad(f"paircreate -g oradb {options}") == (Result.USAGE, told)
    assert mirror.two.messages == []


def test_a_group_that_has_grown_keeps_its_fence_level(mirror: Lab) -> None:
    put(mirror, State.P_PAIR, State.S_PAIR, Fence.DATA)
    mirror.good("pairsplit -g oradb -S -d log")
    other = "primary: the fence level of oradb is data, not never: pairsplit -S ends the group first"
    assert mirror.bad("paircreate -g oradb -f never") == (Result.CONFLICT, other)
    mirror.good("paircreate -g oradb -vl")
    assert [array.told[-1][1]["fence"] for array in mirror.two.arrays.values()] == ["data", "data"]
    assert mirror.good("paircreate -g oradb -f data") == ""
    assert mirror.bad("paircreate -g oradb -f never") == (Result.CONFLICT, other)


def test_pairs_of_another_mode_than_the_path_table_says(mirror: Lab) -> None:
    mirror.two.put(State.P_PAIR, State.S_PAIR)
    told = "oradb is asynchronous, and synchronous by the path table"
    code, reason = mirror.bad("paircreate -g oradb")
    assert (code, reason) == (Result.CONFLICT, f"primary: {told}: pairsplit -S ends the group first")
    ran = mirror.run("pairdisplay -g oradb")
    assert (ran.code, ran.error) == (UNCONFORMED, f"arrayctl: primary: {told}\narrayctl: remote: {told}\n")
    mirror.file.write_text(mirror.file.read_text().replace("mode: sync, fence: status", "mode: async"))
    put(mirror, State.P_PAIR, State.S_PAIR)
    told = "oradb is synchronous, and asynchronous by the path table"
    assert mirror.bad("paircreate -g oradb")[1] == f"primary: {told}: pairsplit -S ends the group first"
    assert mirror.run("pairdisplay -g oradb").error.splitlines()[0] == f"arrayctl: primary: {told}"


# -- what is shown -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", Fence)
def test_the_fence_level_is_shown_and_no_journal(mirror: Lab, fence: Fence) -> None:
    put(mirror, State.P_PAIR, State.S_PAIR, fence)
    rows = [line.split("\t") for line in mirror.good("pairdisplay -g oradb -fe").splitlines()]
    assert [(row[7], row[10]) for row in rows] == [(fence.upper(), "-")] * 4
    ran = mirror.run("pairdisplay -g oradb -v jnl")
    assert ran == (0, "", "arrayctl: oradb is synchronous: it has no journals\n")
    mirror.two.gone = {"remote"}
    ran = mirror.run("pairdisplay -g oradb -v jnl --json")
    assert (ran.code, json.loads(ran.out)) == (Result.UNREACHABLE, [])


@pytest.mark.parametrize(
    ("state", "status", "writes"),
    [
        (State.P_PAIR, "PAIR", "taken, mirrored first"),
        (State.P_PSUE, "PSUE", "taken, marked in the bitmap first"),
        (State.P_PSUE_FENCED, "PSUE", "refused with DATA PROTECT"),
    ],
)
def test_what_becomes_of_writes(mirror: Lab, state: State, status: str, writes: str) -> None:
    put(mirror, state, State.S_PAIR if state is State.P_PAIR else State.S_PSUE)
    first, *_ = json.loads(mirror.good("pairdisplay -g oradb --json"))
    assert (first["status"], first["writes"]) == (status, writes)


def test_the_lag_of_a_synchronous_group(mirror: Lab) -> None:
    put(mirror, State.P_PAIR, State.S_PAIR)
    mirror.two["primary"].more = {"lag": {"seconds": 0, "writes": 0, "bytes": 0}}
    rows = [line.split("\t") for line in mirror.good("pairdisplay -g oradb -v lag").splitlines()]
    assert [row[4:9] for row in rows] == [["unknown", "unknown", "0", "0", "0.0"], ["unknown"] * 5]


# -- exit codes --------------------------------------------------------------------------------------------------------


def test_pairvolchk_in_every_state(mirror: Lab) -> None:
    codes = set()
    for here, there in ENDS:
        put(mirror, here, there)
        code = mirror.run("pairvolchk -g oradb -ss").code
        assert code == exit_codes.STATUS_CODES[here.side, here.status]
        codes.add(code)
    assert codes == {11, 22, 23, 24, 25, 30, 32, 33, 34, 35}


@pytest.mark.parametrize(("side", "code"), [("primary", 26), ("remote", 36)])
def test_pairvolchk_of_volumes_that_differ(mirror: Lab, side: str, code: int) -> None:
    put(mirror, State.P_PAIR, State.S_PAIR)
    shown = ("P-VOL PAIR", "P-VOL PSUE") if side == "primary" else ("S-VOL PAIR", "S-VOL PSUE")
    luns = (0, 1) if side == "primary" else (5, 6)
    pairs = [{"lun": lun, "state": state, "number": lun % 5} for lun, state in zip(luns, shown, strict=True)]
    mirror.two[side].more = {"pairs": pairs}
    assert mirror.run(f"pairvolchk -g oradb -ss --at {side}").code == code


def test_pairevtwait_takes_a_fenced_p_vol_for_one_in_psue(mirror: Lab) -> None:
    put(mirror, State.P_PSUE_FENCED, State.S_PSUE)
    assert mirror.run("pairevtwait -g oradb -s psue -t 1").code == EventWait.REACHED
    assert mirror.run("pairevtwait -g oradb -nowait").code == 5
    assert mirror.run("pairevtwait -g oradb -s pair -t 1").code == EventWait.SUSPENDED


# -- pairsyncwait ------------------------------------------------------------------------------------------------------


def test_in_pair_all_that_was_answered_is_there_at_once(mirror: Lab) -> None:
    put(mirror, State.P_PAIR, State.S_PAIR)
    marker = f"{4:016x}{0:016x}"
    assert mirror.run("pairsyncwait -g oradb -t 60") == (SyncWait.DONE, f"oradb\t{marker}\tDONE\n", "")
    assert mirror.good("pairsyncwait -g oradb -nowait") == f"oradb\t{marker}\tNOWAIT\n"
    assert mirror.two.seconds == 0
    mirror.two.gone = {"remote"}
    assert mirror.run("pairsyncwait -g oradb -t 60").code == SyncWait.DONE


@pytest.mark.parametrize("state", [state for state in P_SUSPENDED if state in STATES])
def test_a_suspended_group_has_nothing_to_wait_for(mirror: Lab, state: State) -> None:
    put(mirror, state, State.S_SSUS if state is State.P_PSUS else State.S_PSUE)
    assert mirror.run("pairsyncwait -g oradb -t 60") == (SyncWait.BROKEN, "oradb\t-\tBROKEN\n", "")
    assert mirror.bad("pairsyncwait -g oradb -nowait")[0] == INVALID_VOLUME


@pytest.mark.parametrize(("here", "there"), [(State.P_COPY, State.S_COPY), (State.SMPL, State.SMPL)])
def test_a_group_that_is_not_yet_in_pair_has_no_point(mirror: Lab, here: State, there: State) -> None:
    put(mirror, here, there)
    assert mirror.bad("pairsyncwait -g oradb -t 60")[0] == INVALID_VOLUME


def test_a_point_that_was_taken_in_pair_stays_reached(mirror: Lab) -> None:
    marker = f"{4:016x}{0:016x}"
    put(mirror, State.P_PSUE, State.S_PSUE)
    assert mirror.run(f"pairsyncwait -g oradb -t 60 -m {marker}").code == SyncWait.DONE
    put(mirror, State.P_PAIR, State.S_PAIR, generation=5)
    assert mirror.run(f"pairsyncwait -g oradb -t 60 -m {marker}").code == SyncWait.CHANGED
    put(mirror, State.SMPL, State.SMPL)
    assert mirror.run(f"pairsyncwait -g oradb -t 60 -m {marker}").code == SyncWait.BROKEN


def test_while_the_p_vols_are_silent_nothing_is_known(mirror: Lab) -> None:
    put(mirror, State.S_PAIR, State.P_PAIR)
    mirror.two.gone = {"remote"}
    assert mirror.run("pairsyncwait -g oradb -t 5").code == SyncWait.TIMEOUT


# -- horctakeover ------------------------------------------------------------------------------------------------------


def plan(lab: Lab, options: str = "") -> dict[str, Any]:
    (row,) = json.loads(lab.good(f"horctakeover -g oradb --plan --json {options}"))
    assert isinstance(row, dict)
    return row


def lost(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in NOTHING}


@pytest.mark.parametrize("fence", Fence)
def test_a_swap_loses_nothing(mirror: Lab, fence: Fence) -> None:
    put(mirror, State.S_PAIR, State.P_PAIR, fence)
    assert (plan(mirror)["exit"], lost(plan(mirror))) == (Takeover.SWAP, NOTHING)
    assert mirror.run("horctakeover -g oradb").code == Takeover.SWAP
    assert mirror.two.states == ({State.P_PAIR}, {State.S_PAIR})


@pytest.mark.parametrize("fence", Fence)
def test_what_a_silent_array_has_taken_alone_is_known_by_the_fence_level(mirror: Lab, fence: Fence) -> None:
    put(mirror, State.S_PAIR, State.P_PAIR, fence)
    mirror.two.gone = {"remote"}
    row = plan(mirror)
    assert (row["takeover"], row["exit"], row["peer"]) == ("SVOL-SSUS-takeover", 5, "peer silent")
    assert lost(row) == (NOTHING if fence is Fence.DATA else UNKNOWN)
    assert row["reason"] == f"remote: nobody listens; of fence level {BY_FENCE[fence]}"
    assert mirror.run("horctakeover -g oradb").code == Takeover.SVOL_SSUS


@pytest.mark.parametrize("state", [State.S_COPY, State.S_SSUS, State.S_PSUE])
def test_of_a_silent_array_nothing_is_known_but_in_pair(mirror: Lab, state: State) -> None:
    put(mirror, state, {State.S_COPY: State.P_COPY, State.S_SSUS: State.P_PSUS}.get(state, State.P_PSUE), Fence.DATA)
    mirror.two.gone = {"remote"}
    row = plan(mirror)
    assert (lost(row), row["reason"]) == (UNKNOWN, "remote: nobody listens")


@pytest.mark.parametrize("fence", Fence)
@pytest.mark.parametrize(
    ("there", "expected"),
    [(State.P_PAIR, NOTHING), (State.P_PSUE_FENCED, NOTHING), (State.P_PSUE, UNKNOWN), (State.P_PSUS, UNKNOWN)],
)
def test_with_the_link_cut_the_p_vols_are_asked(
    mirror: Lab, fence: Fence, there: State, expected: dict[str, Any]
) -> None:
    """The host hears both. As long as no P-VOL has taken a write alone the S-VOLs have all."""
    mirror.two.link = mirror.two.meets = False
    put(mirror, State.S_PAIR, there, fence)
    mirror.two["primary"].more = {"links": 0}
    row = plan(mirror)
    assert (row["takeover"], row["exit"], lost(row)) == ("SVOL-SSUS-takeover", 5, expected)
    mirror.two.ahead("remote")
    assert lost(plan(mirror)) == UNKNOWN


def test_where_the_pairs_are_ended_there_nobody_knows(mirror: Lab) -> None:
    put(mirror, State.S_PAIR, State.SMPL, Fence.DATA)
    assert (plan(mirror)["exit"], lost(plan(mirror))) == (Takeover.SVOL, UNKNOWN)


def test_links_tell_of_an_array_that_cannot_be_swapped_with(mirror: Lab) -> None:
    """No journal tells of them."""
    put(mirror, State.S_PAIR, State.P_PAIR)
    for links, code in ((0, Takeover.SVOL_SSUS), (2, Takeover.SWAP), (None, Takeover.SWAP)):
        mirror.two["primary"].more = {"links": links}
        assert plan(mirror)["exit"] == code


@pytest.mark.parametrize(
    ("there", "gone", "code", "after"),
    [
        (State.S_PSUE, set(), Takeover.PVOL_PSUE, State.P_PSUE),
        (State.S_PSUE, {"remote"}, Takeover.PVOL_PSUE, State.P_PSUE),
        (State.SMPL, set(), Takeover.PVOL_SMPL, State.SMPL),
    ],
)
def test_fenced_p_vols_take_writes_again(
    mirror: Lab, there: State, gone: set[str], code: Takeover, after: State
) -> None:
    put(mirror, State.P_PSUE_FENCED, there, Fence.DATA)
    mirror.two.gone = gone
    assert (plan(mirror)["exit"], lost(plan(mirror)), plan(mirror)["shows"]) == (code, NOTHING, "P-VOL PSUE fenced")
    assert mirror.run("horctakeover -g oradb").code == code
    assert mirror.two.states[0] == {after}
    if after is State.P_PSUE:
        assert mirror.run("horctakeover -g oradb").code == Takeover.NOTHING


def test_at_the_p_vols_side_nobody_is_sent_to_take_s_vols_over(mirror: Lab) -> None:
    mirror.through_primary_alone()
    put(mirror, State.P_PSUE_FENCED, State.S_PSUE, Fence.DATA)
    mirror.two.faults["remote", Process.PAIR_STATUS] = refusing(Result.BUSY, "too much to do")
    assert mirror.bad("horctakeover -g oradb") == (Result.BUSY, "remote: too much to do")


def test_there_is_nothing_to_drive(mirror: Lab) -> None:
    put(mirror, State.P_PAIR, State.S_PAIR)
    reason = "primary: group oradb is synchronous: there is nothing to drive"
    assert mirror.bad("replicate -g oradb --once") == (Result.CONFLICT, reason)


def test_a_takeover_is_that_of_an_asynchronous_pair_in_every_state(mirror: Lab) -> None:
    """Whatever the fence level is."""
    for (here, there), fence in product(ENDS, Fence):
        put(mirror, here, there, fence)
        expected = plan(mirror)["exit"]
        mirror.two.put(here, there)
        assert plan(mirror)["exit"] == expected
