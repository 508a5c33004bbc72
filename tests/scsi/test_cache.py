"""SYNCHRONIZE CACHE and PRE-FETCH."""

import asyncio

import pytest

from arrayd.scsi import cache
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Status
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

IMMED = 0x02
SYNCHRONIZE = {10: 0x35, 16: 0x91}
PRE_FETCH = {10: 0x34, 16: 0x90}


def cdb_of(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    if opcode >> 5 == 1:
        return bytes((opcode, flags)) + lba.to_bytes(4, "big") + bytes(1) + blocks.to_bytes(2, "big")
    return bytes((opcode, flags)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big")


@pytest.mark.parametrize("opcode", SYNCHRONIZE.values(), ids=SYNCHRONIZE)
async def test_is_answered_once_it_is_durable(opcode: int) -> None:
    volume = MemoryVolume()
    volume.held = asyncio.Event()
    _, answer = Initiator(make_target({0: volume})).start(cdb_of(opcode, 0, 0))
    await asyncio.sleep(0)
    assert volume.waiting == 1
    assert not answer.done()
    volume.held.set()
    assert (await answer).status == Status.GOOD


@pytest.mark.parametrize("opcode", SYNCHRONIZE.values(), ids=SYNCHRONIZE)
async def test_immed_is_answered_at_once_and_done_all_the_same(opcode: int) -> None:
    volume = MemoryVolume()
    volume.held = asyncio.Event()
    target = make_target({0: volume})
    _, answer = Initiator(target).start(cdb_of(opcode, 0, 0, IMMED))
    assert answer.done()
    assert (await answer).status == Status.GOOD
    await asyncio.sleep(0)
    assert volume.waiting == 1
    volume.held.set()
    await target.stop()
    assert volume.waiting == 0


async def test_a_failed_medium() -> None:
    volume = MemoryVolume()
    volume.failure = VolumeFailed("broken")
    answer = await Initiator(make_target({0: volume})).send(cdb_of(0x35, 0, 0))
    assert answer.why == (Key.MEDIUM_ERROR, Asc.WRITE_ERROR)


@pytest.mark.parametrize("opcode", [*SYNCHRONIZE.values(), *PRE_FETCH.values()])
@pytest.mark.parametrize(("lba", "blocks"), [(2048, 0), (2047, 2), (1 << 31, 0)])
async def test_out_of_range(opcode: int, lba: int, blocks: int) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(cdb_of(opcode, lba, blocks))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)


async def test_a_read_only_disk_has_nothing_to_synchronize() -> None:
    volume = MemoryVolume()
    volume.read_only = True
    volume.failure = VolumeFailed("broken")
    assert (await Initiator(make_target({0: volume})).send(cdb_of(0x35, 0, 0))).status == Status.GOOD


@pytest.mark.parametrize("opcode", PRE_FETCH.values(), ids=PRE_FETCH)
@pytest.mark.parametrize("flags", [0, IMMED])
async def test_pre_fetch_reads_the_range(opcode: int, flags: int) -> None:
    volume = MemoryVolume()
    seen: list[tuple[int, int]] = []
    volume.read = lambda offset, view: seen.append((offset, len(view)))  # type: ignore[method-assign]
    target = make_target({0: volume})
    host = Initiator(target)
    assert (await host.send(cdb_of(opcode, 8, 16, flags))).status == Status.CONDITION_MET
    assert (await host.send(cdb_of(opcode, 2040, 0, flags))).status == Status.CONDITION_MET
    await target.stop()
    assert seen == [(8 * 512, 16 * 512), (2040 * 512, 8 * 512)]


async def test_what_does_not_fit_is_fetched_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PREFETCH_BYTES_MAX", 4096)
    volume = MemoryVolume()
    seen: list[int] = []
    volume.read = lambda _offset, view: seen.append(len(view))  # type: ignore[method-assign, assignment]
    assert (await Initiator(make_target({0: volume})).send(cdb_of(0x34, 0, 0))).status == Status.GOOD
    assert sum(seen) == 4096
