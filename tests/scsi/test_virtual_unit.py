"""What a virtual volume does itself: command interfaces and REPORT LUNS, and that each of these tasks has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from arrayd.buffers import BufferPool
from arrayd.origin import Origin
from arrayd.scsi.alua import PortGroups
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Attribute, FastTable, Task
from arrayd.scsi.virtual_unit import VirtualUnit
from tests.scsi.initiator import GROUP, NAMES, PORTS, SERIAL, Initiator, MemoryStore, turns
from tests.scsi.memory_volume import MemoryVolume

WRITE_LANE = bytes((0x3B, 1, 7, 0, 0, 0, 0, 0, 4, 0))
READ_LANE = bytes((0x3C, 1, 7, 0, 0, 0, 0, 16, 0, 0))


class Unreached:
    """A remote unit that nothing is to be asked of."""

    def meet(self, nexus: Nexus) -> None:
        pass

    def forget(self, nexus: Nexus) -> None:
        pass

    def fast(self, nexus: Nexus, unit: VirtualUnit) -> FastTable:
        return {}

    def execute(self, nexus: Nexus, task: Task, ended: Callable[[], None]) -> None:
        raise AssertionError

    def manage(self, nexus: Nexus, function: int, task: Task | None, done: Callable[[int], None]) -> None:
        raise AssertionError


class Broken:
    """Takes every command interface, unless it is "stop", and fails to answer in its way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def take(self, _origin: Origin, message: bytes) -> Broken:
        if message == b"stop":
            raise RuntimeError("a fault of ours")
        return self

    def answer(self) -> Awaitable[bytes] | bytes:
        if self.way == "at once":
            raise RuntimeError("a fault of ours")
        return self._later()

    async def _later(self) -> bytes:
        await asyncio.sleep(0)
        raise asyncio.CancelledError if self.way == "cancelled" else RuntimeError("a fault of ours")


@pytest.mark.parametrize("way", ["at once", "later", "cancelled", "taking"])
@pytest.mark.parametrize("lun", [0, 1], ids=["virtual", "disk"])
@pytest.mark.parametrize("attribute", [Attribute.SIMPLE, Attribute.ORDERED])
async def test_a_fault_in_a_command_interface_ends_its_task(way: str, lun: int, attribute: Attribute) -> None:
    ports = PortGroups(GROUP, PORTS, NAMES)
    target = ScsiTarget(SERIAL, BufferPool(64 << 20), ports, MemoryStore(), Broken(way))
    target.set_units({0: Unreached(), 1: MemoryVolume()})
    host = Initiator(target)
    async with asyncio.timeout(5):
        if way == "taking":
            answer = await host.send(WRITE_LANE, b"stop", lun, attribute)
        else:
            await host.good(WRITE_LANE, b"help", lun)
            answer = await host.send(READ_LANE, lun=lun, attribute=attribute)
    assert answer.why == (Key.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    await turns()
    assert not list(target.units[lun].tasks)
    await host.good(WRITE_LANE, b"help", lun)
    host.leave()
    async with asyncio.timeout(5):
        await target.stop()
