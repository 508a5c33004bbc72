"""A volume on a file: order where writes overlap, durability, failure that stays, space that is given back."""

import asyncio
import errno
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from arrayd.blockfile import kernel
from arrayd.volumes.file_volume import FileVolume, volume_error
from arrayd.volumes.volume import Extent, VolumeError, VolumeFailed, VolumeFull, VolumeReadOnly
from tests.lab.disk import MIB, HeldThreads, OpenFile, data, refused_when_cold, settled, turns

PAGE = kernel.PAGE_BYTES


def fails(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# -- reads -------------------------------------------------------------------------------------------------------------


async def test_a_warm_read_is_done_at_once_and_a_cold_one_later(open_file: OpenFile) -> None:
    file = await open_file(size=MIB)
    volume = FileVolume("1:data", file)
    assert volume.write(0, data(7, MIB)) is None
    into = memoryview(bytearray(PAGE))
    assert volume.read(PAGE, into) is None
    assert into == data(7)
    assert volume.warm_file(0, MIB) == file
    await refused_when_cold(file, lambda: volume.warm_file(0, MIB) is not None)
    pending: Awaitable[None] | None = None

    def read() -> bool:
        nonlocal pending
        into[:] = bytes(PAGE)
        pending = volume.read(512 * 1024, into)
        return pending is None

    await refused_when_cold(file, read)
    await settled(pending)
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


@pytest.mark.slow
async def test_many_that_wait_behind_a_failure_all_hear_of_it(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held, failing=volume_error)
    volume = FileVolume("1:data", file)
    first = volume.write_zeros(0, PAGE)
    # More than may call one another.
    waiting = [volume.write(0, data(7)) for _ in range(sys.getrecursionlimit() + 200)]
    file._syncs.fail(OSError(errno.EIO, "gone"))
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
    volume.resize(2 * MIB)
    assert volume.size == 2 * MIB
    assert volume.write_now(2 * MIB - PAGE, data(7))
    await volume.close()
