"""PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE, as initiators see them (SPC-5, 5.14, 6.15 and 6.16)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi import transport_id
from arrayd.scsi.persistent import EXCLUSIVE_ACCESS, TYPES, WRITE_EXCLUSIVE, WRITE_EXCLUSIVE_REGISTRANTS_ONLY
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Function, Status
from tests.scsi.initiator import PORTS, Answer, Initiator, MemoryStore, make_target
from tests.scsi.memory_volume import MemoryVolume

READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)
APTPL, ALL_TG_PT, SPEC_I_PT = 0x01, 0x04, 0x08
READ_10 = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
WRITE_10 = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))
RESERVE_6, RELEASE_6 = bytes((0x16, 0, 0, 0, 0, 0)), bytes((0x17, 0, 0, 0, 0, 0))
BLOCK = bytes(512)


class Host(Initiator):
    """An initiator that knows PERSISTENT RESERVE."""

    async def out(
        self, action: int, key: int = 0, new_key: int = 0, kind: int = 0, flags: int = 0, more: bytes = b""
    ) -> Answer:
        data = key.to_bytes(8, "big") + new_key.to_bytes(8, "big") + bytes((0, 0, 0, 0, flags, 0, 0, 0)) + more
        return await self.send(out_cdb(action, len(data), kind), data)

    async def out_good(self, action: int, key: int = 0, new_key: int = 0, kind: int = 0, flags: int = 0) -> None:
        answer = await self.out(action, key, new_key, kind, flags)
        assert answer.status == Status.GOOD, answer

    async def move(self, key: int, new_key: int, to: str, port: int, flags: int = 0, cut: int = 0) -> Answer:
        named = transport_id.build(to)
        data = key.to_bytes(8, "big") + new_key.to_bytes(8, "big") + bytes((0, flags)) + port.to_bytes(2, "big")
        data += len(named).to_bytes(4, "big") + named
        data = data[: len(data) - cut]
        return await self.send(out_cdb(REGISTER_AND_MOVE, len(data)), data)

    async def keys(self) -> list[int]:
        data = await self.good(in_cdb(READ_KEYS))
        assert int.from_bytes(data[4:8], "big") == len(data) - 8
        return [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]

    async def generation(self) -> int:
        return int.from_bytes((await self.good(in_cdb(READ_KEYS)))[:4], "big")

    async def reservation(self) -> tuple[int, int] | None:
        """Key and type."""
        data = await self.good(in_cdb(READ_RESERVATION))
        assert int.from_bytes(data[4:8], "big") == len(data) - 8
        return (int.from_bytes(data[8:16], "big"), data[21]) if len(data) > 8 else None


async def turns() -> None:
    """Everything that can go on without waiting, goes on."""
    for _ in range(10):
        await asyncio.sleep(0)


def out_cdb(action: int, length: int, kind: int = 0) -> bytes:
    return bytes((0x5F, action, kind, 0, 0)) + length.to_bytes(4, "big") + b"\0"


def in_cdb(action: int, allocation_length: int = 65535) -> bytes:
    return bytes((0x5E, action, 0, 0, 0, 0, 0)) + allocation_length.to_bytes(2, "big") + b"\0"


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
    """Three hosts; the third comes by the second port."""
    return Host(target, "iqn.x:a"), Host(target, "iqn.x:b"), Host(target, "iqn.x:c", port=PORTS[1])


async def registered(*hosts: Host) -> None:
    for key, host in enumerate(hosts, 0xA):
        await host.out_good(REGISTER, 0, key)


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


# -- PREEMPT AND ABORT -------------------------------------------------------------------------------------------------


async def test_preempt_and_abort_waits_until_the_victims_tasks_have_ended(
    volume: MemoryVolume, hosts: tuple[Host, Host, Host]
) -> None:
    a, b, c = hosts
    await registered(a, b, c)
    volume.held = asyncio.Event()
    victim, victim_answer = b.start(WRITE_10, BLOCK)
    bystander, bystander_answer = c.start(WRITE_10, BLOCK)
    _, answer = a.start(out_cdb(PREEMPT_AND_ABORT, 24), (0xA).to_bytes(8, "big") + (0xB).to_bytes(8, "big") + bytes(8))
    await turns()
    assert victim.aborted
    assert not bystander.aborted
    assert not answer.done()
    volume.held.set()
    assert (await answer).status == Status.GOOD
    assert victim_answer.done()
    assert (await bystander_answer).status == Status.GOOD
    assert await b.attention() is Asc.REGISTRATIONS_PREEMPTED
    assert await b.attention() is Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR
    assert await c.attention() is None


async def test_two_who_preempt_and_abort_one_another(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    await registered(a, b)
    lists = [x.to_bytes(8, "big") + y.to_bytes(8, "big") + bytes(8) for x, y in ((0xA, 0xB), (0xB, 0xA))]
    answers = [host.start(out_cdb(PREEMPT_AND_ABORT, 24), data)[1] for host, data in zip((a, b), lists, strict=True)]
    await asyncio.gather(*answers)
    assert await a.keys() == [0xA]


# -- APTPL -------------------------------------------------------------------------------------------------------------


async def test_aptpl_is_kept_before_it_is_answered(volume: MemoryVolume, store: MemoryStore) -> None:
    target = make_target({0: volume}, store)
    a = Host(target, "iqn.x:a")
    store.saving = asyncio.Event()
    data = bytes(8) + (0xA).to_bytes(8, "big") + bytes((0, 0, 0, 0, APTPL, 0, 0, 0))
    _, answer = a.start(out_cdb(REGISTER, 24), data)
    await turns()
    assert not answer.done()
    store.saving.set()
    assert (await answer).status == Status.GOOD
    await a.out_good(RESERVE, 0xA, kind=EXCLUSIVE_ACCESS)

    restarted = make_target({0: volume}, store)
    a, b = Host(restarted, "iqn.x:a"), Host(restarted, "iqn.x:b")
    assert await b.keys() == [0xA]
    assert await b.generation() == 0
    assert (await b.send(READ_10)).status == Status.RESERVATION_CONFLICT
    await a.out_good(REGISTER, 0xA, 0xC)  # APTPL is 0 now
    assert await make_and_read_keys(volume, store) == []


async def make_and_read_keys(volume: MemoryVolume, store: MemoryStore) -> list[int]:
    return await Host(make_target({0: volume}, store), "iqn.x:a").keys()


async def test_without_aptpl_nothing_is_kept(
    volume: MemoryVolume, store: MemoryStore, hosts: tuple[Host, Host, Host]
) -> None:
    a, _, _ = hosts
    await registered(a)
    assert store.kept == {}
    assert await make_and_read_keys(volume, store) == []


async def test_what_cannot_be_kept_does_not_happen(store: MemoryStore, hosts: tuple[Host, Host, Host]) -> None:
    a, _, _ = hosts
    store.failure = OSError("no disk")
    assert (await a.out(REGISTER, 0, 1, flags=APTPL)).why == (Key.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    assert await a.keys() == []


async def test_changes_at_the_same_time_happen_one_after_the_other(
    store: MemoryStore, hosts: tuple[Host, Host, Host]
) -> None:
    a, b, _ = hosts
    store.saving = asyncio.Event()
    lists = [bytes(8) + key.to_bytes(8, "big") + bytes((0, 0, 0, 0, APTPL, 0, 0, 0)) for key in (0xA, 0xB)]
    answers = [host.start(out_cdb(REGISTER, 24), data)[1] for host, data in zip((a, b), lists, strict=True)]
    store.saving.set()
    await asyncio.gather(*answers)
    assert await a.keys() == [0xA, 0xB]
    assert list(store.kept["410001:data"].registrations.values()) == [0xA, 0xB]


async def test_a_task_that_is_aborted_in_the_queue_changes_nothing(
    store: MemoryStore, hosts: tuple[Host, Host, Host]
) -> None:
    a, b, _ = hosts
    store.saving = asyncio.Event()
    data = bytes(8) + (0xA).to_bytes(8, "big") + bytes((0, 0, 0, 0, APTPL, 0, 0, 0))
    first = a.start(out_cdb(REGISTER, 24), data)[1]
    task, second = b.start(out_cdb(REGISTER, 24), data)
    await asyncio.sleep(0)
    done = asyncio.get_running_loop().create_future()
    b.nexus.manage(Function.ABORT_TASK, 0, task.tag, done.set_result)
    store.saving.set()
    await asyncio.gather(first, second, done)
    assert await a.keys() == [0xA]


# -- RESERVE and RELEASE -----------------------------------------------------------------------------------------------


async def test_reserve_keeps_the_others_out(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    await a.good(RESERVE_6)
    await a.good(RESERVE_6)
    await a.good(WRITE_10, BLOCK)
    for cdb, data in ((READ_10, b""), (WRITE_10, BLOCK), (bytes(6), b""), (RESERVE_6, b"")):
        assert (await b.send(cdb, data)).status == Status.RESERVATION_CONFLICT
    await b.good(bytes((0x12, 0, 0, 0, 96, 0)))  # INQUIRY
    await b.good(RELEASE_6)
    assert (await c.send(READ_10)).status == Status.RESERVATION_CONFLICT
    await a.good(bytes((0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0)))  # RELEASE(10)
    await b.good(bytes((0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0)))  # RESERVE(10)
    assert (await a.send(READ_10)).status == Status.RESERVATION_CONFLICT


async def test_reserve_ends_with_the_nexus_and_with_a_reset(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    await a.good(RESERVE_6)
    a.leave()
    await b.good(RESERVE_6)
    done = asyncio.get_running_loop().create_future()
    c.nexus.manage(Function.LUN_RESET, 0, 0, done.set_result)
    await done
    await c.attention()
    await c.good(RESERVE_6)


async def test_reserve_and_persistent_reservations_exclude_one_another(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    await a.good(RESERVE_6)
    for host in (a, b):
        assert (await host.send(in_cdb(READ_KEYS))).status == Status.GOOD
        assert (await host.send(in_cdb(READ_RESERVATION))).status == Status.RESERVATION_CONFLICT
        assert (await host.out(REGISTER, 0, 1)).status == Status.RESERVATION_CONFLICT
    await a.good(RELEASE_6)
    await registered(a)
    for cdb in (RESERVE_6, RELEASE_6):
        assert (await b.send(cdb)).status == Status.RESERVATION_CONFLICT
        assert (await a.send(cdb)).status == Status.RESERVATION_CONFLICT


@pytest.mark.parametrize("kind", sorted(TYPES))
async def test_reserve_is_good_for_who_has_it_anyway(hosts: tuple[Host, Host, Host], kind: int) -> None:
    """CRH (SPC-4, 5.13.3)."""
    a, b, c = hosts
    await registered(a, b)
    await a.out_good(RESERVE, 0xA, kind=kind)
    shared = kind not in (WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS)
    for cdb in (RESERVE_6, RELEASE_6):
        await a.good(cdb)
        assert (await b.send(cdb)).status == (Status.GOOD if shared else Status.RESERVATION_CONFLICT)
        assert (await c.send(cdb)).status == Status.RESERVATION_CONFLICT
    assert await a.reservation() is not None


async def test_reserve_while_a_registration_is_being_kept(store: MemoryStore, hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    store.saving = asyncio.Event()
    data = bytes(8) + (0xA).to_bytes(8, "big") + bytes((0, 0, 0, 0, APTPL, 0, 0, 0))
    _, answer = a.start(out_cdb(REGISTER, 24), data)
    await asyncio.sleep(0)
    assert (await b.send(RESERVE_6)).status == Status.RESERVATION_CONFLICT
    store.saving.set()
    assert (await answer).status == Status.GOOD


@pytest.mark.parametrize("bits", [0x10, 0x02, 0x01])
async def test_third_parties_and_extents_are_refused(hosts: tuple[Host, Host, Host], bits: int) -> None:
    a, _, _ = hosts
    for opcode in (0x16, 0x17):
        assert (await a.send(bytes((opcode, bits, 0, 0, 0, 0)))).why == (Key.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


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
