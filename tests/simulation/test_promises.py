"""What a read may find: the checker of volumes, by cases."""

from collections.abc import Callable

import pytest

from tests.simulation.promises import NOTHING, Promise, stamp
from tests.simulation.world import Violated

HERE = range(5, 6)


@pytest.fixture
def promise() -> Promise:
    return Promise("data", 16)


def may_be(promise: Promise) -> set[int]:
    """The writes that a read may find."""
    found = set()
    for number in range(promise.last + 1):
        try:
            Reading(promise)(number)
        except Violated:
            continue
        found.add(number)
    return found


class Reading:
    """A read that leaves everything as it was."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise

    def __call__(self, number: int) -> None:
        block = self._promise._blocks.get(5)
        before = None if block is None else (block.now, block.after_power_loss)
        try:
            read(self._promise, number)
        finally:
            if block is not None and before is not None:
                block.now, block.after_power_loss = before


def read(promise: Promise, number: int) -> None:
    promise.was_read(HERE, stamp("data", 5, number), promise.era)


def acknowledged(promise: Promise, durable: bool = False) -> None:
    promise.was_answered(promise.write(HERE), durable)


def flushed(promise: Promise) -> None:
    promise.was_flushed(promise.flush())


def unknown(promise: Promise) -> None:
    promise.write(HERE)


def durable(promise: Promise) -> None:
    acknowledged(promise, durable=True)


def power_lost(promise: Promise) -> None:
    promise.lost_power()


def reads_2(promise: Promise) -> None:
    read(promise, 2)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], {NOTHING}),
        ([unknown], {0, 1}),
        ([acknowledged], {1}),
        ([acknowledged, unknown], {1, 2}),
        ([unknown, acknowledged], {2}),
        ([unknown, unknown, reads_2], {2}),
        ([acknowledged, power_lost], {0, 1}),
        ([durable, power_lost], {1}),
        ([acknowledged, flushed, power_lost], {1}),
        ([acknowledged, flushed, acknowledged, power_lost], {1, 2}),
        ([acknowledged, acknowledged, flushed, power_lost], {2}),
        ([acknowledged, unknown, flushed, power_lost], {1, 2}),
        ([durable, acknowledged, acknowledged, power_lost, reads_2, power_lost], {2}),
        ([durable, acknowledged, acknowledged, power_lost], {1, 2, 3}),
    ],
)
def test_what_may_be_found(promise: Promise, events: list[Callable[[Promise], None]], expected: set[int]) -> None:
    for event in events:
        event(promise)
    assert may_be(promise) == expected


def test_what_was_answered_after_a_power_loss_may_have_been_done_before(promise: Promise) -> None:
    durable(promise)
    sent, flush = promise.write(HERE), promise.flush()
    promise.lost_power()
    promise.was_answered(sent, durable=False)
    promise.was_flushed(flush)
    assert may_be(promise) == {1, 2}


@pytest.mark.parametrize(
    "data", [b"x" * 512, stamp("data", 6, 1), stamp("else", 5, 1), stamp("data", 5, 2), stamp("data", 5, 1)[:256] * 2]
)
def test_what_nobody_wrote_is_seen(promise: Promise, data: bytes) -> None:
    acknowledged(promise)
    with pytest.raises(Violated):
        promise.was_read(HERE, data, promise.era)
