"""What reservations keep whom from: the table of conflicts, row by row (SPC-5, tables 66 and 67; SBC-4, table 13)."""

from __future__ import annotations

import pytest

from arrayd.scsi.fast_path import READ_10, WRITE_10
from arrayd.scsi.logical_unit import LogicalUnit
from arrayd.scsi.persistent import (
    ALL_REGISTRANTS,
    EXCLUSIVE,
    REGISTRANTS_ONLY,
    TYPES,
    Change,
    PersistentState,
    Registrant,
)
from arrayd.scsi.persistent import reserve as reserved_state
from tests.scsi.initiator import Initiator, MemoryStore, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

ALLOWED, READS, WRITES = "allowed", "conflicts with exclusive access", "conflicts with both"

MATRIX: dict[tuple[int, int | None], str] = {
    # operation code, service action: what becomes of it when somebody else holds a persistent reservation
    (0x12, None): ALLOWED,  # INQUIRY
    (0x03, None): ALLOWED,  # REQUEST SENSE
    (0xA0, None): ALLOWED,  # REPORT LUNS
    (0x00, None): ALLOWED,  # TEST UNIT READY
    (0x4D, None): ALLOWED,  # LOG SENSE
    (0x15, None): WRITES,  # MODE SELECT(6)
    (0x55, None): WRITES,  # MODE SELECT(10)
    (0x1A, None): READS,  # MODE SENSE(6)
    (0x5A, None): READS,  # MODE SENSE(10)
    (0x3B, None): WRITES,  # WRITE BUFFER
    (0x3C, None): READS,  # READ BUFFER
    (0x1C, None): READS,  # RECEIVE DIAGNOSTIC RESULTS
    (0x1D, None): WRITES,  # SEND DIAGNOSTIC
    (0xA3, 0x0C): READS,  # REPORT SUPPORTED OPERATION CODES
    (0xA3, 0x0D): READS,  # REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    (0xA3, 0x0A): ALLOWED,  # REPORT TARGET PORT GROUPS
    (0xA4, 0x0A): WRITES,  # SET TARGET PORT GROUPS
    (0x1B, None): WRITES,  # START STOP UNIT
    (0x1E, None): ALLOWED,  # PREVENT ALLOW MEDIUM REMOVAL, which allows by zeros
    (0x25, None): ALLOWED,  # READ CAPACITY(10)
    (0x9E, 0x10): ALLOWED,  # READ CAPACITY(16)
    (0x37, None): READS,  # READ DEFECT DATA(10)
    (0xB7, None): READS,  # READ DEFECT DATA(12)
    (0x9E, 0x12): READS,  # GET LBA STATUS
    (0x08, None): READS,  # READ(6)
    (0x28, None): READS,  # READ(10)
    (0xA8, None): READS,  # READ(12)
    (0x88, None): READS,  # READ(16)
    (0x0A, None): WRITES,  # WRITE(6)
    (0x2A, None): WRITES,  # WRITE(10)
    (0xAA, None): WRITES,  # WRITE(12)
    (0x8A, None): WRITES,  # WRITE(16)
    (0x2E, None): WRITES,  # WRITE AND VERIFY(10)
    (0xAE, None): WRITES,  # WRITE AND VERIFY(12)
    (0x8E, None): WRITES,  # WRITE AND VERIFY(16)
    (0x2F, None): READS,  # VERIFY(10)
    (0xAF, None): READS,  # VERIFY(12)
    (0x8F, None): READS,  # VERIFY(16)
    (0x34, None): READS,  # PRE-FETCH(10)
    (0x90, None): READS,  # PRE-FETCH(16)
    (0x35, None): WRITES,  # SYNCHRONIZE CACHE(10)
    (0x91, None): WRITES,  # SYNCHRONIZE CACHE(16)
    (0x89, None): WRITES,  # COMPARE AND WRITE
    (0x8B, None): WRITES,  # ORWRITE(16)
    (0x41, None): WRITES,  # WRITE SAME(10)
    (0x93, None): WRITES,  # WRITE SAME(16)
    (0x42, None): WRITES,  # UNMAP
    (0x48, 0x01): WRITES,  # SANITIZE, OVERWRITE
    (0x48, 0x02): WRITES,  # SANITIZE, BLOCK ERASE
    (0x48, 0x1F): WRITES,  # SANITIZE, EXIT FAILURE MODE
    (0x83, 0x00): WRITES,  # EXTENDED COPY
    (0x84, 0x00): WRITES,  # RECEIVE COPY STATUS
    (0x84, 0x01): WRITES,  # RECEIVE COPY DATA
    (0x84, 0x03): ALLOWED,  # RECEIVE COPY OPERATING PARAMETERS
    (0x84, 0x04): WRITES,  # RECEIVE COPY FAILURE DETAILS
    **{(0x5E, action): ALLOWED for action in range(4)},  # PERSISTENT RESERVE IN
    **{(0x5F, action): ALLOWED for action in range(8)},  # PERSISTENT RESERVE OUT decides for itself
    (0x16, None): ALLOWED,  # RESERVE and RELEASE: likewise
    (0x17, None): ALLOWED,
    (0x56, None): ALLOWED,
    (0x57, None): ALLOWED,
}

