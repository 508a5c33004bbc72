"""How the side with the S-VOLs compares a part of a pair with the other side, by the kind of its group.

Of an asynchronous group the other side's sums are of the writes before a position, and the own ones are made when the
S-VOLs have exactly these: from before the question on nothing is restored that is behind what was read then, and once
the answer is there nothing behind its position, until the sums are made. Of a synchronous group the other side holds
hosts' writes to the part, and asks for the own sums by itself (`answering.py`).

Neither ever finds a difference that there is not: what is compared is one point of the group's writes on both sides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from arrayd.replication import asking
from arrayd.replication.asking import Outcome, Range, Refused
from arrayd.replication.copying import Copies
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import AuxiliaryJournal, FormatError, Position
from arrayd.replication.pulling import Pulling
from arrayd.replication.sums import SUM_BYTES_MIN, differing, sums_of
from arrayd.replication.verifying import formats
from arrayd.replication.verifying.checking import Checking
from arrayd.replication.verifying.formats import Summed, Summing
from arrayd.volumes.volume import Volume

ANSWER_SECONDS = 10.0
"""How long the other side may take to answer, while nothing new is restored."""
STALLED_SECONDS = 30.0
"""A part for which nothing was restored for so long is given up, and begun anew: what is behind it can go on."""


ASKED_MAX = 4
"""Parts that the other side is asked about at once: what is behind what was read then waits meanwhile."""


class Part(NamedTuple):
    """A part of the pair `number`, on `volume`."""

    number: int
    volume: Volume
    offset: int
    length: int


Then = Callable[[list[Range], Position], Awaitable[None]]
"""`await then(ranges, position)`: what is done about what differs, while the S-VOLs are at that position."""


class Comparing(Protocol):
    """Compares parts of the pairs of a group."""

    sends: bool
    """Whether the other side does not get what the S-VOLs have by itself."""
    checking: Checking | None
    """Looks through this side's journal, if there is one."""

    async def compare(self, part: Part, moved: asyncio.Event, then: Then | None = None) -> list[Range]:
        """Where the sides differ at one point of the group's writes. `moved` is set when something was restored.
        Raises LinkError, Refused: it may be tried again; VolumeError, FormatError, Stopped."""


class AtPositions:
    """See Comparing: of an asynchronous group. `moved()` has it looked whether something can be restored."""

    sends = True

    def __init__(
        self,
        row: Callable[[], GroupRow],
        pulling: Pulling,
        journal: AuxiliaryJournal,
        copies: Copies,
        moved: Callable[[], None],
    ) -> None:
        self.checking: Checking | None = Checking(journal)
        self._row = row
        self._pulling = pulling
        self._journal = journal
        self._copies = copies
        self._moved = moved
        self._asking = asyncio.Semaphore(ASKED_MAX)

    async def compare(self, part: Part, moved: asyncio.Event, then: Then | None = None) -> list[Range]:
        """See Comparing."""
        async with self._asking:
            ticket = self._copies.begin(part.number, ())
            try:
                there = await _asked(self._row(), self._pulling, part)
            except BaseException:
                self._end(ticket)
                raise
        try:
            if not self._copies.raised(ticket, there.stored):
                raise Refused(Outcome.NOT_NOW, f"{self._pulling.peer} has less than this side has read of it")
            self._moved()
            await self._restored(there.stored, moved)
            found = await _compared(part, there.sums)
            if found and then is not None:
                await then(found, there.stored)
            return found
        finally:
            self._end(ticket)

    def _end(self, ticket: int) -> None:
        self._copies.end(ticket)
        self._moved()

    async def _restored(self, end: Position, moved: asyncio.Event) -> None:
        """Until the S-VOLs have all before `end`, and nothing else."""
        regions = self._journal.regions
        while regions.oldest != end:
            assert regions.to_be_restored <= end, "restored beyond what is compared"
            at = regions.oldest
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    while regions.oldest == at:
                        await self._pulling.wait(moved)
            except TimeoutError:
                reason = f"nothing is restored here that {self._pulling.peer} has had for {STALLED_SECONDS:g} s"
                raise Refused(Outcome.NOT_NOW, reason) from None


class UnderLocks:
    """See Comparing: of a synchronous group."""

    sends = False
    checking: Checking | None = None

    def __init__(self, row: Callable[[], GroupRow], pulling: Pulling) -> None:
        self._row = row
        self._pulling = pulling
        self._asking = asyncio.Semaphore(ASKED_MAX)

    async def compare(self, part: Part, _moved: asyncio.Event, then: Then | None = None) -> list[Range]:
        """See Comparing."""
        async with self._asking:
            # It is in memory then; and what cannot be read ends the verify, not the pairs.
            await sums_of(part.volume, part.offset, part.length)
            there = await _asked(self._row(), self._pulling, part)
        if len(there.others) != len(there.sums):
            raise FormatError("sums of one side")
        found = differing(part.offset, part.length, SUM_BYTES_MIN, there.others, there.sums)
        if found and then is not None:
            await then(found, there.stored)
        return found


async def _asked(row: GroupRow, pulling: Pulling, part: Part) -> Summed:
    asked = Summing(part.number, part.offset, part.length, SUM_BYTES_MIN)
    question = formats.sums(row.id, row.generation, asked)
    return formats.decode_summed(await pulling.ask(question, asking.ANSWER_BYTES_MAX, ANSWER_SECONDS), asked)


async def _compared(part: Part, there: list[int]) -> list[Range]:
    here = await sums_of(part.volume, part.offset, part.length, SUM_BYTES_MIN)
    return differing(part.offset, part.length, SUM_BYTES_MIN, here, there)
