"""P-VOLs that cannot be synced when their group is suspended: what hosts were told to be durable is there again after
the next start, from the journal, before hosts see it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from pathlib import Path

import pytest

from arrayd.replication import changes, taking_up
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.guarded import UnsureVolume
from arrayd.replication.journal import JournalError
from arrayd.replication.marked import MarkedVolume
from arrayd.replication.marking import Marking
from arrayd.replication.redo import RedoFailed
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import Event, Operation, Refusal, State
from arrayd.replication.unsynced import write_again
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeError, VolumeFailed, finished
from tests.replication.pair_doors import Site
from tests.replication.stage_lab import GROUP, Lab

PAGE = 4096
A, B, C = (letter * PAGE for letter in (b"a", b"b", b"c"))
DISK = VolumeError("the disk is broken")


def fail_syncs(volume: FileVolume) -> None:
    """As a disk that could not write: the volume has failed until the array is started again."""
    volume.file._syncs.fail(OSError(errno.EIO, "gone"))


async def suspended(folder: Path, state: State = State.P_PSUE) -> None:
    """Volumes 0 and 1 had two writes that hosts know to be durable; of 0 the disk has nothing. Then came a suspension,
    and a host wrote to 1."""
    async with Site.at(folder) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        for number in (0, 1):
            await primary.write(number, PAGE, A)
            await primary.write(number, PAGE, B)
            await finished(site.shown[f"v{number}"].flush())
        fail_syncs(site.raw["v0"])
        await primary.stage.stop(site.row(state))
        assert list(primary.stage.unsynced) == [0]
        await primary.stage.close()
        await finished(site.raw["v1"].write(PAGE, memoryview(C)))
    lose(folder)


def lose(folder: Path) -> None:
    """What the disk never had of volume 0."""
    with (folder / "v0").open("r+b") as file:
        file.seek(PAGE)
        file.write(bytes(PAGE))


def row(site: Site, state: State = State.P_PSUE) -> GroupRow:
    return site.row(state).with_unsynced({0}, True)


async def content(site: Site, name: str) -> bytes:
    page = memoryview(bytearray(PAGE))
    await finished(site.raw[name].read(PAGE, page))
    return bytes(page)


async def test_what_is_unsynced_is_written_again_and_nothing_else(tmp_path: Path) -> None:
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        assert await write_again(row(site), site.doors(), {0}) == ({0}, None)
        assert await content(site, "v0") == B
        assert await content(site, "v1") == C


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


@pytest.mark.parametrize("before", [True, False])
async def test_what_cannot_be_synced_again_waits_for_another_start(
    tmp_path: Path, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        if before:
            fail_syncs(site.raw["v0"])
        else:
            fail_second_sync(site.raw["v0"], monkeypatch)
        synced, error = await write_again(row(site), site.doors(), {0})
        assert (synced, type(error)) == (set(), RedoFailed)
        assert isinstance(error, RedoFailed)
        assert error.begun
    lose(tmp_path)
    async with Site.at(tmp_path) as site:
        assert await write_again(row(site), site.doors(), {0}) == ({0}, None)
        assert await content(site, "v0") == B


async def test_without_the_journal_nothing_can_be_given(tmp_path: Path) -> None:
    await suspended(tmp_path)
    with (tmp_path / "j").open("r+b") as file:
        file.write(bytes(1 << 20))
    async with Site.at(tmp_path) as site:
        synced, error = await write_again(row(site), site.doors(), {0})
        assert (synced, type(error)) == ({0}, JournalError)
        assert await content(site, "v0") == bytes(PAGE)


async def test_a_journal_that_cannot_be_read_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await suspended(tmp_path)

    def fails(*_parts: object) -> None:
        raise VolumeFailed("no disk")

    async with Site.at(tmp_path) as site:
        with monkeypatch.context() as broken:
            broken.setattr(site.raw["j"], "read", fails)
            broken.setattr(site.raw["j"], "read_now", lambda *_parts: False)
            synced, error = await write_again(row(site), site.doors(), {0})
        assert synced == set()
        assert isinstance(error, RedoFailed)
        assert not error.begun
        assert await content(site, "v0") == bytes(PAGE)


# -- what hosts see ----------------------------------------------------------------------------------------------------


async def test_hosts_see_nothing_of_what_could_not_be_written_again(tmp_path: Path) -> None:
    await suspended(tmp_path)
    async with Site.at(tmp_path) as site:
        for kind, other in ((Marking, MarkedVolume), (Standing, object)):
            stage = kind(row(site), site.doors(), site.told())
            await stage.prepare(found=True)
            await stage.enter()
            assert isinstance(site.shown["v0"], UnsureVolume)
            assert isinstance(site.shown["v1"], other)
            assert not isinstance(site.shown["v1"], UnsureVolume)
            await stage.stop(row(site))
            await stage.close()


async def test_until_the_array_is_started_again_the_volume_itself_refuses(tmp_path: Path) -> None:
    """It says MEDIUM ERROR of what waited for the suspension: that may be in the journal, and be written again."""
    async with Site.at(tmp_path) as site:
        stage = Marking(row(site), site.doors(), site.told())
        await stage.prepare()
        fail_syncs(site.raw["v0"])
        await stage.enter()
        with pytest.raises(VolumeFailed):
            await finished(site.shown["v0"].write(0, memoryview(A)))
        await stage.close()


async def test_a_volume_that_cannot_be_synced_keeps_no_array_from_starting(tmp_path: Path) -> None:
    """Standing is the last resort of `taking_up.py`."""
    async with Site.at(tmp_path) as site:
        fail_syncs(site.raw["v0"])
        stage = Standing(site.row(State.P_PAIR), site.doors(), site.told())
        await stage.prepare(found=True)
        await stage.enter()
        assert isinstance(site.shown["v0"], UnsureVolume)
        await stage.close()


async def test_what_has_lost_records_is_not_written_again(tmp_path: Path) -> None:
    """What is left of the journal may be older than the volumes."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        primary.stage._dropped = True
        fail_syncs(site.raw["v0"])
        await primary.stage.stop(site.row(State.P_PSUE))
        assert list(primary.stage.unsynced) == []
        await primary.stage.close()


