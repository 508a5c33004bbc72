"""FOLLOW as the P-VOLs' side answers it: only what is synced, a wait for more, and what is said to be restored."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.link.channel import Call
from arrayd.replication import asking, serving
from arrayd.replication.asking import Outcome, Refused
from arrayd.replication.group_rows import Driver
from arrayd.replication.jobs import Job
from arrayd.replication.journal import Kind, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.serving import JournalServer
from arrayd.replication.statuses import Event
from arrayd.replication.writes import Range
from arrayd.volumes.volume import VolumeFailed
from tests.lab.disk import turns
from tests.lab.search import examples
from tests.lab.waiting import until
from tests.replication.group_parts import GROUP, Parts, block
from tests.replication.pair_doors import AskedCall, Primary, Site
from tests.replication.runs import decode_run


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as made:
        yield made


@pytest.fixture
async def primary(site: Site) -> AsyncIterator[Primary]:
    begun = await site.begun()
    yield begun
    await begun.leave()


async def test_records_are_served_from_where_they_are_asked_for_in_whole_writes(primary: Primary) -> None:
    """Figure 13."""
    for number in range(9):
        await primary.write(number % 3, number * 4096, bytes([number]) * 4096)
    await primary.site.shown["v1"].unmap(0, 8192)  # type: ignore[misc]
    told, records, end = await primary.follow(START, bytes_max=3 * 4096)
    assert [record.entry.volume for record in records] == [0, 1, 2]
    assert told.stored == Position(10, 9 * 4096)
    assert not told.ended
    rest, end = await primary.follow_all(end)
    assert [(each.entry.kind, bytes(each.data[:1])) for each in rest] == [
        *((Kind.WRITE, bytes([number])) for number in range(3, 9)),
        (Kind.UNMAP, b""),
    ]
    assert end == told.stored
    assert (await primary.follow(end))[1:] == ([], end)


async def test_the_oldest_write_behind_the_run_has_its_time(primary: Primary) -> None:
    for number in range(3):
        primary.site.time_ns = 5_000 + number
        await primary.write(0, 0, bytes(4096))
    primary.site.time_ns = 9_000
    told, records, end = await primary.follow(START, bytes_max=4096)
    assert (told.now, told.oldest, len(records)) == (9_000, 5_001, 1)
    assert (await primary.follow(end))[0].oldest == 0


async def test_nothing_is_served_that_is_not_synced(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    file = primary.site.raw["j"].file
    syncing: list[asyncio.Future[None]] = []

    def sync() -> asyncio.Future[None]:
        syncing.append(asyncio.get_running_loop().create_future())
        return syncing[-1]

    await primary.write(0, 0, b"a" * 4096)
    assert (await primary.follow(START))[2] == Position(1, 4096)
    monkeypatch.setattr(file, "sync", sync)
    await primary.write(0, 0, b"b" * 4096)
    call = primary.begin(primary.question(Position(1, 4096)))
    await until(lambda: bool(syncing))
    await turns()
    assert not call.answered.done()
    # Hosts wait for none of this, and what is synced is served meanwhile.
    await primary.write(1, 0, b"c" * 4096)
    told, records, end = await primary.follow(START)
    assert (len(records), end, told.stored) == (1, Position(1, 4096), Position(3, 3 * 4096))
    assert len(syncing) == 1
    syncing[0].set_result(None)
    told, records, end = primary.run_of(memoryview(await call.answered), Position(1, 4096))
    assert [bytes(each.data[:1]) for each in records] == [b"b"]
    # The next is synced because somebody asked, though not for it.
    await until(lambda: len(syncing) == 2)
    syncing[1].set_result(None)
    monkeypatch.undo()
    assert (await primary.follow(end))[2] == Position(3, 3 * 4096)


async def test_nobody_asks_and_nothing_is_synced(primary: Primary) -> None:
    await primary.write(0, 0, bytes(4096))
    await turns(50)
    assert primary.stage._group.journal.regions.synced == START


async def test_a_sync_that_fails_is_an_error_of_the_group(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync() -> asyncio.Future[None]:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(VolumeFailed("gone"))
        return failed

    await primary.write(0, 0, bytes(4096))
    monkeypatch.setattr(primary.site.raw["j"].file, "sync", sync)
    with pytest.raises(Refused, match="gone") as refused:
        await primary.follow(START)
    assert refused.value.outcome is Outcome.FAILED
    await turns()
    assert primary.site.events == [Event.ERROR]


# -- waits -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has an answer because his time is over."""
    monkeypatch.setattr(serving, "WAIT_SECONDS_MAX", 3600)


