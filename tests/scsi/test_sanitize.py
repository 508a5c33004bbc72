"""SANITIZE."""

import asyncio

import pytest

from arrayd.scsi import sanitize
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Attribute, Function, FunctionResponse, Status, Task
from arrayd.volumes.volume import VolumeFailed
from tests.scsi.initiator import Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

OVERWRITE, BLOCK_ERASE, CRYPTO_ERASE, EXIT_FAILURE_MODE = 0x01, 0x02, 0x03, 0x1F
IMMED, ZNR, AUSE = 0x80, 0x40, 0x20
IN_PROGRESS = (Key.NOT_READY, Asc.SANITIZE_IN_PROGRESS)
FAILED = (Key.MEDIUM_ERROR, Asc.SANITIZE_FAILED)
BAD_CDB = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
BAD_PARAMETER = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
READY = bytes(6)
REQUEST_SENSE = bytes((0x03, 0, 0, 0, 252, 0))


def cdb_of(action: int, length: int = 0, flags: int = 0) -> bytes:
    return bytes((0x48, flags | action, 0, 0, 0, 0, 0)) + length.to_bytes(2, "big") + bytes(1)


def parameters(pattern: bytes, count: int = 1, flags: int = 0, length: int | None = None) -> bytes:
    said = len(pattern) if length is None else length
    return bytes((flags | count, 0)) + said.to_bytes(2, "big") + pattern


async def sanitized(target: ScsiTarget) -> None:
    """Waits until the operation on LUN 0 has ended."""
    waiting = Task(bytes(16), 0, 1, Attribute.SIMPLE, 0, 0, lambda _task: None)
    await disk_unit(target, 0).sanitizing.ended(waiting)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize, "OVERWRITE_SECONDS_MIN", 0.01)


