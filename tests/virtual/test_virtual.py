"""Virtual volumes: what a host sees of a logical unit that is one or two arrays away (figures 3, 4 and 22)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from arrayd.link.handshake import RefusedError
from tests.lab.array import TEST_UNIT_READY, SlowSyncs, attentions, luns, read, write
from tests.lab.initiator import CHECK_CONDITION, GOOD, NAME
from tests.lab.pdu import IMMEDIATE, Opcode, request
from tests.lab.row import Row
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

POWER_ON = 0x2900
NOT_READY = 2
ABORTED_COMMAND = 0xB
ABORT_TASK = 1
TASK_ABORTED = 0x40
SYNCHRONIZE_CACHE = bytes((0x35,)) + bytes(9)
RESERVATION_CONFLICT = 0x18
LUN_RESET, TARGET_WARM_RESET = 5, 6
MIB = 1024 * 1024


async def test_every_array_shows_the_same_disk_by_its_own_port(row: Row) -> None:
    pages = []
    for name in "abc":
        async with await row.session(name) as host:
            await attentions(host)
            page = (await host.command(bytes((0x12, 1, 0x83, 4, 0, 0)), read_bytes=1024)).data
            assert f"iqn.2026-11.io.arrayd:{name},t,0x0001".encode() in page
            pages.append(page)
            assert (await host.command(TEST_UNIT_READY)).status == GOOD
    naa = {page[4:16] for page in pages}
    assert len(naa) == 1


async def test_long_transfers_and_residuals(row: Row) -> None:
    data = os.urandom(512 * 1024)
    async with await row.session("a") as host:
        await attentions(host)
        assert (await host.command(write(0, 1024), data_out=data)).status == GOOD
        answer = await host.command(read(0, 1024), read_bytes=len(data))
        assert (answer.status, answer.data == data, answer.residual) == (GOOD, True, 0)
        short = await host.command(read(0, 8), read_bytes=512)
        assert (short.status, short.data, short.residual) == (GOOD, data[:512], -7 * 512)
        spare = await host.command(read(0, 1), read_bytes=1024)
        assert (spare.status, spare.data, spare.residual) == (GOOD, data[:512], 512)


async def test_what_the_last_array_refuses_comes_back_with_its_sense(row: Row) -> None:
    async with await row.session("a") as host:
        await attentions(host)
        answer = await host.command(read(1 << 20), read_bytes=512)
        assert (answer.status, answer.sense_key, answer.additional_sense) == (CHECK_CONDITION, 5, 0x2100)
        answer = await host.command(bytes((0xC0,)) + bytes(9))
        assert (answer.sense_key, answer.additional_sense) == (5, 0x2000)


async def test_luns_are_those_of_the_array_that_is_asked(row: Row) -> None:
    async with await row.session("a") as host:
        assert await luns(host) == [0]


async def test_the_ports_of_all_arrays_are_reported_and_those_before_are_not_optimized(row: Row) -> None:
    reports = []
    for name in "abc":
        async with await row.session(name) as host:
            await attentions(host)
            reports.append(
                (await host.command(bytes((0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0)), read_bytes=1024)).data
            )
    states = [[report[at] & 0x0F for at in range(4, len(report), 12)] for report in reports]
    assert states == [[0, 1], [0, 1, 1], [0, 1, 1]]


async def test_a_reservation_holds_whatever_way_a_host_comes(row: Row) -> None:
    """One logical unit that is seen by more than one target port (SPC-5, 5.13)."""
    register = bytes((0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0))
    reserve = bytes((0x5F, 1, 1, 0, 0, 0, 0, 0, 24, 0))
    key = b"near-key"
    async with await row.session("a") as near, await row.session("c", name="iqn.x:other") as far:
        await attentions(near)
        await attentions(far)
        assert (await near.command(register, data_out=bytes(8) + key + bytes(8))).status == GOOD
        assert (await near.command(reserve, data_out=key + bytes(16))).status == GOOD
        assert (await far.command(write(0), data_out=bytes(512))).status == RESERVATION_CONFLICT
        assert (await near.command(write(0), data_out=bytes(512))).status == GOOD
        status = (await far.command(bytes((0x5E, 3, 0, 0, 0, 0, 0, 2, 0, 0)), read_bytes=512)).data
        assert NAME.encode() in status
        (port,) = {int.from_bytes(status[at : at + 2]) for at in (8 + 18,)}
        assert port == row.arrays["a"]._target.port_groups.own.identifier


async def test_a_reset_through_one_array_is_told_to_hosts_of_the_other(row: Row) -> None:
    async with await row.session("a") as near, await row.session("c", name="iqn.x:other") as far:
        await attentions(near)
        await attentions(far)
        response = await near.exchange(
            request(Opcode.TASK_MANAGEMENT | IMMEDIATE, 0x80 | LUN_RESET), Opcode.TASK_MANAGEMENT_RESPONSE
        )
        assert response.header[2] == 0
        assert await attentions(near) == [0x2903]
        assert await attentions(far) == [0x2903]


async def test_the_last_array_is_started_again(row: Row) -> None:
    """What was written stays; the host is told that the unit was reset, as it is on a local one."""
    async with await row.session("a") as host:
        await attentions(host)
        assert (await host.command(write(0), data_out=b"x" * 512)).status == GOOD
        await row.stop("c")
        await row.start("c")
        assert await attentions(host) == [POWER_ON]
        assert (await host.command(read(0), read_bytes=512)).data == b"x" * 512


async def test_an_array_in_between_is_started_again(row: Row) -> None:
    async with await row.session("a") as host:
        await attentions(host)
        await row.stop("b")
        await row.start("b", ("c", 0))
        assert await attentions(host) == [POWER_ON]
        assert (await host.command(read(0), read_bytes=512)).status == GOOD


async def test_without_a_link_the_host_hears_so_in_bounded_time_and_then_at_once(row: Row) -> None:
    async with await row.session("a") as host:
        await attentions(host)
        await row.stop("b")
        for limit in (5.0, 0.2):
            began = asyncio.get_running_loop().time()
            answer = await host.command(write(0), data_out=bytes(512))
            assert (answer.sense_key, answer.additional_sense) == (NOT_READY, 0x040C)
            assert asyncio.get_running_loop().time() - began < limit


async def test_a_cut_is_not_noticed(row: Row) -> None:
    """While the host writes and reads, both links are cut again and again."""
    async with await row.session("a") as host:
        await attentions(host)
        for number in range(100):
            data = bytes([number]) * 512
            writing = asyncio.ensure_future(host.command(write(number), data_out=data))
            await asyncio.sleep(0.0005 * (number % 4))
            near, far = ("a", "b") if number % 2 else ("b", "c")
            stream = row.arrays[near]._links.peers[far].stream
            if stream is not None:
                stream.close("cut by the test")
            assert (await writing).status == GOOD
            answer = await host.command(read(number), read_bytes=512)
            assert (answer.status, answer.data) == (GOOD, data)


async def test_a_loop_is_refused_and_never_followed(row: Row) -> None:
    """b leads to a, and a to b."""
    async with await row.session("a") as host:
        await row.stop("b")
        await row.start("b", ("a", 0))
        answer = await host.command(TEST_UNIT_READY)
        while answer.sense_key == 6:
            answer = await host.command(TEST_UNIT_READY)
        assert (answer.sense_key, answer.additional_sense) == (NOT_READY, 0x0403)


async def test_a_lun_that_leads_nowhere(row: Row) -> None:
    await row.stop("a")
    await row.start("a", ("b", 7))
    async with await row.session("a") as host:
        answer = await host.command(TEST_UNIT_READY)
        assert (answer.sense_key, answer.additional_sense) == (5, 0x2500)
        inquiry = await host.command(bytes((0x12, 0, 0, 0, 96, 0)), read_bytes=96)
        assert inquiry.data[0] == 0x7F


async def test_who_is_given_up_over_there_hears_so_when_the_link_is_back(slow_syncs: SlowSyncs, slow_row: Row) -> None:
    """c gives up after a second without a link, a waits for longer. Nobody knows what became of the command."""
    slow_syncs.gate.set()
    await slow_row.stop("a")
    await slow_row.start("a", ("c", 0), timeout=60)
    slow_syncs.gate.clear()
    slow_syncs.begun.clear()
    links = slow_row.arrays["c"]._links
    refusing = True
    admit = links._admit

    def not_yet(*arguments: Any) -> None:
        if refusing:
            raise RefusedError("not yet")
        admit(*arguments)

    async with await slow_row.session("a") as host:
        await attentions(host)
        links._admit = not_yet  # type: ignore[assignment, method-assign]
        syncing = asyncio.ensure_future(host.command(SYNCHRONIZE_CACHE))
        await slow_syncs.under_way()
        stream = links.peers["a"].stream
        assert stream is not None
        stream.close("cut by the test")
        await until(lambda: "a" not in slow_row.arrays["c"]._far._hosts)
        slow_syncs.gate.set()
        refusing = False
        answer = await syncing
        assert (answer.sense_key, answer.additional_sense) == (ABORTED_COMMAND, 0x0800)
        assert await attentions(host) == [POWER_ON]


async def test_an_aborted_task_is_answered_by_nobody_and_its_function_only_when_it_has_ended(
    slow_syncs: SlowSyncs, slow_row: Row
) -> None:
    async with await slow_row.session("a") as host:
        await attentions(host)
        syncing = await host.submit(SYNCHRONIZE_CACHE)
        (tag,) = host.tasks
        await slow_syncs.under_way()
        pdu = request(Opcode.TASK_MANAGEMENT | IMMEDIATE, 0x80 | ABORT_TASK)
        pdu.transfer_tag = tag
        aborting = asyncio.ensure_future(host.exchange(pdu, Opcode.TASK_MANAGEMENT_RESPONSE))
        await asyncio.sleep(0.2)
        assert not aborting.done()
        slow_syncs.gate.set()
        assert (await aborting).header[2] == 0
        assert (await host.command(TEST_UNIT_READY)).status == GOOD
        assert not syncing.done()


async def test_a_lun_that_leaves_the_map_ends_its_tasks(slow_syncs: SlowSyncs, slow_row: Row) -> None:
    async with await slow_row.session("a") as host:
        await attentions(host)
        syncing = await host.submit(SYNCHRONIZE_CACHE)
        await slow_syncs.under_way()
        array = slow_row.arrays["a"]
        reloading = asyncio.ensure_future(array.reload(array._config.model_copy(update={"luns": {}})))
        await asyncio.sleep(0.1)
        slow_syncs.gate.set()
        await reloading
        assert (await syncing).status == TASK_ABORTED


async def test_a_target_reset_is_told_as_a_power_on_and_of_that_unit_alone(row: Row) -> None:
    two = {"0": {"volume": "data"}, "1": {"volume": "other"}}
    await row.stop("c")
    await row.start("c", luns=two, volumes={name: {"size": MIB} for name in ("data", "other")})
    async with await row.session("b") as near, await row.session("c", name="iqn.x:other") as far:
        await attentions(near)
        await attentions(far, 0)
        await attentions(far, 1)
        response = await near.exchange(
            request(Opcode.TASK_MANAGEMENT | IMMEDIATE, 0x80 | TARGET_WARM_RESET), Opcode.TASK_MANAGEMENT_RESPONSE
        )
        assert response.header[2] == 0
        assert await attentions(near) == [POWER_ON]
        assert await attentions(far, 0) == [POWER_ON]
        assert await attentions(far, 1) == []
