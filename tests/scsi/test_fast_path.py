"""The fast path does what the long way does, or nothing."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.alua import AccessState, set_access_state
from arrayd.scsi.fast_path import READ_6, READ_10, READ_12, READ_16, WRITE_6, WRITE_10, WRITE_12, WRITE_16
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import TO_INITIATOR, TO_TARGET, Commit, FastTable, Status
from arrayd.volumes.volume import VolumeError, VolumeFailed, VolumeFull, VolumeReadOnly
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import CommittingVolume, MemoryVolume

READS = (READ_6, READ_10, READ_12, READ_16)
WRITES = (WRITE_6, WRITE_10, WRITE_12, WRITE_16)
BLOCKS = 512
LUN = encode_lun(0)


def cdb_of(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    """A CDB of 16 bytes, zero-padded."""
    code = opcode & 0xFF
    if opcode in (READ_6, WRITE_6):
        return bytes((code, flags & 0xE0 | lba >> 16)) + (lba & 0xFFFF).to_bytes(2, "big") + bytes((blocks & 0xFF,))
    if opcode in (READ_10, WRITE_10):
        return bytes((code, flags)) + lba.to_bytes(4, "big") + bytes(1) + blocks.to_bytes(2, "big")
    width = 8 if opcode in (READ_16, WRITE_16) else 4
    return bytes((code, flags)) + lba.to_bytes(width, "big") + blocks.to_bytes(4, "big")


def go(table: FastTable, cdb: bytes, view: memoryview) -> bool:
    """Calls the fast path as a transport does."""
    cdb = cdb.ljust(16, b"\0")
    assert cdb[14:] == bytes(2)
    word, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    direction = TO_INITIATOR if TO_INITIATOR | cdb[0] in READS else TO_TARGET
    done = table[direction | cdb[0]](cdb[1], word, count, view)
    assert isinstance(done, bool)
    return done


@pytest.fixture(params=[512, 4096])
def volume(request: pytest.FixtureRequest) -> MemoryVolume:
    volume = MemoryVolume(size=BLOCKS * request.param, block_size=request.param)
    volume.data[:] = bytes(range(256)) * (volume.size // 256)
    return volume


@pytest.mark.parametrize("opcode", READS)
@pytest.mark.parametrize("flags", [0, 0x10], ids=["plain", "dpo"])
def test_reads(volume: MemoryVolume, opcode: int, flags: int) -> None:
    host = Initiator(make_target({0: volume}))
    view = memoryview(bytearray(3 * volume.block_size))
    assert go(host.nexus.fast[LUN], cdb_of(opcode, 5, 3, flags if opcode != READ_6 else 0), view)
    assert view == volume.data[5 * volume.block_size : 8 * volume.block_size]


@pytest.mark.parametrize("opcode", WRITES)
def test_writes(volume: MemoryVolume, opcode: int) -> None:
    host = Initiator(make_target({0: volume}))
    before = bytes(volume.data)
    assert go(host.nexus.fast[LUN], cdb_of(opcode, BLOCKS - 2, 2), memoryview(b"\xa5" * (2 * volume.block_size)))
    assert volume.data == before[: -2 * volume.block_size] + b"\xa5" * (2 * volume.block_size)


def test_six_bytes_say_256_blocks_by_zero(volume: MemoryVolume) -> None:
    host = Initiator(make_target({0: volume}))
    view = memoryview(bytearray(256 * volume.block_size))
    assert go(host.nexus.fast[LUN], cdb_of(READ_6, 1, 0), view)
    assert view == volume.data[volume.block_size : 257 * volume.block_size]


@pytest.mark.parametrize("opcode", [READ_10, READ_12, READ_16, WRITE_10, WRITE_12, WRITE_16])
@pytest.mark.parametrize("bit", [0x01, 0x02, 0x04, 0x08, 0x20, 0x40, 0x80])
def test_flags_go_the_long_way(volume: MemoryVolume, opcode: int, bit: int) -> None:
    table = Initiator(make_target({0: volume})).nexus.fast[LUN]
    before = bytes(volume.data)
    assert not go(table, cdb_of(opcode, 0, 1, bit), memoryview(bytearray(volume.block_size)))
    assert volume.data == before


@pytest.mark.parametrize("opcode", [*READS, *WRITES])
@pytest.mark.parametrize("tail", ["group", "control"])
def test_group_and_control_go_the_long_way(opcode: int, tail: str) -> None:
    """A 16-byte CDB's never come: the transport looks at its bytes 14 and 15."""
    at = {6: {"control": 5}, 10: {"group": 6, "control": 9}, 12: {"group": 10, "control": 11}, 16: {}}
    length = {0: 6, 1: 10, 5: 12, 4: 16}[(opcode & 0xFF) >> 5]
    if tail not in at[length]:
        return
    table = Initiator(make_target({0: MemoryVolume()})).nexus.fast[LUN]
    cdb = bytearray(cdb_of(opcode, 0, 1).ljust(16, b"\0"))
    cdb[at[length][tail]] = 1
    assert not go(table, bytes(cdb), memoryview(bytearray(512)))


