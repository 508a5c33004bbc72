"""The table of operation codes: what it says of itself, and that no CDB at all gets past a status."""

import asyncio
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.scsi import sanitize
from arrayd.scsi.command import Command
from arrayd.scsi.kinds import DISK, NO_DEVICE, STORAGE_ARRAY_CONTROLLER
from arrayd.scsi.opcodes import TABLES
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import MAX_TRANSFER_BYTES, Status
from tests.scsi.initiator import Answer, Initiator, make_target
from tests.scsi.memory_volume import MemoryVolume

CDB_BYTES = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""By group code (SPC-5, 4.2.5.2)."""

ALL_ROWS = [row for table in TABLES.values() for row in table.commands]

WANTED = {
    "TEST UNIT READY", "REQUEST SENSE", "INQUIRY", "REPORT LUNS", "MODE SENSE(6)", "MODE SENSE(10)", "MODE SELECT(6)",
    "MODE SELECT(10)", "LOG SENSE", "START STOP UNIT", "PREVENT ALLOW MEDIUM REMOVAL", "READ CAPACITY(10)",
    "READ CAPACITY(16)", "READ(6)", "READ(10)", "READ(12)", "READ(16)", "WRITE(6)", "WRITE(10)", "WRITE(12)",
    "WRITE(16)", "VERIFY(10)", "VERIFY(12)", "VERIFY(16)", "WRITE AND VERIFY(10)", "WRITE AND VERIFY(12)",
    "WRITE AND VERIFY(16)", "WRITE SAME(10)", "WRITE SAME(16)", "UNMAP", "GET LBA STATUS(16)",
    "SYNCHRONIZE CACHE(10)", "SYNCHRONIZE CACHE(16)", "PRE-FETCH(10)", "PRE-FETCH(16)", "COMPARE AND WRITE",
    "ORWRITE(16)", "READ DEFECT DATA(10)", "READ DEFECT DATA(12)", "SANITIZE, OVERWRITE", "SANITIZE, BLOCK ERASE",
    "SANITIZE, EXIT FAILURE MODE", "WRITE BUFFER", "READ BUFFER(10)", "RECEIVE DIAGNOSTIC RESULTS", "SEND DIAGNOSTIC",
    "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
}  # fmt: skip


def test_a_disk_has_what_hosts_expect() -> None:
    assert {row.name for row in TABLES[DISK].commands} >= WANTED


def test_a_controller_has_no_medium() -> None:
    rows = TABLES[STORAGE_ARRAY_CONTROLLER].commands
    assert not [row.name for row in rows if row.writes or (row.needs_medium and row.opcode != 0)]


@pytest.mark.parametrize("row", ALL_ROWS, ids=lambda row: row.name)
def test_usage_data_fits_the_cdb(row: Command) -> None:
    assert len(row.usage) == CDB_BYTES[row.opcode >> 5]
    assert row.usage[0] == row.opcode
    assert row.action is None or row.usage[1] & 0x1F == row.action
    assert row.usage[-1] & 0x04, "NACA is looked at in every CDB"


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_row_hides_another(table: object) -> None:
    rows = table.commands  # type: ignore[attr-defined]
    assert len({(row.opcode, row.action) for row in rows}) == len(rows)
    plain = {row.opcode for row in rows if row.action is None}
    assert not plain & {row.opcode for row in rows if row.action is not None}


async def test_an_unknown_operation_code() -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(bytes((0xFF,)))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_OPERATION_CODE)


async def test_an_unknown_service_action() -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(bytes((0x9E, 0x1F)))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert answer.sense[15:18] == bytes((0xC0 | 0x08 | 4, 0, 1)), "points at the service action"


async def test_naca_is_refused() -> None:
    answer = await Initiator(make_target({0: MemoryVolume()})).send(bytes((0x00, 0, 0, 0, 0, 0x04)))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_what_is_not_there_knows_three_commands() -> None:
    host = Initiator(make_target({0: MemoryVolume()}))
    assert (await host.send(bytes(6), lun=7)).why == (Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)
    assert (await host.send(bytes((0x28,)), lun=7)).why == (Key.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)
    assert len(TABLES[NO_DEVICE].commands) == 3


async def send_all(target: ScsiTarget, lun: int, commands: list[tuple[bytes, bytes]]) -> list[Answer]:
    host = Initiator(target)
    answers = [host.start(cdb, data, lun)[1] for cdb, data in commands]
    async with asyncio.timeout(20):
        return [await answer for answer in answers]


@st.composite
def cdbs(draw: st.DrawFn) -> bytes:
    """Of a known command more often than not, with any bytes behind the operation code or only where it looks."""
    noise = draw(st.binary(min_size=16, max_size=16))
    if draw(st.integers(0, 9)) == 0:
        return noise
    row = draw(st.sampled_from(TABLES[DISK].commands))
    cdb = bytearray(noise[: len(row.usage)])
    if draw(st.booleans()):
        cdb = bytearray(byte & mask for byte, mask in zip(cdb, row.usage, strict=True))
    if draw(st.booleans()):
        cdb[2:] = (byte & 0x3F if byte & 0x40 else 0 for byte in cdb[2:])
    cdb[0] = row.opcode
    if row.action is not None:
        cdb[1] = cdb[1] & 0xE0 | row.action
    cdb[len(row.usage) - 1] &= ~0x04
    return bytes(cdb).ljust(16, b"\0")


@pytest.mark.parametrize("lun", [0, 1, 2, 3])
@given(commands=st.lists(st.tuples(cdbs(), st.binary(max_size=64)), min_size=1, max_size=8))
@settings(max_examples=int(os.environ.get("ARRAYD_EXAMPLES", "60")))
def test_any_cdb_ends_in_a_status(lun: int, commands: list[tuple[bytes, bytes]]) -> None:
    async def run() -> None:
        removable = MemoryVolume("410001:removable", 1 << 18)
        removable.removable = True
        disks = {1: MemoryVolume("410001:small", 1 << 18, 4096), 2: removable}
        target = make_target(disks)
        for answer in await send_all(target, lun, commands):
            assert answer.status in set(Status)
            assert len(answer.data) <= MAX_TRANSFER_BYTES
            if answer.status == Status.CHECK_CONDITION:
                key = answer.sense[1] if answer.sense[0] == 0x72 else answer.sense[2]
                assert key & 0x0F != Key.HARDWARE_ERROR, (answer, commands)
        await target.stop()
        for unit in target.units.values():
            assert not unit.tasks
            assert target.scratch.used_bytes == 0
        assert target.buffers.used_bytes == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sanitize, "OVERWRITE_SECONDS_MIN", 0.001)
        asyncio.run(run())
