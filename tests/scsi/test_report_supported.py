"""REPORT SUPPORTED OPERATION CODES equals the table; REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS equals its own."""

import pytest

from arrayd.scsi.command import Command
from arrayd.scsi.kinds import DISK, STORAGE_ARRAY_CONTROLLER
from arrayd.scsi.opcodes import TABLES
from arrayd.scsi.sense import Asc, Key
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

RCTD = 0x80
ALL, WITHOUT_ACTION, WITH_ACTION, EITHER = range(4)
SUPPORTED, NOT_SUPPORTED = 3, 1


def cdb_of(option: int, opcode: int = 0, action: int = 0, length: int = 0x10000) -> bytes:
    head = bytes((0xA3, 0x0C, option, opcode)) + action.to_bytes(2, "big")
    return head + length.to_bytes(4, "big") + bytes(2)


def removable() -> MemoryVolume:
    volume = MemoryVolume()
    volume.removable = True
    return volume


async def listed(host: Initiator, timeouts: bool = False, lun: int = 0) -> list[tuple[int, int | None, int]]:
    """Operation code, service action and CDB length of each descriptor of the whole list."""
    data = await host.good(cdb_of(ALL | (RCTD if timeouts else 0)), lun=lun)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    found = []
    size = 20 if timeouts else 8
    for at in range(4, len(data), size):
        flags = data[at + 5]
        assert bool(flags & 2) == timeouts
        action = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at], action if flags & 1 else None, int.from_bytes(data[at + 6 : at + 8], "big")))
        if timeouts:
            assert data[at + 8 : at + 10] == b"\0\x0a"
    return found


def rows(device_type: int) -> set[tuple[int, int | None, int]]:
    return {(row.opcode, row.action, len(row.usage)) for row in TABLES[device_type].commands}


@pytest.mark.parametrize("timeouts", [False, True])
async def test_the_list_is_the_table(timeouts: bool) -> None:
    host = Initiator(make_target({0: removable()}))
    found = await listed(host, timeouts)
    assert len(found) == len(set(found))
    assert set(found) == rows(DISK)


async def test_the_controller_s_list() -> None:
    host = Initiator(make_target({1: MemoryVolume()}))
    assert set(await listed(host)) == rows(STORAGE_ARRAY_CONTROLLER)


async def test_what_a_unit_does_not_offer_is_not_listed() -> None:
    volume = MemoryVolume()
    volume.thin = False
    host = Initiator(make_target({0: volume}))
    missing = rows(DISK) - set(await listed(host))
    assert {(opcode, action) for opcode, action, _ in missing} == {(0x42, None), (0x1E, None)}
    assert (await host.good(cdb_of(WITHOUT_ACTION, 0x42)))[1] == NOT_SUPPORTED


@pytest.mark.parametrize("row", TABLES[DISK].commands, ids=lambda row: row.name)
async def test_one_command(row: Command) -> None:
    host = Initiator(make_target({0: removable()}))
    option = WITHOUT_ACTION if row.action is None else WITH_ACTION
    for each in (option, EITHER):
        data = await host.good(cdb_of(each, row.opcode, row.action or 0))
        assert data == bytes((0, SUPPORTED)) + len(row.usage).to_bytes(2, "big") + row.usage
    with_timeouts = await host.good(cdb_of(option | RCTD, row.opcode, row.action or 0))
    assert with_timeouts[1] == 0x80 | SUPPORTED
    assert len(with_timeouts) == 4 + len(row.usage) + 12


@pytest.mark.parametrize(
    "cdb", [cdb_of(WITHOUT_ACTION, 0x9E), cdb_of(WITH_ACTION, 0x28), cdb_of(4), cdb_of(5), cdb_of(7)]
)
async def test_options_that_do_not_fit(cdb: bytes) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(cdb)
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize(
    "cdb",
    [
        cdb_of(WITHOUT_ACTION, 0xFF),
        cdb_of(WITH_ACTION, 0x9E, 0x1F),
        cdb_of(EITHER, 0x9E, 0x1F),
        cdb_of(EITHER, 0x28, 1),
        cdb_of(WITHOUT_ACTION, 0x9C),
    ],
)
async def test_commands_that_are_not_there(cdb: bytes) -> None:
    data = await Initiator(make_target({0: MemoryVolume()})).good(cdb)
    assert data == bytes((0, NOT_SUPPORTED, 0, 0))


async def test_allocation_length() -> None:
    assert len(await Initiator(make_target({0: MemoryVolume()})).good(cdb_of(ALL, length=10))) == 10


async def test_task_management_functions() -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    cdb = bytes((0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0))
    assert await host.good(cdb) == bytes((0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0, 0))
    data = await host.good(cdb[:2] + b"\x80" + cdb[3:])
    assert len(data) == 16
    assert (data[0], data[3]) == (0xDA, 12)
