"""Messages and answers that are too long, in pieces, or more than a peer was granted."""

from __future__ import annotations

import pytest

from arrayd.link import channel as channels
from arrayd.link import connection as connections
from arrayd.link.channel import (
    HEAD_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    SHORT_BYTES,
    Call,
    LinkError,
)
from arrayd.link.frames import PAYLOAD_BYTES_MAX, Kind, frame, short
from arrayd.link.outgoing import BULK_BYTES, OUTPUT_BYTES
from tests.link.ends import (
    Answers,
    Patient,
    give,
    linked,
    opening,
    piece,
    taken,
)

LONG = PAYLOAD_BYTES_MAX * 2 + 77


@pytest.mark.parametrize("length", [101, SHORT_BYTES + 1, LONG, 4 * BULK_BYTES])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("cut", [False, True])
def test_an_answer_longer_than_expected_ends_its_request_and_nothing_else(length: int, keep: bool, cut: bool) -> None:
    """Asked for again on every connection, it would end them all."""

    def service(call: Call, payload: memoryview) -> None:
        call.answer(b"", bytes(length) if bytes(payload) == b"too much" else payload, keep=keep)

    line, answers = linked(service), Answers()
    line.a.channel.request(answers.request(1, head=b"too much", expects=100))
    line.a.channel.request(answers.request(2, head=b"fine"))
    connection = line.a.connection
    assert connection is not None
    line.carry(True)
    if cut:
        line.carry(False, 70_000)
        line.cut()
        line.connect()
    line.settle()
    error = answers.ended[1]
    assert isinstance(error, LinkError)
    assert error.maybe_done
    assert str(error) == f"an answer of {length} bytes, where 100 were expected at most"
    assert answers.ended[2] == b"fine"
    line.a.channel.request(answers.request(3, head=b"and more"))
    line.settle()
    assert answers.ended[3] == b"and more"
    assert (line.a.connection is connection) != cut
    line.a.connection.beat()  # type: ignore[union-attr]
    line.settle()
    assert line.a.channel.idle
    assert not line.b.channel._kept
    assert line.a.channel.buffers.used_bytes == 0
    assert line.a.channel._outstanding_bytes == 0


def test_an_answer_that_is_dropped_goes_on_as_it_began() -> None:
    line, answers = linked(Patient()), Answers()
    line.a.channel.request(answers.request(1, expects=SHORT_BYTES))
    line.settle()
    assert line.a.connection is not None
    give(line.a.connection, opening(SHORT_BYTES + 1, kind=Kind.ANSWER))
    assert 1 in answers.ended
    give(line.a.connection, piece(SHORT_BYTES + 2, more=False, kind=Kind.ANSWER))
    reason = "a frame of 65538 bytes, where 65537 are left of the message"
    assert line.a.connection.closing == f"protocol error: {reason}"
    line.cut()


def test_a_head_fits_into_a_frame_and_a_message_has_a_longest() -> None:
    """What no peer takes is not sent: it would end every connection from now on."""
    answers, service = Answers(), Patient()
    line = linked(service)
    line.a.channel.request(answers.request(1, head=bytes(HEAD_BYTES_MAX), data=bytes(LONG)))
    line.settle()
    ((call, payload),) = service.calls
    assert len(payload) == HEAD_BYTES_MAX + LONG
    with pytest.raises(AssertionError):
        call.answer(bytes(HEAD_BYTES_MAX + 1))
    with pytest.raises(AssertionError):
        call.answer(b"1", bytes(MESSAGE_BYTES_MAX))
    call.answer(bytes(HEAD_BYTES_MAX), bytes(LONG))
    line.settle()
    assert answers.ended == {1: bytes(HEAD_BYTES_MAX + LONG)}
    with pytest.raises(AssertionError):
        answers.request(2, head=bytes(HEAD_BYTES_MAX + 1))


