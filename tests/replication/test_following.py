"""The stage of S-VOLs that run: how it begins, who drives, and what it tells."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from arrayd.link.channel import LinkError
from arrayd.replication import acquisition as acquisition_module
from arrayd.replication import pulling as pulling_module
from arrayd.replication.acquisition import STALE_SECONDS
from arrayd.replication.asking import Asked
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.following import Following
from arrayd.replication.group_rows import Driver
from arrayd.replication.jobs import Job
from arrayd.replication.journal import AuxiliaryJournal, JournalError, PrimaryJournal
from arrayd.replication.journal.regions import START
from arrayd.replication.pair_stores import new_bitmap, whole_bitmap
from arrayd.replication.pulling import Stopped
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import Event, State
from arrayd.volumes.volume import VolumeError, VolumeFailed, VolumeNotReady, VolumeReadOnly, finished
from tests.replication.following_doors import GROUP, TIME, no_answer, until
from tests.replication.following_parts import NUMBERS, SIZE, Parts


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts()
    yield made
    await made.close()


@pytest.fixture
async def copying() -> AsyncIterator[Parts]:
    made = Parts(State.S_COPY)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acquisition_module, "ENDED_SECONDS", 0.0)
        patch.setattr(pulling_module, "PAUSE_SECONDS", 0.00001)
        patch.setattr(pulling_module, "PAUSE_SECONDS_MAX", 0.00001)
        yield


# -- it runs -----------------------------------------------------------------------------------------------------------


async def test_figure_16_s_vols_follow(parts: Parts) -> None:
    await parts.entered()
    assert set(parts.site.shown) == {"s0", "s3"}
    for _ in range(3):
        parts.writes()
        await parts.alike()
    await until(lambda: parts.primary.acknowledged == parts.primary.end)
    assert not parts.site.events


async def test_a_copy_ends_once(copying: Parts) -> None:
    stage = await copying.entered()
    copying.writes()
    await until(lambda: bool(copying.site.events))
    assert copying.site.contents == copying.primary.volumes
    assert copying.site.events.popleft() == (Event.COPY_END, "")
    copying.writes()
    await copying.alike()
    assert not copying.site.events
    stage.changed(replace(copying.next(State.S_PAIR), consistent=True))
    await until(lambda: not copying.site.stores.open_names)
    assert {name.rpartition(".")[2] for name in copying.site.stores.files} == {"bitmap"}
    copying.writes()
    await copying.alike()


async def test_hosts_read_s_vols_when_their_copy_has_ended(copying: Parts) -> None:
    stage = await copying.entered()
    await until(lambda: bool(copying.site.events))
    view = memoryview(bytearray(512))
    for front in copying.site.shown.values():
        assert front is not None
        with pytest.raises(VolumeNotReady):
            front.read(0, view)
        with pytest.raises(VolumeReadOnly):
            front.write(0, view)
    stage.changed(replace(copying.next(State.S_PAIR), consistent=True))
    await until(lambda: not copying.site.stores.open_names)
    for front in copying.site.shown.values():
        assert front is not None
        await finished(front.read(0, view))
        with pytest.raises(VolumeReadOnly):
            front.write(0, view)


async def test_a_copy_has_not_ended_before_what_it_read_is_restored(copying: Parts) -> None:
    """What was read from the P-VOLs has a write that is not served yet."""
    copying.writes(3)
    copying.primary.unsynced = 3
    stage = await copying.entered()
    await until(lambda: stage.copying is not None and stage.copying.copied)
    for _ in range(200):
        await asyncio.sleep(0)
    assert not copying.site.events
    copying.primary.unsynced = 0
    await until(lambda: bool(copying.site.events))
    assert copying.site.contents == copying.primary.volumes


async def test_without_a_copy_it_has_ended_when_what_was_there_is_restored() -> None:
    parts = Parts(State.S_COPY)
    parts.site.start_from({number: bytes(content) for number, content in parts.primary.volumes.items()})
    for number in NUMBERS:
        name = f"{GROUP.hex()}-{number}.bitmap"
        await new_bitmap(parts.site.doors(), name, SIZE, GROUP, marked=False)
    parts.writes()
    parts.primary.unsynced = 5
    stage = await parts.entered()
    await until(lambda: stage.copying is not None and stage.copying.copied)
    for _ in range(200):
        await asyncio.sleep(0)
    assert not parts.site.events
    parts.primary.unsynced = 0
    await until(lambda: bool(parts.site.events))
    assert parts.primary.copied_bytes == 0
    assert parts.site.contents == parts.primary.volumes
    await parts.close()


async def test_an_error_is_told_once(parts: Parts) -> None:
    stage = await parts.entered()
    parts.writes()
    await parts.alike()
    await until(lambda: stage.progress().restored == parts.primary.end)
    for file in parts.site.s_vols.values():
        file.fails = VolumeFailed("broken")
    parts.writes()
    await until(lambda: bool(parts.site.events))
    assert parts.site.events.popleft() == (Event.ERROR, "broken")
    for _ in range(100):
        await asyncio.sleep(0)
    assert not parts.site.events
    # They are between two positions, and that is not shown as if it were one.
    with pytest.raises(VolumeError):
        await stage.stop(parts.next(State.S_PSUE))
    for file in parts.site.s_vols.values():
        file.fails = None
    assert await stage.stop(parts.next(State.S_PSUE)) is None
    assert parts.site.contents == parts.primary.prefix(stage.position or START)


async def test_progress(copying: Parts) -> None:
    stage = Following(copying.row, copying.site.doors(), copying.site.told())
    assert stage.progress() == Progress()
    stage = await copying.prepared()
    assert stage.progress().differing == dict.fromkeys(NUMBERS, SIZE)
    await stage.enter()
    copying.writes()
    await until(lambda: bool(copying.site.events))
    await until(lambda: stage.progress().restored == copying.primary.end)
    end = copying.primary.end
    told = stage.progress()
    assert (told.stored, told.acquired, told.restored) == (end, end, end)
    assert (told.lag_s, told.contact, told.used_share) == (0.0, TIME / 1e9, 0.0)
    assert told.differing == dict.fromkeys(NUMBERS, 0)
    assert (told.restoring, told.copying) == (Job(None, 0, None), Job(2 * SIZE, 0, None))
    copying.now += STALE_SECONDS + 1
    assert stage.progress().restoring == Job(None, None, None), "nobody was heard of since"


# -- who drives --------------------------------------------------------------------------------------------------------


async def test_a_host_drives_step_by_step() -> None:
    parts = Parts(State.S_COPY, driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes(3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert parts.primary.asked == []
    while await stage.copy():
        pass
    assert set(parts.primary.asked) == {Asked.BITMAP, Asked.JOINED, Asked.COPY}
    assert not parts.site.events
    assert await stage.acquire()
    assert not parts.site.events
    assert parts.primary.acknowledged == START
    assert await stage.restore()
    assert parts.primary.acknowledged == parts.primary.end, "it is told, so that it can be purged"
    assert not await stage.restore()
    assert parts.site.events.popleft() == (Event.COPY_END, "")
    assert parts.site.contents == parts.primary.volumes
    await parts.close()


async def test_the_driver_changes(parts: Parts) -> None:
    stage = await parts.entered()
    assert not await stage.acquire(), "the arrays drive"
    stage.changed(replace(parts.row, driver=Driver.HOST))
    await until(lambda: not stage._chores)
    parts.writes()
    asked = len(parts.primary.asked)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(parts.primary.asked) == asked
    assert await stage.acquire()
    assert await stage.restore()
    await parts.alike()
    stage.changed(parts.row)
    parts.writes()
    await parts.alike()


async def test_a_step_that_fails_tells_the_error_too() -> None:
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes()
    parts.site.journal.fails = VolumeFailed("broken")
    with pytest.raises(VolumeFailed):
        await stage.acquire()
    assert parts.site.events.popleft() == (Event.ERROR, "broken")
    with pytest.raises(Stopped):
        await stage.acquire()
    parts.site.journal.fails = None
    await parts.close()


async def test_what_is_restored_is_so_though_nobody_hears_of_it() -> None:
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes()
    assert await stage.acquire()
    parts.primary.before_answer = no_answer
    assert await stage.restore()
    assert parts.site.contents == parts.primary.volumes
    assert not parts.site.events
    await parts.close()


async def test_a_step_without_an_answer_changes_nothing() -> None:
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.primary.before_answer = no_answer
    with pytest.raises(LinkError):
        await stage.acquire()
    assert not parts.site.events
    await parts.close()


# -- prepared ----------------------------------------------------------------------------------------------------------


async def test_it_goes_on_after_a_restart(parts: Parts) -> None:
    stage = await parts.entered()
    parts.writes()
    await parts.alike()
    await until(lambda: stage.progress().restored == parts.primary.end)
    await stage.stop(parts.row)
    stage = await parts.prepared(found=True)
    assert stage.position == parts.primary.end
    await stage.enter()
    parts.writes()
    await parts.alike()


async def test_a_restore_that_was_begun_is_carried_out_first(parts: Parts) -> None:
    stage = await parts.prepared()
    parts.writes()
    assert stage.journal is not None
    await stage.acquisition.once()
    await stage.journal.restore(parts.primary.end)
    parts.site.lose_power()
    await parts.prepared(found=True)
    assert parts.site.contents == parts.primary.volumes


async def test_what_was_tried_may_be_tried_again(copying: Parts) -> None:
    calls = 0
    create = copying.site.stores.create

    async def fails(name: str, size: int) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise VolumeFailed("full")
        return await create(name, size)

    copying.site.stores.create = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(VolumeFailed):
        await copying.prepared()
    copying.stages.clear()
    assert not copying.site.stores.open_names
    await copying.entered()
    await until(lambda: bool(copying.site.events))


@pytest.mark.parametrize("there", ["nothing", "epoch", "group", "primary"])
async def test_a_journal_that_must_be_there(there: str) -> None:
    parts = Parts()
    volume = parts.site.doors().volume("journal")
    if there == "epoch":
        await AuxiliaryJournal.create(volume, GROUP, 7)
    elif there == "group":
        await AuxiliaryJournal.create(volume, bytes(16), 1)
    elif there == "primary":
        await PrimaryJournal.create(volume, GROUP, 1)
    with pytest.raises(JournalError, match="is not on volume journal"):
        await parts.prepared(found=True)


async def test_s_vols_that_are_followed_have_clear_bitmaps() -> None:
    """As after a swap: what the bitmap had was about something else."""
    parts = Parts()
    name = f"{GROUP.hex()}-0.bitmap"
    await new_bitmap(parts.site.doors(), name, SIZE, GROUP, marked=True)
    await parts.prepared()
    assert (await whole_bitmap(parts.site.doors(), name, SIZE, GROUP)).marked_bytes == 0
    assert len(parts.site.stores.files) == 2
    await parts.close()


async def test_before_images_of_a_copy_that_has_ended_are_removed(parts: Parts) -> None:
    """The process died between the row's commit and that."""
    stage = await parts.prepared()
    name = stage.images_name(0)
    await BeforeImages.create(parts.site.stores, name, parts.site.doors().volume("s0"), GROUP, 0)
    await parts.prepared(found=True)
    assert name not in parts.site.stores.files


async def test_before_images_of_an_earlier_copy_that_was_cut_short_go_on() -> None:
    parts = Parts(State.S_COPY, consistent=True)
    start = {number: bytes([number]) * SIZE for number in NUMBERS}
    parts.site.start_from(start)
    stage = await parts.prepared()
    for _ in range(4):
        assert await stage.copying.once()  # type: ignore[union-attr]
    assert parts.site.contents != start
    assert await stage.stop(parts.next(State.S_SSUS)) is None
    await stage.close()
    assert parts.site.contents != start
    # A resync, in another epoch.
    parts.row = parts.primary.row = replace(parts.row, epoch=2, generation=1)
    stage = await parts.prepared()
    await stage.stop(parts.next(State.S_SSWS))
    assert parts.site.contents == start
    await stage.close()
    assert {name.rpartition(".")[2] for name in parts.site.stores.files} == {"bitmap"}
