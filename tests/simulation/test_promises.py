"""What a read may find: the checker of volumes, by cases."""

from collections.abc import Callable

import pytest

from tests.simulation.promises import NOTHING, Promise, Work, Writes, stamp
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
    sent = promise.write(HERE)
    promise.was_answered(sent, durable)
    promise.ended(sent)


def flushed(promise: Promise) -> None:
    promise.was_flushed(promise.flush())


def unknown(promise: Promise) -> None:
    promise.ended(promise.write(HERE))


def refused(promise: Promise) -> None:
    sent = promise.write(HERE)
    promise.ended(sent)
    promise.was_refused(sent)


def two_at_once(promise: Promise) -> None:
    one, other = promise.write(HERE), promise.write(HERE)
    for sent in (other, one):
        promise.was_answered(sent, durable=True)
        promise.ended(sent)


def durable(promise: Promise) -> None:
    acknowledged(promise, durable=True)


def power_lost(promise: Promise) -> None:
    promise.lost_power()


def sync_failed(promise: Promise) -> None:
    promise.lost_power(power=False)


def p_vol_sync_failed(promise: Promise) -> None:
    promise.lost_syncs()


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
        ([acknowledged, acknowledged, sync_failed], {0, 1, 2}),
        ([acknowledged, acknowledged, sync_failed, reads_2], {2}),
        ([acknowledged, acknowledged, sync_failed, reads_2, power_lost], {0, 1, 2}),
        ([acknowledged, acknowledged, sync_failed, reads_2, flushed, power_lost], {2}),
        ([durable, durable, p_vol_sync_failed, reads_2], {2}),
        ([durable, durable, p_vol_sync_failed, reads_2, flushed, power_lost], {2}),
        ([durable, durable, p_vol_sync_failed, reads_2, acknowledged, durable, power_lost], {4}),
        ([acknowledged, refused], {1}),
        ([durable, refused, power_lost], {1}),
        ([acknowledged, two_at_once], {2, 3}),
        ([two_at_once, power_lost], {1, 2}),
        ([two_at_once, acknowledged], {3}),
    ],
)
def test_what_may_be_found(promise: Promise, events: list[Callable[[Promise], None]], expected: set[int]) -> None:
    for event in events:
        event(promise)
    assert may_be(promise) == expected


def test_what_a_failed_sync_left_in_memory_is_not_durable(promise: Promise) -> None:
    """It was found after a restart, and the next power loss took it."""
    durable(promise)
    durable(promise)
    promise.lost_syncs()
    reads_2(promise)
    promise.lost_power()
    promise.was_read(HERE, stamp("data", 5, 1), promise.era)
    with pytest.raises(Violated):
        promise.was_read(HERE, stamp("data", 5, 2), promise.era)


def test_a_later_write_says_nothing_of_what_was_there_after_a_power_loss(promise: Promise) -> None:
    """Nobody knew what the block held; a write that was never answered was found in it, and lost when its sync failed:
    what it held before is there again, whatever that was."""
    durable(promise)
    durable(promise)
    promise.lost_syncs()
    promise.lost_power()
    unknown(promise)
    read(promise, 3)
    promise.lost_power(power=False)
    promise.was_read(HERE, stamp("data", 5, 1), promise.era)


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


def test_what_is_empty_is_not_known_apart() -> None:
    promise = Promise("data", 16)
    durable(promise)
    promise.write(HERE, Work.UNMAP)
    promise.was_read(HERE, bytes(512), promise.era)
    promise.was_read(HERE, bytes(512), promise.era)
    with pytest.raises(Violated, match="lost"):
        read(promise, 1)


def test_a_volume_that_is_shut_takes_nothing() -> None:
    promise = Promise("data", 16)
    before = promise.write(HERE)
    promise.shut()
    sent = promise.write(HERE)
    promise.was_answered(before, durable=False)
    assert promise.fault is None
    promise.was_answered(sent, durable=False)
    assert promise.fault is not None


def test_what_came_from_the_other_side_is_what_is_found() -> None:
    writes = Writes("data")
    here, there = Promise("data", 16, writes), Promise("data", 16, writes)
    acknowledged(here)
    there.shut()
    there.open()
    there.rebase(bytes(5 * 512) + stamp("data", 5, 1) + bytes(10 * 512), durable=True)
    there.check_all(bytes(5 * 512) + stamp("data", 5, 1), "is there")
    with pytest.raises(Violated):
        there.check_all(bytes(16 * 512), "is there")
