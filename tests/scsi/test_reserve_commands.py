"""PERSISTENT RESERVE IN and OUT as initiators see them (SPC-5, 5.14, 6.15 and 6.16)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi import transport_id
from arrayd.scsi.persistent import EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE, WRITE_EXCLUSIVE_REGISTRANTS_ONLY
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Function, Status
from tests.scsi.host import (
    ALL_TG_PT,
    APTPL,
    BLOCK,
    CLEAR,
    PREEMPT,
    PREEMPT_AND_ABORT,
    READ_10,
    READ_FULL_STATUS,
    READ_KEYS,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    REPORT_CAPABILITIES,
    RESERVE,
    SPEC_I_PT,
    WRITE_10,
    Host,
    in_cdb,
    out_cdb,
    registered,
    three_hosts,
)
from tests.scsi.initiator import PORTS, MemoryStore, make_target
from tests.scsi.memory_volume import MemoryVolume


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def target(volume: MemoryVolume, store: MemoryStore) -> ScsiTarget:
    return make_target({0: volume}, store)


@pytest.fixture
def hosts(target: ScsiTarget) -> tuple[Host, Host, Host]:
    return three_hosts(target)


# -- PERSISTENT RESERVE IN ---------------------------------------------------------------------------------------------


async def test_read_keys_and_reservation(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    assert await a.keys() == []
    assert await a.reservation() is None
    await registered(a, b)
    await a.out_good(RESERVE, 0xA, kind=WRITE_EXCLUSIVE)
    assert await b.keys() == [0xA, 0xB]
    assert await b.reservation() == (0xA, WRITE_EXCLUSIVE)
    assert await a.good(in_cdb(READ_KEYS, 12)) == bytes.fromhex("00000002 00000010 00000000")


async def test_read_reservation_of_all_registrants_has_no_key(hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    await registered(a)
    await a.out_good(RESERVE, 0xA, kind=7)
    assert await a.reservation() == (0, 7)


async def test_report_capabilities(hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    assert await a.good(in_cdb(REPORT_CAPABILITIES)) == bytes.fromhex("0008 1d 80 ea01 0000")
    await a.out_good(REGISTER, 0, 1, flags=APTPL)
    assert await a.good(in_cdb(REPORT_CAPABILITIES)) == bytes.fromhex("0008 1d 81 ea01 0000")


async def test_read_full_status(hosts: tuple[Host, Host, Host]) -> None:
    a, _, c = hosts
    await registered(a, c)
    await c.out_good(RESERVE, 0xB, kind=EXCLUSIVE_ACCESS)
    ids = [transport_id.build(f"iqn.x:{name},i,0x00023d000001") for name in "ac"]
    lengths = [len(named).to_bytes(4, "big") for named in ids]
    status = (
        bytes.fromhex("000000000000000a 00000000 00 00 00000000 0001") + lengths[0] + ids[0],
        bytes.fromhex("000000000000000b 00000000 01 03 00000000 0002") + lengths[1] + ids[1],
    )
    body = b"".join(status)
    assert await a.good(in_cdb(READ_FULL_STATUS)) == bytes((0, 0, 0, 2)) + len(body).to_bytes(4, "big") + body


# -- PERSISTENT RESERVE OUT --------------------------------------------------------------------------------------------


async def test_generation_counts_what_changes_registrations(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    await registered(a, b)
    assert await a.generation() == 2
    await a.out_good(RESERVE, 0xA, kind=WRITE_EXCLUSIVE)
    await a.out_good(RELEASE, 0xA, kind=WRITE_EXCLUSIVE)
    assert (await a.out(REGISTER, 0xF, 1)).status == Status.RESERVATION_CONFLICT
    assert await a.generation() == 2
    await a.out_good(REGISTER_AND_IGNORE, 0, 0xA)
    await a.out_good(PREEMPT, 0xA, 0xB)
    await a.out_good(CLEAR, 0xA)
    assert await a.generation() == 5


@pytest.mark.parametrize("action", [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT])
async def test_the_unregistered_and_the_wrong_key_conflict(hosts: tuple[Host, Host, Host], action: int) -> None:
    a, b, _ = hosts
    await registered(a)
    assert (await b.out(action, 0, 0xA, WRITE_EXCLUSIVE)).status == Status.RESERVATION_CONFLICT
    assert (await a.out(action, 0xF, 0xA, WRITE_EXCLUSIVE)).status == Status.RESERVATION_CONFLICT


async def test_unit_attentions_reach_who_is_concerned(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    await registered(a, b, c)
    await a.out_good(RESERVE, 0xA, kind=WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    await a.out_good(RELEASE, 0xA, kind=WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    assert [await host.attention() for host in hosts] == [None, Asc.RESERVATIONS_RELEASED, Asc.RESERVATIONS_RELEASED]
    await a.out_good(PREEMPT, 0xA, 0xC)
    assert [await host.attention() for host in hosts] == [None, None, Asc.REGISTRATIONS_PREEMPTED]
    await b.out_good(CLEAR, 0xB)
    assert [await host.attention() for host in hosts] == [Asc.RESERVATIONS_PREEMPTED, None, None]


async def test_registrations_outlive_the_session(target: ScsiTarget, hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    await registered(a)
    await a.out_good(RESERVE, 0xA, kind=EXCLUSIVE_ACCESS)
    a.leave()
    assert (await b.send(READ_10)).status == Status.RESERVATION_CONFLICT
    again = Host(target, "iqn.x:a")
    await again.good(READ_10)
    other_session = Host(target, "iqn.x:a", isid=bytes(6))
    assert (await other_session.send(READ_10)).status == Status.RESERVATION_CONFLICT


async def test_a_lun_reset_leaves_persistent_reservations(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    await registered(a)
    await a.out_good(RESERVE, 0xA, kind=EXCLUSIVE_ACCESS)
    done = asyncio.get_running_loop().create_future()
    a.nexus.manage(Function.LUN_RESET, 0, 0, done.set_result)
    await done
    await b.attention()
    assert (await b.send(READ_10)).status == Status.RESERVATION_CONFLICT


async def test_all_target_ports(target: ScsiTarget, hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    await a.out_good(REGISTER, 0, 1, flags=ALL_TG_PT)
    assert await a.keys() == [1, 1]
    other_path = Host(target, "iqn.x:a", port=PORTS[1])
    await other_path.out_good(RESERVE, 1, kind=WRITE_EXCLUSIVE)
    await a.out_good(REGISTER, 1, 0, flags=ALL_TG_PT)
    assert await a.keys() == []


def listed(*names: str) -> bytes:
    ids = b"".join(transport_id.build(name) for name in names)
    return len(ids).to_bytes(4, "big") + ids


async def test_specify_initiator_ports(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    more = listed("iqn.x:b,i,0x00023d000001", "iqn.x:z,i,0x000000000001")
    answer = await a.out(REGISTER, 0, 5, flags=SPEC_I_PT, more=more)
    assert answer.status == Status.GOOD
    assert await a.keys() == [5, 5, 5]
    await b.out_good(RESERVE, 5, kind=WRITE_EXCLUSIVE)
    answer = await a.out(REGISTER, 5, 6, flags=SPEC_I_PT, more=more)
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)


@pytest.mark.parametrize(
    ("action", "more", "asc"),
    [
        (REGISTER, b"", Asc.PARAMETER_LIST_LENGTH_ERROR),
        (REGISTER, bytes((0, 0, 0, 4)), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (REGISTER, bytes((0, 0, 0, 4, 0x45, 0, 0, 0)), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (REGISTER_AND_IGNORE, listed("iqn.x:b,i,0x00023d000001"), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (RESERVE, b"", Asc.INVALID_FIELD_IN_PARAMETER_LIST),
    ],
)
async def test_specify_initiator_ports_wrongly(
    hosts: tuple[Host, Host, Host], action: int, more: bytes, asc: Asc
) -> None:
    a, _, _ = hosts
    assert (await a.out(action, 0, 5, flags=SPEC_I_PT, more=more)).why == (Key.ILLEGAL_REQUEST, asc)
    assert await a.keys() == []


async def test_reserving_and_releasing_wrongly(hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    await registered(a)
    for kind in (0, 2, 4, 9, 0x11):
        assert (await a.out(RESERVE, 0xA, kind=kind)).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    await a.out_good(RESERVE, 0xA, kind=WRITE_EXCLUSIVE)
    why = (await a.out(RELEASE, 0xA, kind=EXCLUSIVE_ACCESS)).why
    assert why == (Key.ILLEGAL_REQUEST, Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION)


async def test_register_and_move(target: ScsiTarget, hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    await registered(a)
    await a.out_good(RESERVE, 0xA, kind=WRITE_EXCLUSIVE)
    answer = await a.move(0xA, 0xB, "iqn.x:b,i,0x00023D000001", PORTS[0], flags=0x02)
    assert answer.status == Status.GOOD
    assert await b.keys() == [0xB]
    assert await b.reservation() == (0xB, WRITE_EXCLUSIVE)
    await b.good(WRITE_10, BLOCK)
    assert (await a.send(WRITE_10, BLOCK)).status == Status.RESERVATION_CONFLICT


async def test_register_and_move_wrongly(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    to = "iqn.x:b,i,0x00023d000001"
    await registered(a, b)
    assert (await a.move(0xA, 1, to, PORTS[0])).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    await a.out_good(RESERVE, 0xA, kind=WRITE_EXCLUSIVE)
    assert (await a.move(0xF, 1, to, PORTS[0])).status == Status.RESERVATION_CONFLICT
    assert (await b.move(0xB, 1, to, PORTS[1])).status == Status.RESERVATION_CONFLICT
    in_list = (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    assert (await a.move(0xA, 0, to, PORTS[0])).why == in_list
    assert (await a.move(0xA, 1, to, 99)).why == in_list
    assert (await a.move(0xA, 1, "iqn.x:a,i,0x00023d000001", PORTS[0])).why == in_list
    assert (await a.move(0xA, 1, "no port name, but long enough", PORTS[0])).why == in_list
    length = (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
    assert (await a.move(0xA, 1, to, PORTS[0], cut=4)).why == length
    assert await a.keys() == [0xA, 0xB]
    assert await a.reservation() == (0xA, WRITE_EXCLUSIVE)


@pytest.mark.parametrize("length", [0, 8, 23, 25, 28, 1 << 20])
async def test_parameter_list_length(hosts: tuple[Host, Host, Host], length: int) -> None:
    a, _, _ = hosts
    answer = await a.send(out_cdb(REGISTER, length), bytes(min(length, 64)))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


async def test_less_data_than_the_list_is_long(hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    answer = await a.send(out_cdb(REGISTER, 24), bytes(20))
    assert answer.why == (Key.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


async def test_unknown_service_actions(hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    for action in range(4, 32):
        assert (await a.send(in_cdb(action))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    for action in range(8, 32):
        assert (await a.out(action)).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


# -- whatever comes ----------------------------------------------------------------------------------------------------

parameter_lists = st.one_of(
    st.binary(max_size=128),
    st.tuples(st.binary(min_size=20, max_size=20), st.integers(0, 255), st.binary(max_size=80)).map(
        lambda parts: parts[0] + bytes((parts[1],)) + parts[2]
    ),
    st.tuples(st.binary(min_size=20, max_size=20), st.integers(0, 80), st.binary(max_size=80)).map(
        lambda parts: parts[0] + parts[1].to_bytes(4, "big") + b"\x45\x00\x00" + parts[2]
    ),
)


@given(st.integers(0, 31), st.integers(0, 255), parameter_lists, st.integers(-4, 4))
async def test_random_parameter_lists_fail_as_scsi_says(action: int, kind: int, data: bytes, off: int) -> None:
    a = Host(make_target({0: MemoryVolume(size=65536)}), "iqn.x:a")
    await a.out_good(REGISTER, 0, 0)
    answer = await a.send(out_cdb(action, max(0, len(data) + off), kind), data)
    assert answer.status in (Status.GOOD, Status.CHECK_CONDITION, Status.RESERVATION_CONFLICT)
    if answer.status == Status.CHECK_CONDITION:
        assert answer.why[0] is Key.ILLEGAL_REQUEST
