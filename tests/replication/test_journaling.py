"""The stage of P-VOLs that run: begins, restarts, and ends in each of the ways in which it may."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from arrayd.link.channel import Call
from arrayd.replication import asking, serving
from arrayd.replication.asking import Outcome, Refused
from arrayd.replication.journal import JournalError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.journaled import JournaledVolume
from arrayd.replication.journaling import Journaling
from arrayd.replication.statuses import Event, State
from arrayd.volumes.volume import VolumeError, VolumeFailed
from tests.lab.disk import turns
from tests.lab.waiting import until
from tests.replication.pair_doors import GROUP, Primary, Site

PAGE = 4096


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as made:
        yield made


def waiting(primary: Primary, number: int, offset: int, data: bytes) -> "asyncio.Future[None]":
    pending = primary.site.shown[f"v{number}"].write(offset, memoryview(data))
    assert pending is not None
    return asyncio.ensure_future(pending)


# -- begins, and begins again ------------------------------------------------------------------------------------------


async def test_hosts_see_volumes_that_are_journaled(site: Site) -> None:
    stage = Journaling(site.row(), site.doors(), site.told())
    assert stage.progress().stored is None
    await stage.prepare()
    assert site.shown == {}
    await stage.enter()
    assert [type(front) for front in site.shown.values()] == [JournaledVolume] * 3
    primary = Primary(stage, site)
    await primary.write(1, 0, b"a" * PAGE)
    assert (primary.journal_in, (site.folder / "v1").read_bytes()[:PAGE]) == (Position(1, PAGE), b"a" * PAGE)
    await primary.leave()


async def test_after_a_kill_the_tail_is_redone_and_served(tmp_path: Path) -> None:
    async with Site.at(tmp_path) as site:
        primary = await site.begun()
        for number in range(3):
            await primary.write(number, 0, bytes([number + 1]) * PAGE)
        # Killed: nothing is stopped. What the journal has, the volumes may not have.
        for number in range(3):
            site.raw[f"v{number}"].write_now(0, memoryview(bytes(PAGE)))
        primary.stage._stopping = True
        await primary.stage._tending.end()
    async with Site.at(tmp_path) as site:
        again = await site.begun(site.row(), found=True)
        assert [(tmp_path / f"v{number}").read_bytes()[:1] for number in range(3)] == [b"\1", b"\2", b"\3"]
        await again.write(0, 0, b"n" * PAGE)
        records, end = await again.follow_all()
        assert [bytes(each.data[:1]) for each in records] == [b"\1", b"\2", b"\3", b"n"]
        assert end == Position(4, 4 * PAGE)
        await again.leave()


async def test_a_stop_and_a_start_lose_nothing(tmp_path: Path) -> None:
    async with Site.at(tmp_path) as site:
        primary = await site.begun()
        await primary.write(0, 0, b"a" * PAGE)
        await primary.leave()
        assert site.stores.names() == [], "nothing was suspended"
    async with Site.at(tmp_path) as site:
        again = await site.begun(replace(site.row(), acknowledged=START), found=True)
        await again.write(0, 0, b"b" * PAGE)
        assert len((await again.follow_all())[0]) == 2
        await again.leave()


async def test_what_was_acknowledged_is_known_after_a_restart(tmp_path: Path) -> None:
    for known, expected in ((Position(1, PAGE), Position(1, PAGE)), (Position(9, 9 * PAGE), START)):
        folder = tmp_path / str(known.sequence)
        folder.mkdir()
        async with Site.at(folder) as site:
            primary = await site.begun()
            await primary.write(0, 0, b"a" * PAGE)
            await primary.leave()
            again = await site.begun(replace(site.row(), acknowledged=known), found=True)
            assert again.stage.acknowledged == expected
            await again.leave()


async def test_without_its_journal_a_group_does_not_start_again(site: Site) -> None:
    for row in (site.row(), site.row(epoch=2)):
        stage = Journaling(row, site.doors(), site.told())
        with pytest.raises(JournalError, match="is not on its volume"):
            await stage.prepare(found=True)
        await stage.close()
        if row.epoch == 1:
            await (await site.begun()).leave()


async def test_what_was_prepared_and_not_entered_leaves_bitmaps_alone(site: Site) -> None:
    """The row was not committed: the stage that there was goes on with them."""
    bitmap = site.folder / "stores" / f"{GROUP.hex()}-1.bitmap"
    bitmap.write_bytes(b"of the one before")
    stage = Journaling(site.row(), site.doors(), site.told())
    await stage.prepare()
    await stage.close()
    assert bitmap.read_bytes() == b"of the one before"


async def test_what_was_tried_before_is_tried_again(site: Site) -> None:
    await (tried := Journaling(site.row(), site.doors(), site.told())).prepare()
    await tried.close()
    await (await site.begun()).leave()
    with pytest.raises(JournalError, match="epoch"):
        await Journaling(replace(site.row(), id=b"another group's "), site.doors(), site.told()).prepare()


async def test_pairs_come_to_a_group_that_runs_and_leave_it(site: Site) -> None:
    """Another stage of the same epoch: the journal goes on."""
    first = await site.begun(site.row(count=2))
    await first.write(0, 0, b"a" * PAGE)
    wider = site.row()
    await first.stage.stop(wider)
    late = waiting(first, 1, 0, b"b" * PAGE)
    await turns()
    assert not late.done()
    assert not first.stage.tail()
    second = await site.begun(wider)
    await late
    await first.stage.close()
    await second.write(2, 0, b"c" * PAGE)
    records, _ = await second.follow_all()
    assert [(each.entry.volume, bytes(each.data[:1])) for each in records] == [(0, b"a"), (1, b"b"), (2, b"c")]
    (site.folder / "stores" / second.stage.bitmap_name(2)).write_bytes(b"")
    (site.folder / "stores" / second.stage.bitmap_name(1)).write_bytes(b"")
    narrower = site.row(count=2)
    await second.stage.stop(narrower)
    third = await site.begun(narrower)
    await second.stage.close()
    assert site.stores.names() == [second.stage.bitmap_name(1)]
    await third.leave()


# -- events ------------------------------------------------------------------------------------------------------------


async def test_a_journal_that_fills_is_told(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    number = 0
    while not site.events:
        await primary.write(0, 0, bytes(PAGE))
        number += 1
        await turns(2)
    assert site.events == [Event.JOURNAL_NEARLY_FULL]
    primary.stage.changed(site.row(State.P_PFUL))
    _, end = await primary.follow_all()
    await primary.follow(end, end)
    await until(lambda: len(site.events) > 1)
    assert site.events == [Event.JOURNAL_NEARLY_FULL, Event.JOURNAL_HAS_ROOM]
    primary.stage.changed(site.row(State.P_PAIR))
    assert len(site.events) == 2
    await primary.leave()


@pytest.mark.parametrize(
    ("writes", "state", "expected"),
    [
        (200, State.P_PAIR, [Event.JOURNAL_NEARLY_FULL]),
        (200, State.P_PFUL, []),
        (200, State.P_COPY, []),
        (170, State.P_PFUL, []),
        (50, State.P_PFUL, [Event.JOURNAL_HAS_ROOM]),
        (50, State.P_PAIR, []),
    ],
)
async def test_after_a_restart_the_room_in_the_journal_is_told_anew(
    site: Site, writes: int, state: State, expected: list[Event]
) -> None:
    primary = await site.begun()
    for _ in range(writes):
        await primary.write(0, 0, bytes(PAGE))
    await primary.leave()
    site.events.clear()
    again = await site.begun(site.row(state), found=True)
    assert site.events == expected
    if not expected and state is State.P_PFUL:
        _, end = await again.follow_all()
        await again.follow(end, end)
        await until(lambda: site.events == [Event.JOURNAL_HAS_ROOM])
    await again.leave()


async def test_a_copy_that_ends_with_a_journal_that_is_nearly_full(site: Site) -> None:
    """During a copy it is told for nothing."""
    primary = await site.begun()
    for _ in range(200):
        await primary.write(0, 0, bytes(PAGE))
    await turns()
    site.events.clear()
    primary.stage.changed(site.row(State.P_PAIR))
    assert site.events == [Event.JOURNAL_NEARLY_FULL]
    await primary.leave()


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_a_full_journal_suspends_and_hosts_wait_for_what_follows(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    writes: list[asyncio.Future[None]] = []
    while Event.JOURNAL_FULL not in site.events:
        writes.append(waiting(primary, 0, 0, bytes(PAGE)))
        await turns(2)
    await turns()
    assert not writes[-1].done()
    await primary.stage.stop(site.row(State.P_PFUS))
    assert await primary.marked(0) == [(0, PAGE)]
    await site.doors().show("v0", site.raw["v0"])
    await asyncio.gather(*writes)
    await primary.stage.close()


async def test_a_split_marks_what_is_not_restored_and_the_rest_is_served(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    for number in range(4):
        await primary.write(number % 2, number * 2 * PAGE, b"s" * PAGE)
    _, end = await primary.follow_all()
    await primary.follow(end, Position(1, PAGE))
    assert await primary.stage.stop(site.row(State.P_PSUS)) is None
    assert await primary.marked(0) == [(4 * PAGE, PAGE)]
    assert await primary.marked(1) == [(2 * PAGE, PAGE), (6 * PAGE, PAGE)]
    assert await primary.marked(2) == []
    # The S-VOLs still get all of the group's writes, and nothing else is answered.
    assert primary.stage.tail()
    told, records, _ = await primary.follow(Position(0, 0), Position(2, 2 * PAGE))
    assert (told.ended, told.stored, len(records)) == (True, end, 4)
    with pytest.raises(Refused) as refused:
        asking.decode_done(await primary.ask(asking.joined(GROUP, 1, 0)))
    assert refused.value.outcome is Outcome.NOT_NOW
    assert primary.stage.tail()
    await primary.follow(end, end)
    assert not primary.stage.tail()
    await primary.stage.close()
    assert len(site.stores.names()) == 3
    with pytest.raises(Refused) as refused:
        await primary.follow(end)
    assert refused.value.outcome is Outcome.NOT_NOW


async def test_a_bitmap_is_not_given_up_while_it_is_written(site: Site) -> None:
    """What was asked before the suspension comes after it has begun."""
    primary = await site.begun(site.row(State.P_COPY))
    await primary.write(0, 0, bytes(PAGE))
    async with primary.stage._bitmaps._turns[0]:
        call = primary.begin(asking.joined(GROUP, 1, 0))
        await turns()
        stopping = asyncio.ensure_future(primary.stage.stop(site.row(State.P_PSUS)))
        await turns()
        assert not stopping.done()
    await stopping
    assert (await call.answered)[0] == Outcome.FAILED
    assert await primary.marked(0) == [(0, PAGE)]
    await primary.stage.close()


async def test_who_waits_hears_of_the_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WAIT_SECONDS_MAX", 3600)
    primary = await site.begun(site.row(State.P_PAIR))
    call = primary.begin(primary.question(START, wait_ms=3_600_000))
    await turns()
    await primary.stage.stop(site.row(State.P_PSUS))
    told, _, _ = primary.run_of(memoryview(await call.answered), START)
    assert told.ended
    await primary.stage.close()


async def test_a_stage_that_closes_lets_nobody_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WAIT_SECONDS_MAX", 3600)
    primary = await site.begun()
    call = primary.begin(primary.question(START, wait_ms=3_600_000))
    await turns()
    await primary.leave()
    assert (await call.answered)[0] == Outcome.NOT_NOW


async def test_it_closes_when_nobody_is_being_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    primary = await site.begun()
    gate = asyncio.Event()

    async def copy(_fields: object, call: Call) -> None:
        await gate.wait()
        call.answer(b"x")

    monkeypatch.setattr(primary.stage._copying, "copy", copy)
    call = primary.begin(asking.copy(GROUP, 1, 0, [asking.Range(0, PAGE)]))
    await turns()
    leaving = asyncio.ensure_future(primary.leave())
    await turns(50)
    await until(lambda: primary.stage._ended)
    await turns(50)
    assert not leaving.done()
    gate.set()
    await leaving
    assert call.answered.done()


async def test_a_group_that_ends_leaves_no_bitmap(site: Site) -> None:
    (site.folder / "stores" / f"{GROUP.hex()}-1.bitmap").write_bytes(b"left")
    primary = await site.begun()
    await primary.write(0, 0, bytes(PAGE))
    await primary.stage.stop(None)
    await site.doors().show("v0", None)
    await primary.write(0, 0, b"p" * PAGE)
    await primary.stage.close()
    assert site.stores.names() == []
    assert not primary.stage.tail()
    assert (site.folder / "v0").read_bytes()[:1] == b"p"


async def test_sides_that_have_changed_places_differ_in_nothing(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.write(0, 0, bytes(PAGE))
    await primary.ask(asking.fence(GROUP, 1))
    assert await primary.stage.stop(site.row(State.S_PAIR, generation=2, epoch=2)) is None
    assert site.stores.names() == [f"{GROUP.hex()}-0.fence"], "it stands until the row is another one"
    assert not primary.stage.tail(), "the journal's volume has another journal now"
    await primary.stage.close()
    assert site.stores.names() == []


async def test_a_source_that_becomes_the_target_tells_what_only_it_has(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.write(0, 0, bytes(PAGE))
    await primary.stage.stop(site.row(State.S_COPY, generation=2, epoch=2))
    assert await primary.marked(0) == [(0, PAGE)]
    assert not primary.stage.tail()
    await primary.stage.close()


async def test_writes_that_wait_when_the_array_stops_fail(site: Site) -> None:
    primary = await site.begun()
    await primary.stage.stop(site.row())
    late = waiting(primary, 0, 0, bytes(PAGE))
    await turns()
    assert not late.done()
    await primary.stage.close()
    with pytest.raises(VolumeFailed):
        await late
    with pytest.raises(VolumeFailed):
        await waiting(primary, 0, 0, bytes(PAGE))


async def test_a_suspension_that_fails_before_it_begins_changes_nothing(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.write(0, 0, b"a" * PAGE)
    site.stores.failing = VolumeFailed("no room")
    with pytest.raises(VolumeError, match="no room"):
        await primary.stage.stop(site.row(State.P_PSUS))
    await primary.write(0, 0, b"b" * PAGE)
    told, records, _ = await primary.follow(START)
    assert (told.ended, len(records)) == (False, 2)
    assert (await primary.copy(0, [asking.Range(0, PAGE)]))[0] == told.stored
    site.stores.failing = None
    await primary.stage.stop(site.row(State.P_PSUS))
    assert await primary.marked(0) == [(0, PAGE)]
    await primary.stage.close()


async def test_what_is_asked_before_it_is_prepared_is_refused(site: Site) -> None:
    primary = Primary(Journaling(site.row(), site.doors(), site.told()), site)
    for question in (primary.question(START), asking.fence(GROUP, 1)):
        with pytest.raises(Refused) as refused:
            asking.decode_fenced(await primary.ask(question))
        assert refused.value.outcome is Outcome.NOT_NOW


async def test_a_group_is_not_purged_while_it_is_suspended(site: Site) -> None:
    primary = await site.begun(site.row(State.P_PAIR))
    await primary.stage.stop(site.row(State.P_PSUS))
    with pytest.raises(JournalError):
        await primary.stage.purge()
    await primary.stage.close()
