"""The activity log: after a power loss at any call, all that P-VOL and journal differ in is in a block that is hot."""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arrayd.replication import activity, journaled
from arrayd.replication.activity import ActivityLog
from arrayd.replication.bitmap.format import BLOCK_BITS, REGION_BYTES, Geometry
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import Kind, PrimaryJournal
from arrayd.replication.journal.regions import START
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.journaling import Journaling
from arrayd.replication.redo import redo
from arrayd.replication.statuses import Event, State
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeError, VolumeFailed
from tests.lab.search import examples
from tests.replication.modelled import BLOCK, Crash, Machine, ModelFile
from tests.replication.pair_doors import GROUP, MIB, Site

BOOT = b"this is the boot"
HOT_BLOCKS = 8
HOT_BYTES = 2 * BLOCK
SIZE = HOT_BLOCKS * BLOCK_BITS * REGION_BYTES
"""Of the volume for the log, whose blocks are made smaller here."""
TURNS_MAX = 2000

Step = tuple[str, int, int]


class Disks:
    """A P-VOL, its journal and its log."""

    def __init__(self, seed: int, refusals: float) -> None:
        self.machine = Machine(seed)
        self.pvol = ModelFile(self.machine, HOT_BLOCKS * HOT_BYTES, refusals)
        self.journal = ModelFile(self.machine, 160 * 4096, refusals)
        self.log = ModelFile(self.machine, Geometry(SIZE).bits_page * 4096, refusals)

    def volumes(self) -> list[FileVolume]:
        return [FileVolume("1", cast(Any, file)) for file in (self.pvol, self.journal, self.log)]

    async def live(self, steps: list[Step], fuse: int | None) -> None:
        pvol, place, store = self.volumes()
        journal = await PrimaryJournal.create(place, GROUP, 1)
        log = await ActivityLog.create(store, SIZE, GROUP, BOOT, False)
        group = PrimaryGroup(journal, itertools.count(1).__next__, lambda *_: None)
        group.activity.logs[0] = log
        front = JournaledVolume(pvol, group, 0)
        self.machine.fuse = fuse
        waiting: list[Any] = []
        for number, (what, at, more) in enumerate(steps, 1):
            at, blocks = at % 5, 1 + more % 4
            data = memoryview(bytes([number]) * (blocks * BLOCK))
            if what == "write":
                waiting.append(front.commit_now(at * BLOCK, data) or front.write(at * BLOCK, data))
            elif what == "unmap":
                waiting.append(front.unmap(at * BLOCK, len(data)))
            elif what == "turn":
                for _ in range(1 + more):
                    await asyncio.sleep(0)
            elif what == "cool":
                waiting.append(asyncio.ensure_future(group.activity.cool(journal.sync)))
            elif what == "race":
                # Blocks that are written to while they would cool down.
                cooling = asyncio.ensure_future(group.activity.cool(journal.sync))
                for _ in range(more):
                    await asyncio.sleep(0)
                waiting.append(front.commit_now(at * BLOCK, data) or front.write(at * BLOCK, data))
                await cooling
            elif what == "checkpoint":
                await group.checkpoint()
        for _ in range(more):
            await asyncio.sleep(0)

    async def check(self) -> None:
        """As it is found in another boot."""
        pvol, place, store = self.volumes()
        log, boot = await ActivityLog.open(store, SIZE, GROUP)
        assert boot == BOOT
        journal = await PrimaryJournal.open(place)
        await redo(journal, {0: pvol})
        svol = bytearray(self.pvol.size)
        async for run in journal.runs(START, journal.regions.stored):
            for entry, data in run:
                end = entry.offset + entry.extent
                svol[entry.offset : end] = data if entry.kind == Kind.WRITE else bytes(entry.extent)
        for at in range(0, len(svol), BLOCK):
            if svol[at : at + BLOCK] != self.pvol.content[at : at + BLOCK]:
                assert at // HOT_BYTES in log.hot, f"lost at {at}: {log.hot}"


async def until_death(disks: Disks, steps: list[Step], fuse: int | None) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    living = asyncio.ensure_future(disks.live(steps, fuse))
    for _ in range(TURNS_MAX):
        await asyncio.sleep(0)
        if living.done() or disks.machine.dead:
            break
    disks.machine.dead = True
    with suppress(Crash):
        if living.done():
            living.result()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("write",) * 5 + ("turn",) * 4 + ("unmap", "cool", "race", "race", "checkpoint")),
        st.integers(0, 100),
        st.integers(0, 12),
    ),
    min_size=2,
    max_size=30,
)


