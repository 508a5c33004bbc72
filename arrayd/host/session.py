"""An initiator's session in full feature phase, without I/O: one command at a time, and what else the target says
(RFC 7143, 4.2, 11.3 to 11.8, 11.18 and 11.19)."""

from __future__ import annotations

from typing import Any

from construct import ConstructError

from arrayd.host.login import Agreed
from arrayd.host.transport import Outcome
from arrayd.iscsi.pdu import (
    NO_TAG,
    SENSE_SEGMENT,
    AsyncEvent,
    LogoutReason,
    Opcode,
    ProtocolError,
    ResponseCode,
    build,
    parse_header,
)
from arrayd.iscsi.wire import SERIAL_MASK, serial_before
from arrayd.scsi.lun import encode_lun

SIMPLE = 1
"""Task attribute (RFC 7143, 11.3.1)."""
LAST = frozenset(
    {AsyncEvent.LOGOUT_REQUESTED, AsyncEvent.CONNECTION_WILL_BE_DROPPED, AsyncEvent.SESSION_WILL_BE_DROPPED}
)
"""Events after which the target is gone."""


class SessionEnded(Exception):
    """The target ends the session, or broke the protocol; the text says which."""


class _Command:
    """The command under way: what it sends, and what has come of its Data-In."""

    __slots__ = ("came", "data_in", "data_out", "lun", "tag")

    def __init__(self, tag: int, lun: int, data_out: bytes, read_bytes: int) -> None:
        self.tag = tag
        self.lun = lun
        self.data_out = data_out
        self.data_in = bytearray(read_bytes)
        self.came = 0


