"""A volume on a file: order where writes overlap, durability, failure that stays, space that is given back."""

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.blockfile import BlockFile, Writeback, kernel, writeback
from arrayd.volumes.file_volume import FileVolume, volume_error
from arrayd.volumes.volume import Extent, VolumeError, VolumeFailed, VolumeFull, VolumeReadOnly
from tests.lab.disk import MIB, PLENTY, HeldThreads, OpenFile, make_cold, turns

PAGE = kernel.PAGE_BYTES
BLOCK = 512
NO_GRANT = MIB - 1
"""A bound that lets nothing be written on the spot, and is not reached by what is written in threads."""


def data(byte: int, length: int = PAGE) -> memoryview:
    return memoryview(bytes([byte]) * length)


async def settled(pending: Awaitable[None] | None) -> None:
    if pending is not None:
        await pending


def fails(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# -- order -------------------------------------------------------------------------------------------------------------

BLOCKS = 24
SIZE = BLOCKS * BLOCK
RANGES = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 10)).map(
    lambda found: (found[0] * BLOCK, min(found[1], BLOCKS - found[0]) * BLOCK)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("write", "unmap", "zero", "add", "fast")), RANGES, st.integers(1, 255)),
        st.tuples(st.sampled_from(("durable", "pool")), RANGES, st.integers(1, 255)),
        st.tuples(st.just("run"), st.just((0, 0)), st.integers(0, 7)),
        st.tuples(st.just("turn"), st.just((0, 0)), st.integers(1, 3)),
    ),
    max_size=40,
)


class Ordered:
    """A volume whose threads are held back, and what it must hold in the end."""

    def __init__(self, volume: FileVolume, budget: Writeback, threads: HeldThreads) -> None:
        self.volume = volume
        self.budget = budget
        self.threads = threads
        self.expected = bytearray(SIZE)
        self.pending: list[asyncio.Future[None]] = []

    def wait_for(self, pending: Awaitable[None] | None) -> None:
        if pending is not None:
            self.pending.append(asyncio.ensure_future(pending))

    async def step(self, what: str, offset: int, length: int, number: int) -> None:
        """Does one thing; its effect on `expected` is there at once."""
        volume = self.volume
        place = slice(offset, offset + length)
        self.budget.limit = 0 if what == "pool" else PLENTY
        if what == "run":
            if self.threads.jobs:
                await self.threads.run(number % len(self.threads.jobs))
        elif what == "turn":
            await turns(number)
        elif what == "unmap":
            self.wait_for(volume.unmap(offset, length))
            self.expected[place] = bytes(length)
        elif what == "zero":
            self.wait_for(volume.write_zeros(offset, length))
            self.expected[place] = bytes(length)
        elif what == "add":
            self.wait_for(self.add(volume.lock(offset, length), offset, length))
            self.expected[place] = bytes((byte + 1) % 256 for byte in self.expected[place])
        else:
            view = data(number, length)
            if what != "fast" or not volume.write_now(offset, view):
                self.wait_for(volume.write(offset, view, what == "durable"))
            self.expected[place] = view

    async def add(self, lock: contextlib.AbstractAsyncContextManager[None], offset: int, length: int) -> None:
        """What COMPARE AND WRITE and ORWRITE do: read, change and write with nobody in between."""
        view = memoryview(bytearray(length))
        async with lock:
            await settled(self.volume.read(offset, view))
            view[:] = bytes((byte + 1) % 256 for byte in view)
            await settled(self.volume.write_under_lock(offset, view))

    async def finish(self) -> None:
        """Everything has ended well and the file is as expected."""
        while self.pending:
            await self.threads.run_all()
            self.pending = [pending for pending in self.pending if not (pending.done() and pending.result() is None)]
        assert self.volume.file.path.read_bytes() == self.expected
        assert not self.volume.locks


