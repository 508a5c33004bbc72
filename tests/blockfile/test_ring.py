"""Cold reads and syncs by io_uring: all of them end, each in its own way; without a ring, threads do it."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from arrayd.blockfile import Ring, kernel, ring
from arrayd.blockfile.file import WARY_READS
from arrayd.blockfile.syncs import GROUP
from tests.lab.disk import Failing, OpenFile, buffers, data, make_cold, refused_when_cold

PAGE = 4096


@pytest.fixture
async def a_ring() -> AsyncIterator[Ring]:
    made = Ring.or_none()
    if made is None:
        pytest.skip("needs io_uring: the kernel is too old, or does not let us")
    yield made
    made.close()


async def test_every_read_gets_its_own_data(open_file: OpenFile, a_ring: Ring) -> None:
    """More of them than the ring has room for, of two files."""
    files = [await open_file(size=256 * PAGE, name=name, ring=a_ring) for name in ("a", "b")]
    for file_number, file in enumerate(files):
        for number in range(256):
            file.write_now(number * PAGE, data(number ^ file_number))
        await make_cold(file)
    assert ring.ENTRIES < 512
    views = buffers(512)
    wanted = [(at, number) for at in range(2) for number in reversed(range(256))]
    reads = [files[at].read(number * PAGE, view) for (at, number), view in zip(wanted, views, strict=True)]
    await asyncio.gather(*reads)
    assert all(view == data(number ^ at) for (at, number), view in zip(wanted, views, strict=True))


async def test_one_that_fails_fails_alone(open_file: OpenFile, a_ring: Ring) -> None:
    """The last is there in part only: what is missing is an error, and no silence."""
    file = await open_file(size=4 * PAGE, failing=lambda error: Failing(error.errno), ring=a_ring)
    file.write_now(0, data(7, 4 * PAGE))
    os.truncate(file.path, 2 * PAGE)
    views = [memoryview(bytearray(length)) for length in (PAGE, PAGE, 2 * PAGE)]
    results = await asyncio.gather(
        *(file.read(offset, view) for offset, view in zip((0, 3 * PAGE, PAGE), views, strict=True)),
        return_exceptions=True,
    )
    assert [str(result) for result in results] == ["None", str(errno.EIO), str(errno.EIO)]
    assert views[0] == data(7)


async def test_memory_stays_pinned_until_the_read_has_ended(open_file: OpenFile, a_ring: Ring) -> None:
    file = await open_file(ring=a_ring)
    memory = bytearray(PAGE)
    read = file.read(0, memoryview(memory))
    with pytest.raises(BufferError):
        memory.clear()
    await read
    memory.clear()


async def test_a_read_that_nobody_waits_for_any_more_ends_all_the_same(open_file: OpenFile, a_ring: Ring) -> None:
    file = await open_file(ring=a_ring)
    file.write_now(0, data(3))
    (view,) = buffers(1)
    read = file.read(0, view)
    read.cancel()
    await file.close()
    assert view == data(3)


async def test_what_the_kernel_would_not_hear_of_is_told_again(
    open_file: OpenFile, a_ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await open_file(ring=a_ring)
    file.write_now(0, data(3))
    call = kernel.system_call
    refused: list[tuple[int, float]] = []

    def refusing(number: int, *arguments: object) -> int:
        if len(refused) < 3:
            refused.append((number, file.loop.time()))
            raise OSError(errno.EAGAIN, "not now")
        return call(number, *arguments)

    monkeypatch.setattr(kernel, "system_call", refusing)
    views = buffers(ring.ENTRIES + 8)
    await asyncio.gather(*(file.read(0, view) for view in views))
    assert all(view == data(3) for view in views)
    assert [number for number, _ in refused] == [ring.ENTER_SYSCALL] * 3
    # Not before it is time, though some wait for room in the ring: the loop has other things to do. (It counts in ms.)
    assert refused[-1][1] - refused[0][1] >= 2 * ring.RETRY_SECONDS - 0.003


async def test_beside_others_the_loop_looks_before_it_tries(open_file: OpenFile, a_ring: Ring) -> None:
    """To try makes the kernel begin to read: that is the ring's part."""
    file = await open_file(size=1024 * PAGE, ring=a_ring)
    far = 900 * PAGE  # beyond what the kernel reads ahead
    file.write_now(0, data(5, 1024 * PAGE))
    other, view = buffers(2)
    reads = []

    def refused_beside_another() -> bool:
        reads.append(file.read(500 * PAGE, other))
        return bool(file.read_now(0, view))

    await refused_when_cold(file, refused_beside_another)
    assert file.wary == WARY_READS
    assert not file.read_now(far, view)
    assert not file.warm(far, PAGE)
    await asyncio.gather(*reads, file.read(far, view))
    assert other == view == data(5)
    for left in reversed(range(WARY_READS)):
        assert file.read_now(far, view)
        assert file.wary == left
    assert file.read_now(far, view)
    assert file.wary == 0


@pytest.mark.parametrize("with_ring", [True, False])
async def test_nobody_is_wary_alone_or_without_a_ring(open_file: OpenFile, a_ring: Ring, with_ring: bool) -> None:
    """One that comes alone is begun where it is tried."""
    file = await open_file(size=PAGE, ring=a_ring if with_ring else None)
    file.write_now(0, data(5))
    (view,) = buffers(1)
    await refused_when_cold(file, lambda: file.read_now(0, view))
    assert file.wary == 0
    await file.read(0, view)
    assert view == data(5)


async def test_a_sync_is_begun_at_once_and_ends_by_itself(
    open_file: OpenFile, a_ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else calls fdatasync, and what was written is clean afterwards."""
    monkeypatch.setattr(os, "fdatasync", None)
    file = await open_file(ring=a_ring)
    file.write_now(0, data(3, 64 * PAGE))
    assert kernel.dirty_bytes(file.descriptor) in (64 * PAGE, None)
    under_way = [file.commit() for _ in range(GROUP)]
    assert a_ring.busy
    await asyncio.gather(*under_way)
    assert kernel.dirty_bytes(file.descriptor) in (0, None)
    assert not a_ring.busy


async def test_a_sync_that_fails_says_so_once_and_the_ring_goes_on(open_file: OpenFile, a_ring: Ring) -> None:
    """A pipe cannot be synced."""
    ends = os.pipe()
    failed: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    a_ring.sync(ends[0], failed.set_result)
    error = await failed
    assert error is not None
    assert error.errno == errno.EINVAL
    for end in ends:
        os.close(end)
    file = await open_file(ring=a_ring)
    await file.sync()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refusal(number: int) -> Callable[..., int]:
    def refusing(asked: int, *_: object) -> int:
        if asked == number:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return real(asked, *_)

    real = kernel.system_call
    return refusing


@pytest.mark.parametrize("number", [ring.SETUP_SYSCALL, ring.REGISTER_SYSCALL, ring.ENTER_SYSCALL])
async def test_where_it_is_forbidden_there_is_none(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()
    monkeypatch.setattr(kernel, "system_call", refusal(number))
    assert Ring.or_none() is None
    assert open_descriptors() == before
