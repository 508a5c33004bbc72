"""pairdisplay's pages, word by word: for a program, as JSON, and for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from arrayd.host.pair_page import journal_columns, pair_columns, pair_rows, show_journals, show_pairs
from arrayd.host.pair_status import Heard, Silence
from arrayd.host.show import Output
from arrayd.replication.statuses import State
from tests.host.pairs import GROUP, said
from tests.host.test_pair_status import JOURNAL

BOTH: Mapping[str, Heard] = {
    "primary": said("primary", State.P_PAIR, State.P_COPY, journals=[JOURNAL]),
    "remote": said("remote", State.S_PAIR, State.S_COPY, journals=[JOURNAL | {"status": "SJNN", "mu": None}]),
}
CUT: Mapping[str, Heard] = {"primary": BOTH["primary"], "remote": Silence("remote: no link", 1795857760.5)}


class Terminal(Output):
    """As a person has it."""

    def __init__(self) -> None:
        super().__init__(False)
        self.for_people = True


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_a_page_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs(Output(False), GROUP, "primary", BOTH)
    assert lines(capsys.readouterr().out) == [
        "oradb\tdata\tL\t0\tA1\tP-VOL\tPAIR\tASYNC\t100\t-",
        "oradb\tdata\tR\t5\tB2\tS-VOL\tPAIR\tASYNC\t100\t-",
        "oradb\tlog\tL\t1\tA1\tP-VOL\tCOPY\tASYNC\t100\t-",
        "oradb\tlog\tR\t6\tB2\tS-VOL\tCOPY\tASYNC\t100\t-",
    ]


def test_the_other_side_sees_itself_as_local(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs(Output(False), GROUP, "remote", BOTH, extended=True)
    assert lines(capsys.readouterr().out)[:2] == [
        "oradb\tdata\tL\t5\tB2\tS-VOL\tPAIR\tASYNC\t100\t1\t3\t-",
        "oradb\tdata\tR\t0\tA1\tP-VOL\tPAIR\tASYNC\t100\t1\t3\t-",
    ]


def test_a_silent_side_is_unknown_with_its_last_contact(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs(Output(False), GROUP, "primary", CUT, extended=True)
    assert lines(capsys.readouterr().out)[1] == (
        "oradb\tdata\tR\t5\t-\tunknown\tunknown\t-\t-\t-\t-\t2026-11-28T09:22:40Z"
    )
    show_journals(Output(False), GROUP, "primary", CUT)
    assert lines(capsys.readouterr().out) == [
        "L\t3\t0\t1\tPJNN\t2\t4\t812\t12\t2097152\tA1\t20\t-",
        "R\t-\t-\t-\tunknown\t-\t-\t-\t-\t-\t-\t-\t2026-11-28T09:22:40Z",
    ]


def test_a_person_sees_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show_pairs(Terminal(), GROUP, "primary", CUT, extended=True)
    rule, head, *rows = sorted(lines(capsys.readouterr().out), key=lambda line: "─" not in line)
    assert set(rule.strip()) == {"─"}
    assert head.split() == [
        "Group",
        "PairVol",
        "L/R",
        "LUN",
        "Seq#",
        "P/S",
        "Status",
        "Fence",
        "%",
        "CTG",
        "JID",
        "Contact",
    ]
    assert [row.split() for row in rows] == [
        ["oradb", "data", "L", "0", "A1", "P-VOL", "PAIR", "ASYNC", "100", "1", "3", "-"],
        ["oradb", "data", "R", "5", "-", "unknown", "unknown", "-", "-", "-", "-", "2026-11-28", "09:22:40Z"],
        ["oradb", "log", "L", "1", "A1", "P-VOL", "COPY", "ASYNC", "100", "1", "3", "-"],
        ["oradb", "log", "R", "6", "-", "unknown", "unknown", "-", "-", "-", "-", "2026-11-28", "09:22:40Z"],
    ]


def test_json_has_what_is_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs(Output(True), GROUP, "primary", CUT)
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {
        "group": "oradb", "volume": "data", "side": "L", "array": "primary", "lun": 0, "serial": "A1", "answers": True,
        "last_contact": None, "reason": None, "pair_side": "P-VOL", "status": "PAIR", "fence": "ASYNC",
        "percent": 100, "ctg": 1, "jid": 3, "writes": "taken, journaled first", "error": None, "differing": None,
    }  # fmt: skip
    assert (rows[1]["answers"], rows[1]["reason"], rows[1]["status"]) == (False, "remote: no link", "unknown")


def test_columns_are_those_of_cci() -> None:
    assert [column.head for column in pair_columns()] == [
        "Group", "PairVol", "L/R", "LUN", "Seq#", "P/S", "Status", "Fence", "%", "Contact",
    ]  # fmt: skip
    assert [column.head for column in pair_columns(extended=True)][-3:] == ["CTG", "JID", "Contact"]
    assert [column.head for column in journal_columns()][1:11] == [
        "JID", "MU", "CTG", "JNLS", "AP", "U(%)", "Q-Marker", "Q-CNT", "D-SZ(BLK)", "Seq#",
    ]  # fmt: skip


def test_a_volume_that_the_array_does_not_tell_of_is_unknown() -> None:
    rows = pair_rows(
        GROUP, "primary", {"primary": said("primary", State.P_PAIR), "remote": said("primary", State.P_PAIR)}
    )
    assert [row["status"] for row in rows] == ["PAIR", "unknown", "PAIR", "unknown"]


@pytest.mark.parametrize("heard", [{}, {"primary": Silence("x", None)}])
def test_nothing_heard_is_nothing_known(heard: Mapping[str, Heard]) -> None:
    rows = pair_rows(GROUP, "primary", heard)
    assert [(row["pair_side"], row["status"], row["percent"], row["last_contact"]) for row in rows] == [
        ("unknown", "unknown", None, None)
    ] * 4


@pytest.mark.parametrize("state", State)
def test_every_state_is_shown_by_its_name(state: State) -> None:
    row = pair_rows(GROUP, "remote", {"remote": said("remote", state)})[0]
    assert row["status"] == state.status
    assert row["pair_side"] == {1: "SMPL", 2: "P-VOL", 3: "S-VOL"}[state.side]
