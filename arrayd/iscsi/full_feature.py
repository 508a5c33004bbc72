"""The full feature phase of a connection, but for what the hot loop of `connection.py` does on the spot.

Command numbering, task management, NOP, text, logout, Reject and asynchronous messages (RFC 7143, sections 4.2 and 11).
SCSI commands and their data are handed on to `tasks.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from arrayd.iscsi.numbers import Numbers
from arrayd.iscsi.order import CommandOrder
from arrayd.iscsi.pdu import (
    BHS_BYTES,
    NO_TAG,
    PAD_BYTES,
    AhsType,
    AsyncEvent,
    LogoutReason,
    LogoutResponse,
    Opcode,
    ProtocolError,
    RejectReason,
    build,
    parse_ahs,
    parse_header,
)
from arrayd.iscsi.responder import DIGEST_BYTES, bad_digest, digest
from arrayd.iscsi.session import PeerPolicy, Session
from arrayd.iscsi.tasks import Tasks
from arrayd.iscsi.text import TextExchange
from arrayd.iscsi.wire import DATA_OUT, FINAL, SERIAL_MASK, serial_before
from arrayd.output import SEGMENTS_MAX, Output, Outside
from arrayd.scsi.task import DeliveryFailure, FastTable, Function, FunctionResponse

RESPONSE_ROOM_BYTES = 16 * 1024
"""Room in the output without which no PDU is taken in: more than any response that is not Data-In."""
OUTSIDE_BYTES_MAX = 8 * 1024 * 1024
"""Data that is sent from where it lies: with as much of it unsent no PDU is taken in."""
FAST_READ_BYTES = 64 * 1024
"""Longest read that the fast path copies into the output; longer ones are sent from where they lie."""
MANAGEMENT_MAX = 32
"""Task management functions of one connection under way at once; more are rejected."""
CDB_BYTES = 16
COMMANDS = frozenset(
    {
        Opcode.NOP_OUT,
        Opcode.SCSI_COMMAND,
        Opcode.TASK_MANAGEMENT_REQUEST,
        Opcode.TEXT_REQUEST,
        Opcode.LOGOUT_REQUEST,
    }
)
"""PDUs that are numbered with CmdSN."""
IMMEDIATE = 0x40
OPCODE = 0x3F


class FullFeature:
    """One connection in full feature phase. `close(why)` ends it once the output is sent."""

    def __init__(
        self,
        session: Session,
        policy: PeerPolicy,
        numbers: Numbers,
        output: Output,
        close: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        parameters = session.parameters
        self.session = session
        self.numbers = numbers
        self.output = output
        self.header_digest = parameters.header_digest
        self.data_digest = parameters.data_digest
        self.digests = self.header_digest or self.data_digest
        self.fast: dict[int, FastTable] = {} if parameters.discovery else session.nexus.fast
        self.tasks = Tasks(session, policy.node.buffers, numbers, output, wake)
        self.responder = self.tasks.responder
        self.longest_immediate = parameters.first_burst if parameters.immediate_data else 0
        """Longest immediate data that was agreed to, in bytes."""
        self._node = policy.node
        self._close = close
        self._wake = wake
        self._text = TextExchange(parameters.max_send_segment, partial(policy.targets, discovery=parameters.discovery))
        self.order = CommandOrder(numbers)
        self._managing = 0
        self._late: deque[Callable[[], bytes]] = deque()
        """Responses that wait for room, at most MANAGEMENT_MAX and a few of our own."""
        self._logging_out = False
        self._ping_unanswered = False

    def longest_read(self) -> int:
        """Longest read, in bytes, that is copied into one Data-In on the spot."""
        return min(FAST_READ_BYTES, self.responder.max_send_segment, self.session.parameters.max_burst)

    def intact(self, memory: memoryview, at: int, length: int) -> bool:
        """Whether the digests of a PDU at `at` without AHS, with `length` bytes of data, are right."""
        data = at + BHS_BYTES
        if self.header_digest:
            if bad_digest(memory, at, BHS_BYTES):
                return False
            data += DIGEST_BYTES
        return not (self.data_digest and length and bad_digest(memory, data, length))

    def seal(self, memory: memoryview, at: int, length: int) -> None:
        """Writes the digests of a PDU at `at` without AHS, with `length` bytes of data."""
        data = at + BHS_BYTES
        if self.header_digest:
            memory[data : data + DIGEST_BYTES] = digest(memory[at:data])
            data += DIGEST_BYTES
        if self.data_digest and length:
            end = data + length
            memory[end : end + DIGEST_BYTES] = digest(memory[data:end])

    def has_room(self) -> bool:
        """Whether a PDU may be taken in: there is room to answer it, and nothing before it waits for room."""
        output = self.output
        return (
            output.room >= RESPONSE_ROOM_BYTES
            and not self.responder.waiting
            and not self._late
            and output.outside_bytes < OUTSIDE_BYTES_MAX
            and len(output.segments) < SEGMENTS_MAX
        )

    def has_pending(self) -> bool:
        """Whether something waits for room in the output."""
        return bool(self._late) or self.tasks.has_pending()

    def pump(self) -> None:
        """Emits what waited for room: tasks first, since what was said of them later must not come before."""
        self.tasks.pump()
        while self._late and not self.responder.waiting and self.output.room >= RESPONSE_ROOM_BYTES:
            self._pack(self._late.popleft()())

    def close(self) -> None:
        """The connection is gone."""
        self._late.clear()
        self.tasks.close()

    # -- PDUs in -----------------------------------------------------------------------------------------------------

    def receive(self, header: memoryview, data: memoryview, broken: bool) -> None:
        """One whole PDU: BHS with AHS, data segment without padding; `broken` when its data digest is wrong.

        What must be rejected is; raises ProtocolError, rejected already, when the connection must end for it.
        """
        if broken:
            self._not_intact(header)
        elif header[0] & IMMEDIATE or header[0] not in COMMANDS:
            self._take(header, data)
        else:
            for command in self.order.take(header, data):
                self._take(*command)
        self.pump()

    def _not_intact(self, header: memoryview) -> None:
        """Data digest error: the PDU is discarded, and a task that waits for its data ends (RFC 7143, 7.8)."""
        self.reject(header, ProtocolError("data digest error", RejectReason.DATA_DIGEST_ERROR))
        if header[0] & OPCODE == Opcode.DATA_OUT:
            tag = int.from_bytes(header[16:20], "big")
            self.tasks.fail(tag, DeliveryFailure.PROTOCOL_SERVICE_CRC_ERROR)

    def _take(self, header: memoryview, data: memoryview) -> None:
        """Carries out or rejects one PDU. At ErrorRecoveryLevel 0 a protocol error ends the connection."""
        try:
            self._dispatch(header, data)
        except ProtocolError as error:
            self.reject(header, error)
            if error.reason is RejectReason.PROTOCOL_ERROR:
                raise

    def _dispatch(self, header: memoryview, data: memoryview) -> None:
        opcode = header[0] & OPCODE
        if opcode == Opcode.DATA_OUT:
            self._data_out(header, data)
        elif self._logging_out:
            raise ProtocolError("a command after logout", RejectReason.WAITING_FOR_LOGOUT)
        elif opcode == Opcode.SCSI_COMMAND and not self.session.parameters.discovery:
            self.tasks.command(header, data, _cdb(header))
        elif opcode == Opcode.TASK_MANAGEMENT_REQUEST and not self.session.parameters.discovery:
            self._manage(header)
        elif opcode == Opcode.NOP_OUT:
            self._nop_out(header, data)
        elif opcode == Opcode.TEXT_REQUEST:
            self._text_request(header, data)
        elif opcode == Opcode.LOGOUT_REQUEST:
            self._logout(header)
        elif opcode == Opcode.SNACK_REQUEST:
            raise ProtocolError("SNACK at ErrorRecoveryLevel 0", RejectReason.SNACK_REJECT)
        elif opcode == Opcode.LOGIN_REQUEST:
            raise ProtocolError("a login request after login")
        else:
            raise ProtocolError(f"opcode {opcode:#04x}", RejectReason.COMMAND_NOT_SUPPORTED)

    def _data_out(self, header: memoryview, data: memoryview) -> None:
        _, flags, _, _, tag, transfer_tag, _, data_sn, offset = DATA_OUT.unpack_from(header)
        transfer, place = self.tasks.data_out(tag, transfer_tag, data_sn, offset, len(data), bool(flags & FINAL))
        if place is not None:
            place[:] = data[: len(place)]
        if transfer is not None:
            self.tasks.finish_data_out(transfer)

    def _nop_out(self, header: memoryview, data: memoryview) -> None:
        fields = parse_header(bytes(header[:BHS_BYTES]))
        if fields.target_transfer_tag != NO_TAG:
            self._ping_unanswered = False
        if fields.initiator_task_tag == NO_TAG:
            return
        echo = bytes(data[: self.responder.max_send_segment])
        self._pack(
            build(
                Opcode.NOP_IN,
                echo,
                lun=fields.lun,
                initiator_task_tag=fields.initiator_task_tag,
                **self._numbered(),
            )
        )

    def _text_request(self, header: memoryview, data: memoryview) -> None:
        reply = self._text.receive(bytes(header[:BHS_BYTES]), bytes(data))
        self.responder.max_send_segment = self._text.max_send_segment
        self._pack(reply.build(**self._numbered()))

    def _logout(self, header: memoryview) -> None:
        fields = parse_header(bytes(header[:BHS_BYTES]))
        parameters = self.session.parameters
        response = LogoutResponse.CLOSED
        if fields.reason > LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
            raise ProtocolError(f"logout for reason {fields.reason}", RejectReason.INVALID_PDU_FIELD)
        if fields.reason == LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
            response = LogoutResponse.RECOVERY_NOT_SUPPORTED
        elif fields.reason == LogoutReason.CLOSE_CONNECTION and fields.cid != parameters.cid:
            response = LogoutResponse.CID_NOT_FOUND
        answer = partial(self._logged_out, response, fields.initiator_task_tag)
        if response == LogoutResponse.CLOSED:
            self._logging_out = True
            self.tasks.abandon()
            self._node.end(self.session)
            self.tasks.when_none(answer)
        else:
            answer()

    def _logged_out(self, response: LogoutResponse, tag: int) -> None:
        """Answers a logout; when it ends the session, after all its tasks were terminated (RFC 7143, 11.14)."""
        parameters = self.session.parameters
        self._pack_later(
            lambda: build(
                Opcode.LOGOUT_RESPONSE,
                response=response,
                initiator_task_tag=tag,
                time2wait=parameters.time2wait,
                time2retain=parameters.time2retain,
                **self._numbered(),
            )
        )
        if response == LogoutResponse.CLOSED:
            self._close("logged out")

    # -- task management ---------------------------------------------------------------------------------------------

    def _manage(self, header: memoryview) -> None:
        fields = parse_header(bytes(header[:BHS_BYTES]))
        if self._managing >= MANAGEMENT_MAX:
            raise ProtocolError("task management", RejectReason.TOO_MANY_IMMEDIATE_COMMANDS)
        self._managing += 1
        done = partial(self._managed, fields.function, fields.initiator_task_tag)
        if fields.function == Function.ABORT_TASK and fields.referenced_task_tag not in self.tasks.by_tag:
            done(self._never_came(fields.ref_cmd_sn, fields.cmd_sn))
            return
        self.session.nexus.manage(fields.function, fields.lun, fields.referenced_task_tag, done)

    def _never_came(self, ref_cmd_sn: int, cmd_sn: int) -> FunctionResponse:
        """ABORT TASK for a task that is not here (RFC 7143, 11.6.1): one that is still to come counts as come."""
        numbers = self.numbers
        if not (numbers.in_window(ref_cmd_sn) and serial_before(ref_cmd_sn, cmd_sn)):
            return FunctionResponse.TASK_DOES_NOT_EXIST
        for command in self.order.count_as_come(ref_cmd_sn):
            self._take(*command)
        return FunctionResponse.COMPLETE

    def _managed(self, function: int, tag: int, response: int) -> None:
        self.tasks.when_settled(partial(self._answer_management, function, tag, response))

    def _answer_management(self, function: int, tag: int, response: int) -> None:
        self._managing -= 1
        self._pack_later(
            lambda: build(
                Opcode.TASK_MANAGEMENT_RESPONSE, response=response, initiator_task_tag=tag, **self._numbered()
            )
        )
        if function == Function.TARGET_COLD_RESET and response == FunctionResponse.COMPLETE:
            self._node.close_all("target cold reset")

    # -- PDUs of our own ---------------------------------------------------------------------------------------------

    def reject(self, header: memoryview, error: ProtocolError) -> None:
        """Answers a PDU with Reject, which carries its header back (RFC 7143, 11.17)."""
        self._pack(build(Opcode.REJECT, bytes(header[:BHS_BYTES]), reason=error.reason, **self._numbered()))

    def ping(self) -> bool:
        """Sends a NOP-In that the initiator must answer; False when it has not answered the one before."""
        if self._ping_unanswered:
            return False
        self._ping_unanswered = True
        self._pack_later(
            lambda: build(Opcode.NOP_IN, target_transfer_tag=1, initiator_task_tag=NO_TAG, **self._unnumbered())
        )
        return True

    def announce(self, event: AsyncEvent, seconds: int) -> None:
        """Sends an Asynchronous Message of `event`; the initiator has `seconds` to log out, or to wait (11.9.1)."""
        self._pack_later(
            lambda: build(
                Opcode.ASYNC_MESSAGE,
                async_event=event,
                parameter1=self.session.parameters.cid if event == AsyncEvent.CONNECTION_WILL_BE_DROPPED else 0,
                parameter2=self.session.parameters.time2wait if event != AsyncEvent.LOGOUT_REQUESTED else 0,
                parameter3=seconds,
                **self._numbered(),
            )
        )

    def _numbered(self) -> dict[str, Any]:
        """The sequence numbers of a PDU that uses up a StatSN."""
        return {**self._unnumbered(), "stat_sn": self.numbers.take_stat_sn()}

    def _unnumbered(self) -> dict[str, Any]:
        numbers = self.numbers
        return {
            "stat_sn": numbers.stat_sn,
            "exp_cmd_sn": numbers.exp_cmd_sn,
            "max_cmd_sn": numbers.max_cmd_sn & SERIAL_MASK,
        }

    def _pack_later(self, make: Callable[[], bytes]) -> None:
        """Packs what `make` makes, now or when there is room, and has it sent."""
        self._late.append(make)
        self.pump()
        self._wake()

    def _pack(self, pdu: bytes) -> None:
        """Packs a PDU without AHS, with the digests that were agreed."""
        if self.header_digest or (self.data_digest and len(pdu) > BHS_BYTES):
            header, data = pdu[:BHS_BYTES], pdu[BHS_BYTES:]
            pdu = header + (digest(header) if self.header_digest else b"")
            if data:
                pdu += data + (digest(data) if self.data_digest else b"")
        if len(pdu) <= RESPONSE_ROOM_BYTES - PAD_BYTES and self.output.room >= len(pdu):
            self.output.append(pdu)
        else:
            self.output.attach(Outside(memoryview(pdu), None))


def _cdb(header: memoryview) -> bytes:
    """The whole CDB: 16 bytes of the BHS, and what an extended-CDB AHS adds (RFC 7143, 11.2.2.2)."""
    cdb = bytes(header[BHS_BYTES - CDB_BYTES : BHS_BYTES])
    if len(header) > BHS_BYTES:
        for segment in parse_ahs(bytes(header[BHS_BYTES:])):
            if segment.type == AhsType.EXTENDED_CDB:
                cdb += segment.content.cdb_rest
    return cdb
