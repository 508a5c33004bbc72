"""READ and WRITE the long way."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import MAX_TRANSFER_BYTES, SENDFILE_BYTES, FileExtent, Status, Task
from arrayd.volumes.volume import VolumeError, VolumeFailed, VolumeFull
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume, WarmVolume
from tests.scsi.test_fast_path import READS, WRITES, cdb_of

FUA = 0x08


class DurableVolume(MemoryVolume):
    """Remembers which writes asked to be durable, and how often it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: list[bool] = []
        self.flushes = 0

    def write(self, offset: int, view: memoryview, durable: bool = False) -> Awaitable[None] | None:
        self.durable.append(durable)
        return super().write(offset, view, durable)

    def flush(self) -> Awaitable[None] | None:
        self.flushes += 1
        return super().flush()


@pytest.mark.parametrize(("write", "read"), list(zip(WRITES, READS, strict=True)))
@pytest.mark.parametrize("block_size", [512, 4096])
async def test_what_is_written_is_read(write: int, read: int, block_size: int) -> None:
    host = Initiator(make_target({0: MemoryVolume(block_size=block_size)}))
    data = bytes(range(256)) * (3 * block_size // 256)
    await host.good(cdb_of(write, 7, 3), data)
    assert await host.good(cdb_of(read, 7, 3)) == data
    assert await host.good(cdb_of(read, 6, 1)) == bytes(block_size)


async def test_six_byte_commands_say_256_by_zero() -> None:
    volume = MemoryVolume()
    host = Initiator(make_target({0: volume}))
    await host.good(cdb_of(WRITES[0], 2, 0), b"\x11" * (256 * 512))
    assert volume.data[1024 : 1024 + 256 * 512] == b"\x11" * (256 * 512)
    assert len(await host.good(cdb_of(READS[0], 2, 0))) == 256 * 512


@pytest.mark.parametrize("opcode", [*READS[1:], *WRITES[1:]])
@pytest.mark.parametrize(("lba", "blocks"), [(2048, 0), (2048, 1), (2047, 2), (0, 2049), (1 << 31, 1)])
async def test_out_of_range(opcode: int, lba: int, blocks: int) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(cdb_of(opcode, lba, blocks))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)
    assert answer.sense[0] == 0xF0, "INFORMATION is valid"
    assert int.from_bytes(answer.sense[3:7], "big") == max(lba, 2048)


@pytest.mark.parametrize("opcode", [*READS[1:], *WRITES[1:]])
async def test_no_blocks(opcode: int) -> None:
    assert (await Initiator(make_target({0: MemoryVolume()})).send(cdb_of(opcode, 2047, 0))).status == Status.GOOD


