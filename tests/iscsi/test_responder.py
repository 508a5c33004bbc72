"""How tasks are answered: segments, bursts, status, residuals, sense, digests, and going on after a full output."""

from __future__ import annotations

import os
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from arrayd.buffers import BufferPool
from arrayd.iscsi.numbers import COMMAND_WINDOW, Numbers
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, Opcode, parse_header
from arrayd.iscsi.responder import OUTSIDE_BYTES, Responder
from arrayd.output import OUTPUT_BYTES, SEGMENTS_MAX, Output, OwnBytes
from arrayd.scsi.task import NOWHERE, FileExtent, Status, Task

DATA = os.urandom(1 << 20)
SENSE = bytes([0x70, 0, 5]) + bytes(15)


class Initiator:
    """A responder, and what it emits taken apart."""

    def __init__(
        self,
        *,
        segment: int = 262144,
        burst: int = 262144,
        header_digest: bool = False,
        data_digest: bool = False,
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        self.output = Output(output_bytes)
        self.numbers = Numbers(exp_cmd_sn=0xFFFFFFFE, stat_sn=0xFFFFFFFF)
        self.header_digest, self.data_digest = header_digest, data_digest
        self.answered: list[Task] = []
        self.responder = Responder(
            self.output, self.numbers, header_digest, data_digest, segment, burst, self.answered.append
        )

    def task(self, *, expected_in: int = 0, expected_out: int = 0) -> Task:
        task = Task(bytes(16), 0, 0xA1A2A3A4, 1, expected_out, expected_in, lambda _task: None)
        task.counted = True
        self.numbers.parked += 1
        return task

    def take(self) -> list[tuple[Any, bytes]]:
        """Everything that is in the output."""
        output, stream = self.output, bytearray()
        while output.segments:
            first = output.segments[0]
            if isinstance(first, FileExtent):
                stream += DATA[first.offset : first.offset + first.length]
                output.sent_from_file(first.length)
            else:
                view = output.view[first.start : first.end] if isinstance(first, OwnBytes) else first.view
                stream += view
                output.sent(len(view))
        stream += output.view[output.head : output.tail]
        output.reset()
        return self.take_apart(bytes(stream))

    def take_apart(self, stream: bytes) -> list[tuple[Any, bytes]]:
        pdus = []
        while stream:
            bhs, stream = stream[:BHS_BYTES], stream[BHS_BYTES:]
            if self.header_digest:
                assert crc32c(bhs) == int.from_bytes(stream[:4], "little")
                stream = stream[4:]
            header = parse_header(bhs)
            length = header.data_segment_length
            padded = length + -length % 4
            data, stream = stream[:padded], stream[padded:]
            assert len(data) == padded
            assert not any(data[length:])
            if self.data_digest and length:
                assert crc32c(data) == int.from_bytes(stream[:4], "little")
                stream = stream[4:]
            pdus.append((header, data[:length]))
        return pdus

    def answer(self, task: Task) -> list[tuple[Any, bytes]]:
        self.responder.pending.append(task)
        self.responder.pump()
        pdus = self.take()
        while self.responder.pending:
            self.responder.pump()
            more = self.take()
            assert more, "nothing goes on"
            pdus += more
        assert self.answered == [task]
        return pdus


@given(
    length=st.integers(1, 400_000),
    segment=st.integers(512, 300_000),
    burst=st.integers(512, 300_000),
    header_digest=st.booleans(),
    data_digest=st.booleans(),
    kind=st.sampled_from(["bytes", "buffer", "file"]),
    output_bytes=st.sampled_from([OUTSIDE_BYTES + 4096, OUTPUT_BYTES]),
)
def test_data_in(
    length: int, segment: int, burst: int, header_digest: bool, data_digest: bool, kind: str, output_bytes: int
) -> None:
    pool = BufferPool(1 << 20)
    initiator = Initiator(
        segment=segment, burst=burst, header_digest=header_digest, data_digest=data_digest, output_bytes=output_bytes
    )
    task = initiator.task(expected_in=length)
    if kind == "buffer":
        task.buffer = pool.take_beyond(length, 1)
        assert task.buffer is not None
        task.buffer.view[:] = DATA[:length]
        task.data_in = task.buffer.view
    elif kind == "file" and not data_digest:
        task.data_in = FileExtent(NOWHERE, 0, length)
    else:
        task.data_in = DATA[:length]
    pdus = initiator.answer(task)
    offset = in_burst = 0
    for number, (header, data) in enumerate(pdus):
        last = number == len(pdus) - 1
        assert header.opcode == Opcode.DATA_IN
        assert header.initiator_task_tag == 0xA1A2A3A4
        assert header.target_transfer_tag == NO_TAG
        assert header.data_sn == number
        assert header.buffer_offset == offset
        assert 0 < len(data) <= segment
        assert last or len(data) % 4 == 0
        assert data == DATA[offset : offset + len(data)]
        offset += len(data)
        in_burst += len(data)
        assert in_burst <= burst
        assert header.final or not last
        in_burst = 0 if header.final else in_burst
        assert header.has_status == last
        assert header.stat_sn == (0xFFFFFFFF if last else 0)
        assert header.exp_cmd_sn == 0xFFFFFFFE
        parked = 0 if last else 1
        assert header.max_cmd_sn == (0xFFFFFFFE + COMMAND_WINDOW - 1 - parked) & 0xFFFFFFFF
        assert not header.overflow
        assert not header.underflow
        assert header.residual_count == 0
    assert offset == length
    assert pool.used_bytes == 0
    assert initiator.numbers.stat_sn == 0
    assert initiator.numbers.parked == 0


@pytest.mark.parametrize("expected_in", [1, 3, 511, 40_001])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_data_in_is_cut_to_what_the_initiator_takes(expected_in: int, kind: str) -> None:
    initiator = Initiator()
    task = initiator.task(expected_in=expected_in)
    task.data_in = DATA[:65536] if kind == "bytes" else FileExtent(NOWHERE, 0, 65536)
    ((header, data),) = initiator.answer(task)
    assert data == DATA[:expected_in]
    assert header.overflow
    assert header.residual_count == 65536 - expected_in


# Overflow counts positive, underflow negative.
@pytest.mark.parametrize(
    ("expected_in", "expected_out", "data_in", "wanted_out", "residual"),
    [
        (0, 0, 0, 0, 0),
        (512, 0, 512, 0, 0),
        (1024, 0, 512, 0, -512),
        (256, 0, 512, 0, 256),
        (512, 0, 0, 0, -512),
        (0, 0, 512, 0, 512),
        (0, 512, 0, 512, 0),
        (0, 1024, 0, 512, -512),
        (0, 512, 0, 1024, 512),
        (0, 512, 0, 0, -512),
        (0, 0, 0, 512, 512),
    ],
)
def test_residuals(expected_in: int, expected_out: int, data_in: int, wanted_out: int, residual: int) -> None:
    initiator = Initiator()
    task = initiator.task(expected_in=expected_in, expected_out=expected_out)
    task.data_in = DATA[:data_in]
    task.wanted_out = wanted_out
    header, data = initiator.answer(task)[-1]
    assert (header.opcode == Opcode.DATA_IN) == (min(expected_in, data_in) > 0)
    assert len(data) == min(expected_in, data_in)
    assert (header.overflow, header.underflow) == (residual > 0, residual < 0)
    assert header.residual_count == abs(residual)


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("sense", [SENSE, SENSE[:-1], SENSE + bytes(234)])
def test_sense(digests: bool, sense: bytes) -> None:
    initiator = Initiator(header_digest=digests, data_digest=digests)
    task = initiator.task(expected_in=512)
    task.status, task.sense = Status.CHECK_CONDITION, sense
    ((header, data),) = initiator.answer(task)
    assert header.opcode == Opcode.SCSI_RESPONSE
    assert header.final
    assert (header.response, header.status) == (0, Status.CHECK_CONDITION)
    assert data == len(sense).to_bytes(2, "big") + sense
    assert header.underflow
    assert header.residual_count == 512
    assert header.exp_data_sn == 0


@pytest.mark.parametrize("status", [Status.TASK_ABORTED, Status.BUSY, Status.RESERVATION_CONFLICT])
def test_only_good_status_comes_with_data(status: Status) -> None:
    pool = BufferPool(1 << 20)
    initiator = Initiator()
    task = initiator.task(expected_in=65536)
    task.buffer = pool.take(65536)
    assert task.buffer is not None
    task.data_in = task.buffer.view
    task.status = status
    ((header, _data),) = initiator.answer(task)
    assert (header.opcode, header.status) == (Opcode.SCSI_RESPONSE, status)
    assert (header.underflow, header.residual_count) == (True, 65536)
    assert pool.used_bytes == 0


def test_condition_met_is_a_good_status() -> None:
    initiator = Initiator()
    task = initiator.task(expected_in=4)
    task.status, task.data_in = Status.CONDITION_MET, b"data"
    ((header, data),) = initiator.answer(task)
    assert (header.opcode, header.status, data) == (Opcode.DATA_IN, Status.CONDITION_MET, b"data")


def test_a_full_output_ends_no_response_in_the_middle() -> None:
    """Responses wait in order; each goes on where it stopped, and none is begun twice."""
    initiator = Initiator(segment=8192, output_bytes=20_000)
    tasks = [initiator.task(expected_in=30_000) for _ in range(5)]
    for number, task in enumerate(tasks):
        task.data_in = bytes([number]) * 30_000
        initiator.responder.pending.append(task)
    pdus = []
    while initiator.responder.pending:
        initiator.responder.pump()
        assert initiator.output.room >= 0
        pdus += initiator.take()
    assert initiator.answered == tasks
    assert b"".join(data for _, data in pdus) == b"".join(bytes([number]) * 30_000 for number in range(5))
    assert [header.stat_sn for header, _ in pdus if header.has_status] == [0xFFFFFFFF, 0, 1, 2, 3]
    assert initiator.numbers.parked == 0


def test_segments_are_bounded() -> None:
    initiator = Initiator(segment=OUTSIDE_BYTES)
    task = initiator.task(expected_in=len(DATA))
    for _ in range(100):
        task = initiator.task(expected_in=len(DATA))
        task.data_in = DATA
        initiator.responder.pending.append(task)
    initiator.responder.pump()
    assert len(initiator.output.segments) <= SEGMENTS_MAX + 1
    assert initiator.responder.pending


def test_an_immediate_task_takes_no_place_in_the_window() -> None:
    initiator = Initiator()
    task = Task(bytes(16), 0, 1, 1, 0, 0, lambda _task: None)
    ((header, _),) = initiator.answer(task)
    assert initiator.numbers.parked == 0
    assert header.max_cmd_sn == (0xFFFFFFFE + COMMAND_WINDOW - 1) & 0xFFFFFFFF
