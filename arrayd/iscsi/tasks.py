"""The SCSI tasks of one connection: commands and Data-Out in, R2Ts and responses out (RFC 7143, 4.2.5, 11.3 to 11.8).

Commands that complete on the spot never come here: see `Connection.process`, and `on_the_spot.py` for some READs.
A connection has a share of the buffer pool: reads, and writes whose data is yet to be asked for, wait while what is at
work holds as much. So an initiator that neither reads nor sends what it should keeps no memory from the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.iscsi.numbers import Numbers
from arrayd.iscsi.parked import Parked
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, Opcode, ProtocolError, RejectReason
from arrayd.iscsi.responder import DIGEST_BYTES, Responder, digest
from arrayd.iscsi.session import Session
from arrayd.iscsi.transfer import NotDeliveredError, Solicited, Transfer
from arrayd.iscsi.wire import COMMAND, FINAL, READY_TO_TRANSFER
from arrayd.output import Output
from arrayd.scsi.task import MAX_TRANSFER_BYTES, Commit, DeliveryFailure, Relayed, Status, Task

READ = 0x40
WRITE = 0x20
ATTRIBUTE = 0x07
IMMEDIATE = 0x40
IMMEDIATE_MAX = 32
"""Immediate commands of one connection under way at once: the command window does not bound them."""
SHARE_BYTES = 32 * 1024 * 1024
"""What the tasks of one connection hold of the buffer pool before the next one waits."""
UNASKED_FACTOR = 4
"""Data that comes unasked, and so cannot wait, may take the connection this far beyond its share …"""
HARD_LIMIT_FACTOR = 2
"""… and the pool this far beyond its limit; then the command is answered TASK SET FULL."""


class Tasks:
    """The tasks of one connection, by initiator task tag. `wake` is called when there is something new to send."""

    def __init__(
        self, session: Session, buffers: BufferPool, numbers: Numbers, output: Output, wake: Callable[[], None]
    ) -> None:
        self.session = session
        self.parameters = parameters = session.parameters
        self.buffers = buffers
        self.numbers = numbers
        self.output = output
        self.responder = Responder(
            output,
            numbers,
            parameters.header_digest,
            parameters.data_digest,
            parameters.max_send_segment,
            parameters.max_burst,
            self._left,
        )
        self.digests = parameters.header_digest or parameters.data_digest
        self.wake = wake
        self.by_tag: dict[int, Task] = {}
        self.transfers = 0
        """Tasks with Data-Out to come."""
        self.held_bytes = 0
        """What tasks hold of the share, from when they begin until they are answered."""
        self._immediate = 0
        self._next_transfer_tag = 1
        self._waiting: deque[Task] = deque()
        """Tasks that wait for room in the share."""
        self._unasked: list[Transfer] = []
        """Transfers whose R2T waits for room in the output."""
        self.parked = Parked(self)
        """Commands without a task of the SCSI target that are answered later."""
        self.fetches: dict[Task, None] = {}
        """Reads that wait for the disk without a task of the SCSI target."""
        self.abandoned = False
        """Whether tasks end without an answer."""
        self._when_none: Callable[[], None] | None = None

    # -- commands ----------------------------------------------------------------------------------------------------

    def command(self, pdu: memoryview, data: memoryview, cdb: bytes) -> None:
        """Takes in a SCSI Command with its immediate data. Raises ProtocolError."""
        _, flags, _, lun, tag, expected, _, _, *_ = COMMAND.unpack_from(pdu)
        if self.in_use(tag):
            raise ProtocolError("an initiator task tag that is in use", RejectReason.TASK_IN_PROGRESS)
        writes, reads = flags & WRITE, flags & READ
        if writes and reads:
            raise ProtocolError("bidirectional commands are not supported", RejectReason.COMMAND_NOT_SUPPORTED)
        self._check_unsolicited(flags, len(data), expected)
        task = Task(cdb, lun, tag, flags & ATTRIBUTE, expected if writes else 0, expected if reads else 0, self.ended)
        if not self.parameters.data_digest:
            task.takes_file, task.comes = True, self._comes
        self.count(task, pdu[0] & IMMEDIATE)
        self.by_tag[tag] = task
        self.session.nexus.enter(task)
        if data or not flags & FINAL:
            self.hold(task)
            self._begin_transfer(task, data, not flags & FINAL)
        elif self.must_queue(task):
            self._waiting.append(task)
        else:
            self._begin(task)

    def in_use(self, tag: int) -> bool:
        """Whether a task here has this initiator task tag."""
        return tag in self.by_tag or self.parked.has(tag)

    def count(self, task: Task, immediate: int) -> None:
        """Gives `task` a place in the command window, or among the immediate ones (RFC 7143, 4.2.2.1)."""
        if not immediate:
            task.counted = True
            self.numbers.parked += 1
        elif self._immediate < IMMEDIATE_MAX:
            self._immediate += 1
        else:
            raise ProtocolError("immediate commands", RejectReason.TOO_MANY_IMMEDIATE_COMMANDS)

    def must_queue(self, task: Task) -> bool:
        """Whether `task` must wait, for room in the share or behind others that do."""
        return bool(self._waiting) or self._must_wait(task)

    def _must_wait(self, task: Task) -> bool:
        """Whether `task` finds no room in the share of this connection; a single task always does."""
        taken = self.held_bytes + self.output.outside_bytes
        return self.held_bytes > 0 and taken + _share(task) > SHARE_BYTES

    def hold(self, task: Task) -> None:
        """`task` begins: it takes its share."""
        task.held_bytes = _share(task)
        self.held_bytes += task.held_bytes

    def _begin(self, task: Task) -> None:
        self.hold(task)
        if task.expected_out:
            self._begin_transfer(task, memoryview(b""), False)
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
                transfer.waits_for_buffer = partial(self._got_buffer, transfer)
                self.buffers.take_later(wanted, transfer.waits_for_buffer)
        if immediate:
            self._store(transfer, immediate)
            transfer.received = transfer.requested = len(immediate)
        self._advance(transfer)

    def _take_at_once(self, transfer: Transfer) -> PooledBuffer | None:
        """A buffer for data that is on its way unasked; none left: the data is dropped, the command TASK SET FULL."""
        buffer = None
        if self.held_bytes <= SHARE_BYTES * UNASKED_FACTOR:
            buffer = self.buffers.take_beyond(transfer.wanted, HARD_LIMIT_FACTOR)
        if buffer is None:
            transfer.wanted = 0
            transfer.task.status = Status.TASK_SET_FULL
            transfer.task.immediate_status = True
        return buffer

    def _got_buffer(self, transfer: Transfer, buffer: PooledBuffer) -> None:
        transfer.waits_for_buffer = None
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
        """Takes the header of a Data-Out: its transfer (None: of a task that has ended), and where its data goes (None:
        nowhere). `finish_data_out` when all of it is there."""
        task = self.by_tag.get(tag)
        if task is None or task.transfer is None:
            return None, None
        transfer: Transfer = task.transfer
        try:
            transfer.accept(transfer_tag, data_sn, offset, length, final)
        except NotDeliveredError as error:
            self.fail(tag, error.failure)
            return None, None
        return transfer, transfer.place(offset, length)

    def fail(self, tag: int, failure: DeliveryFailure) -> None:
        """Ends the task `tag`, if its data is still to come, because of what came."""
        task = self.by_tag.get(tag)
        if task is not None and task.transfer is not None:
            self.session.nexus.fail(task, failure)

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
                task.out_buffer = transfer.buffer
                task.data_out = transfer.buffer.view[: transfer.wanted]
            self.session.nexus.execute(task)
        elif not transfer.waits_for_buffer and not transfer.unsolicited:
            self._solicit(transfer)

    def _solicit(self, transfer: Transfer) -> None:
        parameters, numbers = self.parameters, self.numbers
        while transfer.requested < transfer.wanted and len(transfer.outstanding) < parameters.max_outstanding_r2t:
            if self.output.room < BHS_BYTES + DIGEST_BYTES:
                self._unasked.append(transfer)
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

    def _comes(self, task: Task, come: int) -> None:
        """`Task.comes`: passes on what there is room for; the rest follows at the end. That is for a command that is
        waited for alone: beside others it wins no time, and smaller pieces cost more."""
        if len(self.by_tag) == 1 and not self.abandoned and not self.responder.waiting:
            self.responder.emit_come(task, come)
            self.wake()

    # -- ends --------------------------------------------------------------------------------------------------------

    def ended(self, task: Task) -> None:
        """`Task.done`: answers the task, unless it was aborted."""
        del self.by_tag[task.tag]
        if task.transfer is not None:
            self._break_off(task.transfer)
        elif task in self._waiting:
            self._waiting.remove(task)
        if task.out_buffer is not None:
            task.data_out = memoryview(b"")
            task.out_buffer.release()
            task.out_buffer = None
        if self.abandoned or (task.aborted and task.status != Status.TASK_ABORTED):
            self._drop(task)
        else:
            self.responder.pending.append(task)
            self.wake()
        self.check_none()

    def check_none(self) -> None:
        """A command has ended: tells who waits for all of them."""
        if self._when_none is not None and not self.busy:
            when_none, self._when_none = self._when_none, None
            when_none()

    @property
    def busy(self) -> bool:
        """Whether tasks are in flight."""
        return bool(self.by_tag or self.parked.commits or self.parked.relays)

    @property
    def waits(self) -> bool:
        """Whether tasks are in flight that wait for a disk, or for their data."""
        return bool(self.by_tag or self.parked.commits)

    def when_settled(self, ended: Callable[[], None]) -> None:
        """Calls `ended` when all that is at work now without a task of the SCSI target has ended, in whatever order."""
        left: set[Commit | Relayed | Task] = {*self.parked.commits, *self.parked.relays, *self.fetches}
        if not left:
            ended()

        def one_ended(what: Commit | Relayed | Task) -> None:
            left.discard(what)
            if not left:
                ended()

        for what in tuple(left):
            if isinstance(what, Task):
                what.finished = [*(what.finished or ()), partial(one_ended, what)]
            else:
                what.when_ended(one_ended)

    def _break_off(self, transfer: Transfer) -> None:
        """No more data is wanted for `transfer`."""
        transfer.task.transfer = None
        self.transfers -= 1
        if transfer.waits_for_buffer is not None:
            self.buffers.forget(transfer.waits_for_buffer)
        transfer.release()

    def _drop(self, task: Task) -> None:
        """`task` ends without an answer."""
        if task.counted:
            self.numbers.parked -= 1
        if task.buffer is not None:
            task.data_in = b""
            task.buffer.release()
        self._left(task)
        if self._waiting and not self.abandoned:
            self.wake()

    def _left(self, task: Task) -> None:
        """`task` is answered or dropped: its place is free."""
        self.held_bytes -= task.held_bytes
        if not task.counted:
            self._immediate -= 1

    def has_pending(self) -> bool:
        """Whether `pump` has something to do, now or when there is room in the output."""
        return bool(self.responder.waiting or self._unasked) or (
            bool(self._waiting) and not self._must_wait(self._waiting[0])
        )

    def pump(self) -> None:
        """Emits what waited for room in the output, and begins what waited for room in the share."""
        if self._unasked:
            unasked, self._unasked = self._unasked, []
            for transfer in unasked:
                if transfer.task.transfer is transfer:
                    self._solicit(transfer)
        self.responder.pump()
        while self._waiting and not self._must_wait(self._waiting[0]):
            self._begin(self._waiting.popleft())

    def abandon(self) -> None:
        """From now on tasks end without an answer; those that ended before are still answered."""
        self.abandoned = True

    def when_none(self, ended: Callable[[], None]) -> None:
        """Calls `ended` when no task is left that could touch the medium."""
        if self.busy:
            self._when_none = ended
        else:
            ended()

    def close(self) -> None:
        """The connection is gone: nothing is answered any more."""
        self.abandoned = True
        self._when_none = None
        self._waiting.clear()
        self.responder.committed.clear()
        while self.responder.pending:
            self._drop(self.responder.pending.popleft())


def _share(task: Task) -> int:
    """What `task` will hold of the buffer pool, in bytes."""
    if task.immediate_status:
        return 0
    return min(task.wanted_out, task.expected_out, MAX_TRANSFER_BYTES) + min(task.expected_in, MAX_TRANSFER_BYTES)