@pytest.mark.parametrize("opcode", [*READS[1:], *WRITES[1:]])
@pytest.mark.parametrize("protect", range(1, 8))
async def test_protection_is_refused(opcode: int, protect: int) -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(cdb_of(opcode, 0, 1, protect << 5))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("opcode", [READS[3], WRITES[3]])
async def test_more_than_one_transfer_takes(opcode: int) -> None:
    volume = MemoryVolume(size=MAX_TRANSFER_BYTES + 512)
    host = Initiator(make_target({0: volume}))
    answer = await host.send(cdb_of(opcode, 0, MAX_TRANSFER_BYTES // 512 + 1))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("length", [0, 200, 512, 1023])
async def test_less_data_than_the_cdb_says_writes_whole_blocks_only(length: int) -> None:
    volume = MemoryVolume()
    host = Initiator(make_target({0: volume}))
    await host.good(cdb_of(WRITES[1], 4, 2), b"\x77" * length)
    whole = length // 512 * 512
    assert volume.data[2048 : 2048 + whole] == b"\x77" * whole
    assert not any(volume.data[2048 + whole :])


@pytest.mark.parametrize("opcode", WRITES[1:])
async def test_fua_is_durable(opcode: int) -> None:
    volume = DurableVolume()
    host = Initiator(make_target({0: volume}))
    await host.good(cdb_of(opcode, 0, 1), bytes(512))
    await host.good(cdb_of(opcode, 0, 1, FUA), bytes(512))
    assert volume.durable == [False, True]


async def test_a_read_with_fua_reads_the_medium() -> None:
    volume = DurableVolume()
    await Initiator(make_target({0: volume})).good(cdb_of(READS[1], 0, 1, FUA))
    assert volume.flushes == 1


@pytest.mark.parametrize(
    ("failure", "key", "asc"),
    [
        (VolumeFull("no room"), Key.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED),
        (VolumeFailed("broken"), Key.MEDIUM_ERROR, Asc.WRITE_ERROR),
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_a_write_that_fails(failure: VolumeError, key: Key, asc: Asc, later: bool) -> None:
    volume = MemoryVolume()
    host = Initiator(make_target({0: volume}))
    if later:
        volume.write = failing_later(failure)  # type: ignore[method-assign]
    else:
        volume.failure = failure
    assert (await host.send(cdb_of(WRITES[1], 0, 1), bytes(512))).why == (key, asc)


def failing_later(failure: VolumeError) -> Callable[..., Awaitable[None]]:
    async def fail(*_: object) -> None:
        await asyncio.sleep(0)
        raise failure

    return fail


@pytest.mark.parametrize("later", [False, True])
async def test_a_read_that_fails_gives_its_buffer_back(later: bool) -> None:
    volume = MemoryVolume()
    target = make_target({0: volume})
    if later:
        volume.read = failing_later(VolumeFailed("broken"))  # type: ignore[method-assign]
    else:
        volume.failure = VolumeFailed("broken")
    answer = await Initiator(target).send(cdb_of(READS[1], 0, 1))
    assert answer.why == (Key.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
    assert target.buffers.used_bytes == 0


async def test_reads_wait_for_buffers_in_turn() -> None:
    volume = MemoryVolume()
    target = make_target({0: volume})
    target.buffers.limit_bytes = 64 * 1024
    volume.held = asyncio.Event()
    host = Initiator(target)
    answers = [host.start(cdb_of(READS[1], lba, 8))[1] for lba in range(5)]
    await asyncio.sleep(0)
    assert target.buffers.used_bytes == 64 * 1024
    volume.held.set()
    for answer in answers:
        assert (await answer).status == Status.GOOD
    assert target.buffers.used_bytes == 0


async def test_a_read_aborted_while_it_waits_for_a_buffer_takes_none() -> None:
    target = make_target({0: MemoryVolume()})
    target.buffers.limit_bytes = 64 * 1024
    held = target.buffers.take(64 * 1024)
    assert held is not None
    host = Initiator(target)
    task, answer = host.start(cdb_of(READS[1], 0, 8))
    ended = asyncio.get_running_loop().create_future()
    disk_unit(target, 0).abort([task], lambda: ended.set_result(None))
    assert not ended.done()
    held.release()
    await answer
    assert ended.done()
    assert target.buffers.used_bytes == 0


async def test_a_long_warm_read_names_its_file() -> None:
    target = make_target({0: WarmVolume()})
    host = Initiator(target)
    long = SENDFILE_BYTES // 512
    for takes_file, blocks, named in ((True, long, True), (True, long - 1, False), (False, long, False)):
        ended: list[Task] = []
        task = Task(cdb_of(READS[1], 16, blocks).ljust(16, b"\0"), 0, 1, 1, 0, blocks * 512, ended.append)
        task.takes_file = takes_file
        host.nexus.enter(task)
        host.nexus.execute(task)
        assert ended == [task]
        assert isinstance(task.data_in, FileExtent) == named
        assert len(task.data_in) == blocks * 512
        if isinstance(task.data_in, FileExtent):
            assert task.data_in.offset == 16 * 512


@pytest.mark.parametrize("opcode", WRITES)
async def test_a_read_only_disk(opcode: int) -> None:
    volume = MemoryVolume()
    volume.read_only = True
    answer = await Initiator(make_target({0: volume})).send(cdb_of(opcode, 0, 1), bytes(512))
    assert answer.why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)
