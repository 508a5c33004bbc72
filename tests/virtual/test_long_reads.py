"""Long READs of a volume of another array: read there as they are sent, and passed on here as they come."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.iscsi.pdu import Opcode
from arrayd.link.frames import MORE, OPENING, PAYLOAD_BYTES_MAX, Kind, frame
from arrayd.scsi.task import Status
from arrayd.virtual.formats import GOOD_READ
from arrayd.volumes.volume import VolumeFailed
from tests.iscsi.requests import Outcome, read_10
from tests.iscsi.session_driver import DIGESTS, Host
from tests.lab.search import examples
from tests.link.ends import give, piece, taken
from tests.virtual.pair import Pair
from tests.virtual.test_faults import ABORTED_COMMAND, COMMUNICATION_FAILURE, sense

MIB = 1 << 20
SEGMENT = 65536
MEDIUM_ERROR = 3
SOME = PAYLOAD_BYTES_MAX + 1000
"""So much of an answer is its head, one frame of data, and a bit of the next."""


def a_pair(**keys: str) -> Pair:
    pair = Pair().login({"MaxRecvDataSegmentLength": str(SEGMENT), "MaxBurstLength": str(MIB)} | keys)
    pair.volume.data[:] = os.urandom(len(pair.volume.data))
    return pair


def begin(pair: Pair, length: int = MIB) -> Outcome:
    """A READ from block 7 on, which the far array has taken."""
    outcome = pair.begin(read_10(7, length // 512), expected_in=length)
    pair.line.carry(True)
    return outcome


def wanted(pair: Pair, length: int = MIB) -> bytes:
    return bytes(pair.volume.data[7 * 512 : 7 * 512 + length])


def check_read(outcome: Outcome, data: bytes) -> None:
    assert outcome.status == Status.GOOD
    assert outcome.data == data


def come(pair: Pair, count: int) -> None:
    """So many bytes of the answer come, and what that makes goes to the host."""
    pair.line.carry(False, count)
    pair.host.pump()


async def test_it_is_passed_on_as_it_comes() -> None:
    pair = a_pair()
    outcome = begin(pair)
    come(pair, SOME)
    assert len(outcome.data) == PAYLOAD_BYTES_MAX
    assert outcome.data == wanted(pair)[:PAYLOAD_BYTES_MAX]
    come(pair, PAYLOAD_BYTES_MAX)
    assert len(outcome.data) == 2 * PAYLOAD_BYTES_MAX
    assert not outcome.ended
    pair.settle()
    check_read(outcome, wanted(pair))
    pair.assert_nothing_left()


@pytest.mark.parametrize("keys", [{}, DIGESTS, {"MaxRecvDataSegmentLength": "4096"}])
@pytest.mark.parametrize("length", [SEGMENT, SEGMENT + 512, 2 * SEGMENT, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 512])
async def test_any_length_and_digests(keys: dict[str, str], length: int) -> None:
    pair = a_pair(**keys)
    outcome = begin(pair, length)
    pair.settle()
    check_read(outcome, wanted(pair, length))
    pair.assert_nothing_left()


async def test_beside_others_and_with_data_digests_it_is_passed_on_at_its_end() -> None:
    for pair in (a_pair(**DIGESTS), a_pair()):
        alone = pair.host.agreed.get("DataDigest") == "CRC32C"
        outcomes = [begin(pair) for _ in range(1 if alone else 2)]
        come(pair, SOME)
        assert not outcomes[0].data
        pair.settle()
        assert [outcome.data == wanted(pair) for outcome in outcomes] == [True] * len(outcomes)
        pair.assert_nothing_left()


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("count", [SOME - 2000, SOME, SOME + PAYLOAD_BYTES_MAX])
async def test_it_breaks_off_and_comes_again(reads: bool, count: int) -> None:
    """To another place: what was passed on may not have been sent yet. Damaged, the second time: that is not sent."""
    pair = a_pair()
    outcome = begin(pair)
    pair.host.reading = reads
    come(pair, count)
    pair.reconnect()
    pair.line.carry(True)
    pair.line.carry(False)
    pair.line.carry(True)
    assert pair.line.b.connection is not None
    assert pair.line.a.connection is not None
    answer = bytearray(taken(pair.line.b.connection, SOME))
    answer[100:PAYLOAD_BYTES_MAX] = bytes(PAYLOAD_BYTES_MAX - 100)
    give(pair.line.a.connection, bytes(answer))
    assert pair.line.a.connection.closing == "protocol error: a frame that was damaged on its way"
    pair.reconnect()
    pair.line.settle()
    pair.host.reading = True
    pair.settle()
    check_read(outcome, wanted(pair))
    pair.assert_nothing_left()


@pytest.mark.parametrize("count", [SOME - 2000, SOME])
async def test_it_breaks_off_and_cannot_be_read_again(count: int) -> None:
    """What the far array says then is what the host hears, and how much of the data was left out."""
    pair = a_pair()
    outcome = begin(pair)
    come(pair, count)
    had = len(outcome.data)
    pair.volume.cold, pair.volume.failure = True, VolumeFailed("broken")
    pair.reconnect()
    pair.settle()
    assert sense(outcome)[0] == MEDIUM_ERROR
    assert len(outcome.data) == had
    assert outcome.end is not None
    assert (outcome.end.underflow, outcome.end.residual_count) == (True, MIB - had)
    pair.assert_nothing_left()


async def test_with_bursts_of_no_whole_pages_what_is_of_one_burst_is_passed_on() -> None:
    """Such is open-iscsi's own MaxBurstLength."""
    pair = a_pair(MaxBurstLength="16776192")
    outcome = begin(pair)
    come(pair, SOME)
    assert outcome.data == wanted(pair)[:PAYLOAD_BYTES_MAX]
    pair.settle()
    check_read(outcome, wanted(pair))
    pair.assert_nothing_left()


