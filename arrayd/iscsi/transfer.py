"""The Data-Out of one task: immediate, unsolicited and solicited data, put together in one buffer (RFC 7143, 4.2.5).

DataPDUInOrder and DataSequenceInOrder are Yes, so data comes in one order: what does not ends the task (11.4.7.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from arrayd.buffers import PooledBuffer
from arrayd.iscsi.pdu import NO_TAG
from arrayd.scsi.task import DeliveryFailure, Task


class NotDeliveredError(Exception):
    """Data-Out did not come as it must; the task ends with `failure`."""

    def __init__(self, failure: DeliveryFailure) -> None:
        super().__init__(failure.name)
        self.failure = failure


class Solicited:
    """One outstanding R2T: Data-Out that is asked for, `offset` to `end` of the task's data."""

    __slots__ = ("data_sn", "end", "offset", "tag")

    def __init__(self, tag: int, offset: int, end: int) -> None:
        self.tag = tag
        self.offset = offset
        self.end = end
        self.data_sn = 0


class Transfer:
    """What has come of a task's Data-Out, and what may come.

    `wanted` bytes are kept, of the `limit` (expected data transfer length) that the initiator may send; without a
    `buffer` all that comes is dropped.
    """

    __slots__ = ("buffer", "data_sn", "limit", "outstanding", "r2t_sn", "received", "receiving", "requested", "task",
                 "unsolicited", "unsolicited_end", "waits_for_buffer", "wanted")  # fmt: skip

    def __init__(self, task: Task, wanted: int, unsolicited: bool, unsolicited_end: int) -> None:
        self.task = task
        self.wanted = wanted
        self.limit = task.expected_out
        self.buffer: PooledBuffer | None = None
        self.received = 0
        """Bytes that came, in order from the start."""
        self.requested = 0
        """Bytes that came or were asked for by R2T."""
        self.unsolicited = unsolicited
        """Whether unsolicited Data-Out is still to come."""
        self.unsolicited_end = unsolicited_end
        self.data_sn = 0
        self.r2t_sn = 0
        self.outstanding: deque[Solicited] = deque()
        self.waits_for_buffer: Callable[[PooledBuffer], None] | None = None
        """What the pool calls when there is a buffer."""
        self.receiving = False
        """Whether the connection is writing a Data-Out into the buffer right now: it must not be given back."""

    @property
    def complete(self) -> bool:
        """Whether all came that is going to come or is wanted."""
        return not self.unsolicited and not self.outstanding and self.received >= self.wanted

    def accept(self, tag: int, data_sn: int, offset: int, length: int, final: bool) -> None:
        """Checks a Data-Out PDU against what may come, and counts it as received. Raises NotDeliveredError."""
        if tag == NO_TAG:
            self._accept_unsolicited(data_sn, offset, length, final)
        else:
            self._accept_solicited(tag, data_sn, offset, length, final)
        self.received += length
        self.requested = max(self.requested, self.received)

    def _accept_unsolicited(self, data_sn: int, offset: int, length: int, final: bool) -> None:
        if not self.unsolicited or offset + length > self.unsolicited_end:
            raise NotDeliveredError(DeliveryFailure.UNEXPECTED_UNSOLICITED_DATA)
        self._check_order(self.data_sn, data_sn, offset)
        self.data_sn += 1
        self.unsolicited = not final

    def _accept_solicited(self, tag: int, data_sn: int, offset: int, length: int, final: bool) -> None:
        if not self.outstanding or self.outstanding[0].tag != tag:
            raise NotDeliveredError(DeliveryFailure.UNEXPECTED_UNSOLICITED_DATA)
        asked = self.outstanding[0]
        self._check_order(asked.data_sn, data_sn, offset)
        end = offset + length
        if end > asked.end or final != (end == asked.end):
            raise NotDeliveredError(DeliveryFailure.INCORRECT_AMOUNT_OF_DATA)
        asked.data_sn += 1
        if final:
            self.outstanding.popleft()

    def _check_order(self, due_sn: int, data_sn: int, offset: int) -> None:
        """What is missing in between cannot be asked for again at ErrorRecoveryLevel 0 (RFC 7143, 7.9)."""
        if data_sn != due_sn or offset != self.received:
            raise NotDeliveredError(DeliveryFailure.PROTOCOL_SERVICE_CRC_ERROR)

    def release(self) -> None:
        """Gives the buffer back, once the connection does not write into it any more."""
        if self.buffer is not None and not self.receiving:
            self.buffer.release()
            self.buffer = None

    def place(self, offset: int, length: int) -> memoryview | None:
        """Where the bytes from `offset` go; what lies beyond the wanted bytes, or all without a buffer, is dropped."""
        if self.buffer is None or offset >= self.wanted:
            return None
        return self.buffer.view[offset : min(offset + length, self.wanted)]
