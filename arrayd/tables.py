"""The array's durable tables, in SQLite: one table of the patent, one table here.

A room says by a Protocol what it wants kept; the tables here keep it. A change is durable before its awaitable is done.
"""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

from arrayd.scsi.persistent import PersistentState


class TablesError(Exception):
    """The tables cannot be opened: in use by another daemon, of another array, of a newer version, or damaged."""


class ReservationTable:
    """Persistent reservations with APTPL (see `arrayd.scsi.reservations.ReservationStore`)."""

    def load(self, identity: str) -> PersistentState | None:
        """What was last saved for the logical unit `identity`."""
        return None

    async def save(self, identity: str, state: PersistentState | None) -> None:
        """Keeps `state` durably, or forgets the logical unit (None)."""


class Tables:
    """The tables of one array. `reservations` is a ReservationStore."""

    reservations: ReservationTable

    @classmethod
    async def open(cls, state_dir: Path, serial: str, executor: Executor) -> Tables:
        """Opens, or makes, `state_dir/tables.db` of the array `serial`; statements run in `executor`.

        Raises TablesError.
        """
        tables = cls()
        tables.reservations = ReservationTable()
        return tables

    async def close(self) -> None:
        """Closes the file and lets another daemon have the directory."""
