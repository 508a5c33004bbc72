"""A file system with an SQLite database on a LUN: the array is killed under load and every committed row is there."""

import selectors
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.lab import parts, transactions
from tests.lab.daemon import configuration
from tests.lab.fixtures import StartArray
from tests.lab.fuse import FuseDisk

pytestmark = [pytest.mark.external, pytest.mark.timeout(180)]

KILLS = 3
ROWS_BETWEEN_KILLS = 40
COMMIT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require_fuse()


class Workload:
    """transactions.py in a process of its own, and the last row that it says is committed."""

    def __init__(self, database: Path, first: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, transactions.__file__, str(database), str(first)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self.committed = first - 1

    def wait_for(self, rows: int) -> None:
        """Wait until ``rows`` more rows are committed."""
        wanted = self.committed + rows
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while self.committed < wanted:
                assert selector.select(max(0.0, deadline - time.monotonic())), f"no commit after {self.committed}"
                self._read_line()

    def _read_line(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip().isdigit(), f"the workload ended: {line + self._process.stdout.read()!r}"
        self.committed = int(line)

    def stop(self) -> None:
        """Kill it, and read what it had still said."""
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        assert self._process.stdout is not None
        with closing(self._process.stdout):
            said = self._process.stdout.read().split()
        self.committed = max([self.committed, *(int(number) for number in said if number.isdigit())])


@contextmanager
def workload(database: Path, first: int) -> Iterator[Workload]:
    """A running workload, stopped at the end."""
    running = Workload(database, first)
    try:
        yield running
    finally:
        running.stop()


def check_rows(database: Path, committed: int) -> int:
    """All rows up to ``committed`` are there, whole, with at most the one that was on its way; how many there are."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT number, payload FROM record ORDER BY number").fetchall()
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    assert all(content == transactions.payload(number) for number, content in rows)
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
        with workload(mounted / "records.db", 1) as load, disk.abandoned_on_error():
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
            with workload(mounted / "records.db", rows + 1) as load, disk.abandoned_on_error():
                load.wait_for(ROWS_BETWEEN_KILLS)
                array.kill()
                disk.abandon()
        array.start()
        with FuseDisk(tmp_path / f"next{attempt}", array) as disk:
            disk.mount(mounted)
            rows = check_rows(mounted / "records.db", load.committed)
            disk.unmount()
            disk.check_file_system()
