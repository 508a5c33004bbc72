"""The stage in which hosts' writes are marked: bitmaps opened and saved, made anew when they fail, and left durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from arrayd.replication import marking as module
from arrayd.replication.marked import MarkedVolume
from arrayd.replication.marking import Marking
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeError, VolumeFailed, VolumeReadOnly
from tests.lab.disk import settled, turns
from tests.lab.waiting import until
from tests.replication.still import GROUP, NAMES, SIZE, TWO, Still, block, content, pending, row_of

REGION = 4096
ROW = row_of(State.P_PSUS)
BITMAPS = [f"{GROUP.hex()}-{number}.bitmap" for number in range(len(NAMES))]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.01)


@pytest.fixture
async def still() -> AsyncIterator[Still]:
    made = Still()
    await made.make_bitmaps(8 * REGION)
    yield made
    assert made.stores.opened == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def entered(still: Still, *, found: bool = False) -> Marking:
    stage = Marking(ROW, still.doors, still.told)
    await stage.prepare(found)
    await stage.enter()
    return stage


async def ended(stage: Marking) -> None:
    """The array stops."""
    assert await stage.stop(stage.row) is None
    await stage.close()


async def test_writes_are_marked_and_what_was_marked_stays(still: Still) -> None:
    stage = await entered(still)
    assert all(isinstance(each, MarkedVolume) for each in still.seen.values())
    assert still.stores.opened == set(BITMAPS)
    assert stage.progress().differing == {0: REGION, 1: REGION}
    await settled(still.seen["data"].write(0, block(1)))
    assert stage.progress().differing == {0: 2 * REGION, 1: REGION}
    assert await stage.stop(row_of(State.P_COPY)) is None
    assert still.stores.opened == set()
    assert still.files["data"].durable[:REGION] == block(1), "what is guarded next does not flush"
    # As it is found in another boot: nothing is hot any more.
    assert await still.ranges(0, TWO) == [(0, REGION), (8 * REGION, REGION)]
    assert await still.ranges(1, TWO) == [(8 * REGION, REGION)]
    waits = pending(still.seen["data"].write(REGION, block(2)))
    await turns()
    assert not waits.done()
    await still.doors.show("data", None)
    await waits
    await stage.close()
    assert content(still.raw["data"], REGION) == block(2)


async def test_it_goes_on_where_it_was(still: Still) -> None:
    """After a restart, and after a stop that led nowhere: a stage of the same row takes what waits."""
    stage = await entered(still)
    await settled(still.seen["data"].write(0, block(1)))
    await stage.stop(row_of(State.P_COPY))
    waits = pending(still.seen["data"].write(REGION, block(2)))
    again = await entered(still, found=True)
    await stage.close()
    await waits
    assert again.progress().differing == {0: 3 * REGION, 1: REGION}
    await ended(again)
    assert set(still.stores.files) == set(BITMAPS)


async def test_bitmaps_are_saved_now_and_then(still: Still) -> None:
    """So that after a power loss no more is marked than was written."""
    stage = await entered(still)
    await settled(still.seen["data"].write(0, block(1)))
    file = still.stores.files[BITMAPS[0]]
    await until(lambda: file.since == [])
    await until(lambda: still.seen["data"].write_now(0, block(2)))
    await turns(200)
    await until(lambda: not stage._marked[0].bitmap._hot.any)
    await ended(stage)
    file.lose_power(512)
    assert await still.ranges(0, TWO) == [(0, REGION), (8 * REGION, REGION)]


@pytest.mark.parametrize("lost", ["gone", "cut", "other size"])
async def test_without_a_whole_bitmap_all_is_marked(still: Still, lost: str) -> None:
    if lost == "gone":
        await still.stores.remove(BITMAPS[0])
    elif lost == "cut":
        still.stores.files[BITMAPS[0]].content[:4096] = bytes(4096)
    else:
        still.raw["data"].resize(SIZE - 4096)
    stage = await entered(still, found=True)
    assert stage.progress().differing == {0: still.raw["data"].size, 1: REGION}
    await ended(stage)


async def test_a_stage_that_cannot_begin_leaves_nothing_open(still: Still) -> None:
    stage = Marking(ROW, still.doors, still.told)
    still.stores.fails, still.stores.failing = VolumeFailed("no disk"), BITMAPS[1]
    with pytest.raises(VolumeError, match="no disk"):
        await stage.prepare()
    assert still.stores.opened == set()
    assert stage.progress().differing == {}
    still.stores.fails = None
    del still.stores.files[BITMAPS[1]]
    await stage.prepare()
    assert still.stores.opened == set(BITMAPS)
    assert still.seen == still.raw
    await stage.close()
    assert set(still.stores.files) == set(BITMAPS)


async def test_a_bitmap_that_fails_is_made_anew(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, by the write that found it failing; later ones go on, and all of that pair is marked."""
    monkeypatch.setattr(module, "SAVE_SECONDS", 30.0)
    stage = await entered(still)
    before = still.seen["data"]
    still.stores.files[BITMAPS[0]].fails = VolumeFailed("the disk is gone")
    with pytest.raises(VolumeFailed, match="gone"):
        await pending(before.write(0, block(1)))
    await until(lambda: still.seen["data"] is not before)
    await settled(still.seen["data"].write(0, block(2)))
    assert still.seen["data"].write_now(0, block(3))
    assert stage.progress().differing == {0: SIZE, 1: REGION}
    await ended(stage)
    assert sum(length for _, length in await still.ranges(0, TWO)) == SIZE


