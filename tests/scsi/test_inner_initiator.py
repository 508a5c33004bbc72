"""The initiator in the array itself: what it reads and writes, and that nothing is left of what is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.scsi.inner_initiator import InnerInitiator, InnerLun, NotDoneError
from arrayd.scsi.target import ScsiTarget
from tests.scsi.initiator import PORTS, make_target, turns
from tests.scsi.memory_volume import MemoryVolume

BLOCK = b"block of 512 bytes".ljust(512)


class Place:
    """A volume at LUN 3, and the inner initiator in front of it."""

    def __init__(self) -> None:
        self.volume = MemoryVolume()
        self.target: ScsiTarget = make_target({3: self.volume})
        self.initiator = InnerInitiator(self.target.attach, "iqn.x:a", PORTS[0])
        self.lun = InnerLun(self.initiator, 3)

    async def assert_nothing_left(self) -> None:
        await turns()
        assert self.target.buffers.used_bytes == 0
        assert not list(self.target.units[3].tasks)


async def has_ended(place: Place) -> None:
    """In the turn in which the last task ends: whoever waits for it has not had its turn yet."""
    for _ in range(20):
        if not list(place.target.units[3].tasks):
            return
        await asyncio.sleep(0)


async def test_what_is_written_is_read() -> None:
    place = Place()
    await place.lun.write(512, BLOCK)
    assert await place.lun.read(0, 1024) == bytes(512) + BLOCK
    with pytest.raises(NotDoneError, match="additional sense code 21h/00h"):
        await place.lun.read(place.volume.size, 512)
    await place.assert_nothing_left()


@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.parametrize("late", [False, True], ids=["waiting", "in the turn that it ended in"])
async def test_what_is_cancelled_ends_by_itself_and_leaves_nothing(what: str, late: bool) -> None:
    place = Place()
    await place.lun.read(0, 512)  # and hears of the unit attention
    place.volume.held = asyncio.Event()
    work = place.lun.read(0, 1024) if what == "read" else place.lun.write(0, BLOCK * 2)
    waiting = asyncio.ensure_future(work)
    await turns()
    assert place.volume.waiting == 1
    if late:
        place.volume.held.set()
        await has_ended(place)
    waiting.cancel()
    await turns()
    assert waiting.cancelled()
    assert bool(list(place.target.units[3].tasks)) != late
    place.volume.held.set()
    await place.assert_nothing_left()
    assert bytes(place.volume.data[:1024]) == (bytes(1024) if what == "read" else BLOCK * 2)
    place.volume.held = None
    assert len(await place.lun.read(0, 512)) == 512
    await place.assert_nothing_left()


async def test_what_is_aborted_is_not_done() -> None:
    place = Place()
    await place.lun.read(0, 512)
    place.volume.held = asyncio.Event()
    reading = asyncio.ensure_future(place.lun.read(0, 512))
    writing = asyncio.ensure_future(place.lun.write(0, BLOCK))
    await turns()
    place.initiator.detach()
    place.volume.held.set()
    for ended in (reading, writing):
        with pytest.raises(NotDoneError, match="aborted"):
            await ended
    await place.assert_nothing_left()
