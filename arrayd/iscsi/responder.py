"""Answers tasks: Data-In with status in its last PDU, SCSI Responses with sense, residuals (RFC 7143, 11.4 and 11.7).

A response is emitted as far as there is room, and goes on where it stopped when the output has drained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from crc32c import crc32c

from arrayd.iscsi.numbers import COMMAND_WINDOW, Numbers
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, PAD_BYTES, Opcode, ResponseCode
from arrayd.iscsi.wire import (
    ANSWER,
    DATA_IN,
    DATA_IN_OVERFLOW,
    DATA_IN_STATUS,
    DATA_IN_UNDERFLOW,
    FINAL,
    GOOD_RESPONSE_HEAD,
    RESPONSE,
    RESPONSE_OVERFLOW,
    RESPONSE_UNDERFLOW,
    SERIAL_MASK,
    good_data_in_head,
)
from arrayd.output import SEGMENTS_MAX, Output, Outside
from arrayd.scsi.task import Commit, FileExtent, Status, Task

OUTSIDE_BYTES = 32 * 1024
"""Data-In of this size or more is sent from where it lies; less is copied behind its header."""
DIGEST_BYTES = 4
PAGE_BYTES = 4096
RESPONSE_BYTES = BHS_BYTES + 2 * DIGEST_BYTES + PAD_BYTES
"""Room for a response with both digests, without sense data."""
WHOLE_WORDS = -PAD_BYTES
"""Mask for the lengths of all Data-In but the last, which need no padding (RFC 7143, 11.7.4)."""
WITH_DATA = frozenset({Status.GOOD, Status.CONDITION_MET})
"""Status that the last Data-In may carry (RFC 7143, 11.7.3); with any other there is no Data-In."""


def digest(data: bytes | memoryview) -> bytes:
    """The CRC32C of `data` as it stands on the wire (RFC 7143, 13.1)."""
    return crc32c(data).to_bytes(DIGEST_BYTES, "little")


def bad_digest(memory: memoryview, at: int, length: int) -> bool:
    """Whether the CRC32C behind `memory[at:at+length]` is not theirs."""
    end = at + length
    return digest(memory[at:end]) != memory[end : end + DIGEST_BYTES]


class Responder:
    """The responses of one connection, in the order in which tasks ended.

    `segment` (the initiator's MaxRecvDataSegmentLength) and `burst` (MaxBurstLength) are bytes. `answered(task)` is
    called when the last of a response is packed.
    """

    def __init__(
        self,
        output: Output,
        numbers: Numbers,
        header_digest: bool,
        data_digest: bool,
        segment: int,
        burst: int,
        answered: Callable[[Task], None],
    ) -> None:
        self.output = output
        self.numbers = numbers
        self.header_digest = header_digest
        self.data_digest = data_digest
        self.max_send_segment = segment
        self._max_burst = burst & WHOLE_WORDS
        self._answered = answered
        self.pending: deque[Task] = deque()
        """Ended tasks to be answered: as many as the command window at the most."""
        self.committed: deque[tuple[Commit, list[int]]] = deque()
        """Tags of writes to be answered, by what they waited for; the last of a list is the first."""

    @property
    def waiting(self) -> bool:
        """Whether there are responses to be emitted."""
        return bool(self.pending or self.committed)

    def pump(self) -> None:
        """Emits as much of the pending responses as there is room for."""
        while self.committed and not (self.pending and self.pending[0].emitted):
            commit, tags = self.committed[0]
            if commit.status == Status.GOOD and not self.header_digest:
                self._pack_good(tags)
                if tags:
                    return
            while tags:
                if not self._pack_response(tags[-1], commit.status, commit.sense, True):
                    return
                tags.pop()
            self.committed.popleft()
        while self.pending:
            task = self.pending[0]
            if not self._emit(task):
                return
            self.pending.popleft()
            self._answered(task)

    def emit_extent(self, tag: int, extent: FileExtent) -> None:
        """One Data-In with status GOOD and all of `extent`, which is whole words, where no digest is in force."""
        numbers = self.numbers
        head = good_data_in_head(extent.length)
        stat_sn = numbers.take_stat_sn()
        self.output.append(ANSWER.pack(head, tag, NO_TAG, stat_sn, numbers.exp_cmd_sn, numbers.max_cmd_sn))
        self.output.attach(extent)

    def _emit(self, task: Task) -> bool:
        length = min(len(task.data_in), task.expected_in)
        if length and task.status in WITH_DATA:
            return self._emit_data(task, length, length)
        return self._emit_response(task)

    def emit_come(self, task: Task, come: int) -> None:
        """Emits what is there of the Data-In of a task that has not ended: in whole PDUs, and never the last."""
        self._emit_data(task, task.expected_in, min(come, task.expected_in - 1))

    def _emit_data(self, task: Task, length: int, come: int) -> bool:
        """Emits Data-In as far as it has `come` and there is room; whether all `length` bytes, and the status."""
        while task.emitted < length:
            to_burst_end = self._max_burst - task.emitted % self._max_burst
            piece = min(self.max_send_segment & WHOLE_WORDS, length - task.emitted, to_burst_end)
            end = task.emitted + piece
            last = end == length
            if end > come or not self._has_room(piece):
                return False
            if come < length and end % PAGE_BYTES:
                return False  # if it breaks off and comes again, no block is to be half of what it was before
            flags = FINAL if last or piece == to_burst_end else 0
            status = stat_sn = residual = 0
            if last:
                over, residual = _residual(task)
                flags |= DATA_IN_STATUS | (over and (DATA_IN_OVERFLOW if over > 0 else DATA_IN_UNDERFLOW))
                status, stat_sn = task.status, self._take_stat_sn(task)
            numbers = self.numbers
            header = DATA_IN.pack(
                Opcode.DATA_IN, flags, status, piece, 0, task.tag, NO_TAG, stat_sn, numbers.exp_cmd_sn,
                numbers.max_cmd_sn, task.data_sn, task.emitted, residual,
            )  # fmt: skip
            self._pack_header(header)
            self._pack_piece(task, piece, last, come < length)
            task.data_sn += 1
            task.emitted = end
        return True

    def _has_room(self, piece: int) -> bool:
        packed = piece if piece < OUTSIDE_BYTES else 0
        overhead = BHS_BYTES + 2 * DIGEST_BYTES + PAD_BYTES
        return self.output.room >= packed + overhead and len(self.output.segments) < SEGMENTS_MAX

    def _pack_header(self, header: bytes) -> None:
        self.output.append(header)
        if self.header_digest:
            self.output.append(digest(header))

    def _pack_piece(self, task: Task, piece: int, last: bool, comes: bool) -> None:
        data, output = task.data_in, self.output
        trailer = bytes(-piece % PAD_BYTES)
        if isinstance(data, FileExtent):
            output.attach(FileExtent(data.file, data.offset + task.emitted, piece))
            output.append(trailer)
            return
        view = memoryview(data)[task.emitted : task.emitted + piece]
        if self.data_digest:
            trailer += crc32c(trailer, crc32c(view)).to_bytes(DIGEST_BYTES, "little")
        buffer = None
        if last:
            buffer, task.buffer = task.buffer, None
        if piece >= OUTSIDE_BYTES:
            if comes and task.buffer is not None:
                buffer = task.buffer.share()  # the task may end without its last piece, or go on with another buffer
            output.attach(Outside(view, buffer))
        else:
            output.append(view)
            view.release()
            if buffer is not None:
                task.data_in = b""
                buffer.release()
        output.append(trailer)

    def _emit_response(self, task: Task) -> bool:
        over, residual = _residual(task)
        flags = FINAL | (over and (RESPONSE_OVERFLOW if over > 0 else RESPONSE_UNDERFLOW))
        if not self._pack_response(task.tag, task.status, task.sense, task.counted, flags, residual, task.data_sn):
            return False
        if task.buffer is not None:
            task.data_in = b""
            task.buffer.release()
        return True

    def _pack_response(
        self,
        tag: int,
        status: int,
        sense: bytes,
        counted: bool,
        flags: int = FINAL,
        residual: int = 0,
        data_sn: int = 0,
    ) -> bool:
        segment = len(sense).to_bytes(2, "big") + sense if sense else b""
        if self.output.room < RESPONSE_BYTES + len(segment):
            return False
        numbers = self.numbers
        if counted:
            numbers.parked -= 1
        header = RESPONSE.pack(
            Opcode.SCSI_RESPONSE, flags, ResponseCode.COMMAND_COMPLETED, status, len(segment), tag, 0,
            numbers.take_stat_sn(), numbers.exp_cmd_sn, numbers.max_cmd_sn, data_sn, 0, residual,
        )  # fmt: skip
        self._pack_header(header)
        if segment:
            padded = segment + bytes(-len(segment) % PAD_BYTES)
            self.output.append(padded)
            if self.data_digest:
                self.output.append(digest(padded))
        return True

    def _pack_good(self, tags: list[int]) -> None:
        """Responses of status GOOD to counted commands, the last tag first, without a digest: as many as there is room
        for, and the same that `_pack_response` makes."""
        numbers, output, pack = self.numbers, self.output, ANSWER.pack_into
        view, tail, stat_sn, expected, parked = (
            output.view, output.tail, numbers.stat_sn, numbers.exp_cmd_sn, numbers.parked,
        )  # fmt: skip
        last = len(view) - RESPONSE_BYTES
        while tags and tail <= last:
            parked -= 1
            limit = (expected + COMMAND_WINDOW - 1 - parked) & SERIAL_MASK
            pack(view, tail, GOOD_RESPONSE_HEAD, tags.pop(), 0, stat_sn, expected, limit)
            stat_sn = (stat_sn + 1) & SERIAL_MASK
            tail += BHS_BYTES
        output.tail, numbers.stat_sn, numbers.parked = tail, stat_sn, parked

    def _take_stat_sn(self, task: Task) -> int:
        if task.counted:
            self.numbers.parked -= 1
        return self.numbers.take_stat_sn()


def _residual(task: Task) -> tuple[int, int]:
    """(1, count) for an overflow, (-1, count) for an underflow, (0, 0) for neither (RFC 7143, 11.4.5.1)."""
    if task.expected_out:
        excess = max(task.wanted_out - task.expected_out, -task.expected_out if not task.sense else 0)
    else:
        transferred = len(task.data_in) if task.status in WITH_DATA else task.emitted
        excess = transferred + task.wanted_out - task.expected_in
    return (excess > 0) - (excess < 0), abs(excess)
