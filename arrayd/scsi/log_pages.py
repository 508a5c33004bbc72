"""LOG SENSE and its pages (SPC-5, 6.8 and 7.3; logical block provisioning: SBC-4, 6.4.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arrayd.scsi.cdb import be16
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.provisioning import THRESHOLD_SET_BYTES
from arrayd.scsi.sense import invalid_field

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

PPC, SP = 0x02, 0x01
ALL_SUBPAGES = 0xFF
SUBPAGE_FORMAT = 0x40
DISABLE_SAVE = 0x80

SUPPORTED_PAGES = 0x00
LOGICAL_BLOCK_PROVISIONING = 0x0C

AVAILABLE, USED = 0x0001, 0x0002
"""Parameters of page 0Ch, counted in threshold sets (SBC-4, table 145)."""
BINARY_LIST = 0x03
"""FORMAT AND LINKING: a list in binary, kept by no one."""
DEDICATED = 0x01
"""SCOPE: the count is this logical unit's own. Available disk is shared with others."""
SHARED = 0x02


def log_sense(unit: LogicalUnit, task: Task) -> None:
    """LOG SENSE (SPC-5, 6.8): PPC is obsolete, and nothing can be saved."""
    cdb = task.cdb
    if cdb[1] & SP:
        raise invalid_field((1, 0))
    if cdb[1] & PPC:
        raise invalid_field((1, 1))
    code, subpage, pointer = cdb[2] & 0x3F, cdb[3], be16(cdb, 5)
    pages = _pages(unit)
    if code not in pages:
        raise invalid_field((2, 5))
    if code == SUPPORTED_PAGES:
        data = _supported(pages, subpage, pointer)
    elif subpage:
        raise invalid_field(3)
    else:
        data = bytes((DISABLE_SAVE | code, 0)) + _sized(_from_pointer(pages[code](unit), pointer))
    task.reply(data, be16(cdb, 7))


def _pages(unit: LogicalUnit) -> dict[int, Callable[[LogicalUnit], dict[int, bytes]]]:
    """The parameters of each page, by page code."""
    pages: dict[int, Callable[[LogicalUnit], dict[int, bytes]]] = {SUPPORTED_PAGES: lambda _unit: {}}
    if unit.disk.thin:
        pages[LOGICAL_BLOCK_PROVISIONING] = _provisioning
    return pages


def _supported(pages: dict[int, Callable[[LogicalUnit], dict[int, bytes]]], subpage: int, pointer: int) -> bytes:
    """Pages 00h and 00h/FFh: which pages, and which subpages, there are (SPC-5, 7.3.17 and 7.3.18)."""
    if pointer:
        raise invalid_field(5)
    if subpage == 0:
        return bytes((SUPPORTED_PAGES, 0)) + _sized(bytes(pages))
    if subpage != ALL_SUBPAGES:
        raise invalid_field(3)
    pairs = bytes((SUPPORTED_PAGES, 0, SUPPORTED_PAGES, ALL_SUBPAGES))
    pairs += b"".join(bytes((code, 0)) for code in pages if code != SUPPORTED_PAGES)
    return bytes((SUBPAGE_FORMAT | SUPPORTED_PAGES, ALL_SUBPAGES)) + _sized(pairs)


def _from_pointer(parameters: dict[int, bytes], pointer: int) -> bytes:
    """The parameters from PARAMETER POINTER on, of which there must be one."""
    listed = [parameter for code, parameter in parameters.items() if code >= pointer]
    if not listed:
        raise invalid_field(5)
    return b"".join(listed)


def _provisioning(unit: LogicalUnit) -> dict[int, bytes]:
    """Page 0Ch: how much disk is left for this volume, and how much it uses."""
    volume = unit.disk
    return {
        AVAILABLE: _count(AVAILABLE, volume.available_bytes(), SHARED),
        USED: _count(USED, volume.allocated_bytes(), DEDICATED),
    }


def _count(code: int, length: int, scope: int) -> bytes:
    """SBC-4, table 147: a resource count of threshold sets, part of one counting as one."""
    sets = min(-(-length // THRESHOLD_SET_BYTES), 0xFFFFFFFF)
    return code.to_bytes(2, "big") + bytes((BINARY_LIST, 8)) + sets.to_bytes(4, "big") + bytes((scope, 0, 0, 0))


def _sized(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


LOG_SENSE = Command(
    "LOG SENSE",
    0x4D,
    None,
    bytes.fromhex("4d03ffff00ffffffff04"),
    log_sense,
    reserved=Reserved.ALLOWED,
)