async def test_with_segments_of_no_whole_pages_nothing_is_passed_on_before_the_end() -> None:
    pair = a_pair(MaxRecvDataSegmentLength="65000")
    outcome = begin(pair)
    come(pair, SOME)
    assert not outcome.data
    pair.settle()
    check_read(outcome, wanted(pair))
    pair.assert_nothing_left()


@settings(max_examples=examples(60))
@given(
    lengths=st.lists(st.integers(129, 2050), min_size=1, max_size=12), chunk=st.integers(5000, 2 * MIB),
    host_chunk=st.integers(5000, 2 * MIB),
)  # fmt: skip
async def test_many_of_any_length_over_a_line_that_takes_any_amount(
    lengths: list[int], chunk: int, host_chunk: int
) -> None:
    pair = a_pair()
    pair.host.chunk = host_chunk
    outcomes = [begin(pair, length * 512) for length in lengths]
    while pair.line.carry(False, chunk):
        pair.host.pump()
    for length, outcome in zip(lengths, outcomes, strict=True):
        check_read(outcome, wanted(pair, length * 512))
    pair.assert_nothing_left()


async def test_the_far_array_is_killed_in_the_middle() -> None:
    pair = a_pair()
    outcome = begin(pair)
    pair.host.reading = False
    come(pair, SOME)
    pair.restart_far()
    pair.line.settle()
    # Its buffer is not for others while what was passed on is to be sent.
    other = [pair.line.a.channel.buffers.take_beyond(MIB + 4096, 2) for _ in range(3)]
    for buffer in other:
        assert buffer is not None
        buffer.view[:] = bytes(len(buffer.view))
    pair.host.reading = True
    pair.settle()
    assert outcome.data == wanted(pair)[: len(outcome.data)]
    assert sense(outcome) == (ABORTED_COMMAND, COMMUNICATION_FAILURE)
    for buffer in other:
        assert buffer is not None
        buffer.release()
    pair.assert_nothing_left()


