"""A file system with an SQLite database on a LUN: the array is killed under load and every committed row is there."""

from pathlib import Path

import pytest

from tests.lab import parts
from tests.lab.daemon import configuration
from tests.lab.fixtures import StartArray
from tests.lab.fuse import FuseDisk
from tests.lab.workload import rows_of, workload

pytestmark = [pytest.mark.external, pytest.mark.timeout(180)]

KILLS = 3
ROWS_BETWEEN_KILLS = 40


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require_fuse()


def check_rows(database: Path, committed: int) -> int:
    """All rows up to ``committed`` are there, whole, with at most the one that was on its way; how many there are."""
    rows = rows_of(database)
    assert rows == list(range(1, len(rows) + 1))
    assert committed <= len(rows) <= committed + 1
    return len(rows)


@pytest.mark.parametrize("write_cache", [True, False], ids=["write-cache", "write-through"])
def test_rows_survive_kills_of_the_array_under_load(tmp_path: Path, start_array: StartArray, write_cache: bool) -> None:
    """The host stays up: its writes wait until the array is back, and nothing is lost or done twice."""
    array = start_array(configuration({"data": {"size": "256MiB", "write_cache": write_cache}}))
    mounted = tmp_path / "mounted"
    with FuseDisk(tmp_path / "export", array) as disk:
        disk.make_file_system()
        disk.mount(mounted)
        with workload(1, mounted / "records.db") as load, disk.abandoned_on_error():
            load.wait_for(ROWS_BETWEEN_KILLS)
            for _ in range(KILLS):
                array.kill()
                array.start()
                load.wait_for(ROWS_BETWEEN_KILLS)
    # Another export, so that nothing is read from this machine's caches.
    with FuseDisk(tmp_path / "next", array) as disk:
        disk.mount(mounted)
        check_rows(mounted / "records.db", load.committed)
        disk.unmount()
        disk.check_file_system()


def test_rows_survive_when_the_host_goes_down_with_the_array(tmp_path: Path, start_array: StartArray) -> None:
    """Array and host die at once; what was committed is read from the file system's journal by the next host."""
    array = start_array(configuration({"data": {"size": "256MiB"}}))
    mounted = tmp_path / "mounted"
    with FuseDisk(tmp_path / "first", array) as disk:
        disk.make_file_system()
        disk.mount(mounted)
    rows = 0
    for attempt in range(KILLS):
        with FuseDisk(tmp_path / f"host{attempt}", array) as disk:
            disk.mount(mounted)
            with workload(rows + 1, mounted / "records.db") as load, disk.abandoned_on_error():
                load.wait_for(ROWS_BETWEEN_KILLS)
                array.kill()
                disk.abandon()
        array.start()
        with FuseDisk(tmp_path / f"next{attempt}", array) as disk:
            disk.mount(mounted)
            rows = check_rows(mounted / "records.db", load.committed)
            disk.unmount()
            disk.check_file_system()
