"""The Data-Out of one task: what is accepted, what ends it, and where bytes go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.buffers import BufferPool
from arrayd.iscsi.pdu import NO_TAG
from arrayd.iscsi.transfer import NotDeliveredError, Solicited, Transfer
from arrayd.scsi.task import DeliveryFailure, Task


def make(expected: int = 10_000, wanted: int = 10_000, unsolicited_end: int = 0) -> Transfer:
    task = Task(bytes(16), 0, 1, 1, expected, 0, lambda _task: None)
    return Transfer(task, wanted, unsolicited_end > 0, unsolicited_end)


def ask(transfer: Transfer, tag: int, length: int) -> None:
    transfer.outstanding.append(Solicited(tag, transfer.requested, transfer.requested + length))
    transfer.requested += length


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=10), st.lists(st.integers(1, 3000), max_size=10))
def test_data_in_order_is_accepted_to_the_end(unasked: list[int], asked: list[int]) -> None:
    first, total = sum(unasked), sum(unasked) + sum(asked)
    transfer = make(total, total, first)
    for data_sn, length in enumerate(unasked):
        assert not transfer.complete
        last = data_sn == len(unasked) - 1
        transfer.accept(NO_TAG, data_sn, transfer.received, length, last)
    assert transfer.requested == first
    for tag, length in enumerate(asked):
        assert not transfer.complete
        ask(transfer, tag, length)
        half = length // 2
        if half:
            transfer.accept(tag, 0, transfer.received, half, False)
        transfer.accept(tag, 1 if half else 0, transfer.received, length - half, True)
    assert transfer.complete
    assert transfer.received == transfer.requested == total


@pytest.mark.parametrize(
    ("pdu", "failure"),
    [
        ((7, 1, 0, 100, False), DeliveryFailure.PROTOCOL_SERVICE_CRC_ERROR),
        ((7, 0, 100, 100, False), DeliveryFailure.PROTOCOL_SERVICE_CRC_ERROR),
        ((8, 0, 0, 100, False), DeliveryFailure.UNEXPECTED_UNSOLICITED_DATA),
        ((NO_TAG, 0, 0, 100, False), DeliveryFailure.UNEXPECTED_UNSOLICITED_DATA),
        ((7, 0, 0, 100, True), DeliveryFailure.INCORRECT_AMOUNT_OF_DATA),
        ((7, 0, 0, 1000, False), DeliveryFailure.INCORRECT_AMOUNT_OF_DATA),
        ((7, 0, 0, 1001, True), DeliveryFailure.INCORRECT_AMOUNT_OF_DATA),
    ],
)
def test_what_was_not_asked_for(pdu: tuple[int, int, int, int, bool], failure: DeliveryFailure) -> None:
    transfer = make()
    ask(transfer, 7, 1000)
    ask(transfer, 8, 1000)
    with pytest.raises(NotDeliveredError) as error:
        transfer.accept(*pdu)
    assert error.value.failure is failure
    assert transfer.received == 0


@pytest.mark.parametrize(
    ("pdu", "failure"),
    [
        ((NO_TAG, 1, 0, 100, False), DeliveryFailure.PROTOCOL_SERVICE_CRC_ERROR),
        ((NO_TAG, 0, 1, 100, False), DeliveryFailure.PROTOCOL_SERVICE_CRC_ERROR),
        ((NO_TAG, 0, 0, 1001, True), DeliveryFailure.UNEXPECTED_UNSOLICITED_DATA),
        ((0, 0, 0, 100, False), DeliveryFailure.UNEXPECTED_UNSOLICITED_DATA),
    ],
)
def test_unsolicited_data_that_was_not_agreed(pdu: tuple[int, int, int, int, bool], failure: DeliveryFailure) -> None:
    transfer = make(unsolicited_end=1000)
    with pytest.raises(NotDeliveredError) as error:
        transfer.accept(*pdu)
    assert error.value.failure is failure


def test_no_unsolicited_data_after_its_end() -> None:
    transfer = make(unsolicited_end=1000)
    transfer.accept(NO_TAG, 0, 0, 10, True)
    with pytest.raises(NotDeliveredError):
        transfer.accept(NO_TAG, 1, 10, 10, True)


def test_bytes_go_to_the_buffer_as_far_as_they_are_wanted() -> None:
    pool = BufferPool(1 << 20)
    transfer = make(wanted=1000)
    assert transfer.place(0, 100) is None
    transfer.buffer = pool.take(1000)
    for offset, length, kept in ((0, 100, 100), (900, 100, 100), (900, 200, 100), (999, 5, 1)):
        place = transfer.place(offset, length)
        assert place is not None
        assert len(place) == kept
    assert transfer.place(1000, 1) is None


def test_a_buffer_that_is_being_received_into_is_kept() -> None:
    pool = BufferPool(1 << 20)
    transfer = make()
    transfer.buffer = pool.take(1000)
    transfer.receiving = True
    transfer.release()
    assert pool.used_bytes
    transfer.receiving = False
    transfer.release()
    transfer.release()
    assert pool.used_bytes == 0
