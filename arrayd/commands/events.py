"""The event log: what an operator wants to know afterwards. An event is there at once, and durable a little later."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from arrayd.log import get_logger
from arrayd.tables import EventRow, EventTable, TablesError
from arrayd.tables.events import EVENTS_MAX

TEXT_CHARACTERS_MAX = 500
DETAILS_BYTES_MAX = 1024
UNSAVED_MAX = 1024
"""Events that wait to be durable; beyond it the oldest are lost by a restart."""

log = get_logger("events")


class Events:
    """The newest events, of this life and those before; `clock()` is the time in seconds since 1970."""

    def __init__(self, table: EventTable, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._rows = deque(table.rows, EVENTS_MAX)
        self.last = table.last + (UNSAVED_MAX if table.last else 0)
        """Number of the newest event. Those that were not durable when the array was stopped had numbers, too."""
        self._unsaved: deque[EventRow] = deque(maxlen=UNSAVED_MAX)
        self._saving: asyncio.Task[None] | None = None

    def add(self, severity: str, kind: str, text: str, **details: Any) -> None:
        """Something happened: `severity` is `info`, `warning` or `error`; `kind` says what it is about."""
        self.last += 1
        told = json.dumps(details)
        row = EventRow(
            self.last,
            self._clock(),
            severity,
            kind,
            text[:TEXT_CHARACTERS_MAX],
            told if len(told) <= DETAILS_BYTES_MAX else "{}",
        )
        self._rows.append(row)
        self._unsaved.append(row)
        if self._saving is None or self._saving.done():
            self._saving = asyncio.ensure_future(self._save())

    @property
    def errors(self) -> int:
        """How many of them are errors."""
        return sum(row.severity == "error" for row in self._rows)

    def newest(self, limit: int) -> list[EventRow]:
        """The newest `limit` events, the oldest first."""
        return list(self._rows)[-limit:]

    def after(self, number: int, limit: int) -> list[EventRow]:
        """The first `limit` events behind `number`, the oldest first."""
        found: list[EventRow] = []
        for row in reversed(self._rows):
            if row.number <= number:
                break
            found.append(row)
        return found[::-1][:limit]

    async def _save(self) -> None:
        while self._unsaved:
            rows = list(self._unsaved)
            self._unsaved.clear()
            try:
                await self._table.add(rows)
            except TablesError as error:
                log.error("events could not be kept", count=len(rows), reason=str(error))

    async def stop(self) -> None:
        """Waits until every event is durable."""
        if self._saving is not None:
            await self._saving
