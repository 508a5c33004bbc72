"""What hosts see in the place of a volume, over iSCSI: journals guarded, pairs as they are shown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from arrayd.array import Array
from arrayd.replication.bitmap import Bitmap, Geometry
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.guarded import GuardedVolume
from arrayd.replication.journal import PrimaryJournal
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.marked import MarkedVolume
from arrayd.volumes.file_volume import FileVolume
from tests.estate.conftest import running
from tests.lab.array import BLOCK, Place, attentions, capacity, read, session, write
from tests.lab.disk import MIB, turns
from tests.lab.initiator import CHECK_CONDITION, GOOD, Response, Session
from tests.lab.waiting import until
from tests.replication.modelled import Machine, ModelFile
from tests.replication.still import volume_of

WRITE_PROTECTED = (CHECK_CONDITION, 0x2700)
MODE_SENSE = bytes((0x1A, 0, 0x08, 0, 255, 0))
CAPACITY_CHANGED = 0x2A09
UNMAP_ALL = bytes((0x93, 8)) + bytes(8) + (2048).to_bytes(4, "big") + bytes(2)
JOURNAL = {"size": MIB, "use": "journal"}


def ended(response: Response) -> tuple[int, int]:
    return response.status, response.additional_sense


async def protected(host: Session, lun: int = 0) -> bool:
    """Whether MODE SENSE says so."""
    return bool((await host.command(MODE_SENSE, lun=lun, read_bytes=255)).data[2] & 0x80)


async def put(host: Session, byte: int, lba: int = 0, lun: int = 0, *, fua: bool = False) -> tuple[int, int]:
    return ended(await host.command(write(lba, fua=fua), lun=lun, data_out=bytes([byte]) * BLOCK))


async def got(host: Session, lba: int = 0, lun: int = 0) -> int:
    return (await host.command(read(lba), lun=lun, read_bytes=BLOCK)).data[0]


async def marked_volume(raw: FileVolume) -> MarkedVolume:
    """The volume, with a bitmap in memory."""
    file = ModelFile(Machine(1), Geometry(raw.size).bytes_needed, 0)
    bitmap = await Bitmap.create(volume_of(file), raw.size, bytes(16), bytes(16))
    return MarkedVolume(raw, bitmap, lambda: None)


async def test_figure_12_hosts_read_a_journal_and_do_not_write_it(place: Place) -> None:
    """Of the file or made by command, grown, mapped elsewhere, after a reload and after a restart."""
    file: dict[str, Any] = {
        "volumes": {"data": {"size": MIB}, "j0": JOURNAL},
        "luns": {"0": {"volume": "data"}, "1": {"volume": "j0"}},
    }
    async with running(place, **file) as (array, address):
        change = array.tables.change
        await array.estate.volumes.create("j1", JOURNAL, change)
        await array.estate.luns.map(9, {"volume": "j1"}, change)
        async with session(address, 0, 1, 9) as host:
            for lun, name in ((1, "j0"), (9, "j1")):
                assert array.estate.volumes.opened[name].write_now(0, memoryview(b"\x07" * 4096))
                assert await got(host, lun=lun) == 7
                assert await put(host, 1, lun=lun) == WRITE_PROTECTED
                assert ended(await host.command(UNMAP_ALL, lun=lun, data_out=bytes(BLOCK))) == WRITE_PROTECTED
                assert await protected(host, lun)
                assert await got(host, lun=lun) == 7
            assert not await protected(host)
            assert await put(host, 1) == (GOOD, 0)
            before = array._target.units[9]
            await array.estate.volumes.resize("j1", 2 * MIB, change)
            assert await attentions(host, 9) == [CAPACITY_CHANGED]
            assert await capacity(host, 9) == 2 * MIB
            assert await got(host, 2 * MIB // BLOCK - 1, lun=9) == 0
            await array.reload(place.load(**{**file, "luns": {**file["luns"], "2": {"command_device": {}}}}))
            assert array._target.units[9] is before, "the same as long as it is mapped"
            await array.estate.luns.unmap(9, change)
            for settings, found in ((JOURNAL, WRITE_PROTECTED), ({"size": MIB}, (GOOD, 0))):
                await array.estate.volumes.delete("j1", change)
                await array.estate.volumes.create("j1", settings, change)
                await array.estate.luns.map(9, {"volume": "j1"}, change)
                await attentions(host, 9)
                assert await put(host, 1, lun=9) == found
                assert await got(host, lun=9) == (found == (GOOD, 0))
                seen = array.estate.fronts.of("j1")
                assert getattr(seen, "volume", seen) is array.estate.volumes.opened["j1"]
                await array.estate.luns.unmap(9, change)
    async with running(place, **file) as (_, address), session(address, 1) as host:
        assert await put(host, 1, lun=1) == WRITE_PROTECTED


async def test_hosts_see_what_is_shown(place: Place) -> None:
    async with running(place) as (array, address), session(address) as host:
        fronts, raw = array.estate.fronts, array.estate.volumes.opened["data"]
        assert fronts.of("data") is raw
        assert await put(host, 1) == (GOOD, 0)
        guarded = GuardedVolume(raw)
        await fronts.show("data", guarded)
        assert fronts.of("data") is guarded
        assert await attentions(host) == []
        assert await protected(host)
        assert await put(host, 2) == WRITE_PROTECTED
        assert await got(host) == 1
        await array.reload(place.load(volumes={"data": {"size": MIB}, "more": {"size": MIB}}))
        assert await put(host, 2) == WRITE_PROTECTED
        marked = await marked_volume(raw)
        await fronts.show("data", marked)
        assert not await protected(host)
        for lba in (0, 1, 16):
            assert await put(host, 3, lba) == (GOOD, 0)
        assert list(marked.bitmap.ranges()) == [(0, 4096), (8192, 4096)]
        marked.stop()
        await marked.drained()
        waiting = await host.submit(write(2), data_out=b"\x04" * BLOCK)
        await until(lambda: bool(array._target.units[0].tasks))
        assert not waiting.done()
        await fronts.show("data", None)
        assert ended(await waiting) == (GOOD, 0)
        assert fronts.of("data") is raw
        assert [await got(host, lba) for lba in range(4)] == [3, 3, 4, 0]
        assert await attentions(host) == []
        assert marked.bitmap.marked_bytes == 8192


async def test_it_is_shown_wherever_it_is_mapped_later(place: Place) -> None:
    async with running(place, luns={}) as (array, address):
        raw = array.estate.volumes.opened["data"]
        await array.estate.fronts.show("data", GuardedVolume(raw))
        await array.estate.luns.map(5, {"volume": "data"}, array.tables.change)
        async with session(address, 5) as host:
            assert await put(host, 1, lun=5) == WRITE_PROTECTED
            await array.estate.fronts.show("data", None)
            assert await put(host, 1, lun=5) == (GOOD, 0)


async def under_way(array: Array) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
    """A write that a thread is at work on (a lock stands for it), and one of a host that is next."""
    raw = array.estate.volumes.opened["data"]
    begun, going = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()

    async def at_work() -> None:
        async with raw.lock(0, MIB // 2):
            begun.set_result(None)
            await going
            assert raw.write_under_lock(0, memoryview(b"\x01" * 4096)) is None

    working = asyncio.ensure_future(at_work())
    await begun
    return working, going


@pytest.mark.parametrize("kind", ["guarded", "marked"])
async def test_what_began_before_is_in_the_volume_when_it_returns(place: Place, kind: str) -> None:
    """And what comes after comes behind that."""
    async with running(place) as (array, address), session(address) as host:
        raw = array.estate.volumes.opened["data"]
        new = GuardedVolume(raw) if kind == "guarded" else await marked_volume(raw)
        working, going = await under_way(array)
        before = await host.submit(write(0), data_out=b"\x02" * BLOCK)
        await until(lambda: bool(array._target.units[0].tasks))
        showing = asyncio.ensure_future(array.estate.fronts.show("data", new))
        await turns()
        after = await host.submit(write(1), data_out=b"\x03" * BLOCK)
        if kind == "guarded":
            assert ended(await after) == WRITE_PROTECTED
        else:
            await until(lambda: len(list(array._target.units[0].tasks)) == 2)
        assert not showing.done()
        going.set_result(None)
        await asyncio.gather(working, showing)
        assert raw.file.path.read_bytes()[0] == 2
        assert ended(await before) == (GOOD, 0)
        assert ended(await after) == (WRITE_PROTECTED if kind == "guarded" else (GOOD, 0))
        assert await got(host, 1) == (1 if kind == "guarded" else 3)


async def test_to_show_the_same_again_changes_nothing(place: Place) -> None:
    async with running(place) as (array, address), session(address) as host:
        marked = await marked_volume(array.estate.volumes.opened["data"])
        for _ in range(2):
            await array.estate.fronts.show("data", marked)
            assert await put(host, 1) == (GOOD, 0)
        marked.stop()
        await marked.drained()
        for _ in range(2):
            await array.estate.fronts.show("data", None)
        assert await put(host, 2) == (GOOD, 0)
        assert await got(host) == 2


async def test_a_p_vol_is_suspended_while_a_host_writes(place: Place) -> None:
    """Journaled, then marked, then guarded: each write is answered once, and is where it belongs."""
    file: dict[str, Any] = {"volumes": {"data": {"size": MIB}, "j0": {"size": 8 * MIB, "use": "journal"}}}
    async with running(place, **file) as (array, address), session(address) as host:
        fronts, opened = array.estate.fronts, array.estate.volumes.opened
        assert await put(host, 1) == (GOOD, 0)
        journal = await PrimaryJournal.create(opened["j0"], bytes(16), 1)
        group = PrimaryGroup(journal, lambda: 0, lambda event, reason: None)
        await fronts.show("data", JournaledVolume(opened["data"], group, 0))
        for lba in range(1, 9):
            assert await put(host, 2, lba, fua=lba == 8) == (GOOD, 0)
        assert journal.regions.stored.sequence - journal.regions.oldest.sequence == 8
        assert await group.stop() == []
        waiting = [await host.submit(write(lba), data_out=b"\x03" * BLOCK) for lba in (4, 16)]
        await until(lambda: len(list(array._target.units[0].tasks)) == 2)
        marked = await marked_volume(opened["data"])
        await fronts.show("data", marked)
        assert [ended(await each) for each in waiting] == [(GOOD, 0)] * 2
        assert list(marked.bitmap.ranges()) == [(0, 4096), (8192, 4096)]
        assert [await got(host, lba) for lba in (0, 1, 4, 16)] == [1, 2, 3, 3]
        marked.stop()
        await marked.drained()
        late = await host.submit(write(0), data_out=b"\x04" * BLOCK)
        await until(lambda: bool(array._target.units[0].tasks))
        await fronts.show("data", GuardedVolume(opened["data"]))
        assert ended(await late) == WRITE_PROTECTED
        assert await got(host) == 1
        await group.close()
