"""One connection, without I/O: bytes in, tasks to the SCSI target, bytes out (RFC 7143).

`server.py` receives into `space()`, says how much came with `received(count)`, and sends `output`. `process` parses
every whole PDU that lies in the buffer. A READ or WRITE that can be done on the spot is: its data goes straight between
the volume and the connection's buffers, with no task, no coroutine and no copy of ours. Everything else takes the
methods below it. Parsing stops while the output is full, which is the back-pressure on an initiator that does not read.

The phases are login and full feature; a connection ends when `closing` is set and its output is sent.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from arrayd.iscsi.full_feature import OPCODE, FullFeature
from arrayd.iscsi.keys import LOGIN_SEGMENT_BYTES, MAX_RECV_SEGMENT_BYTES
from arrayd.iscsi.login import Login
from arrayd.iscsi.numbers import COMMAND_WINDOW, Numbers
from arrayd.iscsi.on_the_spot import take_read
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, Opcode, ProtocolError
from arrayd.iscsi.responder import DIGEST_BYTES, bad_digest
from arrayd.iscsi.session import PeerPolicy, Session
from arrayd.iscsi.transfer import Transfer
from arrayd.iscsi.wire import (
    ANSWER,
    COMMAND,
    DATA_OUT,
    FINAL,
    GOOD_RESPONSE_HEAD,
    LENGTH_MASK,
    SERIAL_MASK,
    good_data_in_head,
)
from arrayd.log import get_logger
from arrayd.output import OUTPUT_BYTES, Output
from arrayd.scsi.task import TO_INITIATOR, TO_TARGET

log = get_logger("iscsi")

RECEIVE_BYTES = 1024 * 1024
"""Receive buffer in full feature phase: more than any PDU."""
LOGIN_RECEIVE_BYTES = 16 * 1024
"""Receive buffer until then: more than any login PDU, and little, since anybody can open a connection."""
LOGIN_OUTPUT_BYTES = 128 * 1024
BULK_HEAD_BYTES = 8 * 1024
"""How much is received at a time while Data-Out is due, so that the bulk of it goes straight to its task's buffer."""
PDUS_A_TURN = 16
"""PDUs that are not done on the spot, taken in before others get their turn: each may take 100 us and more."""

SLOW = 0
_FAST_FLAGS = {0xC0: TO_INITIATOR, 0xC1: TO_INITIATOR, 0xA0: TO_TARGET, 0xA1: TO_TARGET}
DIRECTIONS = tuple(_FAST_FLAGS.get(flags, SLOW) for flags in range(256))
"""What the flags byte of a SCSI Command lets the fast path do: final, reading or writing, untagged or simple."""


