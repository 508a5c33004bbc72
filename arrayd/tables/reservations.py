"""Persistent reservations that outlive the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable

from arrayd.scsi.persistent import ALL_REGISTRANTS, NO_RESERVATION, TYPES, PersistentState, Registrant


class ReservationTable:
    """Persistent reservations that outlive the daemon: a `ReservationStore` (see `arrayd.scsi.reservations`)."""

    def __init__(
        self, change: Callable[[Callable[[sqlite3.Connection], None]], Awaitable[None]], connection: sqlite3.Connection
    ) -> None:
        self._change = change
        self._kept = _read_reservations(connection)

    def load(self, identity: str) -> PersistentState | None:
        """What was last saved for the logical unit `identity`."""
        return self._kept.get(identity)

    async def save(self, identity: str, state: PersistentState | None) -> None:
        """Keeps `state`, or forgets the logical unit (None): durable before it is done. Raises TablesError."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM registrations WHERE identity = ?", (identity,))
            connection.execute("DELETE FROM reservations WHERE identity = ?", (identity,))
            if state is None:
                return
            connection.execute("INSERT INTO reservations VALUES (?, ?)", (identity, state.type))
            connection.executemany(
                "INSERT INTO registrations VALUES (?, ?, ?, ?, ?)",
                (
                    (identity, registrant.initiator_port, registrant.port, f"{key:016x}", registrant == state.holder)
                    for registrant, key in state.registrations.items()
                ),
            )

        await self._change(work)
        if state is None:
            self._kept.pop(identity, None)
        else:
            self._kept[identity] = state

    def forget(self, identity: str) -> None:
        """The rows of the logical unit `identity` are gone: it is no more."""
        self._kept.pop(identity, None)


def _read_reservations(connection: sqlite3.Connection) -> dict[str, PersistentState]:
    """All that is kept. Raises ValueError for a state that cannot have been saved."""
    registrations: dict[str, dict[Registrant, int]] = {}
    holders: dict[str, Registrant] = {}
    rows = connection.execute("SELECT identity, initiator_port, port, key, holder FROM registrations")
    for identity, initiator_port, port, key, holder in rows:
        registrant = Registrant(initiator_port, port)
        registrations.setdefault(identity, {})[registrant] = int(key, 16)
        if holder:
            holders[identity] = registrant
    kept = {}
    for identity, kind in connection.execute("SELECT identity, type FROM reservations"):
        state = PersistentState(registrations.get(identity, {}), kind, holders.get(identity))
        has_one_holder = kind in TYPES and kind not in ALL_REGISTRANTS
        if kind not in TYPES | {NO_RESERVATION} or has_one_holder != (state.holder is not None):
            raise ValueError(f"the reservation of {identity} is damaged")
        kept[identity] = state
    return kept
