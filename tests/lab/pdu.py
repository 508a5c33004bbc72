"""iSCSI PDUs as a test's initiator sees them (RFC 7143, section 11): raw bytes with names for the fields.

Written from the RFC and not from the target's codec, so that a misreading there is seen here. Nothing is checked on
the way out: a test may send whatever it likes.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

HEADER_BYTES: Final = 48
DIGEST_BYTES: Final = 4
RESERVED_TAG: Final = 0xFFFFFFFF

FINAL: Final = 0x80
IMMEDIATE: Final = 0x40

READ, WRITE, SIMPLE = 0x40, 0x20, 0x01
"""SCSI Command: byte 1 (11.3.1)."""
TRANSIT: Final = 0x80
"""Login: byte 1 (11.12.1); below it CSG in bits 2-3 and NSG in bits 0-1."""
STATUS_PRESENT, UNDERFLOW, OVERFLOW = 0x01, 0x02, 0x04
"""Data-In and SCSI Response: byte 1 (11.4.1, 11.7.2)."""


class Opcode(IntEnum):
    """Byte 0, bits 0-5 (11.2.1.2)."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT = 0x02
    LOGIN = 0x03
    TEXT = 0x04
    DATA_OUT = 0x05
    LOGOUT = 0x06
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC = 0x32
    REJECT = 0x3F


def _word(offset: int, doc: str) -> property:
    layout = struct.Struct(">I")

    def read(pdu: "Pdu") -> int:
        value: int = layout.unpack_from(pdu.header, offset)[0]
        return value

    def write(pdu: "Pdu", value: int) -> None:
        layout.pack_into(pdu.header, offset, value)

    return property(read, write, doc=doc)


@dataclass
class Pdu:
    """One PDU: the 48 bytes of its basic header, additional header segments and data, without padding or digests."""

    header: bytearray = field(default_factory=lambda: bytearray(HEADER_BYTES))
    data: bytes = b""
    additional: bytes = b""

    tag = _word(16, "Initiator Task Tag.")
    transfer_tag = _word(20, "Target Transfer Tag; in a SCSI Command the Expected Data Transfer Length.")
    cmd_sn = _word(24, "CmdSN, to the target; StatSN, from it.")
    stat_sn = _word(24, "StatSN, from the target.")
    exp_stat_sn = _word(28, "ExpStatSN, to the target.")
    exp_cmd_sn = _word(28, "ExpCmdSN, from the target.")
    max_cmd_sn = _word(32, "MaxCmdSN, from the target.")
    data_sn = _word(36, "DataSN of Data-In and Data-Out, R2TSN of R2T, ExpDataSN of a SCSI Response.")
    offset = _word(40, "Buffer Offset of Data-In, Data-Out and R2T.")
    residual = _word(44, "Residual Count of Data-In and SCSI Response; of R2T the Desired Data Transfer Length.")

    @property
    def opcode(self) -> int:
        """The opcode, an Opcode where it is one that the RFC knows."""
        return self.header[0] & 0x3F

    @property
    def flags(self) -> int:
        """Byte 1."""
        return self.header[1]

    @property
    def text(self) -> dict[str, str]:
        """The data as the key=value pairs of section 6."""
        pairs = (pair.partition(b"=") for pair in self.data.split(b"\0") if pair)
        return {key.decode(): value.decode() for key, _, value in pairs}

    def __repr__(self) -> str:
        known = {opcode.value: opcode.name for opcode in Opcode}
        name = known.get(self.opcode, hex(self.opcode))
        return f"<{name} {self.header.hex(' ', -4)} data {len(self.data)} bytes>"

    def packed(self) -> bytearray:
        """The header, with the lengths of additional header segments and data filled in."""
        self.header[4] = len(self.additional) // 4
        self.header[5:8] = len(self.data).to_bytes(3)
        return self.header


def pad(content: bytes) -> bytes:
    """``content`` filled up with zeros to whole words (11.1)."""
    return content + bytes(-len(content) % 4)


def request(opcode: int, flags: int = FINAL, lun: int = 0, data: bytes = b"") -> Pdu:
    """A PDU to the target with the fields that most have in common."""
    pdu = Pdu(data=data)
    pdu.header[0], pdu.header[1] = opcode, flags
    pdu.header[8:16] = encode_lun(lun)
    pdu.tag = pdu.transfer_tag = RESERVED_TAG
    return pdu


def encode_lun(lun: int) -> bytes:
    """The 8 bytes of a LUN by peripheral device addressing below 256 and flat space addressing above (SAM-5, 4.7)."""
    first = lun if lun < 0x100 else 0x4000 | lun
    return first.to_bytes(2) + bytes(6)


def encode_text(pairs: dict[str, str]) -> bytes:
    """Key=value pairs as a data segment holds them (RFC 7143, section 6.1)."""
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs.items())