@pytest.mark.usefixtures("long")
async def test_who_has_all_waits_for_the_next_commit(primary: Primary) -> None:
    call = primary.begin(primary.question(START, wait_ms=3_600_000))
    await turns(50)
    assert not call.answered.done()
    await primary.write(2, 0, b"x" * 4096)
    _, records, end = primary.run_of(memoryview(await call.answered), START)
    assert (records[0].entry.volume, end) == (2, Position(1, 4096))


async def test_the_wait_ends_with_nothing(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await primary.follow(START, wait_ms=10))[1:] == ([], START)
    monkeypatch.setattr(serving, "WAIT_SECONDS_MAX", 0.01)
    assert (await primary.follow(START, wait_ms=3_600_000))[1:] == ([], START)


@pytest.mark.usefixtures("long")
async def test_who_asks_again_does_not_wait_twice(primary: Primary) -> None:
    """The first was given up by the other side: it started again, say."""
    first = primary.begin(primary.question(START, wait_ms=3_600_000))
    await turns()
    second = primary.begin(primary.question(START, wait_ms=3_600_000))
    await until(first.answered.done)
    assert not second.answered.done()
    await primary.write(0, 0, bytes(4096))
    assert primary.run_of(memoryview(await second.answered), START)[2] == Position(1, 4096)


@pytest.mark.parametrize(
    ("at", "outcome"), [(Position(2, 2 * 4096), Outcome.FAILED), (Position(1, 512), Outcome.FAILED)]
)
async def test_there_is_no_such_place(primary: Primary, at: Position, outcome: Outcome) -> None:
    await primary.write(0, 0, bytes(4096))
    with pytest.raises(Refused) as refused:
        asking.decode_followed(await primary.ask(primary.question(at)))
    assert refused.value.outcome is outcome


async def test_another_epoch_is_refused_and_changes_nothing(primary: Primary) -> None:
    await primary.write(0, 0, bytes(4096))
    await primary.follow(START)
    with pytest.raises(Refused) as refused:
        asking.decode_followed(await primary.ask(primary.question(START, Position(1, 4096), epoch=2)))
    assert refused.value.outcome is Outcome.NOT_NOW
    assert primary.stage.acknowledged == START


async def test_a_peer_without_credit_gets_no_run(primary: Primary) -> None:
    await primary.write(0, 0, bytes(4096))
    call = primary.begin(primary.question(START))
    call.credit = 0
    assert (await call.answered)[0] == Outcome.FAILED


# -- restored, purged --------------------------------------------------------------------------------------------------


async def acknowledged(primary: Primary, restored: Position) -> Position:
    asking.decode_followed(await primary.ask(primary.question(primary.stage.acknowledged, restored)))
    return primary.stage.acknowledged


async def test_what_is_restored_is_believed_forward_and_as_far_as_it_was_served(primary: Primary) -> None:
    for _ in range(3):
        await primary.write(0, 0, bytes(4096))
    assert await acknowledged(primary, Position(1, 4096)) == START, "that was not served yet"
    await primary.follow_all()
    assert await acknowledged(primary, Position(2, 2 * 4096)) == Position(2, 2 * 4096)
    for other in (START, Position(1, 4096), Position(4, 4 * 4096), Position(3, 4096), Position(3, 8 * 4096)):
        assert await acknowledged(primary, other) == Position(2, 2 * 4096)
    assert await acknowledged(primary, Position(3, 3 * 4096)) == Position(3, 3 * 4096)


