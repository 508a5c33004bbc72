"""What the S-VOLs' side copies of the P-VOLs of a group (figure 11): COPY, and BITMAP and JOINED before it.

**A copy has exactly the writes before `stored`.** All ranges of one COPY are locked together while they are read: what
was taken before is in the volume then, also what waited for the journal or for a thread; what comes later is not in the
journal before the lock is let go. So the data lacks nothing that is before journal-in, and has nothing that is behind
it: a copy has not ended before the S-VOLs are restored up to there, and must not end with less.

Without a lock there would be no such position: what is being written would be in the data in part. Hosts' writes to
these ranges wait meanwhile, for memory and not for a disk: what is not in memory is read once before, without a lock.
Other writes do not wait. What is read is in the journal, or older than the pair; the other side's word is not needed.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from arrayd.buffers import BufferPool, taken
from arrayd.link.channel import BYTES_MAX, HEAD_BYTES_MAX, Call
from arrayd.replication import asking
from arrayd.replication.asking import RANGES_MAX, Asked, CopyPiece, Outcome, Piece, Question, Range
from arrayd.replication.bitmap import Geometry
from arrayd.replication.bitmap.format import encode_part
from arrayd.replication.front import LockedTogether
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import Position
from arrayd.replication.suspending import Bitmaps
from arrayd.volumes.volume import Volume, finished

POOL_BYTES = 2 * BYTES_MAX
"""Of answers to COPY that are not sent yet: the credit of a peer, in buffers that are up to twice as long."""
LOCKS_MAX = 8
"""On one COPY: each costs every write that is made meanwhile a look. Ranges that are nearest to one another share one,
with what is between them."""
EXTENTS_MAX = 1024
"""Extents that are asked for in what one lock is on; what is behind them is taken for data."""
TURN_BYTES = 256 * 1024
"""So much is read from memory before others get their turn."""
BEHIND_BYTES = 12 * 1024
"""Room before the data for what of an answer's head is longer than a head may be; whole pages."""


class Source(Protocol):
    """The group whose P-VOLs are copied."""

    def position(self) -> Position | None:
        """All of its writes that are in the P-VOLs are before it, while a lock is held; None: it has stopped, so that
        others may be in them."""

    def needs_flush(self, number: int) -> bool:
        """Whether a volume has what was written before the pair was made, and is not durable."""


class Journaled:
    """See Source: `group`, whose writes are journaled."""

    def __init__(self, group: PrimaryGroup) -> None:
        self._group = group

    def position(self) -> Position | None:
        """See Source."""
        return None if self._group.stopped else self._group.journal.regions.stored

    def needs_flush(self, number: int) -> bool:
        """See Source."""
        return number in self._group.durable.unsynced


