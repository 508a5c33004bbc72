"""The initiator's session without I/O: commands, R2T, pings, and targets that break the protocol."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.host.login import Agreed
from arrayd.host.session import Session, SessionEnded
from arrayd.host.transport import Outcome
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, AsyncEvent, Opcode, build_header, parse_header
from tests.lab.search import examples

NUMBERS = {"stat_sn": 7, "exp_cmd_sn": 2, "max_cmd_sn": 20}
AGREED = Agreed(immediate=16, segment=8, cmd_sn=1, exp_stat_sn=7)
READ = bytes([0x28])


def pdus(data: bytes) -> list[tuple[Any, bytes]]:
    found = []
    while data:
        header = parse_header(data[:BHS_BYTES])
        length = header.data_segment_length
        found.append((header, data[BHS_BYTES : BHS_BYTES + length]))
        data = data[BHS_BYTES + length + -length % 4 :]
    return found


def begun(data_out: bytes = b"", read_bytes: int = 0) -> tuple[Session, int]:
    session = Session(AGREED)
    ((header, _),) = pdus(session.command(0, READ, data_out, read_bytes))
    return session, header.initiator_task_tag


def test_a_command_carries_immediate_data() -> None:
    session = Session(AGREED)
    ((header, data),) = pdus(session.command(300, READ, bytes(range(20))))
    assert data == bytes(range(16))
    assert (header.write, header.read, header.final) == (True, False, True)
    assert (header.lun, header.expected_data_transfer_length) == (0x412C << 48, 20)
    assert (header.cmd_sn, header.exp_stat_sn) == (1, 7)


def test_data_in_comes_together_and_a_short_one_is_short() -> None:
    session, tag = begun(read_bytes=12)
    numbers = {**NUMBERS, "initiator_task_tag": tag}
    session.receive(build_header(Opcode.DATA_IN, buffer_offset=4, **numbers, final=False), b"5678")
    session.receive(build_header(Opcode.DATA_IN, buffer_offset=0, **numbers, final=False), b"1234")
    assert session.outcome is None
    session.receive(build_header(Opcode.SCSI_RESPONSE, underflow=True, residual_count=4, **numbers), b"")
    assert session.outcome == Outcome(0, b"", b"12345678")


def test_the_last_data_in_may_carry_the_status() -> None:
    session, tag = begun(read_bytes=4)
    header = build_header(Opcode.DATA_IN, has_status=True, status=0, initiator_task_tag=tag, **NUMBERS)
    session.receive(header, b"1234")
    assert session.outcome == Outcome(0, b"", b"1234")
    ((following, _),) = pdus(session.command(0, READ, b"", 4))
    assert following.exp_stat_sn == 8
    assert following.cmd_sn == 2


def test_sense_comes_with_a_response() -> None:
    session, tag = begun()
    header = build_header(Opcode.SCSI_RESPONSE, status=2, initiator_task_tag=tag, **NUMBERS)
    session.receive(header, (3).to_bytes(2, "big") + b"\x72\x05\x20")
    assert session.outcome == Outcome(2, b"\x72\x05\x20")


def test_an_r2t_is_answered_in_pieces_that_the_target_takes() -> None:
    session, tag = begun(bytes(range(40)))
    numbers = {**NUMBERS, "initiator_task_tag": tag, "target_transfer_tag": 5}
    r2t = build_header(Opcode.R2T, buffer_offset=16, desired_data_transfer_length=20, **numbers)
    sent = pdus(session.receive(r2t, b""))
    assert [(header.buffer_offset, header.data_sn, header.final) for header, _ in sent] == [
        (16, 0, False), (24, 1, False), (32, 2, True)
    ]  # fmt: skip
    assert b"".join(data for _, data in sent) == bytes(range(16, 36))
    assert {header.target_transfer_tag for header, _ in sent} == {5}


def test_a_ping_is_answered_between_commands_and_within() -> None:
    for session in (Session(AGREED), begun(read_bytes=4)[0]):
        ping = build_header(Opcode.NOP_IN, initiator_task_tag=NO_TAG, target_transfer_tag=9, **NUMBERS)
        ((pong, data),) = pdus(session.receive(ping, b"are you there?"))
        assert (pong.opcode, pong.immediate, pong.target_transfer_tag) == (Opcode.NOP_OUT, True, 9)
        assert pong.initiator_task_tag == NO_TAG
        assert data == b"are you there?"
        ((following, _),) = pdus(Session(AGREED).command(0, READ))
        assert following.exp_stat_sn == 7, "a ping uses no StatSN up"


@pytest.mark.parametrize(
    ("opcode", "fields", "expected"),
    [
        (Opcode.ASYNC_MESSAGE, {"async_event": AsyncEvent.LOGOUT_REQUESTED}, "ends the session"),
        (Opcode.REJECT, {"reason": 4}, "broke the protocol"),
        (Opcode.DATA_IN, {"buffer_offset": 9}, "more Data-In"),
        (Opcode.R2T, {"buffer_offset": 0, "desired_data_transfer_length": 9}, "for data that there is not"),
        (Opcode.SCSI_RESPONSE, {"response": 1}, "the target failed"),
        (Opcode.SCSI_RESPONSE, {"initiator_task_tag": 77}, "for no command"),
        (Opcode.TEXT_RESPONSE, {}, "to a command"),
    ],
)
def test_what_ends_a_session(opcode: Opcode, fields: dict[str, Any], expected: str) -> None:
    session, tag = begun(read_bytes=4)
    tags = {} if opcode in (Opcode.ASYNC_MESSAGE, Opcode.REJECT) else {"initiator_task_tag": tag}
    with pytest.raises(SessionEnded, match=expected):
        session.receive(build_header(opcode, **{**NUMBERS, **tags, **fields}), b"1234")


def test_a_window_that_is_closed_ends_it() -> None:
    session, tag = begun()
    header = build_header(Opcode.SCSI_RESPONSE, initiator_task_tag=tag, stat_sn=7, exp_cmd_sn=2, max_cmd_sn=1)
    session.receive(header, b"")
    with pytest.raises(SessionEnded, match="no more commands"):
        session.command(0, READ)


@settings(max_examples=examples(500), deadline=None)
@given(
    opcode=st.sampled_from([*Opcode, None]),
    rest=st.binary(min_size=BHS_BYTES - 1, max_size=BHS_BYTES - 1),
    ours=st.booleans(),
    data=st.binary(max_size=64),
)
def test_no_pdu_breaks_it(opcode: int | None, rest: bytes, ours: bool, data: bytes) -> None:
    """Whatever comes: something to send, or SessionEnded; never another exception, and never too much."""
    session, tag = begun(bytes(40))
    bhs = bytes([0x3F if opcode is None else opcode]) + rest
    if ours:
        bhs = bhs[:16] + tag.to_bytes(4, "big") + bhs[20:]
    try:
        sent = session.receive(bhs, data)
    except SessionEnded:
        return
    assert len(sent) <= 40 * (BHS_BYTES + 8)
