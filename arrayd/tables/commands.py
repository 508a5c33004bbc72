"""Commands that change something, and what became of them: what keeps them from being executed twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from arrayd.tables.changes import Work


class CommandRow(NamedTuple):
    """One command: its identification number `(host, epoch, counter)`, its process number, when it was taken or ended
    (seconds since 1970), the command device and slot it was written to, and what became of it, None while it runs."""

    host: bytes
    epoch: int
    counter: int
    process: int
    time: float
    device: str | None = None
    slot: int | None = None
    result: int | None = None
    edited: bytes | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """The primary key: unsigned 64-bit integers are text here."""
        return self.host.hex(), f"{self.epoch:016x}", f"{self.counter:016x}"


class MarkRow(NamedTuple):
    """A host: its commands up to `(epoch, counter)` are forgotten; when it was last heard of (seconds since 1970)."""

    host: bytes
    epoch: int
    counter: int
    time: float


class CommandTable:
    """`commands` and `command_hosts`; `rows` and `marks` are what was there when the tables were opened."""

    def __init__(self, change: Callable[[Work], Awaitable[None]], connection: sqlite3.Connection) -> None:
        self._change = change
        self.rows = [
            CommandRow(bytes.fromhex(host), int(epoch, 16), int(counter, 16), *rest)
            for host, epoch, counter, *rest in connection.execute("SELECT * FROM commands ORDER BY time")
        ]
        self.marks = [
            MarkRow(bytes.fromhex(host), int(epoch, 16), int(counter, 16), time)
            for host, epoch, counter, time in connection.execute("SELECT * FROM command_hosts")
        ]

    async def put(self, row: CommandRow, work: Work | None = None) -> None:
        """Keeps a command, and makes the change `work` together with it. Raises TablesError; then neither is done."""

        def change(connection: sqlite3.Connection) -> None:
            if work is not None:
                work(connection)
            connection.execute("INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row.key + row[3:])

        await self._change(change)

    async def forget(self, rows: Iterable[CommandRow], marks: Iterable[MarkRow], hosts: Iterable[bytes]) -> None:
        """Forgets commands, for which `marks` stand from now on, and hosts with their marks. Raises TablesError."""

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO command_hosts VALUES (?, ?, ?, ?)",
                [(mark.host.hex(), f"{mark.epoch:016x}", f"{mark.counter:016x}", mark.time) for mark in marks],
            )
            connection.executemany(
                "DELETE FROM commands WHERE host = ? AND epoch = ? AND counter = ?", [row.key for row in rows]
            )
            connection.executemany("DELETE FROM command_hosts WHERE host = ?", [(host.hex(),) for host in hosts])

        await self._change(change)
