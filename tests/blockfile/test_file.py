"""One file: what is done on the spot, what goes to a thread, what a sync promises, and how it ends."""

import asyncio
import errno
import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arrayd.blockfile import BlockFile, Writeback, kernel
from tests.lab.disk import MIB, PLENTY, HeldThreads, OpenFile, make_cold, turns

PAGE = kernel.PAGE_BYTES
SHM = Path("/dev/shm")


def data(byte: int, length: int = PAGE) -> memoryview:
    return memoryview(bytes([byte]) * length)


def content(file: BlockFile, offset: int, length: int) -> bytes:
    return file.path.read_bytes()[offset : offset + length]


class Failing(Exception):
    """What a volume makes of an OSError."""


class Syncs:
    """Stands for fdatasync: counts, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.failure: OSError | None = None
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor: int) -> None:
        self.count += 1
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self._real(descriptor)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Nothing of this process is written beyond the first half MiB of a file (EFBIG)."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# -- on the spot -------------------------------------------------------------------------------------------------------


async def test_what_is_in_memory_is_read_and_written_on_the_spot(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    assert file.write_now(PAGE, data(7))
    into = memoryview(bytearray(PAGE))
    assert file.read_now(PAGE, into)
    assert into == data(7)
    assert content(file, 0, 3 * PAGE) == bytes(PAGE) + data(7) + bytes(PAGE)
    assert held.jobs == []


async def test_a_cold_read_goes_to_a_thread(open_file: OpenFile) -> None:
    file = await open_file(size=64 * PAGE)
    assert file.write_now(0, data(7, 64 * PAGE))
    await make_cold(file)
    into = memoryview(bytearray(8 * PAGE))
    assert not file.warm(0, 8 * PAGE)
    assert not file.read_now(0, into)
    await file.read(0, into)
    assert into == data(7, 8 * PAGE)
    into[:] = bytes(8 * PAGE)
    assert file.read_now(0, into)
    assert into == data(7, 8 * PAGE)
    assert file.warm(0, 8 * PAGE)


async def test_a_read_that_is_warm_in_part_is_not_done_on_the_spot(open_file: OpenFile) -> None:
    file = await open_file(size=MIB)
    assert file.write_now(0, data(7, MIB))
    await make_cold(file)
    assert file.write_now(0, data(8))
    assert not file.warm(0, MIB)
    assert not file.read_now(0, memoryview(bytearray(MIB)))


async def test_a_part_of_a_cold_page_is_not_written_on_the_spot(open_file: OpenFile) -> None:
    """The kernel would read the rest of the page first."""
    file = await open_file(size=64 * PAGE)
    assert file.write_now(0, data(7, 64 * PAGE))
    parts = (
        (32 * PAGE, 512),
        (32 * PAGE + 512, PAGE - 512),
        (16 * PAGE, PAGE + 512),
        (16 * PAGE - 512, PAGE + 512),
    )
    for offset, length in parts:
        await make_cold(file)
        assert not file.write_now(offset, data(9, length))
    assert file.write_now(0, data(8))
    await file.write(32 * PAGE + 512, data(9, 512))
    assert file.write_now(32 * PAGE + 1024, data(10, 512))
    assert content(file, 32 * PAGE, 2048) == bytes(data(7, 512)) + data(9, 512) + data(10, 512) + data(7, 512)


async def test_a_file_shorter_than_its_volume_is_an_error(open_file: OpenFile) -> None:
    file = await open_file(size=4 * PAGE, failing=lambda error: Failing(error.errno))
    os.truncate(file.path, PAGE)
    into = memoryview(bytearray(2 * PAGE))
    assert not file.read_now(0, into)
    with pytest.raises(Failing, match=str(errno.EIO)):
        await file.read(0, into)


async def test_it_is_sent_without_a_copy(open_file: OpenFile) -> None:
    file = await open_file()
    file.write_now(PAGE, data(7))
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        assert file.send(here.fileno(), PAGE, PAGE) == PAGE
        assert there.recv(PAGE) == data(7)
        with pytest.raises(BlockingIOError):
            all(file.send(here.fileno(), 0, MIB) for _ in range(64))
        await file.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.send(here.fileno(), 0, PAGE)


async def test_a_write_that_goes_only_in_part_is_refused(open_file: OpenFile, file_size_limit: None) -> None:
    file = await open_file(size=MIB // 2)
    await file.resize(MIB // 2)
    os.truncate(file.path, MIB // 2)
    file.size = MIB
    assert file.write_now(MIB // 2 - PAGE, data(7))
    assert not file.write_now(MIB // 2 - PAGE, data(8, 2 * PAGE))
    assert not file.write_now(MIB // 2, data(8))
    with pytest.raises(OSError, match="File too large") as raised:
        await file.write(MIB // 2 - PAGE, data(8, 2 * PAGE))
    assert raised.value.errno == errno.EFBIG


@pytest.mark.skipif(not SHM.is_dir(), reason="no /dev/shm")
async def test_a_file_in_memory_never_needs_a_thread(held: HeldThreads, threads: ThreadPoolExecutor) -> None:
    path = SHM / f"arrayd-test-{os.getpid()}"
    file = await BlockFile.open(path, MIB, threads, Writeback(0))
    path.unlink()
    file._executor = held
    assert file.write_now(512, data(7, 512))
    into = memoryview(bytearray(MIB))
    assert file.read_now(0, into)
    assert into[512:1024] == data(7, 512)
    assert file.warm(0, MIB)
    await file.sync()
    assert held.jobs == []
    await file.close()


# -- the bound ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_cachestat", [True, False])
async def test_at_the_bound_writes_go_to_threads_and_come_back(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch, has_cachestat: bool
) -> None:
    if not has_cachestat:
        monkeypatch.setattr(kernel, "dirty_bytes", lambda descriptor: None)
    budget = Writeback(8 * MIB)
    file = await open_file(size=64 * MIB, writeback=budget)
    block = data(7, 64 * 1024)
    offset = 0
    while file.write_now(offset, block):
        offset += len(block)
        assert offset <= budget.limit
    assert offset > budget.limit - MIB
    await file.write(offset, block)
    async with asyncio.timeout(20):
        while not file.write_now(offset, block):  # noqa: ASYNC110 - a thread makes room, and tells nobody
            await asyncio.sleep(0.001)
    assert budget.dirty <= budget.limit


async def test_overwriting_the_same_blocks_writes_nothing_back(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what is dirty, not what was written."""
    file = await open_file(size=64 * MIB, writeback=Writeback(8 * MIB))
    if kernel.dirty_bytes(file.descriptor) is None:
        return
    monkeypatch.setattr(kernel, "write_back", lambda descriptor: pytest.fail("written back"))
    for _ in range(64):
        file.write_now(0, data(7, MIB)) or await file.write(0, data(7, MIB))
        await file.read(0, memoryview(bytearray(PAGE)))
    assert file.failure is None


