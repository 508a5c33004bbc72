"""`pairdisplay -v lag`: what is known of the lag at both ends, and what is unknown; the pages fit a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host.pair_lag import show_lag
from arrayd.host.pair_page import show_journals
from arrayd.replication.statuses import State
from tests.host.pair_runs import Lab, lab
from tests.host.pairs import GROUP, said
from tests.host.test_pair_page import BOTH, CUT, Terminal

__all__ = ["lab"]

BEHIND = {"sequence": 900, "restored": 812, "lag": {"seconds": 3.25, "writes": 88, "bytes": 360448}}
CONTACT = "2026-11-28T09:22:40Z"
KNOWN = ["900", "812", "88", "360448", "3.25", CONTACT]


def lag(lab: Lab, options: str = "") -> list[list[str]]:
    """What is shown of each side."""
    return [line.split("\t")[1:] for line in lab.good(f"pairdisplay -g oradb -v lag {options}").splitlines()]


def test_the_lag_at_both_ends(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PFUL)
    for array in lab.two.arrays.values():
        array.more = BEHIND
    near, far = ["primary", "P-VOL PAIR", *KNOWN], ["remote", "S-VOL PFUL", *KNOWN]
    assert lag(lab) == [["L", *near], ["R", *far]]
    assert lag(lab, "--at remote") == [["L", *far], ["R", *near]]
    assert lag(lab, "-l") == [["L", *near]]


@pytest.mark.parametrize(
    ("here", "there"),
    [(State.P_COPY, State.S_COPY), (State.P_PSUS, State.S_SSUS), (State.P_PSUE, State.S_PSUE),
     (State.P_PSUS, State.S_SSWS)],
)  # fmt: skip
def test_what_is_no_point_has_no_lag(lab: Lab, here: State, there: State) -> None:
    """The array tells figures of the copy, and of what is journaled: not how far the S-VOLs are behind."""
    lab.two.put(here, there)
    for array in lab.two.arrays.values():
        array.more = BEHIND
    shown = ["900", "unknown", "unknown", "unknown", "unknown", CONTACT]
    assert lag(lab) == [["L", "primary", str(here), *shown], ["R", "remote", str(there), *shown]]


def test_what_nobody_tells_is_unknown(lab: Lab) -> None:
    lab.two.put(State.P_PAIR, State.S_PAIR)
    lab.two["primary"].more = {"contact": None}
    assert lag(lab, "-l") == [["L", "primary", "P-VOL PAIR", *["unknown"] * 6]]
    lab.two["primary"].more = BEHIND
    lab.two.gone = {"remote"}
    ran = lab.run("pairdisplay -g oradb -v lag")
    assert (ran.code, ran.error) == (Result.UNREACHABLE, "arrayctl: remote: nobody listens\n")
    assert ran.out.splitlines()[1].split("\t")[2:] == ["remote", *["unknown"] * 6, CONTACT]
    row: dict[str, Any] = json.loads(lab.run("pairdisplay -g oradb -v lag --json").out)[1]
    assert (row["sequence"], row["seconds"], row["last_contact"]) == (None, None, 1795857760.5)
    assert row["reason"] == "remote: nobody listens"


def test_the_pages_fit_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_journals(Terminal(), GROUP, "primary", BOTH)
    head, _, near, far = (line for line in capsys.readouterr().out.splitlines() if line.strip())
    assert head.split() == [
        "L/R",
        "JID",
        "MU",
        "CTG",
        "JNLS",
        "AP",
        "U(%)",
        "Q-Marker",
        "Q-CNT",
        "D-SZ(BLK)",
        "Seq#",
        "LUN",
    ]
    assert (near.split()[4], far.split()[4]) == ("PJNN", "SJNN")
    show_journals(Terminal(), GROUP, "primary", CUT)
    assert ["Contact", "2026-11-28", "09:22:40Z"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    heard = {"primary": said("primary", State.P_PAIR, contact=1795857760.5, **BEHIND), "remote": CUT["remote"]}
    show_lag(Terminal(), GROUP, "primary", heard)
    out = capsys.readouterr().out
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())
    assert {"352", "KiB", "3.25", "unknown", "2026-11-28", "09:22:40Z"} <= set(out.split())