@settings(max_examples=examples(150), deadline=None)
@example([("write", 0, 0), ("write", 4, 0), ("checkpoint", 0, 0), ("write", 1, 3)], None, 0, 0.0, 2)
@given(
    STEPS, st.one_of(st.none(), st.integers(0, 60)), st.integers(0, 1 << 30), st.sampled_from((0.0, 0.3)),
    st.sampled_from((2, 100)),
)  # fmt: skip
def test_what_a_power_loss_makes_different_is_hot(
    steps: list[Step], fuse: int | None, seed: int, refusals: float, hot_max: int
) -> None:
    disks = Disks(seed, refusals)
    with (
        patch.object(activity, "HOT_BYTES", HOT_BYTES),
        patch.object(journaled, "HOT_BYTES", HOT_BYTES),
        patch.object(journaled, "SPOT_BYTES_MAX", HOT_BYTES),
        patch.object(activity, "HOT_MAX", hot_max),
    ):
        asyncio.run(until_death(disks, steps, fuse))
        for file in (disks.pvol, disks.journal, disks.log):
            file.lose_power(BLOCK)
        disks.machine.dead, disks.machine.fuse = False, None
        asyncio.run(disks.check())


async def test_what_is_hot_when_it_is_opened_is_so_on_the_disk() -> None:
    """Though the sync of it has failed, and the kernel takes the page for clean."""
    disks = Disks(1, 0.0)
    store = disks.volumes()[2]
    log = await ActivityLog.create(store, SIZE, GROUP, BOOT, False)
    disks.log.sync_fails_after = 0
    with pytest.raises(VolumeFailed):
        await log.heat({3})
    for _ in range(2):
        again, _boot = await ActivityLog.open(store, SIZE, GROUP)
        assert again.hot == {3}
        disks.log.lose_power(BLOCK)


def stage_of(site: Site, boot: bytes) -> Journaling:
    doors = site.doors()
    object.__setattr__(doors, "boot", boot)
    return Journaling(site.row(), doors, site.told())


@pytest.mark.parametrize("lost", [True, False])
async def test_only_another_boot_suspends(tmp_path: Path, lost: bool) -> None:
    async with Site.at(tmp_path, sizes=[MIB]) as site:
        primary = await site.begun()
        await primary.write(0, 8192, b"a" * 4096)
        for name in list(site.stores.used):
            await site.stores.close(name)
        # Twice: a restart before the suspension forgets nothing.
        for _ in range(2):
            site.shown.clear()
            stage = stage_of(site, b"another boot...." if lost else primary.stage.doors.boot)
            await stage.prepare(found=True)
            await stage.enter()
            await asyncio.sleep(0)
            assert (Event.ERROR in site.events) is lost
            if lost:
                assert "records were lost" in site.reasons[0]
            stage._stopping = True
            await stage._tending.end()
            for name in list(site.stores.used):
                await site.stores.close(name)
        if lost:
            stage = stage_of(site, b"another boot....")
            await stage.prepare(found=True)
            primary.stage = stage
            await stage.stop(site.row(State.P_PSUE, 2))
            assert await primary.marked(0) == [(0, MIB)]
            await stage.close()


async def test_a_log_that_is_lost_counts_as_hot_and_one_that_cannot_be_made_stops_all(tmp_path: Path) -> None:
    async with Site.at(tmp_path, sizes=[MIB]) as site:
        await (await site.begun()).leave()
        stage = stage_of(site, b"another boot....")
        await stage.prepare(found=True)
        assert not stage._activity.lost, "the array had stopped"
        await stage.close()
        await site.stores.remove(stage.store_name("activity"))
        stage = stage_of(site, b"another boot....")
        await stage.prepare(found=True)
        assert stage._activity.lost_bytes == MIB
        await stage.close()
        site.stores.failing = VolumeFailed("no disk")
        with pytest.raises(VolumeError, match="no disk"):
            await stage_of(site, BOOT).prepare(found=True)


async def test_a_suspension_that_is_not_committed_removes_nothing(tmp_path: Path) -> None:
    """The group is taken up again as it was: without its activity logs all of it would count as different."""
    async with Site.at(tmp_path, sizes=[MIB]) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, 0, bytes(4096))
        there = sorted(path.name for path in site.stores.folder.iterdir())
        assert await primary.stage.stop(site.row(State.P_PSUS, 2)) is None
        primary.stage.after = primary.stage.row
        await primary.stage.close()
        left = {path.name for path in site.stores.folder.iterdir()}
        assert left.issuperset(there)
        again = await site.begun(site.row(State.P_PAIR), found=True)
        assert site.events == []
        await again.leave()
