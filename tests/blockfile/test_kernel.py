"""System calls that Python lacks, against the kernel itself."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from arrayd.blockfile import kernel

PAGE = kernel.PAGE_BYTES
SHM = Path("/dev/shm")


@pytest.fixture
def descriptor(disk: Path) -> int:
    """An empty file of 64 pages; the test process may leave it open, the folder goes away."""
    descriptor = os.open(disk / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 64 * PAGE)
    return descriptor


def test_a_call_that_fails_raises_what_the_system_says(descriptor: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        kernel.fallocate(descriptor, 0, 0, 0)
    os.close(descriptor)
    for call in (
        lambda: kernel.fallocate(descriptor, 0, 0, PAGE),
        lambda: kernel.write_back(descriptor),
        lambda: kernel.in_tmpfs(descriptor),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()


def test_extents_follow_the_data(descriptor: int) -> None:
    os.pwrite(descriptor, bytes(2 * PAGE), 4 * PAGE)
    os.pwrite(descriptor, bytes(PAGE), 63 * PAGE)
    whole = [
        (0, 4 * PAGE, False),
        (4 * PAGE, 2 * PAGE, True),
        (6 * PAGE, 57 * PAGE, False),
        (63 * PAGE, PAGE, True),
    ]
    assert kernel.extents(descriptor, 0, 64 * PAGE, 100) == whole
    assert kernel.extents(descriptor, 0, 64 * PAGE, 2) == whole[:2]
    assert kernel.extents(descriptor, 5 * PAGE, 7 * PAGE, 9) == [(5 * PAGE, PAGE, True), (6 * PAGE, PAGE, False)]
    assert kernel.extents(descriptor, 7 * PAGE, 8 * PAGE, 9) == [(7 * PAGE, PAGE, False)]


def test_of_a_part_in_memory_that_has_no_hole_nobody_looks_where_the_next_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To look for the next hole takes long if it is far away: a copy of a volume, part by part, took most of its time
    for that."""
    with NamedTemporaryFile(dir=SHM) as file:
        descriptor = file.fileno()
        os.ftruncate(descriptor, 8 * PAGE)
        os.pwrite(descriptor, b"x" * 4 * PAGE, PAGE)
        assert kernel.in_tmpfs(descriptor)
        with monkeypatch.context() as now:
            now.setattr(os, "lseek", None)
            assert kernel.extents(descriptor, PAGE, 5 * PAGE, 9) == [(PAGE, 4 * PAGE, True)]
            assert kernel.extents(descriptor, PAGE + 512, 2 * PAGE + 512, 9) == [(PAGE + 512, PAGE, True)]
        assert kernel.extents(descriptor, 4 * PAGE, 6 * PAGE, 9) == [(4 * PAGE, PAGE, True), (5 * PAGE, PAGE, False)]
        assert kernel.extents(descriptor, 6 * PAGE, 8 * PAGE, 9) == [(6 * PAGE, 2 * PAGE, False)]
        assert kernel.extents(descriptor, PAGE, PAGE, 9) == []


def test_dirty_pages_are_counted_until_they_are_written_back(descriptor: int) -> None:
    if kernel.dirty_bytes(descriptor) is None:
        assert tuple(map(int, os.uname().release.split(".")[:2])) < (6, 5)
        return
    assert kernel.dirty_bytes(descriptor) == 0
    os.pwrite(descriptor, bytes(3 * PAGE), 0)
    assert kernel.dirty_bytes(descriptor) == 3 * PAGE
    kernel.write_back(descriptor)
    assert kernel.dirty_bytes(descriptor) == 0


def test_residence_follows_what_is_in_memory(descriptor: int) -> None:
    residence = kernel.Residence(descriptor, 64 * PAGE)
    assert not residence.covers(0, PAGE)
    os.pwrite(descriptor, bytes(8 * PAGE), 8 * PAGE)
    assert residence.covers(8 * PAGE, 8 * PAGE)
    assert residence.covers(8 * PAGE + 512, 8 * PAGE - 512)
    assert not residence.covers(8 * PAGE, 8 * PAGE + 1)
    assert not residence.covers(8 * PAGE - 1, PAGE)
    residence.close()
    assert not residence.covers(8 * PAGE, PAGE)


def test_residence_ends_with_the_file(descriptor: int) -> None:
    residence = kernel.Residence(descriptor, 0)
    assert not residence.covers(0, PAGE)
    os.pwrite(descriptor, bytes(64 * PAGE), 0)
    residence.map(64 * PAGE)
    assert residence.covers(63 * PAGE, PAGE)
    assert not residence.covers(63 * PAGE, PAGE + 1)
    os.ftruncate(descriptor, 65 * PAGE)
    os.pwrite(descriptor, bytes(PAGE), 64 * PAGE)
    assert not residence.covers(64 * PAGE, PAGE)
    residence.map(65 * PAGE)
    assert residence.covers(63 * PAGE, 2 * PAGE)
    residence.close()


def test_pages_still_being_read_are_not_resident(disk: Path) -> None:
    """The kernel's readahead puts pages into the cache before their data is there: those make a reader sleep."""
    size = 16 * 1024 * 1024
    descriptor = os.open(disk / "large", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, os.urandom(size), 0)
    os.fsync(descriptor)
    residence = kernel.Residence(descriptor, size)
    for start in range(0, size, 1024 * 1024):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, start, 1024 * 1024, os.POSIX_FADV_WILLNEED)
        if residence.covers(start, 1024 * 1024):
            view = memoryview(bytearray(1024 * 1024))
            assert os.preadv(descriptor, (view,), start, os.RWF_NOWAIT) == len(view)
    residence.close()
    os.close(descriptor)


def test_a_file_without_address_space_counts_as_cold(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.pwrite(descriptor, bytes(PAGE), 0)
    residence = kernel.Residence(descriptor, 1 << 60)
    assert not residence.covers(0, PAGE)
    residence.close()


@pytest.mark.skipif(not SHM.is_dir(), reason="no /dev/shm")
def test_memory_and_disk_are_told_apart(descriptor: int) -> None:
    assert not kernel.in_tmpfs(descriptor)
    with (SHM / f"arrayd-test-{os.getpid()}").open("w") as file:
        os.unlink(file.name)
        assert kernel.in_tmpfs(file.fileno())


def test_control_groups_limit_what_may_be_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "high").write_text("max\n")
    (tmp_path / "low").write_text("1048576\n")
    assert kernel._limit(tmp_path / "high") == []
    assert kernel._limit(tmp_path / "low") == [1048576]
    assert kernel._limit(tmp_path / "none") == []
    free = kernel.dirty_limit()
    assert free > 0
    monkeypatch.setattr(kernel, "_cgroup_limits", lambda: [8 * 1024])
    assert kernel.dirty_limit() == 1024