@pytest.mark.parametrize("write_cache", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(steps=STEPS)
def test_overlapping_writes_take_effect_in_the_order_of_their_calls(
    disk: Path, write_cache: bool, steps: list[tuple[str, tuple[int, int], int]]
) -> None:
    async def scenario(path: Path) -> None:
        budget, threads = Writeback(PLENTY), HeldThreads()
        with ThreadPoolExecutor(1) as real:
            file = await BlockFile.open(path, SIZE, real, budget, volume_error)
        file._executor = threads
        ordered = Ordered(FileVolume("1:data", file, write_cache=write_cache), budget, threads)
        for what, (offset, length), number in steps:
            await ordered.step(what, offset, length, number)
        await ordered.finish()
        await file.close()

    with (
        tempfile.TemporaryDirectory(dir=disk) as folder,
        mock.patch.object(writeback, "GRANT_BYTES", 1),
    ):
        asyncio.run(scenario(Path(folder) / "file"))


async def test_a_write_behind_one_that_is_under_way_waits_and_others_do_not(
    open_file: OpenFile, held: HeldThreads
) -> None:
    budget = Writeback(NO_GRANT)
    file = await open_file(executor=held, writeback=budget)
    volume = FileVolume("1:data", file)
    first = volume.write(0, data(1, 2 * PAGE))
    budget.limit = PLENTY
    second = volume.write(PAGE, data(2, 2 * PAGE))
    assert first is not None
    assert second is not None
    assert not volume.write_now(8 * PAGE, data(3))
    assert volume.write(8 * PAGE, data(3)) is None
    assert len(held.jobs) == 1
    await held.run_all()
    await asyncio.gather(asyncio.ensure_future(first), asyncio.ensure_future(second))
    assert file.path.read_bytes()[: 3 * PAGE] == bytes(data(1)) + data(2, 2 * PAGE)
    assert volume.write_now(8 * PAGE, data(4))


async def test_giving_up_does_not_give_up_the_place(open_file: OpenFile, held: HeldThreads) -> None:
    """Whoever waits may be cancelled; the thread is at work all the same, and the next write waits for it."""
    budget = Writeback(NO_GRANT)
    file = await open_file(executor=held, writeback=budget)
    volume = FileVolume("1:data", file)
    first = asyncio.ensure_future(settled(volume.write(0, data(1))))
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    second = volume.write(0, data(2))
    assert second is not None
    assert len(held.jobs) == 1
    await held.run_all()
    await second
    assert file.path.read_bytes()[:PAGE] == data(2)


async def test_who_holds_a_lock_and_is_cancelled_holds_it_until_its_thread_has_ended(
    open_file: OpenFile, held: HeldThreads
) -> None:
    file = await open_file(executor=held, writeback=Writeback(NO_GRANT))
    volume = FileVolume("1:data", file)

    async def work() -> None:
        async with volume.lock(0, PAGE):
            await settled(volume.write_under_lock(0, data(1)))

    working = asyncio.ensure_future(work())
    await turns()
    working.cancel()
    await turns()
    working.cancel()
    await turns()
    assert (working.done(), len(held.jobs), bool(volume.locks)) == (False, 1, True)
    await held.run_all()
    assert (working.cancelled(), bool(volume.locks)) == (True, False)


# -- reads -------------------------------------------------------------------------------------------------------------


async def test_a_warm_read_is_done_at_once_and_a_cold_one_later(open_file: OpenFile) -> None:
    file = await open_file(size=MIB)
    volume = FileVolume("1:data", file)
    assert volume.write(0, data(7, MIB)) is None
    into = memoryview(bytearray(PAGE))
    assert volume.read(PAGE, into) is None
    assert into == data(7)
    assert volume.warm_file(0, MIB) == file.send
    await make_cold(file)
    assert volume.warm_file(0, MIB) is None
    into[:] = bytes(PAGE)
    pending = volume.read(512 * 1024, into)
    assert pending is not None
    await pending
    assert into == data(7)


# -- durability --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write_cache", "durable"), [(False, False), (True, True)])
async def test_a_durable_write_is_answered_after_a_sync_that_began_after_it(
    open_file: OpenFile, held: HeldThreads, monkeypatch: pytest.MonkeyPatch, write_cache: bool, durable: bool
) -> None:
    file = await open_file(executor=held)
    volume = FileVolume("1:data", file, write_cache=write_cache)
    seen: list[bytes] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: seen.append(os.pread(descriptor, 1, 0)))
    if not write_cache:
        assert not volume.write_now(0, data(7))
    first = asyncio.ensure_future(settled(volume.write(0, data(7), durable)))
    await turns()
    second = asyncio.ensure_future(settled(volume.write(0, data(8), durable)))
    await turns()
    await held.run()
    assert (first.done(), second.done()) == (True, False)
    await held.run()
    assert second.done()
    assert len(seen) == 2
    assert held.jobs == []


