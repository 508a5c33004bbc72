"""LUNs mapped and unmapped by command, and the table of command devices (figures 3 and 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from arrayd.estate.errors import Conflict, Invalid, NotFound
from tests.estate.conftest import RefusedError, refuse, running
from tests.lab.array import BLOCK, Place, SlowSyncs, attentions, luns, session, write
from tests.lab.disk import MIB
from tests.lab.initiator import GOOD, NAME
from tests.lab.waiting import until

TASK_ABORTED = 0x40
NOT_SUPPORTED, LUNS_CHANGED = 0x2500, 0x3F0E
LINKED: dict[str, Any] = {"link": {"arrays": {"b": "127.0.0.1:1"}, "timeout": 1}}


async def test_hosts_are_told_of_luns_that_come_and_go(place: Place) -> None:
    async with running(place) as (array, address), session(address) as host:
        change = array.tables.change
        await array.estate.volumes.create("made", {"size": MIB}, change)
        assert await attentions(host) == []
        with pytest.raises(RefusedError):
            await array.estate.luns.map(300, {"volume": "made"}, refuse)
        assert (await attentions(host), await luns(host)) == ([], [0])
        await array.estate.luns.map(300, {"volume": "made"}, change)
        assert (await attentions(host), await luns(host)) == ([LUNS_CHANGED], [0, 300])
        with pytest.raises(RefusedError):
            await array.estate.luns.unmap(300, refuse)
        assert (await attentions(host), await luns(host)) == ([], [0, 300])
        await array.estate.luns.unmap(300, change)
        assert (await attentions(host), await luns(host)) == ([LUNS_CHANGED], [0])
        assert await attentions(host, 300) == [NOT_SUPPORTED]


async def test_a_lun_that_is_unmapped_ends_its_tasks(place: Place, slow_syncs: SlowSyncs) -> None:
    async with running(place) as (array, address):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        await array.estate.luns.map(7, {"volume": "made"}, array.tables.change)
        async with session(address, 7) as host:
            writing = await host.submit(write(0, fua=True), lun=7, data_out=b"\x07" * BLOCK)
            await slow_syncs.under_way()
            await array.estate.luns.unmap(7, array.tables.change)
            deleting = asyncio.ensure_future(array.estate.volumes.delete("made", array.tables.change))
            await until(lambda: array.estate.ledger.held.rows.volumes == {})
            assert not deleting.done()
            slow_syncs.gate.set()
            await deleting
            assert (await writing).status == TASK_ABORTED


async def test_a_command_device_is_the_same_as_long_as_it_is_mapped(place: Place) -> None:
    with_device = {"luns": {"0": {"volume": "data"}, "9": {"command_device": {}}}}
    async with running(place, **with_device) as (array, address), session(address) as host:
        change = array.tables.change
        assert await luns(host) == [0, 9]
        await array.estate.luns.map(8, {"command_device": {}}, change)
        assert await luns(host) == [0, 8, 9]
        before = dict(array.estate.luns.devices)
        await array.reload(place.load(**with_device, volumes={"data": {"size": 2 * MIB}}))
        assert array.estate.luns.devices == before
        assert array.estate.devices.rows() == [("a", 8, "command"), ("a", 9, "file")]
        await array.estate.luns.unmap(8, change)
        await array.estate.luns.map(8, {"command_device": {}}, change)
        assert array.estate.luns.devices[8] is not before[8]
        await array.reload(place.load(volumes={"data": {"size": 2 * MIB}}))
        assert await luns(host) == [0, 8]
        assert list(array.estate.luns.devices) == [8]


@pytest.mark.parametrize(
    ("number", "settings", "kind", "says"),
    [
        (0, {"volume": "made"}, Conflict, "LUN 0: set in the configuration file"),
        (7, {"volume": "made"}, Conflict, "LUN 7: in use"),
        (1, {"volume": "data"}, Conflict, "volume data: mapped at LUN 0"),
        (1, {"volume": "other"}, Conflict, "volume other: mapped at LUN 7"),
        (1, {"volume": "nothing"}, NotFound, "volume nothing: there is none"),
        (1, {"virtual": {"array": "c", "lun": 0}}, NotFound, "array c: not connected with it"),
        (1, {"virtual": {"array": "b"}}, Invalid, "luns.1.virtual.lun: missing: expected a LUN"),
        (1, {}, Invalid, "luns.1: .*: expected one of volume, virtual and command_device"),
        (16384, {"volume": "made"}, Invalid, "LUN 16384: expected a LUN, 0 to 16383"),
    ],
)
async def test_what_cannot_be_mapped_is_refused(
    place: Place, number: int, settings: Mapping[str, Any], kind: type[Exception], says: str
) -> None:
    async with running(place, **LINKED) as (array, address), session(address) as host:
        for name in ("made", "other"):
            await array.estate.volumes.create(name, {"size": MIB}, array.tables.change)
        await array.estate.luns.map(7, {"volume": "other"}, array.tables.change)
        await attentions(host)
        with pytest.raises(kind, match=says):
            await array.estate.luns.map(number, settings, array.tables.change)
        assert (await attentions(host), await luns(host)) == ([], [0, 7])


async def test_what_cannot_be_unmapped_is_refused(place: Place) -> None:
    seen = {"iscsi": {"listen": ["127.0.0.1:0"], "initiators": [{"name": NAME, "luns": [0, 4]}]}}
    async with running(place, **LINKED) as (array, _):
        await array.estate.luns.map(4, {"command_device": {}}, array.tables.change)
        await array.reload(place.load(**LINKED, iscsi=place.config["iscsi"] | seen["iscsi"]))
        change = array.tables.change
        with pytest.raises(Conflict, match=r"LUN 4: iscsi\.initiators of the configuration file names it"):
            await array.estate.luns.unmap(4, change)
        with pytest.raises(Conflict, match="LUN 0: set in the configuration file"):
            await array.estate.luns.unmap(0, change)
        with pytest.raises(NotFound, match="LUN 3: nothing is mapped there"):
            await array.estate.luns.unmap(3, change)
        await array.estate.luns.map(3, {"virtual": {"array": "b", "lun": 9}}, change)
        await array.estate.devices.add("b", 3, change)
        with pytest.raises(Conflict, match="LUN 3: leads to the command device of array b"):
            await array.estate.luns.unmap(3, change)
        await array.estate.devices.remove("b", 3, change)
        await array.estate.luns.unmap(3, change)


async def test_a_virtual_lun_is_unmapped_without_waiting_for_an_array_that_is_silent(place: Place) -> None:
    silent = {"link": {"arrays": {"b": "127.0.0.1:1"}, "timeout": 30}}
    async with running(place, **silent) as (array, address):
        await array.estate.luns.map(3, {"virtual": {"array": "b", "lun": 0}}, array.tables.change)
        async with session(address) as host:
            reading = await host.submit(bytes(6), lun=3)
            await array.estate.luns.unmap(3, array.tables.change)
            assert not reading.done()
            assert (await host.command(bytes(6), lun=0)).status != GOOD  # LUNs have changed
    assert not array.estate.luns.devices


async def test_the_table_of_command_devices(place: Place) -> None:
    """Figure 5: rows of the file and by command, own ones and those of others."""
    changes = {
        **LINKED,
        "luns": {"0": {"volume": "data"}, "9": {"command_device": {}}, "10": {"virtual": {"array": "b", "lun": 9}}},
        "commands": {"devices": {"b": 10}},
    }
    async with running(place, **changes) as (array, _):
        devices, change = array.estate.devices, array.tables.change
        await array.estate.luns.map(11, {"virtual": {"array": "b", "lun": 12}}, change)
        with pytest.raises(RefusedError):
            await devices.add("c", 11, refuse)
        await devices.add("c", 11, change)
        for name, lun, kind, says in (
            ("c", 11, Conflict, "LUN 11: leads to the command device of array c already"),
            ("d", 10, Conflict, "LUN 10: leads to the command device of array b already"),
            ("d", 0, Invalid, "LUN 0: leads to no other array"),
            ("d", 5, NotFound, "LUN 5: nothing is mapped there"),
            ("a", 11, Invalid, "array a: its own command devices are rows of the LUN map"),
            ("D", 11, Invalid, "array 'D', LUN 11: expected a name"),
        ):
            with pytest.raises(kind, match=says):
                await devices.add(name, lun, change)
        with pytest.raises(Conflict, match="array b, LUN 10: set in the configuration file"):
            await devices.remove("b", 10, change)
        with pytest.raises(NotFound, match="array b, LUN 11: not in the table"):
            await devices.remove("b", 11, change)
        rows = [("a", 9, "file"), ("b", 10, "file"), ("c", 11, "command")]
        assert devices.rows() == rows
    async with running(place, **changes) as (array, _):
        assert array.estate.devices.rows() == rows
        await array.estate.devices.remove("c", 11, array.tables.change)
        assert array.estate.devices.rows() == rows[:2]
