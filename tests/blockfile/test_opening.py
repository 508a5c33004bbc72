"""Files are made, locked and grown as the configuration says, or one line says why not."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arrayd.blockfile import opening

MIB = 1024 * 1024


def make(path: Path, size: int = MIB, allocate: bool = False, read_only: bool = False) -> int:
    """Opens and closes; how many bytes of disk the file takes."""
    descriptor = opening.open_file(path, size, allocate, read_only)
    facts = os.fstat(descriptor)
    os.close(descriptor)
    assert facts.st_size == size
    return facts.st_blocks * 512


def test_a_new_file_is_sparse_and_private(disk: Path) -> None:
    assert make(disk / "a", 64 * MIB) == 0
    assert (disk / "a").stat().st_mode & 0o777 == 0o600


def test_a_thick_file_has_all_its_disk(disk: Path) -> None:
    assert make(disk / "a", 8 * MIB, allocate=True) >= 8 * MIB


def test_a_file_keeps_its_data_and_grows(disk: Path) -> None:
    (disk / "a").write_bytes(b"data")
    make(disk / "a")
    assert (disk / "a").read_bytes() == b"data" + bytes(MIB - 4)


def test_a_file_is_never_cut(disk: Path) -> None:
    (disk / "a").write_bytes(bytes(2 * MIB))
    with pytest.raises(OSError, match=f"holds {2 * MIB} bytes, and the size wanted is {MIB}: a volume is not cut"):
        make(disk / "a")
    assert (disk / "a").stat().st_size == 2 * MIB


def test_a_file_has_one_user(disk: Path) -> None:
    descriptor = opening.open_file(disk / "a", MIB, False, False)
    with pytest.raises(OSError, match="in use by another process, or by another volume"):
        make(disk / "a")
    os.close(descriptor)
    make(disk / "a")


def test_folders_are_made_on_the_way(disk: Path) -> None:
    make(disk / "one" / "two" / "a")
    assert (disk / "one" / "two" / "a").exists()


def test_what_is_no_file_is_refused(disk: Path) -> None:
    os.mkfifo(disk / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        make(disk / "fifo")
    with pytest.raises(IsADirectoryError):
        make(disk)
    with pytest.raises(NotADirectoryError):
        make(Path("/dev/null") / "a")


def test_a_read_only_file_is_opened_for_reading_only(disk: Path) -> None:
    (disk / "a").write_bytes(bytes(MIB))
    descriptor = opening.open_file(disk / "a", MIB, False, True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(descriptor, b"x", 0)
    os.close(descriptor)


def test_a_read_only_file_is_not_grown(disk: Path) -> None:
    (disk / "a").write_bytes(b"short")
    with pytest.raises(OSError, match="holds 5 bytes, and the size wanted is 1048576: it is read-only, and not grown"):
        make(disk / "a", read_only=True)
    assert (disk / "a").read_bytes() == b"short"


def test_a_read_only_file_that_is_not_there_is_made(disk: Path) -> None:
    make(disk / "a", read_only=True)
    make(disk / "a", read_only=True)


def test_a_new_file_is_synced_with_the_folders_above_it(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    make(disk / "new" / "a")
    assert set(synced) == {str(disk), str(disk / "new"), str(disk / "new" / "a")}


def test_many_volumes_in_one_new_folder(disk: Path) -> None:
    start = threading.Barrier(8)

    def one(number: int) -> int:
        start.wait()
        return make(disk / "new" / "er" / str(number))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [0] * 8
