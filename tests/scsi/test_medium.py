"""TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL."""

import asyncio

import pytest

from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Function, Status
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

READY = bytes(6)
START, LOEJ, NO_FLUSH = 0x01, 0x02, 0x04
NO_MEDIUM = (Key.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
STOPPED = (Key.NOT_READY, Asc.INITIALIZING_COMMAND_REQUIRED)
PREVENTED = (Key.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
READ_10 = bytes.fromhex("28000000000000000100")
WRITE_10 = bytes.fromhex("2a000000000000000100")


def start_stop(what: int, flags: int = 0) -> bytes:
    return bytes((0x1B, flags, 0, 0, what, 0))


def prevent(what: int) -> bytes:
    return bytes((0x1E, 0, 0, 0, what, 0))


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
def removable() -> MemoryVolume:
    volume = MemoryVolume("410001:removable")
    volume.removable = True
    return volume


@pytest.fixture
def hosts(volume: MemoryVolume, removable: MemoryVolume) -> tuple[Initiator, Initiator]:
    """Two hosts of a fixed disk at LUN 0 and a removable one at LUN 1."""
    target = make_target({0: volume, 1: removable})
    return Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))


async def test_a_stopped_disk_is_not_ready_until_it_is_started(hosts: tuple[Initiator, Initiator]) -> None:
    host, other = hosts
    assert host.nexus.fast[0]
    await host.good(start_stop(0))
    for each in hosts:
        assert not each.nexus.fast[0]
        for cdb in (READY, READ_10, WRITE_10, bytes((0x25,))):
            assert (await each.send(cdb, bytes(512) if cdb is WRITE_10 else b"")).why == STOPPED
        await each.good(bytes((0x12, 0, 0, 0, 96, 0)))
    await other.good(start_stop(START))
    await host.good(READ_10)
    assert host.nexus.fast[0]


async def test_a_stop_flushes_unless_told_not_to(volume: MemoryVolume, hosts: tuple[Initiator, Initiator]) -> None:
    flushes = 0

    def flush() -> None:
        nonlocal flushes
        flushes += 1

    volume.flush = flush  # type: ignore[method-assign]
    await hosts[0].good(start_stop(0))
    await hosts[0].good(start_stop(START))
    assert flushes == 1
    await hosts[0].good(start_stop(NO_FLUSH))
    assert flushes == 1


async def test_a_reset_starts_a_stopped_disk(hosts: tuple[Initiator, Initiator]) -> None:
    await hosts[0].good(start_stop(0))
    done = asyncio.get_running_loop().create_future()
    hosts[0].nexus.manage(Function.LUN_RESET, 0, 0, done.set_result)
    await done
    assert await hosts[0].attention() is Asc.BUS_DEVICE_RESET
    await hosts[0].good(READY)


async def test_a_fixed_disk_ejects_nothing(hosts: tuple[Initiator, Initiator]) -> None:
    refused = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert (await hosts[0].send(start_stop(LOEJ))).why == refused
    assert (await hosts[0].send(prevent(1))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_OPERATION_CODE)


async def test_eject_and_load(hosts: tuple[Initiator, Initiator]) -> None:
    host, other = hosts
    await host.good(start_stop(LOEJ), lun=1)
    for each in hosts:
        for cdb in (READY, READ_10):
            assert (await each.send(cdb, lun=1)).why == NO_MEDIUM
    await host.good(start_stop(LOEJ | START), lun=1)
    assert (await host.send(READY, lun=1)).status == Status.GOOD, "it loaded the medium itself"
    assert await other.attention(lun=1) is Asc.MEDIUM_MAY_HAVE_CHANGED


async def test_loading_what_is_loaded_changes_nothing(hosts: tuple[Initiator, Initiator]) -> None:
    await hosts[0].good(start_stop(LOEJ | START), lun=1)
    assert await hosts[1].attention(lun=1) is None


@pytest.mark.parametrize("what", [0, START, NO_FLUSH, NO_FLUSH | START, *(n << 4 | LOEJ for n in range(1, 16))])
async def test_a_removable_medium_stays_in_use(hosts: tuple[Initiator, Initiator], what: int) -> None:
    """Without LOEJ, and with a power condition."""
    await hosts[0].good(start_stop(what), lun=1)
    await hosts[0].good(READY, lun=1)


async def test_each_nexus_prevents_for_itself(hosts: tuple[Initiator, Initiator]) -> None:
    one, other = hosts
    await one.good(prevent(1), lun=1)
    await other.good(prevent(1), lun=1)
    await one.good(prevent(0), lun=1)
    for what in (LOEJ, LOEJ | START):
        assert (await one.send(start_stop(what), lun=1)).why == PREVENTED
    other.leave()
    await one.good(start_stop(LOEJ), lun=1)


@pytest.mark.parametrize("function", [Function.LUN_RESET, Function.TARGET_WARM_RESET])
async def test_a_reset_allows(hosts: tuple[Initiator, Initiator], function: Function) -> None:
    await hosts[0].good(prevent(1), lun=1)
    done = asyncio.get_running_loop().create_future()
    hosts[0].nexus.manage(function, 1 << 48, 0, done.set_result)
    await done
    assert await hosts[0].attention(lun=1) is None, "it knows"
    assert await hosts[1].attention(lun=1) in (Asc.BUS_DEVICE_RESET, Asc.POWER_ON_OR_RESET)
    await hosts[0].good(start_stop(LOEJ), lun=1)


@pytest.mark.parametrize("what", [2, 3])
async def test_obsolete_ways_to_prevent(hosts: tuple[Initiator, Initiator], what: int) -> None:
    assert (await hosts[0].send(prevent(what), lun=1)).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
