"""Pairs that come to a group that runs: nothing of them is taken for lost, and the others go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arrayd.replication.activity import Activity
from arrayd.replication.journaling import Journaling
from arrayd.replication.pair_stores import forget_stores, make_logs
from arrayd.replication.statuses import Operation, State
from tests.replication.pair_doors import Site
from tests.replication.stage_lab import BOOT, GROUP, KIB, PAIR_A, PAIR_B, Lab


@pytest.fixture
async def lab() -> Lab:
    return Lab()


async def test_their_activity_logs_are_made_before(lab: Lab) -> None:
    await lab.room.create(replace(GROUP, pairs=(PAIR_A,)), Operation.PAIRCREATE_VL, lab.save, copy=True)
    assert [name for name in lab.stores.there if name.endswith(".activity")] == []
    await lab.room.create(replace(GROUP, pairs=(PAIR_B,)), Operation.PAIRCREATE_VL, lab.save, copy=True)
    name = f"{GROUP.id.hex()}-1.activity"
    assert [each for each in lab.stores.there if each.endswith(".activity")] == [name]
    logs = await Activity.open(lab.stores, {1: name}, {1: 64 * KIB}, GROUP.id, BOOT, anew=False, found=True)
    assert logs.lost == []
    assert logs.logs[1].hot == set()
    await logs.close()
    lab.check()


async def test_journaled_ones_suspend_nothing(tmp_path: Path) -> None:
    async with Site.at(tmp_path) as site:
        old = (await site.begun(site.row(State.P_PAIR, count=2))).stage
        assert await old.stop(old.row) is None
        new = Journaling(site.row(State.P_PAIR, count=3), site.doors(), site.told())
        await make_logs(new, {2})
        await new.prepare(found=True)
        await new.enter()
        await old.close()
        pending = site.shown["v2"].write(0, memoryview(bytes(4096)))
        if pending is not None:
            await pending
        assert site.events == []
        await new.stop(None)
        await new.close()
        await make_logs(new, {2})
        await forget_stores(new, 2)
        assert not [path for path in (tmp_path / "stores").iterdir() if "-2." in path.name]
