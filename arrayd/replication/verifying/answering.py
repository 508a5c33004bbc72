"""What the side with the P-VOLs answers to SUMS, MEND and CHECK.

**Sums are of one point of the group's writes.** The range is locked while they are made: what was taken before is in
the volume then, what comes later waits. Of an asynchronous group the point is journal-in, and the other side makes its
own sums when the S-VOLs have exactly that. Of a synchronous one there are no points, but no write to the range is under
way on either side while it is locked: so the other side's sums are asked for meanwhile. Hosts' writes to the range wait
for memory, and there for one answer of the other side: what is not in memory is read before, without a lock.

**What is mended is a write of its own**, made under the lock to this side's volume, and journaled or mirrored as any
host's: so both sides get it, in the group's order, whichever leads, and whatever dies meanwhile.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from arrayd.link.channel import HEAD_BYTES_MAX, Call, LinkError
from arrayd.replication import asking
from arrayd.replication.asking import Asked, Outcome, Piece, Question, Range, Refused, refused
from arrayd.replication.copying import HEAD_BYTES, PIECES_BYTES_MAX, check_pieces
from arrayd.replication.copying_out import Source
from arrayd.replication.front import LockedTogether
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import FormatError, Position, PrimaryJournal
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.sums import sums_of, warmed
from arrayd.replication.verifying import formats
from arrayd.replication.verifying.checking import Checking
from arrayd.replication.verifying.formats import Leads, Mending, Summed, Summing
from arrayd.volumes.volume import Volume, finished

UNDER_LOCK_SECONDS = 2.0
"""How long the other side of a synchronous group may take to answer while hosts' writes to the range wait."""
LOCKED_MAX = 4
"""Parts that hosts' writes wait for at once."""
ROOM_SHARE = 0.7
"""With more of a journal in use nothing is compared, for which records wait to be restored, nor mended, which is
journaled: hosts need the room."""

Part = tuple[int, memoryview]
"""Data, and where it goes."""
Newer = tuple[list[Range], Position]
"""Ranges that were written to, as far as the journal was looked at, and up to where that was."""


class NotNow(Exception):
    """It cannot be done now: why."""


class Beside(Protocol):
    """What the other side has, while a range is locked."""

    async def sums(self, asked: Summing) -> list[int]:
        """Its sums; empty: it makes them itself, later. Raises LinkError, Refused, FormatError, Stopped."""

    def check_room(self) -> None:
        """Raises NotNow while hosts need the room that it would take."""

    async def newer(self, asked: Mending) -> Newer:
        """What is newer here than what the other side has, before the range is locked. Raises NotNow, JournalError."""

    async def parts(self, asked: Mending, newer: Newer) -> Sequence[Part]:
        """What it has in a range, where nothing newer is here. Raises NotNow, JournalError, and as `sums` does."""

    def check(self) -> Checking | None:
        """Looks through the journal, if there is one."""


class Answers:
    """Answers for the group of `row()`, whose P-VOLs are `volumes`, by number, of `source`."""

    def __init__(
        self,
        row: Callable[[], GroupRow],
        source: Source,
        volumes: Mapping[int, LockedTogether],
        beside: Beside,
    ) -> None:
        self._row = row
        self._source = source
        self._volumes = volumes
        self._beside = beside
        self._checking = beside.check()
        self._turn = asyncio.Lock()
        """Held while the journal is looked through."""
        self._locked = asyncio.Semaphore(LOCKED_MAX)

    async def answer(self, question: Question, call: Call) -> None:
        """Answers any of them. Raises FormatError, JournalError, VolumeError: it is not answered."""
        try:
            if question.asked is Asked.SUMS:
                answer = await self._sums(*formats.decode_sums(question.fields))
            elif question.asked is Asked.MEND:
                answer = await self._mend(*formats.decode_mend(question.fields))
            else:
                answer = await self._check(*formats.decode_check(question.fields))
        except (NotNow, LinkError, Refused, Stopped) as error:
            answer = refused(Outcome.NOT_NOW, str(error) or "the group is being suspended")
        answer_at_length(answer, call)

    async def _sums(self, generation: int, asked: Summing) -> bytes:
        volume = self._volume(generation, asked.number, asked.offset, asked.length)
        self._beside.check_room()
        await warmed(volume, asked.offset, asked.length)
        async with self._locked, volume.lock_ranges([(asked.offset, asked.length)]):
            stored = self._stored()
            others = asyncio.ensure_future(self._beside.sums(asked))
            try:
                own = await sums_of(volume, asked.offset, asked.length, asked.sum_bytes)
            finally:
                await asyncio.wait((others,))
            told = Summed(stored, own, others.result())
        return formats.summed(told)

    async def _mend(self, generation: int, asked: Mending) -> bytes:
        volume = self._volume(generation, asked.number, asked.offset, asked.length)
        self._beside.check_room()
        newer = await self._beside.newer(asked)
        await warmed(volume, asked.offset, asked.length)
        async with self._locked, volume.lock_ranges([(asked.offset, asked.length)]):
            self._stored()
            own = asked.leads is Leads.P_VOLS
            parts = [await _own(volume, asked)] if own else await self._beside.parts(asked, newer)
            for offset, data in parts:
                await finished(volume.write_under_lock(offset, data))
        return asking.done()

    async def _check(self, generation: int, at: Position) -> bytes:
        self._of_generation(generation)
        if self._checking is None:
            return refused(Outcome.FAILED, "there is no journal")
        async with self._turn:
            return formats.checked(await self._checking.part(at))

    def _of_generation(self, generation: int) -> None:
        row = self._row()
        if generation != row.generation:
            raise NotNow(f"group {row.name} is of generation {row.generation}")

    def _volume(self, generation: int, number: int, offset: int, length: int) -> LockedTogether:
        self._of_generation(generation)
        volume = self._volumes.get(number)
        if volume is None:
            raise NotNow(f"there is no pair {number}")
        if offset % volume.block_size or length % volume.block_size or offset + length > volume.size:
            raise FormatError(f"{length} bytes from {offset} on, of a volume of {volume.size} bytes")
        return volume

    def _stored(self) -> Position:
        stored = self._source.position()
        if stored is None:
            raise NotNow("the group is being suspended")
        return stored