HOLDER, REGISTERED, STRANGER = (f"iqn.x:{name}" for name in ("holder", "registered", "stranger"))


def cdb_of(opcode: int, action: int | None) -> bytes:
    return bytes((opcode, action or 0)).ljust(16, b"\0")


def conflicts(unit: LogicalUnit, initiator: Initiator, cdb: bytes) -> bool:
    return unit.reservations.conflicts(initiator.nexus, unit.commands.find(unit, cdb), cdb)


def make_unit(state: PersistentState | None) -> tuple[LogicalUnit, dict[str, Initiator]]:
    """A unit with `state`, and the three who come to it."""
    volume = MemoryVolume(size=65536)
    volume.removable = True
    target = make_target({0: volume}, MemoryStore({} if state is None else {volume.identity: state}))
    return disk_unit(target, 0), {name: Initiator(target, name) for name in (HOLDER, REGISTERED, STRANGER)}


def held(kind: int) -> PersistentState:
    holder, registered = (Registrant(f"{name},i,0x00023d000001", 1) for name in (HOLDER, REGISTERED))
    return reserved_state(PersistentState({holder: 1, registered: 2}), holder, kind).state


def test_the_table_has_a_row_for_every_command() -> None:
    unit, _ = make_unit(None)
    assert {(command.opcode, command.action) for command in unit.commands.offered(unit)} == set(MATRIX)


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize(("opcode", "action"), MATRIX)
def test_persistent_reservations(opcode: int, action: int | None, kind: int) -> None:
    unit, initiators = make_unit(held(kind))
    cdb = cdb_of(opcode, action)
    rule = MATRIX[opcode, action]
    kept_out = rule == WRITES or (rule == READS and kind in EXCLUSIVE)
    shared = kind in REGISTRANTS_ONLY | ALL_REGISTRANTS
    assert conflicts(unit, initiators[HOLDER], cdb) is False
    assert conflicts(unit, initiators[REGISTERED], cdb) is (kept_out and not shared)
    assert conflicts(unit, initiators[STRANGER], cdb) is kept_out


@pytest.mark.parametrize(("opcode", "action"), MATRIX)
def test_registrations_alone_keep_nobody_out(opcode: int, action: int | None) -> None:
    state = PersistentState({Registrant(f"{HOLDER},i,0x00023d000001", 1): 1})
    unit, initiators = make_unit(state)
    assert not any(conflicts(unit, initiator, cdb_of(opcode, action)) for initiator in initiators.values())


@pytest.mark.parametrize(
    ("cdb", "kept_out"),
    [
        ("1e0000000000", False),  # PREVENT ALLOW MEDIUM REMOVAL: allow
        ("1e0000000100", True),  # prevent
        ("1b0000000100", False),  # START STOP UNIT: start
        ("1b0000000000", True),  # stop
        ("1b0000000300", False),  # load
        ("1b0000002100", True),  # a power condition
    ],
)
def test_commands_that_conflict_by_a_field(cdb: str, kept_out: bool) -> None:
    unit, initiators = make_unit(held(1))
    padded = bytes.fromhex(cdb).ljust(16, b"\0")
    assert conflicts(unit, initiators[STRANGER], padded) is kept_out


@pytest.mark.parametrize(("opcode", "action"), MATRIX)
def test_reserve(opcode: int, action: int | None) -> None:
    """SPC-2, 5.5.1: RESERVE keeps the others from nearly everything, and everybody from PERSISTENT RESERVE."""
    unit, initiators = make_unit(None)
    unit.reservations.reserve(initiators[HOLDER].nexus)
    cdb = cdb_of(opcode, action)
    passes = (opcode, action) == (0x5E, 0) or opcode in (0x03, 0x12, 0xA0, 0x17, 0x57)
    assert conflicts(unit, initiators[HOLDER], cdb) is (opcode in (0x5E, 0x5F) and not passes)
    assert conflicts(unit, initiators[STRANGER], cdb) is not passes


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_fast_path_follows(kind: int) -> None:
    unit, initiators = make_unit(held(kind))
    shared = kind in REGISTRANTS_ONLY | ALL_REGISTRANTS
    for name, may_read, may_write in (
        (HOLDER, True, True),
        (REGISTERED, shared or kind not in EXCLUSIVE, shared),
        (STRANGER, kind not in EXCLUSIVE, False),
    ):
        fast = unit.fast_tables[initiators[name].nexus]
        assert (READ_10 in fast, WRITE_10 in fast) == (may_read, may_write), name


async def test_the_fast_path_follows_changes() -> None:
    unit, initiators = make_unit(None)
    stranger = unit.fast_tables[initiators[STRANGER].nexus]
    await unit.reservations.change(lambda _state: Change(held(3)), counts=False)
    assert READ_10 not in stranger
    await unit.reservations.change(lambda _state: Change(PersistentState()), counts=False)
    assert READ_10 in stranger
    unit.reservations.reserve(initiators[HOLDER].nexus)
    assert READ_10 not in stranger
    unit.reservations.release(initiators[HOLDER].nexus)
    assert READ_10 in stranger
