"""Vital product data pages of INQUIRY (SPC-5, 7.7; SBC-4, 6.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arrayd.scsi.atomic import COMPARE_AND_WRITE_BLOCKS_MAX
from arrayd.scsi.designators import logical_unit_designators, target_device_designator, target_port_designators
from arrayd.scsi.kinds import NO_DEVICE, peripheral
from arrayd.scsi.provisioning import (
    UNMAP_BLOCKS_MAX,
    UNMAP_DESCRIPTORS_MAX,
    WRITE_SAME_16,
    WRITE_SAME_BLOCKS_MAX,
    granularity_blocks,
    threshold_exponent,
)
from arrayd.scsi.sense import invalid_field
from arrayd.scsi.task import MAX_TRANSFER_BYTES

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus

COMPARE_AND_WRITE, SANITIZE = 0x89, 0x48

SIMPLE_ORDERED_HEAD = 0x07
"""SIMPSUP, ORDSUP and HEADSUP: the task attributes there are."""
SENSE_BYTES_MAX = 96

WSNZ = 0x01
"""WRITE SAME takes no 0 for "to the end" (SBC-4, table 203)."""
OPTIMAL_TRANSFER_BYTES = 1024 * 1024

NON_ROTATING = 0x0001
WABEREQ_NOT_NEEDED = 0x40
"""After a block erase, reads of blocks not yet written give zeros (SBC-4, table 205)."""
FUAB = 0x02
"""FUA and SYNCHRONIZE CACHE reach the medium as they say (SBC-4, table 204)."""

LBPU_LBPWS_LBPWS10_LBPRZ = 0x80 | 0x40 | 0x20 | 0x04
"""UNMAP and WRITE SAME unmap, and unmapped blocks read as zeros (SBC-4, table 214)."""
THIN = 0x02


def page(unit: LogicalUnit, nexus: Nexus, code: int) -> bytes:
    """The page `code`, whole."""
    if code not in page_codes(unit):
        raise invalid_field(2)
    body = PAGES[code](unit, nexus)
    return bytes((peripheral(unit.device_type), code)) + len(body).to_bytes(2, "big") + body


def page_codes(unit: LogicalUnit) -> list[int]:
    """The pages that `unit` has, in ascending order."""
    if unit.device_type == NO_DEVICE:
        return [SUPPORTED_PAGES]
    return [code for code in PAGES if code < FIRST_BLOCK_PAGE or unit.volume is not None]


def _supported_pages(unit: LogicalUnit, _nexus: Nexus) -> bytes:
    return bytes(page_codes(unit))


def _unit_serial_number(unit: LogicalUnit, _nexus: Nexus) -> bytes:
    return unit.identity.encode("ascii", "replace")


def _device_identification(unit: LogicalUnit, nexus: Nexus) -> bytes:
    """What names the unit, the port that the question came through, and the target device (SPC-5, 7.7.6)."""
    group = unit.port_groups.of_port(nexus.port)
    name = group.names[nexus.port]
    ports = target_port_designators(nexus.port, group.identifier, name)
    device = target_device_designator(name.partition(",t,")[0])
    return b"".join([*logical_unit_designators(unit.identity), *ports, device])


def _extended_inquiry(_unit: LogicalUnit, _nexus: Nexus) -> bytes:
    """SPC-5, 7.7.7: no protection, all task attributes."""
    body = bytearray(60)
    body[1] = SIMPLE_ORDERED_HEAD
    body[9] = SENSE_BYTES_MAX
    return bytes(body)


def _offers(unit: LogicalUnit, opcode: int) -> bool:
    """Whether `unit` has the command at all: a command device has few, and no limits of others."""
    return any(row.opcode == opcode for row in unit.commands.offered(unit))


def _block_limits(unit: LogicalUnit, _nexus: Nexus) -> bytes:
    """SBC-4, 6.6.4. No WRITE ATOMIC: its limits are 0, as are those of whatever the unit has not."""
    block_size = unit.disk.block_size
    granularity = granularity_blocks(unit)
    body = bytearray(60)
    if _offers(unit, COMPARE_AND_WRITE):
        body[1] = COMPARE_AND_WRITE_BLOCKS_MAX
    body[2:4] = granularity.to_bytes(2, "big")
    body[4:8] = (MAX_TRANSFER_BYTES // block_size).to_bytes(4, "big")
    body[8:12] = (OPTIMAL_TRANSFER_BYTES // block_size).to_bytes(4, "big")
    if unit.disk.thin:
        body[16:20] = UNMAP_BLOCKS_MAX.to_bytes(4, "big")
        body[20:24] = UNMAP_DESCRIPTORS_MAX.to_bytes(4, "big")
        body[24:28] = granularity.to_bytes(4, "big")
        body[28:32] = (1 << 31).to_bytes(4, "big")
    if _offers(unit, WRITE_SAME_16):
        body[0] = WSNZ
        body[32:40] = WRITE_SAME_BLOCKS_MAX.to_bytes(8, "big")
    return bytes(body)


def _block_device_characteristics(unit: LogicalUnit, _nexus: Nexus) -> bytes:
    """SBC-4, 6.6.2."""
    body = bytearray(60)
    body[0:2] = NON_ROTATING.to_bytes(2, "big")
    body[3] = WABEREQ_NOT_NEEDED if _offers(unit, SANITIZE) else 0
    body[4] = FUAB
    return bytes(body)


def _logical_block_provisioning(unit: LogicalUnit, _nexus: Nexus) -> bytes:
    """SBC-4, 6.6.6: the threshold exponent is the unit in which log page 0Ch counts."""
    if not unit.disk.thin:
        return bytes(4)
    return bytes((threshold_exponent(unit), LBPU_LBPWS_LBPWS10_LBPRZ, THIN, 0))


SUPPORTED_PAGES = 0x00
FIRST_BLOCK_PAGE = 0xB0

PAGES: dict[int, Callable[[LogicalUnit, Nexus], bytes]] = {
    SUPPORTED_PAGES: _supported_pages,
    0x80: _unit_serial_number,
    0x83: _device_identification,
    0x86: _extended_inquiry,
    0xB0: _block_limits,
    0xB1: _block_device_characteristics,
    0xB2: _logical_block_provisioning,
}
"""The body of each page, by page code."""
