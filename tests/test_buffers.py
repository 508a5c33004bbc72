"""The pool of buffers: bounded, fair, and every buffer somebody's own."""

import asyncio
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.buffers import KEPT_BYTES, SMALLEST_BUFFER, BufferPool, PooledBuffer, taken

KIB = 1024
MIB = 1024 * KIB


def took(pool: BufferPool, length: int) -> PooledBuffer:
    buffer = pool.take(length)
    assert buffer is not None
    return buffer


@pytest.mark.parametrize("length", [1, 512, SMALLEST_BUFFER, SMALLEST_BUFFER + 1, MIB, 3 * MIB])
def test_a_buffer_is_as_long_as_asked_and_page_aligned(length: int) -> None:
    buffer = took(BufferPool(64 * MIB), length)
    assert len(buffer.view) == length
    assert len(buffer.memory) % mmap.PAGESIZE == 0
    buffer.view[:] = bytes(length)


def test_no_more_than_the_limit_is_taken() -> None:
    pool = BufferPool(4 * SMALLEST_BUFFER)
    buffers = [took(pool, 1) for _ in range(4)]
    assert pool.take(1) is None
    assert pool.used_bytes == pool.limit_bytes
    buffers.pop().release()
    assert pool.take(1) is not None


def test_what_is_larger_than_the_limit_is_had_alone() -> None:
    """Else it would wait for ever."""
    pool = BufferPool(SMALLEST_BUFFER)
    large = took(pool, MIB)
    assert pool.take(1) is None
    large.release()
    small = took(pool, 1)
    waited: list[PooledBuffer] = []
    pool.take_later(MIB, waited.append)
    assert waited == []
    small.release()
    assert len(waited) == 1


def test_released_twice_is_released_once() -> None:
    pool = BufferPool(MIB)
    buffer = took(pool, 1)
    buffer.release()
    buffer.release()
    assert pool.used_bytes == 0
    first, second = took(pool, 1), took(pool, 1)
    assert first.memory is not second.memory


def test_memory_that_somebody_writes_to_is_not_given_back() -> None:
    buffer = took(BufferPool(MIB), SMALLEST_BUFFER)
    with memoryview(buffer.view):
        buffer.release()
    with pytest.raises(ValueError, match="released"):
        buffer.view[0] = 1


def test_who_waits_is_served_in_order() -> None:
    pool = BufferPool(4 * SMALLEST_BUFFER)
    held = [took(pool, SMALLEST_BUFFER) for _ in range(4)]
    order: list[int] = []
    kept: list[PooledBuffer] = []

    def taker(number: int) -> None:
        def taken(buffer: PooledBuffer) -> None:
            order.append(number)
            kept.append(buffer)

        # The second wants more than the others: they wait behind it all the same.
        pool.take_later((3 if number == 1 else 1) * SMALLEST_BUFFER, taken)

    for number in range(4):
        taker(number)
    held.pop().release()
    assert order == [0]
    held.pop().release()
    held.pop().release()
    assert order == [0]
    assert pool.take(1) is None
    held.pop().release()
    kept.pop(0).release()
    assert order == [0, 1]
    kept.pop(0).release()
    assert order == [0, 1, 2, 3]


def test_who_gives_up_waiting_lets_those_behind_go_on() -> None:
    pool = BufferPool(4 * SMALLEST_BUFFER)
    held = [took(pool, 1) for _ in range(3)]
    large: list[PooledBuffer] = []
    small: list[PooledBuffer] = []
    want_large, want_small = large.append, small.append
    pool.take_later(2 * SMALLEST_BUFFER, want_large)
    pool.take_later(1, want_small)
    pool.forget(want_large)
    assert (len(large), len(small)) == (0, 1)
    pool.forget(want_large)
    held.pop().release()
    assert (len(large), len(small)) == (0, 1)


def test_data_that_cannot_wait_goes_beyond_the_limit_so_far() -> None:
    pool = BufferPool(2 * SMALLEST_BUFFER)
    held = [took(pool, 1), took(pool, 1)]
    waited: list[PooledBuffer] = []
    pool.take_later(1, waited.append)
    for _ in range(2):
        beyond = pool.take_beyond(1, 2)
        assert beyond is not None
        held.append(beyond)
    assert pool.take_beyond(1, 2) is None
    while held:
        held.pop().release()
    assert len(waited) == 1


def test_a_long_queue_of_takers_that_are_done_at_once() -> None:
    """Each gives its buffer back from within its own turn: the turns must not pile up on the stack."""
    pool = BufferPool(SMALLEST_BUFFER)
    first = took(pool, 1)
    served: list[int] = []

    def taker(number: int) -> None:
        def taken(buffer: PooledBuffer) -> None:
            served.append(number)
            buffer.release()

        pool.take_later(1, taken)

    for number in range(10_000):
        taker(number)
    first.release()
    assert served == list(range(10_000))
    assert pool.used_bytes == 0


def test_memory_is_kept_for_the_next_but_not_without_end() -> None:
    pool = BufferPool(4 * KEPT_BYTES)
    buffers = [took(pool, MIB) for _ in range(2 * KEPT_BYTES // MIB)]
    memories = {id(buffer.memory) for buffer in buffers}
    while buffers:
        buffers.pop().release()
    again = [took(pool, MIB) for _ in range(KEPT_BYTES // MIB)]
    assert {id(buffer.memory) for buffer in again} <= memories
    assert pool.used_bytes == KEPT_BYTES


@given(steps=st.lists(st.tuples(st.sampled_from(("take", "later", "beyond", "release")), st.integers(1, 512 * KIB)),
                      max_size=80))  # fmt: skip
def test_the_pool_counts_what_is_out(steps: list[tuple[str, int]]) -> None:
    pool = BufferPool(MIB)
    out: list[PooledBuffer] = []
    asked = 0
    got = 0

    def taken(buffer: PooledBuffer) -> None:
        nonlocal got
        got += 1
        out.append(buffer)

    for what, number in steps:
        if what == "release":
            if out:
                out.pop(number % len(out)).release()
            continue
        if what == "later":
            asked += 1
            pool.take_later(number, lambda buffer: taken(buffer))
        else:
            buffer = pool.take(number) if what == "take" else pool.take_beyond(number, 2)
            if buffer is not None:
                out.append(buffer)
                assert len(buffer.view) == number
        assert pool.used_bytes == sum(len(buffer.memory) for buffer in out)
        assert pool.used_bytes <= 2 * MIB
        assert len({id(buffer.memory) for buffer in out}) == len(out)
    while out:
        out.pop(0).release()
    assert (got, pool.used_bytes) == (asked, 0)


async def test_who_waits_gets_a_buffer_in_turn_or_nobody_does() -> None:
    pool = BufferPool(SMALLEST_BUFFER)
    first = await taken(pool, 1)
    given_up, waiting, too_late = (asyncio.ensure_future(taken(pool, 1)) for _ in range(3))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    first.release()
    second = await waiting
    second.release()
    # It was handed a buffer in the same turn in which it gave up.
    too_late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await too_late
    assert pool.used_bytes == 0


def test_shared_memory_is_given_back_by_the_last_of_its_owners() -> None:
    pool = BufferPool(1 << 20)
    first = pool.take_beyond(100_000, 1)
    assert first is not None
    used = pool.used_bytes
    second = first.share()
    third = second.share()
    assert pool.used_bytes == used
    second.view[:] = b"x" * 100_000
    for owner in (second, first):
        owner.release()
        owner.release()
        assert pool.used_bytes == used
    assert third.view == b"x" * 100_000
    third.release()
    assert pool.used_bytes == 0