@pytest.mark.parametrize("what", ["write", "unmap", "write_zeros", "write_under_lock"])
async def test_without_a_write_cache_everything_is_synced(
    open_file: OpenFile, held: HeldThreads, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    file = await open_file(executor=held)
    volume = FileVolume("1:data", file, write_cache=False)
    call = getattr(volume, what)
    pending = asyncio.ensure_future(call(0, PAGE if what in ("unmap", "write_zeros") else data(7)))
    await held.run_all()
    assert pending.done()
    assert syncs == [file.descriptor]


async def test_a_failed_sync_fails_the_volume_for_good(
    open_file: OpenFile, held: HeldThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await open_file(executor=held, failing=volume_error)
    volume = FileVolume("1:data", file)
    assert volume.write_now(0, data(7))
    durable = volume.write(PAGE, data(7), durable=True)
    under_way = volume.unmap(2 * PAGE, PAGE)
    behind = volume.write(2 * PAGE, data(7))
    flush = volume.flush()
    await turns()
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", fails)
        # The job of unmap is the first, the sync the second: the write behind the unmap is not begun any more.
        await held.run(1)
    await held.run_all()
    assert under_way is not None
    await under_way
    for pending in (durable, behind, flush, volume.flush()):
        assert pending is not None
        with pytest.raises(VolumeFailed, match="Input/output error"):
            await pending
    refusals: tuple[Callable[[], object], ...] = (
        lambda: volume.write(0, data(8)),
        lambda: volume.write(0, data(8), True),
        lambda: volume.write_under_lock(0, data(8)),
        lambda: volume.unmap(0, PAGE),
        lambda: volume.write_zeros(0, PAGE),
    )
    for refused in refusals:
        with pytest.raises(VolumeFailed, match="Input/output error"):
            refused()
    assert not volume.write_now(0, data(8))
    into = memoryview(bytearray(PAGE))
    assert volume.read(0, into) is None
    assert into == data(7)
    assert not volume.locks


async def test_many_that_wait_behind_a_failure_all_hear_of_it(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held, failing=volume_error)
    volume = FileVolume("1:data", file)
    first = volume.write_zeros(0, PAGE)
    waiting = [volume.write(0, data(7)) for _ in range(3000)]
    file._fail(OSError(errno.EIO, "gone"))
    await held.run_all()
    async with asyncio.timeout(20):
        while volume.locks:
            await turns()
    assert first is not None
    await first
    for pending in waiting:
        assert pending is not None
        with pytest.raises(VolumeFailed, match="gone"):
            await pending


# -- what is refused, and space ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_a_full_disk_is_told_from_a_broken_one(code: int) -> None:
    assert isinstance(volume_error(OSError(code, os.strerror(code))), VolumeFull)
    error = volume_error(OSError(errno.EIO, os.strerror(errno.EIO)))
    assert isinstance(error, VolumeFailed)
    assert isinstance(error, VolumeError)


async def test_a_full_disk_fails_a_write_and_nothing_else(open_file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file = await open_file(failing=volume_error)
    volume = FileVolume("1:data", file)
    await settled(volume.write(0, data(7)))
    real = os.pwrite

    def pwrite(descriptor: int, view: memoryview, offset: int) -> int:
        """Room for one page more."""
        if offset >= 2 * PAGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, view[: 2 * PAGE - offset], offset)

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", pwrite)
        other = FileVolume("1:data", file)
        file.write_now = other.write_now = file._make_write_now()
        for durable in (False, True):
            with pytest.raises(VolumeFull, match="No space left"):
                await settled(other.write(PAGE, data(8, 4 * PAGE), durable))
    into = memoryview(bytearray(PAGE))
    await settled(volume.read(0, into))
    assert into == data(7)
    await settled(volume.write(0, data(9)))
    await settled(volume.flush())
    assert file.path.read_bytes()[:PAGE] == data(9)


async def test_a_read_only_volume_refuses_every_change(open_file: OpenFile) -> None:
    volume = FileVolume("1:data", await open_file(), read_only=True)
    assert not volume.write_now(0, data(7))
    refusals: tuple[Callable[[], object], ...] = (
        lambda: volume.write(0, data(8)),
        lambda: volume.write_under_lock(0, data(8)),
        lambda: volume.unmap(0, PAGE),
        lambda: volume.write_zeros(0, PAGE),
    )
    for refused in refusals:
        with pytest.raises(VolumeReadOnly):
            refused()


async def test_unmapping_frees_disk_and_reads_as_zeros(open_file: OpenFile) -> None:
    volume = FileVolume("1:data", await open_file(size=8 * MIB))
    await settled(volume.write(0, data(7, 8 * MIB)))
    await settled(volume.flush())
    before = volume.allocated_bytes()
    await settled(volume.unmap(MIB, 6 * MIB))
    assert volume.allocated_bytes() <= before - 6 * MIB
    assert await volume.extents(0, 8 * MIB, 9) == [
        Extent(0, MIB, True),
        Extent(MIB, 6 * MIB, False),
        Extent(7 * MIB, MIB, True),
    ]
    into = memoryview(bytearray(6 * MIB))
    await settled(volume.read(MIB, into))
    assert into == bytes(6 * MIB)


async def test_a_thick_volume_keeps_its_disk(open_file: OpenFile) -> None:
    volume = FileVolume("1:data", await open_file(size=4 * MIB, allocate=True), thin=False)
    await settled(volume.write(0, data(7, 4 * MIB)))
    await settled(volume.unmap(0, 4 * MIB))
    assert volume.allocated_bytes() >= 4 * MIB
    assert volume.file.path.read_bytes() == bytes(4 * MIB)
    await volume.reserve(8 * MIB)
    assert volume.allocated_bytes() >= 8 * MIB
    assert volume.available_bytes() > 0


async def test_a_volume_grows(open_file: OpenFile, disk: Path) -> None:
    volume = FileVolume("1:data", await open_file(size=MIB))
    await volume.reserve(2 * MIB)
    assert volume.size == MIB
    volume.resize()
    assert volume.size == 2 * MIB
    assert volume.write_now(2 * MIB - PAGE, data(7))
    await volume.close()
