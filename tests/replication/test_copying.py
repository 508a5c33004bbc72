"""Copying: joined bitmaps, parts, what is durable when, what must be restored because of it, and the pace."""

import asyncio
from collections.abc import Iterator

import pytest

from arrayd.link.channel import LinkError
from arrayd.replication import copying as module
from arrayd.replication import pulling as pulling_module
from arrayd.replication.asking import Asked, CopyPiece, Outcome, Piece, Question, Range, Refused, copied, part, refused
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.bitmap import Bitmap
from arrayd.replication.bitmap import FormatError as BitmapFormatError
from arrayd.replication.bitmap.format import Geometry, encode_part
from arrayd.replication.copying import CopiedPair, Copies, Copying, check_pieces
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import AuxiliaryJournal, FormatError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.pair_stores import new_bitmap, whole_bitmap
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.statuses import State
from arrayd.volumes.volume import VolumeFailed
from tests.replication.following_doors import GROUP, REGION, FakePrimary, Site, row_of, until

REGIONS = 24
SIZE = REGIONS * REGION - 512
ROW = row_of({0: State.S_COPY, 3: State.S_COPY})


class Parts:
    def __init__(self) -> None:
        self.primary = FakePrimary(ROW, SIZE)
        for number, volume in self.primary.volumes.items():
            volume[:] = bytes([number + 1]) * SIZE
            volume[4 * REGION : 7 * REGION] = bytes(3 * REGION)
        self.site = Site(self.primary, 1 << 20)
        self.copies = Copies(lambda: self.journal.regions.synced)
        self.moves = 0
        self.epoch = 0
        self.now = 0.0
        self.site.now = lambda: self.now

    async def make(self, row: GroupRow = ROW, marked: bool = True) -> None:
        self.doors = doors = self.site.doors()
        self.epoch += 1
        self.journal = await AuxiliaryJournal.create(doors.volume("journal"), GROUP, self.epoch)
        self.pairs = []
        for pair in row.pairs:
            bitmap = await new_bitmap(doors, f"{pair.number}", SIZE, GROUP, marked=marked)
            self.pairs.append(CopiedPair(pair.number, doors.volume(pair.volume), bitmap, None))
        self.pulling = Pulling(doors, "main")
        self.copying = Copying(row, self.pulling, self.pairs, self.copies, self.moved)

    def moved(self) -> None:
        self.moves += 1

    async def joined(self) -> None:
        """Both bitmaps."""
        for _ in self.pairs:
            assert await self.copying.once()
        self.primary.asked.clear()

    async def reopened(self, number: int) -> Bitmap:
        """The bitmap that a restart would find."""
        return await whole_bitmap(self.site.doors(), f"{number}", SIZE, GROUP)

    def broken_sync(self) -> asyncio.Future[None]:
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        broken.set_exception(VolumeFailed("broken"))
        return broken

    @property
    def copies_asked(self) -> int:
        return self.primary.asked.count(Asked.COPY)


@pytest.fixture
async def parts() -> Parts:
    made = Parts()
    await made.make()
    return made


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COPY_BYTES", 4 * REGION)
        patch.setattr(pulling_module, "PAUSE_SECONDS", 0.00001)
        patch.setattr(pulling_module, "PAUSE_SECONDS_MAX", 0.00001)
        yield


async def test_figure_11_initial_copy(parts: Parts) -> None:
    while await parts.copying.once():
        pass
    assert parts.copying.copied
    assert parts.site.contents == parts.primary.volumes
    assert parts.copying.marked == 0
    assert parts.primary.copied_bytes == 2 * SIZE
    assert parts.primary.asked[:4] == [Asked.BITMAP, Asked.JOINED, Asked.BITMAP, Asked.JOINED]
    assert not await parts.copying.once()


async def test_what_is_copied_is_durable_and_its_bitmap_too(parts: Parts) -> None:
    while await parts.copying.once():
        for file, pair in zip(parts.site.s_vols.values(), parts.pairs, strict=True):
            marked = {at for offset, length in pair.bitmap.ranges() for at in range(offset, offset + length, REGION)}
            for at in set(range(0, SIZE, REGION)) - marked:
                assert file.durable[at : at + REGION] == parts.primary.volumes[pair.number][at : at + REGION]
    parts.site.lose_power()
    for pair in parts.pairs:
        assert (await parts.reopened(pair.number)).marked_bytes == 0


