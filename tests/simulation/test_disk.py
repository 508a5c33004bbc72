"""What a power loss leaves of files, and what a kill does."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.block_doors import BlockDoors
from tests.simulation.disk import PAGE_BYTES, SECTOR_BYTES, Disk
from tests.simulation.doors import Killed, Life, Plan
from tests.simulation.loop import SimLoop
from tests.simulation.trace import Lines

PAGES = 4
WRITES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, PAGES * 8 - 1), st.integers(1, 16)), st.just("sync")
    ), max_size=12,
)  # fmt: skip


class Part:
    """A disk and a life that writes to it."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.disk = Disk(folder, Random(seed))
        self.doors = BlockDoors(lambda _life: self.disk)
        self.begin()

    def begin(self) -> None:
        loop = SimLoop(1.0)
        loop.close()
        self.life = Life("near", 1, Random(1), Lines(loop.time), self.doors.forget)

    def open(self, name: str = "a.img", size: int = PAGES * PAGE_BYTES) -> int:
        def opening() -> int:
            descriptor = self.doors.open(self.folder / name, os.O_RDWR | os.O_CREAT)
            if self.doors.fstat(descriptor).st_size < size:
                self.doors.ftruncate(descriptor, size)
                self.doors.fsync(descriptor)
                self.sync_folder()
            return descriptor

        return self.life.run(opening)

    def sync_folder(self) -> None:
        descriptor = self.doors.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self.doors.fsync(descriptor)
        self.doors.close(descriptor)

    def end(self, power: bool) -> None:
        self.life.kill("at rest", power)
        self.disk.restart(power)


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    part = Part(tmp_path)
    yield part
    part.disk.close()


@settings(max_examples=60, deadline=None)
@given(WRITES, st.integers(0, 1000))
def test_a_power_loss_keeps_what_was_synced_and_of_the_rest_old_or_new_sectors(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int] | str], seed: int
) -> None:
    part = Part(tmp_path_factory.mktemp("disk"), seed)
    descriptor = part.open()
    may_be = [{0} for _ in range(PAGES * 8)]
    for number, write in enumerate(writes, 1):
        if isinstance(write, str):
            part.doors.fdatasync(descriptor)
            may_be = [{max(each)} for each in may_be]
            continue
        first, count = write[0], min(write[1], PAGES * 8 - write[0])
        part.doors.pwrite(descriptor, bytes([number]) * (count * SECTOR_BYTES), first * SECTOR_BYTES)
        for sector in range(first, first + count):
            may_be[sector] = may_be[sector] | {number}
    part.end(power=True)
    data = (part.folder / "a.img").read_bytes()
    for sector, numbers in enumerate(may_be):
        found = data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]
        assert len(set(found)) == 1
        assert found[0] in numbers
    part.disk.close()


def test_a_power_loss_loses_something(tmp_path: Path) -> None:
    kept = set()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        part = Part(folder, seed)
        part.doors.pwrite(part.open(), b"x" * PAGE_BYTES, 0)
        part.end(power=True)
        kept.add((folder / "a.img").read_bytes().count(b"x") // SECTOR_BYTES)
        part.disk.close()
    assert {0, 8} < kept


def test_a_kill_loses_nothing(part: Part) -> None:
    part.doors.pwrite(part.open(), b"x" * PAGE_BYTES, 0)
    part.end(power=False)
    assert (part.folder / "a.img").read_bytes()[:PAGE_BYTES] == b"x" * PAGE_BYTES


def test_a_kill_in_the_middle_of_a_write_leaves_its_beginning(part: Part) -> None:
    descriptor = part.open()
    part.life.plan = Plan(2, "write")
    with pytest.raises(Killed):
        part.doors.pwrite(descriptor, b"x" * (2 * PAGE_BYTES), 0)
    assert (part.folder / "a.img").read_bytes().count(b"x") == PAGE_BYTES


def test_a_failed_sync_is_never_made_good(tmp_path: Path) -> None:
    kept = set()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        part = Part(folder, seed)
        descriptor = part.open()
        part.doors.pwrite(descriptor, b"x" * PAGE_BYTES, 0)
        part.disk.failing_syncs = 1
        with pytest.raises(OSError, match="Input/output"):
            part.doors.fdatasync(descriptor)
        part.doors.fdatasync(descriptor)
        part.end(power=False)
        kept.add((folder / "a.img").read_bytes().count(b"x") // SECTOR_BYTES)
        part.disk.close()
    assert 0 in kept


def test_a_name_that_was_not_synced_may_be_lost(tmp_path: Path) -> None:
    there = set()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        part = Part(folder, seed)
        part.open("a.img")
        (folder / "a.img").rename(folder / "b.img")
        part.end(power=True)
        there |= {path.name for path in folder.iterdir()}
        assert len(list(folder.iterdir())) == 1
        part.disk.close()
    assert there == {"a.img", "b.img"}


def test_a_dead_life_reaches_no_file_and_leaves_no_lock(part: Part) -> None:
    old = part.open()
    part.doors.flock(old, 0)
    part.life.kill("at rest", False)
    for call in (lambda: part.doors.close(old), lambda: part.doors.pwrite(old, b"x", 0)):
        with pytest.raises(Killed):
            call()
    part.begin()
    new = part.open()
    part.doors.flock(new, 0)
    with pytest.raises(BlockingIOError):
        part.doors.flock(part.open(), 0)


def test_a_disk_is_full_on_demand(part: Part) -> None:
    descriptor = part.open()
    part.disk.full = True
    codes = set()
    for _ in range(20):
        with suppress(OSError):
            part.doors.pwrite(descriptor, b"x", 0)
            continue
        codes.add(errno.ENOSPC)
    assert codes == {errno.ENOSPC}
