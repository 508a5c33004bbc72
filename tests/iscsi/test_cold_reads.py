"""READs that wait for a disk without a task of the SCSI target: begun on the spot, answered when they are there."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.iscsi import tasks
from arrayd.iscsi.pdu import Opcode
from arrayd.scsi.task import Attribute, Function, FunctionResponse, Status
from arrayd.volumes.volume import VolumeFailed
from tests.iscsi.requests import Outcome, read_10, write_10
from tests.iscsi.session_driver import BLOCK, DIGESTS, PATTERN, Host, assert_nothing_left, blocks, make_node
from tests.scsi.memory_volume import ColdVolume


class Lab:
    """A host on a volume whose disk brings data when the test says so."""

    def __init__(self) -> None:
        self.volume = ColdVolume()
        self.volume.data[:] = PATTERN[: 1 << 20]
        self.host = Host(make_node({0: self.volume})).login()

    def read(self, lba: int, count: int = 8) -> Outcome:
        self.host.feed(self.host.command(read_10(lba, count), expected_in=blocks(count)))
        return self.host.outcomes[self.host.last_tag]

    async def bring(self, error: VolumeFailed | None = None) -> None:
        self.volume.bring(error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.host.pump()

    def wanted(self, lba: int, count: int = 8) -> bytes:
        return bytes(self.volume.data[lba * BLOCK : (lba + count) * BLOCK])

    def end(self) -> None:
        self.host.close()
        assert_nothing_left(self.host.node)


async def test_each_is_answered_when_its_data_is_there() -> None:
    lab = Lab()
    reads = [(lba, lab.read(lba)) for lba in (0, 80, 16, 40)]
    assert len(lab.volume.fetched) == 4
    lab.volume.cold = False
    warm = lab.read(3)
    assert warm.ended
    for number, (lba, read) in enumerate(reads):
        assert [other.ended for _, other in reads] == [True] * number + [False] * (4 - number)
        await lab.bring()
        assert read.status == Status.GOOD
        assert read.data == lab.wanted(lba)
    lab.end()


async def test_many_pieces() -> None:
    lab = Lab()
    read = lab.read(1, 1500)
    await lab.bring()
    assert read.data == lab.wanted(1, 1500)
    assert len(read.data_ins) > 1
    lab.end()


async def test_the_window_shrinks_by_those_at_work() -> None:
    lab = Lab()
    before = lab.host.max_cmd_sn
    assert before is not None
    for lba in range(3):
        lab.read(lba)
    lab.host.feed(lab.host.nop(b"?"))
    assert lab.host.max_cmd_sn == (before + 1) & 0xFFFFFFFF  # the NOP has ended, the reads are at work
    for _ in range(3):
        await lab.bring()
    assert lab.host.max_cmd_sn == (before + 4) & 0xFFFFFFFF
    lab.end()


async def test_none_goes_past_one_that_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SHARE_BYTES", 96 << 10)
    lab = Lab()
    lab.read(0, 128)
    long = lab.read(128, 128)
    short = lab.read(256)
    assert len(lab.volume.fetched) == 1
    await lab.bring()
    await lab.host.until(lambda: long.ended)
    assert short.ended or len(lab.volume.fetched) == 1
    if not short.ended:
        await lab.bring()
    assert long.data == lab.wanted(128, 128)
    assert short.data == lab.wanted(256)
    lab.end()


async def test_a_disk_that_fails_is_a_medium_error() -> None:
    lab = Lab()
    read, other = lab.read(0), lab.read(8)
    await lab.bring(VolumeFailed("EIO"))
    assert read.status == Status.CHECK_CONDITION
    assert read.sense[2] & 0x0F == 0x03
    assert read.sense[12:14] == b"\x11\x00"
    await lab.bring()
    assert other.data == lab.wanted(8)
    lab.end()


async def test_an_ordered_task_waits_for_them() -> None:
    lab = Lab()
    before = lab.wanted(0)
    read = lab.read(0)
    lab.host.feed(lab.host.command(write_10(0, 8), out=bytes(blocks(8)), attribute=Attribute.ORDERED))
    write = lab.host.outcomes[lab.host.last_tag]
    later = lab.read(0)
    assert not write.ended
    assert len(lab.volume.fetched) == 1
    assert lab.wanted(0) == before
    await lab.bring()
    assert read.data == before
    await lab.host.until(lambda: write.ended and later.ended)
    assert later.data == bytes(blocks(8))
    lab.end()


@pytest.mark.parametrize("function", [Function.ABORT_TASK, Function.ABORT_TASK_SET, Function.LUN_RESET])
async def test_task_management_is_answered_after_them(function: Function) -> None:
    lab = Lab()
    reads = [lab.read(0), lab.read(8)]
    lab.host.feed(lab.host.manage(function, referenced_task_tag=lab.host.last_tag))
    await lab.bring()
    assert lab.host.others == []
    await lab.bring()
    assert [read.status for read in reads] == [Status.GOOD] * 2
    answer = lab.host.only()
    assert answer.opcode == Opcode.TASK_MANAGEMENT_RESPONSE
    assert (answer.response == FunctionResponse.COMPLETE) == (function != Function.ABORT_TASK)
    lab.end()


async def test_a_tag_is_not_used_twice() -> None:
    lab = Lab()
    lab.read(0)
    tag = lab.host.last_tag
    lab.host.feed(lab.host.pdu(Opcode.SCSI_COMMAND, final=True, read=True, initiator_task_tag=tag,
                               expected_data_transfer_length=512, cdb=read_10(0, 1).ljust(16, b"\0")))  # fmt: skip
    assert lab.host.only().opcode == Opcode.REJECT
    await lab.bring()
    lab.end()


async def test_logout_waits_for_them() -> None:
    lab = Lab()
    read = lab.read(0)
    lab.host.feed(lab.host.pdu(Opcode.LOGOUT_REQUEST, immediate=True, initiator_task_tag=lab.host.new_tag()))
    assert lab.host.others == []
    await lab.bring()
    assert lab.host.only().opcode == Opcode.LOGOUT_RESPONSE
    assert not read.ended
    lab.end()


async def test_the_connection_ends_before_they_do() -> None:
    lab = Lab()
    lab.read(0)
    lab.read(8)
    lab.host.close()
    assert lab.host.node.buffers.used_bytes > 0
    for _ in range(2):
        lab.volume.bring()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert_nothing_left(lab.host.node)


async def test_digests_take_the_long_way() -> None:
    volume = ColdVolume()
    host = Host(make_node({0: volume})).login(DIGESTS)
    outcome = await host.run(read_10(0, 8), expected_in=blocks(8))
    assert outcome.status == Status.GOOD
    assert volume.fetched == []
    host.close()
    assert_nothing_left(host.node)