@pytest.mark.parametrize("opcode", [*READS, *WRITES])
@given(lba=st.integers(0, BLOCKS + 8), blocks=st.integers(0, 40), length=st.integers(0, 40 * 512))
def test_it_does_exactly_what_fits(opcode: int, lba: int, blocks: int, length: int) -> None:
    """On the spot when the data is as long as the CDB says and within capacity; else nothing is touched."""

    async def run() -> None:
        volume = MemoryVolume(size=BLOCKS * 512)
        volume.data[:] = bytes(range(256)) * (volume.size // 256)
        before = bytes(volume.data)
        table = Initiator(make_target({0: volume})).nexus.fast[LUN]
        said = 256 if opcode in (READ_6, WRITE_6) and not blocks else blocks
        exact = length == said * 512 and length > 0 and lba + said <= BLOCKS
        view = memoryview(bytearray(b"\x5a" * length))
        assert go(table, cdb_of(opcode, lba, blocks), view) == exact
        at = slice(lba * 512, lba * 512 + length)
        if exact and opcode in WRITES:
            assert volume.data == before[: at.start] + b"\x5a" * length + before[at.stop :]
        else:
            assert volume.data == before
            assert view == (before[at] if exact else b"\x5a" * length)

    asyncio.run(run())


def opened(host: Initiator) -> tuple[bool, bool]:
    """Whether reads and writes go fast."""
    table = host.nexus.fast[LUN]
    return READ_10 in table, WRITE_10 in table


async def test_a_unit_attention_closes_it_until_it_is_reported() -> None:
    host = Initiator(make_target({0: MemoryVolume()}), fresh=True)
    assert opened(host) == (False, False)
    assert await host.attention() is Asc.POWER_ON_OR_RESET
    assert opened(host) == (True, True)


async def test_read_only_only_reads() -> None:
    volume = MemoryVolume()
    volume.read_only = True
    assert opened(Initiator(make_target({0: volume}))) == (True, False)


@pytest.mark.parametrize("write_cache", [False, True])
@pytest.mark.parametrize(
    ("fails", "key", "asc"),
    [
        (None, 0, None),
        (VolumeFailed("EIO"), Key.MEDIUM_ERROR, Asc.WRITE_ERROR),
        (VolumeFull("ENOSPC"), Key.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED),
        (VolumeReadOnly(), Key.DATA_PROTECT, Asc.WRITE_PROTECTED),
    ],
)
async def test_writes_without_a_cache_are_done_at_once_and_answered_together(
    fails: VolumeError | None, key: int, asc: Asc | None, write_cache: bool
) -> None:
    """So are those to a volume that answers later whatever its cache is: a P-VOL."""
    volume = CommittingVolume()
    volume.write_cache = volume.answers_later = write_cache
    write = Initiator(make_target({0: volume})).nexus.fast[LUN][WRITE_16]
    data = memoryview(bytes(range(256)) * 2)
    first, second = (write(0, lba, 1, data) for lba in (3, 9))
    assert isinstance(first, Commit)
    assert first is second
    assert volume.data[3 * 512 : 4 * 512] == volume.data[9 * 512 : 10 * 512] == data
    ended: list[Commit] = []
    first.when_ended(ended.append)
    old, volume.synced = volume.synced, asyncio.get_running_loop().create_future()
    assert write(0, 4, 1, data) is not first
    if fails is not None:
        old.set_exception(fails)
    else:
        old.set_result(None)
    assert not ended
    await asyncio.sleep(0)
    assert ended == [first]
    if fails is not None:
        assert (first.status, first.sense[2] & 0x0F) == (Status.CHECK_CONDITION, key)
        assert Asc(int.from_bytes(first.sense[12:14], "big")) is asc
    else:
        assert (first.status, first.sense) == (Status.GOOD, b"")
    volume.refuses = True
    assert write(0, 3, 1, data) is False
    volume.synced.set_result(None)


async def test_resize_is_seen() -> None:
    volume = MemoryVolume(size=8 * 512)
    target = make_target({0: volume})
    host = Initiator(target)
    last = memoryview(bytearray(512))
    assert not go(host.nexus.fast[LUN], cdb_of(READ_10, 8, 1), last)
    volume.data.extend(bytes(512))
    volume.size += 512
    target.resized(volume)
    assert await host.attention() is Asc.CAPACITY_DATA_HAS_CHANGED
    assert go(host.nexus.fast[LUN], cdb_of(READ_10, 8, 1), last)


async def test_a_port_in_standby_is_not_fast() -> None:
    target = make_target({0: MemoryVolume()})
    host = Initiator(target)
    set_access_state(disk_unit(target, 0), disk_unit(target, 0).port_groups.own, AccessState.STANDBY, host.nexus)
    assert opened(host) == (False, False)
    set_access_state(
        disk_unit(target, 0), disk_unit(target, 0).port_groups.own, AccessState.ACTIVE_NON_OPTIMIZED, host.nexus
    )
    assert opened(host) == (True, True)


async def test_reservations_of_others_close_it() -> None:
    target = make_target({0: MemoryVolume()})
    holder, other = Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))
    await holder.good(bytes((0x16,)))
    assert opened(holder) == (True, True)
    assert opened(other) == (False, False)
    await holder.good(bytes((0x17,)))
    assert opened(other) == (True, True)
