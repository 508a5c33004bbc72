"""Tasks and their Data-Out: what is asked for, what comes, what does not, and what is left when it ends."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.iscsi.connection import BULK_HEAD_BYTES
from arrayd.iscsi.pdu import NO_TAG, Opcode
from arrayd.iscsi.tasks import SHARE_BYTES, UNASKED_FACTOR
from arrayd.scsi.task import Function, Status
from tests.iscsi.requests import read_10, write_10
from tests.iscsi.session_driver import BLOCK, DIGESTS, PATTERN, SOLICITED, Host, assert_nothing_left, blocks, make_node
from tests.scsi.memory_volume import MemoryVolume


@pytest.mark.parametrize("outstanding", range(1, 9))
async def test_r2t_keeps_to_what_was_agreed(outstanding: int) -> None:
    volume = MemoryVolume()
    node = make_node({0: volume})
    host = Host(node).login(SOLICITED, {"MaxOutstandingR2T": str(outstanding), "MaxBurstLength": "8192"})
    out = PATTERN[: blocks(200)]
    host.feed(host.command(write_10(0, 200), out=out))
    outcome = host.outcomes[host.last_tag]
    done = 0
    while not outcome.ended:
        assert 0 < len(outcome.asked) - done <= outstanding
        host.feed(host.answer_to(outcome.asked[done], out, 4096))
        done += 1
    assert len(outcome.asked) == done == 13
    assert all(r2t.desired_data_transfer_length == 8192 for r2t in outcome.asked[:-1])
    assert len({r2t.target_transfer_tag for r2t in outcome.asked}) == done
    assert outcome.status == Status.GOOD
    assert volume.data[: len(out)] == out
    host.close()
    assert_nothing_left(node)


async def test_immediate_unsolicited_and_solicited_data_of_one_command() -> None:
    volume = MemoryVolume()
    node = make_node({0: volume})
    host = Host(node).login({"FirstBurstLength": "16384"})
    out = PATTERN[: blocks(64)]
    host.feed(host.command(write_10(0, 64), out=out, immediate_data=out[:4096], final=False))
    tag, outcome = host.last_tag, host.outcomes[host.last_tag]
    assert not outcome.asked
    host.feed(host.data_out(tag, NO_TAG, 0, 4096, out[4096:8192], False))
    assert not outcome.asked
    host.feed(host.data_out(tag, NO_TAG, 1, 8192, out[8192:16384], True))
    (r2t,) = outcome.asked
    assert (r2t.buffer_offset, r2t.desired_data_transfer_length) == (16384, 16384)
    host.feed(host.answer_to(r2t, out))
    assert outcome.status == Status.GOOD
    assert volume.data[: len(out)] == out
    host.close()
    assert_nothing_left(node)


@pytest.mark.parametrize("count", [8, 600])
async def test_a_read_that_comes_with_data(count: int) -> None:
    """The wrong direction: no data goes either way, and what was read for it is given back."""
    node = make_node({0: MemoryVolume()})
    host = Host(node).login()
    outcome = await host.run(read_10(0, count), out=PATTERN[: blocks(count)])
    assert outcome.end is not None
    assert outcome.end.opcode == Opcode.SCSI_RESPONSE
    assert not outcome.data
    assert (await host.run(read_10(0, 8), expected_in=blocks(8))).status == Status.GOOD
    host.close()
    assert_nothing_left(node)


@pytest.mark.parametrize("piece", [100, 5000, BULK_HEAD_BYTES, 100_000])
@pytest.mark.parametrize("keys", [SOLICITED, SOLICITED | DIGESTS], ids=["plain", "digests"])
async def test_more_data_than_the_cdb_asks_for(piece: int, keys: dict[str, str]) -> None:
    """The rest is taken and dropped when it comes unasked, and not asked for; the residual says so."""
    volume = MemoryVolume()
    host = Host(make_node({0: volume}), piece=piece).login(keys, {"InitialR2T": "No", "FirstBurstLength": "131072"})
    out = PATTERN[:131072]
    host.feed(host.command(write_10(0, 10), out=out, final=False))
    tag, outcome = host.last_tag, host.outcomes[host.last_tag]
    host.feed(host.data_out(tag, NO_TAG, 0, 0, out[:3000], False))
    host.feed(host.data_out(tag, NO_TAG, 1, 3000, out[3000:100_000], False))
    assert not outcome.ended
    host.feed(host.data_out(tag, NO_TAG, 2, 100_000, out[100_000:], True))
    assert outcome.end is not None
    assert outcome.status == Status.GOOD
    assert outcome.end.underflow
    assert outcome.end.residual_count == len(out) - blocks(10)
    assert volume.data[: blocks(11)] == out[: blocks(10)] + bytes(BLOCK)
    assert not outcome.asked
    host.close()
    assert_nothing_left(host.node)


async def test_a_failed_command_is_answered_when_its_unsolicited_data_has_come() -> None:
    host = Host(make_node()).login()
    out = PATTERN[: blocks(16)]
    host.feed(host.command(write_10(1 << 30, 16), out=out, immediate_data=b"", final=False))
    tag, outcome = host.last_tag, host.outcomes[host.last_tag]
    host.feed(host.data_out(tag, NO_TAG, 0, 0, out[:4096], False))
    assert not outcome.ended
    host.feed(host.data_out(tag, NO_TAG, 1, 4096, out[4096:], True))
    assert outcome.status == Status.CHECK_CONDITION
    host.feed(host.nop())
    assert host.only().opcode == Opcode.NOP_IN
    host.close()
    assert_nothing_left(host.node)


@pytest.mark.parametrize("keys", [{}, DIGESTS], ids=["plain", "digests"])
@pytest.mark.parametrize("come", [0, 48, 49, 1000, 48 + 65536, 48 + 65536 + 3, 48 + 65536 * 2 - 1])
async def test_close_in_the_middle_of_data_out_writes_nothing(come: int, keys: dict[str, str]) -> None:
    volume = MemoryVolume()
    node = make_node({0: volume})
    host = Host(node, piece=40_000).login(SOLICITED, keys)
    out = PATTERN[:131072]
    host.feed(host.command(write_10(0, 256), out=out))
    (r2t,) = host.outcomes[host.last_tag].asked
    host.feed(host.answer_to(r2t, out, 65536)[:come])
    assert node.buffers.used_bytes
    host.close()
    assert_nothing_left(node)
    assert not any(volume.data)
    host.connection.closed()  # a second time does nothing


@pytest.mark.parametrize("keys", [{}, DIGESTS], ids=["plain", "digests"])
async def test_abort_in_the_middle_of_a_data_out(keys: dict[str, str]) -> None:
    """The buffer stays the connection's until the Data-Out has come wholly; then it is anybody's."""
    volume = MemoryVolume()
    node = make_node({0: volume})
    host = Host(node, piece=10_000).login(SOLICITED, keys)
    other = Host(node, isid=bytes(6)).login()
    out = PATTERN[:131072]
    host.feed(host.command(write_10(0, 256), out=out))
    tag = host.last_tag
    (r2t,) = host.outcomes[tag].asked
    pdus = host.answer_to(r2t, out, 131072)
    host.feed(pdus[:50_000])
    other.feed(other.manage(Function.LUN_RESET))
    assert other.only().response == 0
    assert (node.buffers.used_bytes > 0) == (not keys)
    host.feed(pdus[50_000:])
    assert node.buffers.used_bytes == 0
    assert not host.outcomes[tag].ended
    assert not any(volume.data)
    host.feed(host.nop(b"still here"))
    assert host.only().data == b"still here"
    assert (await host.run(bytes(6))).sense[12:14] == b"\x29\x03"
    assert (await host.run(write_10(0, 256), out=out)).status == Status.GOOD
    assert volume.data[: len(out)] == out
    host.close()
    other.close()
    assert_nothing_left(node)


@pytest.mark.parametrize(
    ("fields", "asc"),
    [
        ({"data_sn": 1}, 0x4705),
        ({"offset": 512}, 0x4705),
        ({"transfer_tag": 99}, 0x0C0C),
        ({"transfer_tag": NO_TAG}, 0x0C0C),
        ({"final": True}, 0x0C0D),
        ({"data": PATTERN[:16384]}, 0x0C0D),
    ],
)
@pytest.mark.parametrize("keys", [{}, DIGESTS], ids=["plain", "digests"])
async def test_data_out_that_is_not_what_was_asked_for_ends_its_task(
    fields: dict[str, object], asc: int, keys: dict[str, str]
) -> None:
    volume = MemoryVolume()
    host = Host(make_node({0: volume})).login(SOLICITED, keys, {"MaxBurstLength": "8192"})
    out = PATTERN[:16384]
    host.feed(host.command(write_10(0, 32), out=out))
    tag, outcome = host.last_tag, host.outcomes[host.last_tag]
    (r2t,) = outcome.asked
    right = {"transfer_tag": r2t.target_transfer_tag, "data_sn": 0, "offset": 0, "data": out[:4096], "final": False}
    host.feed(host.data_out(tag, **right | fields))
    assert outcome.status == Status.CHECK_CONDITION
    assert (outcome.sense[2], int.from_bytes(outcome.sense[12:14], "big")) == (0x0B, asc)
    host.feed(host.data_out(tag, r2t.target_transfer_tag, 0, 0, out[:8192], True))
    host.feed(host.nop())
    assert host.only().opcode == Opcode.NOP_IN
    assert not any(volume.data)
    assert host.node.buffers.used_bytes == 0
    host.close()
    assert_nothing_left(host.node)


async def test_data_out_of_a_task_that_is_not_there_is_passed_over() -> None:
    host = Host(make_node(), piece=1000).login()
    host.feed(host.data_out(77, NO_TAG, 0, 0, PATTERN[:200_000], True))
    host.feed(host.data_out(77, 5, 0, 0, b"odd", True))
    host.feed(host.data_out(77, 5, 0, 0, b"", True))
    host.feed(host.nop())
    assert host.only().opcode == Opcode.NOP_IN


# -- the share of the buffers -----------------------------------------------------------------------------------------

LARGE = 8 << 20
"""As much as one command may transfer."""


def large_volume() -> MemoryVolume:
    return MemoryVolume(size=LARGE)


async def test_writes_beyond_the_share_are_asked_for_later() -> None:
    volume = large_volume()
    node = make_node({0: volume})
    host = Host(node, piece=300_000).login(SOLICITED, {"MaxBurstLength": str(LARGE)})
    tasks = []
    for _ in range(10):
        host.feed(host.command(write_10(0, LARGE // BLOCK), out=bytes(LARGE)))
        tasks.append(host.outcomes[host.last_tag])
    fit = SHARE_BYTES // LARGE
    assert [len(task.asked) for task in tasks] == [1] * fit + [0] * (10 - fit)
    assert node.buffers.used_bytes == SHARE_BYTES
    other = Host(node, isid=bytes(6)).login(SOLICITED)
    assert (await other.run(write_10(0, 256), out=PATTERN[: blocks(256)])).status == Status.GOOD
    for number, task in enumerate(tasks):
        assert len(task.asked) == 1
        host.feed(host.answer_to(task.asked[0], bytes([number]) * LARGE))
        assert task.status == Status.GOOD
    assert set(volume.data) == {9}
    host.close()
    other.close()
    assert_nothing_left(node)


async def test_reads_beyond_the_share_begin_later() -> None:
    volume = large_volume()
    volume.data[:] = PATTERN * (LARGE // len(PATTERN))
    node = make_node({0: volume})
    host = Host(node).login({"MaxRecvDataSegmentLength": str(LARGE), "MaxBurstLength": str(LARGE)})
    volume.held = asyncio.Event()
    for _ in range(10):
        host.feed(host.command(read_10(0, LARGE // BLOCK), expected_in=LARGE))
    fit = SHARE_BYTES // LARGE
    await host.until(lambda: volume.waiting == fit)
    host.feed(host.manage(Function.ABORT_TASK, referenced_task_tag=host.last_tag))
    assert host.only().response == 0
    aborted = host.outcomes.pop(host.last_tag)
    volume.held.set()
    volume.held = None
    await host.until(lambda: all(outcome.ended for outcome in host.outcomes.values()))
    assert not aborted.ended
    assert all(outcome.data == volume.data for outcome in host.outcomes.values())
    host.close()
    assert_nothing_left(node)


async def test_data_that_comes_unasked_beyond_every_limit_is_dropped() -> None:
    volume = large_volume()
    node = make_node({0: volume})
    host = Host(node).login({"MaxBurstLength": str(LARGE)})
    tasks = []
    for _ in range(20):
        host.feed(host.command(write_10(0, LARGE // BLOCK), out=bytes(LARGE), immediate_data=bytes(BLOCK)))
        tasks.append(host.outcomes[host.last_tag])
    fit = SHARE_BYTES * UNASKED_FACTOR // LARGE
    assert [len(task.asked) for task in tasks[:fit]] == [1] * fit
    assert all(task.status == Status.TASK_SET_FULL for task in tasks[fit + 1 :])
    assert node.buffers.used_bytes <= SHARE_BYTES * UNASKED_FACTOR
    host.feed(host.answer_to(tasks[0].asked[0], bytes(LARGE)))
    assert tasks[0].status == Status.GOOD
    host.close()
    assert_nothing_left(node)


async def test_a_pool_that_others_have_used_up_is_waited_for() -> None:
    volume = large_volume()
    node = make_node({0: volume}, limit_bytes=1 << 20)
    first, second = Host(node).login(SOLICITED), Host(node, isid=bytes(6)).login(SOLICITED)
    for host in (first, second, second):
        host.feed(host.command(write_10(0, 2048), out=PATTERN[: blocks(2048)]))
    one, three = first.outcomes[first.last_tag], second.outcomes[second.last_tag]
    assert (len(one.asked), len(three.asked)) == (1, 0)
    second.feed(second.manage(Function.ABORT_TASK, referenced_task_tag=second.last_tag - 1))
    assert second.only().response == 0
    first.feed(first.answer_to(one.asked[0], PATTERN))
    assert one.status == Status.GOOD
    assert second.woken
    second.pump()
    assert len(three.asked) == 1
    second.feed(second.answer_to(three.asked[0], PATTERN))
    assert three.status == Status.GOOD
    first.close()
    second.close()
    assert_nothing_left(node)
