"""Designation descriptors (SPC-5, 7.7.6.1): how a logical unit, a target port and the target device are named.

VPD page 83h shows them to hosts, and EXTENDED COPY finds a logical unit by them.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import lru_cache

VENDOR = "ARRAYD"
"""T10 vendor identification (SPC-5, 4.3.3), padded with blanks to 8 characters where it is sent."""

ISCSI = 0x5
"""Protocol identifier (SPC-5, 7.6.1)."""

NAA_LOCALLY_ASSIGNED = 0x3

DESIGNATORS_KEPT = 16384
"""Logical units whose designators are computed once: as many as there are LUNs."""


class CodeSet(IntEnum):
    """How a designator is to be read (SPC-5, table 530)."""

    BINARY = 1
    ASCII = 2
    UTF8 = 3


class Association(IntEnum):
    """What a designator names (SPC-5, table 531)."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


class DesignatorType(IntEnum):
    """Format and assigning authority of a designator (SPC-5, table 532)."""

    T10_VENDOR = 1
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    SCSI_NAME = 8


def naa(identity: str) -> bytes:
    """The NAA Locally Assigned designator (8 bytes, SPC-5, 7.7.6.6.4) of the volume `identity`.

    60 bits of SHA-256: the same volume has the same name everywhere, two volumes never share one.
    """
    digest = hashlib.sha256(identity.encode()).digest()
    return bytes((NAA_LOCALLY_ASSIGNED << 4 | digest[0] & 0x0F,)) + digest[1:8]


def t10_vendor(identity: str) -> bytes:
    """The T10 vendor ID based designator (SPC-5, 7.7.6.4) of the volume `identity`."""
    return VENDOR.ljust(8).encode("ascii") + identity.encode("utf-8")


@lru_cache(DESIGNATORS_KEPT)
def logical_unit_designators(identity: str) -> tuple[bytes, ...]:
    """The designation descriptors of a logical unit, the one that hosts prefer first."""
    return (
        _descriptor(CodeSet.BINARY, Association.LOGICAL_UNIT, DesignatorType.NAA, naa(identity)),
        _descriptor(CodeSet.UTF8, Association.LOGICAL_UNIT, DesignatorType.T10_VENDOR, t10_vendor(identity)),
    )


def target_port_designators(port: int, group: int, name: str) -> list[bytes]:
    """The designation descriptors of a target port: `port` is its relative identifier, `group` its target port group,
    `name` its iSCSI name (`iqn…,t,0xTPGT`: SPC-5, 7.6.4.7)."""
    identifier = bytes(2) + port.to_bytes(2, "big")
    member_of = bytes(2) + group.to_bytes(2, "big")
    return [
        _descriptor(CodeSet.BINARY, Association.TARGET_PORT, DesignatorType.RELATIVE_TARGET_PORT, identifier),
        _descriptor(CodeSet.BINARY, Association.TARGET_PORT, DesignatorType.TARGET_PORT_GROUP, member_of),
        _descriptor(CodeSet.UTF8, Association.TARGET_PORT, DesignatorType.SCSI_NAME, scsi_name(name)),
    ]


def target_device_designator(name: str) -> bytes:
    """The designation descriptor of the SCSI target device `name` (its iSCSI name)."""
    return _descriptor(CodeSet.UTF8, Association.TARGET_DEVICE, DesignatorType.SCSI_NAME, scsi_name(name))


def scsi_name(name: str) -> bytes:
    """A SCSI name string: UTF-8, ended by a zero and padded with zeros to a multiple of 4 (SPC-5, 7.7.6.11)."""
    text = name.encode("utf-8") + b"\0"
    return text + bytes(-len(text) % 4)


def _descriptor(code_set: CodeSet, association: Association, kind: DesignatorType, designator: bytes) -> bytes:
    """SPC-5, table 529. What names a port or a device says that its protocol is iSCSI."""
    protocol, valid = (0, 0) if association is Association.LOGICAL_UNIT else (ISCSI, 0x80)
    return bytes((protocol << 4 | code_set, valid | association << 4 | kind, 0, len(designator))) + designator
