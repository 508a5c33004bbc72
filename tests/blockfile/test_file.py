"""One file: what is done on the spot, what goes to a thread, and the bound on what is not yet on the disk."""

import asyncio
import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from arrayd.blockfile import BlockFile, Writeback, kernel
from arrayd.blockfile.file import WRITE_BYTES
from tests.lab.disk import MIB, Failing, HeldThreads, OpenFile, content, data, make_cold, refused_when_cold, turns

PAGE = kernel.PAGE_BYTES
SHM = Path("/dev/shm")


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
    into = memoryview(bytearray(8 * PAGE))
    await make_cold(file)
    assert not file.warm(0, 8 * PAGE)
    await refused_when_cold(file, lambda: file.read_now(0, into))
    await file.read(0, into)
    assert into == data(7, 8 * PAGE)
    into[:] = bytes(8 * PAGE)
    assert file.read_now(0, into)
    assert into == data(7, 8 * PAGE)
    assert file.warm(0, 8 * PAGE)


async def test_a_read_that_is_warm_in_part_is_not_done_on_the_spot(open_file: OpenFile) -> None:
    file = await open_file(size=MIB)
    assert file.write_now(0, data(7, MIB))
    for probe in (True, False):
        await make_cold(file)  # before each: one that is refused has the kernel begin to read
        assert file.write_now(0, data(8))
        assert not (file.warm(0, MIB) if probe else file.read_now(0, memoryview(bytearray(MIB))))


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
        await refused_when_cold(file, partial(file.write_now, offset, data(7, length)))
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


async def test_large_writes_go_in_pieces(open_file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the page cache makes folios of them that are slow to write into, block by block."""
    lengths: list[int] = []
    real = os.pwrite

    def pwrite(descriptor: int, view: memoryview, offset: int) -> int:
        lengths.append(len(view))
        return real(descriptor, view[: 20 * PAGE], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    file = await open_file(size=4 * MIB)
    pattern = memoryview(os.urandom(MIB + PAGE))
    assert file.write_now(PAGE, pattern)
    await file.write(2 * MIB, pattern)
    assert content(file, PAGE, len(pattern)) == content(file, 2 * MIB, len(pattern)) == pattern
    assert max(lengths) == WRITE_BYTES
