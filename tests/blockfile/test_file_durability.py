"""One file: what a sync promises, disk that is given back and grown, and how a file is opened and closed."""

import asyncio
import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arrayd.blockfile import BlockFile, Writeback, kernel
from tests.lab.disk import MIB, PLENTY, Failing, HeldThreads, OpenFile, content, data, turns

PAGE = kernel.PAGE_BYTES


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