async def test_at_rest_nothing_is_in_the_journal(primary: Primary) -> None:
    """Figure 16: what the S-VOLs have is purged, also what redo would have left."""
    for _ in range(3):
        await primary.write(0, 0, bytes(4096))
    _, end = await primary.follow_all()
    await primary.follow(end, end)
    primary.stage._tending._wanted.set()
    regions = primary.stage._group.journal.regions
    await until(lambda: regions.oldest == end)
    assert primary.stage.progress().used_share == 0.0


async def test_what_a_burst_may_need_is_purged_at_once(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal was full, and its pair suspended, though the S-VOLs had half of what was in it."""
    monkeypatch.setattr("arrayd.replication.tending.TEND_SECONDS", 3600)
    primary.stage._tending._wanted.set()
    await turns(20)
    regions = primary.stage._group.journal.regions
    for number in range(80):
        await primary.write(0, number * 4096, bytes(4096))
    _, end = await primary.follow_all()
    assert serving.PURGEABLE_SHARE < regions.used_share < serving.MUCH_SHARE
    await primary.follow(end, end)
    await until(lambda: regions.oldest == end)


async def test_much_in_use_is_purged_at_once(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arrayd.replication.tending.TEND_SECONDS", 3600)
    await primary.write(0, 0, bytes(4096))
    await primary.follow_all()
    # What is being waited for began with the second that it was.
    primary.stage._tending._wanted.set()
    await turns(20)
    regions = primary.stage._group.journal.regions
    for number in range(150):
        await primary.write(0, number * 4096, bytes(4096))
    _, end = await primary.follow_all()
    assert regions.used_share > serving.MUCH_SHARE
    assert regions.oldest == START
    await primary.follow(end, Position(101, 101 * 4096))
    await until(lambda: regions.oldest == Position(101, 101 * 4096))
    await primary.follow(end, Position(102, 102 * 4096))
    await turns(20)
    assert regions.oldest == Position(101, 101 * 4096)


async def test_little_in_use_costs_no_sync_of_volumes(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    server, group = primary.stage._server, primary.stage._group
    for number in range(3):
        await primary.write(0, number * 4096, bytes(4096))
        if number == 1:
            await group.checkpoint()
    await group.durable.sync()
    _, _, end = await primary.follow(START, bytes_max=4096)
    _, end = await primary.follow_all(end)
    await primary.write(0, 0, bytes(4096))
    await primary.follow(end, end)
    assert group.journal.regions.redo == Position(2, 2 * 4096)

    def sync() -> asyncio.Future[None]:
        raise AssertionError("synced")

    monkeypatch.setattr(primary.site.raw["v0"].file, "sync", sync)
    await server.purge(wholly=False)
    # Up to a place whose hash is known, and not beyond redo.
    assert group.journal.regions.oldest == Position(1, 4096)
    monkeypatch.undo()


async def test_what_a_volume_has_refused_is_not_purged(primary: Primary) -> None:
    group = primary.stage._group
    await primary.write(0, 0, bytes(4096))
    await group.checkpoint()
    await primary.write(0, 0, bytes(4096))
    _, end = await primary.follow_all()
    await primary.follow(end, end)
    group.differing.append(Range(0, 0, 4096))
    assert await primary.stage.purge()
    assert group.journal.regions.oldest == Position(1, 4096)


async def test_the_host_purges_where_it_drives(site: Site) -> None:
    primary = await site.begun(replace(site.row(), driver=Driver.HOST))
    await primary.write(0, 0, bytes(4096))
    _, end = await primary.follow_all()
    await primary.follow(end, end)
    # As often as it looks, to the end of one time.
    primary.stage._stopping = True
    await primary.stage._tending.end()
    primary.stage._stopping = False
    assert primary.stage._group.journal.regions.oldest == START
    assert await primary.stage.purge()
    assert primary.stage.journal.regions.oldest == end
    assert not await primary.stage.purge()
    await primary.leave()


# -- lag ---------------------------------------------------------------------------------------------------------------


async def test_the_lag_is_the_age_of_the_oldest_write_that_is_not_restored(primary: Primary) -> None:
    site, server = primary.site, primary.stage._server
    assert primary.stage.progress().lag_s == 0.0
    for number in range(2):
        site.time_ns = (number + 1) * 10**9
        await primary.write(0, 0, bytes(4096))
    site.time_ns = 5 * 10**9
    assert primary.stage.progress().lag_s is None, "nobody has looked, and nothing is guessed"
    await server.look()
    assert primary.stage.progress().lag_s == 4.0
    await primary.follow_all()
    await primary.follow(START, Position(1, 4096))
    assert primary.stage.progress().lag_s == 3.0
    await primary.follow(START, Position(2, 2 * 4096))
    assert primary.stage.progress().lag_s == 0.0
    progress = primary.stage.progress()
    assert (progress.stored, progress.restored) == (Position(2, 2 * 4096), Position(2, 2 * 4096))
    assert progress.contact == 5.0
    # The link is down: the figures go on.
    site.time_ns = 6 * 10**9
    await primary.write(0, 0, bytes(4096))
    site.time_ns = 8 * 10**9
    primary.stage._tending._wanted.set()
    await until(lambda: primary.stage.progress().lag_s == 2.0)
    # The clock goes back: never less than nothing.
    site.time_ns = 10**9
    assert primary.stage.progress().lag_s == 0.0


async def test_how_long_the_rest_takes_is_told_where_it_goes_on(primary: Primary) -> None:
    site = primary.site
    for _ in range(10):
        await primary.write(0, 0, bytes(4096))
    await primary.follow_all()
    assert primary.stage.progress().restoring == Job(None, 10 * 4096, None)
    for number in range(1, 5):
        site.moment += 1.0
        await primary.follow(START, Position(number, number * 4096))
    restoring = primary.stage.progress().restoring
    assert restoring == Job(None, 6 * 4096, 4096.0)
    assert restoring.seconds_left == 6.0
    site.moment += 60.0
    assert primary.stage.progress().restoring == Job(None, 6 * 4096, None), "nobody restores"
    await primary.follow(START, Position(10, 10 * 4096))
    restoring = primary.stage.progress().restoring
    assert restoring is not None
    assert (restoring.left, restoring.seconds_left) == (0, 0.0)


# -- power loss --------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(20))
@given(st.lists(st.sampled_from(["write", "follow", "turns", "flush"]), min_size=5, max_size=40), st.integers(0, 9))
async def test_what_was_served_outlives_a_power_loss(steps: list[str], seed: int) -> None:
    """The S-VOLs are never ahead of what the P-VOLs' side has after it."""
    parts = Parts()
    parts.machine.chance.seed(seed)
    await parts.make()
    server = JournalServer(parts.group, START, itertools.count(1).__next__, lambda: 0.0, lambda: None)
    served: list[bytes] = []
    at = START
    writes = 0
    for step in steps:
        if step == "write":
            writes += 1
            parts.volumes[writes % 3].commit_now(0, block(writes))
        elif step == "follow":
            await turns(1)
            call = AskedCall()
            fields = asking.decode_question(memoryview(asking.follow(GROUP, 1, at, START, 3 * 4096, 0))).fields
            await server.follow(fields, cast(Call, call))
            _, run = asking.decode_followed(memoryview(call.answered.result()))
            records, _ = decode_run(run, at, 1, await parts.journal.chain(at))
            served += [bytes(each.data) for each in records]
            at = records[-1].entry.end if records else at
        elif step == "flush":
            parts.volumes[0].flush()
        else:
            await turns(3)
    after = Parts()
    for file, before in zip((*after.files, after.journal_file), (*parts.files, parts.journal_file), strict=True):
        before.lose_power(512)
        file.content[:] = before.content
    await after.open()
    assert [bytes(each.data) for each in await after.records()][: len(served)] == served
    # What was under way of the life before ends.
    await server.close()
    await parts.group.close()
