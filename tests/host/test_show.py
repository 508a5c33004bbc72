"""What arrayctl prints: nothing that an array says can write outside of its cell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.host.fill_in import filled
from arrayd.host.show import Column, Output, duration, fitted, instant, instant_in_words, moment, plain, size, yes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON)
def test_a_cell_is_one_cell(value: Any) -> None:
    for shown in (plain(value), size(value), duration(value), moment(value), yes(value)):
        assert shown
        assert shown.isprintable()


@pytest.mark.parametrize(
    ("show", "value", "expected"),
    [
        (plain, None, "-"), (plain, "", "-"), (plain, True, "true"), (plain, [1, "ä"], '[1, "ä"]'),
        (plain, "a\tb\x1b[31m\n", "a b [31m "), (size, 0, "0 B"), (size, 1 << 20, "1 MiB"),
        (size, 1536, "1.5 KiB"), (size, 1 << 60, "1024 PiB"), (size, "x", "x"), (duration, 59.9, "00:00:59"),
        (duration, 273906, "3d 04:05:06"), (moment, 0, "1970-01-01 00:00:00.000"),
        (moment, 1795857760.1407213, "2026-11-28 09:22:40.140"), (moment, "yesterday", "yesterday"),
        (moment, 1e300, "1e+300"), (instant, 1795857760.5, "2026-11-28T09:22:40Z"), (instant, "then", "then"),
        (instant_in_words, 1795857760.5, "2026-11-28 09:22:40Z"), (instant, 1e300, "1e+300"),
        (yes, True, "yes"), (yes, False, "-"),
    ],
)  # fmt: skip
def test_a_value_is_shown(show: Any, value: Any, expected: str) -> None:
    assert show(value) == expected


COLUMNS = (Column("NAME", "name"), Column("SIZE", "size", size))
ROWS: list[dict[str, Any]] = [{"name": "a", "size": 1024, "more": 1}, {"name": "b\t"}]


def test_a_program_gets_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output(False).rows(COLUMNS, ROWS)
    assert capsys.readouterr().out == "a\t1024\nb \t-\n"


def test_a_program_gets_json_with_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    Output(True).rows(COLUMNS, ROWS)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_a_row_of_a_table_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    Output(False).line(COLUMNS, ROWS[0])
    Output(True).line(COLUMNS, ROWS[0])
    assert capsys.readouterr().out == 'a\t1024\n{"name": "a", "size": 1024, "more": 1}\n'


# -- tables for people -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8), st.integers(0, 200))
def test_columns_are_as_narrow_as_they_have_to_be(columns: list[tuple[int, int]], room: int) -> None:
    narrow, wide = [min(each) for each in columns], [max(each) for each in columns]
    widths = fitted(wide, narrow, room)
    if widths is None:
        assert sum(narrow) > room
    else:
        assert sum(widths) <= max(room, 0) or not widths
        assert all(low <= width <= high for low, width, high in zip(narrow, widths, wide, strict=True))
        assert widths == wide or sum(widths) == room


@pytest.mark.parametrize(("width", "lines"), [(120, 3), (30, 4), (22, 3), (16, 4)])
def test_no_word_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, lines: int
) -> None:
    """A table where there is room, with cells of several lines if need be; else each row as lines of its own."""
    monkeypatch.setenv("COLUMNS", str(width))
    output = Output(False)
    output.for_people = True
    output.rows((*COLUMNS, Column("MORE", "more")), [{"name": "abcdefgh", "size": 1536, "more": "twelve of one"}])
    out = capsys.readouterr().out
    told = [line for line in out.splitlines() if line.strip()]
    assert len(told) == lines
    assert all(len(line.rstrip()) <= width for line in told)
    assert {"NAME", "SIZE", "MORE", "abcdefgh", "1.5", "KiB", "twelve", "of", "one"} <= set(out.split())


# -- filling in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "paths: {a: {direct: x}, b: {through: a}}  # ours",
            "paths: {a: {direct: x}, b: {through: a, lun: 7}}  # ours",
        ),
        ('paths:\n  b:     {through: "a"}  # far\n', 'paths:\n  b:     {through: "a", lun: 7}  # far\n'),
        (
            "paths:\n  b:\n    through: a  # far\n  c: {}\n",
            "paths:\n  b:\n    through: a  # far\n    lun: 7\n  c: {}\n",
        ),
        ("paths:\n    b:\n        through: a", "paths:\n    b:\n        through: a\n        lun: 7"),
        ("paths: {c: {through: a}}\nb: {x: y}\n", "paths: {c: {through: a}}\nb: {x: y}\n"),
        ("", ""),
    ],
)
def test_a_lun_is_filled_in_and_nothing_else_is_touched(text: str, expected: str) -> None:
    assert filled(text, {"b": 7}) == expected
