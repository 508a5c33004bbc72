"""Journal acquisition (figure 13): records are read from the other array, and stored in the auxiliary journal, durably.

One question is under way at a time, and the next one while what came is looked at, stored and synced: so the other
side, the way and the disk do not wait for each other, and one sync serves all that has come since the last. Nothing
here waits for restoration, unless there is no room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from arrayd.link.channel import LinkError
from arrayd.replication import asking
from arrayd.replication.asking import ANSWER_BYTES_MAX, RUN_BYTES_MAX, Followed, Refused
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.journal import AuxiliaryJournal, JournalError, JournalFull, Position, Role
from arrayd.replication.journal.format import end_of_run
from arrayd.replication.journal.reading import RUN_RECORDS_MAX
from arrayd.replication.journal.recent import Budget, Recent
from arrayd.replication.journal.superblocks import has_journal
from arrayd.replication.pulling import NS, Pauses, Pulling
from arrayd.volumes.volume import Volume

WAIT_SECONDS = 1.0
"""How long the other side may wait until there is something to be served."""
SOON_SECONDS = 0.1
"""The same while something is being restored: with the next question the other side learns that it is."""
ENDED_SECONDS = 1.0
"""Between two questions when nothing is journaled any more: until the sides have met."""
STALE_SECONDS = 5.0
"""What was heard so long ago tells nothing of how it goes now."""
ROOM_SHARE = 4
"""Nothing is asked for while less than one part in so many of the journal is free, or less than a run takes."""
GATHER_BYTES = 256 * 1024
GATHER_SECONDS = 0.005
"""After a run that is shorter than that, the next one is asked for so much later: to be asked for every write by
itself costs the other side more than the writes."""
UNSYNCED_BYTES_MAX = 32 * 1024 * 1024
"""Of what is stored and not yet durable; with more nothing else is stored."""
ENDS_MAX = 1024
"""Runs whose ends are remembered: as many as the journal knows the hash of."""


class End(NamedTuple):
    """Where a run ends that was acquired, and when the first of its writes was written, in ns since 1970."""

    at: Position
    time: int


class Come(NamedTuple):
    """A run that came, and its end as it says it is."""

    run: memoryview
    end: End


class Acquisition:
    """Fills `journal`, which nobody else stores in, for the group of `row`. `moved()` is called when it has more, or
    when something new was heard."""

    def __init__(self, row: GroupRow, pulling: Pulling, journal: AuxiliaryJournal, moved: Callable[[], None]) -> None:
        self.row = row
        self.journal = journal
        self.told: Followed | None = None
        """What the other side said last."""
        self.first_stored: Position | None = None
        """Where the group's writes ended when the other side was first heard."""
        self.ends: deque[End] = deque(maxlen=ENDS_MAX)
        """Of what is in the journal, in order; restoration forgets them."""
        self.room = pulling.event()
        """Set when there is more room."""
        self.tells: Callable[[], bytes] = bytes
        """What the other side is told besides, with each question: see `copy_told.py`."""
        self._told_at = 0.0
        self._end = journal.regions.stored
        """Where the next record is."""
        self._next = self._end
        """From where on it is asked next: further, while what came is being stored."""
        self._lacks_room: Position | None = None
        """Where the journal began when there was no room for what came."""
        self._pulling = pulling
        self._moved = moved
        self._pauses = Pauses(pulling, f"acquisition of group {row.name}")
        self._syncing: asyncio.Task[None] | None = None

    # -- one step, and all of them -----------------------------------------------------------------------------------

    async def once(self, wait: float = 0.0, answered: float | None = None) -> bool:
        """A journal acquisition instruction: asks once, for `wait` seconds at the most until there is something, and
        stores what comes. Whether something came; False too if there is no room. It is `answered` in so many seconds.

        Raises LinkError, Refused, FormatError, JournalError, VolumeError, Stopped."""
        if not self._has_room():
            return False
        came = await self._store(self._look(await self._ask(wait, answered)))
        if came:
            await self._sync()
        return came

    async def tell(self) -> None:
        """Has the other side hear what is restored, and takes nothing; one that does not answer hears it with the next
        acquisition. Raises FormatError, Stopped."""
        try:
            told, _ = asking.decode_followed(await self._ask(0.0, None, 0))
        except (LinkError, Refused):
            return
        self._hear(told)

    async def run(self) -> None:
        """Until it is stopped. Raises FormatError, JournalError, VolumeError: what came cannot be taken; Stopped."""
        coming: asyncio.Task[memoryview] | None = None
        try:
            while True:
                if coming is None:
                    await self._until_room()
                    coming = self._begin()
                try:
                    answer, coming = await coming, None
                    come = self._look(answer)
                except (LinkError, Refused) as error:
                    coming = None
                    await self._pauses.failed(error)
                    continue
                self._pauses.went_well()
                much = self._next.byte - self._end.byte >= GATHER_BYTES
                if much and self._has_room():
                    coming = self._begin()
                came = await self._store(come)
                if came and not much:
                    await self._sync_behind()
                    await self._pulling.sleep(GATHER_SECONDS)
                if coming is None and self._has_room():
                    coming = self._begin()
                if came:
                    await self._sync_behind()
                elif self.told is not None and self.told.ended:
                    await self._pulling.sleep(ENDED_SECONDS)
        except BaseException:
            self._pulling.stop()
            raise
        finally:
            syncing, self._syncing = self._syncing, None
            if coming is not None:
                await asyncio.wait((coming,))
                coming.exception()
            self._next = self._end
            if syncing is not None:
                await syncing

    def _begin(self) -> asyncio.Task[memoryview]:
        behind = self.journal.regions.oldest != self._next
        return asyncio.ensure_future(self._ask(SOON_SECONDS if behind else WAIT_SECONDS, None))

    async def _ask(self, wait: float, answered: float | None, most: int = RUN_BYTES_MAX) -> memoryview:
        row, regions = self.row, self.journal.regions
        bytes_max = max(min(most, regions.bytes_end - self._next.byte), 0)
        question = asking.follow(
            row.id, row.epoch, self._next, regions.oldest, bytes_max, int(wait * 1000), self.tells()
        )
        return await self._pulling.ask(question, ANSWER_BYTES_MAX, answered)

    # -- room --------------------------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether it is worth while to ask: not for a few records at a time while the journal is all but full."""
        regions, size = self.journal.regions, self.journal.regions.size
        if self._lacks_room == regions.oldest:
            return False
        records, length = regions.entries_end - self._next.sequence, regions.bytes_end - self._next.byte
        return records >= min(RUN_RECORDS_MAX, size.entries // ROOM_SHARE) and length >= min(
            RUN_BYTES_MAX, size.data_bytes // ROOM_SHARE
        )

    async def _until_room(self) -> None:
        while not self._has_room():
            await self._pulling.wait(self.room)

    # -- stored ------------------------------------------------------------------------------------------------------

    def _look(self, answer: memoryview) -> Come | None:
        """What came; None if there is no room for it. Raises Refused, FormatError, JournalError."""
        told, run = asking.decode_followed(answer)
        self._hear(told)
        regions = self.journal.regions
        if not told.stored.follows(self._end):
            raise JournalError(f"the other side has {told.stored}, and had {self._end} before")
        end, time = end_of_run(run, self._end)
        if not regions.fits(end):
            if regions.oldest == self._end:
                raise JournalFull(f"there is no room for a write up to {end}, although nothing else is there")
            self._lacks_room = regions.oldest
            return None
        if end != regions.to_be_read:
            self.journal.acquire(end)
        self._next = end
        return Come(run, End(end, time))

    async def _store(self, come: Come | None) -> bool:
        """Collects what came; whether there was something. Raises FormatError, JournalError, VolumeError."""
        if come is None or await self.journal.store_run(come.run) == self._end:
            return False
        self._end = come.end.at
        self.ends.append(come.end)
        return True

    def _hear(self, told: Followed) -> None:
        self.told, self._told_at = told, self._pulling.doors.now()
        if self.first_stored is None:
            self.first_stored = told.stored
            self._moved()

    async def _sync(self) -> None:
        """Until all that is stored is durable."""
        while self.journal.regions.synced != self._end:
            await self.journal.sync()
            self._moved()

    async def _sync_behind(self) -> None:
        """Has what was stored synced, while others are asked for and stored."""
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.ensure_future(self._sync())
            self._syncing.add_done_callback(self._synced)
        if self._end.byte - self.journal.regions.synced.byte > UNSYNCED_BYTES_MAX:
            await self._syncing

    def _synced(self, syncing: asyncio.Task[None]) -> None:
        if syncing.cancelled() or syncing.exception() is not None:
            self._pulling.stop()

    # -- shown -------------------------------------------------------------------------------------------------------

    def _heard(self) -> tuple[Followed | None, float]:
        """What the other side told last, and how long ago; None: that is too long."""
        since = self._pulling.doors.now() - self._told_at
        return None if since > STALE_SECONDS else self.told, since

    def behind(self) -> int | None:
        """Bytes that the S-VOLs have not, as far as this was heard of; None: that is not known."""
        told, _ = self._heard()
        return None if told is None else max(told.stored.byte - self.journal.regions.oldest.byte, 0)

    def lag_s(self) -> float | None:
        """Age of the oldest write that the S-VOLs have not, as far as this was heard of; None: that is not known."""
        (told, since), oldest = self._heard(), self.journal.regions.oldest
        if told is None:
            return None
        if oldest == told.stored:
            return 0.0
        time = told.oldest if oldest == self._end else next((end.time for end in self.ends if end.at > oldest), 0)
        return max((told.now - time) / NS + since, 0.0) if time else None


async def open_journal(row: GroupRow, volume: Volume, found: bool, budget: Budget) -> AuxiliaryJournal:
    """The auxiliary journal of the row's epoch on `volume`; a new one if it is not there, unless it must be `found`.
    What it keeps in memory is of this budget. Raises JournalError, VolumeError."""
    if await has_journal(volume, Role.AUXILIARY, row.id, row.epoch):
        journal = await AuxiliaryJournal.open(volume)
    elif found:
        raise JournalError(
            f"the journal of group {row.name} in epoch {row.epoch} is not on volume {row.journal_volume}"
        )
    else:
        journal = await AuxiliaryJournal.create(volume, row.id, row.epoch)
    journal.recent = Recent(budget)
    return journal
