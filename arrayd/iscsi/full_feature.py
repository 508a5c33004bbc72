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
from arrayd.iscsi.output import SEGMENTS_MAX, Outside, Output
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
from arrayd.iscsi.responder import Responder, digest
from arrayd.iscsi.session import PeerPolicy, Session
from arrayd.iscsi.tasks import Tasks
from arrayd.iscsi.text import TextExchange
from arrayd.iscsi.wire import DATA_OUT, FINAL, SERIAL_MASK, serial_before
from arrayd.scsi.task import FastTable, Function, FunctionResponse

RESPONSE_ROOM_BYTES = 16 * 1024
"""Room in the output without which no PDU is taken in: more than any response that is not Data-In."""
MANAGEMENT_MAX = 32
"""Task management functions of one connection under way at once; more are rejected."""
HELD_BYTES_MAX = 1024 * 1024
"""Commands that came before their turn, kept until it comes."""
CDB_BYTES = 16
FATAL = frozenset({RejectReason.PROTOCOL_ERROR, RejectReason.DATA_DIGEST_ERROR})
"""Rejected PDUs after which, at ErrorRecoveryLevel 0, the connection ends (RFC 7143, 7.1.4.1)."""
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
        self.fast: dict[int, FastTable] = {} if parameters.discovery else session.nexus.fast
        self.responder = Responder(
            output, numbers, self.header_digest, self.data_digest, parameters.max_send_segment, parameters.max_burst
        )
        self.tasks = Tasks(session, policy.node.buffers, numbers, output, self.responder, wake)
        self._node = policy.node
        self._close = close
        self._wake = wake
        self._text = TextExchange(
            parameters.max_send_segment, partial(policy.targets, discovery=parameters.discovery)
        )
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._held_bytes = 0
        self._managing = 0
        self._late: deque[Callable[[], bytes]] = deque()
        """Responses that wait for room, at most MANAGEMENT_MAX and a few of our own."""
        self._logging_out = False
        self._ping_unanswered = False

    def has_room(self) -> bool:
        """Whether a PDU may be taken in: there is room to answer it, and nothing before it waits for room."""
        return (
            self.output.room >= RESPONSE_ROOM_BYTES
            and not self.responder.pending
            and not self._late
            and len(self.output.segments) < SEGMENTS_MAX
        )

    def has_pending(self) -> bool:
        """Whether something waits for room in the output."""
        return bool(self.responder.pending or self._late or self.tasks.unasked)

    def pump(self) -> None:
        """Emits what waited for room."""
        while self._late and self.output.room >= RESPONSE_ROOM_BYTES:
            self._pack(self._late.popleft()())
        self.tasks.pump()

    # -- PDUs in -----------------------------------------------------------------------------------------------------

    def receive(self, header: memoryview, data: memoryview, broken: bool) -> None:
        """One whole PDU: BHS with AHS, data segment without padding; `broken` when its data digest is wrong.

        What must be rejected is; raises ProtocolError, rejected already, when the connection must end for it.
        """
        try:
            if broken:
                raise ProtocolError("data digest error", RejectReason.DATA_DIGEST_ERROR)
            opcode = header[0] & OPCODE
            if opcode == Opcode.DATA_OUT:
                self._data_out(header, data)
            elif opcode == Opcode.SNACK_REQUEST:
                raise ProtocolError("SNACK at ErrorRecoveryLevel 0", RejectReason.SNACK_REJECT)
            elif header[0] & IMMEDIATE:
                self._dispatch(header, data)
            else:
                self._in_order(header, data)
        except ProtocolError as error:
            self.reject(header, error)
            if error.reason in FATAL:
                raise
        self.pump()

    def _in_order(self, header: memoryview, data: memoryview) -> None:
        """Commands take effect in the order of their CmdSN (RFC 7143, 4.2.2.1)."""
        numbers = self.numbers
        cmd_sn = int.from_bytes(header[24:28], "big")
        if not numbers.in_window(cmd_sn):
            return
        if cmd_sn != numbers.exp_cmd_sn:
            if cmd_sn not in self._held:
                self._held_bytes += len(header) + len(data)
                if self._held_bytes > HELD_BYTES_MAX:
                    raise ProtocolError("too much sent before its turn")
                self._held[cmd_sn] = bytes(header), bytes(data)
            return
        numbers.advance_command()
        self._dispatch(header, data)
        while numbers.exp_cmd_sn in self._held:
            held_header, held_data = self._held.pop(numbers.exp_cmd_sn)
            self._held_bytes -= len(held_header) + len(held_data)
            numbers.advance_command()
            self._dispatch(memoryview(held_header), memoryview(held_data))

    def _dispatch(self, header: memoryview, data: memoryview) -> None:
        opcode = header[0] & OPCODE
        if self._logging_out:
            raise ProtocolError("a command after logout", RejectReason.WAITING_FOR_LOGOUT)
        if opcode == Opcode.SCSI_COMMAND and not self.session.parameters.discovery:
            self.tasks.command(header, data, _cdb(header))
        elif opcode == Opcode.TASK_MANAGEMENT_REQUEST and not self.session.parameters.discovery:
            self._manage(header)
        elif opcode == Opcode.NOP_OUT:
            self._nop_out(header, data)
        elif opcode == Opcode.TEXT_REQUEST:
            self._text_request(header, data)
        elif opcode == Opcode.LOGOUT_REQUEST:
            self._logout(header)
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
        if fields.reason == LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
            response = LogoutResponse.RECOVERY_NOT_SUPPORTED
        elif fields.reason == LogoutReason.CLOSE_CONNECTION and fields.cid != parameters.cid:
            response = LogoutResponse.CID_NOT_FOUND
        elif fields.reason > LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
            raise ProtocolError(f"logout for reason {fields.reason}", RejectReason.INVALID_PDU_FIELD)
        self._pack(
            build(
                Opcode.LOGOUT_RESPONSE,
                response=response,
                initiator_task_tag=fields.initiator_task_tag,
                time2wait=parameters.time2wait,
                time2retain=parameters.time2retain,
                **self._numbered(),
            )
        )
        if response == LogoutResponse.CLOSED:
            self._logging_out = True
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
        still_to_come = not serial_before(ref_cmd_sn, numbers.exp_cmd_sn) and serial_before(ref_cmd_sn, cmd_sn)
        if not still_to_come:
            return FunctionResponse.TASK_DOES_NOT_EXIST
        self._held.pop(ref_cmd_sn, None)
        if ref_cmd_sn == numbers.exp_cmd_sn:
            numbers.advance_command()
        return FunctionResponse.COMPLETE

    def _managed(self, function: int, tag: int, response: int) -> None:
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


