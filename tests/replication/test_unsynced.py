"""P-VOLs that cannot be synced when their group is suspended: what hosts were told to be durable is there again after
the next start, from the journal."""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from pathlib import Path

import pytest

from arrayd.replication.fencing import FENCED
from arrayd.replication.marking import Marking
from arrayd.replication.pair_stores import forget_stores
from arrayd.replication.statuses import State
from arrayd.replication.unsynced import UNSYNCED, redo_unsynced
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeFailed, finished
from tests.replication.pair_doors import GROUP, Site

PAGE = 4096
A, B, C = (letter * PAGE for letter in (b"a", b"b", b"c"))
NOTE = f"{GROUP.hex()}-0.{UNSYNCED}"


def fail_syncs(volume: FileVolume) -> None:
    """As a disk that could not write: the volume has failed until the array is started again."""
    volume.file._syncs.fail(OSError(errno.EIO, "gone"))


async def suspended(folder: Path) -> None:
    """Volumes 0 and 1 had two writes that hosts know to be durable; of 0 the disk has nothing. Then both sides had a
    suspension, and a host wrote to 1."""
    async with Site.at(folder) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        for number in (0, 1):
            await primary.write(number, PAGE, A)
            await primary.write(number, PAGE, B)
            await finished(site.shown[f"v{number}"].flush())
        fail_syncs(site.raw["v0"])
        await primary.stage.stop(site.row(State.P_PSUE))
        await primary.stage.close()
        assert NOTE in site.stores.names()
        assert f"{GROUP.hex()}-1.{UNSYNCED}" not in site.stores.names()
        await finished(site.raw["v1"].write(PAGE, memoryview(C)))
    on_disk(folder, "v0", bytes(PAGE))


def on_disk(folder: Path, name: str, data: bytes) -> None:
    with (folder / name).open("r+b") as file:
        file.seek(PAGE)
        file.write(data)


def marking(site: Site, state: State = State.P_PSUE) -> Marking:
    return Marking(site.row(state), site.doors(), site.told())


async def content(site: Site, name: str) -> bytes:
    page = memoryview(bytearray(PAGE))
    await finished(site.raw[name].read(PAGE, page))
    return bytes(page)


async def test_what_is_noted_is_written_again_and_nothing_else(tmp_path: Path) -> None:
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        await redo_unsynced(marking(site))
        assert await content(site, "v0") == B
        assert await content(site, "v1") == C
        assert NOTE not in site.stores.names()
        # Once: hosts write from now on.
        await finished(site.raw["v0"].write(PAGE, memoryview(C)))
        await redo_unsynced(marking(site))
        assert await content(site, "v0") == C


def fail_second_sync(volume: FileVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has been written again."""
    flush = volume.flush
    asked: list[None] = []

    def counted() -> Awaitable[None] | None:
        asked.append(None)
        if len(asked) == 2:
            fail_syncs(volume)
        return flush()

    monkeypatch.setattr(volume, "flush", counted)


async def test_what_cannot_be_synced_again_waits_for_another_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await suspended(tmp_path)
    for before in (True, False):
        async with Site.at(tmp_path) as site:
            if before:
                fail_syncs(site.raw["v0"])
            else:
                fail_second_sync(site.raw["v0"], monkeypatch)
            await redo_unsynced(marking(site))
            assert NOTE in site.stores.names()
            with pytest.raises(VolumeFailed):
                await finished(site.raw["v0"].write(PAGE, memoryview(C)))
        on_disk(tmp_path, "v0", bytes(PAGE))
    async with Site.at(tmp_path) as site:
        await redo_unsynced(marking(site))
        assert await content(site, "v0") == B
        assert NOTE not in site.stores.names()


async def test_p_vols_that_run_are_redone_anyway(tmp_path: Path) -> None:
    """The array was killed before the suspension was committed."""
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        await redo_unsynced(marking(site, State.P_PAIR))
        assert NOTE not in site.stores.names()
        assert await content(site, "v0") == bytes(PAGE)
        primary = await site.begun(site.row(State.P_PAIR), found=True)
        assert await content(site, "v0") == B
        await primary.leave()


async def test_without_the_journal_it_is_told_and_goes_on(tmp_path: Path) -> None:
    await suspended(tmp_path)
    with (tmp_path / "j").open("r+b") as file:
        file.write(bytes(1 << 20))
    async with Site.at(tmp_path) as site:
        await redo_unsynced(marking(site))
        assert await content(site, "v0") == bytes(PAGE)
        assert NOTE not in site.stores.names()


async def test_a_note_goes_with_its_pair(tmp_path: Path) -> None:
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        await forget_stores(marking(site), 0)
        assert NOTE not in site.stores.names()


async def test_a_group_does_not_end_while_a_p_vol_cannot_be_synced(tmp_path: Path) -> None:
    """Its journal would end with it."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, PAGE, A)
        fail_syncs(site.raw["v0"])
        with pytest.raises(VolumeFailed, match=r"volumes \[0\] of group g are not durable"):
            await primary.stage.stop(None)
        await primary.stage.close()


@pytest.mark.parametrize("state", [State.P_PSUS, State.P_PSUE, None])
async def test_while_a_fence_stands_nothing_lets_hosts_write(tmp_path: Path, state: State | None) -> None:
    """The other side takes the P-VOLs' place by what it was told: until then, or until the fence lapses, hosts wait."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, PAGE, A)
        assert await primary.stage._fencing.stand()
        row = None if state is None else site.row(state)
        assert await primary.stage.stop(row) == FENCED
        await primary.stage._fencing.release()
        assert await primary.stage.stop(row) is None
        await primary.stage.close()
