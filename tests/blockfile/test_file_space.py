"""One file: disk that is given back and grown, and how a file is opened and closed."""

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