class RangesOut:
    """Answers COPY for the volumes `volumes`, by number, of the group `source`."""

    def __init__(self, source: Source, volumes: Mapping[int, LockedTogether]) -> None:
        self._source = source
        self._volumes = volumes
        self._buffers = BufferPool(POOL_BYTES)

    async def copy(self, fields: Any, call: Call) -> None:
        """Answers COPY; see `asking.COPY` for its fields. Raises VolumeError, and FrameError from `Call.charge`: it is
        not answered."""
        ranges = [Range(each.offset, each.length) for each in fields.ranges]
        volume = self._volumes.get(fields.number)
        if volume is None:
            call.answer(asking.refused(Outcome.NOT_NOW, f"there is no pair {fields.number}"))
            return
        for offset, length in ranges:
            if offset % volume.block_size or length % volume.block_size or offset + length > volume.size:
                reason = f"{length} bytes from {offset} on, of a volume of {volume.size} bytes"
                call.answer(asking.refused(Outcome.FAILED, reason))
                return
        if self._source.needs_flush(fields.number):
            # What was written before the pair was made is in no activity log: once the other side has it, a power loss
            # must not take it away here.
            await finished(volume.flush())
        total = sum(length for _, length in ranges)
        call.charge(total)
        buffer = await taken(self._buffers, BEHIND_BYTES + total)
        try:
            found = await self._read(volume, ranges, buffer.view[BEHIND_BYTES:])
            if found is None:
                buffer.release()
                call.answer(asking.refused(Outcome.NOT_NOW, "the group is being suspended"))
                return
            stored, pieces = found
            head = asking.copied(stored, pieces)
            end = BEHIND_BYTES + sum(each.length for each in pieces if each.kind is Piece.DATA)
            behind = head[HEAD_BYTES_MAX:]
            call.charge(len(behind))
            begin = BEHIND_BYTES - len(behind)
            buffer.view[begin:BEHIND_BYTES] = behind
            data = buffer.view[begin:end]
        except BaseException:
            buffer.release()
            raise
        # Not kept: what changed meanwhile is journaled, so that a later answer is as good.
        call.answer(head[:HEAD_BYTES_MAX], data, buffer, keep=False)

    async def _read(
        self, volume: LockedTogether, ranges: Sequence[Range], room: memoryview
    ) -> tuple[Position, list[CopyPiece]] | None:
        """Reads the ranges into `room`, one behind the other; up to where they have the group's writes, and what is
        where. Their data lies there in the order of the pieces. None: they may have others, since the group has
        stopped."""
        spans = joined(ranges, LOCKS_MAX)
        pieces = cut(ranges, await holes(volume, spans))
        with_holes = any(each.kind is not Piece.DATA for each in pieces)
        await _fill(volume, pieces, room, only_cold=True)
        async with volume.lock_ranges(spans):
            stored = self._source.position()
            if stored is None:
                return None  # what has waited may have gone by another way
            if with_holes:
                # There may be less of them by now. What is freed meanwhile reads as zeros.
                pieces = cut(ranges, await holes(volume, spans))
            await _fill(volume, pieces, room, only_cold=False)
        empty = Piece.HOLE if volume.thin else Piece.ZEROS
        return stored, [each if each.kind is Piece.DATA else each._replace(kind=empty) for each in pieces]

    def rest(self) -> None:
        """Gives back memory that nobody has used since the last answer was sent. To be called now and then."""
        if not self._buffers.used_bytes:
            self._buffers = BufferPool(POOL_BYTES)


class CopyingOut(RangesOut):
    """What is asked of P-VOLs that are copied: BITMAP and JOINED, too."""

    def __init__(self, source: Source, volumes: Mapping[int, LockedTogether], bitmaps: Bitmaps) -> None:
        super().__init__(source, volumes)
        self._bitmaps = bitmaps

    async def answer(self, question: Question, call: Call) -> bool:
        """Answers COPY, BITMAP and JOINED; whether it was one of these. Raises as they do."""
        answer = {Asked.COPY: self.copy, Asked.BITMAP: self.bitmap, Asked.JOINED: self.joined}.get(question.asked)
        if answer is not None:
            await answer(question.fields, call)
        return answer is not None

    async def bitmap(self, fields: Any, call: Call) -> None:
        """Answers BITMAP: with a part in which nothing is marked, if there is no bitmap, since the other side has
        joined it. Raises VolumeError, BitmapError: it is not answered."""
        size = self._bitmaps.sizes.get(fields.number)
        if size is None:
            call.answer(asking.refused(Outcome.NOT_NOW, f"there is no pair {fields.number}"))
            return
        geometry = Geometry(size)
        if fields.begin >= geometry.pages:
            call.answer(asking.refused(Outcome.FAILED, f"page {fields.begin} of {geometry.pages}"))
            return
        bitmap = await self._bitmaps.found(fields.number)
        if bitmap is None:
            part, following = encode_part(geometry, fields.begin, geometry.pages, ()), 0
        else:
            part, following = bitmap.part(fields.begin)
        answer = asking.part(following, part)
        call.charge(len(answer))
        call.answer(answer[:HEAD_BYTES_MAX], answer[HEAD_BYTES_MAX:], keep=False)

    async def joined(self, fields: Any, call: Call) -> None:
        """Answers JOINED: the bitmap is there no more. Raises VolumeError, BitmapError: it is not answered."""
        if fields.number in self._bitmaps.sizes:
            await self._bitmaps.give_up(fields.number)
        call.answer(asking.done())


