"""UNMAP, WRITE SAME and GET LBA STATUS."""

import asyncio
import struct
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.provisioning import (
    UNMAP_BLOCKS_MAX,
    UNMAP_DESCRIPTORS_MAX,
    UNMAP_RANGES_AT_ONCE,
    UNMAP_STEP_BYTES,
    WRITE_SAME_BLOCKS_MAX,
)
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.steps import STEP_BYTES
from arrayd.scsi.task import Status
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

BLOCKS = 2048
SAME_10, SAME_16 = 0x41, 0x93
UNMAP_BIT, ANCHOR, NDOB = 0x08, 0x10, 0x01


def full_volume(size: int = BLOCKS * 512) -> MemoryVolume:
    volume = MemoryVolume(size=size)
    volume.write(0, memoryview(b"\xee" * size))
    return volume


def unmap_list(*ranges: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack(">QI4x", lba, blocks) for lba, blocks in ranges)
    return struct.pack(">HH4x", len(body) + 6, len(body)) + body


def unmap_cdb(length: int, flags: int = 0) -> bytes:
    return struct.pack(">BB5xHx", 0x42, flags, length)


def same_cdb(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    layout = ">BBIxHx" if opcode == SAME_10 else ">BBQI2x"
    return struct.pack(layout, opcode, flags, lba, blocks)


def status_cdb(lba: int, length: int) -> bytes:
    return struct.pack(">BBQI2x", 0x9E, 0x12, lba, length)


def statuses(data: bytes) -> list[tuple[int, int, int]]:
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return [struct.unpack_from(">QIB", data, at) for at in range(8, len(data), 16)]


async def unmapped(volume: MemoryVolume, data: bytes, flags: int = 0, length: int | None = None) -> object:
    host = Initiator(make_target({0: volume}))
    answer = await host.send(unmap_cdb(len(data) if length is None else length, flags), data)
    return answer.status if answer.status == Status.GOOD else answer.why


async def test_unmap_frees_and_reads_zero() -> None:
    volume = full_volume()
    assert await unmapped(volume, unmap_list((8, 16), (100, 1))) == Status.GOOD
    assert not any(volume.data[8 * 512 : 24 * 512])
    assert not any(volume.data[100 * 512 : 101 * 512])
    assert volume.data.count(0) == 17 * 512
    assert volume.mapped == set(range(256)) - {1, 2}


@pytest.mark.parametrize("ranges", [(), ((0, 0),), ((BLOCKS, 0),)])
async def test_unmap_nothing(ranges: tuple[tuple[int, int], ...]) -> None:
    volume = full_volume()
    assert await unmapped(volume, unmap_list(*ranges)) == Status.GOOD
    assert await unmapped(volume, b"", length=0) == Status.GOOD
    assert not volume.data.count(0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (unmap_list((0, 1), (BLOCKS - 1, 2)), (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)),
        (unmap_list((0, 1), (1 << 63, 1)), (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)),
        (unmap_list((0, 1))[:7], (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)),
        (
            unmap_list(*((0, 1),) * (UNMAP_DESCRIPTORS_MAX + 1)),
            (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        ),
    ],
)
async def test_unmap_checks_all_before_it_does_anything(data: bytes, expected: tuple[Key, Asc]) -> None:
    volume = full_volume()
    assert await unmapped(volume, data) == expected
    assert not volume.data.count(0)


async def test_unmap_of_too_many_blocks() -> None:
    volume = MemoryVolume(size=4096)
    volume.size = 2 * UNMAP_BLOCKS_MAX * 512
    expected = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    assert await unmapped(volume, unmap_list((0, UNMAP_BLOCKS_MAX), (0, 1))) == expected


async def test_unmap_ignores_a_descriptor_that_is_cut_off() -> None:
    volume = full_volume()
    data = unmap_list((0, 1), (8, 1))
    assert await unmapped(volume, data[:-1]) == Status.GOOD
    assert volume.data.count(0) == 512


class Watched(MemoryVolume):
    """Notes what is unmapped together: the ranges of each turn of the loop. The one at `failing_at` fails."""

    failing_at: int | None = None

    def __init__(self) -> None:
        super().__init__(size=0)
        self.size = 1 << 40
        self.turns: list[list[tuple[int, int]]] = []
        self.under_way = 0

    def unmap(self, offset: int, length: int) -> Awaitable[None]:
        if not self.under_way:
            self.turns.append([])
        self.turns[-1].append((offset, length))
        self.under_way += 1
        return self._unmapped_later(offset)

    async def _unmapped_later(self, offset: int) -> None:
        await asyncio.sleep(0)
        if offset == self.failing_at:
            self.under_way -= 1
            raise VolumeFailed("broken")
        await asyncio.sleep(0)
        self.under_way -= 1


async def test_ranges_are_unmapped_together_but_not_too_many_and_not_too_much_at_once() -> None:
    volume = Watched()
    small = [(lba, 1) for lba in range(0, 2 * (UNMAP_RANGES_AT_ONCE + 1), 2)]
    large = [(1 << 20, UNMAP_STEP_BYTES // 512 + 8), (1 << 30, 16)]
    assert await unmapped(volume, unmap_list(*small, *large)) == Status.GOOD
    first, second, third, fourth = volume.turns
    bytes_of = [(lba * 512, blocks * 512) for lba, blocks in small]
    assert first == bytes_of[:UNMAP_RANGES_AT_ONCE]
    assert second == bytes_of[UNMAP_RANGES_AT_ONCE:]
    assert third == [(512 << 20, UNMAP_STEP_BYTES)]
    assert fourth == [((512 << 20) + UNMAP_STEP_BYTES, 4096), (512 << 30, 16 * 512)]


async def test_a_range_that_fails_is_told_when_no_other_is_under_way() -> None:
    volume = Watched()
    volume.failing_at = 3 * 512
    data = unmap_list(*((lba, 1) for lba in range(UNMAP_RANGES_AT_ONCE + 1)))
    assert await unmapped(volume, data) == (Key.MEDIUM_ERROR, Asc.WRITE_ERROR)
    assert len(volume.turns) == 1
    assert volume.under_way == 0


async def test_unmap_anchor_is_refused() -> None:
    assert await unmapped(full_volume(), unmap_list((0, 1)), flags=1) == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_a_thick_disk_has_no_unmap() -> None:
    volume = full_volume()
    volume.thin = False
    assert await unmapped(volume, unmap_list((0, 1))) == (Key.ILLEGAL_REQUEST, Asc.INVALID_OPERATION_CODE)
    answer = await Initiator(make_target({0: volume})).send(same_cdb(SAME_16, 0, 1, UNMAP_BIT), bytes(512))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@given(data=st.binary(max_size=80))
async def test_any_parameter_list_ends_in_a_status(data: bytes) -> None:
    await unmapped(full_volume(64 * 512), data)


@pytest.mark.parametrize("opcode", [SAME_10, SAME_16])
@pytest.mark.parametrize("blocks", [1, 7, 2 * STEP_BYTES // 512 + 3])
async def test_write_same(opcode: int, blocks: int) -> None:
    volume = full_volume(4 * STEP_BYTES)
    block = bytes(range(256)) * 2
    await Initiator(make_target({0: volume})).good(same_cdb(opcode, 3, blocks), block)
    assert volume.data[3 * 512 : (3 + blocks) * 512] == block * blocks
    assert set(volume.data[: 3 * 512]) == set(volume.data[(3 + blocks) * 512 :]) == {0xEE}


@pytest.mark.parametrize("opcode", [SAME_10, SAME_16])
@pytest.mark.parametrize(("flags", "frees"), [(UNMAP_BIT, True), (0, False)])
async def test_write_same_of_zeros(opcode: int, flags: int, frees: bool) -> None:
    volume = full_volume()
    await Initiator(make_target({0: volume})).good(same_cdb(opcode, 8, 8, flags), bytes(512))
    assert not any(volume.data[8 * 512 : 16 * 512])
    assert (1 not in volume.mapped) == frees


async def test_write_same_with_unmap_and_other_data_writes_it() -> None:
    volume = full_volume()
    await Initiator(make_target({0: volume})).good(same_cdb(SAME_16, 8, 8, UNMAP_BIT), b"\x01" * 512)
    assert volume.data[8 * 512 : 16 * 512] == b"\x01" * 4096


@pytest.mark.parametrize(("flags", "frees"), [(NDOB | UNMAP_BIT, True), (NDOB, False)])
async def test_write_same_without_data_out(flags: int, frees: bool) -> None:
    volume = full_volume()
    await Initiator(make_target({0: volume})).good(same_cdb(SAME_16, 8, 8, flags))
    assert not any(volume.data[8 * 512 : 16 * 512])
    assert (1 not in volume.mapped) == frees


@pytest.mark.parametrize("opcode", [SAME_10, SAME_16])
@pytest.mark.parametrize("length", [256, 511, 513, 1024])
async def test_write_same_takes_one_block_exactly(opcode: int, length: int) -> None:
    volume = full_volume()
    answer = await Initiator(make_target({0: volume})).send(same_cdb(opcode, 0, 1), bytes(length))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert not volume.data.count(0)


@pytest.mark.parametrize(
    ("cdb", "asc"),
    [
        (same_cdb(SAME_10, 0, 1, ANCHOR), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_16, 0, 1, ANCHOR | UNMAP_BIT), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_10, 0, 1, NDOB), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_16, 0, 1, 0x20), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_16, 0, 1, 0x02), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_10, 0, 0), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_16, 0, 0), Asc.INVALID_FIELD_IN_CDB),
        (same_cdb(SAME_10, BLOCKS, 0), Asc.LBA_OUT_OF_RANGE),
        (same_cdb(SAME_16, BLOCKS - 1, 2), Asc.LBA_OUT_OF_RANGE),
    ],
)
async def test_write_same_refuses(cdb: bytes, asc: Asc) -> None:
    answer = await Initiator(make_target({0: full_volume()})).send(cdb, bytes(512))
    assert answer.why == (Key.ILLEGAL_REQUEST, asc)


