"""INQUIRY: standard data (SPC-5, 6.7.2) and the way to the vital product data pages (`vpd.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi import vpd
from arrayd.scsi.cdb import be16
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.designators import VENDOR
from arrayd.scsi.kinds import DISK, NO_DEVICE, STORAGE_ARRAY_CONTROLLER, peripheral
from arrayd.scsi.sense import invalid_field

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

VERSION = 0x06
"""SPC-4. The commands are SPC-5's, but the field's conformance suite knows no version after this one, and SPC-5 lets
a device that conforms to it say so in a version descriptor."""

RESPONSE_FORMAT = 0x02
HISUP = 0x10
"""LUNs are in the format of REPORT LUNS, some by flat space addressing."""
SCCS = 0x80
TPGS_IMPLICIT, TPGS_IMPLICIT_AND_EXPLICIT = 0x10, 0x30
THIRD_PARTY_COPY = 0x08
MULTIP = 0x10
CMDQUE = 0x02
RMB = 0x80

COMMAND_DEVICE = "COMMAND DEVICE"
PRODUCTS = {DISK: "VOLUME", STORAGE_ARRAY_CONTROLLER: "CONTROLLER", NO_DEVICE: ""}
REVISION = "0001"
"""Product revision level: changes when what hosts see of a unit changes."""

SAM_5, SPC_4, SPC_5, SBC_4, SBC_3, SCC_2, ISCSI = 0x00A0, 0x0460, 0x05C0, 0x0600, 0x04C0, 0x01E0, 0x0960
VERSION_DESCRIPTORS = {
    DISK: (SAM_5, ISCSI, SPC_4, SPC_5, SBC_3, SBC_4),
    STORAGE_ARRAY_CONTROLLER: (SAM_5, ISCSI, SPC_4, SPC_5, SCC_2),
    NO_DEVICE: (),
}
"""Standards claimed, no version of them (SPC-5, annex C)."""

EVPD = 0x01
STANDARD_BYTES = 96
EXTENDED_COPY = 0x83


def inquiry(unit: LogicalUnit, task: Task) -> None:
    """INQUIRY (SPC-5, 6.7.1)."""
    cdb = task.cdb
    if cdb[1] & ~EVPD & 0xFF:
        raise invalid_field((1, 1))
    if cdb[1] & EVPD:
        data = vpd.page(unit, task.nexus, cdb[2])
    elif cdb[2]:
        raise invalid_field(2)
    else:
        data = _standard(unit)
    task.reply(data, be16(cdb, 3))


def _standard(unit: LogicalUnit) -> bytes:
    """SPC-5, table 146."""
    copies = any(command.opcode == EXTENDED_COPY for command in unit.commands.commands)
    controller = unit.device_type == STORAGE_ARRAY_CONTROLLER
    data = bytearray(STANDARD_BYTES)
    data[0] = peripheral(unit.device_type)
    data[1] = RMB if unit.volume is not None and unit.volume.removable else 0
    data[2] = VERSION
    data[3] = HISUP | RESPONSE_FORMAT
    data[4] = STANDARD_BYTES - 5
    takes_commands = unit.volume is not None and unit.volume.takes_commands
    groups = TPGS_IMPLICIT if takes_commands else TPGS_IMPLICIT_AND_EXPLICIT
    data[5] = groups | (THIRD_PARTY_COPY if copies else 0) | (SCCS if controller else 0)
    data[6] = MULTIP
    data[7] = CMDQUE
    data[8:16] = VENDOR.ljust(8).encode("ascii")
    product = COMMAND_DEVICE if takes_commands else PRODUCTS[unit.device_type]
    data[16:32] = product.ljust(16).encode("ascii")
    data[32:36] = REVISION.encode("ascii")
    for index, descriptor in enumerate(VERSION_DESCRIPTORS[unit.device_type]):
        data[58 + 2 * index : 60 + 2 * index] = descriptor.to_bytes(2, "big")
    return bytes(data)


INQUIRY = Command(
    "INQUIRY",
    0x12,
    None,
    bytes.fromhex("1201ffffff04"),
    inquiry,
    reserved=Reserved.ALLOWED,
    ignores_attention=True,
)
