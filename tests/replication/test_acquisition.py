"""Journal acquisition: what is asked for when, what is stored, and what is known of how it goes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from arrayd.link.channel import LinkError
from arrayd.replication import acquisition as acquisition_module
from arrayd.replication import pulling as pulling_module
from arrayd.replication.acquisition import STALE_SECONDS, Acquisition
from arrayd.replication.asking import Asked, Followed, Outcome, Question, Refused, followed, refused
from arrayd.replication.journal import AuxiliaryJournal, FormatError, JournalError, JournalFull, Position
from arrayd.replication.journal.format import CHAIN_BYTES
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeFailed
from tests.replication.following_doors import GROUP, FakePrimary, Site, no_answer, row_of, until

MIB = 1024 * 1024
ROW = row_of({0: State.S_PAIR})


class Parts:
    """A primary side, and acquisition into a journal."""

    def __init__(self, journal_bytes: int) -> None:
        self.primary = FakePrimary(ROW, 4 * MIB)
        self.site = Site(self.primary, journal_bytes)
        self.now = 100.0
        self.site.now = lambda: self.now
        self.moves = 0

    async def make(self) -> None:
        doors = self.site.doors()
        self.journal = await AuxiliaryJournal.create(doors.volume("journal"), GROUP, 1)
        self.pulling = Pulling(doors, "main")
        self.acquisition = Acquisition(ROW, self.pulling, self.journal, self.moved)

    def moved(self) -> None:
        self.moves += 1

    def writes(self, count: int, length: int = 1024) -> None:
        for number in range(count):
            self.primary.write(0, number % 64 * 16384, bytes([1 + number % 255]) * length)

    async def restored(self, end: Position | None = None) -> None:
        """As restoration would."""
        end = end or self.journal.regions.synced
        await self.journal.restore(end)
        await self.journal.restored(end)
        self.acquisition.room.set()

    @property
    def follows(self) -> int:
        return self.primary.asked.count(Asked.FOLLOW)


@pytest.fixture
async def parts() -> Parts:
    made = Parts(MIB)
    await made.make()
    return made


@pytest.fixture
async def running(parts: Parts) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(parts.acquisition.run())
    yield task
    parts.pulling.stop()
    with suppress(Stopped, FormatError, VolumeFailed):
        await task


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acquisition_module, "ENDED_SECONDS", 0.0)
        patch.setattr(pulling_module, "PAUSE_SECONDS", 0.00001)
        patch.setattr(pulling_module, "PAUSE_SECONDS_MAX", 0.00001)
        yield


async def test_figure_13_journal_acquisition(parts: Parts) -> None:
    parts.writes(5)
    assert await parts.acquisition.once()
    regions = parts.journal.regions
    assert (regions.synced, regions.to_be_read) == (parts.primary.end, parts.primary.end)
    read = [each async for run in parts.journal.runs(START, regions.synced) for each in run]
    assert [bytes(record.data) for record in read] == [bytes(record.data) for record in parts.primary.records]
    assert not await parts.acquisition.once()
    assert parts.moves


async def test_only_what_is_synced_there_is_stored_here(parts: Parts) -> None:
    parts.writes(5)
    parts.primary.unsynced = 2
    assert await parts.acquisition.once()
    assert parts.journal.regions.synced.sequence == 3
    assert parts.acquisition.told is not None
    assert parts.acquisition.told.stored.sequence == 5


async def test_the_next_question_is_under_way_while_what_came_is_synced(
    parts: Parts, running: asyncio.Task[None]
) -> None:
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sync = parts.site.journal.sync

    async def slow() -> None:
        await asyncio.shield(held)
        await sync()

    parts.site.journal.sync = lambda: asyncio.ensure_future(slow())  # type: ignore[method-assign]
    parts.writes(2)
    await until(lambda: parts.acquisition.told is not None and parts.acquisition.told.stored.sequence == 2)
    parts.writes(2)
    asked = parts.follows
    await until(lambda: parts.follows > asked)
    assert parts.journal.regions.synced == START
    held.set_result(None)
    await until(lambda: parts.journal.regions.synced == parts.primary.end)
    assert not running.done()


async def test_it_does_not_wait_for_restoration_until_there_is_no_room(
    parts: Parts, running: asyncio.Task[None]
) -> None:
    parts.writes(600, 2000 // 512 * 512)
    await until(lambda: parts.journal.regions.synced.sequence > 250)
    for _ in range(50):
        await asyncio.sleep(0)
    asked, synced = parts.follows, parts.journal.regions.synced
    for _ in range(50):
        await asyncio.sleep(0)
    assert (parts.follows, parts.journal.regions.synced) == (asked, synced), "it asks although there is no room"
    while parts.journal.regions.synced != parts.primary.end:
        await parts.restored()
        for _ in range(20):
            await asyncio.sleep(0)
    assert not running.done()


async def test_one_sync_serves_all_that_has_come(
    parts: Parts, running: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquisition_module, "UNSYNCED_BYTES_MAX", 20 * 1024)
    free = asyncio.Semaphore(0)
    syncs = 0
    sync = parts.site.journal.sync

    async def slow() -> None:
        nonlocal syncs
        syncs += 1
        await free.acquire()
        await sync()

    def stored() -> int:
        return parts.acquisition.ends[-1].at.sequence if parts.acquisition.ends else 0

    parts.site.journal.sync = lambda: asyncio.ensure_future(slow())  # type: ignore[method-assign]
    try:
        for count in (4, 8, 12, 16, 20, 24):
            parts.writes(4)
            await until(lambda count=count: stored() == count)  # type: ignore[misc]
        # More than that is not stored before it is durable.
        parts.writes(4)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (stored(), syncs) == (24, 1)
    finally:
        for _ in range(20):
            free.release()
    await until(lambda: parts.journal.regions.synced == parts.primary.end)
    assert syncs < 5
    assert not running.done()


async def test_a_run_without_room_is_asked_for_again_when_there_is() -> None:
    parts = Parts(30 * 4096)
    await parts.make()
    parts.writes(8, 8192)
    assert await parts.acquisition.once()
    # Less is free than the next write takes: it comes, and is dropped.
    parts.primary.write(0, 0, bytes(65536))
    while await parts.acquisition.once():
        pass
    assert parts.journal.regions.synced.sequence < parts.primary.end.sequence
    await parts.restored()
    assert await parts.acquisition.once()
    assert parts.journal.regions.synced == parts.primary.end


async def test_a_write_that_never_fits_is_an_error() -> None:
    parts = Parts(20 * 4096)
    await parts.make()
    parts.primary.write(0, 0, b"x" * 200 * 1024)
    with pytest.raises(JournalFull, match="no room for a write"):
        await parts.acquisition.once()


async def test_records_that_do_not_follow_are_not_taken(parts: Parts) -> None:
    parts.writes(3)
    assert await parts.acquisition.once()
    parts.writes(3)
    parts.primary.chains[3] = bytes(CHAIN_BYTES)
    with pytest.raises(FormatError, match="does not follow"):
        await parts.acquisition.once()
    assert parts.journal.regions.stored.sequence == 3


async def test_another_side_that_has_less_than_before_is_an_error(parts: Parts) -> None:
    parts.writes(5)
    assert await parts.acquisition.once()
    less = followed(Followed(Position(3, 3072), 1, 0, False)) + b"?" * CHAIN_BYTES
    parts.primary.changed = lambda _question, _answer: less
    with pytest.raises(JournalError, match="had"):
        await parts.acquisition.once()


async def test_failures_pass(parts: Parts, running: asyncio.Task[None]) -> None:
    failures: list[Callable[[Question], Awaitable[None]] | None] = [no_answer, no_answer, None]

    async def fails(question: Question) -> None:
        failing = failures.pop(0) if failures else None
        if failing is not None:
            await failing(question)

    refusals = [refused(Outcome.NOT_NOW, "meet first")] * 2
    parts.primary.before_answer = fails
    parts.primary.changed = lambda _question, answer: refusals.pop() if refusals else answer
    parts.writes(2)
    for _ in range(100):
        if parts.journal.regions.synced == parts.primary.end:
            break
        await asyncio.sleep(0.001)
    assert parts.journal.regions.synced == parts.primary.end
    assert not running.done()


async def test_once_raises_what_fails(parts: Parts) -> None:
    parts.primary.changed = lambda _question, _answer: refused(Outcome.NOT_NOW, "meet first")
    with pytest.raises(Refused, match="meet first"):
        await parts.acquisition.once()

    async def never(_question: Question) -> None:
        await asyncio.get_running_loop().create_future()

    parts.primary.before_answer = never
    with pytest.raises(LinkError, match="no answer"):
        await parts.acquisition.once(answered=0.001)


async def test_an_answer_that_is_none_ends_it(parts: Parts, running: asyncio.Task[None]) -> None:
    parts.primary.changed = lambda _question, _answer: b"\0what?"
    with pytest.raises(FormatError):
        await running


async def test_a_disk_that_fails_ends_it(parts: Parts, running: asyncio.Task[None]) -> None:
    parts.site.journal.fails = VolumeFailed("broken")
    parts.writes(1)
    with pytest.raises(VolumeFailed, match="broken"):
        await running


async def test_what_is_restored_is_told_soon(parts: Parts) -> None:
    waits: list[tuple[int, Position]] = []

    async def look(question: Question) -> None:
        fields = question.fields
        waits.append((fields.wait_ms, Position(fields.restored.sequence, fields.restored.byte)))

    parts.primary.before_answer = look
    task = asyncio.ensure_future(parts.acquisition.run())
    await until(lambda: bool(waits))
    assert waits[-1] == (1000, START)
    parts.writes(1)
    await until(lambda: waits[-1][0] == 100)
    await until(lambda: parts.journal.regions.synced == parts.primary.end)
    await parts.restored()
    await until(lambda: waits[-1] == (1000, parts.primary.end))
    parts.pulling.stop()
    with pytest.raises(Stopped):
        await task


async def test_lag(parts: Parts) -> None:
    lag = parts.acquisition.lag_s
    assert lag() is None, "nothing was heard"
    await parts.acquisition.once()
    assert lag() == 0.0
    parts.writes(3)
    await parts.acquisition.once()
    # The model's clock is 5 ms ahead of its last write, and writes are 1 ms apart.
    assert lag() == pytest.approx(0.007)
    parts.now += 2
    assert lag() == pytest.approx(2.007)
    await parts.restored()
    assert lag() == 0.0
    parts.now += STALE_SECONDS
    assert lag() is None, "nothing was heard for long"
    parts.writes(3)
    parts.primary.unsynced = 3
    await parts.acquisition.once()
    assert lag() == pytest.approx(0.007)
    parts.primary.time -= 1_000_000_000
    await parts.acquisition.once()
    assert lag() == 0.0, "never negative"
