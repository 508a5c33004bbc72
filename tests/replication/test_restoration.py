"""Restoration: what is durable when, in which batches, and what waits for a copy."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from arrayd.replication import restoration as restoration_module
from arrayd.replication.acquisition import Acquisition
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.copying import Copies
from arrayd.replication.journal import AuxiliaryJournal, JournalError, Kind, Position, Record
from arrayd.replication.journal.reading import RUN_RECORDS_MAX, Reader
from arrayd.replication.journal.recent import RECORD_COST, Budget, Recent
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.restoration import Restoration
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeError
from tests.replication.following_doors import GROUP, FakePrimary, Site, row_of, until

MIB = 1024 * 1024
ROW = row_of({0: State.S_PAIR, 7: State.S_PAIR})


class Parts:
    def __init__(self) -> None:
        self.primary = FakePrimary(ROW, MIB)
        self.site = Site(self.primary, 4 * MIB)
        self.copies = Copies(lambda: self.journal.regions.synced)
        self.images: dict[int, BeforeImages] = {}
        self.moves = 0

    async def make(self) -> None:
        doors = self.site.doors()
        self.volumes = {number: doors.volume(f"s{number}") for number in self.primary.base}
        self.journal = await AuxiliaryJournal.create(doors.volume("journal"), GROUP, 1)
        self.acquisition = Acquisition(ROW, Pulling(doors, "main"), self.journal, lambda: None)
        self.restoration = self.another()

    def another(self) -> Restoration:
        made = Restoration(self.journal, self.volumes, self.images, self.copies, self.moved)
        made.ends = self.acquisition.ends
        return made

    def moved(self) -> None:
        self.moves += 1

    async def acquired(self, count: int) -> None:
        for number in range(count):
            self.primary.write((0, 7)[number % 2], number % 100 * 4096, bytes([1 + number % 250]) * 1024)
        while await self.acquisition.once():
            pass

    def spy(self) -> list[str]:
        """What is called, in order, from now on."""
        calls: list[str] = []
        files = {"S-VOL": self.site.s_vols[0], "S-VOL 7": self.site.s_vols[7], "journal": self.site.journal}
        for name, file in files.items():
            for call in ("write_now", "sync"):
                original = getattr(file, call)

                def spied(*arguments: Any, original: Any = original, told: str = f"{call} {name}") -> Any:
                    if not calls or calls[-1] != told:
                        calls.append(told)
                    return original(*arguments)

                setattr(file, call, spied)
        doors = self.site.doors()
        self.volumes.update({number: doors.volume(f"s{number}") for number in self.volumes})
        self.journal.volume = doors.volume("journal")
        return calls


@pytest.fixture
async def parts() -> Parts:
    made = Parts()
    await made.make()
    return made


async def test_figure_14_restore(parts: Parts) -> None:
    await parts.acquired(10)
    assert await parts.restoration.once()
    assert parts.site.contents == parts.primary.volumes
    regions = parts.journal.regions
    assert regions.oldest == regions.to_be_restored == parts.primary.end
    assert not await parts.restoration.once()
    assert parts.moves == 1


async def test_the_order_and_one_sync_for_many_records(parts: Parts) -> None:
    await parts.acquired(300)
    calls = parts.spy()
    assert await parts.restoration.once()
    calls = [call for call in calls if call != "write_now S-VOL 7"]
    # Where it writes to two volumes in turn, the calls of one are left.
    calls = [call for at, call in enumerate(calls) if not at or calls[at - 1] != call]
    assert calls == [
        *("write_now journal", "sync journal"),  # to-be-restored
        *("write_now S-VOL", "sync S-VOL", "sync S-VOL 7"),
        *("write_now journal", "sync journal"),  # restoration-completed
    ]


async def test_what_came_a_moment_ago_is_not_read_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as is kept: here the last two of four runs."""
    budget = Budget(limit := 2 * 8 * (1024 + RECORD_COST))
    parts.journal.recent = Recent(budget)
    read: list[tuple[Position, Position]] = []
    records = Reader.records

    async def watched(self: Reader, at: Position, end: Position, bytes_max: int) -> list[Record]:
        read.append((at, end))
        return await records(self, at, end, bytes_max)

    monkeypatch.setattr(Reader, "records", watched)
    for _ in range(4):
        await parts.acquired(8)
    kept, _ = (run[0].entry.begin for run in parts.journal.recent)
    assert not budget.left
    begin = parts.journal.regions.oldest
    while await parts.restoration.once():
        pass
    assert read == [(begin, kept)]
    assert parts.site.contents == parts.primary.volumes
    assert budget.left == limit


async def test_what_has_no_room_is_read_again(parts: Parts) -> None:
    """Other groups have it."""
    parts.journal.recent = Recent(Budget(100))
    await parts.acquired(8)
    assert not list(parts.journal.recent)
    assert await parts.restoration.once()
    assert parts.site.contents == parts.primary.volumes