async def test_as_long_as_there_is_no_bitmap_writes_are_refused(still: Still) -> None:
    stage = await entered(still)
    before = still.seen["data"]
    still.stores.files[BITMAPS[0]].fails = still.stores.fails = VolumeFailed("the disk is gone")
    for _ in range(50):
        with pytest.raises(VolumeFailed, match="gone"):
            await pending(before.write(0, block(1)))
        await turns(5)
    assert BITMAPS[0] not in still.stores.files, "what could not be trusted is not there to be found"
    with pytest.raises(VolumeError, match="gone"):
        await stage.stop(row_of(State.P_COPY))
    await settled(still.seen["log"].write(0, block(1)))
    still.stores.fails = None
    await until(lambda: still.seen["data"] is not before)
    await settled(still.seen["data"].write(0, block(2)))
    await ended(stage)
    assert content(still.raw["data"], 0) == block(2)
    assert sum(length for _, length in await still.ranges(0)) == SIZE


async def test_a_bitmap_that_fails_at_the_end_is_made_anew(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 30.0)
    stage = await entered(still)
    await settled(still.seen["data"].write(0, block(1)))
    still.stores.files[BITMAPS[0]].fails = VolumeFailed("the disk is gone")
    assert await stage.stop(row_of(State.P_COPY)) is None
    await stage.close()
    assert sum(length for _, length in await still.ranges(0)) == SIZE


async def test_a_stop_that_fails_lets_hosts_go_on(still: Still) -> None:
    stage = await entered(still)
    still.files["log"].fails = VolumeFailed("no sync")
    with pytest.raises(VolumeError, match="no sync"):
        await stage.stop(row_of(State.P_COPY))
    await settled(still.seen["data"].write(0, block(1)))
    still.files["log"].fails = None
    await ended(stage)
    assert await still.ranges(0) == [(0, REGION), (8 * REGION, REGION)]


async def test_a_stop_waits_for_what_is_on_its_way(still: Still) -> None:
    stage = await entered(still)
    still.files["data"].refusals = 1.0
    writes = [pending(still.seen["data"].write(number * REGION, block(number, 8192))) for number in range(1, 20)]
    await turns(2)
    await stage.stop(row_of(State.P_COPY))
    assert all(each.done() for each in writes)
    assert still.files["data"].durable[19 * REGION : 21 * REGION] == block(19, 8192)
    assert await still.ranges(0) == [(REGION, 20 * REGION)]
    await stage.close()


async def test_what_still_waits_when_the_array_stops_ends(still: Still) -> None:
    stage = await entered(still)
    await stage.stop(stage.row)
    waits = pending(still.seen["data"].write(0, block(1)))
    await turns()
    assert not waits.done()
    await stage.close()
    with pytest.raises(VolumeReadOnly):
        await waits


async def test_with_the_group_its_bitmaps_go(still: Still) -> None:
    stage = await entered(still)
    await stage.stop(None)
    waits = pending(still.seen["data"].write(0, block(1)))
    await stage.close()
    await waits
    assert still.seen == still.raw
    assert still.stores.files == {}


async def test_a_pair_that_ends_alone(still: Still) -> None:
    """Hosts see its volume itself, and the others go on."""
    stage = await entered(still)
    await settled(still.seen["data"].write(0, block(1)))
    one = replace(ROW, pairs=ROW.pairs[1:])
    stage.changed(one)
    await until(lambda: set(still.stores.files) == {BITMAPS[1]})
    assert still.seen["data"] is still.raw["data"]
    assert still.seen["data"].write_now(0, block(2))
    await settled(still.seen["log"].write(0, block(3)))
    assert stage.progress().differing == {1: 2 * REGION}
    await ended(stage)
    again = Marking(one, still.doors, still.told)
    await again.prepare(True)
    await again.enter()
    await again.stop(None)
    await again.close()
    assert still.stores.files == {}


async def test_a_pair_that_ends_as_the_stage_does(still: Still) -> None:
    stage = await entered(still)
    await stage.stop(replace(ROW, pairs=ROW.pairs[:1]))
    await stage.close()
    assert set(still.stores.files) == {BITMAPS[0]}
    assert still.seen["log"] is still.raw["log"]