@pytest.mark.parametrize("step", [1, 1000, 70_000])
def test_a_long_message_is_received_in_any_pieces_and_damage_shows(step: int) -> None:
    data = bytes(range(256)) * (LONG // 256)
    for damaged in (False, True):
        line, answers = linked(), Answers()
        line.a.channel.request(answers.request(1, head=b"head", data=data))
        assert line.a.connection is not None
        assert line.b.connection is not None
        sent = bytearray(taken(line.a.connection))
        sent[LONG // 2] ^= damaged
        for at in range(0, len(sent), step if step > 1 else 777):
            give(line.b.connection, bytes(sent[at : at + step]) if step > 1 else bytes(sent[at : at + 777]))
        assert line.b.connection.closing == "protocol error: a frame that was damaged on its way" * damaged
        line.settle()
        assert bool(answers.ended) != damaged


def test_a_peer_is_held_to_the_credit_that_it_was_given() -> None:
    """Requests and what their answers may come to; a request that the peer has given up takes none any more."""
    granted = channels.BYTES_MAX // 4
    service = Patient(granted - 1)
    line, answers = linked(service), Answers()
    assert line.b.connection is not None
    for key in range(4):
        line.a.channel.request(answers.request(key, data=b"x"))
    line.settle()
    assert not line.b.connection.closing
    line.cut()
    line.a.channel.fail("no connection")
    line.connect()
    line.settle()
    for key in range(4, 8):
        line.a.channel.request(answers.request(key, data=b"x"))
    line.settle()
    assert not line.b.connection.closing
    assert len(line.b.channel.running) == 8
    line.a.channel.request(answers.request(8, data=b"x"))
    line.carry(True)
    assert str(line.b.connection.closing) == "protocol error: requests of more than 67108864 bytes at once"
    assert len(line.b.channel.running) == 8
    while service.calls:
        service.answer()
    assert (line.b.channel._taken, line.b.channel._counted) == (0, 0)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (frame(Kind.ANSWER, short(1, b"")), "an answer to request 1, which waits for none"),
        (frame(Kind.UNKNOWN, number=1), "request 1 is unknown to both"),
    ],
    ids=["ANSWER", "UNKNOWN"],
)
def test_while_an_answer_comes_there_is_no_other(frames: bytes, reason: str) -> None:
    line, answers = linked(Patient()), Answers()
    line.a.channel.request(answers.request(1, expects=LONG))
    line.carry(True)
    assert line.a.connection is not None
    give(line.a.connection, opening(LONG, kind=Kind.ANSWER) + piece(PAYLOAD_BYTES_MAX, more=True, kind=Kind.ANSWER))
    give(line.a.connection, frames)
    assert line.a.connection.closing == f"protocol error: {reason}"
    assert line.a.channel.buffers.used_bytes > 0
    line.cut()
    assert line.a.channel.buffers.used_bytes == 0
    assert not answers.ended


@pytest.mark.parametrize(
    "frames",
    [frame(Kind.ANSWER, short(1, b"")), opening(LONG, kind=Kind.ANSWER), frame(Kind.UNKNOWN, number=1)],
    ids=["short", "long", "unknown"],
)
@pytest.mark.parametrize("gone", [0, PAYLOAD_BYTES_MAX + 10, LONG])
def test_there_is_no_answer_to_a_request_that_has_not_wholly_gone(frames: bytes, gone: int) -> None:
    """Its data would be released, and what others put there would go instead."""
    line, answers = linked(Patient()), Answers()
    line.a.channel.request(answers.request(1, data=bytes(LONG), expects=LONG))
    assert line.a.connection is not None
    taken(line.a.connection, gone)
    give(line.a.connection, frames)
    assert line.a.connection.closing in (
        "protocol error: an answer to request 1, which waits for none",
        "protocol error: request 1 is unknown to both",
    )
    assert not answers.ended


def test_who_asks_and_does_not_take_the_answers_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BACKLOG_BYTES_MAX", OUTPUT_BYTES)
    line = linked(lambda call, payload: call.answer(b"", bytes(int.from_bytes(payload)), keep=False))
    assert line.b.connection is not None
    asked = 0
    while not line.b.connection.closing:
        asked += 1
        length = SHORT_BYTES if asked % 2 else LONG
        give(line.b.connection, frame(Kind.REQUEST, short(asked, length.to_bytes(4)), service=1))
        assert asked < 20
    assert line.b.connection.closing.startswith("protocol error: it does not take its answers: ")
    assert asked > 2
