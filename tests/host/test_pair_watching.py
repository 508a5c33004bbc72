"""pairdisplay, pairvolchk, pairevtwait and pairsyncwait as who types them sees them: columns, options, exit codes."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from arrayd.commands.results import Result
from arrayd.host.cli import arrayctl
from arrayd.host.pair_commands import Process
from arrayd.replication import exit_codes
from arrayd.replication.exit_codes import EventWait, SyncWait
from arrayd.replication.meetings import settled
from arrayd.replication.statuses import Side, State, Status
from tests.host.pair_faults import after, refusing
from tests.host.pair_runs import Lab, lab

__all__ = ["lab"]

ENDS = [(here, there) for here, there in product(State, State) if settled(here, there)]
P_VOLS = [state for state in State if state.side is Side.P_VOL]
CONTACT = "2026-11-28T09:22:40Z"


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


# -- pairdisplay -------------------------------------------------------------------------------------------------------


def test_columns(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    assert rows(lab.good("pairdisplay -g oradb")) == [
        ["oradb", "data", "L", "0", "A1", "P-VOL", "PAIR", "ASYNC", "-", "-"],
        ["oradb", "data", "R", "5", "B2", "S-VOL", "PAIR", "ASYNC", "-", "-"],
        ["oradb", "log", "L", "1", "A1", "P-VOL", "PAIR", "ASYNC", "-", "-"],
        ["oradb", "log", "R", "6", "B2", "S-VOL", "PAIR", "ASYNC", "-", "-"],
    ]
    assert [row[2:4] for row in rows(lab.good("pairdisplay -g oradb --at remote"))[:2]] == [["L", "5"], ["R", "0"]]
    assert len(rows(lab.good("pairdisplay -g oradb -fe"))[0]) == 12
    assert lab.good("pairdisplay -g oradb -fc -CLI") == lab.good("pairdisplay -g oradb")
    assert rows(lab.good("pairdisplay -g oradb -v jnl")) == [
        ["L", "1", "-", "-", "PJNN", "1", "-", "-", "-", "-", "A1", "20", "-"],
        ["R", "1", "-", "-", "PJNN", "1", "-", "-", "-", "-", "B2", "20", "-"],
    ]


def test_the_local_side_alone(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    assert [row[2] for row in rows(lab.good("pairdisplay -g oradb -l"))] == ["L", "L"]
    assert [row[0] for row in rows(lab.good("pairdisplay -g oradb -l -v jnl"))] == ["L"]
    assert [len(message.requests) for message in lab.two.messages] == [1, 1]
    lab.two.gone = {"remote"}
    lab.good("pairdisplay -g oradb -l")


@pytest.mark.parametrize(("gone", "link"), [({"remote"}, True), ({"remote"}, False)])
def test_a_silent_side_is_unknown(lab: Lab, gone: set[str], link: bool) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.gone, lab.two.link = gone, link
    ran = lab.run("pairdisplay -g oradb")
    assert ran.code == Result.UNREACHABLE
    assert ran.error == "arrayctl: remote: nobody listens\n"
    assert rows(ran.out)[1] == ["oradb", "data", "R", "5", "-", "unknown", "unknown", "-", "-", CONTACT]
    journals = lab.run("pairdisplay -g oradb -v jnl")
    assert rows(journals.out)[1][4] == "unknown"


def test_the_array_that_is_named_is_asked(lab: Lab) -> None:
    lab.good("pairdisplay -g oradb --at remote")
    lab.good("pairdisplay -g oradb --at primary")
    lab.through_primary_alone()
    lab.good("pairdisplay -g oradb --at remote")
    assert lab.two.asked == ["remote", "primary", "primary"]


def test_with_the_link_down_each_array_is_asked_by_itself(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.link = False
    assert [row[6] for row in rows(lab.good("pairdisplay -g oradb"))] == ["PAIR"] * 4
    assert lab.two.asked == ["primary", "remote"]


def test_the_array_that_is_asked_first_may_be_the_one_that_is_gone(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.gone = {"primary"}
    ran = lab.run("pairdisplay -g oradb")
    assert [row[6] for row in rows(ran.out)] == ["unknown", "PAIR", "unknown", "PAIR"]


def test_an_answer_that_is_none_is_silence(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two["remote"].more = {"generation": -1}
    ran = lab.run("pairdisplay -g oradb")
    assert ran.code == Result.UNREACHABLE
    assert ran.error.startswith("arrayctl: remote: answer.generation: -1: expected a whole number")


def test_a_long_answer_is_asked_for_alone(lab: Lab) -> None:
    """Two answers in one message may be too long where one is not."""
    lab.through_primary_alone()
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two.faults["remote", Process.PAIR_STATUS] = refusing(Result.TOO_LONG, "the answers together are too long")
    assert [row[6] for row in rows(lab.good("pairdisplay -g oradb"))] == ["PAIR"] * 4


def test_json_has_all_of_it(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    told: list[dict[str, Any]] = json.loads(lab.good("pairdisplay -g oradb --json"))
    assert [(row["volume"], row["side"], row["array"], row["writes"]) for row in told[:2]] == [
        ("data", "L", "primary", "taken, journaled first"), ("data", "R", "remote", "refused with DATA PROTECT"),
    ]  # fmt: skip


# -- pairvolchk, pairevtwait -nowait -----------------------------------------------------------------------------------


def test_pairvolchk_in_every_state(lab: Lab) -> None:
    for here, there in ENDS:
        lab.two.put(here, there)
        for state, options in ((here, ""), (there, " --at remote")):
            assert lab.run(f"pairvolchk -g oradb{options}").code == exit_codes.pairvolchk([state])
            code = exit_codes.pairvolchk_ss([state], asynchronous=True)
            assert lab.run(f"pairvolchk -g oradb -ss{options}") == (code, f"data {state}, log {state}\n", "")


def test_pairvolchk_of_the_other_side(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    assert lab.run("pairvolchk -g oradb -c").code == 3
    assert lab.run("pairvolchk -g oradb -c -ss").code == 53
    assert lab.run("pairvolchk -g oradb -c -ss --at remote").code == 43
    lab.two.put(State.P_PSUS, State.SMPL)
    code, reason = lab.bad("pairvolchk -g oradb -c")
    assert code == 235
    assert reason.endswith(
        "the sides are not those of one pair: primary: data P-VOL PSUS, log P-VOL PSUS; remote: data SMPL, log SMPL"
    )
    lab.two.put(State.SMPL, State.SMPL)
    assert lab.run("pairvolchk -g oradb -c").code == 1
    lab.two.gone = {"remote"}
    assert lab.bad("pairvolchk -g oradb -c") == (
        Result.UNREACHABLE, "remote: nobody listens, last heard of 2026-11-28 09:22:40.500 UTC",
    )  # fmt: skip
    assert lab.run("pairvolchk -g oradb").code == 1


def test_pairvolchk_of_a_silent_side(lab: Lab) -> None:
    lab.two.gone = {"primary"}
    assert lab.bad("pairvolchk -g oradb -ss") == (
        Result.UNREACHABLE, "primary: nobody listens, last heard of at a time unknown",
    )  # fmt: skip


def test_nowait_in_every_state(lab: Lab) -> None:
    for here, there in ENDS:
        lab.two.put(here, there)
        judged = there if there in P_VOLS else here
        code = exit_codes.pairevtwait_nowait([judged.status])
        assert lab.run("pairevtwait -g oradb -nowait").code == code, (here, there)
        assert lab.run("pairevtwait -g oradb -nowait -l").code == exit_codes.pairevtwait_nowait([here.status])


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_waiting_for_pair(lab: Lab) -> None:
    lab.two.put(State.P_COPY, State.S_COPY)
    questions = 0

    def asked() -> None:
        nonlocal questions
        questions += 1
        if questions == 5:
            lab.two.put(State.P_PAIR, State.S_PAIR)
        lab.two.faults["primary", Process.PAIR_STATUS] = after(asked)

    lab.two.faults["primary", Process.PAIR_STATUS] = after(asked)
    assert lab.good("pairevtwait -g oradb -s pair -t 600") == "data P-VOL PAIR, log P-VOL PAIR\n"
    assert questions == 5
    assert 0 < lab.two.seconds < 1


def test_a_wait_in_every_state(lab: Lab) -> None:
    for here, there in ENDS:
        if there in P_VOLS:
            continue
        lab.two.put(here, there)
        for wanted in ("smpl", "copy", "pair", "psus", "psue"):
            status = Status[wanted.upper()]
            end = exit_codes.pairevtwait(status, here.status)
            code = lab.run(f"pairevtwait -g oradb -s {wanted} -t 0").code
            assert code == (EventWait.TIMEOUT if end is None else end), (here, wanted)


def test_waits_that_end_otherwise(lab: Lab) -> None:
    lab.two.put(State.P_COPY, State.S_COPY)
    code, reason = lab.bad("pairevtwait -g oradb -s pair -t 3")
    assert code == EventWait.TIMEOUT
    assert reason.startswith("time is up, ")
    assert 3 <= lab.two.seconds < 4
    lab.two.put(State.P_PSUE, State.S_PSUE)
    code, reason = lab.bad("pairevtwait -g oradb -s pair -t 3")
    assert code == EventWait.SUSPENDED
    assert reason.endswith("data P-VOL PSUE, log P-VOL PSUE")
    assert lab.good("pairevtwait -g oradb -s pair psue -t 3")
    assert lab.good("pairevtwait -g oradb -s pair -s PSUE -t 3")
    assert lab.good("pairevtwait -g oradb -s psue -l -t 3 --at remote") == "data S-VOL PSUE, log S-VOL PSUE\n"


def test_waiting_for_the_s_vols(lab: Lab) -> None:
    lab.two.put(State.P_PSUS, State.S_SSUS)
    for at in ("primary", "remote"):
        assert lab.good(f"pairevtwait -g oradb -ss ssus psue -t 3 --at {at}") == "data S-VOL SSUS, log S-VOL SSUS\n"
        assert lab.run(f"pairevtwait -g oradb -nowaits --at {at}") == (4, "data S-VOL SSUS, log S-VOL SSUS\n", "")
    assert lab.good("pairevtwait -g oradb -s ssus -l -t 3 --at remote")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("pairevtwait -g oradb -s ssus -t 9", "-s ssus: no P-VOL shows it: -ss ssus waits until the S-VOLs do"),
        ("pairevtwait -g oradb -s pair ssws -t 9", "-s ssws: no P-VOL shows it: -ss ssws waits until the S-VOLs do"),
        ("pairevtwait -g oradb -s pair -ss pair -t 9", "-s, -ss and -l are of the P-VOLs, the S-VOLs and the local"),
        ("pairevtwait -g oradb -ss pdub -t 1", "-ss pdub: expected one or more of smpl, copy, pair"),
        ("pairevtwait -g oradb", "-s STATUS and -t SECONDS, or -nowait"),
        ("pairevtwait -g oradb -s pair", "-s STATUS and -t SECONDS, or -nowait"),
        ("pairevtwait -g oradb -s pdub -t 1", "-s pdub: expected one or more of smpl, copy, pair"),
        ("pairevtwait -g oradb -s pair -t -1", "Invalid value for '-t'"),
        ("pairsyncwait -g oradb", "-t SECONDS, or -nowait"),
        ("pairsyncwait -g oradb -t 1 -m 7", "-m 7: expected 32 hexadecimal digits"),
        ("pairdisplay -g oradb -v ctg", "Invalid value for '-v'"),
        ("pairvolchk", "Missing option '-g'"),
    ],
)
def test_a_wrong_command_line_is_told(lab: Lab, line: str, reason: str) -> None:
    code, told = lab.bad(line)
    assert (code, reason in told) == (Result.USAGE, True), told
    assert lab.two.messages == []


def test_waiting_for_what_was_written(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two["primary"].more = {"sequence": 812, "restored": 800}
    lab.two["remote"].more = {"sequence": 812, "restored": 805}
    point = f"{4:016x}{812:016x}"
    assert lab.good("pairsyncwait -g oradb -nowait") == f"oradb\t{point}\tNOWAIT\n"
    assert lab.run("pairsyncwait -g oradb -t 2") == (SyncWait.TIMEOUT, f"oradb\t{point}\tTIMEOUT\n", "")
    lab.two["remote"].more = {"sequence": 830, "restored": 812}
    assert lab.good(f"pairsyncwait -g oradb -t 2 -m {point}") == f"oradb\t{point}\tDONE\n"
    lab.two.put(State.P_PAIR, State.S_PAIR, generation=5)
    assert lab.run(f"pairsyncwait -g oradb -t 2 -m {point}").code == SyncWait.CHANGED
    lab.two.put(State.P_PSUS, State.S_SSUS)
    lab.two["remote"].more = {"restored": 805}
    assert lab.run(f"pairsyncwait -g oradb -t 2 -m {point}").code == SyncWait.BROKEN


def test_only_p_vols_in_pair_have_a_point(lab: Lab) -> None:
    for here, there in ENDS:
        lab.two.put(here, there)
        pair = {State.P_PAIR, State.P_PFUL} & {here, there}
        lab.two[("primary", "remote")[there in pair]].more = {"sequence": 1}
        assert lab.run("pairsyncwait -g oradb -nowait").code == (0 if pair else 222), (here, there)


def test_the_tab_key_knows_groups(lab: Lab) -> None:
    complete = ShellComplete(arrayctl, {}, "arrayctl", "_ARRAYCTL_COMPLETE")
    found = complete.get_completions(["--paths", str(lab.file), "pairdisplay", "-g"], "or")
    assert [each.value for each in found] == ["oradb"]
