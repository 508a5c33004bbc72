"""What an array says of a group's pairs: read if it is right in every part, else a mistake on one line."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.host.answer_fields import NotAStatus
from arrayd.host.pair_status import JOURNALS_MAX, PAIRS_MAX, Candidate, Journal, Lag, Pair, parse
from arrayd.replication.statuses import State
from tests.host.pairs import answer

JOURNAL: dict[str, Any] = {
    "jid": 3, "mu": 0, "ctg": 1, "status": "PJNN", "links": 2, "used_percent": 4, "marker": 812, "remaining": 12,
    "blocks": 2097152, "lun": 20,
}  # fmt: skip
GROUP: dict[str, Any] = {
    "group": "oradb", "id": "00112233445566778899aabbccddeeff", "last_epoch": 7, "consistent": True, "driver": "arrays",
    "pace": 3, "peer": "remote", "contact": 1795857760.5, "lag": {"seconds": 0.2, "writes": 12, "bytes": 49152},
    "journal_candidates": [{"lun": 21, "name": "spare"}, {"lun": 22}],
}  # fmt: skip
ANSWER = answer("primary", State.P_PAIR, State.P_PSUE_FENCED, sequence=812, restored=800, journals=[JOURNAL], **GROUP)
ANSWER["pairs"][0] |= {
    "name": "data",
    "volume": "A1:data",
    "size": 1 << 30,
    "block_size": 512,
    "error": "",
    "differing": 4096,
}


def test_an_answer_is_read() -> None:
    status = parse(ANSWER)
    assert (status.array, status.serial, status.asynchronous) == ("primary", "A1", True)
    assert (status.generation, status.sequence, status.restored) == (4, 812, 800)
    assert status.pairs[0] == Pair(0, State.P_PAIR, "ASYNC", 100, 1, 3, 0, "data", "A1:data", 1 << 30, 512, "", 4096)
    assert status.by_number == {0: State.P_PAIR, 1: State.P_PSUE_FENCED}
    assert (status.group, status.id, status.last_epoch, status.consistent) == ("oradb", GROUP["id"], 7, True)
    assert (status.driver, status.pace, status.peer, status.contact) == ("arrays", 3, "remote", 1795857760.5)
    assert status.lag == Lag(0.2, 12, 49152)
    assert status.candidates == (Candidate(21, "spare"), Candidate(22))
    assert status.states({"data": 0, "log": 1}) == {"data": State.P_PAIR, "log": State.P_PSUE_FENCED}
    assert status.states({"data": 0, "log": 2}) is None
    assert status.journals == (Journal(3, 0, 1, "PJNN", 2, 4, 812, 12, 2097152, 20),)


@pytest.mark.parametrize("state", State)
def test_every_state_is_read(state: State) -> None:
    assert parse(answer("remote", state)).pairs[6].state is state


def test_what_is_not_known_may_be_left_out_or_null() -> None:
    bare = answer("primary", State.SMPL)
    assert parse(bare).pairs[0] == Pair(0, State.SMPL, None, None, None, None)
    assert parse(bare | {"sequence": None, "restored": None, "a newer array's": [1]}) == parse(bare)
    assert parse(bare | dict.fromkeys(GROUP)) == parse(bare)
    assert (parse(bare).by_number, parse(bare).lag, parse(bare).consistent) == ({}, Lag(), False)


def test_why_a_pair_failed_is_any_text_on_one_line() -> None:
    told = _changed(("pairs", 1, "error"), "disk\x1b[2J\nfull")
    assert parse(told).pairs[1].error == "disk [2J full"
    assert parse(_changed(("pairs", 1, "error"), "x" * 999)).pairs[1].error == "x" * 200


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        ((), [], "answer: (a list): expected a JSON object"),
        (("serial",), "\x1b[2J", r"answer.serial: \x1b[2J: expected 1 to 32 printable characters"),
        (("array",), None, "answer.array: (nothing): expected 1 to 32 printable characters"),
        (("asynchronous",), 1, "answer.asynchronous: 1: expected true or false"),
        (("generation",), -1, "answer.generation: -1: expected a whole number, 0 to 18446744073709551615"),
        (("sequence",), 1 << 64, f"answer.sequence: {1 << 64}: expected a whole number, 0 to 18446744073709551615"),
        (("restored",), 813, "answer.restored: 813: expected at most sequence, 812"),
        (("pairs",), {}, "answer.pairs: (a mapping): expected a list, at most 1024 long"),
        (("pairs", 1), 7, "answer.pairs[1]: 7: expected a JSON object"),
        (("pairs", 1, "lun"), 0, "answer.pairs: (a list): expected every LUN once"),
        (("pairs", 1, "number"), 0, "answer.pairs: (a list): expected every number once"),
        (("pairs", 0, "error"), 7, "answer.pairs[0].error: 7: expected text"),
        (("id",), "00", "answer.id: 00: expected 32 hexadecimal digits"),
        (("driver",), "me", "answer.driver: me: expected one of arrays, host"),
        (("contact",), -1, "answer.contact: -1: expected seconds, 0 or more"),
        (("lag",), 7, "answer.lag: 7: expected a JSON object"),
        (("lag", "writes"), 0.5, "answer.lag.writes: 0.5: expected a whole number, 0 to 18446744073709551615"),
        (
            ("journal_candidates", 1, "lun"),
            None,
            "answer.journal_candidates[1].lun: (nothing): expected a whole number, 0 to 16383",
        ),
        (("pairs", 0, "lun"), True, "answer.pairs[0].lun: true: expected a whole number, 0 to 16383"),
        (("pairs", 0, "percent"), 101, "answer.pairs[0].percent: 101: expected a whole number, 0 to 100"),
        (("pairs", 0, "percent"), 99.5, "answer.pairs[0].percent: 99.5: expected a whole number, 0 to 100"),
        (("pairs", 0, "fence"), "never", "answer.pairs[0].fence: never: expected one of ASYNC, NEVER, DATA, STATUS"),
        (("journals", 0, "jid"), None, "answer.journals[0].jid: (nothing): expected a whole number, 0 to 65535"),
        (("journals",), [JOURNAL] * 2, "answer.journals: (a list): expected every mirror of a journal once"),
        (("journals",), [JOURNAL] * (JOURNALS_MAX + 1), "answer.journals: (a list): expected a list, at most 256 long"),
        (("pairs",), [{}] * (PAIRS_MAX + 1), "answer.pairs: (a list): expected a list, at most 1024 long"),
    ],
)
def test_a_mistake_is_named(where: tuple[str | int, ...], value: Any, expected: str) -> None:
    with pytest.raises(NotAStatus) as caught:
        parse(_changed(where, value))
    assert str(caught.value) == expected


@pytest.mark.parametrize("status", ["PAIR", "P-VOL PDUB", "p-vol pair", "", 23, None, ["SMPL"]])
def test_an_unknown_state_is_a_mistake(status: Any) -> None:
    with pytest.raises(
        NotAStatus, match=r"^answer\.pairs\[0\]\.state: .*: expected one of SMPL, P-VOL COPY, P-VOL PAIR"
    ):
        parse(_changed(("pairs", 0, "state"), status))


def _changed(where: tuple[str | int, ...], value: Any) -> Any:
    if not where:
        return value
    tree: Any = copy.deepcopy(ANSWER)
    inner = tree
    for part in where[:-1]:
        inner = inner[part]
    inner[where[-1]] = value
    return tree


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just("P-VOL PAIR"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ANSWER, *JOURNAL]), inner, max_size=4)
    ),
    max_leaves=8,
)
PLACES: list[tuple[str | int, ...]] = [
    (), *((key,) for key in ANSWER), ("pairs", 0), ("journals", 0),
    *(("pairs", 0, key) for key in ANSWER["pairs"][0]), *(("journals", 0, key) for key in JOURNAL),
    *(("lag", key) for key in GROUP["lag"]), *(("journal_candidates", 0, key) for key in ("lun", "name")),
]  # fmt: skip


@given(where=st.sampled_from(PLACES), value=JSON)
def test_any_answer_is_read_or_a_mistake_on_one_line(where: tuple[str | int, ...], value: Any) -> None:
    reason = ""
    try:
        parse(_changed(where, value))
    except NotAStatus as error:
        reason = str(error)
    assert not reason or (reason.startswith("answer") and ": expected " in reason and reason.isprintable())


@pytest.mark.parametrize("where", [place for place in PLACES if place])
def test_every_field_is_looked_at(where: tuple[str | int, ...]) -> None:
    with pytest.raises(NotAStatus, match="expected"):
        parse(_changed(where, -1.5))
