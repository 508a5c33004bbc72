"""PERSISTENT RESERVE OUT that waits: for tasks to end, for the store, for its turn; and RESERVE and RELEASE (SPC-2)."""

from __future__ import annotations

import asyncio

import pytest

from arrayd.scsi.persistent import EXCLUSIVE_ACCESS, TYPES, WRITE_EXCLUSIVE
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Function, Status
from tests.scsi.host import (
    APTPL,
    BLOCK,
    PREEMPT_AND_ABORT,
    READ_10,
    READ_KEYS,
    READ_RESERVATION,
    REGISTER,
    RESERVE,
    WRITE_10,
    Host,
    in_cdb,
    out_cdb,
    registered,
    three_hosts,
)
from tests.scsi.initiator import MemoryStore, make_target, turns
from tests.scsi.memory_volume import MemoryVolume

RESERVE_6, RELEASE_6 = bytes((0x16, 0, 0, 0, 0, 0)), bytes((0x17, 0, 0, 0, 0, 0))


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