async def test_the_task_is_aborted_in_the_middle() -> None:
    pair = a_pair()
    outcome = begin(pair)
    come(pair, SOME)
    pair.host.feed(
        pair.host.pdu(
            Opcode.TASK_MANAGEMENT_REQUEST, immediate=True, function=1, lun=0, initiator_task_tag=0xFEED,
            referenced_task_tag=pair.host.last_tag, ref_cmd_sn=(pair.host.cmd_sn - 1) & 0xFFFFFFFF,
        )
    )  # fmt: skip
    pair.settle()
    await asyncio.sleep(0)
    pair.settle()
    assert pair.host.only().response == 0
    assert not outcome.ended or outcome.data == wanted(pair)
    pair.assert_nothing_left()


async def test_the_session_ends_in_the_middle() -> None:
    pair = a_pair()
    begin(pair)
    pair.host.reading = False
    come(pair, SOME)
    pair.host.connection.closed()
    pair.line.settle()
    pair.host = Host(pair.host.node)
    pair.line.settle()
    assert pair.line.a.channel.buffers.used_bytes == 0
    assert pair.pool.used_bytes == 0


async def test_what_cannot_be_read_when_its_turn_comes_ends_the_connection_and_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = a_pair()
    loaded: list[int] = []
    load = pair.volume.load

    def fails(offset: int, view: memoryview) -> None:
        loaded.append(len(view))
        if len(loaded) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        load(offset, view)

    monkeypatch.setattr(pair.volume, "load", fails)
    outcome = begin(pair)
    with pytest.raises(OSError, match="Input/output error"):
        come(pair, MIB)
    pair.volume.cold = True
    pair.reconnect()
    pair.settle()
    assert loaded == [PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX]
    check_read(outcome, wanted(pair))
    pair.assert_nothing_left()


async def test_a_piece_of_an_answer_is_not_passed_on_before_it_is_intact() -> None:
    pair = a_pair()
    outcome = begin(pair)
    assert pair.line.b.connection is not None
    assert pair.line.a.connection is not None
    answer = bytearray(taken(pair.line.b.connection, SOME))
    answer[PAYLOAD_BYTES_MAX // 2] ^= 1
    give(pair.line.a.connection, bytes(answer))
    pair.host.pump()
    assert pair.line.a.connection.closing == "protocol error: a frame that was damaged on its way"
    assert not outcome.data
    pair.reconnect()
    pair.settle()
    check_read(outcome, wanted(pair))
    pair.assert_nothing_left()


@pytest.mark.parametrize("head_bytes", [0, 4, 8, 9])
async def test_what_is_passed_on_has_come_however_an_answer_is_cut_into_head_and_data(head_bytes: int) -> None:
    pair = a_pair()
    outcome = begin(pair)
    other = pair.line.a.channel.buffers.take_beyond(MIB + 4096, 2)
    assert other is not None
    other.view[:] = b"S" * len(other.view)
    other.release()
    whole = GOOD_READ + bytes(MIB)
    head, data = whole[:head_bytes], whole[head_bytes:]
    assert pair.line.a.connection is not None
    (number,) = pair.line.a.channel._outstanding
    give(pair.line.a.connection, frame(Kind.ANSWER, OPENING.pack(len(data)) + head, flags=MORE, number=number))
    first = data[:PAYLOAD_BYTES_MAX]
    give(pair.line.a.connection, frame(Kind.ANSWER, first, flags=MORE, number=number))
    pair.host.pump()
    assert not outcome.data.strip(b"\0")
    assert bool(outcome.data) == (head_bytes == 8)


def test_pieces_are_of_a_frame() -> None:
    """What SOME and the tests above take for granted."""
    assert len(piece(PAYLOAD_BYTES_MAX, more=True)) < SOME < 2 * PAYLOAD_BYTES_MAX
