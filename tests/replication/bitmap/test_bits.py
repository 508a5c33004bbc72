"""Rows of bits against lists of booleans."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from arrayd.replication.bitmap.bits import add, has, mask, runs, value

LENGTH = 80
RANGES = st.tuples(st.integers(0, LENGTH - 1), st.integers(1, LENGTH)).map(lambda it: (it[0], min(sum(it), LENGTH)))


@given(st.lists(RANGES, max_size=6), RANGES, st.integers(1, 9))
def test_as_a_list(added: list[tuple[int, int]], asked: tuple[int, int], length_max: int) -> None:
    row, plain = bytearray(LENGTH // 8), [False] * LENGTH
    for first, end in added:
        new = plain[first:end].count(False)
        plain[first:end] = [True] * (end - first)
        assert add(row, first, end) == new
    assert value(row) == sum(1 << number for number, is_set in enumerate(plain) if is_set)
    first, end = asked
    assert has(row, first, end) == has(bytes(row), first, end) == all(plain[first:end])
    assert mask(first, end) == sum(1 << number for number in range(first, end))
    found = list(runs(value(row), length_max))
    assert [number for first, end in found for number in range(first, end)] == [
        number for number, is_set in enumerate(plain) if is_set
    ]
    assert all(1 <= end - first <= length_max for first, end in found)
    assert all(one[1] < other[0] or one[1] - one[0] == length_max for one, other in pairwise(found))
