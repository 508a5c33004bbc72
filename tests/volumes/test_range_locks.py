"""Locks on ranges: whoever overlaps waits, in the order of asking, and nobody else does."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.volumes.range_locks import RangeLock, RangeLocks
from tests.lab.disk import turns


def test_who_overlaps_waits_and_others_do_not() -> None:
    locks = RangeLocks()
    held: list[str] = []
    first = locks.hold(0, 10)
    first.when_held(lambda: held.append("first"))
    across = locks.hold(5, 10)
    across.when_held(lambda: held.append("across"))
    locks.hold(15, 5).when_held(lambda: held.append("beside"))
    assert held == ["first", "beside"]
    first.release()
    assert held == ["first", "beside", "across"]


def test_a_lock_may_be_asked_for_long_before_it_is_wanted() -> None:
    locks = RangeLocks()
    first, second = locks.hold(0, 10), locks.hold(0, 10)
    held: list[int] = []
    first.release()
    second.when_held(lambda: held.append(2))
    assert held == [2]


@pytest.mark.parametrize(("start", "length", "overlaps"), [(0, 5, False), (4, 2, True), (7, 1, True), (10, 5, False)])
def test_ranges_overlap_where_they_share_a_byte(start: int, length: int, overlaps: bool) -> None:
    locks = RangeLocks()
    assert not locks
    locks.hold(5, 5)
    assert locks
    assert locks.overlaps(start, length) is overlaps


async def test_a_lock_is_entered_in_turn() -> None:
    locks = RangeLocks()
    order: list[int] = []

    async def work(number: int, lock: RangeLock) -> None:
        async with lock:
            order.append(number)
            await turns(2)
            order.append(number)

    places = [locks.hold(number, 2) for number in range(4)]
    await asyncio.gather(*(work(number, places[number]) for number in (3, 1, 2, 0)))
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not locks


async def test_who_is_cancelled_while_waiting_keeps_the_order_of_the_others() -> None:
    locks = RangeLocks()
    first, second, third = (locks.hold(0, 10) for _ in range(3))
    held: list[str] = []

    async def enter() -> None:
        async with second:
            held.append("second")

    waiting = asyncio.ensure_future(enter())
    third.when_held(lambda: held.append("third"))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert held == []
    first.release()
    assert held == ["third"]
    third.release()
    assert not locks


async def test_a_lock_is_given_up_when_its_holder_fails() -> None:
    locks = RangeLocks()
    with pytest.raises(ValueError, match="no"):
        async with locks.hold(0, 1):
            raise ValueError("no")
    assert not locks


@given(
    ranges=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=12),
    choices=st.lists(st.integers(0, 11), max_size=40),
)
def test_at_every_moment_who_holds_is_oldest_on_its_range(ranges: list[tuple[int, int]], choices: list[int]) -> None:
    locks = RangeLocks()
    places: dict[int, RangeLock] = {}
    held: set[int] = set()
    for number, (start, length) in enumerate(ranges):
        places[number] = locks.hold(start, length)
        places[number].when_held(lambda number=number: held.add(number))  # type: ignore[misc]
    for choice in [*choices, *range(12), *range(12)]:
        expected = {
            number
            for number, (start, length) in enumerate(ranges)
            if number in places
            and not any(
                earlier in places and ranges[earlier][0] < start + length and start < sum(ranges[earlier])
                for earlier in range(number)
            )
        }
        assert held & set(places) == expected
        if choice in expected:
            places.pop(choice).release()
    while places:
        number = min(places)
        assert number in held
        places.pop(number).release()
    assert not locks
