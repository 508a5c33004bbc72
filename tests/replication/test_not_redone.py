"""P-VOLs whose journal could not be redone to its end: nobody sees them until it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from arrayd.replication import asking
from arrayd.replication.asking import Range
from arrayd.replication.journaling import Journaling
from arrayd.replication.redo import RedoFailed
from arrayd.replication.statuses import Operation, Refusal, State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeError, VolumeFailed
from tests.lab.disk import turns
from tests.replication.pair_doors import GROUP, Primary, Site
from tests.replication.stage_lab import WHOLE, Lab, marked


@pytest.mark.parametrize("begun", [True, False])
async def test_p_vols_that_are_not_redone_are_seen_by_nobody(lab: Lab, begun: bool) -> None:
    """Half of a redo leaves older data than hosts were answered, and so does none of it after a power loss."""
    failed = RedoFailed(VolumeError("no room"), begun)
    lab.fails["journaling prepare"] = [failed, failed]
    await lab.holding(State.P_PAIR, State.P_PAIR)
    assert lab.states == "P-VOL PAIR, P-VOL PAIR"
    assert lab.shown == {"v0": "standing", "v1": "standing"}
    assert isinstance(await lab.happen(Operation.PAIRSPLIT), Refusal)
    assert lab.shown == {"v0": "standing", "v1": "standing"}
    await lab.happen(Operation.PAIRSPLIT)
    assert lab.states == "P-VOL PSUS, P-VOL PSUS"
    assert lab.shown == {"v0": "marking", "v1": "marking"}
    assert await marked(lab) == WHOLE
    lab.check()


@pytest.mark.parametrize("begun", [True, False])
async def test_pairs_end_only_with_p_vols_that_are_redone(lab: Lab, begun: bool) -> None:
    """Where it was not begun, since the disk does not let the journal be read, pairsplit -S gives up what is in it."""
    failed = RedoFailed(VolumeError("no room"), begun)
    lab.fails["journaling prepare"] = [failed, failed]
    await lab.holding(State.P_PAIR, State.P_PAIR)
    assert isinstance(await lab.happen(Operation.PAIRSPLIT_S), Refusal) is begun
    if begun:
        await lab.happen(Operation.PAIRSPLIT_S)
    assert lab.states == "nothing"
    lab.check()


@pytest.mark.parametrize("door", ["read", "flush"])
async def test_a_journal_that_a_disk_does_not_let_open_is_not_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """After a power loss it may have what hosts were answered, and the P-VOLs have not: it was taken for one that is
    damaged, and the pairs were suspended with P-VOLs that were older."""
    async with Site.at(tmp_path) as site:
        killed = await site.begun()
        await killed.write(0, 0, b"a" * 4096)
    async with Site.at(tmp_path) as site:
        stage = Journaling(site.row(), site.doors(), site.told())

        def fails(_volume: FileVolume, *_told: object) -> None:
            raise VolumeFailed("I/O error")

        with monkeypatch.context() as now:
            now.setattr(FileVolume, door, fails)
            with pytest.raises(RedoFailed, match="I/O error") as failed:
                await stage.prepare(found=True)
            assert not failed.value.begun
        await stage.prepare(found=True)
        await stage.enter()
        await Primary(stage, site).leave()


async def test_a_stage_is_closed_though_a_copy_waits_for_a_flush_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has failed, and nothing follows: the flush waited for what comes next, and that for the answer."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun()

        def fails(_volume: FileVolume, *_told: object) -> None:
            raise VolumeFailed("I/O error")

        with monkeypatch.context() as now:
            now.setattr(site.raw["j"], "flush", fails.__get__(site.raw["j"]))
            primary.begin(asking.copy(GROUP, 1, 0, [Range(0, 4096)]))
            await turns(50)
            assert not primary.asking.done()
            await primary.stage.stop(site.row(State.P_PSUE, 2))
            async with asyncio.timeout(5):
                await primary.stage.close()
                await primary.asking
