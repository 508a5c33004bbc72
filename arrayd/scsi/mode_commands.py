"""MODE SENSE and MODE SELECT, 6 and 10 bytes (SPC-5, 6.11 to 6.14; block descriptors: SBC-4, 6.5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrayd.scsi.cdb import be16
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.mode import CONTROL
from arrayd.scsi.sense import Asc, illegal_request, invalid_field, invalid_parameter

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF

WRITE_PROTECT = 0x80
DPOFUA = 0x10
"""Device-specific parameter (SBC-4, table 167)."""

SHORT_DESCRIPTOR_BYTES = 8
LONG_DESCRIPTOR_BYTES = 16


def mode_sense_6(unit: LogicalUnit, task: Task) -> None:
    """MODE SENSE(6) (SPC-5, 6.13)."""
    descriptor = _block_descriptor(unit, task.cdb, long=False)
    body = descriptor + _pages(unit, task.cdb)
    header = bytes((3 + len(body), 0, _device_specific(unit), len(descriptor)))
    task.reply(header + body, task.cdb[4])


def mode_sense_10(unit: LogicalUnit, task: Task) -> None:
    """MODE SENSE(10) (SPC-5, 6.14)."""
    long = bool(task.cdb[1] & 0x10)
    descriptor = _block_descriptor(unit, task.cdb, long)
    body = descriptor + _pages(unit, task.cdb)
    head = (6 + len(body)).to_bytes(2, "big") + bytes((0, _device_specific(unit), 1 if long and descriptor else 0, 0))
    task.reply(head + len(descriptor).to_bytes(2, "big") + body, be16(task.cdb, 7))


def _device_specific(unit: LogicalUnit) -> int:
    if unit.volume is None:
        return 0
    return DPOFUA | (WRITE_PROTECT if unit.write_protected else 0)


def _block_descriptor(unit: LogicalUnit, cdb: bytes, long: bool) -> bytes:
    """The block descriptor, none with DBD or without a medium (SBC-4, tables 168 and 169)."""
    if cdb[1] & 0x08 or unit.volume is None:
        return b""
    block_size = unit.volume.block_size
    blocks = unit.volume.size // block_size
    if long:
        return blocks.to_bytes(8, "big") + bytes(4) + block_size.to_bytes(4, "big")
    return min(blocks, 0xFFFFFFFF).to_bytes(4, "big") + block_size.to_bytes(4, "big")


def _pages(unit: LogicalUnit, cdb: bytes) -> bytes:
    """The pages that bytes 2 and 3 ask for, with the values that page control asks for."""
    control, code, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
    modes = unit.mode_pages
    if control == 3:
        raise illegal_request(Asc.SAVING_PARAMETERS_NOT_SUPPORTED)
    if subpage not in (0, ALL_SUBPAGES):
        raise invalid_field(3)
    if code != ALL_PAGES and code not in modes.codes():
        raise invalid_field((2, 5))
    values = (modes.current, modes.changeable, modes.default)[control]
    return b"".join(values(each) for each in modes.codes() if code in (ALL_PAGES, each))


def mode_select_6(unit: LogicalUnit, task: Task) -> None:
    """MODE SELECT(6) (SPC-5, 6.11)."""
    _select(unit, task, header_bytes=4)


def mode_select_10(unit: LogicalUnit, task: Task) -> None:
    """MODE SELECT(10) (SPC-5, 6.12)."""
    _select(unit, task, header_bytes=8)


def _check_flags(cdb: bytes) -> None:
    if cdb[1] & 0x01:
        raise invalid_field((1, 0))
    if not cdb[1] & 0x10:
        raise invalid_field((1, 4))


def _select_6_length(_unit: LogicalUnit, cdb: bytes) -> int:
    _check_flags(cdb)
    return cdb[4]


def _select_10_length(_unit: LogicalUnit, cdb: bytes) -> int:
    _check_flags(cdb)
    return be16(cdb, 7)


def _select(unit: LogicalUnit, task: Task, header_bytes: int) -> None:
    """Takes the whole parameter list, or none of it."""
    data = bytes(task.data_out[: task.wanted_out])
    if not data:
        return
    if len(data) < header_bytes:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    long = header_bytes == 8 and bool(data[4] & 0x01)
    descriptor_bytes = data[3] if header_bytes == 4 else be16(data, 6)
    at = header_bytes + descriptor_bytes
    if len(data) < at:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if descriptor_bytes:
        _check_block_descriptor(unit, data[header_bytes:at], header_bytes, long)
    pages = []
    while at < len(data):
        pages.append(_checked_page(unit, data, at))
        at += len(pages[-1])
    before = unit.mode_pages.current(CONTROL)
    for page in pages:
        unit.mode_pages.change(page)
    if unit.mode_pages.current(CONTROL) != before:
        unit.refresh_all()
        unit.establish_for_others(Asc.MODE_PARAMETERS_CHANGED, task.nexus)


def _check_block_descriptor(unit: LogicalUnit, descriptor: bytes, at: int, long: bool) -> None:
    """A block descriptor may only say what is so already (or 0 blocks, which means the same)."""
    if unit.volume is None or len(descriptor) != (LONG_DESCRIPTOR_BYTES if long else SHORT_DESCRIPTOR_BYTES):
        raise invalid_parameter(at - 1)
    width = 8 if long else 4
    blocks = int.from_bytes(descriptor[:width], "big")
    block_size = int.from_bytes(descriptor[-4:] if long else descriptor[-3:], "big")
    capacity = unit.volume.size // unit.volume.block_size
    if blocks not in (0, capacity, min(capacity, 0xFFFFFFFF)):
        raise invalid_parameter(at)
    if block_size != unit.volume.block_size:
        raise invalid_parameter(at + len(descriptor) - (4 if long else 3))


def _checked_page(unit: LogicalUnit, data: bytes, at: int) -> bytes:
    """The page at byte `at` of the list, once nothing in it differs that may not be changed."""
    code = data[at] & 0x3F
    if data[at] & 0x40 or code not in unit.mode_pages.codes():
        raise invalid_parameter((at, 6 if data[at] & 0x40 else 5))
    current, changeable = unit.mode_pages.current(code), unit.mode_pages.changeable(code)
    if len(data) < at + 2:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if data[at + 1] != len(current) - 2:
        raise invalid_parameter(at + 1)
    page = bytes((code,)) + data[at + 1 : at + len(current)]
    if len(page) < len(current):
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    for index in range(2, len(page)):
        if (page[index] ^ current[index]) & ~changeable[index]:
            raise invalid_parameter(at + index)
    return page


COMMANDS = (
    Command(
        "MODE SELECT(6)", 0x15, None, bytes.fromhex("15110000ff04"), mode_select_6, _select_6_length, Reserved.WRITE
    ),
    Command("MODE SENSE(6)", 0x1A, None, bytes.fromhex("1a08ffffff04"), mode_sense_6, reserved=Reserved.READ),
    Command(
        "MODE SELECT(10)",
        0x55,
        None,
        bytes.fromhex("55110000000000ffff04"),
        mode_select_10,
        _select_10_length,
        Reserved.WRITE,
    ),
    Command("MODE SENSE(10)", 0x5A, None, bytes.fromhex("5a18ffff000000ffff04"), mode_sense_10, reserved=Reserved.READ),
)
