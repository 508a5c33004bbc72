"""Task management with tasks in flight (SAM-5, 7): who is answered, when, and what is told to the others."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.iscsi.pdu import Opcode
from arrayd.scsi.task import Function, FunctionResponse, Status
from tests.iscsi.requests import read_10, write_10
from tests.iscsi.session_driver import BLOCK, DIGESTS, PATTERN, SOLICITED, Host, assert_nothing_left, blocks, make_node
from tests.scsi.memory_volume import CommittingVolume, MemoryVolume

TEST_UNIT_READY = bytes(6)
BUS_DEVICE_RESET = b"\x29\x03"
POWER_ON_OR_RESET = b"\x29\x00"
COMMANDS_CLEARED = b"\x2f\x00"
TAS_BYTE, TAS = 4 + 5, 0x40
OTHER_ISID = bytes.fromhex("00023d000002")


class Pair:
    """Two sessions at one volume whose requests can be held back."""

    def __init__(self, keys: dict[str, str]) -> None:
        self.volume = MemoryVolume()
        self.node = make_node({0: self.volume})
        self.host = Host(self.node, piece=10_000).login(keys)
        self.other = Host(self.node, isid=OTHER_ISID).login(keys)

    def hold(self) -> asyncio.Event:
        self.volume.held = held = asyncio.Event()
        return held

    def release(self) -> None:
        assert self.volume.held is not None
        self.volume.held.set()
        self.volume.held = None

    def close(self) -> None:
        self.host.close()
        self.other.close()
        assert_nothing_left(self.node)


@pytest.fixture(params=[{}, DIGESTS], ids=["plain", "digests"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


async def set_tas(host: Host) -> None:
    sensed = await host.run(bytes([0x1A, 8, 0x0A, 0, 255, 0]), expected_in=255)
    page = bytearray(sensed.data)
    page[0] = 0
    page[TAS_BYTE] |= TAS
    selected = await host.run(bytes([0x15, 0x10, 0, 0, len(page), 0]), out=bytes(page))
    assert selected.status == Status.GOOD


async def attention(host: Host) -> bytes | None:
    """ASC and ASCQ of the unit attention that the next command meets."""
    outcome = await host.run(TEST_UNIT_READY)
    return outcome.sense[12:14] if outcome.status == Status.CHECK_CONDITION else None


# -- tasks at the medium ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        Function.ABORT_TASK,
        Function.ABORT_TASK_SET,
        Function.CLEAR_TASK_SET,
        Function.LUN_RESET,
        Function.TARGET_WARM_RESET,
        Function.TARGET_COLD_RESET,
    ],
)
async def test_the_function_is_answered_when_no_task_can_touch_the_medium_any_more(
    pair: Pair, function: Function
) -> None:
    host, node = pair.host, pair.node
    pair.hold()
    host.feed(host.command(write_10(0, 256), out=PATTERN[: blocks(256)]))
    written = host.outcomes[host.last_tag]
    while written.asked:
        host.feed(host.answer_to(written.asked.pop(0), PATTERN[: blocks(256)]))
    write_tag = host.last_tag
    host.feed(host.command(read_10(0, 8), expected_in=blocks(8)))
    read = host.outcomes[host.last_tag]
    await host.until(lambda: pair.volume.waiting == 2)
    host.feed(host.manage(function, referenced_task_tag=write_tag))
    for _ in range(10):
        await asyncio.sleep(0)
        host.pump()
    assert not host.others
    assert node.buffers.used_bytes
    pair.release()
    await host.until(lambda: bool(host.others))
    assert host.others.pop(0).response == FunctionResponse.COMPLETE
    assert not written.ended
    assert read.ended == (function == Function.ABORT_TASK)
    assert host.ending() == (function == Function.TARGET_COLD_RESET)
    pair.close()


@pytest.mark.parametrize("first", [0, 1], ids=["in their order", "the other way round"])
async def test_the_function_is_answered_after_every_write_that_waits_to_be_durable(first: int) -> None:
    """They are done, and no function takes them back: their answers come before its own, whichever sync ends last."""
    volumes = [CommittingVolume(), CommittingVolume()]
    for number, volume in enumerate(volumes):
        volume.identity = f"410001:{number}"
    node = make_node(dict(enumerate(volumes)))
    host = Host(node).login()
    writes = []
    for lun, volume in enumerate(volumes):
        host.feed(host.command(write_10(3, 1), out=PATTERN[:BLOCK], immediate_data=PATTERN[:BLOCK], lun=lun))
        writes.append(host.outcomes[host.last_tag])
        assert volume.data[blocks(3) : blocks(4)] == PATTERN[:BLOCK]
    assert host.connection.phase is not None
    assert not host.connection.phase.tasks.by_tag, "no task is made for them"
    host.feed(host.manage(Function.LUN_RESET))
    for number in (first, 1 - first):
        assert not writes[number].ended
        assert not host.others
        volumes[number].synced.set_result(None)
        await host.until(lambda number=number: writes[number].ended)  # type: ignore[misc]
        assert writes[number].status == Status.GOOD
    await host.until(lambda: bool(host.others))
    answer = host.only()
    assert answer.response == FunctionResponse.COMPLETE
    assert all(write.end is not None and write.end.stat_sn < answer.stat_sn for write in writes)
    host.close()
    assert_nothing_left(node)


async def test_a_task_that_is_not_aborted_goes_on(pair: Pair) -> None:
    host, other = pair.host, pair.other
    pair.hold()
    host.feed(host.command(read_10(0, 1), expected_in=BLOCK))
    other.feed(other.command(read_10(0, 1), expected_in=BLOCK))
    kept = other.outcomes[other.last_tag]
    host.feed(host.manage(Function.ABORT_TASK_SET))
    pair.release()
    await other.until(lambda: kept.ended)
    assert kept.status == Status.GOOD
    host.pump()
    assert host.only().response == FunctionResponse.COMPLETE
    assert await attention(other) is None
    pair.close()


async def test_abort_task_looks_at_its_own_nexus(pair: Pair) -> None:
    host, other = pair.host, pair.other
    pair.hold()
    host.feed(host.command(read_10(0, 1), expected_in=BLOCK, tag=1234))
    other.feed(other.manage(Function.ABORT_TASK, referenced_task_tag=1234))
    assert other.only().response == FunctionResponse.TASK_DOES_NOT_EXIST
    pair.release()
    await host.until(lambda: host.outcomes[1234].ended)
    assert host.outcomes[1234].status == Status.GOOD
    pair.close()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (Function.CLEAR_TASK_SET, COMMANDS_CLEARED),
        (Function.LUN_RESET, BUS_DEVICE_RESET),
        (Function.TARGET_WARM_RESET, POWER_ON_OR_RESET),
    ],
)
@pytest.mark.parametrize("tas", [False, True])
@pytest.mark.parametrize("waits_for", ["medium", "data", "nothing"])
async def test_tasks_that_another_session_aborts(
    pair: Pair, function: Function, told: bytes, tas: bool, waits_for: str
) -> None:
    """Without TAS they vanish and a unit attention says so; with TAS they end with TASK ABORTED."""
    host, other = pair.host, pair.other
    if tas:
        await set_tas(other)
        assert await attention(host) == b"\x2a\x01"
    if waits_for == "medium":
        pair.hold()
        host.feed(host.command(read_10(0, 1), expected_in=BLOCK))
        await host.until(lambda: pair.volume.waiting == 1)
    elif waits_for == "data":
        host.feed(host.command(write_10(0, 16), out=PATTERN[: blocks(16)], immediate_data=PATTERN[:BLOCK]))
        assert len(host.outcomes[host.last_tag].asked) == 1
    outcome = host.outcomes.get(host.last_tag)
    other.feed(other.manage(function))
    if waits_for == "medium":
        assert not other.others
        pair.release()
        await other.until(lambda: bool(other.others))
    assert other.only().response == FunctionResponse.COMPLETE
    host.pump()
    if waits_for != "nothing":
        assert outcome is not None
        assert outcome.ended == tas
        if tas:
            assert outcome.status == Status.TASK_ABORTED
    if waits_for == "data":
        assert outcome is not None
        host.feed(host.answer_to(outcome.asked[0], PATTERN[: blocks(16)]))
        assert not any(pair.volume.data)
    only_told_of_tasks = function == Function.CLEAR_TASK_SET
    expected = None if only_told_of_tasks and (tas or waits_for == "nothing") else told
    assert await attention(host) == expected
    assert await attention(host) is None
    assert await attention(other) == (None if only_told_of_tasks else told)
    assert (await host.run(write_10(0, 1), out=PATTERN[:BLOCK])).status == Status.GOOD
    pair.close()


async def test_aborted_tasks_free_their_places_in_the_window(pair: Pair) -> None:
    host, other = pair.host, pair.other
    for _ in range(200):
        host.feed(host.command(write_10(0, 256), out=PATTERN[: blocks(256)], immediate_data=b""))
    other.feed(other.manage(Function.LUN_RESET))
    assert other.only().response == FunctionResponse.COMPLETE
    assert pair.node.buffers.used_bytes == 0
    await attention(host)
    assert host.max_cmd_sn == (host.cmd_sn + 255) & 0xFFFFFFFF
    pair.close()


async def test_tasks_end_with_their_session(pair: Pair) -> None:
    """The connection goes while one task is at the medium, one waits for data, and one has its data on the way."""
    host = pair.host
    pair.hold()
    host.feed(host.command(read_10(0, 1), expected_in=BLOCK))
    host.feed(host.command(write_10(0, 256), out=PATTERN[: blocks(256)], immediate_data=b""))
    host.feed(host.command(write_10(0, 256), out=PATTERN[: blocks(256)], immediate_data=b""))
    (r2t,) = host.outcomes[host.last_tag].asked
    host.feed(host.answer_to(r2t, PATTERN[: blocks(256)])[:70_000])
    await host.until(lambda: pair.volume.waiting == 1)
    host.close()
    pair.other.close()
    assert not pair.node.sessions
    pair.release()
    await host.until(lambda: not pair.node.target.units[0].tasks)  # type: ignore[attr-defined]
    assert_nothing_left(pair.node)
    assert not any(pair.volume.data)


async def test_reinstatement_ends_the_old_session_and_its_tasks_at_once() -> None:
    """The new session does not begin beside the old one, whose peer is gone and never reads (RFC 7143, 6.3.5)."""
    volume = MemoryVolume()
    node = make_node({0: volume})
    old = Host(node).login(SOLICITED)
    old.feed(old.command(write_10(0, 16), out=PATTERN[: blocks(16)]))
    old.reading = False
    old.feed(old.nop(PATTERN[:1000]))
    new = Host(node).login()
    assert list(node.sessions.values()) == [new.connection.session]
    assert old.ending()
    assert old.woken
    assert old.connection.output.empty
    assert node.buffers.used_bytes == 0
    assert (await new.run(write_10(0, 1), out=PATTERN[:BLOCK])).status == Status.GOOD
    old.feed(old.nop())
    assert not old.others
    old.close()
    assert list(node.sessions.values()) == [new.connection.session]
    new.close()
    assert_nothing_left(node)


async def test_functions_of_a_session_that_ends_meanwhile_are_not_answered(pair: Pair) -> None:
    host, other = pair.host, pair.other
    pair.hold()
    other.feed(other.command(read_10(0, 1), expected_in=BLOCK))
    host.feed(host.manage(Function.LUN_RESET))
    await host.until(lambda: pair.volume.waiting == 1)
    host.close()
    pair.release()
    await other.until(lambda: not pair.node.target.units[0].tasks)  # type: ignore[attr-defined]
    assert not other.outcomes[other.last_tag].ended
    assert await attention(other) == BUS_DEVICE_RESET
    assert [pdu.opcode for pdu in other.others if pdu.opcode != Opcode.NOP_IN] == []
    other.close()
    assert_nothing_left(pair.node)
