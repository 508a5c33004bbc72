"""Requests and answers over connections that are cut anywhere: nothing is done twice, and no answer is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.buffers import BufferPool
from arrayd.link.channel import (
    MESSAGE_BYTES_MAX,
    SHORT_BYTES,
    WAITING_MAX,
    Call,
    LinkError,
    Request,
)
from arrayd.link.frames import HEADER, HEADER_BYTES, MORE, NUMBERS, PAYLOAD_BYTES_MAX, Kind, frame, short
from arrayd.link.outgoing import BULK_BYTES, OUTPUT_BYTES
from tests.lab.search import examples
from tests.link.ends import (
    HARMLESS,
    SPARE_BYTES,
    Answers,
    End,
    Line,
    Patient,
    a_line,
    echo,
    give,
    introduction,
    linked,
    opening,
    piece,
    taken,
)

LONG = PAYLOAD_BYTES_MAX * 2 + 77


@pytest.mark.parametrize("length", [0, 1, SHORT_BYTES, SHORT_BYTES + 1, LONG, 4 * BULK_BYTES])
def test_an_answer_comes_to_its_request(length: int) -> None:
    line, answers = linked(), Answers()
    data = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
    line.a.channel.request(answers.request(1, head=b"head", data=data))
    line.settle()
    assert answers.ended == {1: b"echo:head" + data}
    assert line.a.channel.idle


def test_both_ends_ask() -> None:
    line, answers = Line(End(introduction("a"), {1: echo}), End(introduction("b"), {1: echo})), Answers()
    line.connect()
    line.a.channel.request(answers.request(1, head=b"from a"))
    line.b.channel.request(answers.request(2, head=b"from b"))
    line.settle()
    assert answers.ended == {1: b"echo:from a", 2: b"echo:from b"}


def test_an_answer_from_a_pooled_buffer_gives_it_back_when_it_is_sent() -> None:
    pool = BufferPool(1 << 30)

    def service(call: Call, _payload: memoryview) -> None:
        buffer = pool.take(LONG)
        assert buffer is not None
        buffer.view[:] = b"p" * LONG
        call.answer(b"", buffer.view, buffer, keep)

    for keep in (True, False):
        line, answers = linked(service), Answers()
        line.a.channel.request(answers.request(1, expects=LONG))
        line.carry(True)
        assert bool(pool.used_bytes) != keep  # what is kept is a copy
        line.settle()
        assert answers.ended == {1: b"p" * LONG}
        assert pool.used_bytes == 0


def test_a_buffer_comes_back_from_a_connection_that_is_cut() -> None:
    pool = BufferPool(1 << 30)
    buffer = pool.take(LONG)
    assert buffer is not None
    service = Patient()
    line, answers = linked(service), Answers()
    line.a.channel.request(answers.request(1, expects=LONG))
    line.carry(True)
    service.calls[0][0].answer(b"", buffer.view, buffer, keep=False)
    line.carry(False, 1000)
    line.cut()
    assert pool.used_bytes == 0


HANDSHAKES = st.sampled_from([4, 6, 1000])
"""Lines carried: as far as the dialer's proof, its ASK, everything."""
ANSWERED = st.tuples(st.just("answer"), st.integers(0, 24))
ASKED = st.tuples(st.just("ask"), st.booleans(), st.sampled_from([0, 10, SHORT_BYTES, LONG]))
CARRIED = st.tuples(st.just("carry"), st.booleans(), st.sampled_from([30, 200, 70_000, 1 << 30, 1 << 30]))
CUT = st.tuples(st.just("cut"), HANDSHAKES)
STEPS = st.integers(1, 25).flatmap(
    lambda count: st.lists(
        st.one_of(ASKED, ASKED, CARRIED, CARRIED, ANSWERED, ANSWERED, CUT), min_size=count, max_size=count
    )
)


@settings(max_examples=examples(300))
@given(first=HANDSHAKES, steps=STEPS)
def test_whatever_is_cut_nothing_is_done_twice_and_every_request_ends(first: int, steps: list[tuple[Any, ...]]) -> None:
    service = Patient()
    line, answers = a_line(service), Answers()
    asked: dict[bytes, bool] = {}
    handshakes = first
    for step, *told in steps:
        if step == "ask":
            key = len(asked)
            harmless, length = told
            payload = HARMLESS * harmless + b"%d:" % key + bytes(length)
            asked[payload] = harmless
            line.a.channel.request(answers.request(key, data=payload))
        elif step == "carry":
            line.carry(*told)
        elif step == "answer" and service.calls:
            service.answer(told[0] % len(service.calls))
        elif step == "cut":
            (handshakes,) = told
            line.cut()
        if line.a.connection is None or line.a.connection.closing or line.b.connection is None:
            line.cut()
            line.connect()
            for turn in range(handshakes):
                if not line.carry(turn % 2 == 0) and turn > 4:
                    break
    line.settle()
    while service.calls:
        service.answer()
        line.settle()
    assert [answers.ended[key] for key in range(len(asked))] == [b"done:" + payload for payload in asked]
    for payload, harmless in asked.items():
        count = service.carried_out.count(payload)
        assert count >= 1 if harmless else count == 1
    # And nothing is left of them once the other end knows.
    line.a.connection.beat()  # type: ignore[union-attr]
    line.settle()
    assert line.a.channel.idle
    assert not line.b.channel.running
    assert not line.b.channel._kept


