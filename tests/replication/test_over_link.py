"""Questions go over the link as they are, and their answers last."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.link.channel import Call, LinkError, Request
from arrayd.replication.asking import SERVICE, Asked, Outcome, Question, Refused, decode_done, fence
from arrayd.replication.over_link import asker, service
from arrayd.replication.stages import Answer
from tests.replication.stage_lab import FakeCall

GROUP = b"a group's number"


class Wire:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Request]] = []

    def __call__(self, array: str, request: Request) -> None:
        self.sent.append((array, request))


async def received(pool: BufferPool) -> tuple[asyncio.Future[Answer], Request, PooledBuffer]:
    """A question whose answer, of 7 bytes, has begun to come into a buffer of the pool."""
    wire = Wire()
    asking = asyncio.ensure_future(asker(wire)("there", fence(GROUP, 3), 4096))
    await asyncio.sleep(0)
    ((_, request),) = wire.sent
    request.buffer = buffer = pool.take(7)
    assert buffer is not None
    return asking, request, buffer


async def test_a_long_answer_stays_where_it_was_received_until_it_is_released() -> None:
    pool = BufferPool(1 << 20)
    asking, request, buffer = await received(pool)
    buffer.view[:] = b"\x00answer"
    request.end(buffer.view)
    with await asking as answer:
        assert answer is buffer.view
        assert pool.used_bytes
    assert not pool.used_bytes


async def test_a_long_answer_that_comes_as_nobody_waits_any_more_is_released() -> None:
    pool = BufferPool(1 << 20)
    asking, request, buffer = await received(pool)
    request.end(buffer.view)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    assert not pool.used_bytes


async def test_a_question_is_answered_with_a_copy() -> None:
    wire = Wire()
    asking = asyncio.ensure_future(asker(wire)("there", fence(GROUP, 3), 4096))
    await asyncio.sleep(0)
    ((array, request),) = wire.sent
    assert (array, request.service, request.expects) == ("there", SERVICE, 4096)
    assert bytes(request.head) + bytes(request.data) == fence(GROUP, 3)
    assert request.wanted()
    memory = bytearray(b"\x00answer")
    request.ended(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert bytes((await asking).kept()) == b"\x00answer"


async def test_a_question_that_nobody_waits_for_is_not_sent_late() -> None:
    wire = Wire()
    asking = asyncio.ensure_future(asker(wire)("there", fence(GROUP, 3), 4096))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    request = wire.sent[0][1]
    assert not request.wanted()
    request.ended(LinkError("the link is down", maybe_done=False))


async def test_the_links_failure_is_the_questions() -> None:
    wire = Wire()
    asking = asyncio.ensure_future(asker(wire)("there", fence(GROUP, 3), 4096))
    await asyncio.sleep(0)
    wire.sent[0][1].ended(LinkError("the link is down", maybe_done=False))
    with pytest.raises(LinkError, match="the link is down"):
        await asking


async def test_what_is_no_question_is_answered_and_not_passed_on() -> None:
    taken: list[Question] = []
    serve = service(lambda question, _call: taken.append(question))
    call = FakeCall()
    serve(cast(Call, call), memoryview(b"\x63"))
    with pytest.raises(Refused) as refused:
        decode_done(memoryview(call.came.result()))
    assert refused.value.outcome is Outcome.FAILED
    serve(cast(Call, FakeCall()), memoryview(fence(GROUP, 3)))
    ((asked, group, fields),) = taken
    assert (asked, group, fields.generation) == (Asked.FENCE, GROUP, 3)