async def test_write_same_of_too_many_blocks() -> None:
    volume = MemoryVolume(size=4096)
    volume.size = (WRITE_SAME_BLOCKS_MAX + 1) * 512
    answer = await Initiator(make_target({0: volume})).send(same_cdb(SAME_16, 0, WRITE_SAME_BLOCKS_MAX + 1), bytes(512))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_lba_status_tells_extents() -> None:
    volume = MemoryVolume()
    volume.write(16 * 512, memoryview(b"\x01" * 4096))
    host = Initiator(make_target({0: volume}))
    assert statuses(await host.good(status_cdb(0, 4096))) == [(0, 16, 1), (16, 8, 0), (24, BLOCKS - 24, 1)]
    assert statuses(await host.good(status_cdb(17, 4096)))[0] == (17, 7, 0)
    assert statuses(await host.good(status_cdb(0, 24))) == [(0, 16, 1)]
    assert statuses(await host.good(status_cdb(BLOCKS - 1, 24))) == [(BLOCKS - 1, 1, 1)]


async def test_lba_status_of_a_thick_disk_is_mapped() -> None:
    volume = MemoryVolume()
    volume.thin = False
    assert statuses(await Initiator(make_target({0: volume})).good(status_cdb(0, 24))) == [(0, BLOCKS, 0)]


@pytest.mark.parametrize("lba", [BLOCKS, 1 << 63])
async def test_lba_status_out_of_range(lba: int) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(status_cdb(lba, 24))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)
