"""An iSCSI initiator for tests: one session over a raw connection, with many tasks at once.

``Session`` logs in with any keys, numbers its commands, answers every R2T, and gives each command its response; it does
nothing about errors but report them. What must be sent broken goes over its ``connection``.
"""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.lab.connection import TIMEOUT_S, Connection, IscsiError
from tests.lab.pdu import (
    FINAL,
    IMMEDIATE,
    OVERFLOW,
    READ,
    RESERVED_TAG,
    SIMPLE,
    STATUS_PRESENT,
    TRANSIT,
    UNDERFLOW,
    WRITE,
    Opcode,
    Pdu,
    encode_text,
    request,
)

NAME: Final = "iqn.2026-11.io.arrayd:test"
ISID: Final = bytes.fromhex("800000000001")
SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3
"""Login stages (RFC 7143, 11.12.3)."""
SESSION_TYPE_NORMAL: Final = "Normal"

GOOD, CHECK_CONDITION = 0x00, 0x02
MAX_LOGIN_ROUNDS: Final = 20
DEFAULT_SEGMENT_BYTES: Final = "8192"
"""MaxRecvDataSegmentLength of who declares none (RFC 7143, 13.12)."""
SERIAL_SIGN: Final = 0x80000000
"""Difference of two serial numbers from which on the first is the smaller one (RFC 1982)."""

OFFER: Final[Mapping[str, str]] = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxRecvDataSegmentLength": "262144",
    "MaxBurstLength": "1048576",
    "FirstBurstLength": "65536",
    "MaxOutstandingR2T": "4",
    "MaxConnections": "1",
    "ErrorRecoveryLevel": "0",
}
"""What a session offers when a test says nothing else; much as open-iscsi and libiscsi do."""


class LoginRefusedError(IscsiError):
    """A login response with a status; ``status`` is class * 256 + detail (RFC 7143, 11.13.5)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"login refused: {status:#06x}")
        self.status = status


@dataclass
class Response:
    """How a SCSI command ended: status, sense data without its length, the data read, and the residual.

    ``residual`` is positive for bytes that were expected and not transferred, negative for what did not fit.
    """

    status: int
    sense: bytes = b""
    data: bytes = b""
    residual: int = 0
    response: int = 0

    @property
    def sense_key(self) -> int:
        """The sense key, of fixed or descriptor format (SPC-5, 4.4); 0 without sense data."""
        if len(self.sense) < 4:
            return 0
        return (self.sense[2] if self.sense[0] & 0x7E == 0x70 else self.sense[1]) & 0x0F

    @property
    def additional_sense(self) -> int:
        """ASC * 256 + ASCQ; 0 without sense data."""
        if len(self.sense) < 4:
            return 0
        fixed = self.sense[0] & 0x7E == 0x70
        return int.from_bytes(self.sense[12:14] if fixed else self.sense[2:4])


@dataclass
class _Task:
    """A command on its way: what it sends, what it has received, and who waits for it."""

    data_out: bytes
    lun: int
    ended: asyncio.Future[Response]
    data_in: bytearray


@dataclass
class Session:
    """One session of one connection. ``login`` first; then any number of ``command`` at once, from any tasks."""

    connection: Connection
    name: str = NAME
    isid: bytes = ISID
    keys: dict[str, str] = field(default_factory=dict)
    """What the target answered in the login, over what was offered."""
    cmd_sn: int = 1
    exp_stat_sn: int = 0
    tsih: int = 0

    def __post_init__(self) -> None:
        self.max_cmd_sn = self.cmd_sn
        self.tasks: dict[int, _Task] = {}
        self.other: asyncio.Queue[Pdu] = asyncio.Queue()
        """PDUs that belong to no command: NOP-In, asynchronous messages, rejects, answers to TEXT and the like."""
        self.ended = False
        self._tags = itertools.count(1)
        self._window = asyncio.Event()
        self._receiver: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        address: str,
        target: str | None,
        offer: Mapping[str, str] | None = None,
        *,
        name: str = NAME,
        isid: bytes = ISID,
    ) -> Self:
        """Connect and log in to ``target``, without authentication; None makes a discovery session."""
        session = cls(await Connection.open(address), name, isid)
        try:
            await session.login(target, offer)
        except BaseException:
            await session.close()
            raise
        return session

    async def login(self, target: str | None, offer: Mapping[str, str] | None = None) -> None:
        """Log in without authentication. ``offer`` is laid over OFFER; raises LoginRefusedError."""
        pairs = {"InitiatorName": self.name}
        pairs |= {"TargetName": target, "SessionType": SESSION_TYPE_NORMAL} if target else {"SessionType": "Discovery"}
        pairs |= {**OFFER, **(offer or {})}
        self.keys = pairs | {"MaxRecvDataSegmentLength": DEFAULT_SEGMENT_BYTES}  # the target declares its own
        answer = await self.login_round(OPERATIONAL, FULL_FEATURE, pairs)
        for _ in range(MAX_LOGIN_ROUNDS):
            if answer.flags & TRANSIT:
                break
            answer = await self.login_round(OPERATIONAL, FULL_FEATURE, {})
        self.start()

    async def login_round(self, stage: int, next_stage: int | None, pairs: Mapping[str, str]) -> Pdu:
        """One Login request and its response; the keys of the response are laid over ``keys``."""
        pdu = request(Opcode.LOGIN | IMMEDIATE, stage << 2, data=encode_text(dict(pairs)))
        if next_stage is not None:
            pdu.header[1] |= TRANSIT | next_stage
        pdu.header[8:14] = self.isid
        pdu.header[14:16] = self.tsih.to_bytes(2)
        pdu.tag, pdu.transfer_tag = 0, 0  # bytes 20-23 are the CID and reserved
        pdu.cmd_sn, pdu.exp_stat_sn = self.cmd_sn, self.exp_stat_sn
        await self.connection.send(pdu)
        answer = await self.connection.receive()
        if answer.opcode != Opcode.LOGIN_RESPONSE:
            raise IscsiError(f"{answer} to a login")
        if status := int.from_bytes(answer.header[36:38]):
            raise LoginRefusedError(status)
        self.tsih = int.from_bytes(answer.header[14:16])
        self.keys |= answer.text
        self._take_numbers(answer)
        return answer

    def start(self) -> None:
        """Enter the full feature phase: digests as agreed, and responses go to whoever waits for them."""
        self.connection.header_digest = self.keys.get("HeaderDigest") == "CRC32C"
        self.connection.data_digest = self.keys.get("DataDigest") == "CRC32C"
        self._receiver = asyncio.create_task(self._receive_all())

    async def close(self) -> None:
        """Drop the connection, as a host does that goes down; commands on their way end with IscsiError."""
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.gather(self._receiver, return_exceptions=True)
        await self.connection.close()

    async def logout(self) -> None:
        """Log out (reason: close the session) and wait until the target has closed the connection."""
        answer = await self.exchange(request(Opcode.LOGOUT | IMMEDIATE), Opcode.LOGOUT_RESPONSE)
        if answer.header[2] != 0:
            raise IscsiError(f"{answer} to a logout")
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def exchange(self, pdu: Pdu, answer: Opcode, timeout: float = TIMEOUT_S) -> Pdu:
        """Send a request other than a SCSI command, with tag and numbers filled in, and wait for ``answer``."""
        pdu.tag = next(self._tags)
        await self._number_and_send(pdu)
        async with asyncio.timeout(timeout):
            while True:
                received = await self.other.get()
                if received.opcode == answer and received.tag == pdu.tag:
                    return received
                if received.opcode == Opcode.REJECT:
                    raise IscsiError(f"{received} to {pdu}")

    async def command(self, cdb: bytes, *, lun: int = 0, data_out: bytes = b"", read_bytes: int = 0) -> Response:
        """Run a SCSI command with its data. Raises IscsiError when the session ends first."""
        async with asyncio.timeout(TIMEOUT_S):
            return await (await self.submit(cdb, lun=lun, data_out=data_out, read_bytes=read_bytes))

    async def submit(
        self, cdb: bytes, *, lun: int = 0, data_out: bytes = b"", read_bytes: int = 0
    ) -> asyncio.Future[Response]:
        """Send a SCSI command once the window is open for it, with as much immediate data as agreed.

        The future holds its Response, or IscsiError when the session ends first.
        """
        pdu = request(Opcode.SCSI_COMMAND, FINAL | SIMPLE, lun)
        pdu.header[1] |= (READ if read_bytes else 0) | (WRITE if data_out else 0)
        pdu.header[32:48] = cdb.ljust(16, b"\0")
        pdu.tag = next(self._tags)
        pdu.transfer_tag = len(data_out) or read_bytes  # Expected Data Transfer Length
        if data_out and self.keys.get("ImmediateData") == "Yes":
            pdu.data = data_out[: min(self._number("FirstBurstLength"), self._number("MaxRecvDataSegmentLength"))]
        ended: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.tasks[pdu.tag] = _Task(data_out, lun, ended, bytearray(read_bytes))
        await self._number_and_send(pdu)
        return ended

    def _number(self, key: str) -> int:
        return int(self.keys[key])

    async def _number_and_send(self, pdu: Pdu) -> None:
        """Give the PDU its CmdSN, which an immediate one does not use up, once the target's window allows it."""
        immediate = bool(pdu.header[0] & IMMEDIATE)
        while not immediate and not self.ended and (self.max_cmd_sn - self.cmd_sn) & SERIAL_SIGN:
            self._window.clear()
            await self._window.wait()
        if self.ended:
            raise IscsiError("the session has ended")
        pdu.cmd_sn, pdu.exp_stat_sn = self.cmd_sn, self.exp_stat_sn
        if not immediate:
            self.cmd_sn = (self.cmd_sn + 1) & 0xFFFFFFFF
        await self.connection.send(pdu)

    async def _receive_all(self) -> None:
        error = IscsiError("the session was closed")
        try:
            while True:
                await self._receive_one(await self.connection.receive(timeout=None))
        except IscsiError as ended:
            error = ended
        finally:
            self.ended = True
            for task in self.tasks.values():
                if not task.ended.done():
                    task.ended.set_exception(error)
                    task.ended.exception()  # whoever has not asked for it need not be told
            self._window.set()

    async def _receive_one(self, pdu: Pdu) -> None:
        self._take_numbers(pdu)
        task = self.tasks.get(pdu.tag)
        if pdu.opcode == Opcode.DATA_IN and task:
            task.data_in[pdu.offset : pdu.offset + len(pdu.data)] = pdu.data
            if pdu.flags & STATUS_PRESENT:
                self._end(pdu, task, Response(pdu.header[3]))
        elif pdu.opcode == Opcode.SCSI_RESPONSE and task:
            length = int.from_bytes(pdu.data[:2])
            self._end(pdu, task, Response(pdu.header[3], pdu.data[2 : 2 + length], response=pdu.header[2]))
        elif pdu.opcode == Opcode.R2T and task:
            await self._answer_r2t(pdu, task)
        elif pdu.opcode == Opcode.NOP_IN and pdu.transfer_tag != RESERVED_TAG and pdu.tag == RESERVED_TAG:
            pong = request(Opcode.NOP_OUT | IMMEDIATE)
            pong.transfer_tag = pdu.transfer_tag
            await self._number_and_send(pong)
        else:
            self.other.put_nowait(pdu)

    def _end(self, pdu: Pdu, task: _Task, response: Response) -> None:
        if pdu.flags & UNDERFLOW:
            response.residual = pdu.residual
        elif pdu.flags & OVERFLOW:
            response.residual = -pdu.residual
        response.data = bytes(task.data_in[: len(task.data_in) - max(0, response.residual)])
        del self.tasks[pdu.tag]
        if not task.ended.done():
            task.ended.set_result(response)

    async def _answer_r2t(self, r2t: Pdu, task: _Task) -> None:
        """Send exactly what was asked for, in Data-Out PDUs of at most the target's MaxRecvDataSegmentLength."""
        end = r2t.offset + r2t.residual  # Desired Data Transfer Length
        step = self._number("MaxRecvDataSegmentLength")
        for data_sn, offset in enumerate(range(r2t.offset, end, step)):
            pdu = request(Opcode.DATA_OUT, 0, task.lun, task.data_out[offset : min(end, offset + step)])
            pdu.header[1] = FINAL if offset + step >= end else 0
            pdu.tag, pdu.transfer_tag = r2t.tag, r2t.transfer_tag
            pdu.exp_stat_sn, pdu.data_sn, pdu.offset = self.exp_stat_sn, data_sn, offset
            pdu.cmd_sn = 0  # reserved in a Data-Out
            await self.connection.send(pdu)

    def _take_numbers(self, pdu: Pdu) -> None:
        carries_status = pdu.opcode not in (Opcode.R2T, Opcode.DATA_IN) or bool(
            pdu.opcode == Opcode.DATA_IN and pdu.flags & STATUS_PRESENT
        )
        if carries_status and not (pdu.opcode == Opcode.NOP_IN and pdu.tag == RESERVED_TAG):
            self.exp_stat_sn = (pdu.stat_sn + 1) & 0xFFFFFFFF
        if not (pdu.max_cmd_sn - self.max_cmd_sn) & SERIAL_SIGN:
            self.max_cmd_sn = pdu.max_cmd_sn
            self._window.set()
