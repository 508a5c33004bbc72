"""Reservations of one logical unit: persistent (SPC-5, 5.14) and by RESERVE (SPC-2, 5.5.1), and what conflicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from arrayd.scsi.command import Command
    from arrayd.scsi.nexus import Nexus


class Registrant(NamedTuple):
    """The I_T nexus of a registration, which outlives the sessions it is used by."""

    initiator_port: str
    """`name,i,0xISID`."""
    port: int
    """Relative target port identifier."""


@dataclass(frozen=True, slots=True)
class PersistentState:
    """Registrations and the persistent reservation of a logical unit, at one instant."""

    registrations: Mapping[Registrant, int] = field(default_factory=dict)
    """Reservation keys (8 bytes, never 0)."""
    type: int = 0
    """Type of the reservation (SPC-5, table 55), 0 when there is none."""
    holder: Registrant | None = None
    """Who holds the reservation; None when there is none, or every registrant holds it."""


class ReservationStore(Protocol):
    """Keeps what must survive power loss (APTPL)."""

    def load(self, identity: str) -> PersistentState | None:
        """What was last saved for the logical unit `identity`."""

    async def save(self, identity: str, state: PersistentState | None) -> None:
        """Keeps `state` durably, or forgets the logical unit (None), before it is done."""


class Reservations:
    """The reservations of the logical unit `identity`."""

    def __init__(self, identity: str, store: ReservationStore) -> None:
        self.identity = identity
        self.changed: Callable[[], None] = lambda: None
        """Called after every change."""
        self._store = store

    def conflicts(self, nexus: Nexus, command: Command, cdb: bytes) -> bool:
        """Whether a reservation keeps `nexus` from `command` (SPC-5, tables 66 and 67; SPC-2, table 10)."""
        return False

    def nexus_lost(self, nexus: Nexus) -> None:
        """I_T nexus loss: an SPC-2 reservation ends, registrations stay."""

    def reset(self) -> None:
        """Logical unit reset: an SPC-2 reservation ends, persistent ones stay."""
