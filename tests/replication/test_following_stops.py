"""The stage of S-VOLs that run, as it ends: by a split, a takeover, a suspension, a swap, or with its group."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from arrayd.replication import acquisition as acquisition_module
from arrayd.replication import following as module
from arrayd.replication import pulling as pulling_module
from arrayd.replication.asking import Asked, Outcome, Question, refused
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.changing_places import NOT_IN_TIME, SWAP_SECONDS
from arrayd.replication.group_rows import Driver
from arrayd.replication.journal.recent import RECENT_BYTES_MAX
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Stopped
from arrayd.replication.statuses import Event, State
from arrayd.volumes.volume import VolumeFailed
from tests.lab.disk import turns
from tests.replication.following_doors import GROUP, no_answer, row_of, until
from tests.replication.following_parts import NUMBERS, SIZE, Parts
from tests.replication.modelled import ModelFile


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


# -- stopped -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.S_SSUS, State.S_SSUS_WRITABLE])
async def test_a_split_waits_for_the_last_write(parts: Parts, state: State) -> None:
    stage = await parts.entered()
    parts.primary.before_answer = no_answer
    parts.writes(300)
    stopping = asyncio.ensure_future(stage.stop(parts.next(state)))
    parts.primary.before_answer = None
    await until(lambda: stage.progress().restored == parts.primary.end)
    assert not stopping.done()
    parts.writes(3)
    parts.primary.ended = True
    assert await stopping is None
    assert stage.position == parts.primary.end
    assert parts.site.contents == parts.primary.volumes


@pytest.mark.parametrize("how", ["no answer", "refused", "never ends"])
async def test_a_split_does_not_wait_for_ever(parts: Parts, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await parts.entered()
    parts.writes()
    await parts.alike()

    async def silent(_question: Question) -> None:
        await asyncio.get_running_loop().create_future()

    async def takes(_question: Question) -> None:
        parts.now += 1.0

    if how == "no answer":
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.001)
        parts.primary.before_answer = silent
    elif how == "refused":
        parts.primary.changed = lambda _question, _answer: refused(Outcome.NO_GROUP)
    else:
        parts.primary.before_answer = takes
    assert await stage.stop(parts.next(State.S_SSUS)) is None
    assert stage.position == parts.primary.end
    assert parts.now <= module.DRAIN_SECONDS + 2


@pytest.mark.parametrize("state", [State.S_SSWS, State.S_SSUS, None])
async def test_a_takeover_has_what_is_in_the_journal(state: State | None) -> None:
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes(40)
    await stage.acquire()
    parts.writes(2)
    parts.primary.before_answer = no_answer
    assert await stage.stop(None if state is None else parts.next(state)) is None
    assert stage.position is not None
    assert stage.position.sequence == 40
    assert parts.site.contents == parts.primary.prefix(stage.position)
    await stage.close()
    assert len(parts.site.stores.files) == (0 if state is None else 2)


@pytest.mark.parametrize("state", [State.S_PSUE, State.S_PFUS])
async def test_a_suspension_waits_for_nothing(state: State) -> None:
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes(40)
    await stage.acquire()
    assert await stage.stop(parts.next(state)) is None
    assert stage.position == START


async def test_the_arrays_drive_when_the_hosts_last_instruction_has_ended() -> None:
    """Both restored the same records at once."""
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes()
    assert await stage.acquire()
    began, gate, once = asyncio.Event(), asyncio.Event(), stage.restoration.once

    async def slowly() -> bool:
        began.set()
        await gate.wait()
        return await once()

    with pytest.MonkeyPatch.context() as now:
        now.setattr(stage.restoration, "once", slowly)
        instruction = asyncio.ensure_future(stage.restore())
        await began.wait()
    stage.changed(replace(stage.row, driver=Driver.ARRAYS))
    await turns(20)
    assert not stage._tasks
    gate.set()
    with pytest.raises(Stopped):
        await instruction
    assert stage.position == parts.primary.end
    await until(lambda: bool(stage._tasks))
    await parts.close()


async def test_no_instruction_of_a_host_comes_in_between_while_a_stage_ends() -> None:
    """Both restored the same records (seed 1203357 of the simulation)."""
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes()
    assert await stage.acquire()
    began, gate, redo = asyncio.Event(), asyncio.Event(), stage.restoration.redo

    async def slowly() -> None:
        began.set()
        await gate.wait()
        await redo()

    with pytest.MonkeyPatch.context() as now:
        now.setattr(stage.restoration, "redo", slowly)
        ending = asyncio.ensure_future(stage.stop(parts.next(State.S_PSUE)))
        await began.wait()
    instruction = asyncio.ensure_future(stage.restore())
    await turns(20)
    assert not instruction.done()
    gate.set()
    assert await ending is None
    with pytest.raises(Stopped):
        await instruction
    await stage.close()


async def test_memory_that_groups_share_is_given_back() -> None:
    """What came is not restored yet when the stage ends."""
    parts = Parts(driver=Driver.HOST)
    stage = await parts.entered()
    parts.writes(40)
    await stage.acquire()
    assert stage.doors.recent.left < RECENT_BYTES_MAX
    assert await stage.stop(parts.next(State.S_PSUE)) is None
    await stage.close()
    assert stage.doors.recent.left == RECENT_BYTES_MAX


async def test_a_loop_that_waits_for_an_answer_is_stopped(copying: Parts) -> None:
    async def silent(_question: Question) -> None:
        await asyncio.get_running_loop().create_future()

    stage = await copying.entered()
    copying.primary.before_answer = silent
    async with asyncio.timeout(5):
        assert await stage.stop(copying.row) is None
    assert stage._tasks == set()


async def test_a_driver_that_is_changed_twice_keeps_nothing_from_its_end(parts: Parts) -> None:
    """The second change waited for the loops that the first had started, and the end of the stage for it."""
    stage = await parts.entered()
    for driver in (Driver.HOST, Driver.ARRAYS):
        stage.changed(replace(stage.row, driver=driver))
    parts.writes()
    await parts.alike()
    assert stage._tasks
    async with asyncio.timeout(5):
        assert await stage.stop(parts.next(State.S_PSUE)) is None
    assert stage._tasks == set()


async def test_a_copy_goes_on_from_where_it_was_stopped(copying: Parts) -> None:
    copying.row = copying.primary.row = replace(copying.row, driver=Driver.HOST)
    stage = await copying.entered()
    for _ in range(3):
        assert await stage.copy()
    assert await stage.stop(copying.next(State.S_PSUE)) is None
    await stage.close()
    stage = await copying.entered(found=True)
    while await stage.copy():
        pass
    assert copying.primary.copied_bytes == len(NUMBERS) * SIZE


# -- a swap ------------------------------------------------------------------------------------------------------------


async def test_figure_21_swap_waits_for_the_last_write_while_hosts_wait(parts: Parts) -> None:
    stage = await parts.entered()
    parts.writes(50)
    assert await stage.stop(parts.next(State.P_PAIR)) is None
    assert parts.primary.fences == 1
    assert stage._places.asked_at == 0.0
    assert stage.position == parts.primary.end
    assert parts.site.contents == parts.primary.volumes
    for number in NUMBERS:
        assert parts.site.s_vols[number].durable == parts.primary.volumes[number]


async def test_a_swap_is_too_late_once_the_other_side_may_write_again(parts: Parts) -> None:
    stage = await parts.entered()
    parts.writes()
    assert stage.too_late() is None
    assert await stage.stop(parts.next(State.P_PAIR)) is None
    parts.now += SWAP_SECONDS - 1
    assert stage.too_late() is None
    parts.now += 1
    assert stage.too_late() is NOT_IN_TIME


async def test_a_split_is_quiet_when_all_writes_are_there(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await parts.entered()
    parts.writes()
    await parts.alike()
    await until(lambda: stage.acquisition.told is not None and stage.acquisition.told.stored == parts.primary.end)
    warnings: list[str] = []
    monkeypatch.setattr(module.log, "warning", lambda text, **_fields: warnings.append(text))
    parts.primary.changed = lambda _question, _answer: refused(Outcome.NOT_NOW, "it stands still here")
    assert await stage.stop(parts.next(State.S_SSUS)) is None
    assert stage.position == parts.primary.end
    assert warnings == []


@pytest.mark.parametrize("how", ["no answer", "refused", "too late", "more writes"])
async def test_a_swap_that_is_refused_goes_on_as_before(parts: Parts, how: str) -> None:
    stage = await parts.entered()
    parts.writes()
    await parts.alike()

    async def late(question: Question) -> None:
        if question.asked is not Asked.FENCE:
            parts.now += SWAP_SECONDS

    async def writes(question: Question) -> None:
        if question.asked is Asked.FENCE:
            parts.writes(1)

    if how == "no answer":
        parts.primary.before_answer = no_answer
    elif how == "refused":
        parts.primary.changed = lambda _question, _answer: refused(Outcome.NOT_NOW)
    elif how == "too late":
        parts.primary.before_answer = late
    else:
        parts.primary.after_answer = writes
    assert await stage.stop(parts.next(State.P_PAIR)) is NOT_IN_TIME
    parts.primary.before_answer = parts.primary.after_answer = None
    parts.primary.changed = lambda _question, answer: answer
    parts.primary.ended = False
    parts.writes()
    await parts.alike()
    assert not parts.site.events


async def test_images_are_removed_with_the_group() -> None:
    parts = Parts(State.S_COPY, consistent=True)
    stage = await parts.entered()
    await until(lambda: isinstance(stage._stores.images.get(3), BeforeImages))
    assert len(parts.site.stores.files) == 4
    assert await stage.stop(None) is None
    await stage.close()
    assert parts.site.stores.files == {}


async def test_one_pair_ends_and_another_begins() -> None:
    """The group goes on, in another stage: what was its is removed, and what is new is copied."""
    parts = Parts()
    stage = await parts.entered()
    parts.writes()
    await parts.alike()
    old = parts.row
    row = row_of({0: State.S_PAIR, 5: State.S_COPY})
    parts.row = parts.primary.row = row
    parts.primary.volumes[5] = bytearray(b"new" * 100 + bytes(SIZE - 300))
    parts.site.s_vols[5] = ModelFile(parts.site.machine, SIZE, 0)
    parts.primary.bitmaps[5] = 0
    parts.writes(4)
    assert await stage.stop(row) is None
    await parts.prepared()
    await stage.close()
    assert f"{GROUP.hex()}-3.bitmap" not in parts.site.stores.files
    await parts.stage.enter()
    await until(lambda: bool(parts.site.events))
    assert parts.site.events.popleft() == (Event.COPY_END, "")
    for number in (0, 5):
        assert parts.site.contents[number] == parts.primary.volumes[number]
    assert parts.primary.copied_bytes == SIZE
    assert old.epoch == row.epoch
    await parts.stage.stop(row)


async def test_images_of_a_copy_that_has_ended_do_not_outlive_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """They could not be removed at the copy's end; written back in a later takeover, they would undo what came."""
    parts = Parts(State.S_COPY, consistent=True)
    stage = await parts.entered()
    await until(lambda: bool(parts.site.events))
    remove, broken = parts.site.stores.remove, VolumeFailed("no disk")

    async def fails(name: str) -> None:
        if name.endswith(".before"):
            raise broken
        await remove(name)

    monkeypatch.setattr(parts.site.stores, "remove", fails)
    stage.changed(parts.next(State.S_PAIR))
    await until(lambda: not stage._chores)
    with pytest.raises(VolumeFailed, match="no disk"):
        await stage.stop(parts.next(State.S_PSUE))
    monkeypatch.undo()
    assert await stage.stop(parts.next(State.S_PSUE)) is None
    assert {name.rpartition(".")[2] for name in parts.site.stores.files} == {"bitmap"}
