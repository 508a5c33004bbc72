"""COMPARE AND WRITE and ORWRITE."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.steps import STEP_BYTES
from arrayd.scsi.task import Status
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

COMPARE_AND_WRITE = 0x89
ORWRITE = 0x8B


class LockingVolume(MemoryVolume):
    """One lock for all of it; reads and writes give others their turn before they do anything."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = asyncio.Lock()
        self.held = asyncio.Event()
        self.held.set()

    @asynccontextmanager
    async def lock(self, _offset: int, _length: int) -> AsyncIterator[None]:
        async with self._lock:
            yield


def compare_cdb(lba: int, blocks: int, flags: int = 0) -> bytes:
    return bytes((COMPARE_AND_WRITE, flags)) + lba.to_bytes(8, "big") + bytes((0, 0, 0, blocks, 0, 0))


def or_cdb(lba: int, blocks: int, flags: int = 0) -> bytes:
    return bytes((ORWRITE, flags)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)


async def test_writes_what_compares() -> None:
    volume = MemoryVolume()
    host = Initiator(make_target({0: volume}))
    await host.good(compare_cdb(3, 2), bytes(1024) + b"\x42" * 1024)
    assert volume.data[3 * 512 : 5 * 512] == b"\x42" * 1024
    assert not any(volume.data[: 3 * 512])
    assert not any(volume.data[5 * 512 :])


@pytest.mark.parametrize("at", [0, 511, 512, 1023])
async def test_a_miscompare_tells_where_and_writes_nothing(at: int) -> None:
    volume = MemoryVolume()
    host = Initiator(make_target({0: volume}))
    expected = bytearray(1024)
    expected[at] = 1
    answer = await host.send(compare_cdb(0, 2), bytes(expected) + b"\x42" * 1024)
    assert answer.why == (Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY)
    assert answer.sense[0] == 0xF0
    assert int.from_bytes(answer.sense[3:7], "big") == at
    assert not any(volume.data)


@pytest.mark.parametrize("length", [0, 512, 1023, 1025, 2048])
async def test_data_of_another_length_is_refused(length: int) -> None:
    volume = MemoryVolume()
    answer = await Initiator(make_target({0: volume})).send(compare_cdb(0, 1), bytes(length) or b"x")
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert not any(volume.data)


async def test_no_blocks_compare() -> None:
    assert (await Initiator(make_target({0: MemoryVolume()})).send(compare_cdb(0, 0))).status == Status.GOOD


async def test_the_most_blocks() -> None:
    volume = MemoryVolume(size=4 << 20, block_size=4096)
    host = Initiator(make_target({0: volume}))
    await host.good(compare_cdb(1, 255), bytes(255 * 4096) + b"\x01" * (255 * 4096))
    assert volume.data[4096 : 256 * 4096] == b"\x01" * (255 * 4096)


@pytest.mark.parametrize("cdb", [compare_cdb(2047, 2), compare_cdb(1 << 63, 1), or_cdb(2047, 2), or_cdb(2048, 0)])
async def test_out_of_range(cdb: bytes) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(cdb, bytes(2048))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)


@pytest.mark.parametrize("cdb", [compare_cdb(0, 1, 0x20), or_cdb(0, 1, 0x20)])
async def test_protection_is_refused(cdb: bytes) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(cdb, bytes(1024))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_many_hosts_count_without_losing_one() -> None:
    """Every host adds 1 to the same counter by COMPARE AND WRITE, again and again until it got its turn."""
    target = make_target({0: LockingVolume()})
    hosts = [Initiator(target, isid=bytes((0, 2, 0x3D, 0, 0, number))) for number in range(4)]

    async def count(host: Initiator) -> None:
        for _ in range(5):
            while True:
                before = await host.good(bytes.fromhex("28000000000000000100"))
                after = (int.from_bytes(before, "big") + 1).to_bytes(512, "big")
                if (await host.send(compare_cdb(0, 1), before + after)).status == Status.GOOD:
                    break

    async with asyncio.timeout(20):
        await asyncio.gather(*map(count, hosts))
    assert int.from_bytes(await hosts[0].good(bytes.fromhex("28000000000000000100")), "big") == 20


@pytest.mark.parametrize("blocks", [1, 3, 2 * STEP_BYTES // 512 + 1])
async def test_orwrite_sets_bits(blocks: int) -> None:
    volume = MemoryVolume(size=4 * STEP_BYTES)
    volume.data[:] = b"\x0f" * volume.size
    await Initiator(make_target({0: volume})).good(or_cdb(5, blocks), b"\xf1" * (blocks * 512))
    assert volume.data[5 * 512 : (5 + blocks) * 512] == b"\xff" * (blocks * 512)
    assert set(volume.data[: 5 * 512]) == set(volume.data[(5 + blocks) * 512 :]) == {0x0F}


async def test_orwrites_of_many_all_take() -> None:
    volume = LockingVolume()
    target = make_target({0: volume})
    hosts = [Initiator(target, isid=bytes((0, 2, 0x3D, 0, 0, number))) for number in range(8)]
    await asyncio.gather(*(host.good(or_cdb(0, 1), bytes((1 << n,)) * 512) for n, host in enumerate(hosts)))
    assert volume.data[:512] == b"\xff" * 512


@pytest.mark.parametrize("cdb", [compare_cdb(0, 1), or_cdb(0, 1)])
async def test_a_read_only_disk(cdb: bytes) -> None:
    volume = MemoryVolume()
    volume.read_only = True
    answer = await Initiator(make_target({0: volume})).send(cdb, bytes(1024))
    assert answer.why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)
