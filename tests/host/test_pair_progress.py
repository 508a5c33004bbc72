"""pairdisplay -v progress, word by word: for a program, as JSON, and for a person; of what is not known nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from arrayd.host.answer_fields import NotAStatus
from arrayd.host.pair_progress import show_progress
from arrayd.host.pair_status import Heard, Job, Silence
from arrayd.host.show import Output
from arrayd.replication.statuses import State
from tests.host.pair_runs import Lab, lab
from tests.host.pairs import GROUP, said
from tests.host.test_pair_page import Terminal, lines

__all__ = ["lab"]

MIB = 1 << 20
COPYING = {"done": MIB, "left": 3 * MIB, "rate": MIB // 2, "seconds_left": 6.0}
STALLED = {"done": MIB, "left": 3 * MIB, "rate": None, "seconds_left": None}
NO_NEWS = {"done": None, "left": 49152, "rate": None, "seconds_left": None}
BOTH: Mapping[str, Heard] = {
    "primary": said("primary", State.P_COPY, copying=COPYING, restoring=NO_NEWS),
    "remote": said("remote", State.S_COPY, copying=STALLED),
}


def test_a_line_for_each_job_and_side(capsys: pytest.CaptureFixture[str]) -> None:
    show_progress(Output(False), GROUP, "primary", BOTH)
    assert lines(capsys.readouterr().out) == [
        "oradb\tL\tcopy\t25\t1048576\t3145728\t524288\t6.0\tA1\t-",
        "oradb\tL\trestore\t-\t-\t49152\t-\t-\tA1\t-",
        "oradb\tR\tcopy\t25\t1048576\t3145728\t-\t-\tB2\t-",
    ]


def test_a_person_reads_units(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show_progress(Terminal(), GROUP, "primary", BOTH, local=True)
    rows = [line.split() for line in lines(capsys.readouterr().out) if "oradb" in line]
    assert rows == [
        ["oradb", "L", "copy", "25", "1", "MiB", "3", "MiB", "512", "KiB/s", "00:00:06", "A1"],
        ["oradb", "L", "restore", "-", "-", "48", "KiB", "-", "-", "A1"],
    ]


def test_a_silent_side_is_unknown_with_its_last_contact(capsys: pytest.CaptureFixture[str]) -> None:
    heard: Mapping[str, Heard] = {
        "primary": said("primary", State.P_PSUS),
        "remote": Silence("remote: no link", 1795857760.5),
    }
    show_progress(Output(False), GROUP, "primary", heard)
    assert lines(capsys.readouterr().out) == ["oradb\tR\tunknown\t-\t-\t-\t-\t-\t-\t2026-11-28T09:22:40Z"]
    show_progress(Output(True), GROUP, "primary", BOTH)
    assert json.loads(capsys.readouterr().out)[0] == COPYING | {
        "group": "oradb", "side": "L", "array": "primary", "job": "copy", "percent": 25, "serial": "A1",
        "answers": True, "last_contact": None, "reason": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("done", "left", "percent"), [(0, 0, 100), (0, 9, 0), (999, 1, 99), (None, 9, None), (9, None, None)]
)
def test_how_much_of_it_is_done(done: int | None, left: int | None, percent: int | None) -> None:
    assert Job(done, left, None, None).percent == percent


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"done": -1}, "answer.copying.done: -1: expected a whole number"),
        ({"left": "much"}, "answer.copying.left: much: expected a whole number"),
        ({"seconds_left": -1}, "answer.copying.seconds_left: -1: expected seconds, 0 or more"),
        (7, "answer.copying: 7: expected a JSON object"),
    ],
)
def test_what_no_array_says(job: Any, says: str) -> None:
    with pytest.raises(NotAStatus, match=says):
        said("primary", State.P_COPY, copying=job)


def test_an_array_that_is_older_does_not_tell(lab: Lab) -> None:
    lab.two.put(State.P_COPY, State.S_COPY)
    assert lab.good("pairdisplay -g oradb -v progress") == ""
    lab.two["remote"].more = {"copying": COPYING}
    assert lab.good("pairdisplay -g oradb -v progress") == "oradb\tR\tcopy\t25\t1048576\t3145728\t524288\t6.0\tB2\t-\n"
