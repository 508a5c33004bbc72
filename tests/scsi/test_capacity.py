"""READ CAPACITY and READ DEFECT DATA."""

import struct

import pytest

from arrayd.scsi.sense import Asc, Key
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

CAPACITY_10 = bytes((0x25,)) + bytes(9)
CAPACITY_16 = bytes((0x9E, 0x10)) + bytes(8) + (32).to_bytes(4, "big") + bytes(2)


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_last_block_and_block_size(block_size: int) -> None:
    volume = MemoryVolume(block_size=block_size)
    host = Initiator(make_target({0: volume}))
    last = volume.size // block_size - 1
    assert await host.good(CAPACITY_10) == struct.pack(">II", last, block_size)
    data = await host.good(CAPACITY_16)
    assert len(data) == 32
    assert struct.unpack_from(">QI", data) == (last, block_size)
    assert data[12:14] == bytes(2), "no protection, one logical block per physical block"
    assert data[14] == 0xC0, "LBPME, LBPRZ"


@pytest.mark.parametrize(("block_size", "exponent"), [(512, 3), (4096, 0)])
async def test_physical_blocks(block_size: int, exponent: int) -> None:
    volume = MemoryVolume(block_size=block_size)
    volume.physical_block_size = 4096
    assert (await Initiator(make_target({0: volume})).good(CAPACITY_16))[13] == exponent


async def test_a_thick_disk_is_not_provisioned() -> None:
    volume = MemoryVolume()
    volume.thin = False
    assert (await Initiator(make_target({0: volume})).good(CAPACITY_16))[14] == 0


async def test_more_blocks_than_10_bytes_can_say() -> None:
    volume = MemoryVolume(size=4096)
    volume.size = (1 << 32) * 512 + 4096
    host = Initiator(make_target({0: volume}))
    assert (await host.good(CAPACITY_10))[:4] == b"\xff" * 4
    assert int.from_bytes((await host.good(CAPACITY_16))[:8], "big") == (1 << 32) + 7


@pytest.mark.parametrize("length", [0, 1, 15, 32, 100])
async def test_allocation_length(length: int) -> None:
    cdb = CAPACITY_16[:10] + length.to_bytes(4, "big") + bytes(2)
    assert len(await Initiator(make_target({0: MemoryVolume()})).good(cdb)) == min(length, 32)


@pytest.mark.parametrize("cdb", [CAPACITY_10, CAPACITY_16])
async def test_an_lba_without_pmi_is_refused(cdb: bytes) -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    with_lba = bytearray(cdb)
    with_lba[5] = 1
    assert (await host.send(bytes(with_lba))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    with_lba[8 if len(cdb) == 10 else 14] = 1
    assert await host.good(bytes(with_lba)) == await host.good(cdb)


@pytest.mark.parametrize("flags", [0x00, 0x08, 0x10, 0x1D])
async def test_there_are_no_defects(flags: int) -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    assert await host.good(bytes((0x37, 0, flags, 0, 0, 0, 0, 0, 64, 0))) == bytes((0, flags, 0, 0))
    assert await host.good(bytes((0xB7, flags, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0))) == bytes((0, flags)) + bytes(6)
