"""The event log, the newest EVENTS_MAX of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

EVENTS_MAX = 10_000


class EventRow(NamedTuple):
    """One event: its number, never used twice; when (seconds since 1970); `info`, `warning` or `error`; what it is
    about; one line for people; and details, as JSON text."""

    number: int
    time: float
    severity: str
    kind: str
    text: str
    details: str


class EventTable:
    """`events`; `rows` is what was there when the tables were opened, the oldest first, and `last` the last number that
    was used."""

    def __init__(
        self, change: Callable[[Callable[[sqlite3.Connection], None]], Awaitable[None]], connection: sqlite3.Connection
    ) -> None:
        self._change = change
        newest = connection.execute("SELECT * FROM events ORDER BY number DESC LIMIT ?", (EVENTS_MAX,))
        self.rows = [EventRow(*row) for row in newest][::-1]
        self.last = self.rows[-1].number if self.rows else 0

    async def add(self, rows: Sequence[EventRow]) -> None:
        """Keeps events, and forgets the oldest. Raises TablesError."""

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.execute("DELETE FROM events WHERE number <= ?", (rows[-1].number - EVENTS_MAX,))

        await self._change(change)