@pytest.fixture
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoration_module, "BATCH_RECORDS", 20)
        yield


@pytest.mark.usefixtures("small_batches")
async def test_batches_end_where_runs_do(parts: Parts) -> None:
    for _ in range(5):
        await parts.acquired(8)
    ends = []
    while await parts.restoration.once():
        ends.append(parts.journal.regions.oldest.sequence)
    assert ends == [16, 32, 40]


@pytest.mark.usefixtures("small_batches")
async def test_after_a_restart_runs_are_what_is_read_at_once(parts: Parts) -> None:
    await parts.acquired(RUN_RECORDS_MAX + 44)
    parts.acquisition.ends.clear()
    parts.journal.recent.clear()
    ends = []
    while await parts.restoration.once():
        ends.append(parts.journal.regions.oldest.sequence)
    assert ends == [RUN_RECORDS_MAX, RUN_RECORDS_MAX + 44]
    assert parts.site.contents == parts.primary.volumes


async def test_what_a_copy_may_not_have_waits(parts: Parts) -> None:
    await parts.acquired(4)
    first = parts.copies.begin(0, [])
    await parts.acquired(4)
    second = parts.copies.begin(0, [])
    await parts.acquired(4)
    assert await parts.restoration.once()
    assert parts.journal.regions.oldest.sequence == 4
    assert not await parts.restoration.once()
    parts.copies.end(first)
    assert await parts.restoration.once()
    assert parts.journal.regions.oldest.sequence == 8
    parts.copies.end(second)
    assert await parts.restoration.once()
    assert parts.journal.regions.oldest == parts.primary.end


async def test_a_copy_that_waits_within_a_run(parts: Parts) -> None:
    await parts.acquired(8)
    parts.copies._read_completed = lambda: parts.primary.records[4].entry.end
    parts.copies.begin(0, [])
    assert await parts.restoration.once()
    assert parts.journal.regions.oldest.sequence == 5


async def test_every_kind_of_record(parts: Parts) -> None:
    parts.primary.write(0, 0, b"a" * 65536)
    parts.primary.write(0, 4096, b"", Kind.UNMAP, 8192)
    parts.primary.write(0, 16384, b"", Kind.ZEROS, 512)
    parts.primary.write(7, 512, b"ab" * 256, Kind.PATTERN, 400 * 1024)
    parts.primary.write(0, 4608, b"b" * 512)
    await parts.acquired(0)
    assert await parts.restoration.once()
    assert parts.site.contents == parts.primary.volumes


async def test_before_images_are_kept_first(parts: Parts) -> None:
    doors, volume = parts.site.doors(), parts.volumes[7]
    parts.site.start_from({7: b"before" * 100 + bytes(MIB - 600)})
    parts.images[7] = await BeforeImages.create(doors.stores, "images", volume, GROUP, 7)
    await parts.acquired(4)
    assert await parts.restoration.once()
    assert list(parts.images[7].ranges()) == [(0, 65536)]
    await parts.images[7].write_back()
    assert parts.site.contents[7].startswith(b"before")


async def test_a_record_of_no_pair_is_passed_over(parts: Parts) -> None:
    await parts.acquired(4)
    del parts.volumes[7]
    assert await parts.restoration.once()
    assert parts.journal.regions.oldest == parts.primary.end
    assert parts.site.contents[0] == parts.primary.volumes[0]
    assert not any(parts.site.contents[7])


async def test_a_record_beyond_the_end_of_its_volume(parts: Parts) -> None:
    await parts.acquired(4)
    parts.volumes[7].size = 512
    with pytest.raises(JournalError, match="beyond the end of volume 7"):
        await parts.restoration.once()


async def test_what_has_failed_is_done_again(parts: Parts) -> None:
    await parts.acquired(10)
    parts.site.s_vols[7].fails = VolumeError("broken")
    with pytest.raises(VolumeError):
        await parts.restoration.once()
    regions = parts.journal.regions
    assert (regions.oldest.sequence, regions.to_be_restored.sequence) == (0, 10)
    parts.site.s_vols[7].fails = None
    await parts.restoration.redo()
    assert regions.oldest == parts.primary.end
    assert parts.site.contents == parts.primary.volumes


async def test_the_loop_goes_on_when_it_is_due(parts: Parts) -> None:
    pulling = Pulling(parts.site.doors(), "main")
    due = pulling.event()
    task = asyncio.ensure_future(parts.restoration.run(pulling, due))
    for _ in range(3):
        await parts.acquired(5)
        due.set()
        await until(lambda: parts.journal.regions.oldest == parts.primary.end)
    pulling.stop()
    with pytest.raises(Stopped):
        await task
