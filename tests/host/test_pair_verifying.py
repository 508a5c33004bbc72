"""pairverify: what the side with the S-VOLs is told, what is listed, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host.answer_fields import NotAStatus
from arrayd.host.pair_commands import Process
from arrayd.host.pair_verified import begun_of, ranges_of
from arrayd.host.pair_verifying import SILENT_SECONDS, show_verifies
from arrayd.host.show import Output
from arrayd.replication.statuses import State
from tests.host.pair_arrays import Refused
from tests.host.pair_faults import refusing
from tests.host.pair_runs import Lab, lab
from tests.host.pairs import GROUP, said
from tests.host.test_pair_page import lines

__all__ = ["lab"]

MIB = 1 << 20


def told(state: str, **more: Any) -> dict[str, Any]:
    begun = {"id": 7, "state": state, "begun": 5.0, "pair": None, "done": MIB, "left": 3 * MIB, "rate": MIB}
    return begun | {"seconds_left": 3.0, "differing": 0, "mended": 0, "damages": [], "trouble": ""} | more


class Verifying:
    """The S-VOLs' side goes through `states`, a look at a time, and has found `ranges`."""

    def __init__(
        self, lab: Lab, *states: dict[str, Any] | Refused | None, ranges: list[list[Any]] | None = None
    ) -> None:
        self.lab = lab
        self.states = list(states)
        self.ranges = ranges or []
        self.told: list[dict[str, Any]] = []
        lab.two.put(State.P_PAIR, State.S_PAIR)
        array = lab.two["remote"]
        status, execute = array._status, array.execute

        def shown(luns: list[int]) -> dict[str, Any]:
            verify = self.states[0] if len(self.states) == 1 else self.states.pop(0)
            if isinstance(verify, Refused):
                raise verify
            return status(luns) | {"verify": verify}

        def executed(process: int, told: dict[str, Any]) -> dict[str, Any]:
            if process < Process.PAIR_VERIFY:
                return execute(process, told)
            self.told.append({"process": Process(process), **told})
            if process == Process.PAIR_VERIFY_FOUND:
                part = self.ranges[told["first"] : told["first"] + 2]
                more = told["first"] + 2 < len(self.ranges)
                return {"ranges": part, "following": told["first"] + 2 if more else None, "more": False}
            return {"group": "oradb", "verify": RUNS}

        array._status, array.execute = shown, executed  # type: ignore[method-assign]


RUNS = told("running")


def test_the_same(lab: Lab) -> None:
    verifying = Verifying(lab, None, RUNS, RUNS, told("same", left=0))
    assert lab.good("pairverify -g oradb") == ""
    assert verifying.told == [
        {"process": Process.PAIR_VERIFY, "group": "oradb", "pair": None, "repair_from": None},
        {"process": Process.PAIR_VERIFY_FOUND, "group": "oradb", "first": 0},
    ]


def test_what_differs_is_listed(lab: Lab) -> None:
    ranges = [[0, 4096, 8192, False], [1, 0, 4096, True], [1, 65536, 512, False]]
    differs = told("differs", differing=12800, mended=4096, damages=[{"text": "remote: auxiliary journal: bad"}])
    Verifying(lab, RUNS, differs, ranges=ranges)
    ran = lab.run("pairverify -g oradb")
    assert (ran.code, ran.error) == (1, "arrayctl: damaged: remote: auxiliary journal: bad\n")
    assert lines(ran.out) == [
        "oradb\tdata\t0\t8\t16\tdiffers",
        "oradb\tlog\t1\t0\t8\tmended",
        "oradb\tlog\t1\t128\t1\tdiffers",
    ]
    Verifying(lab, differs, ranges=ranges)
    ran = lab.run("pairverify -g oradb --watch --json --at remote")
    assert ran.code == 1
    assert json.loads(ran.out)[1] == {
        "group": "oradb", "volume": "log", "lun": 6, "lba": 0, "blocks": 8, "what": "mended", "offset": 0,
        "length": 4096,
    }  # fmt: skip


@pytest.mark.parametrize(("array", "side"), [("primary", "P"), ("remote", "S")])
def test_one_pair_is_repaired_from_one_side(lab: Lab, array: str, side: str) -> None:
    verifying = Verifying(lab, RUNS, told("mended"))
    assert lab.run(f"pairverify -g oradb -d log --repair-from {array}").code == 2
    assert verifying.told[0] == {
        "process": Process.PAIR_VERIFY, "group": "oradb", "pair": 1, "repair_from": side,
    }  # fmt: skip


