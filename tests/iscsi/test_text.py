"""Text requests of the full feature phase (RFC 7143, 11.10 and 11.11)."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.keys import Pair, parse_pairs
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, Opcode, ProtocolError, RejectReason, build_header, parse_header
from arrayd.iscsi.text import TEXT_BYTES_MAX, TextExchange, TextReply

TARGET = ("TargetName", "iqn.2026-11.io.arrayd:primary")
ADDRESSES = [("TargetAddress", f"192.0.2.{number}:3260,1") for number in range(100)]


@dataclass
class Initiator:
    """Sends Text Requests to an exchange that knows one target."""

    max_send_segment: int = 8192
    answer: list[Pair] | None = field(default_factory=lambda: [TARGET, ADDRESSES[1]])
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exchange = TextExchange(self.max_send_segment, self.send_targets)

    def send_targets(self, value: str) -> list[Pair] | None:
        self.asked.append(value)
        return self.answer

    def send(
        self, text: bytes = b"", ttt: int = NO_TAG, final: bool = True, continue_: bool = False, itt: int = 5
    ) -> TextReply:
        header = build_header(
            Opcode.TEXT_REQUEST,
            final=final,
            continue_=continue_,
            initiator_task_tag=itt,
            target_transfer_tag=ttt,
            data_segment_length=len(text),
        )
        return self.exchange.receive(header, text)

    def refused(self, text: bytes = b"", **fields: Any) -> RejectReason:
        with pytest.raises(ProtocolError) as caught:
            self.send(text, **fields)
        return caught.value.reason


def test_send_targets() -> None:
    host = Initiator()
    reply = host.send(b"SendTargets=All\0")
    assert host.asked == ["All"]
    assert parse_pairs(reply.data) == [TARGET, ADDRESSES[1]]
    assert (reply.final, reply.continue_, reply.target_transfer_tag) == (True, False, NO_TAG)


def test_the_response_on_the_wire() -> None:
    pdu = Initiator().send(b"SendTargets=All\0").build(0x11, 0x22, 0x33)
    assert pdu[:BHS_BYTES] == bytes.fromhex(
        "24800000 00000048 00000000 00000000 00000005 ffffffff 00000011 00000022 00000033 00000000 00000000 00000000"
    )
    assert pdu[BHS_BYTES:] == (
        b"TargetName=iqn.2026-11.io.arrayd:primary\0TargetAddress=192.0.2.1:3260,1\0".ljust(72, b"\0")
    )


def test_send_targets_rejected() -> None:
    assert Initiator(answer=None).send(b"SendTargets=All\0").data == b"SendTargets=Reject\0"


def test_send_targets_is_looked_up_once_a_negotiation() -> None:
    host = Initiator()
    reply = host.send(b"SendTargets=All\0" * 50, final=False)
    host.send(b"SendTargets=All\0", ttt=reply.target_transfer_tag)
    assert host.asked == ["All"]


def test_other_keys() -> None:
    text = b"MaxRecvDataSegmentLength=4096\0X-a=1\0MaxBurstLength=4096\0InitiatorAlias=me\0"
    host = Initiator()
    assert host.send(text).data == b"X-a=NotUnderstood\0MaxBurstLength=Reject\0"
    assert host.exchange.max_send_segment == 4096


def test_a_declared_segment_length_counts_when_the_negotiation_has_ended() -> None:
    host = Initiator()
    reply = host.send(b"MaxRecvDataSegmentLength=512\0", final=False)
    assert not reply.final
    assert host.exchange.max_send_segment == 8192
    assert host.send(ttt=reply.target_transfer_tag).final
    assert host.exchange.max_send_segment == 512


def test_a_declared_segment_length_may_be_declared_again_later() -> None:
    host = Initiator()
    for length in (4096, 512):
        host.send(f"MaxRecvDataSegmentLength={length}\0".encode())
        assert host.exchange.max_send_segment == length


def test_a_long_answer_comes_in_segments() -> None:
    host = Initiator(max_send_segment=512, answer=[TARGET, *ADDRESSES])
    reply = host.send(b"SendTargets=All\0")
    tag = reply.target_transfer_tag
    assert tag != NO_TAG
    received = reply.data
    while not reply.final:
        assert (reply.continue_, reply.target_transfer_tag, len(reply.data)) == (True, tag, 512)
        reply = host.send(ttt=tag)
        received += reply.data
    assert (reply.continue_, reply.target_transfer_tag) == (False, NO_TAG)
    assert parse_pairs(received) == [TARGET, *ADDRESSES]


@given(st.lists(st.integers(0, 16), max_size=4))
def test_a_request_may_be_cut_anywhere(cuts: list[int]) -> None:
    text = b"SendTargets=All\0"
    pieces = [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]
    host, tag = Initiator(), NO_TAG
    for piece in pieces[:-1]:
        reply = host.send(piece, ttt=tag, final=False, continue_=True)
        assert (reply.data, reply.final, reply.continue_) == (b"", False, False)
        tag = reply.target_transfer_tag
        assert tag != NO_TAG
    assert parse_pairs(host.send(pieces[-1], ttt=tag).data) == [TARGET, ADDRESSES[1]]


def test_a_new_negotiation_forgets_the_one_before() -> None:
    host = Initiator()
    old = host.send(b"Send", final=False, continue_=True).target_transfer_tag
    assert parse_pairs(host.send(b"SendTargets=All\0", itt=6).data) == [TARGET, ADDRESSES[1]]
    assert host.refused(b"Targets=All\0", ttt=old) is RejectReason.INVALID_PDU_FIELD


def test_tags_of_no_negotiation() -> None:
    host = Initiator()
    assert host.refused(ttt=1) is RejectReason.INVALID_PDU_FIELD
    tag = host.send(b"A=1\0", final=False).target_transfer_tag
    assert host.refused(ttt=tag + 1) is RejectReason.INVALID_PDU_FIELD
    tag = host.send(b"A=1\0", final=False).target_transfer_tag
    assert host.refused(ttt=tag, itt=6) is RejectReason.INVALID_PDU_FIELD
    tag = host.send(b"A=1\0", final=False).target_transfer_tag
    assert host.send(ttt=tag).final


@pytest.mark.parametrize(
    "text", [b"cut", b"=\0", b"MaxRecvDataSegmentLength=1\0", b"A=\xff\0", b"InitiatorAlias=a\0InitiatorAlias=b\0"]
)
def test_text_that_cannot_be(text: bytes) -> None:
    host = Initiator()
    assert host.refused(text) is RejectReason.PROTOCOL_ERROR
    assert host.send(b"SendTargets=All\0").final


def test_final_and_continue_exclude_each_other() -> None:
    assert Initiator().refused(b"A=", continue_=True) is RejectReason.INVALID_PDU_FIELD


def test_nothing_may_be_said_before_the_answer_has_ended() -> None:
    host = Initiator(max_send_segment=512, answer=[TARGET, *ADDRESSES])
    tag = host.send(b"SendTargets=All\0").target_transfer_tag
    assert host.refused(b"A=1\0", ttt=tag) is RejectReason.PROTOCOL_ERROR


def test_text_without_end() -> None:
    host, tag = Initiator(), NO_TAG
    for _ in range(TEXT_BYTES_MAX // 8192):
        tag = host.send(b"x" * 8192, ttt=tag, final=False, continue_=True).target_transfer_tag
    assert host.refused(b"x", ttt=tag, final=False, continue_=True) is RejectReason.PROTOCOL_ERROR


REQUEST = st.tuples(
    st.one_of(st.binary(max_size=30), st.sampled_from([b"SendTargets=All\0", b"X-a=1\0", b"MaxRecv", b""])),
    st.sampled_from([NO_TAG, 1, 2, 3]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([5, 6]),
)


@given(st.lists(REQUEST, max_size=10))
def test_any_requests_are_answered_or_rejected(requests: list[tuple[bytes, int, bool, bool, int]]) -> None:
    host = Initiator(max_send_segment=512)
    for text, tag, final, continue_, itt in requests:
        try:
            reply = host.send(text, tag, final, continue_, itt)
        except ProtocolError:
            continue
        assert len(reply.data) <= 512
        assert reply.initiator_task_tag == itt
        assert reply.final == (reply.target_transfer_tag == NO_TAG)
        assert not (reply.final and (reply.continue_ or not final))
        header = parse_header(reply.build(1, 2, 3)[:BHS_BYTES])
        assert (header.final, header.continue_) == (reply.final, reply.continue_)