@pytest.mark.parametrize("state", [None, State.P_PAIR])
async def test_a_group_is_suspended_first_where_a_p_vol_cannot_be_synced(tmp_path: Path, state: State | None) -> None:
    """Its journal would end with it, or its P-VOLs, and what is in the journal alone."""
    async with Site.at(tmp_path) as site:
        primary = await site.begun(site.row(State.P_PAIR))
        await primary.write(0, PAGE, A)
        fail_syncs(site.raw["v0"])
        refusal = await primary.stage.stop(None if state is None else site.row(state))
        assert isinstance(refusal, Refusal)
        assert refusal.text == "volumes [0] of group g are not durable: the group is being suspended"
        assert site.events[-1] is Event.ERROR
        assert await primary.stage.stop(site.row(State.P_PSUE)) is None
        assert list(primary.stage.unsynced) == [0]
        await primary.stage.close()


# -- what a group may become -------------------------------------------------------------------------------------------


def unsynced(lab: Lab) -> list[int]:
    return [pair.number for pair in lab.row().pairs if pair.unsynced]


class Again:
    """What `write_again` says, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says: tuple[set[int], RedoFailed | JournalError | None] = (set(), RedoFailed(DISK, begun=True))
        self.asked: list[set[int]] = []
        for module in (changes, taking_up):
            monkeypatch.setattr(module, "write_again", self._write_again)

    async def _write_again(self, _row: object, _doors: object, numbers: set[int]) -> object:
        self.asked.append(numbers)
        return self.says


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Again:
    return Again(monkeypatch)


async def holding(lab: Lab) -> None:
    """A suspended group, whose volume 0 is unsynced."""
    await lab.holding(State.P_PSUE, State.P_PSUE, unsynced={0})


async def test_a_suspension_says_what_is_unsynced(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.holding(State.P_PAIR, State.P_PAIR)
    monkeypatch.setattr(type(lab.stage), "unsynced", (1,))
    await lab.happen(Operation.PAIRSPLIT)
    assert (lab.states, unsynced(lab)) == ("P-VOL PSUS, P-VOL PSUS", [1])


async def test_at_a_start_it_is_kept_what_is_on_the_volumes_again_before_hosts_see_them(lab: Lab, again: Again) -> None:
    again.says = ({0}, None)
    await holding(lab)
    assert lab.taken() == ["commit", "marking prepare found", "marking enter"]
    assert (again.asked, unsynced(lab)) == ([{0}], [])


async def test_what_is_not_kept_is_written_again_at_the_next_start(lab: Lab, again: Again) -> None:
    again.says, lab.commit_fails = ({0}, None), 1
    await holding(lab)
    assert (lab.taken(), unsynced(lab)) == (["marking prepare found", "marking enter"], [0])


async def test_while_it_cannot_be_written_the_group_stays_suspended(lab: Lab, again: Again) -> None:
    await holding(lab)
    for operation, pair in ((Operation.PAIRSPLIT_S, None), (Operation.PAIRSPLIT_S, 0)):
        refusal = await lab.happen(operation, pair=pair)
        assert isinstance(refusal, Refusal)
        assert "what hosts were answered is not on the P-VOLs: the journal is not redone: the disk is" in refusal.text
    assert (lab.states, unsynced(lab)) == ("P-VOL PSUE, P-VOL PSUE", [0])
    assert any("the disk is broken" in note for note in lab.notes)


async def test_another_pair_may_end_meanwhile(lab: Lab, again: Again) -> None:
    await holding(lab)
    await lab.happen(Operation.PAIRSPLIT_S, pair=1)
    assert (lab.states, unsynced(lab)) == ("P-VOL PSUE", [0])


async def test_a_group_that_ends_leaves_a_journal_that_cannot_be_read(lab: Lab, again: Again) -> None:
    again.says = (set(), RedoFailed(DISK, begun=False))
    await holding(lab)
    assert await lab.happen(Operation.PAIRSPLIT_S) is None
    assert lab.table.group(GROUP.name) is None


async def test_what_is_written_again_before_a_change_is_kept_with_it(lab: Lab, again: Again) -> None:
    await holding(lab)
    again.says = ({0}, None)
    assert isinstance(await lab.happen(Operation.PAIRSPLIT_S, pair=0), GroupRow)
    assert unsynced(lab) == []


async def test_a_damaged_journal_is_told_and_left(lab: Lab, again: Again) -> None:
    again.says = ({0}, JournalError("record 7 is damaged"))
    await holding(lab)
    assert unsynced(lab) == []
    assert any("what hosts were answered is not on P-VOLs: record 7 is damaged" in note for note in lab.notes)
