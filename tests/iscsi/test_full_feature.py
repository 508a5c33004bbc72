"""The full feature phase but for SCSI data: numbering, task management, NOP, text, logout, Reject, our own messages."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.iscsi.full_feature import MANAGEMENT_MAX
from arrayd.iscsi.pdu import (
    NO_TAG,
    AsyncEvent,
    LogoutReason,
    LogoutResponse,
    Opcode,
    RejectReason,
    SnackType,
    build,
)
from arrayd.iscsi.tasks import IMMEDIATE_MAX
from arrayd.scsi.task import Function, FunctionResponse, Status
from tests.iscsi.requests import TARGET, Pdu, read_10, write_10
from tests.iscsi.session_driver import BLOCK, DIGESTS, PATTERN, Host, assert_nothing_left, make_node
from tests.scsi.memory_volume import MemoryVolume

TEST_UNIT_READY = bytes(6)


def logged_in(*keys: dict[str, str], discovery: bool = False) -> Host:
    return Host(make_node()).login(*keys, discovery=discovery)


def expect_reject(host: Host, sent: bytes, reason: RejectReason) -> None:
    host.feed(sent)
    reject = host.only()
    assert (reject.opcode, reject.reason) == (Opcode.REJECT, reason)
    assert reject.data == sent[:48]
    assert host.ending() == (reason is RejectReason.PROTOCOL_ERROR)


# -- NOP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, DIGESTS], ids=["plain", "digests"])
@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("data", [b"", b"odd", PATTERN[:4096], PATTERN[:200_000]])
async def test_nop_out_is_echoed(keys: dict[str, str], immediate: bool, data: bytes) -> None:
    host = logged_in(keys)
    host.feed(host.nop(data, immediate=immediate, lun=7))
    answer = host.only()
    assert (answer.opcode, answer.data, answer.lun) == (Opcode.NOP_IN, data, 7)
    assert answer.target_transfer_tag == NO_TAG
    assert answer.exp_cmd_sn == host.cmd_sn


async def test_an_echo_is_cut_to_the_initiators_segment() -> None:
    host = logged_in({"MaxRecvDataSegmentLength": "512"})
    host.feed(host.nop(PATTERN[:1000]))
    assert host.only().data == PATTERN[:512]


async def test_ping_and_its_answer() -> None:
    host = logged_in()
    phase = host.connection.phase
    assert phase is not None
    for _ in range(3):
        assert phase.ping()
        assert host.woken
        host.pump()
        ping = host.only()
        assert (ping.opcode, ping.initiator_task_tag) == (Opcode.NOP_IN, NO_TAG)
        assert ping.target_transfer_tag != NO_TAG
        host.feed(
            host.pdu(
                Opcode.NOP_OUT,
                immediate=True,
                initiator_task_tag=NO_TAG,
                target_transfer_tag=ping.target_transfer_tag,
            )
        )
        assert not host.others
    assert phase.ping()
    assert not phase.ping()


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discovery", [True, False])
@pytest.mark.parametrize("value", ["All", TARGET, ""])
async def test_send_targets(discovery: bool, value: str) -> None:
    host = logged_in(discovery=discovery)
    text = f"SendTargets={value}\0".encode()
    host.feed(host.pdu(Opcode.TEXT_REQUEST, text, final=True, initiator_task_tag=host.new_tag()))
    answer = host.only()
    if (discovery and not value) or (not discovery and value == "All"):
        assert answer.data == b"SendTargets=Reject\0"
    else:
        assert answer.data == f"TargetName={TARGET}\0TargetAddress=127.0.0.1:3260,1\0".encode()
    assert answer.final


async def test_a_discovery_session_takes_text_and_logout_only() -> None:
    host = logged_in(discovery=True)
    for sent in (
        host.command(TEST_UNIT_READY),
        host.manage(Function.LUN_RESET),
        host.pdu(Opcode.TASK_MANAGEMENT_REQUEST, function=Function.ABORT_TASK, initiator_task_tag=9),
    ):
        expect_reject(host, sent, RejectReason.COMMAND_NOT_SUPPORTED)
    host.feed(host.pdu(Opcode.LOGOUT_REQUEST, immediate=True, initiator_task_tag=3))
    assert host.only().response == LogoutResponse.CLOSED
    host.close()
    assert_nothing_left(host.node)


# -- logout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "cid", "response"),
    [
        (LogoutReason.CLOSE_SESSION, 0, LogoutResponse.CLOSED),
        (LogoutReason.CLOSE_SESSION, 9, LogoutResponse.CLOSED),
        (LogoutReason.CLOSE_CONNECTION, 0, LogoutResponse.CLOSED),
        (LogoutReason.CLOSE_CONNECTION, 9, LogoutResponse.CID_NOT_FOUND),
        (LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY, 0, LogoutResponse.RECOVERY_NOT_SUPPORTED),
    ],
)
@pytest.mark.parametrize("immediate", [False, True])
async def test_logout(reason: LogoutReason, cid: int, response: LogoutResponse, immediate: bool) -> None:
    host = logged_in()
    host.feed(host.pdu(Opcode.LOGOUT_REQUEST, immediate=immediate, reason=reason, cid=cid, initiator_task_tag=5))
    answer = host.only()
    assert (answer.opcode, answer.response, answer.initiator_task_tag) == (Opcode.LOGOUT_RESPONSE, response, 5)
    assert host.ending() == (response == LogoutResponse.CLOSED)
    assert bool(host.node.sessions) == (response != LogoutResponse.CLOSED)
    host.close()
    assert_nothing_left(host.node)


async def test_logout_for_no_known_reason() -> None:
    host = logged_in()
    expect_reject(host, host.pdu(Opcode.LOGOUT_REQUEST, reason=3, initiator_task_tag=5), RejectReason.INVALID_PDU_FIELD)


async def test_logout_waits_until_no_task_can_touch_the_medium() -> None:
    volume = MemoryVolume()
    node = make_node({0: volume})
    host = Host(node).login()
    volume.held = asyncio.Event()
    host.feed(host.command(write_10(0, 1), out=PATTERN[:BLOCK]))
    task = host.outcomes[host.last_tag]
    await host.until(lambda: volume.waiting == 1)
    stream = host.pdu(Opcode.LOGOUT_REQUEST, immediate=True, initiator_task_tag=5)
    stream += host.command(read_10(0, 1), expected_in=BLOCK)
    host.feed(stream)
    rejected = host.only()
    assert rejected.reason == RejectReason.WAITING_FOR_LOGOUT
    assert not host.ending()
    assert not node.sessions
    volume.held.set()
    await host.until(lambda: bool(host.others))
    assert host.only().response == LogoutResponse.CLOSED
    assert host.ending()
    assert not task.ended
    host.close()
    assert_nothing_left(node)


async def test_what_ended_before_the_logout_is_answered_before_it() -> None:
    host = logged_in()
    stream = host.command(TEST_UNIT_READY)
    outcome = host.outcomes[host.last_tag]
    stream += host.pdu(Opcode.LOGOUT_REQUEST, initiator_task_tag=host.new_tag())
    stream += host.command(read_10(0, 1), expected_in=BLOCK)
    host.feed(stream)
    assert outcome.status == Status.GOOD
    assert [pdu.opcode for pdu in host.others] == [Opcode.LOGOUT_RESPONSE]
    assert not host.outcomes[host.last_tag].ended


# -- Reject -----------------------------------------------------------------------------------------------------------


async def test_rejects() -> None:
    for make, reason in (
        (lambda h: h.pdu(Opcode.SNACK_REQUEST, type=SnackType.STATUS), RejectReason.SNACK_REJECT),
        (lambda h: h.login_request({}), RejectReason.PROTOCOL_ERROR),
        (lambda h: bytes([0x3F]) + bytes(47), RejectReason.COMMAND_NOT_SUPPORTED),
        (lambda h: bytes([0x1C]) + bytes(47), RejectReason.COMMAND_NOT_SUPPORTED),
        (lambda h: h.command(TEST_UNIT_READY, read=True, write=True), RejectReason.COMMAND_NOT_SUPPORTED),
        (lambda h: h.command(TEST_UNIT_READY, ahs=b"\xff\xff\x01\0"), RejectReason.INVALID_PDU_FIELD),
        (lambda h: h.command(TEST_UNIT_READY, final=False), RejectReason.PROTOCOL_ERROR),
        (lambda h: h.command(TEST_UNIT_READY, immediate_data=b"data"), RejectReason.PROTOCOL_ERROR),
        (lambda h: h.pdu(Opcode.TEXT_REQUEST, b"no equals sign\0", final=True), RejectReason.PROTOCOL_ERROR),
    ):
        host = logged_in()
        expect_reject(host, make(host), reason)
        if not host.ending():
            assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD
        host.close()
        assert_nothing_left(host.node)


async def test_a_tag_that_is_in_use() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    volume.held = asyncio.Event()
    host.feed(host.command(read_10(0, 1), expected_in=BLOCK))
    tag, outcome = host.last_tag, host.outcomes[host.last_tag]
    expect_reject(host, host.command(TEST_UNIT_READY, tag=tag), RejectReason.TASK_IN_PROGRESS)
    host.outcomes[tag] = outcome
    volume.held.set()
    await host.until(lambda: outcome.ended)
    assert outcome.status == Status.GOOD


async def test_an_extended_cdb_is_put_together() -> None:
    """A 32-byte CDB, of which 16 bytes come in an AHS: no command here has one, and the sense data says so."""
    ahs = (17).to_bytes(2, "big") + b"\1\0" + bytes(16)
    host = logged_in()
    host.feed(host.command(b"\x7f" + bytes(15), ahs=ahs))
    assert host.outcomes[host.last_tag].sense[12:14] == b"\x20\0"


async def test_immediate_commands_are_bounded() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    volume.held = asyncio.Event()
    for _ in range(IMMEDIATE_MAX):
        host.feed(host.command(read_10(0, 1), expected_in=BLOCK, immediate=True))
    assert not host.others
    one_more = host.command(read_10(0, 1), expected_in=BLOCK, immediate=True)
    expect_reject(host, one_more, RejectReason.TOO_MANY_IMMEDIATE_COMMANDS)
    del host.outcomes[host.last_tag]
    volume.held.set()
    await host.until(lambda: all(outcome.ended for outcome in host.outcomes.values()))
    assert (await host.run(TEST_UNIT_READY, immediate=True)).status == Status.GOOD


# -- task management --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "lun", "response"),
    [
        (Function.ABORT_TASK, 0, FunctionResponse.TASK_DOES_NOT_EXIST),
        (Function.ABORT_TASK_SET, 0, FunctionResponse.COMPLETE),
        (Function.ABORT_TASK_SET, 5, FunctionResponse.LUN_DOES_NOT_EXIST),
        (Function.CLEAR_TASK_SET, 0, FunctionResponse.COMPLETE),
        (Function.LUN_RESET, 0, FunctionResponse.COMPLETE),
        (Function.LUN_RESET, 5, FunctionResponse.LUN_DOES_NOT_EXIST),
        (Function.TARGET_WARM_RESET, 0, FunctionResponse.COMPLETE),
        (Function.TASK_REASSIGN, 0, FunctionResponse.REASSIGNMENT_NOT_SUPPORTED),
        (Function.CLEAR_ACA, 0, FunctionResponse.NOT_SUPPORTED),
        (0, 0, FunctionResponse.NOT_SUPPORTED),
        (127, 0, FunctionResponse.NOT_SUPPORTED),
    ],
)
@pytest.mark.parametrize("immediate", [False, True])
async def test_function_responses(function: int, lun: int, response: FunctionResponse, immediate: bool) -> None:
    host = logged_in()
    host.feed(host.manage(function, lun, immediate=immediate))
    answer = host.only()
    assert (answer.opcode, answer.response) == (Opcode.TASK_MANAGEMENT_RESPONSE, response)


async def test_task_does_not_exist_comes_after_the_response_of_the_task() -> None:
    """Whoever reads in order then knows that the task ended well (RFC 7143, 11.6.1)."""
    host = logged_in()
    stream = host.command(TEST_UNIT_READY)
    tag = host.last_tag
    seen: list[int] = []
    receive = host._receive

    def note(pdu: Pdu) -> None:
        seen.append(pdu.opcode)
        receive(pdu)

    host._receive = note  # type: ignore[method-assign]
    host.feed(stream + host.manage(Function.ABORT_TASK, referenced_task_tag=tag, ref_cmd_sn=host.cmd_sn - 1))
    assert seen == [Opcode.SCSI_RESPONSE, Opcode.TASK_MANAGEMENT_RESPONSE]
    assert host.only().response == FunctionResponse.TASK_DOES_NOT_EXIST


async def test_functions_under_way_are_bounded() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    volume.held = asyncio.Event()
    host.feed(host.command(read_10(0, 1), expected_in=BLOCK))
    for _ in range(MANAGEMENT_MAX):
        host.feed(host.manage(Function.ABORT_TASK_SET))
    assert not host.others
    expect_reject(host, host.manage(Function.LUN_RESET), RejectReason.TOO_MANY_IMMEDIATE_COMMANDS)
    volume.held.set()
    await host.until(lambda: len(host.others) == MANAGEMENT_MAX)
    host.others.clear()
    host.feed(host.manage(Function.LUN_RESET))
    assert host.only().response == FunctionResponse.COMPLETE


async def test_a_cold_reset_is_answered_and_drops_every_session() -> None:
    node = make_node()
    host, other = Host(node).login(), Host(node, isid=bytes(6)).login()
    host.feed(host.manage(Function.TARGET_COLD_RESET) + host.command(read_10(0, 1), expected_in=BLOCK))
    assert host.only().response == FunctionResponse.COMPLETE
    assert not host.outcomes[host.last_tag].ended
    assert host.ending()
    assert other.connection.closing
    assert other.woken
    host.close()
    other.close()
    assert_nothing_left(node)


# -- messages of our own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, DIGESTS], ids=["plain", "digests"])
async def test_async_messages(keys: dict[str, str]) -> None:
    host = logged_in(keys)
    phase = host.connection.phase
    assert phase is not None
    phase.announce(AsyncEvent.LOGOUT_REQUESTED, 10)
    host.pump()
    message = host.only()
    assert (message.opcode, message.async_event) == (Opcode.ASYNC_MESSAGE, AsyncEvent.LOGOUT_REQUESTED)
    assert (message.parameter1, message.parameter2, message.parameter3) == (0, 0, 10)
    host.feed(host.nop())
    host.only()


async def test_what_finds_no_room_waits_for_it() -> None:
    """Pings, messages and function responses that meet a full output come later, in order, and keep PDUs out."""
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    phase = host.connection.phase
    assert phase is not None
    volume.held = asyncio.Event()
    host.feed(host.command(read_10(0, 1), expected_in=BLOCK) + host.manage(Function.ABORT_TASK_SET))
    host.reading = False
    while not host.connection.stalled:
        host.feed(host.nop(PATTERN[:8000]))
    assert phase.ping()
    phase.announce(AsyncEvent.LOGOUT_REQUESTED, 10)
    volume.held.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert phase.has_pending()
    host.reading = True
    host.pump()
    await host.until(lambda: not phase.tasks.by_tag)
    kinds = [pdu.opcode for pdu in host.others if pdu.opcode != Opcode.NOP_IN or pdu.initiator_task_tag == NO_TAG]
    assert sorted(kinds) == [Opcode.NOP_IN, Opcode.TASK_MANAGEMENT_RESPONSE, Opcode.ASYNC_MESSAGE]


async def test_every_target_opcode_is_rejected_and_takes_no_number() -> None:
    host = logged_in()
    for opcode in range(0x40):
        if opcode in {*(int(known) for known in Opcode if known < 0x20)}:
            continue
        sent = bytes([opcode]) + build(Opcode.NOP_OUT, cmd_sn=host.cmd_sn)[1:]
        expect_reject(host, sent, RejectReason.COMMAND_NOT_SUPPORTED)
    assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD
