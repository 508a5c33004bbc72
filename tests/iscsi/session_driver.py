"""An initiator's side of a whole connection without a socket, for the tests: bytes in, PDUs out, every rule checked.

Whatever the target sends is held to the rules that always hold: StatSN without a gap, a MaxCmdSN that never goes back,
DataSN and offsets in order, digests, data within what was agreed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Self

from crc32c import crc32c

from arrayd.buffers import BufferPool
from arrayd.iscsi.connection import Connection
from arrayd.iscsi.keys import MAX_RECV_SEGMENT_BYTES, parse_pairs
from arrayd.iscsi.login import Access
from arrayd.iscsi.pdu import BHS_BYTES, NO_TAG, LoginStatus, Opcode, parse_header
from arrayd.iscsi.session import InitiatorRule, Node, NodeRules, PeerPolicy
from arrayd.iscsi.wire import serial_before
from arrayd.output import OwnBytes
from arrayd.scsi.logical_unit import LogicalUnit
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import FileExtent
from arrayd.volumes.volume import Volume
from tests.iscsi.requests import TARGET, Outcome, Pdu, Requests
from tests.scsi.initiator import make_target
from tests.scsi.memory_volume import MemoryVolume

HOST = "iqn.1993-08.org.debian:01:host1"
ISID = bytes.fromhex("00023d000001")
FIRST_CMD_SN = 0xFFFFFFF0
"""So that every longer test sees it wrap."""
TURNS_MAX = 2000
"""Turns of the event loop that an answer may take."""
PORTAL = ("127.0.0.1", 3260)

KEYS: Mapping[str, str] = {
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxRecvDataSegmentLength": "262144",
    "MaxBurstLength": "1048576",
    "FirstBurstLength": "65536",
    "MaxOutstandingR2T": "1",
}


DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}
SOLICITED = {"InitialR2T": "Yes", "ImmediateData": "No"}
PATTERN = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1 << 16))
BLOCK = 512


def blocks(count: int) -> int:
    return count * BLOCK


def is_unnumbered(header: Any) -> bool:
    """Whether a PDU does not use up a StatSN: R2T, a NOP-In that asks, Data-In without status."""
    if header.opcode == Opcode.DATA_IN:
        return not bool(header.has_status)
    asks = header.opcode == Opcode.NOP_IN and header.initiator_task_tag == NO_TAG
    return bool(header.opcode == Opcode.R2T or asks)


def random_bytes(count: int) -> bytes:
    """Challenges need not be random here."""
    return bytes(count)


def make_node(
    volumes: Mapping[int, Volume] | None = None,
    *,
    limit_bytes: int = 256 << 20,
    initiators: Mapping[str, InitiatorRule] | None = None,
    discovery: Access | None = None,
) -> Node:
    """A node with real SCSI behind it, and volumes in memory."""
    target = make_target({0: MemoryVolume()} if volumes is None else volumes)
    assert isinstance(target, ScsiTarget)
    target.buffers.limit_bytes = limit_bytes
    rules = NodeRules(initiators, discovery or Access())
    node = Node(TARGET, "primary", target, 1, target.buffers, rules)
    node.listening = [PORTAL]
    return node


class Host(Requests):
    """One connection to `node`. The target receives `piece` bytes at a time at the most, and sends `chunk`."""

    def __init__(
        self,
        node: Node,
        *,
        name: str = HOST,
        isid: bytes = ISID,
        from_loopback: bool = True,
        piece: int = 1 << 30,
        chunk: int = 1 << 30,
        cmd_sn: int = FIRST_CMD_SN,
    ) -> None:
        self.node = node
        super().__init__(name, isid, cmd_sn)
        self.piece = piece
        self.chunk = chunk
        self.woken = False
        self.connection = Connection(PeerPolicy(node, PORTAL, from_loopback), random_bytes, self._wake)
        self.max_cmd_sn: int | None = None
        self.others: list[Pdu] = []
        """PDUs of no command, in order."""
        self.reading = True
        """Whether the host takes what the target sends."""
        self._stream = bytearray()
        self._files = os.memfd_create("sent from files")

    def _wake(self) -> None:
        self.woken = True

    # -- bytes -------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Gives `data` to the connection, and takes what it sends."""
        at = 0
        while at < len(data) and not self.connection.closing:
            space = self.connection.space()
            assert len(space) > 0
            count = min(len(space), self.piece, len(data) - at)
            space[:count] = data[at : at + count]
            at += count
            self.connection.received(count)
            self.pump()
            if not self.reading and self.connection.stalled:
                break  # as a server does, which does not receive then
        self.pump()

    def pump(self) -> None:
        """What a server does after bytes came, or after `wake`: sends, and lets the connection go on."""
        self.woken = False
        connection = self.connection
        for _ in range(100_000):
            if not self.reading:
                return
            self._send(self.chunk)
            if connection.output.empty and not connection.stalled and not connection.has_pending():
                break
            connection.process()
        else:
            raise AssertionError("the connection never has enough")
        self._take_apart()

    def _send(self, limit: int) -> None:
        output = self.connection.output
        while output.segments and limit:
            first = output.segments[0]
            if isinstance(first, FileExtent):
                os.lseek(self._files, 0, os.SEEK_SET)
                count = first.file.send(self._files, first.offset, min(first.length, limit))
                self._stream += os.pread(self._files, count, 0)
                output.sent_from_file(count)
            else:
                view = output.view[first.start : first.end] if isinstance(first, OwnBytes) else first.view
                count = min(len(view), limit)
                self._stream += view[:count]
                output.sent(count)
            limit -= count
        if output.segments:
            return
        count = min(limit, output.tail - output.head)
        self._stream += output.view[output.head : output.head + count]
        output.head += count
        output.mark = max(output.mark, output.head)
        if output.head == output.tail:
            output.reset()

    # -- PDUs in -----------------------------------------------------------------------------------------------------

    def ending(self) -> bool:
        """Whether the target is about to close the connection."""
        return bool(self.connection.closing)

    def _take_apart(self) -> None:
        stream = self._stream
        header_digest = self.agreed.get("HeaderDigest") == "CRC32C"
        data_digest = self.agreed.get("DataDigest") == "CRC32C"
        at = 0
        while at < len(stream):
            header = parse_header(bytes(stream[at : at + BHS_BYTES]))
            assert header.total_ahs_length == 0
            end = at + BHS_BYTES
            if header_digest:
                assert crc32c(stream[at:end]) == int.from_bytes(stream[end : end + 4], "little")
                end += 4
            length = header.data_segment_length
            data = bytes(stream[end : end + length])
            padded = bytes(stream[end : end + length + -length % 4])
            assert not any(padded[length:])
            end += len(padded)
            if data_digest and length:
                assert crc32c(padded) == int.from_bytes(stream[end : end + 4], "little")
                end += 4
            assert end <= len(stream), "a PDU that was cut off"
            at = end
            self._receive(Pdu(header, data))
        stream.clear()

    def _receive(self, pdu: Pdu) -> None:
        assert len(pdu.data) <= int(self.agreed.get("host segment", "8192"))
        self._check_numbers(pdu)
        outcome = self.outcomes.get(pdu.header.get("initiator_task_tag", NO_TAG))
        if pdu.opcode == Opcode.DATA_IN and outcome is not None:
            assert outcome.end is None
            assert pdu.data_sn == len(outcome.data_ins)
            assert pdu.buffer_offset == len(outcome.data)
            outcome.data += pdu.data
            outcome.data_ins.append(pdu)
            if pdu.has_status:
                assert pdu.final
                outcome.end = pdu
        elif pdu.opcode == Opcode.R2T and outcome is not None:
            assert outcome.end is None
            assert pdu.r2t_sn == len(outcome.asked)
            outcome.asked.append(pdu)
        elif pdu.opcode == Opcode.SCSI_RESPONSE and outcome is not None:
            assert outcome.end is None
            assert pdu.exp_data_sn == len(outcome.data_ins)
            outcome.end = pdu
        else:
            assert pdu.opcode not in (Opcode.DATA_IN, Opcode.R2T, Opcode.SCSI_RESPONSE), pdu
            self.others.append(pdu)

    def _check_numbers(self, pdu: Pdu) -> None:
        header = pdu.header
        if header.opcode == Opcode.LOGIN_RESPONSE and header.status:
            return  # they mean nothing then (RFC 7143, 11.13.5)
        if header.opcode == Opcode.DATA_IN and not header.has_status:
            assert header.stat_sn == 0
        elif self.stat_sn is not None:
            assert header.stat_sn == self.stat_sn, (header.stat_sn, self.stat_sn)
        if not is_unnumbered(header):
            self.stat_sn = (header.stat_sn + 1) & 0xFFFFFFFF
        if self.max_cmd_sn is not None and header.max_cmd_sn != self.max_cmd_sn:
            assert serial_before(self.max_cmd_sn, header.max_cmd_sn), "MaxCmdSN went back"
        self.max_cmd_sn = header.max_cmd_sn
        assert not serial_before(self.cmd_sn, header.exp_cmd_sn), "ExpCmdSN beyond what was sent"

    # -- whole exchanges ---------------------------------------------------------------------------------------------

    def login(self, *keys: Mapping[str, str], discovery: bool = False) -> Self:
        """Logs in with KEYS and `keys` over them, which must succeed; takes the unit attentions away."""
        offered = dict(KEYS)
        for more in keys:
            offered |= more
        self.feed(self.login_request(offered, discovery))
        response = self.others.pop()
        assert response.opcode == Opcode.LOGIN_RESPONSE
        assert response.status == LoginStatus.SUCCESS, hex(response.status)
        assert response.transit
        answers = {key: value for key, value in parse_pairs(response.data) if value != "Irrelevant"}
        self.agreed = offered | answers | {"host segment": offered["MaxRecvDataSegmentLength"]}
        assert int(self.agreed["MaxRecvDataSegmentLength"]) == MAX_RECV_SEGMENT_BYTES
        if self.connection.session is not None and not discovery:
            for unit in self.connection.session.nexus.units.values():  # type: ignore[attr-defined]
                nexus: Any = self.connection.session.nexus
                while isinstance(unit, LogicalUnit) and unit.take_attention(nexus) is not None:
                    pass
        return self

    async def until(self, there: Callable[[], bool]) -> None:
        """Lets the event loop turn until `there` is."""
        for _ in range(TURNS_MAX):
            self.pump()
            if there():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never came")

    async def run(self, cdb: bytes, *, expected_in: int = 0, out: bytes = b"", lun: int = 0, **fields: Any) -> Outcome:
        """A command from its beginning to its end, R2Ts answered."""
        self.feed(self.command(cdb, expected_in=expected_in, out=out, lun=lun, **fields))
        outcome = self.outcomes[self.last_tag]
        answered = 0
        for _ in range(TURNS_MAX):
            self.pump()
            while answered < len(outcome.asked):
                answered += 1
                self.feed(self.answer_to(outcome.asked[answered - 1], out))
            if outcome.end is not None:
                return outcome
            assert not self.connection.closing, self.connection.closing
            await asyncio.sleep(0)
        raise AssertionError("no answer")

    def only(self) -> Pdu:
        """The one PDU of no command that came."""
        (pdu,) = self.others
        self.others.clear()
        return pdu

    def close(self) -> None:
        """The socket is gone."""
        self.connection.closed()
        os.close(self._files)


def assert_nothing_left(node: Node, pool: BufferPool | None = None) -> None:
    """No session, no nexus, no task, no buffer."""
    assert not node.sessions
    assert (pool or node.buffers).used_bytes == 0
    target = node.target
    assert isinstance(target, ScsiTarget)
    assert not target.nexuses
    for unit in (target.absent, target.controller, *target.units.values()):
        assert not unit.tasks
        assert isinstance(unit, LogicalUnit)
        assert not unit.attentions