async def _own(volume: Volume, asked: Mending) -> Part:
    view = memoryview(mmap.mmap(-1, asked.length))
    await finished(volume.read(asked.offset, view))
    return asked.offset, view


class JournaledBeside:
    """See Beside: of an asynchronous group on `journal`. The other side sends what its S-VOLs have at a position, and
    restores nothing behind that before it has its answer; what was written since is newer."""

    def __init__(self, journal: PrimaryJournal) -> None:
        self._journal = journal

    async def sums(self, _asked: Summing) -> list[int]:
        """See Beside."""
        return []

    def check(self) -> Checking | None:
        """See Beside."""
        return Checking(self._journal)

    def check_room(self) -> None:
        """See Beside."""
        if self._journal.regions.used_share > ROOM_SHARE:
            raise NotNow("so much of the journal is in use that hosts need the rest")

    async def newer(self, asked: Mending) -> Newer:
        """See Beside: hosts do not wait while most of the journal is looked through."""
        regions = self._journal.regions
        if asked.leads is Leads.P_VOLS:
            return [], asked.restored
        begin, end = asked.restored, regions.stored
        if len(asked.data) != asked.length or not (begin.follows(regions.oldest) and end.follows(begin)):
            raise NotNow(f"{begin} is not in the journal, which has {regions.oldest} to {end}")
        return await self._written(asked, begin, end), end

    async def parts(self, asked: Mending, newer: Newer) -> Sequence[Part]:
        """See Beside."""
        written, begin = newer
        written += await self._written(asked, begin, self._journal.regions.stored)
        data = memoryview(asked.data)
        return [
            (offset, data[offset - asked.offset :][:length])
            for offset, length in without(Range(asked.offset, asked.length), written)
        ]

    async def _written(self, asked: Mending, begin: Position, end: Position) -> list[Range]:
        """Where the range was written to by the records from `begin` to `end`."""
        written: list[Range] = []
        async for changes in self._journal.changes(begin, end):
            written += [
                Range(offset, extent)
                for number, offset, extent in changes
                if number == asked.number and offset < asked.offset + asked.length and asked.offset < offset + extent
            ]
            await asyncio.sleep(0)
        return written


class MirroredBeside:
    """See Beside: of a synchronous group. The other side is asked by `pulling` while the range is locked."""

    def __init__(self, row: Callable[[], GroupRow], pulling: Pulling) -> None:
        self._row = row
        self._pulling = pulling

    async def sums(self, asked: Summing) -> list[int]:
        """See Beside."""
        row = self._row()
        question = formats.sums(row.id, row.generation, asked)
        answer = await self._pulling.ask(question, asking.ANSWER_BYTES_MAX, UNDER_LOCK_SECONDS)
        return formats.decode_summed(answer, asked).sums

    def check(self) -> Checking | None:
        """See Beside."""
        return None

    def check_room(self) -> None:
        """See Beside: there is nothing that may be full."""

    async def newer(self, asked: Mending) -> Newer:
        """See Beside: nothing is."""
        return [], asked.restored

    async def parts(self, asked: Mending, _newer: Newer) -> Sequence[Part]:
        """See Beside."""
        row, ranges = self._row(), [Range(asked.offset, asked.length)]
        question = asking.copy(row.id, row.generation, asked.number, ranges)
        expects = asked.length + PIECES_BYTES_MAX + HEAD_BYTES
        _, pieces = asking.decode_copied(await self._pulling.ask(question, expects, UNDER_LOCK_SECONDS))
        check_pieces(ranges, pieces)
        return [
            (each.offset, memoryview(each.data if each.kind is Piece.DATA else bytes(each.length))) for each in pieces
        ]


def answer_at_length(answer: bytes, call: Call) -> None:
    """Answers with more than a head may be. Raises FrameError: it is not answered."""
    if len(answer) > HEAD_BYTES_MAX:
        call.charge(len(answer) - HEAD_BYTES_MAX)
    call.answer(answer[:HEAD_BYTES_MAX], answer[HEAD_BYTES_MAX:], keep=False)


def without(span: Range, ranges: Sequence[Range]) -> list[Range]:
    """What of `span` is in none of `ranges`, in order."""
    left: list[Range] = []
    at, end = span.offset, span.offset + span.length
    for offset, length in sorted(ranges):
        if at < min(offset, end):
            left.append(Range(at, min(offset, end) - at))
        at = max(at, offset + length)
    if at < end:
        left.append(Range(at, end - at))
    return left


async def still_sums(
    row: GroupRow,
    payload: memoryview,
    check: Callable[[int, int, int], None],
    volumes: Mapping[int, Volume],
    call: Call,
) -> None:
    """Answers SUMS of S-VOLs, whose other side sees to it that nobody writes there; `check` raises FormatError for what
    is not in a volume. Raises FormatError, VolumeError, FrameError: it is not answered."""
    generation, asked = formats.decode_sums(payload)
    check(asked.number, asked.offset, asked.length)
    if generation != row.generation:
        call.answer(refused(Outcome.NOT_NOW, f"group {row.name} is of generation {row.generation}"))
        return
    own = await sums_of(volumes[asked.number], asked.offset, asked.length, asked.sum_bytes)
    answer_at_length(formats.summed(Summed(START, own, [])), call)