async def test_a_resync_copies_what_either_bitmap_has() -> None:
    parts = Parts()
    await parts.make(marked=False)
    await parts.pairs[0].bitmap.mark(0, 512)
    parts.primary.bitmaps = {0: 0b110, 3: 1 << REGIONS - 1}
    while await parts.copying.once():
        pass
    assert parts.primary.copied_bytes == 4 * REGION - 512
    for number, regions in ((0, range(3)), (3, range(REGIONS - 1, REGIONS))):
        for region in regions:
            at = slice(region * REGION, (region + 1) * REGION)
            assert parts.site.contents[number][at] == parts.primary.volumes[number][at]


async def test_the_other_side_gives_its_bitmap_up_when_this_one_has_it_durably(parts: Parts) -> None:
    await parts.make(marked=False)
    parts.primary.bitmaps = {0: 0b1010, 3: 0}

    async def look(question: Question) -> None:
        if question.asked is Asked.JOINED and question.fields.number == 0:
            parts.site.lose_power()
            found = await parts.reopened(0)
            assert list(found.ranges()) == [(REGION, REGION), (3 * REGION, REGION)]

    parts.primary.before_answer = look
    assert await parts.copying.once()
    assert parts.primary.joined == {0}


async def test_a_join_that_failed_is_begun_again(parts: Parts) -> None:
    await parts.make(marked=False)
    parts.primary.bitmaps[0] = 1

    async def fails(question: Question) -> None:
        if question.asked is Asked.JOINED:
            raise LinkError("cut", maybe_done=True)

    parts.primary.before_answer = fails
    with pytest.raises(LinkError):
        await parts.copying.once()
    parts.primary.before_answer = None
    await parts.joined()
    assert parts.primary.joined == {0, 3}
    assert parts.copying.marked == REGION


@pytest.mark.parametrize("following", [1, 5])
async def test_a_bitmap_that_goes_nowhere(parts: Parts, following: int) -> None:
    geometry = Geometry(SIZE)
    parts.primary.changed = lambda _question, _answer: part(following, encode_part(geometry, 0, 1, []))
    with pytest.raises(FormatError, match="goes on at page"):
        await parts.copying.once()


async def test_a_bitmap_of_another_size(parts: Parts) -> None:
    parts.primary.changed = lambda _question, _answer: part(0, encode_part(Geometry(SIZE + 4096), 0, 1, []))
    with pytest.raises(BitmapFormatError, match="has"):
        await parts.copying.once()


async def test_pairs_take_turns(parts: Parts) -> None:
    await parts.joined()
    numbers: list[int] = []

    async def look(question: Question) -> None:
        numbers.append(question.fields.number)

    parts.primary.before_answer = look
    for _ in range(4):
        await parts.copying.once()
    assert numbers == [0, 3, 0, 3]


@pytest.mark.parametrize("fails", ["link", "refused", "pieces", "volume", "flush"])
async def test_what_was_not_copied_is_copied_again(parts: Parts, fails: str) -> None:
    await parts.joined()

    async def cut(_question: Question) -> None:
        raise LinkError("cut", maybe_done=True)

    if fails == "link":
        parts.primary.before_answer = cut
    elif fails == "refused":
        parts.primary.changed = lambda _question, _answer: refused(Outcome.NOT_NOW)
    elif fails == "pieces":
        parts.primary.changed = lambda _question, _answer: copied(START, [])
    elif fails == "volume":
        parts.site.s_vols[0].fails = VolumeFailed("broken")
    else:
        parts.site.s_vols[0].sync = parts.broken_sync  # type: ignore[method-assign]
    with pytest.raises((LinkError, Refused, FormatError, VolumeFailed)):
        await parts.copying.once()
    assert parts.copying.marked == 2 * SIZE
    assert parts.copies.floor(Position(9, 9)) == Position(9, 9), "nothing is under way"
    assert not parts.copying.copied
    if fails == "flush":
        return
    parts.primary.before_answer, parts.site.s_vols[0].fails = None, None
    parts.primary.changed = lambda _question, answer: answer
    while await parts.copying.once():
        pass
    assert parts.site.contents == parts.primary.volumes


async def test_records_behind_a_question_wait_until_its_answer_is_written(parts: Parts) -> None:
    await parts.joined()
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def later(_question: Question) -> None:
        await answered

    parts.primary.after_answer = later
    parts.primary.write(0, 0, b"x" * 512)
    step = asyncio.ensure_future(parts.copying.once())
    await until(lambda: parts.copies_asked == 1)
    assert parts.copies.floor(Position(9, 9)) == START
    assert parts.copies.needed == START
    moves = parts.moves
    answered.set_result(None)
    assert await step
    assert parts.copies.floor(Position(9, 9)) == Position(9, 9)
    assert parts.copies.needed == parts.primary.end
    assert parts.moves > moves


