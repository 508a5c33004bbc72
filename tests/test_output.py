"""The output against a model: what went in comes out, in order, however it is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from arrayd.buffers import BufferPool
from arrayd.output import Output, Outside, OwnBytes
from arrayd.scsi.task import NOWHERE, FileExtent

SIZE = 4096


class OutputModel(RuleBasedStateMachine):
    """`stream` is what was put in and is not sent yet."""

    def __init__(self) -> None:
        super().__init__()
        self.output = Output(SIZE)
        self.pool = BufferPool(1 << 30)
        self.file = bytes(range(256)) * 64
        self.stream = b""
        self.outside = 0
        self.own = 0

    @rule(data=st.binary(min_size=1, max_size=300))
    def append(self, data: bytes) -> None:
        if self.output.room >= len(data):
            self.output.append(data)
            self.stream += data

    @rule(length=st.integers(1, 5000), pooled=st.booleans(), fill=st.integers(0, 255))
    def attach_memory(self, length: int, pooled: bool, fill: int) -> None:
        data = bytes([fill]) * length
        buffer = self.pool.take_beyond(length, 1) if pooled else None
        if buffer is None:
            self.output.attach(Outside(memoryview(data), None))
        else:
            buffer.view[:] = data
            self.output.attach(Outside(buffer.view[:], buffer))
        self.stream += data

    @rule(offset=st.integers(0, 8000), length=st.integers(1, 8000))
    def attach_file(self, offset: int, length: int) -> None:
        self.output.attach(FileExtent(NOWHERE, offset, length))
        self.stream += self.file[offset : offset + length]

    @precondition(lambda self: self.output.segments)
    @rule(data=st.data())
    def send_segments(self, data: st.DataObject) -> None:
        output = self.output
        first = output.segments[0]
        if isinstance(first, FileExtent):
            count = data.draw(st.integers(1, first.length))
            self._sent(self.file[first.offset : first.offset + count])
            output.sent_from_file(count)
            return
        gathered = b""
        for segment in output.segments:
            if isinstance(segment, FileExtent):
                break
            gathered += output.view[segment.start : segment.end] if isinstance(segment, OwnBytes) else segment.view
        count = data.draw(st.integers(0, len(gathered)))
        self._sent(gathered[:count])
        output.sent(count)

    @precondition(lambda self: not self.output.segments)
    @rule(data=st.data())
    def send_own(self, data: st.DataObject) -> None:
        output = self.output
        count = data.draw(st.integers(0, output.tail - output.head))
        self._sent(bytes(output.view[output.head : output.head + count]))
        output.head += count
        output.mark = max(output.mark, output.head)
        if output.empty:
            output.reset()

    @rule()
    def discard(self) -> None:
        self.output.discard()
        self.stream = b""
        assert self.pool.used_bytes == 0

    def _sent(self, data: bytes) -> None:
        assert self.stream.startswith(data)
        self.stream = self.stream[len(data) :]

    @invariant()
    def knows_what_is_left(self) -> None:
        output = self.output
        assert output.empty == (not self.stream)
        lengths = [
            len(segment.view) if isinstance(segment, Outside) else segment.length
            for segment in output.segments
            if not isinstance(segment, OwnBytes)
        ]
        assert output.outside_bytes == sum(lengths)
        if not any(isinstance(segment, Outside) and segment.buffer for segment in output.segments):
            assert self.pool.used_bytes == 0

    def teardown(self) -> None:
        self.output.discard()
        assert self.pool.used_bytes == 0


TestOutputModel = OutputModel.TestCase


def test_a_file_extent_is_not_sent_as_memory() -> None:
    output = Output(SIZE)
    output.attach(FileExtent(NOWHERE, 0, 10))
    with pytest.raises(AssertionError):
        output.sent(1)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=30))
def test_room_is_what_can_be_appended(pieces: list[bytes]) -> None:
    output = Output(SIZE)
    for piece in pieces:
        room = output.room
        output.append(piece)
        assert output.room == room - len(piece)
    output.head = output.tail
    output.reset()
    assert output.room == len(output.view)