def test_an_array_that_was_started_again_is_not_asked_again() -> None:
    service = Patient()
    line, answers = linked(service), Answers()
    line.a.channel.request(answers.request(1, head=b"one"))
    line.settle()
    line.cut()
    line.a.channel.request(answers.request(2, head=b"two"))
    line.b = End(introduction("b", incarnation=2), {1: echo})
    line.connect()
    line.settle()
    error = answers.ended[1]
    assert isinstance(error, LinkError)
    assert error.maybe_done
    assert str(error) == "the other array was started again"
    assert answers.ended[2] == b"echo:two"  # none of it had reached the one before


def test_what_is_given_up_says_whether_it_may_have_been_done() -> None:
    line, answers = linked(Patient()), Answers()
    line.a.channel.request(answers.request(1))
    line.cut()
    line.a.channel.request(answers.request(2))
    line.a.channel.fail("no connection")
    assert {key: (str(end), end.maybe_done) for key, end in answers.ended.items() if isinstance(end, LinkError)} == {
        1: ("no connection", True),
        2: ("no connection", False),
    }
    assert line.a.channel.idle


def test_the_answer_to_what_was_given_up_is_forgotten() -> None:
    service = Patient()
    line, answers = linked(service), Answers()
    line.a.channel.request(answers.request(1))
    line.settle()
    line.cut()
    line.a.channel.fail("no connection")
    service.answer()
    assert line.b.channel._kept
    line.connect()
    line.settle()
    assert not line.b.channel._kept


