"""An array changes to another configuration while hosts use it: whole, and told to them, or not at all."""

import asyncio
import resource
from typing import Any

import pytest

from arrayd.array import StartError
from tests.lab.array import (
    BLOCK,
    TARGET,
    TEST_UNIT_READY,
    Place,
    SlowSyncs,
    attentions,
    capacity,
    luns,
    place,
    read,
    session,
    slow_syncs,
    write,
)
from tests.lab.connection import IscsiError
from tests.lab.disk import MIB, disk
from tests.lab.initiator import CHECK_CONDITION, GOOD, NAME
from tests.lab.waiting import until

__all__ = ["disk", "place", "slow_syncs"]

TASK_ABORTED = 0x40
NOT_SUPPORTED, LUNS_CHANGED, CAPACITY_CHANGED = 0x2500, 0x3F0E, 0x2A09

TWO: dict[str, Any] = {"volumes": {"data": {"size": MIB}, "more": {"size": 2 * MIB}},
       "luns": {"0": {"volume": "data"}, "5": {"volume": "more"}}}  # fmt: skip


async def test_a_new_lun_is_told_and_works(place: Place) -> None:
    async with place.running() as (array, address), session(address) as host:
        assert await luns(host) == [0]
        await array.reload(place.load(**TWO))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0, 5]
        await attentions(host, 5)
        assert await capacity(host, 5) == 2 * MIB
        assert (await host.command(write(1), lun=5, data_out=b"\x07" * BLOCK)).status == GOOD
        assert place.volume("more").read_bytes()[BLOCK : 2 * BLOCK] == b"\x07" * BLOCK


async def test_a_lun_that_goes_lets_go_of_its_file(place: Place) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        await array.reload(place.load())
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0]
        assert await attentions(host, 5) == [NOT_SUPPORTED]
        assert str(place.volume("more")) not in place.open_files()
        await array.reload(place.load(**TWO))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0, 5]


async def test_a_lun_that_goes_ends_its_tasks_first(place: Place, slow_syncs: SlowSyncs) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        writing = await host.submit(write(0, fua=True), lun=5, data_out=b"\x07" * BLOCK)
        await slow_syncs.under_way()
        reloading = asyncio.ensure_future(array.reload(place.load()))
        await until(lambda: 5 not in array._target.units)
        assert await attentions(host) == [LUNS_CHANGED]
        assert str(place.volume("more")) in place.open_files()
        slow_syncs.gate.set()
        await reloading
        assert (await writing).status == TASK_ABORTED
        assert str(place.volume("more")) not in place.open_files()
        assert (await host.command(read(0), read_bytes=BLOCK)).status == GOOD


async def test_another_volume_at_a_lun_is_another_disk(place: Place) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        swapped = {"0": {"volume": "more"}, "5": {"volume": "data"}}
        await array.reload(place.load(volumes=TWO["volumes"], luns=swapped))
        assert LUNS_CHANGED in await attentions(host)
        await attentions(host, 5)
        assert (await capacity(host, 0), await capacity(host, 5)) == (2 * MIB, MIB)


async def test_growth_is_told_and_can_be_used(place: Place) -> None:
    async with place.running() as (array, address), session(address) as host:
        last = 3 * MIB // BLOCK - 1
        assert (await host.command(write(last), data_out=b"\x07" * BLOCK)).status == CHECK_CONDITION
        await array.reload(place.load(volumes={"data": {"size": 3 * MIB}}))
        assert await attentions(host) == [CAPACITY_CHANGED]
        assert await capacity(host) == 3 * MIB
        for _ in range(2):
            assert (await host.command(write(last), data_out=b"\x07" * BLOCK)).status == GOOD
            assert (await host.command(read(last), read_bytes=BLOCK)).data == b"\x07" * BLOCK


def only(*entries: tuple[str, list[int] | None]) -> dict[str, Any]:
    """The iscsi section, with these initiators."""
    rules = [{"name": name} if seen is None else {"name": name, "luns": seen} for name, seen in entries]
    return {"listen": ["127.0.0.1:0"], "target": TARGET, "initiators": rules}


