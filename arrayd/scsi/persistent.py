"""Persistent reservations as a table of transitions, without I/O (SPC-5, 5.14): state and request in, change out.

A registration belongs to an I_T nexus and outlives its sessions. Every transition takes the state and gives the next
one, with the unit attentions it causes; or it raises, and then nothing changed. Whether the sender holds the right key
is checked by `check_key`, before, for all but the REGISTER service actions, which have a rule of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from arrayd.scsi.sense import (
    Asc,
    CheckCondition,
    Key,
    ReservationConflict,
    illegal_request,
    invalid_field,
    invalid_parameter,
)

if TYPE_CHECKING:
    from arrayd.scsi.nexus import Nexus

REGISTRATIONS_MAX = 1024
"""I_T nexuses that can be registered with one logical unit."""

NO_RESERVATION = 0
WRITE_EXCLUSIVE = 1
EXCLUSIVE_ACCESS = 3
WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8
"""Persistent reservation types (SPC-5, table 55)."""

REGISTRANTS_ONLY = frozenset((WRITE_EXCLUSIVE_REGISTRANTS_ONLY, EXCLUSIVE_ACCESS_REGISTRANTS_ONLY))
ALL_REGISTRANTS = frozenset((WRITE_EXCLUSIVE_ALL_REGISTRANTS, EXCLUSIVE_ACCESS_ALL_REGISTRANTS))
EXCLUSIVE = frozenset((EXCLUSIVE_ACCESS, EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, EXCLUSIVE_ACCESS_ALL_REGISTRANTS))
TYPES = frozenset((WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS)) | REGISTRANTS_ONLY | ALL_REGISTRANTS


class Registrant(NamedTuple):
    """The I_T nexus of a registration."""

    initiator_port: str
    """`name,i,0xISID` (SPC-5, 7.6.4.7)."""
    port: int
    """Relative target port identifier."""

    @classmethod
    def of(cls, nexus: Nexus) -> Registrant:
        """The registrant that `nexus` is, if it is registered."""
        return cls(nexus.initiator_port, nexus.port)


@dataclass(frozen=True, slots=True)
class PersistentState:
    """Registrations and the persistent reservation of a logical unit, at one instant."""

    registrations: Mapping[Registrant, int] = field(default_factory=dict)
    """Reservation keys (64 bits, never 0)."""
    type: int = NO_RESERVATION
    holder: Registrant | None = None
    """Who holds the reservation; None when there is none, or when every registrant holds it."""

    @property
    def key(self) -> int:
        """The reservation key as READ RESERVATION shows it: 0 if every registrant holds it, or nobody."""
        return 0 if self.holder is None else self.registrations[self.holder]

    def held_by(self, registrant: Registrant) -> bool:
        """Whether `registrant` is a persistent reservation holder (SPC-5, 5.14.10)."""
        if self.type in ALL_REGISTRANTS:
            return registrant in self.registrations
        return self.holder == registrant

    def admits(self, registrant: Registrant) -> bool:
        """Whether the reservation, if there is one, lets `registrant` do everything (SPC-5, table 54)."""
        if self.type in REGISTRANTS_ONLY or self.type in ALL_REGISTRANTS:
            return registrant in self.registrations
        return self.type == NO_RESERVATION or self.holder == registrant


@dataclass(frozen=True, slots=True)
class Change:
    """What a transition brings: the next state, unit attentions, and who lost a registration by preemption."""

    state: PersistentState
    attentions: tuple[tuple[Registrant, Asc], ...] = ()
    preempted: frozenset[Registrant] = frozenset()


def check_key(state: PersistentState, sender: Registrant, key: int) -> None:
    """Raises ReservationConflict unless `sender` is registered with `key` (SPC-5, 5.14.2)."""
    if state.registrations.get(sender) != key:
        raise ReservationConflict


def register(
    state: PersistentState, sender: Registrant, registrants: Collection[Registrant], key: int | None, new_key: int
) -> Change:
    """REGISTER and REGISTER AND IGNORE EXISTING KEY for all `registrants`, as if each had sent it (SPC-5, 5.14.7).

    `key` is the RESERVATION KEY, None to ignore it; a `new_key` of 0 unregisters.
    """
    if key is not None and any(state.registrations.get(registrant, 0) != key for registrant in registrants):
        raise ReservationConflict
    if new_key:
        return Change(_with_registrations(state, registrants, new_key))
    after = _without(state, registrants)
    if state.type in REGISTRANTS_ONLY and after.type == NO_RESERVATION:
        return Change(after, _attentions(after.registrations, sender, Asc.RESERVATIONS_RELEASED))
    return Change(after)


def reserve(state: PersistentState, sender: Registrant, kind: int) -> Change:
    """RESERVE (SPC-5, 5.14.9)."""
    if state.type == NO_RESERVATION:
        _check_type(kind)
        return Change(replace(state, type=kind, holder=_holder(sender, kind)))
    if not state.held_by(sender) or state.type != kind:
        raise ReservationConflict
    return Change(state)


def release(state: PersistentState, sender: Registrant, kind: int) -> Change:
    """RELEASE (SPC-5, 5.14.11.2.2); one who does not hold the reservation releases nothing, and is told GOOD."""
    if state.type == NO_RESERVATION or not state.held_by(sender):
        return Change(state)
    if state.type != kind:
        raise illegal_request(Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
    after = replace(state, type=NO_RESERVATION, holder=None)
    if state.type in REGISTRANTS_ONLY or state.type in ALL_REGISTRANTS:
        return Change(after, _attentions(after.registrations, sender, Asc.RESERVATIONS_RELEASED))
    return Change(after)


def clear(state: PersistentState, sender: Registrant) -> Change:
    """CLEAR (SPC-5, 5.14.11.2.6)."""
    return Change(PersistentState(), _attentions(state.registrations, sender, Asc.RESERVATIONS_PREEMPTED))


def preempt(state: PersistentState, sender: Registrant, victim_key: int, kind: int) -> Change:
    """PREEMPT, and the registrations' part of PREEMPT AND ABORT (SPC-5, 5.14.11.2.4).

    The key of the reservation (0 when all registrants hold it) takes the reservation over, with type `kind`; any other
    key only removes registrations, the sender's own if it has that key too.
    """
    if state.type != NO_RESERVATION and victim_key == state.key:
        _check_type(kind)
        everybody = state.type in ALL_REGISTRANTS
        removed = {r for r, k in state.registrations.items() if (everybody or k == victim_key) and r != sender}
        kept = {r: k for r, k in state.registrations.items() if r not in removed}
        after = PersistentState(kept, kind, _holder(sender, kind))
    else:
        if victim_key == 0:
            raise invalid_parameter(8)
        removed = {r for r, k in state.registrations.items() if k == victim_key}
        if not removed:
            raise ReservationConflict
        after = _without(state, removed)
    attentions = _attentions(removed, sender, Asc.REGISTRATIONS_PREEMPTED)
    if after.type != state.type:
        attentions += _attentions(after.registrations, sender, Asc.RESERVATIONS_RELEASED)
    return Change(after, attentions, frozenset(removed))


def move(state: PersistentState, sender: Registrant, destination: Registrant, new_key: int, unregister: bool) -> Change:
    """REGISTER AND MOVE: `destination` is registered with `new_key` and holds the reservation (SPC-5, 5.14.8)."""
    if state.type == NO_RESERVATION:
        raise invalid_field((1, 4))
    if state.type in ALL_REGISTRANTS or state.holder != sender:
        raise ReservationConflict
    after = replace(_with_registrations(state, (destination,), new_key), holder=destination)
    return Change(_without(after, (sender,)) if unregister else after)


def _holder(sender: Registrant, kind: int) -> Registrant | None:
    return None if kind in ALL_REGISTRANTS else sender


def _check_type(kind: int) -> None:
    if kind not in TYPES:
        raise invalid_field((2, 3))


def _with_registrations(state: PersistentState, registrants: Collection[Registrant], key: int) -> PersistentState:
    registrations = {**state.registrations, **dict.fromkeys(registrants, key)}
    if len(registrations) > REGISTRATIONS_MAX:
        raise CheckCondition(Key.ILLEGAL_REQUEST, Asc.INSUFFICIENT_REGISTRATION_RESOURCES)
    return replace(state, registrations=registrations)


def _without(state: PersistentState, removed: Collection[Registrant]) -> PersistentState:
    """Without some registrations: the reservation ends with its holder's, or with the last if all hold it."""
    kept = {r: k for r, k in state.registrations.items() if r not in removed}
    ends = not kept if state.holder is None else state.holder not in kept
    return PersistentState(kept) if ends else replace(state, registrations=kept)


def _attentions(
    registrants: Collection[Registrant], sender: Registrant, asc: Asc
) -> tuple[tuple[Registrant, Asc], ...]:
    return tuple((registrant, asc) for registrant in registrants if registrant != sender)
