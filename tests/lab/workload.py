"""Databases that are written to while a test takes away what they are on, and the rows that are in SQLite's."""

import selectors
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.lab import transactions

COMMIT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class Workload:
    """A process that commits transactions, numbered from ``first`` on, and the last one that it says is committed: a
    line of its unbuffered pipe each."""

    def __init__(self, first: int, process: subprocess.Popen[bytes]) -> None:
        self._process = process
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
            said = self._process.stdout.read().splitlines()
        self.committed = max([self.committed, *(int(line) for line in said if line.strip().isdigit())])


@contextmanager
def workload(first: int, *databases: Path) -> Iterator[Workload]:
    """transactions.py, which is stopped at the end: rows from `first` on, each to the next database in turn."""
    running = Workload(
        first,
        subprocess.Popen(
            [sys.executable, transactions.__file__, str(first), *map(str, databases)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ),
    )
    try:
        yield running
    finally:
        running.stop()


def rows_of(database: Path) -> list[int]:
    """The numbers of its rows, in order, each of which is whole; SQLite finds nothing wrong with it."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT number, payload FROM record ORDER BY number").fetchall()
    assert all(content == transactions.payload(number) for number, content in rows)
    return [number for number, _ in rows]