@pytest.fixture
def volume() -> MemoryVolume:
    volume = MemoryVolume()
    volume.write(0, memoryview(b"\xee" * (volume.size // 2)))
    return volume


@pytest.fixture
def target(volume: MemoryVolume) -> ScsiTarget:
    return make_target({0: volume})


@pytest.fixture
def host(target: ScsiTarget) -> Initiator:
    return Initiator(target)


@pytest.mark.parametrize("length", [1, 3, 4, 256, 511, 512])
async def test_overwrite_repeats_its_pattern_in_every_block(host: Initiator, volume: MemoryVolume, length: int) -> None:
    pattern = bytes(range(1, 256))[:length].ljust(length, b"\x99")
    data = parameters(pattern)
    await host.good(cdb_of(OVERWRITE, len(data)), data)
    block = (pattern * 512)[:512]
    assert volume.data == block * (volume.size // 512)
    await host.good(READY)


@pytest.mark.parametrize(("count", "flags", "left"), [(2, 0x80, 0xF0), (3, 0x80, 0x0F), (2, 0, 0x0F)])
async def test_passes_and_inversion(host: Initiator, volume: MemoryVolume, count: int, flags: int, left: int) -> None:
    written = 0
    write = volume.write

    def counted(offset: int, view: memoryview, durable: bool = False) -> object:
        nonlocal written
        written += len(view)
        return write(offset, view, durable)

    volume.write = counted  # type: ignore[method-assign, assignment]
    data = parameters(b"\x0f", count, flags)
    await host.good(cdb_of(OVERWRITE, len(data)), data)
    assert written == count * volume.size
    assert set(volume.data) == {left}


@pytest.mark.parametrize("thin", [True, False])
async def test_block_erase(host: Initiator, volume: MemoryVolume, thin: bool) -> None:
    volume.thin = thin
    written: list[tuple[int, int]] = []
    write = volume.write

    def seen(offset: int, view: memoryview, durable: bool = False) -> object:
        assert not any(view)
        written.append((offset, len(view)))
        return write(offset, view, durable)

    volume.write = seen  # type: ignore[method-assign, assignment]
    await host.good(cdb_of(BLOCK_ERASE))
    assert not any(volume.data)
    assert sum(length for _, length in written) == volume.size // 2, "what was mapped is overwritten"
    assert bool(volume.mapped) != thin, "and freed"


async def test_it_is_refused_to_everybody_while_it_works(target: ScsiTarget, volume: MemoryVolume) -> None:
    host, other = Initiator(target), Initiator(target, isid=bytes.fromhex("00023d000002"))
    volume.held = asyncio.Event()
    await host.good(cdb_of(BLOCK_ERASE, flags=IMMED))
    for each in (host, other):
        assert not each.nexus.fast[0]
        for cdb in (READY, bytes((0x28, *bytes(9))), bytes((0x1B, 1, 0, 0, 0x12, 0)), cdb_of(BLOCK_ERASE)):
            answer = await each.send(cdb)
            assert answer.why == IN_PROGRESS
            assert answer.sense[15] & 0x80, "progress"
        for cdb in (bytes((0x12, 0, 0, 0, 96, 0)), bytes.fromhex("a00000000000000010000000")):
            await each.good(cdb)
        sense = await each.good(REQUEST_SENSE)
        assert (sense[2], sense[12:14]) == (Key.NOT_READY, b"\x04\x1b")
    volume.held.set()
    volume.held = None
    await target.stop()
    await host.good(READY)
    assert host.nexus.fast[0]


async def test_progress_goes_up(host: Initiator, volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize, "BYTES_PER_SECOND", volume.size * 5)
    data = parameters(b"\x01")
    _, answer = host.start(cdb_of(OVERWRITE, len(data)), data)
    seen = []
    while not answer.done():
        await asyncio.sleep(0.005)
        sense = await host.good(REQUEST_SENSE)
        if sense[2] == Key.NOT_READY:
            seen.append(int.from_bytes(sense[16:18], "big"))
    assert (await answer).status == Status.GOOD
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[0] < seen[-1] <= 0xFFFF


async def test_it_waits_for_what_is_at_work(host: Initiator, volume: MemoryVolume) -> None:
    volume.held = held = asyncio.Event()
    _, writing = host.start(bytes.fromhex("2a000000000000000100"), b"\x11" * 512)
    await asyncio.sleep(0)
    assert volume.waiting == 1
    _, sanitizing = host.start(cdb_of(BLOCK_ERASE, flags=IMMED))
    _, behind = host.start(READY)
    volume.held = None
    await asyncio.sleep(0)
    assert not sanitizing.done()
    held.set()
    assert (await writing).status == Status.GOOD
    assert (await sanitizing).status == Status.GOOD
    assert (await behind).why == IN_PROGRESS
    await sanitized(host.nexus.target)
    assert not any(volume.data)


async def test_no_reset_nor_abort_stops_it(target: ScsiTarget, host: Initiator, volume: MemoryVolume) -> None:
    data = parameters(b"\x5c")
    volume.held = asyncio.Event()
    task, answer = host.start(cdb_of(OVERWRITE, len(data)), data)
    answers = []
    for function in (Function.ABORT_TASK, Function.LUN_RESET, Function.TARGET_WARM_RESET):
        answers.append(asyncio.get_running_loop().create_future())
        host.nexus.manage(function, 0, task.tag, answers[-1].set_result)
    assert [await each for each in answers] == [FunctionResponse.COMPLETE] * 3
    await answer
    assert volume.waiting == 1, "the operation goes on"
    volume.held.set()
    volume.held = None
    host.leave()
    late = Initiator(target)
    assert (await late.send(READY)).why == IN_PROGRESS
    await sanitized(target)
    await late.good(READY)
    assert set(volume.data) == {0x5C}


@pytest.mark.parametrize(("flags", "exits"), [(AUSE, True), (0, False)])
async def test_failure(host: Initiator, volume: MemoryVolume, flags: int, exits: bool) -> None:
    volume.failure = VolumeFailed("broken")
    data = parameters(b"\x5c")
    assert (await host.send(cdb_of(OVERWRITE, len(data), flags), data)).why == FAILED
    volume.failure = None
    assert (await host.send(READY)).why == FAILED
    if exits:
        await host.good(cdb_of(EXIT_FAILURE_MODE))
    else:
        assert (await host.send(cdb_of(EXIT_FAILURE_MODE))).why == BAD_CDB
        await host.good(cdb_of(OVERWRITE, len(data)), data)
    await host.good(READY)


async def test_exit_failure_mode_without_failure(host: Initiator) -> None:
    await host.good(cdb_of(EXIT_FAILURE_MODE))


@pytest.mark.parametrize("action", [0x00, CRYPTO_ERASE, 0x04, 0x1E])
async def test_other_service_actions(host: Initiator, action: int) -> None:
    assert (await host.send(cdb_of(action))).why == BAD_CDB


@pytest.mark.parametrize("action", [OVERWRITE, BLOCK_ERASE, EXIT_FAILURE_MODE])
@pytest.mark.parametrize("byte", range(1, 7))
async def test_reserved_fields(host: Initiator, volume: MemoryVolume, action: int, byte: int) -> None:
    data = parameters(b"\x01") if action == OVERWRITE else b""
    cdb = bytearray(cdb_of(action, len(data)))
    cdb[byte] |= ZNR
    before = bytes(volume.data)
    assert (await host.send(bytes(cdb), data)).why == BAD_CDB
    assert volume.data == before


@pytest.mark.parametrize("length", [0, 1, 4, 517, 0xFFFF])
async def test_parameter_list_lengths_of_overwrite(host: Initiator, length: int) -> None:
    assert (await host.send(cdb_of(OVERWRITE, length), bytes(length) or b"")).why == BAD_CDB


@pytest.mark.parametrize("action", [BLOCK_ERASE, EXIT_FAILURE_MODE])
async def test_the_others_take_no_parameters(host: Initiator, action: int) -> None:
    assert (await host.send(cdb_of(action, 8), bytes(8))).why == BAD_CDB


@pytest.mark.parametrize(
    "data",
    [
        parameters(b"\x01" * 8, count=0),
        parameters(b"\x01" * 8, flags=0x20),
        parameters(b"\x01" * 8, length=0),
        parameters(b"\x01" * 8, length=7),
        parameters(b"\x01" * 8, length=513),
    ],
)
async def test_parameters_of_overwrite(host: Initiator, volume: MemoryVolume, data: bytes) -> None:
    before = bytes(volume.data)
    assert (await host.send(cdb_of(OVERWRITE, len(data)), data)).why == BAD_PARAMETER
    assert volume.data == before
    await host.good(READY)


async def test_a_read_only_disk(host: Initiator, volume: MemoryVolume) -> None:
    volume.read_only = True
    assert (await host.send(cdb_of(BLOCK_ERASE))).why == (Key.DATA_PROTECT, Asc.WRITE_PROTECTED)


async def test_the_daemon_stops_without_waiting_for_it(
    target: ScsiTarget, host: Initiator, volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanitize, "BYTES_PER_SECOND", volume.size / 60)
    data = parameters(b"\x5c")
    await host.good(cdb_of(OVERWRITE, len(data), IMMED), data)
    async with asyncio.timeout(3):
        await target.stop()
    assert 0x00 in volume.data


async def test_nor_until_it_has_been_seen(
    target: ScsiTarget, host: Initiator, volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanitize, "OVERWRITE_SECONDS_MIN", 60.0)
    monkeypatch.setattr(sanitize, "WATCHED_SECONDS", 30.0)
    data = parameters(b"\x5c")
    await host.good(cdb_of(OVERWRITE, len(data), IMMED), data)
    async with asyncio.timeout(3):
        await target.stop()


async def test_a_small_volume_is_seen_at_work(
    target: ScsiTarget, host: Initiator, volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanitize, "OVERWRITE_SECONDS_MIN", 60.0)
    monkeypatch.setattr(sanitize, "WATCHED_SECONDS", 0.1)
    data = parameters(b"\x5c")
    _, answer = host.start(cdb_of(OVERWRITE, len(data)), data)
    told = 0
    async with asyncio.timeout(10):
        while not answer.done():
            told += (await host.send(READY)).status == Status.CHECK_CONDITION
            await asyncio.sleep(0.001)
    assert told >= sanitize.WATCHED_TIMES
    assert (await answer).status == Status.GOOD
    assert set(volume.data) == {0x5C}
    await host.good(READY)
