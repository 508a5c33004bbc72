"""SCSI commands of the host: what goes over the wire, and what status and sense mean for whoever may try again."""

from __future__ import annotations

from collections import deque

import pytest

from arrayd.host.scsi import ATTENTIONS_MAX, ScsiTransport, sense_of, sense_text
from arrayd.host.transport import Interrupted, Outcome, Refused, TransportError, Unit, Unreachable
from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.task import Status

ARRAY = Outcome(0, data=bytes(8) + b"ARRAYD  VOLUME".ljust(28))
GOOD = Outcome(0)
TIMEOUT_S = 7.0


def failed(key: Key, asc: Asc, fixed: bool = True) -> Outcome:
    condition = CheckCondition(key, asc)
    return Outcome(Status.CHECK_CONDITION, condition.fixed() if fixed else condition.descriptor())


ATTENTION = failed(Key.UNIT_ATTENTION, Asc.POWER_ON_OR_RESET)


class Script:
    """A unit that answers as a test says, and remembers what it was told."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = deque(outcomes)
        self.told: list[tuple[bytes, bytes, int]] = []

    def execute(self, cdb: bytes, data_out: bytes, read_bytes: int, timeout_s: float) -> Outcome:
        assert timeout_s == TIMEOUT_S
        self.told.append((cdb, data_out, read_bytes))
        return self.outcomes.popleft()


def transport(unit: Unit) -> ScsiTransport:
    return ScsiTransport(unit, "it")


@pytest.mark.parametrize(
    ("offset", "length", "cdb"),
    [
        (0, 4096, "28000000000000000800"),
        (512 * 0x12345678, 512, "28001234567800000100"),
        (512 << 32, 512, "88000000000100000000000000010000"),
        (0, 512 << 16, "88000000000000000000000100000000"),
    ],
)
def test_read_and_write_fit_their_lba(offset: int, length: int, cdb: str) -> None:
    unit = Script(Outcome(0, data=bytes(length)), GOOD)
    transport(unit).read(offset, length, TIMEOUT_S)
    transport(unit).write(offset, bytes(length), TIMEOUT_S)
    assert unit.told[0] == (bytes.fromhex(cdb), b"", length)
    assert unit.told[1][0] == bytes([int(cdb[:2], 16) + 2]) + bytes.fromhex(cdb)[1:]


def test_buffers_are_written_and_read_in_the_vendors_mode() -> None:
    unit = Script(ARRAY, GOOD, GOOD, Outcome(0, data=b"answer"))
    way = transport(unit)
    way.write_buffer(200, b"message", TIMEOUT_S)
    way.write_buffer(201, b"again", TIMEOUT_S)
    assert way.read_buffer(200, 131136, TIMEOUT_S) == b"answer"
    assert [cdb.hex() for cdb, _, _ in unit.told] == [
        "120000002400",
        "3b01c800000000000700",
        "3b01c900000000000500",
        "3c01c800000002004000",
    ]


def test_what_is_no_array_is_never_sent_a_message() -> None:
    unit = Script(Outcome(0, data=bytes(8) + b"SEAGATE ".ljust(28)))
    with pytest.raises(Unreachable, match="it: a device of vendor 'SEAGATE', not an arrayd"):
        transport(unit).write_buffer(0, b"message", TIMEOUT_S)
    assert len(unit.told) == 1


def test_a_unit_attention_is_listened_to_and_the_device_looked_at_again() -> None:
    unit = Script(ARRAY, ATTENTION, ARRAY, GOOD, ATTENTION, Outcome(0, data=bytes(512)))
    way = transport(unit)
    way.write_buffer(0, b"message", TIMEOUT_S)
    assert way.read(0, 512, TIMEOUT_S) == bytes(512)
    assert [cdb[0] for cdb, _, _ in unit.told] == [0x12, 0x3B, 0x12, 0x3B, 0x28, 0x28]


def test_a_write_after_a_unit_attention_is_for_others_to_decide() -> None:
    """The LUN may be something else now: whoever writes looks at it again first."""
    with pytest.raises(Interrupted, match="it: UNIT ATTENTION, POWER ON OR RESET"):
        transport(Script(ATTENTION)).write(0, bytes(512), TIMEOUT_S)


def test_unit_attentions_have_an_end() -> None:
    unit = Script(*[ATTENTION] * ATTENTIONS_MAX)
    with pytest.raises(Interrupted):
        transport(unit).read(0, 512, TIMEOUT_S)


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (Outcome(Status.BUSY), Interrupted, "it: BUSY"),
        (Outcome(Status.TASK_SET_FULL), Interrupted, "it: TASK SET FULL"),
        (Outcome(Status.RESERVATION_CONFLICT), Refused, "it: RESERVATION CONFLICT"),
        (Outcome(0x77), Refused, "it: status 77h"),
        (failed(Key.NOT_READY, Asc.TARGET_PORT_UNAVAILABLE), Interrupted, "it: NOT READY, TARGET PORT UNAVAILABLE"),
        (failed(Key.ABORTED_COMMAND, Asc.LOGICAL_UNIT_COMMUNICATION_FAILURE), Interrupted, "it: ABORTED COMMAND, "),
        (failed(Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED), Unreachable, "it: ILLEGAL REQUEST, LOGICAL UNIT"),
        (failed(Key.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR), Refused, "it: ILLEGAL REQUEST, COMMAND SEQUENCE ERR"),
        (failed(Key.DATA_PROTECT, Asc.WRITE_PROTECTED, False), Refused, "it: DATA PROTECT, WRITE PROTECTED"),
        (Outcome(Status.CHECK_CONDITION), Refused, "it: NO SENSE, NONE"),
    ],
)
def test_status_and_sense_say_whether_to_try_again(outcome: Outcome, kind: type[TransportError], text: str) -> None:
    with pytest.raises(kind) as caught:
        transport(Script(outcome)).write(0, bytes(512), TIMEOUT_S)
    assert str(caught.value).startswith(text)


def test_only_a_sequence_error_may_be_another_hosts_slot() -> None:
    assert Refused("", Asc.COMMAND_SEQUENCE_ERROR.value).out_of_sequence
    assert Refused("", None).out_of_sequence, "a kernel keeps the code to itself"
    assert not Refused("", Asc.WRITE_PROTECTED.value).out_of_sequence


def test_a_read_that_brings_too_little_is_no_answer() -> None:
    with pytest.raises(Interrupted, match="it: a READ brought 100 bytes of 512"):
        transport(Script(Outcome(0, data=bytes(100)))).read(0, 512, TIMEOUT_S)


@pytest.mark.parametrize("sense", [b"", b"\x70", b"\x72\x05", b"\x7f" * 18, bytes(18)])
def test_sense_that_says_nothing(sense: bytes) -> None:
    assert sense_of(sense) == (0, 0)


def test_sense_that_is_not_known_is_shown_in_numbers() -> None:
    assert sense_text(0xC, 0x1234) == "sense key Ch, 12h/34h"
