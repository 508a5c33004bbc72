"""The SCSI tasks of one connection: commands and Data-Out in, R2Ts and responses out (RFC 7143, 4.2.5, 11.3, 11.7, 11.8).

Everything here has a task of its own. Commands that complete on the spot never come here: see `Connection.process`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.iscsi.numbers import Numbers
from arrayd.iscsi.output import Output
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, Opcode, ProtocolError, RejectReason
from arrayd.iscsi.responder import DIGEST_BYTES, Responder, digest
from arrayd.iscsi.session import Session
from arrayd.iscsi.transfer import Solicited, Transfer
from arrayd.iscsi.wire import COMMAND, FINAL, READY_TO_TRANSFER
from arrayd.scsi.task import MAX_TRANSFER_BYTES, Status, Task

READ = 0x40
WRITE = 0x20
ATTRIBUTE = 0x07
HARD_LIMIT_FACTOR = 2
"""Unsolicited data may take the buffer pool this far beyond its limit; then commands are answered TASK SET FULL."""


class Tasks:
    """The tasks of one connection, by initiator task tag. `wake` is called when there is something new to send."""

    def __init__(
        self,
        session: Session,
        buffers: BufferPool,
        numbers: Numbers,
        output: Output,
        responder: Responder,
        wake: Callable[[], None],
    ) -> None:
        self.session = session
        self.parameters = session.parameters
        self.buffers = buffers
        self.numbers = numbers
        self.output = output
        self.responder = responder
        self.wake = wake
        self.by_tag: dict[int, Task] = {}
        self.transfers = 0
        """Tasks with Data-Out to come."""
        self.closed = False
        self._next_transfer_tag = 1
        self.unasked: list[Transfer] = []
        """Transfers whose R2T waits for room in the output."""

    # -- commands ----------------------------------------------------------------------------------------------------

    def command(self, pdu: memoryview, data: memoryview, cdb: bytes) -> None:
        """Takes in a SCSI Command with its immediate data. Raises ProtocolError."""
        _, flags, _, lun, tag, expected, _, _, *_ = COMMAND.unpack_from(pdu)
        opcode = pdu[0]
        if tag in self.by_tag:
            raise ProtocolError("an initiator task tag that is in use", RejectReason.TASK_IN_PROGRESS)
        writes, reads = flags & WRITE, flags & READ
        if writes and reads:
            raise ProtocolError("bidirectional commands are not supported", RejectReason.COMMAND_NOT_SUPPORTED)
        self._check_unsolicited(flags, len(data), expected)
        task = Task(
            cdb, lun, tag, flags & ATTRIBUTE, expected if writes else 0, expected if reads else 0, self.ended
        )
        task.takes_file = not self.parameters.data_digest
        task.counted = not opcode & 0x40
        if task.counted:
            self.numbers.parked += 1
        self.by_tag[tag] = task
        self.session.nexus.enter(task)
        if writes:
            self._begin_transfer(task, data, not flags & FINAL)
        else:
            self.session.nexus.execute(task)

    def _check_unsolicited(self, flags: int, immediate: int, expected: int) -> None:
        """RFC 7143, 11.3.4, 13.10 and 13.11: immediate and unsolicited data are as was negotiated."""
        parameters = self.parameters
        if not flags & WRITE:
            if immediate or not flags & FINAL:
                raise ProtocolError("data with a command that does not write")
        elif immediate and not parameters.immediate_data:
            raise ProtocolError("immediate data where ImmediateData=No was agreed")
        elif immediate > min(expected, parameters.first_burst):
            raise ProtocolError("more immediate data than FirstBurstLength or the expected length")
        elif not flags & FINAL and parameters.initial_r2t:
            raise ProtocolError("unsolicited Data-Out where InitialR2T=Yes was agreed")

    def _begin_transfer(self, task: Task, immediate: memoryview, unsolicited: bool) -> None:
        wanted = min(task.wanted_out, task.expected_out, MAX_TRANSFER_BYTES)
        if not unsolicited and len(immediate) >= wanted:
            task.data_out = memoryview(bytes(immediate[:wanted]))
            self.session.nexus.execute(task)
            return
        transfer = Transfer(task, wanted, unsolicited, min(self.parameters.first_burst, task.expected_out))
        task.transfer = transfer
        self.transfers += 1
        if wanted:
            if immediate or unsolicited:
                transfer.buffer = self._take_at_once(transfer)
            else:
                transfer.waits_for_buffer = True
                self.buffers.take_later(wanted, partial(self._got_buffer, transfer))
        if immediate:
            self._store(transfer, immediate)
            transfer.received = transfer.requested = len(immediate)
        self._advance(transfer)

    def _take_at_once(self, transfer: Transfer) -> PooledBuffer | None:
        """A buffer for data that is on its way unasked; none left: the data is dropped, the command TASK SET FULL."""
        buffer = self.buffers.take_beyond(transfer.wanted, HARD_LIMIT_FACTOR)
        if buffer is None:
            transfer.wanted = 0
            transfer.task.status = Status.TASK_SET_FULL
            transfer.task.immediate_status = True
        return buffer

    def _got_buffer(self, transfer: Transfer, buffer: PooledBuffer) -> None:
        transfer.waits_for_buffer = False
        if transfer.task.transfer is not transfer:
            buffer.release()
            return
        transfer.buffer = buffer
        self._advance(transfer)
        self.wake()

    def _store(self, transfer: Transfer, data: memoryview) -> None:
        place = transfer.place(transfer.received, len(data))
        if place is not None:
            place[:] = data[: len(place)]

    # -- Data-Out ----------------------------------------------------------------------------------------------------

    def data_out(
        self, tag: int, transfer_tag: int, data_sn: int, offset: int, length: int, final: bool
    ) -> tuple[Transfer | None, memoryview | None]:
        """Accepts the header of a Data-Out: its transfer (None: of a task that ended, drop it), and where the data goes
        (None: dropped). `finish_data_out` when all of it is there. Raises ProtocolError."""
        task = self.by_tag.get(tag)
        if task is None or task.transfer is None:
            return None, None
        transfer: Transfer = task.transfer
        transfer.accept(transfer_tag, data_sn, offset, length, final)
        return transfer, transfer.place(offset, length)

    def finish_data_out(self, transfer: Transfer) -> None:
        """All data of an accepted Data-Out is in its place."""
        transfer.receiving = False
        if transfer.task.transfer is transfer:
            self._advance(transfer)
        else:
            transfer.release()

    def _advance(self, transfer: Transfer) -> None:
        """Executes the task when its data is complete, or asks for more of it."""
        task = transfer.task
        if transfer.complete:
            task.transfer = None
            self.transfers -= 1
            if transfer.buffer is not None:
                task.buffer = transfer.buffer
                task.data_out = transfer.buffer.view[: transfer.wanted]
            self.session.nexus.execute(task)
        elif not transfer.waits_for_buffer and not transfer.unsolicited:
            self._solicit(transfer)

    def _solicit(self, transfer: Transfer) -> None:
        parameters, numbers = self.parameters, self.numbers
        while transfer.requested < transfer.wanted and len(transfer.outstanding) < parameters.max_outstanding_r2t:
            if self.output.room < BHS_BYTES + DIGEST_BYTES:
                self.unasked.append(transfer)
                return
            length = min(parameters.max_burst, transfer.wanted - transfer.requested)
            tag = self._next_transfer_tag
            self._next_transfer_tag = tag + 1 if tag + 1 < NO_TAG else 1
            header = READY_TO_TRANSFER.pack(
                Opcode.R2T, FINAL, 0, transfer.task.lun, transfer.task.tag, tag, numbers.stat_sn, numbers.exp_cmd_sn,
                numbers.max_cmd_sn, transfer.r2t_sn, transfer.requested, length,
            )  # fmt: skip
            self.output.append(header)
            if parameters.header_digest:
                self.output.append(digest(header))
            transfer.outstanding.append(Solicited(tag, transfer.requested, transfer.requested + length))
            transfer.r2t_sn += 1
            transfer.requested += length

    # -- ends --------------------------------------------------------------------------------------------------------

    def ended(self, task: Task) -> None:
        """`Task.done`: answers the task, unless it was aborted."""
        del self.by_tag[task.tag]
        if task.transfer is not None:
            transfer: Transfer = task.transfer
            task.transfer = None
            self.transfers -= 1
            transfer.release()
        if task.expected_out and task.buffer is not None:
            task.data_out = memoryview(b"")
            task.buffer.release()
            task.buffer = None
        if self.closed or (task.aborted and task.status != Status.TASK_ABORTED):
            self._drop(task)
            return
        self.responder.pending.append(task)
        self.wake()

    def _drop(self, task: Task) -> None:
        if task.counted:
            self.numbers.parked -= 1
        if task.buffer is not None:
            task.data_in = b""
            task.buffer.release()

    def pump(self) -> None:
        """Emits what waited for room in the output."""
        if self.unasked:
            unasked, self.unasked = self.unasked, []
            for transfer in unasked:
                if transfer.task.transfer is transfer:
                    self._solicit(transfer)
        self.responder.pump()

    def close(self) -> None:
        """The connection is gone: nothing is answered any more."""
        self.closed = True
        while self.responder.pending:
            self._drop(self.responder.pending.popleft())
