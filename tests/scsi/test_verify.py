"""VERIFY and WRITE AND VERIFY."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.steps import STEP_BYTES
from arrayd.scsi.task import Status
from arrayd.scsi.verify import first_difference
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

VERIFIES = {10: 0x2F, 12: 0xAF, 16: 0x8F}
WRITES = {10: 0x2E, 12: 0xAE, 16: 0x8E}
MEDIUM_ONLY, EVERY_BLOCK, ONE_BLOCK = 0x00, 0x02, 0x06
"""BYTCHK as it stands in byte 1."""
SIZE = 4 * STEP_BYTES


def cdb_of(opcode: int, lba: int, blocks: int, flags: int) -> bytes:
    if opcode >> 5 == 1:
        return bytes((opcode, flags)) + lba.to_bytes(4, "big") + bytes(1) + blocks.to_bytes(2, "big")
    width = 8 if opcode >> 5 == 4 else 4
    return bytes((opcode, flags)) + lba.to_bytes(width, "big") + blocks.to_bytes(4, "big")


@pytest.fixture
def volume() -> MemoryVolume:
    volume = MemoryVolume(size=SIZE)
    volume.data[:] = bytes(range(256)) * (SIZE // 256)
    return volume


@pytest.fixture
def host(volume: MemoryVolume) -> Initiator:
    return Initiator(make_target({0: volume}))


@pytest.mark.parametrize("opcode", VERIFIES.values(), ids=VERIFIES)
@pytest.mark.parametrize("blocks", [0, 1, 2, 600])
async def test_what_is_there(host: Initiator, volume: MemoryVolume, opcode: int, blocks: int) -> None:
    data = bytes(volume.data[512 : 512 + blocks * 512])
    assert (await host.send(cdb_of(opcode, 1, blocks, MEDIUM_ONLY))).status == Status.GOOD
    assert (await host.send(cdb_of(opcode, 1, blocks, EVERY_BLOCK), data)).status == Status.GOOD
    assert (await host.send(cdb_of(opcode, 1, blocks, ONE_BLOCK), data[:512])).status == Status.GOOD


@pytest.mark.parametrize("opcode", VERIFIES.values(), ids=VERIFIES)
@pytest.mark.parametrize("at", [0, 511, 512, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 77])
async def test_miscompare_tells_where(host: Initiator, volume: MemoryVolume, opcode: int, at: int) -> None:
    blocks = 2 * STEP_BYTES // 512
    data = bytearray(volume.data[512 : 512 + blocks * 512])
    data[at] ^= 0xFF
    answer = await host.send(cdb_of(opcode, 1, blocks, EVERY_BLOCK), bytes(data))
    assert answer.why == (Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY)
    assert int.from_bytes(answer.sense[3:7], "big") == at


async def test_one_block_against_many(host: Initiator, volume: MemoryVolume) -> None:
    volume.data[3 * 512 + 7] ^= 1
    answer = await host.send(cdb_of(0x2F, 0, 8, ONE_BLOCK), bytes(volume.data[:512]))
    assert answer.why == (Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY)
    assert int.from_bytes(answer.sense[3:7], "big") == 7


@pytest.mark.parametrize("opcode", [*VERIFIES.values(), *WRITES.values()])
@pytest.mark.parametrize("flags", [0x04, 0x20, 0x40, 0x80])
async def test_fields_that_are_refused(host: Initiator, opcode: int, flags: int) -> None:
    answer = await host.send(cdb_of(opcode, 0, 1, flags), bytes(512))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("opcode", WRITES.values(), ids=WRITES)
async def test_one_block_is_not_for_writes(host: Initiator, opcode: int) -> None:
    answer = await host.send(cdb_of(opcode, 0, 1, ONE_BLOCK), bytes(512))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("opcode", [*VERIFIES.values(), *WRITES.values()])
@pytest.mark.parametrize(("lba", "blocks"), [(SIZE // 512, 0), (SIZE // 512 - 1, 2), (1 << 31, 1)])
async def test_out_of_range(host: Initiator, opcode: int, lba: int, blocks: int) -> None:
    answer = await host.send(cdb_of(opcode, lba, blocks, EVERY_BLOCK), bytes(512))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)


@pytest.mark.parametrize("opcode", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("flags", [MEDIUM_ONLY, EVERY_BLOCK])
async def test_writes_and_verifies(host: Initiator, volume: MemoryVolume, opcode: int, flags: int) -> None:
    data = b"\xc3" * 1024
    assert (await host.send(cdb_of(opcode, 9, 2, flags), data)).status == Status.GOOD
    assert volume.data[9 * 512 : 11 * 512] == data


async def test_a_write_that_did_not_take(host: Initiator, volume: MemoryVolume) -> None:
    volume.write = lambda _offset, _view, durable=False: None  # type: ignore[method-assign, assignment]
    answer = await host.send(cdb_of(0x2E, 0, 1, EVERY_BLOCK), b"\xff" * 512)
    assert answer.why == (Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY)


async def test_a_medium_that_cannot_be_read(host: Initiator, volume: MemoryVolume) -> None:
    volume.failure = VolumeFailed("broken")
    assert (await host.send(cdb_of(0x2F, 0, 1, MEDIUM_ONLY))).why == (Key.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)


async def test_verify_may_a_read_only_disk_and_writes_may_not(host: Initiator, volume: MemoryVolume) -> None:
    volume.read_only = True
    assert (await host.send(cdb_of(0x2F, 0, 1, MEDIUM_ONLY))).status == Status.GOOD
    answer = await host.send(cdb_of(0x2E, 0, 1, MEDIUM_ONLY), bytes(512))
    assert answer.why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)


async def test_an_aborted_verify_ends_at_its_next_step(host: Initiator, volume: MemoryVolume) -> None:
    volume.held = asyncio.Event()
    task, answer = host.start(cdb_of(0x8F, 0, SIZE // 512, MEDIUM_ONLY))
    await asyncio.sleep(0)
    ended = asyncio.get_running_loop().create_future()
    task.unit.abort([task], lambda: ended.set_result(None))
    assert not ended.done()
    reads = 0
    original = volume.read

    def counted(offset: int, view: memoryview) -> object:
        nonlocal reads
        reads += 1
        return original(offset, view)

    volume.read = counted  # type: ignore[method-assign, assignment]
    volume.held.set()
    await answer
    assert ended.done()
    assert reads == 0


@given(left=st.binary(min_size=1, max_size=200), data=st.data())
def test_first_difference(left: bytes, data: st.DataObject) -> None:
    right = bytearray(left)
    for at in data.draw(st.lists(st.integers(0, len(left) - 1), max_size=3)):
        right[at] = data.draw(st.integers(0, 255))
    expected = next((at for at, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1]), None)
    assert first_difference(left, bytes(right)) == expected