def test_begun_and_not_waited_for_and_stopped(lab: Lab) -> None:
    verifying = Verifying(lab, RUNS)
    assert lab.good("pairverify -g oradb --no-wait") == "oradb\tremote\trunning\n"
    assert lab.good("pairverify -g oradb --stop") == "oradb\tremote\trunning\n"
    assert [each["process"] for each in verifying.told] == [Process.PAIR_VERIFY, Process.PAIR_VERIFY_STOP]


@pytest.mark.parametrize(
    ("ends", "code", "reason"),
    [
        (
            told("stopped", trouble="it was told to stop"),
            138,
            "group oradb: the verify was stopped: it was told to stop",
        ),
        (told("failed", trouble="broken"), 133, "group oradb: the verify has failed: broken"),
        (None, 138, "the array was started again, or the pairs were changed"),
        (told("running", id=8), 138, "the array was started again, or the pairs were changed"),
    ],
)
def test_how_else_it_ends(lab: Lab, ends: dict[str, Any] | None, code: int, reason: str) -> None:
    Verifying(lab, RUNS, RUNS, ends)
    ended, why = lab.bad("pairverify -g oradb")
    assert ended == code
    assert reason in why


def test_what_cannot_be(lab: Lab) -> None:
    assert lab.bad("pairverify -g oradb") == (135, "group oradb: it has no S-VOLs: paircreate first")
    Verifying(lab, None)
    code, reason = lab.bad("pairverify -g oradb --watch")
    assert (code, reason) == (134, "remote: no verify since the array started, or the pairs were changed")
    lab.two.faults["remote", Process.PAIR_VERIFY] = refusing(Result.CONFLICT, "group oradb: a verify runs already")
    assert lab.bad("pairverify -g oradb") == (135, "remote: group oradb: a verify runs already")
    lab.two.gone.add("remote")
    lab.two.link = False
    code, reason = lab.bad("pairverify -g oradb")
    assert (code, reason.endswith("the side with the S-VOLs compares them")) == (147, True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-d nothing", "-d nothing: expected a volume of oradb: data, log"),
        ("--repair-from nobody", "--repair-from nobody: expected primary or remote"),
        ("--watch --stop", "--no-wait, --watch and --stop: one of them"),
        ("--stop -d log", "-d and --repair-from to begin"),
    ],
)
def test_a_wrong_command_line(lab: Lab, line: str, says: str) -> None:
    Verifying(lab, None)
    ran = lab.run(f"pairverify -g oradb {line}")
    assert ran.code == Result.USAGE
    assert says in ran.error


def test_an_array_that_is_silent_is_waited_for(lab: Lab) -> None:
    Verifying(lab, RUNS, Refused(Result.UNREACHABLE, "gone"), told("same"))
    assert lab.good("pairverify -g oradb") == ""
    Verifying(lab, RUNS, Refused(Result.UNREACHABLE, "gone"))
    code, reason = lab.bad("pairverify -g oradb")
    assert (code, reason) == (147, "remote: gone: the verify goes on, if the array does")
    assert lab.two.seconds >= SILENT_SECONDS


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    heard = {"primary": said("primary", State.P_PAIR), "remote": said("remote", State.S_PAIR, verify=RUNS)}
    show_verifies(Output(False), GROUP, "primary", heard)
    assert lines(capsys.readouterr().out) == [
        "oradb\tR\trunning\t25\t1048576\t3145728\t1048576\t3.0\t0\t0\t-\tB2\t-",
    ]
    show_verifies(Output(False), GROUP, "primary", {})
    assert [line.split("\t")[1:3] for line in lines(capsys.readouterr().out)] == [["L", "unknown"], ["R", "unknown"]]


@pytest.mark.parametrize(
    "edited", [None, [], {"ranges": [[1]]}, {"ranges": 1}, {"ranges": [[0, 0, "x", True]]}, {"ranges": [[0, -1, 1, 1]]}]
)  # fmt: skip
def test_ranges_that_are_none(edited: Any) -> None:
    with pytest.raises(NotAStatus):
        ranges_of(edited)


@pytest.mark.parametrize("edited", [{}, {"verify": None}, {"verify": {"id": 1}}, {"verify": told("ended")}])
def test_answers_that_are_none(edited: Any) -> None:
    with pytest.raises(NotAStatus):
        begun_of(edited)
