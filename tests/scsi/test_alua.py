"""Target port groups: what is reported, what sets a state, and what a state refuses (SPC-5, 5.17, 6.37 and 6.45)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.alua import AccessState, Port, set_access_state
from arrayd.scsi.logical_unit import LogicalUnit
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.task import Status
from tests.scsi.initiator import GROUP, Answer, Initiator, disk_unit, make_target
from tests.scsi.memory_volume import MemoryVolume

TEST_UNIT_READY = bytes(6)
INQUIRY = bytes((0x12, 0, 0, 0, 96, 0))
REPORT_LUNS = bytes((0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0))
REQUEST_SENSE = bytes((0x03, 0, 0, 0, 18, 0))
MODE_SENSE = bytes((0x1A, 0, 0x0A, 0, 255, 0))
READ_KEYS = bytes((0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0))
READ_10 = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
IN_LIST = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)


def report_cdb(parameter_format: int = 0, allocation_length: int = 4096) -> bytes:
    return bytes((0xA3, parameter_format << 5 | 0x0A, 0, 0, 0, 0)) + allocation_length.to_bytes(4, "big") + bytes(2)


async def set_states(host: Initiator, *descriptors: tuple[int, int], cut: int = 0, lun: int = 0) -> Answer:
    """SET TARGET PORT GROUPS with pairs of state and group."""
    data = bytes(4) + b"".join(bytes((state, 0)) + group.to_bytes(2, "big") for state, group in descriptors)
    data = data[: len(data) - cut]
    return await host.send(bytes((0xA4, 0x0A, 0, 0, 0, 0)) + len(data).to_bytes(4, "big") + bytes(2), data, lun)


def make() -> tuple[LogicalUnit, Initiator, Initiator]:
    target = make_target({0: MemoryVolume(), 1: MemoryVolume("410001:other")})
    return disk_unit(target, 0), Initiator(target, "iqn.x:a"), Initiator(target, "iqn.x:b")


async def test_report_with_the_length_only() -> None:
    _, a, _ = make()
    assert await a.good(report_cdb()) == bytes.fromhex("00000010 80 8f 4101 00 00 00 02 00000001 00000002")
    assert await a.good(report_cdb(allocation_length=4)) == bytes.fromhex("00000010")


async def test_report_with_the_extended_header() -> None:
    _, a, _ = make()
    expected = "00000014 10 00 0000 80 8f 4101 00 00 00 02 00000001 00000002"
    assert await a.good(report_cdb(1)) == bytes.fromhex(expected)


async def test_report_in_an_unknown_format() -> None:
    _, a, _ = make()
    for parameter_format in range(2, 8):
        assert (await a.send(report_cdb(parameter_format))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


async def test_a_host_sets_a_state_and_the_others_are_told() -> None:
    _, a, b = make()
    assert (await set_states(a, (AccessState.ACTIVE_NON_OPTIMIZED, GROUP))).status == Status.GOOD
    assert await a.attention() is None
    assert await b.attention() is Asc.ASYMMETRIC_ACCESS_STATE_CHANGED
    data = await b.good(report_cdb())
    assert (data[4], data[9]) == (0x81, 1)
    assert (await b.good(report_cdb(), lun=1))[4] == 0x80


async def test_the_array_sets_a_state_and_all_are_told() -> None:
    unit, a, b = make()
    set_access_state(unit, unit.port_groups.own, AccessState.ACTIVE_NON_OPTIMIZED, None)
    for host in (a, b):
        assert await host.attention() is Asc.ASYMMETRIC_ACCESS_STATE_CHANGED
    data = await a.good(report_cdb())
    assert (data[4], data[9]) == (0x81, 2)


async def test_setting_the_state_that_is_tells_nobody() -> None:
    _, a, b = make()
    assert (await set_states(a, (AccessState.ACTIVE_OPTIMIZED, GROUP))).status == Status.GOOD
    assert await b.attention() is None


async def test_an_empty_list_sets_nothing() -> None:
    _, a, b = make()
    assert (await set_states(a)).status == Status.GOOD
    assert (await set_states(a, cut=4)).status == Status.GOOD
    assert await b.attention() is None


@pytest.mark.parametrize(
    "descriptors",
    [
        ((AccessState.TRANSITIONING, GROUP),),
        ((0x4, GROUP),),
        ((0xE, GROUP),),
        ((AccessState.STANDBY, GROUP + 1),),
        ((AccessState.STANDBY, GROUP), (AccessState.STANDBY, 0)),
    ],
)
async def test_a_wrong_list_changes_nothing(descriptors: tuple[tuple[int, int], ...]) -> None:
    unit, a, _ = make()
    assert (await set_states(a, *descriptors)).why == IN_LIST
    assert unit.port_groups.own.state is AccessState.ACTIVE_OPTIMIZED


async def test_a_cut_list_changes_nothing() -> None:
    unit, a, _ = make()
    for cut in (1, 2, 3):
        answer = await set_states(a, (AccessState.STANDBY, GROUP), cut=cut)
        assert answer.why == (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
    assert unit.port_groups.own.state is AccessState.ACTIVE_OPTIMIZED


ALWAYS = (INQUIRY, REPORT_LUNS, REQUEST_SENSE, report_cdb())


@pytest.mark.parametrize(
    ("state", "allowed", "refused", "asc"),
    [
        (
            AccessState.STANDBY,
            (*ALWAYS, MODE_SENSE, READ_KEYS),
            (TEST_UNIT_READY, READ_10),
            Asc.TARGET_PORT_IN_STANDBY,
        ),
        (
            AccessState.UNAVAILABLE,
            ALWAYS,
            (TEST_UNIT_READY, READ_10, MODE_SENSE, READ_KEYS),
            Asc.TARGET_PORT_UNAVAILABLE,
        ),
        (
            AccessState.TRANSITIONING,
            ALWAYS,
            (TEST_UNIT_READY, READ_10, MODE_SENSE, READ_KEYS),
            Asc.ASYMMETRIC_ACCESS_TRANSITION,
        ),
        (AccessState.ACTIVE_NON_OPTIMIZED, (*ALWAYS, MODE_SENSE, READ_KEYS, TEST_UNIT_READY, READ_10), (), Asc.NONE),
    ],
)
async def test_states_refuse_commands(
    state: AccessState, allowed: tuple[bytes, ...], refused: tuple[bytes, ...], asc: Asc
) -> None:
    unit, a, _ = make()
    set_access_state(unit, unit.port_groups.own, state, a.nexus)
    for cdb in allowed:
        await a.good(cdb)
    for cdb in refused:
        assert (await a.send(cdb)).why == (Key.NOT_READY, asc)
    assert bool(unit.fast_tables[a.nexus]) == (not refused)
    if state is AccessState.TRANSITIONING:
        assert (await set_states(a, (AccessState.ACTIVE_OPTIMIZED, GROUP))).why == (Key.NOT_READY, asc)
        return
    assert (await set_states(a, (AccessState.ACTIVE_OPTIMIZED, GROUP))).status == Status.GOOD
    await a.good(READ_10)
    assert unit.fast_tables[a.nexus]


@given(st.binary(max_size=64), st.integers(-2, 4))
async def test_random_parameter_lists_fail_as_scsi_says(data: bytes, off: int) -> None:
    _, a, _ = make()
    length = max(0, len(data) + off)
    answer = await a.send(bytes((0xA4, 0x0A, 0, 0, 0, 0)) + length.to_bytes(4, "big") + bytes(2), data)
    assert answer.status == Status.GOOD or answer.why[0] is Key.ILLEGAL_REQUEST


async def test_a_group_of_another_array_is_active_and_not_optimized() -> None:
    """Through it the unit is the same disk: host b comes by port 7 of group 4102."""
    unit, a, _ = make()
    port = Port(7, 0x4102, "iqn.2026-11.io.arrayd:near,t,0x0001")
    b = Initiator(a.nexus.target, "iqn.x:c", port=7, through=port)
    expected = "0000001c 80 8f 4101 00 00 00 02 00000001 00000002 01 8e 4102 00 00 00 01 00000007"
    for host in (a, b):
        assert await host.good(report_cdb()) == bytes.fromhex(expected)
    page = await b.good(bytes((0x12, 1, 0x83, 2, 0, 0)))
    assert b"iqn.2026-11.io.arrayd:near,t,0x0001" in page
    assert bytes.fromhex("51 95 00 04 0000 4102".replace(" ", "")) in page
    # What Linux asks for when dm-multipath turns to this path: it must not make it as good as the direct one.
    assert (await set_states(b, (AccessState.ACTIVE_OPTIMIZED, 0x4102))).why == IN_LIST
    assert await b.good(report_cdb()) == bytes.fromhex(expected)
    assert (await set_states(a, (AccessState.STANDBY, 0x4102))).status == Status.GOOD
    assert await b.attention() is Asc.ASYMMETRIC_ACCESS_STATE_CHANGED
    assert (await b.send(READ_10)).why == (Key.NOT_READY, Asc.TARGET_PORT_IN_STANDBY)
    assert (await a.send(READ_10)).status == Status.GOOD
    assert unit.port_groups.own.state is AccessState.ACTIVE_OPTIMIZED
