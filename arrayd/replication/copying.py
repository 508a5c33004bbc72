"""Initial copy and resync (figure 11), which are one thing: what bitmaps of the S-VOLs' side have is read from P-VOLs.

First the bitmap of each P-VOL is joined to that of its S-VOL, durably, and only then the other side gives it up. Then
parts are taken, asked for, written and made durable, several at a time, and are not marked any more.

Hosts write meanwhile. What is read from a P-VOL has all writes before read-completed as that was when it was asked for,
and maybe others up to `stored`, which comes with the answer. So no record behind the former is restored until what was
read is written: it would be written over by something older. And the S-VOLs are one of the group's states when nothing
is marked and all before the greatest `stored` is restored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from arrayd.link.channel import LinkError
from arrayd.replication import asking
from arrayd.replication.asking import RANGE, RANGES_MAX, CopyPiece, Piece, Range, Refused
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.bitmap import Bitmap, Taken
from arrayd.replication.bitmap.format import PART_BYTES_MAX
from arrayd.replication.copy_rate import Limit, part_bytes
from arrayd.replication.group_rows import PACE_MAX, GroupRow
from arrayd.replication.jobs import Job, Meter
from arrayd.replication.journal import FormatError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Pauses, Pulling
from arrayd.volumes.volume import Volume, finished

COPY_BYTES = 2 * 1024 * 1024
"""Of a part."""
PARTS_MAX = 4
"""Parts under way at the fastest pace."""
PACES_A_PART = 5
"""So many paces have the same number of parts under way."""
SAVE_SECONDS = 5.0
"""How often it is made durable what is copied already: after a restart no more than this is copied again."""
IDLE_SECONDS = 1.0
"""How often it is looked whether the pace, or a limit, is another one."""
HEAD_BYTES = 4096
"""What an answer has besides its data and its pieces, at the most."""
PIECES_BYTES_MAX = RANGES_MAX * (RANGE.sizeof() + 1)


class UnderWay(Protocol):
    """Who keeps what is copied, and what hosts write meanwhile, in order."""

    def begin(self, number: int, ranges: Sequence[Range]) -> int:
        """Ranges of a pair are about to be asked for; a ticket."""

    def read(self, stored: Position) -> None:
        """They came, and have this."""

    def parts(self, ticket: int, piece: CopyPiece) -> Iterable[CopyPiece]:
        """What of a piece that came is to be written, each part at once when it is given."""

    def end(self, ticket: int) -> None:
        """All is written, or never will be."""


class Copies:
    """What is asked for and not yet written, and how far must be restored because of what was: see `UnderWay`.
    `read_completed` tells up to where the journal has records."""

    def __init__(self, read_completed: Callable[[], Position]) -> None:
        self.needed = START
        """The greatest `stored` of all answers."""
        self._read_completed = read_completed
        self._under_way: dict[int, Position] = {}
        self._next = 0

    def begin(self, _number: int, _ranges: Sequence[Range]) -> int:
        """See UnderWay."""
        self._next += 1
        self._under_way[self._next] = self._read_completed()
        return self._next

    def read(self, stored: Position) -> None:
        """See UnderWay."""
        self.needed = max(self.needed, stored)

    def parts(self, _ticket: int, piece: CopyPiece) -> Iterable[CopyPiece]:
        """See UnderWay: all of it, since records behind it are restored later."""
        return (piece,)

    def raised(self, ticket: int, stored: Position) -> bool:
        """Nothing is written: what is before `stored` may be restored, so that it can be compared. False: not even what
        was read when it began is before it."""
        if stored < self._under_way[ticket]:
            return False
        self._under_way[ticket] = stored
        return True

    def end(self, ticket: int) -> None:
        """See UnderWay."""
        del self._under_way[ticket]

    def floor(self, otherwise: Position) -> Position:
        """Up to where records may be restored: `otherwise`, if nothing is under way before that."""
        return min((otherwise, *self._under_way.values()))


@dataclass(eq=False)
class CopiedPair:
    """A pair that is being copied: S-VOL, bitmap, and what keeps its before-images, if something does."""

    number: int
    volume: Volume
    bitmap: Bitmap
    images: BeforeImages | None


class Copying:
    """Copies to the S-VOLs of `pairs`. `moved()` is called when something was written, and when all is copied."""

    def __init__(
        self,
        row: GroupRow,
        pulling: Pulling,
        pairs: Sequence[CopiedPair],
        under_way: UnderWay,
        moved: Callable[[], None],
    ) -> None:
        self.row = row
        self.pairs = list(pairs)
        self.copied = False
        """Whether nothing is marked any more, durably."""
        self._under_way = under_way
        self._pulling = pulling
        self._moved = moved
        self._pauses = Pauses(pulling, f"copying of group {row.name}")
        self._to_be_joined = list(pairs)
        self._joining = asyncio.Lock()
        self._meter = Meter(pulling.doors.now())
        self._failing = False
        """Whether the last part that was asked for was not copied."""
        self._limit = Limit(row.copy_rate)
        self._limits = (self._limit, pulling.doors.copy_limit)
        self._turn = 0
        """Which pair is taken from next."""
        self._ended = pulling.event()
        """Set when a part has ended."""
        self._saved_at = pulling.doors.now()

    def changed(self, row: GroupRow) -> None:
        """The row is another one."""
        if (row.pace, row.copy_rate) != (self.row.pace, self.row.copy_rate):
            self._meter.restart(self._pulling.doors.now())
        self.row = row
        self._limit.change(row.copy_rate)

    # -- one step, and all of them -----------------------------------------------------------------------------------

    async def once(self) -> bool:
        """One step of figure 11: joins a bitmap, or copies a part. Whether there was something to do. It waits as long
        as limits of the speed say.

        Raises LinkError, Refused: it is to be tried again; FormatError, VolumeError, Stopped."""
        await self._until_allowed()
        return await self._once()

    async def _until_allowed(self) -> None:
        """Until no limit is in the way of another part, which is to be taken at once then. Raises Stopped."""
        now = self._pulling.doors.now
        while seconds := max(each.wait(now()) for each in self._limits):
            await self._pulling.sleep(min(seconds, IDLE_SECONDS))

    async def _once(self) -> bool:
        if self._to_be_joined:
            await self._join_next()
            return True
        for turn in range(len(self.pairs)):
            pair = self.pairs[(self._turn + turn) % len(self.pairs)]
            taken = pair.bitmap.take(part_bytes(self._limits, COPY_BYTES))
            if taken is not None:
                self._turn += turn + 1
                await self._copy(pair, taken)
                await self._save_now_and_then()
                return True
        if not self.copied and not self.marked:
            await self.save()
            if self._to_be_joined:
                return True
            self.copied = True
            self._moved()
        return False

    async def run(self) -> None:
        """Until all is copied, or it is stopped. Raises FormatError, VolumeError, Stopped."""
        while self._to_be_joined:
            await self._tried()
        workers = [asyncio.ensure_future(self._work(number)) for number in range(PARTS_MAX)]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            self._pulling.stop()
            raise
        finally:
            await asyncio.wait(workers)

    async def _work(self, number: int) -> None:
        """One of those that copy parts beside one another: the slower the pace, the fewer do."""
        while not self.copied:
            pace = self.row.pace
            if number > (pace - 1) // PACES_A_PART + pace // PACE_MAX:
                await self._pulling.sleep(IDLE_SECONDS)
                continue
            await self._until_allowed()
            begun = self._pulling.doors.now()
            if not await self._tried():
                if not self.copied:
                    await self._pulling.wait(self._ended)
                continue
            took = self._pulling.doors.now() - begun
            await self._pulling.sleep(took * (PACE_MAX - pace) / pace)
        self._ended.set()

    async def _tried(self) -> bool:
        """`_once`, and where the other side does not do it, a pause."""
        try:
            there_was = await self._once()
        except (LinkError, Refused) as error:
            await self._pauses.failed(error)
            return True
        self._pauses.went_well()
        return there_was

    # -- bitmaps -----------------------------------------------------------------------------------------------------

    @property
    def marked(self) -> int:
        """Bytes that are still to be copied."""
        return sum(pair.bitmap.marked_bytes for pair in self.pairs)

    @property
    def left(self) -> dict[int, int]:
        """Bytes of each pair that are still to be copied, by its number, where that is known: not before the other
        side's bitmap is joined, unless all is marked here."""
        unknown = {pair.number for pair in self._to_be_joined if pair.bitmap.marked_bytes < pair.volume.size}
        return {pair.number: pair.bitmap.marked_bytes for pair in self.pairs if pair.number not in unknown}

    @property
    def job(self) -> Job:
        """How all of it goes."""
        left = self.left
        rate = None if self._failing else self._meter.rate(self._pulling.doors.now())
        return Job(self._meter.done, sum(left.values()) if len(left) == len(self.pairs) else None, rate)

    async def save(self) -> None:
        """What is copied is durably so. Raises VolumeError."""
        for pair in self.pairs:
            await pair.bitmap.save()
        self._saved_at = self._pulling.doors.now()

    async def _save_now_and_then(self) -> None:
        if self._pulling.doors.now() - self._saved_at >= SAVE_SECONDS:
            await self.save()

    async def _join_next(self) -> None:
        async with self._joining:
            wanted = self._to_be_joined
            if wanted:
                await self._join(wanted[0])
                if wanted is not self._to_be_joined:
                    return  # all of it is to be read again before the other side may give it up
                await self._joined(wanted[0])
                del wanted[0]  # of those that were wanted then
                self._meter.restart(self._pulling.doors.now())

    async def _join(self, pair: CopiedPair) -> None:
        """The bitmap of the P-VOL, all of it, durably."""
        row, page = self.row, 0
        while True:
            question = asking.bitmap(row.id, row.generation, pair.number, page)
            answer = await self._pulling.ask(question, PART_BYTES_MAX + HEAD_BYTES)
            following, part = asking.decode_part(answer)
            told = await pair.bitmap.join(part)
            if told != following or (following and following <= page):
                raise FormatError(f"a bitmap that goes on at page {following}, where {told} is due")
            if not following:
                break
            page = following
        await pair.bitmap.save()

    async def _joined(self, pair: CopiedPair) -> None:
        """The other side gives it up."""
        question = asking.joined(self.row.id, self.row.generation, pair.number)
        asking.decode_done(await self._pulling.ask(question, HEAD_BYTES))

    def join_again(self) -> bool:
        """The other side may have marked more since its bitmaps were joined: they are joined again before the end.
        False: this is the end already."""
        if self.copied:
            return False
        self._to_be_joined = list(self.pairs)
        return True

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _copy(self, pair: CopiedPair, taken: Taken) -> None:
        """Copies what was taken; what fails is marked as before."""
        ranges = [Range(*each) for each in taken.ranges]
        ticket = self._under_way.begin(pair.number, ranges)
        ended = pair.bitmap.restore
        taken_bytes = sum(each.length for each in ranges)
        self._spend(taken_bytes)
        try:
            try:
                question = asking.copy(self.row.id, self.row.generation, pair.number, ranges)
                expects = taken_bytes + PIECES_BYTES_MAX + HEAD_BYTES
                with await self._pulling.answer(question, expects) as answer:
                    stored, pieces = asking.decode_copied(answer)
                    check_pieces(ranges, pieces)
                    self._give_back(pieces)
                    self._under_way.read(stored)
                    if pair.images is not None:
                        await pair.images.keep(ranges)
                    for piece in pieces:
                        for part in self._under_way.parts(ticket, piece):
                            await write_piece(part, pair.volume)
            finally:
                self._under_way.end(ticket)
                self._moved()
            await finished(pair.volume.flush())
            ended = pair.bitmap.copied
            self._failing = False
            self._meter.add(self._pulling.doors.now(), taken_bytes)
        except BaseException:
            self._failing = True
            raise
        finally:
            ended(taken)
            self._ended.set()

    def _spend(self, count: int) -> None:
        now = self._pulling.doors.now()
        for each in self._limits:
            each.spend(now, count)

    def _give_back(self, pieces: Sequence[CopyPiece]) -> None:
        count = sum(each.length for each in pieces if each.kind is not Piece.DATA)
        for each in self._limits:
            each.give_back(count)


async def write_piece(piece: CopyPiece, volume: Volume) -> None:
    """Raises VolumeError."""
    if piece.kind is Piece.DATA:
        data = memoryview(piece.data)
        if not volume.write_now(piece.offset, data):
            await finished(volume.write(piece.offset, data))
    elif piece.kind is Piece.HOLE:
        await finished(volume.unmap(piece.offset, piece.length))
    else:
        await finished(volume.write_zeros(piece.offset, piece.length))


def check_pieces(ranges: Sequence[Range], pieces: Sequence[CopyPiece]) -> None:
    """Raises FormatError unless the pieces are these ranges, in order, each whole or in parts."""
    due = iter(ranges)
    at = end = 0
    for piece in pieces:
        if at == end:
            offset, length = next(due, Range(0, 0))
            at, end = offset, offset + length
        if piece.offset != at or not 0 < piece.length <= end - at:
            raise FormatError(f"{piece.length} bytes at {piece.offset}, where {end - at} at {at} are due")
        at += piece.length
    if at != end or next(due, None) is not None:
        raise FormatError("less than was asked for")
