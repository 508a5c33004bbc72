"""The PDUs of an initiator in full feature phase, numbered and with the digests that were agreed, for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crc32c import crc32c

from arrayd.iscsi.keys import MAX_RECV_SEGMENT_BYTES, format_pairs
from arrayd.iscsi.pdu import BHS_BYTES, Opcode, build, pad
from arrayd.scsi.lun import encode_lun

TARGET = "iqn.2026-11.io.arrayd:primary"


@dataclass
class Pdu:
    """A PDU from the target: the fields of its header, and its data without padding."""

    header: Any
    data: bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.header, name)


@dataclass
class Outcome:
    """How a command stands: what it read so far, the R2Ts it was sent, and the PDU that carried its status."""

    data: bytearray = field(default_factory=bytearray)
    data_ins: list[Pdu] = field(default_factory=list)
    asked: list[Pdu] = field(default_factory=list)
    end: Pdu | None = None

    @property
    def ended(self) -> bool:
        return self.end is not None

    @property
    def status(self) -> int:
        assert self.end is not None
        return int(self.end.status)

    @property
    def sense(self) -> bytes:
        assert self.end is not None
        length = int.from_bytes(self.end.data[:2], "big")
        assert len(self.end.data) == (2 + length if length else 0)
        return self.end.data[2:]


class Requests:
    """What an initiator sends: each method gives the bytes of a PDU, and takes its numbers."""

    def __init__(self, name: str, isid: bytes, cmd_sn: int) -> None:
        self.name = name
        self.isid = isid
        self.cmd_sn = cmd_sn
        self.stat_sn: int | None = None
        """What is expected next."""
        self.agreed: dict[str, str] = {}
        """Keys as they hold after the login."""
        self.outcomes: dict[int, Outcome] = {}
        """Of every command, by its tag."""
        self.last_tag = 0
        """Tag of the last command."""
        self._tag = 0

    def pdu(self, opcode: Opcode, data: bytes = b"", ahs: bytes = b"", **fields: Any) -> bytes:
        """The bytes of a PDU, numbered and with the digests that were agreed."""
        immediate = fields.get("immediate", False)
        if opcode not in (Opcode.DATA_OUT, Opcode.SNACK_REQUEST):
            fields.setdefault("cmd_sn", self.cmd_sn)
            if not immediate and fields["cmd_sn"] == self.cmd_sn:
                self.cmd_sn = (self.cmd_sn + 1) & 0xFFFFFFFF
        fields.setdefault("exp_stat_sn", self.stat_sn or 0)
        whole = build(opcode, data, ahs, **fields)
        header = whole[: BHS_BYTES + len(ahs)]
        if self.agreed.get("HeaderDigest") == "CRC32C":
            header += crc32c(header).to_bytes(4, "little")
        if data:
            header += pad(data)
            if self.agreed.get("DataDigest") == "CRC32C":
                header += crc32c(pad(data)).to_bytes(4, "little")
        return header

    def new_tag(self) -> int:
        self._tag += 1
        return self._tag

    def login_request(self, keys: Mapping[str, str], discovery: bool = False, **fields: Any) -> bytes:
        """One Login Request that asks for full feature phase at once."""
        names = {"InitiatorName": self.name}
        names |= {"SessionType": "Discovery"} if discovery else {"TargetName": TARGET, "SessionType": "Normal"}
        return build(
            Opcode.LOGIN_REQUEST,
            format_pairs((names | dict(keys)).items()),
            **{
                "immediate": True,
                "transit": True,
                "csg": 1,
                "nsg": 3,
                "isid": self.isid,
                "cmd_sn": self.cmd_sn,
                **fields,
            },
        )

    def command(
        self,
        cdb: bytes,
        *,
        expected_in: int = 0,
        out: bytes = b"",
        lun: int = 0,
        tag: int | None = None,
        final: bool = True,
        immediate_data: bytes | None = None,
        attribute: int = 1,
        **fields: Any,
    ) -> bytes:
        """The bytes of a SCSI Command; by default with as much immediate data as was agreed. Its tag is `last_tag`."""
        self.last_tag = tag = self.new_tag() if tag is None else tag
        self.outcomes[tag] = Outcome()
        if immediate_data is None:
            limit = min(int(self.agreed["FirstBurstLength"]), MAX_RECV_SEGMENT_BYTES)
            immediate_data = out[:limit] if self.agreed["ImmediateData"] == "Yes" else b""
        return self.pdu(
            Opcode.SCSI_COMMAND,
            immediate_data,
            **{
                "final": final,
                "read": expected_in > 0,
                "write": bool(out),
                "attribute": attribute,
                "lun": encode_lun(lun),
                "initiator_task_tag": tag,
                "expected_data_transfer_length": len(out) or expected_in,
                "cdb": cdb.ljust(16, b"\0"),
                **fields,
            },
        )

    def data_out(
        self, tag: int, transfer_tag: int, data_sn: int, offset: int, data: bytes, final: bool, lun: int = 0
    ) -> bytes:
        """The bytes of a Data-Out."""
        return self.pdu(
            Opcode.DATA_OUT,
            data,
            final=final,
            lun=encode_lun(lun),
            initiator_task_tag=tag,
            target_transfer_tag=transfer_tag,
            data_sn=data_sn,
            buffer_offset=offset,
        )

    def answer_to(self, r2t: Pdu, out: bytes, segment: int = MAX_RECV_SEGMENT_BYTES) -> bytes:
        """All Data-Out that `r2t` asks for."""
        start, length = r2t.buffer_offset, r2t.desired_data_transfer_length
        pieces = []
        for data_sn, offset in enumerate(range(start, start + length, segment)):
            end = min(offset + segment, start + length)
            data = out[offset:end]
            pieces.append(
                self.data_out(
                    r2t.initiator_task_tag, r2t.target_transfer_tag, data_sn, offset, data, end == start + length
                )
            )
        return b"".join(pieces)

    def nop(self, data: bytes = b"", **fields: Any) -> bytes:
        """A NOP-Out that asks for an answer."""
        return self.pdu(Opcode.NOP_OUT, data, **{"initiator_task_tag": self.new_tag(), **fields})

    def manage(self, function: int, lun: int = 0, **fields: Any) -> bytes:
        """An immediate Task Management Function Request."""
        return self.pdu(
            Opcode.TASK_MANAGEMENT_REQUEST,
            **{
                "immediate": True,
                "function": function,
                "lun": encode_lun(lun),
                "initiator_task_tag": self.new_tag(),
                **fields,
            },
        )


def read_10(lba: int, blocks: int) -> bytes:
    return bytes([0x28, 0]) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


def write_10(lba: int, blocks: int) -> bytes:
    return bytes([0x2A, 0]) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"
