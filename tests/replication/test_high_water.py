"""How far a primary journal was stored, noted beside it: a tail that is lost while the machine is up is missed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arrayd.replication.fencing import FENCED, NOT_ALL_THERE
from arrayd.replication.high_water import HighWater, noted
from arrayd.replication.journal.format import ENTRY_BYTES, METADATA_AT
from arrayd.replication.journaling import Journaling
from arrayd.replication.statuses import Event, State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeError, VolumeFailed
from tests.lab.disk import MIB
from tests.replication.pair_doors import BOOT, GROUP, FileStores, Site

PAGE = 4096
NAME = f"{GROUP.hex()}-0.stored"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path, sizes=[MIB]) as made:
        yield made


@pytest.fixture
def stores(site: Site) -> FileStores:
    return site.stores


async def found(stores: FileStores, epoch: int = 1, boot: bytes = BOOT) -> int:
    """By another process."""
    if NAME in stores.used:
        await stores.close(NAME)
    return await noted(stores, NAME, epoch, boot)


def fails(*_told: object) -> None:
    """In the place of what reads or writes."""
    raise VolumeFailed("I/O error")


async def kill(site: Site) -> None:
    """Nothing is closed; the next start opens what is there."""
    for name in list(site.stores.used):
        await site.stores.close(name)
    site.shown.clear()


def lose_record(site: Site, sequence: int) -> None:
    """A page of the journal could not be written, and was read from the disk again."""
    with (site.folder / "j").open("r+b") as file:
        file.seek(METADATA_AT + sequence * ENTRY_BYTES)
        file.write(bytes(ENTRY_BYTES))


async def test_what_was_noted_last_is_found_though_nobody_has_closed_it(stores: FileStores) -> None:
    assert await found(stores) == 0
    mark = await HighWater.open(stores, NAME, 1, BOOT)
    for records in (1, 2, 1 << 40):
        mark.note(records)
        assert await found(stores) == records
        mark = await HighWater.open(stores, NAME, 1, BOOT)
    assert await found(stores, epoch=2) == 0, "of another journal"
    assert await found(stores, boot=b"another boot....") == 0, "it is not durable"


async def test_what_cannot_be_written_on_the_spot_is_written_in_order(
    stores: FileStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = await HighWater.open(stores, NAME, 1, BOOT)
    with monkeypatch.context() as now:
        now.setattr(mark._store, "write_now", lambda offset, view: False)
        mark.note(5)
    mark.note(6)
    await mark.close()
    assert await found(stores) == 6


async def test_a_store_that_cannot_be_written_stops_nothing(
    stores: FileStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = await HighWater.open(stores, NAME, 1, BOOT)
    mark.note(3)
    with monkeypatch.context() as now:
        now.setattr(mark._store, "write_now", lambda offset, view: False)
        now.setattr(mark._store, "write", fails)
        mark.note(4)
        await asyncio.sleep(0)
        await mark.close()
    assert await found(stores) == 3


async def test_a_store_that_cannot_be_read_is_not_left_open(
    stores: FileStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await HighWater.open(stores, NAME, 1, BOOT)).close()
    with monkeypatch.context() as now:
        now.setattr(FileVolume, "read", fails)
        with pytest.raises(VolumeError):
            await found(stores)
    assert await found(stores) == 0


async def test_records_that_are_lost_suspend_the_pairs_and_what_was_hot_differs(site: Site) -> None:
    """Though power was not: the S-VOL would have gone on without the second of three writes, for ever."""
    primary = await site.begun()
    for number in range(3):
        await primary.write(0, number * PAGE, b"w" * PAGE)
    await kill(site)
    lose_record(site, 1)
    for _ in range(2):  # a restart before the suspension forgets nothing
        stage = (await site.begun(found=True)).stage
        await asyncio.sleep(0)
        assert site.events == [Event.ERROR]
        assert "records were lost" in site.reasons.pop()
        site.events.clear()
        stage._stopping = True
        await stage._tending.end()
        await kill(site)
    primary = await site.begun(found=True)
    await primary.stage.stop(site.row(State.P_PSUE, 2))
    assert await primary.marked(0) == [(0, MIB)]
    await primary.stage.close()
    assert not (site.folder / "stores" / NAME).exists()


async def test_a_fence_that_stood_stands_again_and_what_may_differ_is_not_taken_for_the_same(site: Site) -> None:
    """The other side may have the P-VOLs' place by what it was told: hosts would write here, and it would not know."""
    primary = await site.begun(site.row(State.P_PAIR))
    for number in range(2):
        await primary.write(0, number * PAGE, b"w" * PAGE)
    assert await primary.stage._fencing.stand()
    await kill(site)
    await primary.stage._fencing.release()  # its locks are the volumes' of this test
    lose_record(site, 1)
    stage = (await site.begun(site.row(State.P_PAIR), found=True)).stage
    assert stage._fencing.stands
    assert await stage.stop(site.row(State.P_PSUE, 2)) == FENCED
    assert await stage.stop(site.row(State.S_PAIR, 2)) == NOT_ALL_THERE
    await stage._fencing.release()
    assert await stage.stop(site.row(State.P_PSUE, 2)) is None
    await stage.close()


async def test_what_is_left_of_a_journal_that_has_lost_records_is_not_redone(site: Site) -> None:
    """The P-VOLs have it, and what came after it, which would be gone."""
    primary = await site.begun()
    for content in (b"old", b"new"):
        await primary.write(0, 0, content.ljust(PAGE))
    await kill(site)
    lose_record(site, 1)
    stage = Journaling(site.row(), site.doors(), site.told())
    await stage.prepare(found=True)
    assert (site.folder / "v0").read_bytes()[:3] == b"new"
    await stage.close()
    again = site.doors()
    object.__setattr__(again, "boot", b"another boot....")
    stage = Journaling(site.row(), again, site.told())
    await stage.prepare(found=True)
    assert (site.folder / "v0").read_bytes()[:3] == b"old", "after a power loss the volume may have neither"
    await stage.close()


async def test_a_kill_alone_suspends_nothing(site: Site) -> None:
    primary = await site.begun()
    for number in range(3):
        await primary.write(0, number * PAGE, b"w" * PAGE)
    await kill(site)
    await (await site.begun(found=True)).leave()
    assert site.events == []
    assert (site.folder / "stores" / NAME).exists(), "the journal goes on at the next start"


async def test_nothing_is_in_a_volume_that_is_not_noted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is what it is for."""
    primary = await site.begun()
    activity, before = primary.stage._activity, []

    def noting(records: int) -> None:
        before.append((records, (site.folder / "v0").read_bytes()[:1]))

    with monkeypatch.context() as now:
        now.setattr(activity, "note", noting)
        await primary.write(0, 0, b"w" * PAGE)
    assert dict(reversed(before)) == {0: b"\0", 1: b"\0"}
    assert (site.folder / "v0").read_bytes()[:1] == b"w"
    await primary.leave()