def test_long_requests_wait_for_credit_and_short_ones_go_past_them() -> None:
    service = Patient()
    limit = 1 << 20
    line, answers = linked(service, bytes_max=limit), Answers()
    for key in range(6):
        line.a.channel.request(answers.request(key, data=bytes([key]) * (limit // 8)))
    line.a.channel.request(answers.request(6, data=b"short"))
    line.settle()
    assert [payload[:1] for payload in service.carried_out] == [b"s", b"\0", b"\1", b"\2"]
    while service.calls:
        service.answer()
        line.settle()
    assert [payload[:1] for payload in service.carried_out] == [b"s", b"\0", b"\1", b"\2", b"\3", b"\4", b"\5"]
    assert len(answers.ended) == 7


def test_a_short_message_does_not_wait_behind_a_long_one() -> None:
    service = Patient()
    line, answers = linked(service), Answers()
    line.a.channel.request(answers.request(1, data=bytes(8 * BULK_BYTES - 100)))
    line.carry(True, 100)
    line.a.channel.request(answers.request(2, data=b"short"))
    line.carry(True, 2 * BULK_BYTES)
    assert service.carried_out == [b"short"]
    line.settle()
    assert len(service.carried_out) == 2


def test_only_so_many_wait() -> None:
    line, answers = a_line(), Answers()
    for key in range(WAITING_MAX + 1):
        line.a.channel.request(answers.request(key))
    ((key, error),) = answers.ended.items()
    assert (key, str(error)) == (WAITING_MAX, "too many requests wait for the other array")


def frames_of(data: bytes) -> list[tuple[int, int]]:
    """Kind and payload length of each frame."""
    found, at = [], 0
    while at < len(data):
        _, length, kind, *_ = HEADER.unpack_from(data, at)
        found.append((kind, length))
        at += HEADER_BYTES + length
    return found


def test_short_messages_share_a_frame_until_something_else_goes() -> None:
    line, answers = linked(), Answers()
    assert line.a.connection is not None
    for key in range(3):
        line.a.channel.request(answers.request(key, data=b"arrayd"))
    line.a.connection.beat()
    line.a.channel.request(answers.request(3, data=b"arrayd"))
    data = taken(line.a.connection)
    assert frames_of(data) == [(Kind.REQUEST, 3 * (12 + 6)), (Kind.BEAT, 0), (Kind.REQUEST, 12 + 6)]
    assert line.b.connection is not None
    give(line.b.connection, data)
    line.settle()
    assert answers.ended == dict.fromkeys(range(4), b"echo:arrayd")


@pytest.mark.parametrize("length", [SHORT_BYTES - 100, 4000, 1])
def test_short_messages_that_the_output_has_no_room_for_go_in_their_order(length: int) -> None:
    line, answers = linked(Patient()), Answers()
    count = min(OUTPUT_BYTES // length + 2, 500)
    for key in range(count):
        line.a.channel.request(answers.request(key, data=key.to_bytes(2) * (length // 2 + 1)))
    line.settle()
    service = line.b.services[1]
    assert isinstance(service, Patient)
    assert [int.from_bytes(came[:2]) for came in service.carried_out] == list(range(count))


def test_answers_in_a_frame_that_is_not_all_taken_in_are_not_acknowledged() -> None:
    line, answers = linked(service := Patient()), Answers()

    def ask_again(_answer: memoryview | LinkError) -> None:
        line.a.channel.request(answers.request(2, data=HARMLESS))

    line.a.channel.request(Request(1, b"", b"", SPARE_BYTES, ask_again))
    line.a.channel.request(answers.request(1))
    line.settle()
    service.answer()
    service.answer()
    assert line.a.connection is not None
    assert line.b.connection is not None
    ((_, length),) = frames_of(answered := taken(line.b.connection))
    first = answered[HEADER_BYTES : HEADER_BYTES + length // 2]
    give(line.a.connection, frame(Kind.ANSWER, first + short(99, b"")))
    assert line.a.connection.closing
    line.carry(True)
    assert service.carried_out == [b"", b"", HARMLESS]
    assert set(line.b.channel._kept) == {1, 2}
    line.cut()
    line.connect()
    line.settle()
    assert answers.ended == {1: b"done:"}
    assert service.carried_out == [b"", b"", HARMLESS]


BAD = {
    "an answer to request 99, which waits for none": frame(Kind.ANSWER, short(99, b"x")),
    "request 99 is unknown to both": frame(Kind.UNKNOWN, number=99),
    "a second ASK": frame(Kind.ASK, NUMBERS.build([])),
    "a request for service 9, which there is not": frame(Kind.REQUEST, short(1, b""), service=9),
    "a frame of kind 200": frame(200, b"x"),  # type: ignore[arg-type]
    "a frame of kind 1": frame(Kind.HELLO, b"x"),
    "an ASK that is no list of numbers": frame(Kind.ASK, b"1234567"),
    "a frame that was damaged on its way": frame(Kind.BEAT)[:-1] + b"!",
    "a frame of 262145 bytes": bytes(4) + (PAYLOAD_BYTES_MAX + 1).to_bytes(4) + bytes(16),
    "request 1 came twice": frame(Kind.REQUEST, short(1, b""), service=1) * 2,
    "request 2 came twice": frame(Kind.REQUEST, short(2, b"") * 2, service=1),
    "a frame without a message": frame(Kind.REQUEST, service=1),
    "a message that is longer than its frame": frame(Kind.REQUEST, short(1, b"") + short(2, b"x")[:-1], service=1),
    "a frame that ends within a message": frame(Kind.REQUEST, short(1, b"") + bytes(11), service=1),
}


@pytest.mark.parametrize(("reason", "data"), BAD.items(), ids=BAD)
def test_what_must_not_come_ends_the_connection(reason: str, data: bytes) -> None:
    line = linked(Patient())
    assert line.b.connection is not None
    give(line.b.connection, data)
    assert line.b.connection.closing == f"protocol error: {reason}"


IN_PART = {
    "a message of 8392705 bytes, where 8392704 is the most": opening(MESSAGE_BYTES_MAX + 1),
    "a message of 4097 bytes, where 8392704 is the most": opening(0, bytes(4097)),
    "a long message that does not say how long it is": frame(Kind.REQUEST, b"123", flags=MORE, service=1, number=1),
    "more than 64 messages in part": b"".join(opening(1, number=number) for number in range(1, 66)),
    "requests of more than 67108864 bytes at once": b"".join(
        opening(8 << 20, number=number) for number in range(1, 10)
    ),
    "a frame of 2 bytes, where 10 are left of the message": opening(10) + piece(2, more=False),
    "a frame of 10 bytes, where 10 are left of the message": opening(10) + piece(10, more=True),
    "a frame of 11 bytes, where 10 are left of the message": opening(10) + piece(11, more=False),
    "a frame of 0 bytes, where 10 are left of the message": opening(10) + piece(0, more=True),
    "an answer to request 7, which waits for none": opening(10, number=7, kind=Kind.ANSWER),
    "request 1 came twice": frame(Kind.REQUEST, short(1, b""), service=1) + opening(1) + piece(1, more=False),
}


@pytest.mark.parametrize(("reason", "data"), IN_PART.items(), ids=IN_PART)
def test_a_message_in_part_goes_on_as_it_began_and_is_bounded(reason: str, data: bytes) -> None:
    line = linked(Patient())
    assert line.b.connection is not None
    give(line.b.connection, data)
    assert line.b.connection.closing == f"protocol error: {reason}"
    line.cut()
    assert line.b.channel.buffers.used_bytes == 0
    assert line.b.channel._taken == sum(call.cost for call in line.b.channel.running.values())


@given(garbage=st.binary(min_size=1, max_size=500), shaken=st.booleans())
def test_garbage_ends_the_connection_or_waits_for_more(garbage: bytes, shaken: bool) -> None:
    line = linked() if shaken else a_line()
    if not shaken:
        line.connect()
    assert line.b.connection is not None
    give(line.b.connection, garbage)
    line.settle()
    assert not line.b.channel.running


def test_a_beat_tells_how_far_away_the_other_is() -> None:
    line = linked()
    assert line.a.connection is not None
    line.now = 5.0
    line.a.connection.beat()
    line.carry(True)
    line.now = 5.25
    line.carry(False)
    assert line.a.connection.round_trip == pytest.approx(0.25)
