"""The SCSI target device: its LUN map, and what becomes of units and nexuses when it changes."""

import asyncio

import pytest

from arrayd.scsi.lun import encode_lun
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Status
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

READ = bytes.fromhex("28000000000000000100")


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, "0000"), (1, "0001"), (255, "00ff"), (256, "4100"), (16383, "7fff")]
)
def test_luns_are_encoded_by_size(number: int, encoded: str) -> None:
    assert encode_lun(number).to_bytes(8, "big").hex() == encoded + "000000000000"


async def test_a_unit_that_leaves_ends_its_tasks_and_then_lets_go_of_its_volume() -> None:
    volume = MemoryVolume()
    target = make_target({0: MemoryVolume("410001:stays"), 1: volume})
    host = Initiator(target)
    volume.held = asyncio.Event()
    _, reading = host.start(READ, lun=1)
    await asyncio.sleep(0)
    target.set_units({0: disk_unit(target, 0).disk})
    settling = asyncio.ensure_future(target.settled())
    await asyncio.sleep(0)
    assert not settling.done(), "a thread may still fill the buffer"
    volume.held.set()
    assert (await reading).status == Status.TASK_ABORTED
    await settling
    assert target.buffers.used_bytes == 0
    assert await host.attention() is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
    assert (await host.send(READ, lun=1)).why == (Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


async def test_lun_0_turns_from_a_controller_into_a_disk_and_back() -> None:
    volume = MemoryVolume()
    target = make_target({})
    host = Initiator(target)
    inquiry = bytes((0x12, 0, 0, 0, 96, 0))
    for volumes, device_type in (({0: volume}, 0x00), ({}, 0x0C)):
        target.set_units(volumes)
        assert (await host.good(inquiry))[0] == device_type
        assert await host.attention() is Asc.POWER_ON_OR_RESET
        assert await host.attention() is Asc.REPORTED_LUNS_DATA_HAS_CHANGED


async def test_a_unit_that_stays_keeps_its_state() -> None:
    volumes = {0: MemoryVolume("410001:a"), 1: MemoryVolume("410001:b")}
    target = make_target(volumes)
    host = Initiator(target)
    await host.good(bytes((0x1B, 0, 0, 0, 0, 0)))
    target.set_units({0: volumes[0]})
    assert await host.attention() is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
    assert (await host.send(READ)).why == (Key.NOT_READY, Asc.INITIALIZING_COMMAND_REQUIRED)


async def test_a_resize_is_told_to_every_nexus_of_that_unit() -> None:
    volumes = {0: MemoryVolume("410001:a"), 1: MemoryVolume("410001:b")}
    target = make_target(volumes)
    hosts = [Initiator(target, isid=bytes((0, 2, 0x3D, 0, 0, number))) for number in range(3)]
    target.resized(volumes[1])
    for host in hosts:
        assert await host.attention(lun=0) is None
        assert await host.attention(lun=1) is Asc.CAPACITY_DATA_HAS_CHANGED


async def test_a_nexus_that_left_is_forgotten() -> None:
    target = make_target({0: MemoryVolume()})
    host = Initiator(target)
    host.leave()
    assert not target.nexuses
    assert not disk_unit(target, 0).attentions
    assert not target.absent.attentions
    assert not host.nexus.fast