class Connection:
    """One connection. `wake` is called when there is something to send that `received` did not cause."""

    def __init__(self, policy: PeerPolicy, random_bytes: Callable[[int], bytes], wake: Callable[[], None]) -> None:
        self.policy = policy
        self.wake = wake
        self.login: Login | None = Login(policy, random_bytes)
        self.phase: FullFeature | None = None
        self.session: Session | None = None
        self.output = Output(LOGIN_OUTPUT_BYTES)
        self.closing = ""
        """Why the connection ends once its output is sent; empty while it goes on."""
        self.dropped = False
        """Whether it ends at once, with nothing more to be sent."""
        self.stalled = False
        """Whether parsing stopped for want of room in the output, or to give others their turn."""
        self._turn_left = 0
        self._memory: mmap.mmap = mmap.mmap(-1, LOGIN_RECEIVE_BYTES)
        self._received = memoryview(self._memory)
        self._at = 0
        self._end = 0
        self._sink: memoryview | None = None
        """Where the rest of a Data-Out goes that is on its way."""
        self._sink_transfer: Transfer | None = None
        self._skip = 0
        """Bytes of a Data-Out still to come that nobody wants."""
        self._missing = 0
        """Bytes still to come of a PDU that must be here as a whole."""

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def space(self) -> memoryview:
        """Where to receive into; never empty."""
        if self._sink is not None:
            return self._sink
        if self._at == self._end:
            self._at = self._end = 0
        size = len(self._received)
        if size - self._end < size // 2:
            count = self._end - self._at
            self._memory.move(0, self._at, count)
            self._at, self._end = 0, count
        if self.phase is not None and self.phase.tasks.transfers:
            return self._received[self._end : min(self._end + max(BULK_HEAD_BYTES, self._missing), size)]
        return self._received[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes came into what `space` returned."""
        sink = self._sink
        if sink is None:
            self._end += count
        elif count < len(sink):
            self._sink = sink[count:]
            return
        else:
            self._sink = None
            if not self._skip:
                self._data_out_ended()
        self.process()

    def process(self) -> None:
        """Takes in every whole PDU that was received, as far as there is room to answer."""
        self.stalled = False
        self._missing = 0
        self._turn_left = PDUS_A_TURN
        phase = self.phase
        try:
            if phase is not None:
                phase.pump()
            if self.closing or self._sink is not None or (self._skip and not self._skipped()):
                return
            if phase is not None:
                self._process_full_feature(phase)
            else:
                self._process_login()
        except ProtocolError as error:
            self.closing = f"protocol error: {error}"
        except Exception as error:  # a fault of ours ends this connection, and no other
            log.error("connection failed", exc_info=error)
            self.drop("internal error")

    def _skipped(self) -> bool:
        """Passes over data that nobody wants; whether all of it has come."""
        count = min(self._skip, self._end - self._at)
        self._at += count
        self._skip -= count
        if self._skip:
            return False
        self._data_out_ended()
        return True

    # -- login -------------------------------------------------------------------------------------------------------

    def _process_login(self) -> None:
        login = self.login
        while login is not None and not self.closing and self._end - self._at >= BHS_BYTES:
            lengths = int.from_bytes(self._received[self._at + 4 : self._at + 8], "big")
            header_end = self._at + BHS_BYTES + 4 * (lengths >> 24)
            length = lengths & LENGTH_MASK
            opcode = self._received[self._at] & OPCODE
            if opcode != Opcode.LOGIN_REQUEST or lengths >> 24 or length > LOGIN_SEGMENT_BYTES:
                # The login refuses it by what its header says: the rest need not come.
                header_end, length = self._at + BHS_BYTES, 0
            following = header_end + length + (-length & 3)
            if self._end < following:
                return
            bhs = bytes(self._received[self._at : self._at + BHS_BYTES])
            responses = login.receive(bhs, bytes(self._received[header_end : header_end + length]))
            self._at = following
            for response in responses:
                if self.output.room < len(response):
                    raise ProtocolError("a login that does not read its answers")
                self.output.append(response)
            if login.failed:
                self.closing = f"login refused: {login.why}"
            elif login.complete:
                self._begin_full_feature(login)
                return

    def _begin_full_feature(self, login: Login) -> None:
        parameters = login.parameters
        assert parameters is not None
        self.login = None
        self.session = self.policy.node.begin(parameters, self.close, self.drop, self.policy.from_loopback)
        self._grow_buffers()
        numbers = Numbers(login.exp_cmd_sn, login.stat_sn)
        self.phase = FullFeature(self.session, self.policy, numbers, self.output, self.close, self.wake)
        self._process_full_feature(self.phase)

    def _grow_buffers(self) -> None:
        rest = bytes(self._received[self._at : self._end])
        self._memory = mmap.mmap(-1, RECEIVE_BYTES)
        self._received = memoryview(self._memory)
        self._received[: len(rest)] = rest
        self._at, self._end = 0, len(rest)
        old, self.output = self.output, Output(OUTPUT_BYTES)
        self.output.append(old.view[old.head : old.tail])

    # -- full feature phase ------------------------------------------------------------------------------------------

    def _process_full_feature(self, phase: FullFeature) -> None:
        """The hot loop. State that it changes lives in locals, and is written back around everything else."""
        received, unpack, pack, head = self._received, COMMAND.unpack_from, ANSWER.pack_into, good_data_in_head
        output, numbers, tables, digests = self.output, phase.numbers, phase.fast, phase.digests
        memory, memory_end = output.view, len(output.view)
        header_bytes = BHS_BYTES + (DIGEST_BYTES if phase.header_digest else 0)
        digest_bytes = DIGEST_BYTES if phase.data_digest else 0
        longest, longest_write = phase.longest_read(), phase.longest_immediate
        at, end, tail, expected, stat_sn = self._at, self._end, output.tail, numbers.exp_cmd_sn, numbers.stat_sn
        window = -1 if phase.order.held else COMMAND_WINDOW - 1 - numbers.parked
        while end - at >= header_bytes:
            opcode, flags, lengths, lun, tag, length, cmd_sn, _, code, cdb1, word, count, rest = unpack(received, at)
            direction = DIRECTIONS[flags]
            if opcode == 1 and cmd_sn == expected and window >= 0 and not rest and direction:
                table = tables.get(lun)
                fast = table.get(direction | code) if table else None
                if fast is not None and direction == TO_INITIATOR:
                    data = tail + header_bytes
                    after = data + length
                    if after + digest_bytes > memory_end and length <= longest and tail:
                        self.stalled = True
                        break
                    if (
                        not lengths
                        and length <= longest
                        and (not digests or phase.intact(received, at, 0))
                        and (done := fast(cdb1, word, count, memory[data:after]))
                    ):
                        at += header_bytes
                        expected = (expected + 1) & SERIAL_MASK
                        if done is not True:
                            window -= phase.tasks.parked.park(done, tag, 0, length)
                            continue
                        limit = (expected + window) & SERIAL_MASK
                        pack(memory, tail, head(length), tag, NO_TAG, stat_sn, expected, limit)
                        stat_sn = (stat_sn + 1) & SERIAL_MASK
                        if digests:
                            phase.seal(memory, tail, length)
                        tail = after + digest_bytes
                        continue
                elif fast is not None:
                    data = at + header_bytes
                    after = data + length
                    if (
                        lengths == length <= longest_write
                        and after + digest_bytes <= end
                        and tail + header_bytes <= memory_end
                        and (not digests or phase.intact(received, at, length))
                        and (done := fast(cdb1, word, count, received[data:after]))
                    ):
                        at = after + digest_bytes
                        expected = (expected + 1) & SERIAL_MASK
                        if done is True:
                            limit = (expected + window) & SERIAL_MASK
                            pack(memory, tail, GOOD_RESPONSE_HEAD, tag, 0, stat_sn, expected, limit)
                            stat_sn = (stat_sn + 1) & SERIAL_MASK
                            if digests:
                                phase.seal(memory, tail, 0)
                            tail += header_bytes
                        else:
                            window -= phase.tasks.parked.park(done, tag, length, 0)
                        continue
            self._at, output.tail, numbers.exp_cmd_sn, numbers.stat_sn = at, tail, expected, stat_sn
            if not self._one_pdu(phase):
                return
            at, end, tail, expected, stat_sn = self._at, self._end, output.tail, numbers.exp_cmd_sn, numbers.stat_sn
            window = -1 if phase.order.held else COMMAND_WINDOW - 1 - numbers.parked
            longest = phase.longest_read()
        self._at, output.tail, numbers.exp_cmd_sn, numbers.stat_sn = at, tail, expected, stat_sn

    def _one_pdu(self, phase: FullFeature) -> bool:
        """Takes in the PDU at `_at`, whatever it is; False when it must wait: for the rest of it, or for room."""
        if self.closing:
            return False
        if not self._turn_left or not phase.has_room():
            self.stalled = True
            return False
        self._turn_left -= 1
        at, received = self._at, self._received
        if received[at] == 1 and DIRECTIONS[received[at + 1]] == TO_INITIATOR and take_read(phase, received, at):
            self._at = at + BHS_BYTES
            return True
        lengths = int.from_bytes(received[at + 4 : at + 8], "big")
        header_bytes = BHS_BYTES + 4 * (lengths >> 24)
        data_at = at + header_bytes + (DIGEST_BYTES if phase.header_digest else 0)
        length = lengths & LENGTH_MASK
        if length > MAX_RECV_SEGMENT_BYTES:
            raise ProtocolError(f"a data segment of {length} bytes, where {MAX_RECV_SEGMENT_BYTES} is the most")
        if self._end < data_at:
            return False
        if phase.header_digest and bad_digest(received, at, header_bytes):
            raise ProtocolError("header digest error")
        if received[at] & 0x3F == Opcode.DATA_OUT and not phase.data_digest and not length & 3:
            return self._stream_data_out(phase, at, data_at, length)
        padded = length + (-length & 3)
        following = data_at + padded + (DIGEST_BYTES if phase.data_digest and length else 0)
        if self._end < following:
            self._missing = following - self._end
            return False
        self._at = following
        broken = phase.data_digest and length > 0 and bad_digest(received, data_at, padded)
        phase.receive(received[at : at + header_bytes], received[data_at : data_at + length], broken)
        return not self.closing

    def _stream_data_out(self, phase: FullFeature, at: int, data_at: int, length: int) -> bool:
        """A Data-Out whose data goes to its task's buffer as it comes: from here what is there, the rest by `space`."""
        _, flags, _, _, tag, transfer_tag, _, data_sn, offset = DATA_OUT.unpack_from(self._received, at)
        transfer, place = phase.tasks.data_out(tag, transfer_tag, data_sn, offset, length, bool(flags & FINAL))
        here = min(length, self._end - data_at)
        self._at = data_at + here
        self._sink_transfer = transfer
        if place is not None and here:
            kept = min(here, len(place))
            place[:kept] = self._received[data_at : data_at + kept]
            place = place[kept:]
        if here == length:
            self._data_out_ended()
            return True
        if transfer is not None:
            transfer.receiving = True
        self._sink = place or None
        self._skip = length - here - len(place or b"")
        return False

    def _data_out_ended(self) -> None:
        transfer, self._sink_transfer = self._sink_transfer, None
        if transfer is not None and self.phase is not None:
            self.phase.tasks.finish_data_out(transfer)

    @property
    def initiator_name(self) -> str:
        """Who is at the other end, as far as it has said; empty before."""
        if self.session is not None:
            return self.session.parameters.initiator_name
        return "" if self.login is None else self.login.initiator_name

    def has_pending(self) -> bool:
        """Whether responses wait for room in the output."""
        return self.phase is not None and self.phase.has_pending()

    def waits(self) -> bool:
        """Whether tasks are in flight: they wait for a disk, or for their data."""
        return self.phase is not None and self.phase.tasks.waits

    def busy(self) -> bool:
        """Whether tasks are in flight, or something is left to send."""
        return not self.output.empty or (self.phase is not None and (self.phase.tasks.busy or self.has_pending()))

    # -- ends --------------------------------------------------------------------------------------------------------

    def close(self, why: str) -> None:
        """Ends the connection once what is in the output is sent."""
        if not self.closing:
            self.closing = why
            self.wake()

    def drop(self, why: str) -> None:
        """Ends the session at once, its tasks unanswered and its output unsent."""
        self.closing = self.closing or why
        self.dropped = True
        self.closed()
        self.wake()

    def closed(self) -> None:
        """Nothing is sent any more: the session ends, and with it what its tasks hold. A second call does nothing."""
        self._sink = None
        self._skip = 0
        transfer, self._sink_transfer = self._sink_transfer, None
        if self.phase is not None:
            self.phase.close()
        if self.session is not None:
            self.policy.node.end(self.session)
        if transfer is not None:  # only now: a task must not take what came of its data for all of it
            transfer.receiving = False
            transfer.release()
        self.output.discard()
