"""A transport made of SCSI commands: READ and WRITE (SBC-4, 5.13 and 5.40 on), WRITE BUFFER and READ BUFFER (SPC-5).

For units that carry out any command: those of our own initiator, and those that Linux lets us command by SG_IO.
"""

from __future__ import annotations

from arrayd.commands.messages import BUFFER_MODE
from arrayd.host.transport import BLOCK_BYTES, Interrupted, Outcome, Refused, Unit, Unreachable
from arrayd.scsi.designators import VENDOR
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Status

INQUIRY, READ_10, WRITE_10, READ_16, WRITE_16, WRITE_BUFFER, READ_BUFFER = 0x12, 0x28, 0x2A, 0x88, 0x8A, 0x3B, 0x3C
"""Operation codes."""
INQUIRY_BYTES = 36
"""Standard INQUIRY data as far as every device has it (SPC-5, 6.7.2); bytes 8 to 15 name the vendor."""
ATTENTIONS_MAX = 8
"""Unit attentions in a row that are listened to before a read is given up."""

LATER = frozenset({Status.BUSY, Status.TASK_SET_FULL, Status.TASK_ABORTED})
"""Status after which the same command may be sent again."""
PASSING = frozenset({Key.NOT_READY, Key.UNIT_ATTENTION, Key.ABORTED_COMMAND, Key.HARDWARE_ERROR})
"""Sense keys after which it may be, too: the array, or one behind it, is on its way up, or the link is down."""


class ScsiTransport:
    """READ, WRITE, WRITE BUFFER and READ BUFFER of one unit; `name` stands in errors."""

    def __init__(self, unit: Unit, name: str) -> None:
        self._unit = unit
        self._name = name
        self._is_an_array = False

    def read(self, offset: int, length: int, timeout_s: float) -> bytes:
        """See Transport."""
        data = self._run(_cdb_of(READ_10, READ_16, offset, length), length, timeout_s)
        if len(data) != length:
            raise Interrupted(f"{self._name}: a READ brought {len(data)} bytes of {length}")
        return data

    def write(self, offset: int, data: bytes, timeout_s: float) -> None:
        """See Transport."""
        cdb = _cdb_of(WRITE_10, WRITE_16, offset, len(data))
        self._judge(self._unit.execute(cdb, data, 0, timeout_s))

    def write_buffer(self, lane: int, data: bytes, timeout_s: float) -> None:
        """See Transport. Only an arrayd knows what the vendor specific mode means, so only one is sent it."""
        cdb = _buffer_cdb(WRITE_BUFFER, lane, len(data))
        for _ in range(ATTENTIONS_MAX):
            if not self._is_an_array:
                self._recognise(timeout_s)
            outcome = self._unit.execute(cdb, data, 0, timeout_s)
            if not _is_attention(outcome):
                break
            self._is_an_array = False  # it was not carried out, and the LUN may be something else now
        self._judge(outcome)

    def read_buffer(self, lane: int, length: int, timeout_s: float) -> bytes:
        """See Transport."""
        return self._run(_buffer_cdb(READ_BUFFER, lane, length), length, timeout_s)

    def _recognise(self, timeout_s: float) -> None:
        cdb = bytes([INQUIRY, 0, 0, *INQUIRY_BYTES.to_bytes(2, "big"), 0])
        vendor = self._run(cdb, INQUIRY_BYTES, timeout_s)[8:16].decode("ascii", "replace").strip()
        if vendor != VENDOR:
            raise Unreachable(f"{self._name}: a device of vendor {vendor!r}, not an arrayd")
        self._is_an_array = True

    def _run(self, cdb: bytes, read_bytes: int, timeout_s: float) -> bytes:
        """A command that changes nothing: it is repeated after a unit attention."""
        for _ in range(ATTENTIONS_MAX):
            outcome = self._unit.execute(cdb, b"", read_bytes, timeout_s)
            if not _is_attention(outcome):
                break
        return self._judge(outcome)

    def _judge(self, outcome: Outcome) -> bytes:
        """The data of a command that went well; else the error that its status and sense mean."""
        if outcome.status in (Status.GOOD, Status.CONDITION_MET):
            return outcome.data
        if outcome.status in LATER:
            raise Interrupted(f"{self._name}: {Status(outcome.status).name.replace('_', ' ')}")
        if outcome.status != Status.CHECK_CONDITION:
            raise Refused(f"{self._name}: {_status_text(outcome.status)}", asc=0)
        key, asc = sense_of(outcome.sense)
        text = f"{self._name}: {sense_text(key, asc)}"
        if asc == Asc.LOGICAL_UNIT_NOT_SUPPORTED.value:
            raise Unreachable(text)
        if key in PASSING:
            raise Interrupted(text)
        raise Refused(text, asc)


def _is_attention(outcome: Outcome) -> bool:
    return outcome.status == Status.CHECK_CONDITION and sense_of(outcome.sense)[0] == Key.UNIT_ATTENTION


def sense_of(sense: bytes) -> tuple[int, int]:
    """Sense key, and ASC * 256 + ASCQ, of fixed or descriptor format (SPC-5, 4.4); zeros where there is none."""
    response = sense[0] & 0x7F if sense else 0
    if response in (0x72, 0x73) and len(sense) >= 4:
        return sense[1] & 0x0F, int.from_bytes(sense[2:4], "big")
    if response in (0x70, 0x71) and len(sense) >= 14:
        return sense[2] & 0x0F, int.from_bytes(sense[12:14], "big")
    return 0, 0


def sense_text(key: int, asc: int) -> str:
    """Both in the standard's words, as far as they are known here."""
    try:
        name = Key(key).name.replace("_", " ")
    except ValueError:
        name = f"sense key {key:X}h"
    try:
        return f"{name}, {Asc(asc).name.replace('_', ' ')}"
    except ValueError:
        return f"{name}, {asc >> 8:02X}h/{asc & 0xFF:02X}h"


def _status_text(status: int) -> str:
    try:
        return Status(status).name.replace("_", " ")
    except ValueError:
        return f"status {status:02X}h"


def _cdb_of(short: int, long: int, offset: int, length: int) -> bytes:
    """READ or WRITE of whole blocks, in the form that its LBA fits."""
    assert offset % BLOCK_BYTES == 0
    assert length % BLOCK_BYTES == 0
    lba, blocks = offset // BLOCK_BYTES, length // BLOCK_BYTES
    if lba < 1 << 32 and blocks < 1 << 16:
        return bytes([short, 0, *lba.to_bytes(4, "big"), 0, *blocks.to_bytes(2, "big"), 0])
    return bytes([long, 0, *lba.to_bytes(8, "big"), *blocks.to_bytes(4, "big"), 0, 0])


def _buffer_cdb(code: int, lane: int, length: int) -> bytes:
    """WRITE BUFFER or READ BUFFER(10) in the vendor specific mode, buffer offset 0 (SPC-5, 6.52 and 6.18)."""
    return bytes([code, BUFFER_MODE, lane, 0, 0, 0, *length.to_bytes(3, "big"), 0])
