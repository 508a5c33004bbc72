"""Sense data (SPC-5, 4.4): keys, additional codes, and the fixed and descriptor formats that carry them."""

from __future__ import annotations

from enum import Enum, IntEnum


class Key(IntEnum):
    """Sense keys (SPC-5, table 48)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    MISCOMPARE = 0xE


class Asc(Enum):
    """Additional sense codes and qualifiers used here (SPC-5, annex F): ASC in the high byte, ASCQ in the low one."""

    NONE = 0x0000
    OPERATION_IN_PROGRESS = 0x0016
    SANITIZE_IN_PROGRESS = 0x041B
    INITIALIZING_COMMAND_REQUIRED = 0x0402
    NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400
    MANUAL_INTERVENTION_REQUIRED = 0x0403
    TARGET_PORT_IN_STANDBY = 0x040B
    TARGET_PORT_UNAVAILABLE = 0x040C
    ASYMMETRIC_ACCESS_TRANSITION = 0x040A
    LOGICAL_UNIT_COMMUNICATION_FAILURE = 0x0800
    WRITE_ERROR = 0x0C00
    UNEXPECTED_UNSOLICITED_DATA = 0x0C0C
    NOT_ENOUGH_UNSOLICITED_DATA = 0x0C0D
    THIRD_PARTY_DEVICE_FAILURE = 0x0D01
    COPY_TARGET_NOT_REACHABLE = 0x0D02
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0D03
    UNRECOVERED_READ_ERROR = 0x1100
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY = 0x1D00
    INVALID_OPERATION_CODE = 0x2000
    LBA_OUT_OF_RANGE = 0x2100
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    PARAMETER_NOT_SUPPORTED = 0x2601
    PARAMETER_VALUE_INVALID = 0x2602
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604
    TOO_MANY_TARGET_DESCRIPTORS = 0x2606
    UNSUPPORTED_TARGET_DESCRIPTOR = 0x2607
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608
    UNSUPPORTED_SEGMENT_DESCRIPTOR = 0x2609
    UNEXPECTED_INEXACT_SEGMENT = 0x260A
    INLINE_DATA_LENGTH_EXCEEDED = 0x260B
    WRITE_PROTECTED = 0x2700
    SPACE_ALLOCATION_FAILED = 0x2707
    MEDIUM_MAY_HAVE_CHANGED = 0x2800
    POWER_ON_OR_RESET = 0x2900
    BUS_DEVICE_RESET = 0x2903
    I_T_NEXUS_LOSS = 0x2907
    MODE_PARAMETERS_CHANGED = 0x2A01
    RESERVATIONS_PREEMPTED = 0x2A03
    RESERVATIONS_RELEASED = 0x2A04
    REGISTRATIONS_PREEMPTED = 0x2A05
    ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2A06
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    COMMAND_SEQUENCE_ERROR = 0x2C00
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    SANITIZE_FAILED = 0x3103
    THIN_PROVISIONING_THRESHOLD = 0x3807
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    MEDIUM_NOT_PRESENT_LOADABLE = 0x3A03
    LOGICAL_UNIT_FAILED_SELF_TEST = 0x3E03
    INQUIRY_DATA_HAS_CHANGED = 0x3F03
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E
    INTERNAL_TARGET_FAILURE = 0x4400
    DATA_PHASE_ERROR = 0x4B00
    MEDIUM_REMOVAL_PREVENTED = 0x5302
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504
    INSUFFICIENT_RESERVATION_RESOURCES = 0x5502
    INSUFFICIENT_RESOURCES = 0x5503
    PROTOCOL_SERVICE_CRC_ERROR = 0x4705


class CheckCondition(Exception):
    """Ends a task with CHECK CONDITION.

    `information` is the INFORMATION field (an LBA or a byte offset), `field` the byte (and optionally bit) of the CDB
    or parameter list at fault, `progress` a fraction of 65,536 (SPC-5, 4.4.2.4). `deferred` marks a deferred error.
    """

    def __init__(
        self,
        key: Key,
        asc: Asc,
        *,
        information: int | None = None,
        field: int | tuple[int, int] | None = None,
        progress: int | None = None,
    ) -> None:
        super().__init__(f"{key.name}, {asc.name}")
        self.key = key
        self.asc = asc
        self.information = information
        self.field = field
        self.progress = progress

    def sense_key_specific(self) -> bytes:
        """The three sense-key specific bytes (SPC-5, 4.4.2.4), zeros when there are none."""
        if self.progress is not None:
            return bytes((0x80,)) + self.progress.to_bytes(2, "big")
        if self.field is None:
            return bytes(3)
        byte, bit = self.field if isinstance(self.field, tuple) else (self.field, None)
        in_cdb = self.asc is not Asc.INVALID_FIELD_IN_PARAMETER_LIST
        flags = 0x80 | (0x40 if in_cdb else 0) | (0 if bit is None else 0x08 | bit)
        return bytes((flags,)) + byte.to_bytes(2, "big")

    def fixed(self) -> bytes:
        """Fixed format, 18 bytes, current error (SPC-5, 4.4.3)."""
        fits = self.information is not None and self.information < 1 << 32
        information = self.information.to_bytes(4, "big") if self.information is not None and fits else bytes(4)
        head = bytes((0x70 | (0x80 if fits else 0), 0, self.key)) + information + bytes((10,)) + bytes(4)
        return head + self.asc.value.to_bytes(2, "big") + bytes(1) + self.sense_key_specific()

    def descriptor(self) -> bytes:
        """Descriptor format, current error (SPC-5, 4.4.2)."""
        body = b""
        if self.information is not None:
            body += bytes((0x00, 0x0A, 0x80, 0)) + self.information.to_bytes(8, "big")
        specific = self.sense_key_specific()
        if specific[0]:
            body += bytes((0x02, 0x06, 0, 0)) + specific + bytes(1)
        return bytes((0x72, self.key)) + self.asc.value.to_bytes(2, "big") + bytes((0, 0, 0, len(body))) + body


class ReservationConflict(Exception):
    """Ends a task with status RESERVATION CONFLICT, which carries no sense data (SAM-5, 5.3.1)."""


def illegal_request(asc: Asc, field: int | tuple[int, int] | None = None) -> CheckCondition:
    """ILLEGAL REQUEST with `asc`, pointing at `field` of the CDB or parameter list."""
    return CheckCondition(Key.ILLEGAL_REQUEST, asc, field=field)


def invalid_field(field: int | tuple[int, int]) -> CheckCondition:
    """ILLEGAL REQUEST, INVALID FIELD IN CDB, pointing at byte (and bit) `field`."""
    return illegal_request(Asc.INVALID_FIELD_IN_CDB, field)


def invalid_parameter(field: int | tuple[int, int]) -> CheckCondition:
    """ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST, pointing at byte (and bit) `field` of the list."""
    return illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST, field)
