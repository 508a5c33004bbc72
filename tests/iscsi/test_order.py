"""The command window: order, duplicates, gaps, and commands that are aborted before they come."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.iscsi.numbers import COMMAND_WINDOW
from arrayd.iscsi.order import HELD_BYTES_MAX
from arrayd.iscsi.pdu import Opcode
from arrayd.scsi.task import Function, FunctionResponse, Status
from tests.iscsi.requests import read_10, write_10
from tests.iscsi.session_driver import BLOCK, PATTERN, Host, assert_nothing_left, make_node
from tests.scsi.memory_volume import MemoryVolume

TEST_UNIT_READY = bytes(6)


def logged_in() -> Host:
    return Host(make_node()).login()


async def test_duplicates_and_commands_out_of_the_window_are_ignored() -> None:
    host = logged_in()
    first = host.command(TEST_UNIT_READY)
    outcome = host.outcomes[host.last_tag]
    host.feed(first)
    assert outcome.status == Status.GOOD
    start = host.cmd_sn
    host.feed(first)
    for cmd_sn in (start - 1, start + COMMAND_WINDOW, start + (1 << 31)):
        host.feed(host.command(TEST_UNIT_READY, cmd_sn=cmd_sn & 0xFFFFFFFF))
        assert not host.outcomes[host.last_tag].ended
        host.feed(host.nop(cmd_sn=cmd_sn & 0xFFFFFFFF))
    assert not host.others
    assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD


async def test_commands_that_come_before_their_turn_wait_for_it() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    start = host.cmd_sn
    order = [5, 3, 4, 3, 1, 2, 0]
    for ahead in order:
        cmd_sn = (start + ahead) & 0xFFFFFFFF
        host.cmd_sn = (start + 6) & 0xFFFFFFFF
        host.feed(host.command(write_10(ahead, 1), out=bytes([ahead + 1]) * BLOCK, cmd_sn=cmd_sn))
        assert bool(volume.data[0]) == (ahead == 0)
    done = [outcome for outcome in host.outcomes.values() if outcome.ended]
    assert len(done) == 6
    assert [volume.data[BLOCK * number] for number in range(7)] == [1, 2, 3, 4, 5, 6, 0]


async def test_a_held_command_that_is_rejected_does_not_stop_the_others() -> None:
    host = logged_in()
    start = host.cmd_sn
    host.cmd_sn = (start + 3) & 0xFFFFFFFF
    bad = host.pdu(Opcode.LOGOUT_REQUEST, reason=9, initiator_task_tag=77, cmd_sn=(start + 1) & 0xFFFFFFFF)
    last = host.command(TEST_UNIT_READY, cmd_sn=(start + 2) & 0xFFFFFFFF)
    host.feed(last + bad)
    assert not host.others
    host.feed(host.nop(cmd_sn=start))
    assert [pdu.opcode for pdu in host.others] == [Opcode.NOP_IN, Opcode.REJECT]
    assert host.others[1].data == bad[:48]
    assert host.outcomes[host.last_tag].status == Status.GOOD


async def test_what_is_held_is_bounded() -> None:
    host = logged_in()
    start = host.cmd_sn
    host.cmd_sn = (start + 100) & 0xFFFFFFFF
    for ahead in range(1, 100):
        host.feed(host.nop(PATTERN[:100_000], cmd_sn=(start + ahead) & 0xFFFFFFFF))
        if host.connection.closing:
            break
    assert ahead == HELD_BYTES_MAX // 100_048 + 1
    host.close()
    assert_nothing_left(host.node)


async def test_the_window_closes_when_it_is_full_and_opens_again() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    volume.held = asyncio.Event()
    for _ in range(COMMAND_WINDOW):
        host.feed(host.command(read_10(0, 1), expected_in=BLOCK))
    host.feed(host.nop(immediate=True))
    assert (host.max_cmd_sn, host.only().exp_cmd_sn) == ((host.cmd_sn - 1) & 0xFFFFFFFF, host.cmd_sn)
    cmd_sn = host.cmd_sn
    host.feed(host.command(TEST_UNIT_READY))
    assert not host.outcomes[host.last_tag].ended
    host.cmd_sn = cmd_sn
    volume.held.set()
    del host.outcomes[host.last_tag]
    await host.until(lambda: all(outcome.ended for outcome in host.outcomes.values()))
    assert host.max_cmd_sn == (host.cmd_sn + COMMAND_WINDOW - 1) & 0xFFFFFFFF
    assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD


def abort(host: Host, tag: int, ref_cmd_sn: int) -> FunctionResponse:
    host.feed(host.manage(Function.ABORT_TASK, referenced_task_tag=tag, ref_cmd_sn=ref_cmd_sn & 0xFFFFFFFF))
    return FunctionResponse([pdu for pdu in host.others if pdu.opcode == Opcode.TASK_MANAGEMENT_RESPONSE][-1].response)


async def test_abort_of_a_command_that_is_still_to_come_counts_it_as_come() -> None:
    host = logged_in()
    start = host.cmd_sn
    host.cmd_sn = (start + 4) & 0xFFFFFFFF
    held = host.command(TEST_UNIT_READY, cmd_sn=(start + 3) & 0xFFFFFFFF)
    outcome = host.outcomes[host.last_tag]
    host.feed(held)
    assert abort(host, 500, start + 1) is FunctionResponse.COMPLETE
    assert abort(host, 501, start + 2) is FunctionResponse.COMPLETE
    assert not outcome.ended
    host.feed(host.command(TEST_UNIT_READY, cmd_sn=(start + 1) & 0xFFFFFFFF))
    assert not host.outcomes[host.last_tag].ended
    assert abort(host, 502, start) is FunctionResponse.COMPLETE
    assert outcome.status == Status.GOOD
    assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD


async def test_abort_of_a_held_command() -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login()
    start = host.cmd_sn
    host.cmd_sn = (start + 2) & 0xFFFFFFFF
    host.feed(host.command(write_10(0, 1), out=PATTERN[:BLOCK], cmd_sn=(start + 1) & 0xFFFFFFFF))
    assert abort(host, host.last_tag, start + 1) is FunctionResponse.COMPLETE
    host.feed(host.nop(cmd_sn=start))
    assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD
    assert not any(volume.data)


@pytest.mark.parametrize("ahead", [-1, 0, 1, COMMAND_WINDOW + 1, 1 << 30])
async def test_abort_of_what_is_not_there(ahead: int) -> None:
    host = logged_in()
    assert abort(host, 500, host.cmd_sn + ahead) is FunctionResponse.TASK_DOES_NOT_EXIST
    assert (await host.run(TEST_UNIT_READY)).status == Status.GOOD