class Session:
    """Send what `command` and `receive` return. A command has ended when there is an `outcome`."""

    def __init__(self, agreed: Agreed) -> None:
        self.outcome: Outcome | None = None
        self._agreed = agreed
        self._cmd_sn = agreed.cmd_sn
        self._exp_stat_sn = agreed.exp_stat_sn
        self._max_cmd_sn = agreed.cmd_sn
        self._tag = 0
        self._command: _Command | None = None

    def command(self, lun: int, cdb: bytes, data_out: bytes = b"", read_bytes: int = 0) -> bytes:
        """A SCSI Command with as much immediate data as was agreed. The command before must have ended."""
        assert self._command is None
        assert not (data_out and read_bytes)
        if serial_before(self._max_cmd_sn, self._cmd_sn):
            raise SessionEnded("the target takes no more commands")
        self.outcome = None
        self._tag = (self._tag + 1) % NO_TAG
        self._command = _Command(self._tag, encode_lun(lun), data_out, read_bytes)
        pdu = build(
            Opcode.SCSI_COMMAND,
            data_out[: self._agreed.immediate],
            final=True,
            read=bool(read_bytes),
            write=bool(data_out),
            attribute=SIMPLE,
            lun=self._command.lun,
            initiator_task_tag=self._tag,
            expected_data_transfer_length=len(data_out) or read_bytes,
            cmd_sn=self._cmd_sn,
            exp_stat_sn=self._exp_stat_sn,
            cdb=cdb.ljust(16, b"\0"),
        )
        self._cmd_sn = (self._cmd_sn + 1) & SERIAL_MASK
        return pdu

    def logout(self) -> bytes:
        """A Logout Request that closes the session."""
        return build(
            Opcode.LOGOUT_REQUEST,
            immediate=True,
            reason=LogoutReason.CLOSE_SESSION,
            initiator_task_tag=(self._tag + 1) % NO_TAG,
            cmd_sn=self._cmd_sn,
            exp_stat_sn=self._exp_stat_sn,
        )

    def receive(self, bhs: bytes, data: bytes) -> bytes:
        """A PDU of the target's in (`data` without padding); what is to be sent out. Raises SessionEnded."""
        try:
            return self._receive(parse_header(bhs), data)
        except (ProtocolError, ConstructError) as error:
            raise SessionEnded(f"the target broke the protocol: {error}") from None

    def _receive(self, pdu: Any, data: bytes) -> bytes:
        if pdu.opcode < Opcode.NOP_IN:
            raise ProtocolError("an initiator's opcode")
        self._take_numbers(pdu)
        if pdu.opcode == Opcode.NOP_IN:
            return self._pong(pdu, data) if pdu.target_transfer_tag != NO_TAG else b""
        if pdu.opcode == Opcode.ASYNC_MESSAGE:
            if pdu.async_event in LAST:
                raise SessionEnded("the target ends the session")
            return b""
        if pdu.opcode == Opcode.LOGOUT_RESPONSE:
            raise SessionEnded("logged out")
        command = self._command
        if command is None or pdu.initiator_task_tag != command.tag:
            raise ProtocolError(f"opcode {int(pdu.opcode):02X}h for no command")
        if pdu.opcode == Opcode.DATA_IN:
            self._data_in(command, pdu, data)
        elif pdu.opcode == Opcode.SCSI_RESPONSE:
            self._response(command, pdu, data)
        elif pdu.opcode == Opcode.R2T:
            return self._data_out(command, pdu)
        else:
            raise ProtocolError(f"opcode {int(pdu.opcode):02X}h to a command")
        return b""

    def _take_numbers(self, pdu: Any) -> None:
        """StatSN and MaxCmdSN; R2T, Data-In without status and an unsolicited NOP-In use no StatSN up."""
        unsolicited = pdu.opcode == Opcode.NOP_IN and pdu.initiator_task_tag == NO_TAG
        without_status = pdu.opcode == Opcode.R2T or (pdu.opcode == Opcode.DATA_IN and not pdu.has_status)
        if not (unsolicited or without_status):
            self._exp_stat_sn = (pdu.stat_sn + 1) & SERIAL_MASK
        if serial_before(self._max_cmd_sn, pdu.max_cmd_sn):
            self._max_cmd_sn = pdu.max_cmd_sn

    def _data_in(self, command: _Command, pdu: Any, data: bytes) -> None:
        end = pdu.buffer_offset + len(data)
        if end > len(command.data_in):
            raise ProtocolError("more Data-In than was asked for")
        command.data_in[pdu.buffer_offset : end] = data
        command.came += len(data)
        if pdu.has_status:
            self._end(command, pdu.status, b"")

    def _response(self, command: _Command, pdu: Any, data: bytes) -> None:
        if pdu.response != ResponseCode.COMMAND_COMPLETED:
            raise SessionEnded(f"the target failed: response {pdu.response:02X}h")
        self._end(command, pdu.status, SENSE_SEGMENT.parse(data).sense if data else b"")

    def _end(self, command: _Command, status: int, sense: bytes) -> None:
        self._command = None
        self.outcome = Outcome(status, sense, bytes(command.data_in[: command.came]))

    def _data_out(self, command: _Command, r2t: Any) -> bytes:
        """All that an R2T asks for, in Data-Out PDUs that the target can take (RFC 7143, 11.7 and 11.8)."""
        end = r2t.buffer_offset + r2t.desired_data_transfer_length
        if not r2t.buffer_offset < end <= len(command.data_out):
            raise ProtocolError("an R2T for data that there is not")
        step = self._agreed.segment
        return b"".join(
            build(
                Opcode.DATA_OUT,
                command.data_out[at : min(end, at + step)],
                final=at + step >= end,
                lun=command.lun,
                initiator_task_tag=command.tag,
                target_transfer_tag=r2t.target_transfer_tag,
                exp_stat_sn=self._exp_stat_sn,
                data_sn=number,
                buffer_offset=at,
            )
            for number, at in enumerate(range(r2t.buffer_offset, end, step))
        )

    def _pong(self, ping: Any, data: bytes) -> bytes:
        return build(
            Opcode.NOP_OUT,
            data,
            immediate=True,
            lun=ping.lun,
            initiator_task_tag=NO_TAG,
            target_transfer_tag=ping.target_transfer_tag,
            cmd_sn=self._cmd_sn,
            exp_stat_sn=self._exp_stat_sn,
        )
