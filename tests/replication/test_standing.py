"""The stage in which a group stands still: hosts read its volumes and do not write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from arrayd.replication.before_images import BLOCK_BYTES, BeforeImages
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.guarded import GuardedVolume
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeError, VolumeFailed, VolumeNotReady, VolumeReadOnly
from tests.lab.waiting import until
from tests.replication.still import GROUP, Still, block, content, row_of

REGION = 4096
ROW = row_of(State.S_SSUS, consistent=True)
BITMAPS = [f"{GROUP.hex()}-{number}.bitmap" for number in range(2)]


@pytest.fixture
async def still() -> AsyncIterator[Still]:
    made = Still()
    await made.make_bitmaps(0, 5 * REGION)
    yield made
    assert made.stores.opened == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def entered(still: Still) -> Standing:
    stage = Standing(ROW, still.doors, still.told)
    await stage.prepare()
    await stage.enter()
    return stage


async def test_hosts_read_and_do_not_write(still: Still) -> None:
    assert still.seen["data"].write_now(0, block(1))
    stage = await entered(still)
    assert still.files["data"].durable[:REGION] == block(1), "a volume that is guarded does not flush"
    for each in still.seen.values():
        assert isinstance(each, GuardedVolume)
        with pytest.raises(VolumeReadOnly):
            each.write(0, block(2))
    assert content(still.seen["data"], 0) == block(1)
    assert stage.progress().differing == {0: 2 * REGION, 1: 2 * REGION}
    assert await stage.stop(row_of(State.S_COPY)) is None
    await stage.close()
    assert set(still.stores.files) == set(BITMAPS)
    assert isinstance(still.seen["data"], GuardedVolume), "what comes next shows another one"


async def mixed(still: Still, row: GroupRow) -> None:
    """S-VOLs of this row stand, and nothing is read of them."""
    stage = Standing(row, still.doors, still.told)
    await stage.prepare()
    await stage.enter()
    for each in still.seen.values():
        assert not each.read_now(0, memoryview(bytearray(512)))
        with pytest.raises(VolumeNotReady):
            each.read(0, memoryview(bytearray(512)))
        with pytest.raises(VolumeReadOnly):
            each.write(0, block(2))
    await stage.stop(row)
    await stage.close()


@pytest.mark.parametrize("state", [State.S_SSUS, State.S_PSUE, State.S_PFUS])
async def test_s_vols_in_the_middle_of_a_copy_are_not_read(still: Still, state: State) -> None:
    """One of the two is enough: the other one has what came to it after that point."""
    stage = Standing(replace(ROW, pairs=row_of(state).pairs), still.doors, still.told)
    name = stage.images_name(1)
    await BeforeImages.create(still.doors.stores, name, still.doors.volume("log"), GROUP, 1)
    await still.stores.close(name)
    await mixed(still, stage.row)
    await still.stores.remove(name)
    stage = await entered(still)
    assert content(still.seen["data"], 0) == bytes(4096)
    await stage.stop(ROW)
    await stage.close()


async def test_s_vols_that_never_were_a_point_or_of_which_nobody_knows_are_not_read(still: Still) -> None:
    await mixed(still, replace(ROW, consistent=False))
    await mixed(still, row_of(State.S_PAIR, consistent=True))
    name = f"{GROUP.hex()}-0.before"
    await still.stores.create(name, 4096)
    await still.stores.close(name)
    still.stores.fails, still.stores.failing = VolumeFailed("no disk"), name
    await mixed(still, ROW)


async def test_it_stands_without_bitmaps_that_can_be_read(still: Still) -> None:
    await still.stores.remove(BITMAPS[0])
    stage = await entered(still)
    assert stage.progress().differing == {1: 2 * REGION}
    await stage.stop(ROW)
    await stage.close()
    still.stores.fails, still.stores.failing = VolumeFailed("no disk"), BITMAPS[1]
    again = await entered(still)
    assert again.progress().differing == {}
    await again.stop(ROW)
    await again.close()


async def test_it_does_not_begin_before_the_volumes_are_durable(still: Still) -> None:
    still.files["log"].fails = VolumeFailed("no sync")
    stage = Standing(ROW, still.doors, still.told)
    with pytest.raises(VolumeError, match="no sync"):
        await stage.prepare()
    still.files["log"].fails = None
    await stage.prepare()
    await stage.close()
    assert still.seen == still.raw
    assert set(still.stores.files) == set(BITMAPS)


@pytest.mark.parametrize("state", [State.S_SSWS, State.S_SSUS_WRITABLE, State.P_COPY])
async def test_a_copy_that_was_cut_short_is_gone_back_on_before_hosts_write_or_it_leads(
    still: Still, state: State
) -> None:
    """In this order: marked, written back, committed, forgotten."""
    row = row_of(State.S_PSUE)
    stage = Standing(row, still.doors, still.told)
    assert still.raw["data"].write_now(0, block(1, BLOCK_BYTES))
    name = stage.images_name(0)
    images = await BeforeImages.create(still.doors.stores, name, still.raw["data"], GROUP, 0)
    await images.keep([(0, BLOCK_BYTES)])
    await still.stores.close(name)
    assert still.raw["data"].write_now(0, block(2, BLOCK_BYTES))
    await stage.prepare()
    await stage.enter()
    assert await stage.stop(row) is None
    assert content(still.raw["data"], 0) == block(2), "the array stops: the copy goes on from here"
    assert await stage.stop(row_of(state)) is None
    assert still.files["data"].durable[:BLOCK_BYTES] == block(1, BLOCK_BYTES)
    assert await still.ranges(0) == [(0, BLOCK_BYTES)]
    assert name in still.stores.files, "the commit may fail"
    await stage.close()
    assert set(still.stores.files) == set(BITMAPS)


async def test_nothing_is_opened_that_cannot_go_back(still: Still) -> None:
    stage = Standing(row_of(State.S_PSUE), still.doors, still.told)
    await stage.prepare()
    still.stores.files[stage.images_name(0)] = still.files["data"]
    still.stores.fails, still.stores.failing = VolumeFailed("no disk"), stage.images_name(0)
    with pytest.raises(VolumeError, match="no disk"):
        await stage.stop(row_of(State.S_SSWS))


async def test_pairs_that_end(still: Still) -> None:
    """By themselves, and then the group: hosts see the volumes themselves, and nothing is left."""
    still.stores.files[BITMAPS[0].replace("bitmap", "before")] = still.files["data"]
    stage = await entered(still)
    stage.changed(replace(ROW, pairs=ROW.pairs[1:]))
    await until(lambda: set(still.stores.files) == {BITMAPS[1]})
    assert still.seen["data"] is still.raw["data"]
    assert isinstance(still.seen["log"], GuardedVolume)
    assert stage.progress().differing == {1: 2 * REGION}
    await stage.stop(None)
    await stage.close()
    assert still.stores.files == {}
    assert still.seen == still.raw
