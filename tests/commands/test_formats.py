"""Command interfaces as bytes: golden ones, every field there and back, and every field wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.commands.formats import (
    ANSWER,
    DESCRIPTION,
    DEVICE_BYTES,
    EDITED_BYTES_MAX,
    HEAD_BYTES,
    INPUT_BYTES_MAX,
    PAGE_BYTES,
    REQUEST,
    REQUEST_BYTES,
    SLOT_BYTES,
    SLOTS,
    VERSION,
    Answer,
    FormatError,
    Identification,
    Request,
    State,
    answer_length,
    decode_answer,
    decode_description,
    decode_request,
    written_by,
)
from arrayd.commands.messages import (
    CONTROL,
    DESTINATION,
    LISTED,
    MESSAGE,
    MESSAGE_BYTES_MAX,
    Destination,
    Ended,
    Message,
    Method,
    decode_ended,
    decode_message,
)
from arrayd.commands.results import Result
from tests.commands.strategies import ANSWERS, ENDED, MESSAGES, REQUESTS
from tests.lab.search import examples

WHO = Identification(bytes.fromhex("0102030405060708"), 0x1122334455667788, 9)
NUMBER = "0102030405060708 1122334455667788 0000000000000009"


def test_figure_6_the_command_device_interface() -> None:
    """Control parameter (process number, presence of edited data), input parameter, and behind them edited data."""
    request = Request(2, WHO, b'{"text":"hi"}')
    assert (
        request.encode() == bytes.fromhex(f"41434d44 0001 0002 01 000000 0000000d {NUMBER}" + "00" * 24) + request.input
    )
    answer = Answer(State.DONE, WHO, Result.OK, b'{"array":"a","text":"hi"}')
    assert (
        answer.encode() == bytes.fromhex(f"41414e53 0001 02 01 0000 0000 00000019 {NUMBER}" + "00" * 24) + answer.edited
    )


def test_figure_26_the_command_interface() -> None:
    """Identification number, transfer destination parameter, control parameter and input parameter."""
    message = Message(WHO, (Destination(("b", "remote")), Request(2, WHO, b"{}")), 10_000)
    assert message.encode() == bytes.fromhex(
        f"41434946 0001 00 00 00002710 {NUMBER} 00 00 02"  # head: no origin, no trail, two parts
        f"01 02 01 62 06 72656d6f7465"  # transfer destination parameter: two addresses
        f"02 0002 01 {NUMBER} 00000002 7b7d"  # control parameter, input parameter
    )


def test_figure_38_command_interfaces_in_a_row() -> None:
    second = Identification(WHO.host, WHO.epoch, 10)
    parts = (Destination(("b",)), Request(2, WHO), Destination(("c",)), Request(3, second, edited=False))
    message = Message(WHO, parts, 1, Method.DELETE, True)
    assert decode_message(message.encode()) == message
    assert message.requests == [parts[1], parts[3]]


def test_a_device_is_a_description_and_slots() -> None:
    assert DEVICE_BYTES == (SLOTS + 1) * SLOT_BYTES
    assert HEAD_BYTES + INPUT_BYTES_MAX == REQUEST_BYTES
    assert REQUEST_BYTES + HEAD_BYTES + EDITED_BYTES_MAX <= SLOT_BYTES
    assert DESCRIPTION.sizeof() == 1024 + SLOTS <= PAGE_BYTES


@given(REQUESTS, st.binary(max_size=64))
def test_requests_come_back(request: Request, behind: bytes) -> None:
    assert decode_request(request.encode() + behind) == request


@given(ANSWERS, st.binary(max_size=64))
def test_answers_come_back(answer: Answer, behind: bytes) -> None:
    data = answer.encode()
    assert decode_answer(data + behind) == answer
    assert answer_length(data) == len(data)


@given(MESSAGES)
def test_messages_come_back(message: Message) -> None:
    assert decode_message(message.encode()) == message


@given(st.lists(ENDED, max_size=5))
def test_what_has_ended_comes_back(ended: list[Ended]) -> None:
    assert decode_ended(b"".join(each.encode() for each in ended)) == ended


def number_of(told: Any) -> Identification:
    return Identification(told.host, told.epoch, told.counter)


@given(REQUESTS, ANSWERS)
def test_both_codecs_agree_on_a_command_device(request_: Request, answer: Answer) -> None:
    told = REQUEST.parse(request_.encode())
    control = told.process, bool(told.edited), told.length, number_of(told.identification)
    assert control == (request_.process, request_.edited, len(request_.input), request_.identification)
    assert REQUEST.build(told) + request_.input == request_.encode()
    told = ANSWER.parse(answer.encode())
    fields = told.state, bool(told.edited), told.result, told.length, number_of(told.identification)
    assert fields == (answer.state, bool(answer.edited), answer.result, len(answer.edited), answer.identification)
    assert ANSWER.build(told) + answer.edited == answer.encode()


@given(MESSAGES, ENDED)
def test_both_codecs_agree_on_messages(message: Message, ended: Ended) -> None:
    data = message.encode()
    told = MESSAGE.parse(data)
    head = told.flags, told.method, told.time_left, number_of(told.identification), told.origin, tuple(told.trail)
    assert head == (
        message.goes_on | message.local << 1,
        message.method,
        message.time_left_ms,
        message.identification,
        message.origin,
        message.trail,
    )
    rebuilt = MESSAGE.build(told)
    assert told.parts == len(message.parts)
    for part in message.parts:
        if isinstance(part, Destination):
            rebuilt += DESTINATION.build({"addresses": part.addresses})
        else:
            number = part.identification._asdict()
            told = {"process": part.process, "edited": part.edited, "identification": number, "length": len(part.input)}
            rebuilt += CONTROL.build(told) + part.input
    assert rebuilt == data
    told = LISTED.parse(ended.encode())
    assert (told.array, told.process, told.result, told.length) == (
        ended.array,
        ended.process,
        ended.result,
        len(ended.edited),
    )
    assert number_of(told.identification) == ended.identification
    assert LISTED.build(told) + ended.edited == ended.encode()


@settings(max_examples=examples(300))
@given(st.data())
def test_whatever_comes_is_decoded_or_refused(data: st.DataObject) -> None:
    """Every byte of every format set to anything, and everything cut short or made longer."""
    good = data.draw(
        st.one_of(REQUESTS.map(Request.encode), ANSWERS.map(Answer.encode), MESSAGES.map(Message.encode), st.binary())
    )
    changed = bytearray(good)
    for at in data.draw(st.lists(st.integers(0, max(len(good) - 1, 0)), max_size=4)) if good else ():
        changed[at] = data.draw(st.integers(0, 255))
    whole = bytes(changed[: data.draw(st.integers(0, len(changed)))]) + data.draw(st.binary(max_size=8))
    for decode in (decode_request, decode_answer, decode_message, decode_ended, decode_description, answer_length):
        try:
            told = decode(whole)
        except FormatError:
            pass
        else:
            if isinstance(told, Message):
                assert decode_message(told.encode()) == told
            if isinstance(told, Request):
                assert decode_request(told.encode()) == told
    assert len(written_by(whole, 16).host) == 8


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (slice(0, 4), b"ACMX", "not a command"),
        (slice(4, 6), b"\0\2", f"a command of version 2: this is version {VERSION}"),
        (slice(8, 9), b"\2", "presence of edited data is 2: 0 or 1"),
        (slice(12, 16), b"\0\0\0\3", "an input parameter of 3 bytes, of which 2 were written"),
        (slice(16, 24), bytes(8), "an identification number without a host"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(field: slice, value: bytes, reason: str) -> None:
    data = bytearray(Request(1, WHO, b"{}").encode())
    data[field] = value
    with pytest.raises(FormatError) as refusal:
        decode_request(bytes(data))
    assert str(refusal.value) == reason


def test_what_is_too_long_is_not_built() -> None:
    with pytest.raises(FormatError, match="65473 bytes: 65472 at the most"):
        Request(1, WHO, bytes(INPUT_BYTES_MAX + 1)).encode()
    requests = [Request(1, Identification(WHO.host, 1, n), bytes(INPUT_BYTES_MAX)) for n in range(5)]
    with pytest.raises(FormatError, match=f"{MESSAGE_BYTES_MAX} at the most"):
        Message(WHO, tuple(requests), 1).encode()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((), "no command for a transfer destination"),
        ((Destination(("b",)),), "no command for a transfer destination"),
        ((Destination(("b",)), Destination(("c",)), Request(1, WHO)), "no command for a transfer destination"),
        ((Request(1, WHO), Request(2, WHO)), "two commands with one identification number"),
        ((Destination(()), Request(1, WHO)), "0 addresses: 1 to 16, none of them empty"),
        ((Destination(("b", "")), Request(1, WHO)), "2 addresses: 1 to 16, none of them empty"),
    ],
)
def test_a_message_is_commands_with_their_destinations(parts: tuple[Destination | Request, ...], reason: str) -> None:
    with pytest.raises(FormatError) as refusal:
        decode_message(Message(WHO, parts, 1).encode())
    assert str(refusal.value) == reason


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (6, 0x04, "flags 0x04"),
        (7, 9, "method 9"),
        (8, 0xFF, "a time limit of 4278190081 ms: 1 to 600000"),
    ],
)
def test_a_wrong_head_says_what_is_wrong(at: int, value: int, reason: str) -> None:
    data = bytearray(Message(WHO, (Request(1, WHO),), 1).encode())
    data[at] = value
    with pytest.raises(FormatError) as refusal:
        decode_message(bytes(data))
    assert str(refusal.value) == reason
