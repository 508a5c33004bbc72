"""Groups with P-VOLs that could not be synced, with their real stages, on files of a test: see `test_unsynced.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arrayd.replication.asking import fence
from arrayd.replication.changes import carried_out
from arrayd.replication.choosing import KINDS
from arrayd.replication.group_rows import GroupRow, PeerRows
from arrayd.replication.guarded import UnsureVolume
from arrayd.replication.in_force import Stages, Surroundings
from arrayd.replication.marked import MarkedVolume
from arrayd.replication.pairs import Pairs
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import Event, Operation, State
from arrayd.replication.taking_up import take_up
from arrayd.replication.transitions import Circumstances
from arrayd.tables import TablesError, Work
from arrayd.volumes.volume import Volume, VolumeFailed
from tests.replication.pair_doors import GROUP, Site
from tests.replication.test_unsynced import PAGE, A, B, content, fail_syncs, row, suspended

AT = Circumstances(1.0, "why")


class Whole:
    """The group of a site, with its real stages. `commits` are what commits raise, each once."""

    def __init__(self, site: Site, row: GroupRow, *commits: Exception) -> None:
        self.site = site
        self.table = Pairs([row], row.epoch)
        self.stages = Stages("g", self._around(), lambda _token: site.told())
        self._commits = list(commits)

    def _around(self) -> Surroundings:
        return Surroundings(self.table, self.site.doors(), KINDS, self._commit, lambda _severity, _text: None)

    async def _commit(self, _work: Work) -> None:
        if self._commits:
            raise self._commits.pop(0)

    async def _save(self, _work: Work, _row: GroupRow | None) -> None:
        return

    async def begin(self, stage: Stage) -> None:
        """With this stage in force."""
        self.stages.stage, self.stages.token = stage, object()

    async def happens(self, what: Event | Operation, pair: int | None = None) -> Any:
        return await carried_out(
            self.stages,
            lambda commit, between: self.table.happen("g", what, None, AT, commit, pair, between),
            self._save,
        )

    async def meets(self, peer: PeerRows) -> Any:
        return await carried_out(
            self.stages, lambda commit, between: self.table.meet("g", peer, AT, commit, between), self._save
        )

    def row(self) -> GroupRow:
        return self.stages.row()


@pytest.mark.parametrize("why", ["commit", "journal"])
async def test_a_bitmap_that_is_lost_besides_shows_hosts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Its stage is made anew: the volume was shown, and what hosts wrote to it was written over at the next start."""
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        whole = Whole(site, row(site), *([TablesError("disk full")] if why == "commit" else []))
        opened, failing = site.stores.open, [VolumeFailed("EIO")]

        async def fails_once(name: str) -> Volume | None:
            if name.endswith("-1.bitmap") and failing:
                raise failing.pop()
            return await opened(name)

        def fails(*_parts: object) -> None:
            raise VolumeFailed("no disk")

        with monkeypatch.context() as broken:
            broken.setattr(site.stores, "open", fails_once)
            if why == "journal":
                broken.setattr(site.raw["j"], "read", fails)
                broken.setattr(site.raw["j"], "read_now", lambda *_parts: False)
            await take_up(whole.stages)
        assert not failing
        assert isinstance(site.shown["v0"], UnsureVolume)
        assert isinstance(site.shown["v1"], MarkedVolume)
        await whole.stages.end()
    async with Site.at(tmp_path) as site:
        whole = Whole(site, row(site))
        await take_up(whole.stages)
        assert isinstance(site.shown["v0"], MarkedVolume)
        assert await content(site, "v0") == B
        assert not any(pair.unsynced for pair in whole.row().pairs)
        await whole.stages.end()


async def test_p_vols_that_the_other_side_has_now_are_not_opened(tmp_path: Path) -> None:
    """It is at most their own array that cannot sync one of them: suspended, hosts would write to the others."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, PAGE, A)
        await primary.ask(fence(GROUP, 1))
        fail_syncs(site.raw["v0"])
        whole = Whole(site, site.row(State.P_PAIR))
        await whole.begin(primary.stage)
        with pytest.raises(VolumeFailed, match=r"volumes \[0\] of group g are not durable"):
            await whole.meets(PeerRows(dict.fromkeys(range(3), State.P_PAIR), 2, True, 5))
        assert set(whole.row().states.values()) == {State.P_PAIR}
        assert all(isinstance(site.shown[name], UnsureVolume) for name in ("v0", "v1", "v2"))
        await whole.stages.end()
    async with Site.at(tmp_path) as site:
        whole = Whole(site, site.row(State.P_PAIR))
        await take_up(whole.stages)
        await whole.meets(PeerRows(dict.fromkeys(range(3), State.P_PAIR), 2, True, 5))
        assert set(whole.row().states.values()) == {State.S_PAIR}
        await whole.stages.end()


async def test_another_pair_ends_while_a_volume_has_failed(tmp_path: Path) -> None:
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, PAGE, A)
        fail_syncs(site.raw["v0"])
        whole = Whole(site, site.row(State.P_PAIR))
        await whole.begin(primary.stage)
        await whole.happens(Event.ERROR)
        assert [pair.number for pair in whole.row().pairs if pair.unsynced] == [0]
        await whole.happens(Operation.PAIRSPLIT_S, pair=1)
        assert [pair.number for pair in whole.row().pairs] == [0, 2]
        await whole.stages.end()
