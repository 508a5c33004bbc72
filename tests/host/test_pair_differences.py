"""pairdisplay -v diff: ranges of both sides and their union, part by part, no more than were asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.commands.results import Result
from arrayd.host import pair_differences as module
from arrayd.host.answers import Command, Ended
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_commands import Process
from arrayd.host.pair_differences import Found, Range, ask, both, joined, rows
from arrayd.host.pair_status import Heard, Silence
from arrayd.host.pair_wait import Sides
from arrayd.replication.statuses import State
from tests.host.pair_runs import Lab, lab
from tests.host.pairs import GROUP, said

__all__ = ["lab"]

BYTES = 64
RANGES = st.lists(st.tuples(st.integers(0, BYTES), st.integers(1, 8)), max_size=8)


def covered(ranges: Sequence[Range]) -> set[int]:
    return {byte for offset, length in ranges for byte in range(offset, offset + length)}


class Marking(Arrays):
    """Two sides with these ranges marked, by array and pair; `None`: the side marks nothing."""

    def __init__(self, marked: Mapping[tuple[str, int], Sequence[Range] | None], part: int = 2) -> None:
        self.group, self.here, self.local, self.remote = GROUP, "primary", "primary", "remote"
        self.marked = marked
        self.part = part
        self.asked = 0

    def tell(self, commands: Sequence[Command], *, any_order: bool = False) -> list[Ended]:
        (command,) = commands
        assert command.command == Process.PAIR_DIFFERENCES
        self.asked += 1
        told = command.input
        ranges = self.marked.get((command.array, told["pair"]), None)
        if ranges is None:
            return [Ended(command.array, command.command, Result.CONFLICT, reason="nothing is marked here")]
        left = [each for each in ranges if each[0] >= told["offset"]]
        edited: dict[str, Any] = {"ranges": [list(each) for each in left[: self.part]]}
        if len(left) > self.part:
            edited["following"] = left[self.part][0]
        return [Ended(command.array, command.command, Result.OK, edited)]


def sides(heard: Mapping[str, Heard]) -> Sides:
    return Sides(GROUP, "primary", heard)


BOTH: Mapping[str, Heard] = {"primary": said("primary", State.P_PSUS), "remote": said("remote", State.S_SSWS)}


@given(RANGES, RANGES)
def test_a_union(one: list[Range], other: list[Range]) -> None:
    union = joined([*one, *other])
    assert covered(union) == covered(one) | covered(other)
    assert all(sum(first) < second[0] for first, second in itertools.pairwise(union))
    assert list(both(Found(one), Found(other)).ranges) == union


@given(RANGES, RANGES, st.integers(0, BYTES), st.integers(0, BYTES) | st.none())
def test_nothing_is_said_of_what_is_not_known_of_both(
    one: list[Range], other: list[Range], end: int, second: int | None
) -> None:
    union = both(Found(one, end), Found(other, second))
    least = end if second is None else min(end, second)
    assert union.end == least
    assert covered(union.ranges) == {byte for byte in covered(one) | covered(other) if byte < least}


@given(RANGES, st.integers(1, 3), st.integers(1, 6))
def test_parts_make_the_whole_up_to_the_limit(ranges: list[Range], part: int, limit: int) -> None:
    marked = joined(ranges)
    # Parts may begin in the middle of what is joined.
    pieces = [(byte, 1) for offset, length in marked for byte in range(offset, offset + length)]
    found = ask(Marking({("primary", 0): pieces}, part), "primary", 0, limit)
    assert list(found.ranges) == [
        (offset, length if found.end is None else min(length, found.end - offset))
        for offset, length in marked
        if found.end is None or offset < found.end
    ]
    assert len(found.ranges) == min(limit, len(marked))
    assert (found.end is None) is (len(marked) <= limit)


def test_rows_of_both_sides_and_of_both_together() -> None:
    arrays = Marking(
        {
            ("primary", 0): [(4096, 8192), (65536, 4096)],
            ("remote", 0): [(12288, 4096)],
            ("primary", 1): [],
            ("remote", 1): [(0, 4096)],
        }
    )
    told, notes = rows(arrays, sides(BOTH), 10)
    assert [(row["volume"], row["side"], row["lun"], row["lba"], row["blocks"]) for row in told] == [
        ("data", "L", 0, 8, 16),
        ("data", "L", 0, 128, 8),
        ("data", "R", 5, 24, 8),
        ("data", "L+R", None, 8, 24),
        ("data", "L+R", None, 128, 8),
        ("log", "R", 6, 0, 8),
        ("log", "L+R", None, 0, 8),
    ]
    assert (told[3]["offset"], told[3]["length"], notes) == (4096, 12288, [])
    told, _ = rows(arrays, sides(BOTH), 10, local=True)
    assert [row["side"] for row in told] == ["L", "L"]


def test_more_than_are_shown_is_said() -> None:
    arrays = Marking({("primary", 0): [(0, 1), (4, 1), (8, 1)], ("remote", 0): [(6, 1)]})
    told, notes = rows(arrays, sides(BOTH), 2)
    assert [(row["side"], row["offset"]) for row in told] == [
        ("L", 0),
        ("L", 4),
        ("R", 6),
        *(("L+R", at) for at in (0, 4, 6)),
    ]
    assert notes == ["data: primary has more than 2 ranges: --limit shows more of them"]


def test_of_a_side_that_is_silent_nothing_is_said() -> None:
    heard: Mapping[str, Heard] = {"primary": BOTH["primary"], "remote": Silence("remote: no link", None)}
    told, _ = rows(Marking({("primary", 0): [(0, 4096)]}), sides(heard), 2)
    assert [row["side"] for row in told] == ["L"]


def test_a_side_that_marks_nothing_has_nothing() -> None:
    arrays = Marking({("remote", 0): [(0, 4096)]})
    told, _ = rows(arrays, sides(BOTH), 2)
    assert [row["side"] for row in told] == ["R", "L+R"]


@pytest.mark.parametrize(
    "edited", [None, [], {"ranges": [[1]]}, {"ranges": 1}, {"ranges": [], "following": 0}, {"ranges": [["x", 1]]}]
)
def test_an_answer_that_makes_no_sense(edited: Any) -> None:
    class Odd(Marking):
        def tell(self, commands: Sequence[Command], *, any_order: bool = False) -> list[Ended]:
            return [Ended("primary", 75, Result.OK, edited)]

    with pytest.raises(CommandFailed) as failed:
        ask(Odd({}), "primary", 0, 3)
    assert failed.value.result == Result.INTERNAL


def test_the_verb(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.two.put(State.P_PSUS, State.S_SSWS)
    monkeypatch.setattr(
        module,
        "ask",
        lambda _arrays, array, number, _limit: Found([(4096 * number, 512)], 99 if array == "remote" else None),
    )
    ran = lab.run("pairdisplay -g oradb -v diff --json")
    assert (ran.code, ran.error.count("arrayctl: ")) == (0, 2)
    assert [row["side"] for row in json.loads(ran.out)] == ["L", "R", "L+R", "L", "R"]
    ran = lab.run("pairdisplay -g oradb -v diff -l")
    assert ran.out == "oradb\tdata\tL\t0\t0\t1\noradb\tlog\tL\t1\t8\t1\n"
    lab.two.gone = {"remote"}
    assert lab.run("pairdisplay -g oradb -v diff").code == Result.UNREACHABLE
