"""The transitions of persistent reservations, state in and change out (SPC-5, 5.14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi import persistent
from arrayd.scsi.persistent import (
    ALL_REGISTRANTS,
    EXCLUSIVE_ACCESS,
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
    NO_RESERVATION,
    REGISTRANTS_ONLY,
    REGISTRATIONS_MAX,
    TYPES,
    WRITE_EXCLUSIVE,
    WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    Change,
    PersistentState,
    Registrant,
    clear,
    move,
    preempt,
    register,
    release,
    reserve,
)
from arrayd.scsi.sense import Asc, CheckCondition, ReservationConflict

A, B, C = (Registrant(f"iqn.2026-11.io.arrayd:{name},i,0x00023d000001", 1) for name in "abc")
KEYS = {A: 0xA, B: 0xB, C: 0xC}


def held_by_a(kind: int) -> PersistentState:
    """A, B and C are registered; A has reserved."""
    return reserve(PersistentState(KEYS), A, kind).state


def asc_of(change: Change) -> dict[Registrant, Asc]:
    assert len(dict(change.attentions)) == len(change.attentions)
    return dict(change.attentions)


# -- REGISTER ----------------------------------------------------------------------------------------------------------


def test_register_and_change_and_remove_a_key() -> None:
    state = register(PersistentState(), A, (A,), 0, 5).state
    assert state.registrations == {A: 5}
    state = register(state, A, (A,), 5, 6).state
    assert state.registrations == {A: 6}
    assert register(state, A, (A,), 6, 0).state == PersistentState()


def test_register_nobody_with_no_key_changes_nothing() -> None:
    assert register(PersistentState(), A, (A,), 0, 0).state == PersistentState()
    assert register(PersistentState(), A, (A,), None, 0).state == PersistentState()


@pytest.mark.parametrize(
    ("state", "key"), [(PersistentState(), 5), (PersistentState({A: 5}), 0), (PersistentState({A: 5}), 6)]
)
def test_register_with_the_wrong_key_conflicts(state: PersistentState, key: int) -> None:
    with pytest.raises(ReservationConflict):
        register(state, A, (A,), key, 7)


def test_register_and_ignore_replaces_any_key() -> None:
    assert register(PersistentState({A: 5}), A, (A,), None, 7).state.registrations == {A: 7}


def test_registering_many_is_all_or_nothing() -> None:
    with pytest.raises(ReservationConflict):
        register(PersistentState({B: 5}), A, (A, B), 0, 7)


def test_registrations_are_bounded() -> None:
    crowd = {Registrant(f"host{n}", 1): 1 for n in range(REGISTRATIONS_MAX)}
    with pytest.raises(CheckCondition) as caught:
        register(PersistentState(crowd), A, (A,), 0, 1)
    assert caught.value.asc is Asc.INSUFFICIENT_REGISTRATION_RESOURCES
    assert register(PersistentState(crowd), A, tuple(crowd), 1, 2).state.registrations == dict.fromkeys(crowd, 2)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_holder_unregisters(kind: int) -> None:
    change = register(held_by_a(kind), A, (A,), 0xA, 0)
    assert change.state.registrations == {B: 0xB, C: 0xC}
    if kind in ALL_REGISTRANTS:
        assert change.state.type == kind
        assert asc_of(change) == {}
    else:
        assert change.state.type == NO_RESERVATION
        told = {B: Asc.RESERVATIONS_RELEASED, C: Asc.RESERVATIONS_RELEASED} if kind in REGISTRANTS_ONLY else {}
        assert asc_of(change) == told


def test_the_last_of_all_registrants_unregisters() -> None:
    state = PersistentState({A: 1}, WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    assert register(state, A, (A,), 1, 0).state == PersistentState()


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_who_holds_nothing_unregisters(kind: int) -> None:
    change = register(held_by_a(kind), B, (B,), 0xB, 0)
    assert (change.state.type, change.state.holder) == (kind, held_by_a(kind).holder)
    assert asc_of(change) == {}


# -- RESERVE and RELEASE -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_reserve_twice_alike_is_good_and_otherwise_conflicts(kind: int) -> None:
    state = held_by_a(kind)
    assert reserve(state, A, kind).state == state
    for other in TYPES - {kind}:
        with pytest.raises(ReservationConflict):
            reserve(state, A, other)
    if kind in ALL_REGISTRANTS:
        assert reserve(state, B, kind).state == state
    else:
        with pytest.raises(ReservationConflict):
            reserve(state, B, kind)


@pytest.mark.parametrize("kind", sorted(set(range(256)) - TYPES))
def test_other_types_and_scopes_cannot_be_reserved(kind: int) -> None:
    with pytest.raises(CheckCondition) as caught:
        reserve(PersistentState(KEYS), A, kind)
    assert caught.value.asc is Asc.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_release_by_the_holder(kind: int) -> None:
    change = release(held_by_a(kind), A, kind)
    assert change.state == PersistentState(KEYS)
    tells = kind in REGISTRANTS_ONLY | ALL_REGISTRANTS
    assert asc_of(change) == ({B: Asc.RESERVATIONS_RELEASED, C: Asc.RESERVATIONS_RELEASED} if tells else {})


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_release_by_another_registrant(kind: int) -> None:
    change = release(held_by_a(kind), B, kind)
    assert change.state.type == (NO_RESERVATION if kind in ALL_REGISTRANTS else kind)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_release_of_another_type_is_invalid(kind: int) -> None:
    for other in (TYPES | {0x10 | kind}) - {kind}:
        with pytest.raises(CheckCondition) as caught:
            release(held_by_a(kind), A, other)
        assert caught.value.asc is Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION


def test_release_of_nothing_is_good() -> None:
    assert release(PersistentState(KEYS), A, WRITE_EXCLUSIVE) == Change(PersistentState(KEYS))


# -- CLEAR and PREEMPT -------------------------------------------------------------------------------------------------


def test_clear_removes_everything_and_tells_the_others() -> None:
    change = clear(held_by_a(WRITE_EXCLUSIVE), B)
    assert change.state == PersistentState()
    assert asc_of(change) == {A: Asc.RESERVATIONS_PREEMPTED, C: Asc.RESERVATIONS_PREEMPTED}


@pytest.mark.parametrize("kind", sorted(TYPES - ALL_REGISTRANTS))
@pytest.mark.parametrize("new_kind", sorted(TYPES))
def test_preempt_the_holder(kind: int, new_kind: int) -> None:
    change = preempt(held_by_a(kind), B, 0xA, new_kind)
    assert change.state == PersistentState({B: 0xB, C: 0xC}, new_kind, None if new_kind in ALL_REGISTRANTS else B)
    told = {A: Asc.REGISTRATIONS_PREEMPTED} | ({} if kind == new_kind else {C: Asc.RESERVATIONS_RELEASED})
    assert asc_of(change) == told
    assert change.preempted == {A}


@pytest.mark.parametrize("kind", sorted(ALL_REGISTRANTS))
def test_preempt_all_registrants(kind: int) -> None:
    change = preempt(held_by_a(kind), B, 0, EXCLUSIVE_ACCESS)
    assert change.state == PersistentState({B: 0xB}, EXCLUSIVE_ACCESS, B)
    assert asc_of(change) == {A: Asc.REGISTRATIONS_PREEMPTED, C: Asc.REGISTRATIONS_PREEMPTED}
    assert change.preempted == {A, C}


@pytest.mark.parametrize("kind", [NO_RESERVATION, *sorted(TYPES)])
def test_preempt_a_registration_only(kind: int) -> None:
    state = PersistentState(KEYS) if kind == NO_RESERVATION else held_by_a(kind)
    change = preempt(state, B, 0xC, WRITE_EXCLUSIVE)
    assert change.state == PersistentState({A: 0xA, B: 0xB}, kind, state.holder)
    assert asc_of(change) == {C: Asc.REGISTRATIONS_PREEMPTED}
    assert change.preempted == {C}


@pytest.mark.parametrize("kind", [NO_RESERVATION, *sorted(TYPES)])
def test_preempt_a_key_that_nobody_has_conflicts(kind: int) -> None:
    with pytest.raises(ReservationConflict):
        preempt(PersistentState(KEYS) if kind == NO_RESERVATION else held_by_a(kind), B, 0xD, WRITE_EXCLUSIVE)


@pytest.mark.parametrize("kind", [NO_RESERVATION, *sorted(TYPES - ALL_REGISTRANTS)])
def test_preempt_key_zero_needs_all_registrants(kind: int) -> None:
    with pytest.raises(CheckCondition) as caught:
        preempt(PersistentState(KEYS) if kind == NO_RESERVATION else held_by_a(kind), B, 0, WRITE_EXCLUSIVE)
    assert caught.value.asc is Asc.INVALID_FIELD_IN_PARAMETER_LIST


def test_preempt_oneself_changes_the_type_without_a_gap() -> None:
    change = preempt(held_by_a(WRITE_EXCLUSIVE), A, 0xA, WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    assert change.state == PersistentState(KEYS, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, A)
    assert asc_of(change) == {B: Asc.RESERVATIONS_RELEASED, C: Asc.RESERVATIONS_RELEASED}


def test_preempt_ones_own_registration() -> None:
    change = preempt(PersistentState({A: 1, B: 1}), A, 1, WRITE_EXCLUSIVE)
    assert change.state == PersistentState()
    assert asc_of(change) == {B: Asc.REGISTRATIONS_PREEMPTED}


def test_preempting_the_holder_spares_the_sender_with_the_same_key() -> None:
    state = PersistentState({A: 1, B: 1, C: 1}, WRITE_EXCLUSIVE, A)
    assert preempt(state, B, 1, WRITE_EXCLUSIVE).state == PersistentState({B: 1}, WRITE_EXCLUSIVE, B)


def test_preempt_checks_the_type_only_where_it_is_used() -> None:
    assert preempt(held_by_a(WRITE_EXCLUSIVE), B, 0xC, 0).preempted == {C}
    with pytest.raises(CheckCondition):
        preempt(held_by_a(WRITE_EXCLUSIVE), B, 0xA, 0)


# -- REGISTER AND MOVE -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unregister", [False, True])
def test_move_the_reservation(unregister: bool) -> None:
    there = Registrant("iqn.2026-11.io.arrayd:d,i,0x00023d000002", 2)
    after = move(held_by_a(WRITE_EXCLUSIVE), A, there, 0xD, unregister).state
    kept = {B: 0xB, C: 0xC} if unregister else KEYS
    assert after == PersistentState({**kept, there: 0xD}, WRITE_EXCLUSIVE, there)


def test_move_to_a_registrant_gives_it_the_new_key() -> None:
    after = move(held_by_a(WRITE_EXCLUSIVE), A, B, 0xD, False).state
    assert after == PersistentState({A: 0xA, B: 0xD, C: 0xC}, WRITE_EXCLUSIVE, B)


def test_move_is_for_the_one_holder() -> None:
    with pytest.raises(CheckCondition) as caught:
        move(PersistentState(KEYS), A, B, 1, False)
    assert caught.value.asc is Asc.INVALID_FIELD_IN_CDB
    with pytest.raises(ReservationConflict):
        move(held_by_a(WRITE_EXCLUSIVE), B, C, 1, False)
    with pytest.raises(ReservationConflict):
        move(held_by_a(EXCLUSIVE_ACCESS_ALL_REGISTRANTS), A, B, 1, False)


# -- whatever comes ----------------------------------------------------------------------------------------------------

registrants = st.sampled_from((A, B, C))
keys = st.integers(0, 3)
kinds = st.integers(0, 9)
transitions = st.one_of(
    st.tuples(st.just("register"), registrants, st.frozensets(registrants, min_size=1), st.none() | keys, keys),
    st.tuples(st.sampled_from(("reserve", "release")), registrants, kinds),
    st.tuples(st.just("clear"), registrants),
    st.tuples(st.just("preempt"), registrants, keys, kinds),
    st.tuples(st.just("move"), registrants, registrants, st.integers(1, 3), st.booleans()),
)


@given(st.lists(transitions, max_size=30))
def test_no_sequence_leaves_a_reservation_without_a_holder(steps: list[tuple[object, ...]]) -> None:
    state = PersistentState()
    for name, sender, *rest in steps:
        assert isinstance(sender, Registrant)
        if name != "register" and sender not in state.registrations:
            continue
        try:
            change: Change = getattr(persistent, str(name))(state, sender, *rest)
        except (CheckCondition, ReservationConflict):
            continue
        state = change.state
        assert all(state.registrations.values())
        assert sender not in dict(change.attentions)
        if state.type == NO_RESERVATION:
            assert state.holder is None
        elif state.type in ALL_REGISTRANTS:
            assert state.holder is None
            assert state.registrations
        else:
            assert state.type in TYPES
            assert state.holder in state.registrations
