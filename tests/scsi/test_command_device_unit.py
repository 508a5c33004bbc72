"""A disk whose WRITEs are commands, as hosts see it: what it offers, and that it claims nothing that it has not."""

from __future__ import annotations

import pytest

from arrayd.scsi import opcodes
from arrayd.scsi.kinds import DISK
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Status
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume
from tests.scsi.test_copy import copy_cdb, cscd, parameter_list, segment
from tests.scsi.test_inquiry import cdb_of as inquiry
from tests.scsi.test_report_supported import ALL
from tests.scsi.test_report_supported import cdb_of as report_supported

OFFERED = frozenset(row.opcode for row in opcodes.COMMAND_DEVICE.commands)
OTHERS = sorted({row.opcode for row in opcodes.TABLES[DISK].commands} - OFFERED)
LINUX_ASKS = {
    *(0x00, 0x03, 0x12, 0xA0, 0x25, 0x9E, 0x1A, 0x5A, 0xA3),  # what it is, how large, by which port groups
    *(0x08, 0x28, 0xA8, 0x88, 0x0A, 0x2A, 0xAA, 0x8A, 0x35, 0x91),
}


def a_device(identity: str = "410001:device") -> MemoryVolume:
    volume = MemoryVolume(identity)
    volume.thin = volume.write_cache = False
    volume.takes_commands = True
    return volume


@pytest.fixture
def host() -> Initiator:
    return Initiator(make_target({0: a_device(), 1: MemoryVolume()}))


def test_every_name_in_its_table_is_a_command_and_a_disk_for_linux_is_left() -> None:
    assert {row.name for row in opcodes.COMMAND_DEVICE.commands} == set(opcodes._COMMAND_DEVICE_NAMES)
    assert OFFERED >= LINUX_ASKS
    assert not [row.name for row in opcodes.COMMAND_DEVICE.commands if row.writes and not row.name.startswith("WRITE(")]


async def test_what_it_lists_is_its_table(host: Initiator) -> None:
    listed = await host.good(report_supported(ALL))
    assert {listed[at] for at in range(4, len(listed), 8)} == OFFERED


@pytest.mark.parametrize("opcode", OTHERS, ids=lambda code: f"{code:02X}")
async def test_what_it_has_not_changes_nothing(host: Initiator, opcode: int) -> None:
    for action in range(32):
        answer = await host.send(bytes((opcode, action)) + bytes(14))
        assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_OPERATION_CODE)
    unit = disk_unit(host.nexus.target)
    assert unit.not_ready is None
    assert (await host.send(bytes(6))).status == Status.GOOD


async def test_its_pages_claim_nothing_of_what_it_has_not(host: Initiator) -> None:
    standard = await host.good(inquiry())
    assert (standard[0], standard[5] & 0x08) == (0, 0), "a disk, without third party copy"
    assert standard[5] & 0x30 == 0x10, "port groups, which no host changes"
    limits = (await host.good(inquiry(0xB0)))[4:]
    assert (limits[0], limits[1]) == (0, 0), "no WRITE SAME, no COMPARE AND WRITE"
    assert limits[16:] == bytes(44), "no UNMAP, no WRITE SAME, nothing atomic"
    assert any(limits[4:8])
    assert (await host.good(inquiry(0xB1)))[4 + 3] == 0, "no SANITIZE"
    assert await host.good(inquiry(0xB2)) == bytes((0, 0xB2, 0, 4)) + bytes(4)
    capacity = await host.good(bytes((0x9E, 0x10)) + bytes(11) + bytes((32, 0, 0)))
    assert capacity[14] == 0, "not thin"
    assert (await host.good(bytes((0x1A, 0, 0x0A | 0x40, 0, 255, 0))))[-10:] == bytes(10), "no MODE SELECT"


@pytest.mark.parametrize("towards", [True, False])
async def test_nothing_is_copied_to_it_or_from_it(host: Initiator, towards: bool) -> None:
    """To read it is to take answers, to write it to command: neither is for a copy that another unit makes."""
    cscds = [cscd("410001:data"), cscd("410001:device")]
    piece = segment(0, 1, 8, 0, 0) if towards else segment(1, 0, 8, 0, 0)
    data = parameter_list(cscds, [piece])
    answer = await host.send(copy_cdb(len(data)), data, lun=1)
    assert answer.why == (Key.COPY_ABORTED, Asc.COPY_TARGET_NOT_REACHABLE)
