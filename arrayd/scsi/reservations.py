"""What reservations keep a nexus from: persistent (SPC-5, 5.14) and by RESERVE (SPC-2, 5.5.1), of one logical unit.

Transitions of persistent reservations are in `persistent.py`; here they are made durable, in turn, before they count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from arrayd.scsi.command import Reserved
from arrayd.scsi.persistent import EXCLUSIVE, NO_RESERVATION, Change, PersistentState, Registrant
from arrayd.scsi.sense import ReservationConflict

if TYPE_CHECKING:
    from arrayd.scsi.command import Command
    from arrayd.scsi.nexus import Nexus

READ_KEYS = (0x5E, 0)
PERSISTENT_RESERVE = frozenset({*((0x5E, action) for action in range(4)), *((0x5F, action) for action in range(8))})
NEVER_RESERVED = frozenset({(0x03, None), (0x12, None), (0xA0, None), (0x17, None), (0x57, None), READ_KEYS})
"""REQUEST SENSE, INQUIRY, REPORT LUNS, RELEASE(6), RELEASE(10): what RESERVE does not keep others from. READ KEYS goes
past it too, more than SPC-2 allows: tools that clean up look for keys to clear, whoever holds what."""
PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
START_STOP_UNIT = 0x1B

GENERATIONS = 1 << 32


class ReservationStore(Protocol):
    """Keeps what must survive power loss (APTPL: SPC-5, 5.14.5)."""

    def load(self, identity: str) -> PersistentState | None:
        """What was last saved for the logical unit `identity`."""

    async def save(self, identity: str, state: PersistentState | None) -> None:
        """Keeps `state`, or forgets the logical unit (None): durable before it is done."""


class Reservations:
    """The reservations of the logical unit `identity`. `aptpl` says that the persistent ones outlive the daemon."""

    def __init__(self, identity: str, store: ReservationStore) -> None:
        self.identity = identity
        self.changed: Callable[[], None] = lambda: None
        """Called after every change."""
        self.generation = 0
        """PRGENERATION, which a restart sets to 0 (SPC-5, 6.15.2)."""
        kept = store.load(identity)
        self.aptpl = kept is not None
        self.state = PersistentState() if kept is None else kept
        self._store = store
        self._changing = asyncio.Lock()
        self._reserved_by: Nexus | None = None

    def conflicts(self, nexus: Nexus, command: Command, cdb: bytes) -> bool:
        """Whether a reservation keeps `nexus` from `command` (SPC-5, tables 66 and 67; SPC-2, table 10)."""
        if self._reserved_by is not None:
            asked = (command.opcode, command.action)
            if asked in NEVER_RESERVED:
                return False
            # SPC-2, 5.5.1: persistent reservations and RESERVE exclude one another, whoever asks.
            return self._reserved_by is not nexus or asked in PERSISTENT_RESERVE
        state = self.state
        if state.type == NO_RESERVATION:
            return False
        kept_out = command.reserved is Reserved.WRITE or (command.reserved is Reserved.READ and state.type in EXCLUSIVE)
        return kept_out and not (state.admits(Registrant.of(nexus)) or _is_harmless(cdb))

    async def change(
        self, transition: Callable[[PersistentState], Change], *, counts: bool, aptpl: bool | None = None
    ) -> Change:
        """Carries out a PERSISTENT RESERVE OUT, one after the other; durable before it counts, if APTPL says so.

        `counts` says that the generation goes up, `aptpl` is the APTPL bit of the service actions that have one.
        Raises what `transition` raises, and what the store does; then nothing changed.
        """
        async with self._changing:
            if self._reserved_by is not None:
                raise ReservationConflict
            change = transition(self.state)
            keep = self.aptpl if aptpl is None else aptpl
            if keep or self.aptpl:
                await self._store.save(self.identity, change.state if keep else None)
            self.state = change.state
            self.aptpl = keep
            if counts:
                self.generation = (self.generation + 1) % GENERATIONS
            self.changed()
            return change

    def reserve(self, nexus: Nexus) -> None:
        """RESERVE (SPC-2, 7.21). Raises ReservationConflict."""
        if self._left_to_persistent(nexus):
            return
        if self._changing.locked() or (self._reserved_by is not None and self._reserved_by is not nexus):
            raise ReservationConflict
        self._reserved_by = nexus
        self.changed()

    def release(self, nexus: Nexus) -> None:
        """RELEASE (SPC-2, 7.16); one who holds no reservation releases nothing. Raises ReservationConflict."""
        if not self._left_to_persistent(nexus):
            self.nexus_lost(nexus)

    def _left_to_persistent(self, nexus: Nexus) -> bool:
        """Whether RESERVE and RELEASE do nothing because `nexus` has what it asks for by a persistent reservation
        (SPC-4, 5.13.3: CRH); raises ReservationConflict if it has not, and anybody is registered (SPC-2, 5.5.1)."""
        state = self.state
        if not state.registrations:
            return False
        if state.type != NO_RESERVATION and state.admits(Registrant.of(nexus)):
            return True
        raise ReservationConflict

    def nexus_lost(self, nexus: Nexus) -> None:
        """I_T nexus loss: its SPC-2 reservation ends, registrations stay."""
        if self._reserved_by is nexus:
            self.reset()

    def reset(self) -> None:
        """Logical unit reset: an SPC-2 reservation ends, persistent ones stay."""
        self._reserved_by = None
        self.changed()


def _is_harmless(cdb: bytes) -> bool:
    """The two commands that conflict by a field: to allow removal, to start the unit (SBC-4, table 13)."""
    if cdb[0] == PREVENT_ALLOW_MEDIUM_REMOVAL:
        return cdb[4] & 0x03 == 0
    return cdb[0] == START_STOP_UNIT and cdb[4] & 0xF1 == 0x01