async def test_before_images_are_kept_before_anything_is_written(parts: Parts) -> None:
    await parts.joined()
    parts.site.start_from({0: b"before" * 100 + bytes(SIZE - 600)})
    volume = parts.doors.volume("s0")
    parts.pairs[0].images = await BeforeImages.create(parts.site.stores, "images", volume, GROUP, 0)
    assert await parts.copying.once()
    parts.site.lose_power()
    images = await BeforeImages.open(parts.site.stores, "images", volume, GROUP, 0)
    assert images is not None
    await images.write_back()
    assert parts.site.contents[0].startswith(b"before")


@pytest.mark.parametrize(("pace", "under_way"), [(1, 1), (5, 1), (6, 2), (14, 3), (15, 4)])
async def test_the_pace_says_how_many_parts_are_under_way(parts: Parts, pace: int, under_way: int) -> None:
    await parts.make(row_of({0: State.S_COPY, 3: State.S_COPY}, pace=pace))
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def later(question: Question) -> None:
        if question.asked is Asked.COPY:
            await answered

    parts.primary.before_answer = later
    task = asyncio.ensure_future(parts.copying.run())
    await until(lambda: parts.copies_asked == under_way)
    for _ in range(100):
        await asyncio.sleep(0)
    assert parts.copies_asked == under_way
    parts.pulling.stop()
    with pytest.raises(Stopped):
        await task


@pytest.mark.parametrize(("pace", "pause"), [(1, 28.0), (3, 8.0), (15, 0.0)])
async def test_the_pace_says_how_long_it_rests(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, pace: int, pause: float
) -> None:
    await parts.make(row_of({0: State.S_COPY, 3: State.S_COPY}, pace=pace))
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await asyncio.sleep(0)
        parts.pulling.check()

    async def takes(_question: Question) -> None:
        parts.now += 2.0

    await parts.joined()
    monkeypatch.setattr(parts.pulling, "sleep", rest)
    monkeypatch.setattr(module, "PARTS_MAX", 1)
    parts.primary.before_answer = takes
    await parts.copying.run()
    assert parts.copying.copied
    assert rests[0] == pause


async def test_the_loop_goes_on_through_failures(parts: Parts) -> None:
    failures = 30

    async def fails(_question: Question) -> None:
        nonlocal failures
        failures -= 1
        if failures > 0 and failures % 2:
            raise LinkError("cut", maybe_done=True)

    parts.primary.before_answer = fails
    await parts.copying.run()
    assert parts.copying.copied
    assert parts.site.contents == parts.primary.volumes


async def test_the_loop_ends_by_what_cannot_be(parts: Parts) -> None:
    parts.primary.changed = lambda question, answer: copied(START, []) if question.asked is Asked.COPY else answer
    with pytest.raises(FormatError):
        await parts.copying.run()


async def test_what_is_copied_is_saved_now_and_then(parts: Parts) -> None:
    await parts.joined()
    await parts.copying.once()
    assert (await parts.reopened(0)).marked_bytes == SIZE
    parts.now += module.SAVE_SECONDS
    await parts.copying.once()
    assert (await parts.reopened(0)).marked_bytes == SIZE - 4 * REGION


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, 4096)],
        [(0, 4096), (8192, 4096), (12288, 512)],
        [(0, 4096), (8192, 8192)],
        [(0, 4096), (4096, 4096)],
        [(0, 8192)],
        [(8192, 4096), (0, 4096)],
        [(0, 0), (0, 4096), (8192, 4096)],
        [(0, 4096), (8192, 512), (8192, 3584)],
    ],
)
def test_pieces_that_are_not_what_was_asked_for(pieces: list[tuple[int, int]]) -> None:
    with pytest.raises(FormatError):
        check_pieces([Range(0, 4096), Range(8192, 4096)], [CopyPiece(*each, Piece.HOLE) for each in pieces])


def test_pieces_may_divide_a_range() -> None:
    told = [CopyPiece(0, 512, Piece.DATA), CopyPiece(512, 3584, Piece.ZEROS), CopyPiece(8192, 4096, Piece.HOLE)]
    check_pieces([Range(0, 4096), Range(8192, 4096)], told)
