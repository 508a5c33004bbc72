"""What an auxiliary journal was given last, in memory until it is restored: so it is not read again for that.

The journals of an array share one budget. What does not fit is read from the disk, where all of it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from arrayd.replication.journal.format import Record
from arrayd.replication.journal.regions import Position

RECENT_BYTES_MAX = 64 * 1024 * 1024
"""So much of all journals of an array is kept, with RECORD_COST for each record."""
RECORD_COST = 512
"""What a record takes in memory beside its data, in bytes, roughly."""


class Budget:
    """Memory that several journals share: `left` bytes of it."""

    def __init__(self, limit: int | None = None) -> None:
        self.left = RECENT_BYTES_MAX if limit is None else limit


class Recent:
    """Runs of one journal as they came, in order; there may be gaps."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._runs: deque[list[Record]] = deque()

    def __iter__(self) -> Iterator[list[Record]]:
        return iter(list(self._runs))

    def add(self, records: list[Record]) -> None:
        """One more, if there is room for it, or some of its own journal can be given up."""
        cost = _cost(records)
        while self._runs and self._budget.left < cost:
            self._drop()
        if self._budget.left >= cost:
            self._budget.left -= cost
            self._runs.append(records)

    def restored(self, end: Position) -> None:
        """All before `end` is: it is not needed any more."""
        while self._runs and self._runs[0][-1].entry.end <= end:
            self._drop()

    def clear(self) -> None:
        """Nobody needs any of it."""
        while self._runs:
            self._drop()

    def _drop(self) -> None:
        self._budget.left += _cost(self._runs.popleft())


def _cost(records: list[Record]) -> int:
    return sum(len(record.data) for record in records) + len(records) * RECORD_COST