def joined(ranges: Sequence[Range], count_max: int) -> list[Range]:
    """`count_max` ranges at the most, in order and apart, that have all of these: the widest gaps stay."""
    whole: list[Range] = []
    for offset, length in sorted(ranges):
        end = offset + length
        if whole and offset <= whole[-1].offset + whole[-1].length:
            first, before = whole[-1]
            whole[-1] = Range(first, max(before, end - first))
        else:
            whole.append(Range(offset, length))
    gaps = sorted((right.offset - left.offset - left.length, at) for at, (left, right) in enumerate(pairwise(whole), 1))
    cuts = [0, *sorted(at for _, at in gaps[max(len(gaps) - count_max + 1, 0) :]), len(whole)]
    return [
        Range(whole[begin].offset, whole[end - 1].offset + whole[end - 1].length - whole[begin].offset)
        for begin, end in pairwise(cuts)
    ]


async def holes(volume: Volume, spans: Sequence[Range]) -> list[Range]:
    """Where these ranges, which are in order and apart, have nothing, in order. Raises VolumeFailed."""
    found: list[Range] = []
    for extents in await asyncio.gather(*(volume.extents(*span, EXTENTS_MAX) for span in spans)):
        found += [Range(each.offset, each.length) for each in extents if not each.mapped]
    return found


def cut(ranges: Sequence[Range], empty: Sequence[Range]) -> list[CopyPiece]:
    """The pieces of these ranges, in their order: data, and what is in one of `empty`, which are in order and apart.
    RANGES_MAX at the most: if there would be more, those ranges are data that are so in part."""
    offsets = [each.offset for each in empty]
    pieces: list[CopyPiece] = []
    for offset, length in ranges:
        here, end = offset, offset + length
        for at in range(max(bisect_right(offsets, offset) - 1, 0), len(empty)):
            first, stop = empty[at].offset, empty[at].offset + empty[at].length
            if first >= end:
                break
            first, stop = max(first, here), min(stop, end)
            if first >= stop:
                continue
            if here < first:
                pieces.append(CopyPiece(here, first - here, Piece.DATA))
            pieces.append(CopyPiece(first, stop - first, Piece.HOLE))
            here = stop
        if here < end:
            pieces.append(CopyPiece(here, end - here, Piece.DATA))
    if len(pieces) <= RANGES_MAX:
        return pieces
    return [
        CopyPiece(*each, Piece.HOLE if [piece.kind for piece in cut([each], empty)] == [Piece.HOLE] else Piece.DATA)
        for each in ranges
    ]


async def _fill(volume: Volume, pieces: Sequence[CopyPiece], room: memoryview, only_cold: bool) -> None:
    """Reads the pieces that are data, one behind the other; `only_cold`: those that are not in memory."""
    waiting: list[asyncio.Future[None]] = []
    here = turn = 0
    try:
        for each in pieces:
            if each.kind is not Piece.DATA:
                continue
            begin, here = here, here + each.length
            if here - turn >= TURN_BYTES:
                turn = here
                await asyncio.sleep(0)
            if only_cold and volume.warm_file(each.offset, each.length) is not None:
                continue
            pending = volume.read(each.offset, room[begin:here])
            if pending is not None:
                waiting.append(asyncio.ensure_future(pending))
    finally:
        # To their end, whatever comes: they need the memory.
        await finished(_all(waiting))


async def _all(waiting: Sequence[asyncio.Future[None]]) -> None:
    if waiting:
        await asyncio.wait(waiting)
    for each in waiting:
        each.result()