async def test_a_sync_makes_room(open_file: OpenFile, held: HeldThreads) -> None:
    budget = Writeback(2 * MIB)
    file = await open_file(size=64 * MIB, executor=held, writeback=budget)
    while file.write_now(0, data(7, 64 * 1024)):
        pass
    held.jobs.clear()
    file._jobs = 0
    synced = file.sync()
    await turns()
    await held.run()
    assert synced.done()
    assert file.write_now(0, data(7))


async def test_small_writes_are_charged_for_the_pages_they_make_dirty(open_file: OpenFile) -> None:
    file = await open_file(size=64 * MIB, writeback=Writeback(2 * MIB))
    file.write_now(0, data(7, MIB))
    count = 0
    while file.write_now(512, data(7, 512)):
        count += 1
    assert count <= MIB // PAGE


async def test_a_failed_file_leaves_the_bound_to_others(open_file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    budget = Writeback(4 * MIB)
    file = await open_file(size=64 * MIB, writeback=budget)
    monkeypatch.setattr(kernel, "write_back", fails)
    offset = 0
    while file.failure is None:
        if not file.write_now(offset, data(7, MIB)):
            await asyncio.sleep(0.001)
        offset = (offset + MIB) % file.size
    assert file.failure.errno == errno.EIO
    assert not file.write_now(0, data(7))
    with pytest.raises(OSError, match="Input/output error"):
        await file.sync()
    assert budget.dirty == 0


# -- durability --------------------------------------------------------------------------------------------------------


async def test_one_sync_serves_all_who_wait(open_file: OpenFile, held: HeldThreads, syncs: Syncs) -> None:
    file = await open_file(executor=held)
    first = [file.sync() for _ in range(32)]
    await turns()
    assert len(held.jobs) == 1
    second = [file.sync() for _ in range(32)]
    await turns()
    assert len(held.jobs) == 1
    await held.run()
    assert all(future.done() for future in first)
    assert not any(future.done() for future in second)
    await held.run()
    assert all(future.done() for future in second)
    assert (syncs.count, held.jobs) == (2, [])


async def test_who_comes_while_a_sync_runs_waits_for_the_next(open_file: OpenFile, held: HeldThreads) -> None:
    """The one under way began before the write."""
    file = await open_file(executor=held)
    first = file.sync()
    await turns()
    assert file.write_now(0, data(7))
    second = file.sync()
    await held.run()
    assert (first.done(), second.done()) == (True, False)
    await held.run()
    assert second.done()


async def test_a_failed_sync_is_never_retried_into_success(
    open_file: OpenFile, held: HeldThreads, syncs: Syncs
) -> None:
    file = await open_file(executor=held, failing=lambda error: Failing(error.errno))
    assert file.write_now(0, data(7))
    waiting = [file.sync()]
    await turns()
    waiting.append(file.sync())
    syncs.failure = OSError(errno.EIO, os.strerror(errno.EIO))
    await held.run()
    waiting.append(file.sync())
    for future in waiting:
        with pytest.raises(Failing, match=str(errno.EIO)):
            await future
    assert not file.write_now(0, data(8))
    assert not file.write_now(512, data(8, 512))
    into = memoryview(bytearray(PAGE))
    assert file.read_now(0, into)
    assert into == data(7)
    assert (syncs.count, held.jobs) == (1, [])


async def test_nobody_waits_for_a_sync_any_more(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    given_up, waiting = file.sync(), file.sync()
    await turns()
    given_up.cancel()
    await held.run()
    assert waiting.done()
    assert waiting.exception() is None


# -- space -------------------------------------------------------------------------------------------------------------


async def test_punching_frees_disk_and_zeroing_keeps_it(open_file: OpenFile) -> None:
    file = await open_file(size=8 * MIB)
    assert file.write_now(0, data(7, 8 * MIB))
    await file.sync()
    full = file.allocated_bytes()
    assert full >= 8 * MIB
    await file.zero(0, MIB)
    assert content(file, 0, MIB + 1) == bytes(MIB) + b"\x07"
    assert file.allocated_bytes() >= 8 * MIB
    await file.punch(2 * MIB, 4 * MIB)
    assert content(file, 2 * MIB - 1, 4 * MIB + 2) == b"\x07" + bytes(4 * MIB) + b"\x07"
    assert file.allocated_bytes() <= full - 4 * MIB
    assert await file.extents(2 * MIB, 5 * MIB, 9) == [(2 * MIB, 4 * MIB, False), (6 * MIB, MIB, True)]


async def test_a_file_system_that_cannot_punch_gets_zeros_written(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(descriptor: int, mode: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(kernel, "fallocate", cannot)
    file = await open_file(size=4 * MIB)
    assert file.write_now(0, data(7, 4 * MIB))
    await file.punch(PAGE, MIB + PAGE)
    await file.zero(3 * MIB, PAGE)
    expected = bytearray(data(7, 4 * MIB))
    expected[PAGE : MIB + 2 * PAGE] = bytes(MIB + PAGE)
    expected[3 * MIB : 3 * MIB + PAGE] = bytes(PAGE)
    assert content(file, 0, 4 * MIB) == expected


async def test_other_errors_of_punching_come_out(open_file: OpenFile) -> None:
    file = await open_file(failing=lambda error: Failing(error.errno))
    for future in (file.punch(0, 0), file.zero(0, 0)):
        with pytest.raises(Failing, match=str(errno.EINVAL)):
            await future


async def test_growing_counts_once_it_is_done(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    growing = file.resize(4 * MIB, allocate=True)
    assert file.size == MIB
    await held.run()
    await growing
    assert file.size == os.stat(file.path).st_size == 4 * MIB
    assert file.allocated_bytes() >= 4 * MIB
    assert file.write_now(4 * MIB - PAGE, data(7))
    assert file.warm(4 * MIB - PAGE, PAGE)


async def test_growing_that_fails_changes_nothing(open_file: OpenFile, file_size_limit: None) -> None:
    file = await open_file(size=MIB // 2)
    with pytest.raises(OSError, match="File too large"):
        await file.resize(MIB)
    assert file.size == os.stat(file.path).st_size == MIB // 2


async def test_room_is_what_the_file_system_has(open_file: OpenFile) -> None:
    file = await open_file()
    facts = os.statvfs(file.path)
    assert 0 < file.available_bytes() <= facts.f_blocks * facts.f_frsize


# -- beginning and end -------------------------------------------------------------------------------------------------


async def test_closing_waits_for_every_thread(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    into = memoryview(bytearray(PAGE))
    reading, syncing = file.read(0, into), file.sync()
    closing = asyncio.ensure_future(file.close())
    await turns()
    assert not closing.done()
    await held.run()
    assert reading.done()
    assert not closing.done()
    await held.run()
    await closing
    assert syncing.done()
    assert file.descriptor == -1


async def test_closing_lets_the_next_one_have_the_file(disk: Path, threads: ThreadPoolExecutor) -> None:
    budget = Writeback(PLENTY)
    for _ in range(2):
        file = await BlockFile.open(disk / "a", MIB, threads, budget)
        file.write_now(0, data(7))
        await file.close()
    assert (budget.dirty, budget.shares) == (0, set())


async def test_a_job_goes_on_when_nobody_waits_for_it(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    file.write(0, data(7)).cancel()
    await held.run()
    assert content(file, 0, PAGE) == data(7)


async def test_opening_that_is_cancelled_leaves_nothing_open(disk: Path, held: HeldThreads) -> None:
    opening = asyncio.ensure_future(BlockFile.open(disk / "a", MIB, held, Writeback(PLENTY)))
    await turns()
    opening.cancel()
    await turns()
    assert not opening.done()
    await held.run()
    with pytest.raises(asyncio.CancelledError):
        await opening
    with (disk / "a").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_opening_that_fails_after_it_was_cancelled_says_how(disk: Path, held: HeldThreads) -> None:
    opening = asyncio.ensure_future(BlockFile.open(disk, MIB, held, Writeback(PLENTY)))
    await turns()
    opening.cancel()
    await turns()
    await held.run()
    with pytest.raises(IsADirectoryError):
        await opening