async def test_masking_reaches_sessions_that_are_there(place: Place) -> None:
    other = "iqn.2026-11.io.arrayd:other"
    before = only((NAME, [0, 5]), (other, None))
    async with (
        place.running(**TWO, iscsi=before) as (array, address),
        session(address, 0, 5) as host,
        session(address, 0, 5, name=other) as neighbour,
    ):
        await array.reload(place.load(**TWO, iscsi=only((NAME, [0]), (other, None))))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0]
        assert await attentions(host, 5) == [NOT_SUPPORTED]
        assert await attentions(neighbour) == []
        await array.reload(place.load(**TWO, iscsi=only((NAME, None), (other, None))))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0, 5]
        assert await attentions(neighbour, 5) == []


async def test_a_lun_that_is_masked_away_answers_what_is_in_flight(place: Place, slow_syncs: SlowSyncs) -> None:
    async with place.running(**TWO, iscsi=only((NAME, None))) as (array, address), session(address, 0, 5) as host:
        writing = await host.submit(write(0, fua=True), lun=5, data_out=b"\x07" * BLOCK)
        await slow_syncs.under_way()
        await array.reload(place.load(**TWO, iscsi=only((NAME, [0]))))
        slow_syncs.gate.set()
        assert (await writing).status in (GOOD, TASK_ABORTED)
        assert await attentions(host) == [LUNS_CHANGED]


async def test_who_is_no_longer_allowed_is_sent_away(place: Place) -> None:
    other = "iqn.2026-11.io.arrayd:other"
    async with (
        place.running(iscsi=only((NAME, None), (other, None))) as (array, address),
        session(address) as host,
        session(address, name=other) as neighbour,
    ):
        await array.reload(place.load(iscsi=only((NAME, None))))
        with pytest.raises(IscsiError):
            await neighbour.command(TEST_UNIT_READY)
        assert await attentions(host) == []


async def test_another_limit_of_copies_is_taken(place: Place) -> None:
    async with place.running() as (array, _address):
        rates = [array._copy_limit.rate]
        for settings in ({"replication": {"copy_rate": "1MiB"}}, {}):
            await array.reload(place.load(**settings))
            rates.append(array._copy_limit.rate)
        assert rates == [None, MIB, None]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"volumes": {"data": {"size": MIB // 2}}}, "data.size: 524288 is less than it was: a volume is not cut"),
        ({"volumes": {"data": {"size": MIB, "write_cache": False}}}, "volumes.data: only the size may change"),
        ({"array": {"name": "a", "serial": "2"}}, "array: changed; that takes a restart"),
        ({"state_dir": "other"}, "state_dir: changed; that takes a restart"),
        ({"iscsi": {"listen": ["127.0.0.1:1"], "target": TARGET}}, "iscsi.listen: changed; that takes a restart"),
        ({"iscsi": {"listen": ["127.0.0.1:0"], "target": TARGET + "2"}}, "iscsi.target: changed; that takes a restart"),
        ({"volumes": {"data": {"size": MIB}, "new": {"size": MIB, "path": "/proc/none/new"}}},
         "volume new: /proc/none/new: No such file or directory"),
        ({"volumes": {"data": {"size": MIB}, "new": {"size": MIB, "path": "state/volumes/data.img"}}},
         "volume new: .*: in use by another process, or by another volume"),
    ],
)  # fmt: skip
async def test_a_reload_that_is_refused_changes_nothing(place: Place, changes: dict[str, Any], says: str) -> None:
    async with place.running() as (array, address), session(address) as host:
        before = place.open_files()
        with pytest.raises(StartError, match=says):
            await array.reload(place.load(**changes))
        assert place.open_files() == before
        assert await attentions(host) == []
        assert (await luns(host), await capacity(host)) == ([0], MIB)
        await array.reload(place.load(**TWO))
        assert await attentions(host) == [LUNS_CHANGED]


async def test_a_volume_that_cannot_grow_keeps_all_others_as_they_were(place: Place) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        before = place.open_files()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, limits[1]))
        try:
            grown = {"data": {"size": 3 * MIB}, "more": {"size": 5 * MIB}, "new": {"size": MIB}}
            with pytest.raises(StartError, match=f"volume more: cannot grow to {5 * MIB} bytes: .*File too large"):
                await array.reload(place.load(volumes=grown, luns={**TWO["luns"], "7": {"volume": "new"}}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert place.open_files() == before
        assert (await attentions(host), await attentions(host, 5)) == ([], [])
        assert (await capacity(host), await capacity(host, 5)) == (MIB, 2 * MIB)
        assert place.volume("data").stat().st_size == MIB
        assert place.volume("more").stat().st_size == 2 * MIB
        assert await luns(host) == [0, 5]
