"""The stage Following: S-VOLs that run (COPY, PAIR, PFUL). What the P-VOLs' hosts write comes here, in its order.

Three things go on beside one another, each with a `once` that does one step and a loop that does them all: acquisition
(figure 13), restoration (figure 14) and, in COPY, copying (figure 11). The array runs the loops (driver: arrays), or
whoever drives takes the steps (driver: host). Hosts see the S-VOLs guarded, and in COPY they do not read them.

At every instant the S-VOLs are durably the group's writes up to one of them, or what is to be restored leads there, or
the state is COPY; then before-images lead back, if they were consistent before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from arrayd.log import get_logger
from arrayd.replication.acquisition import Acquisition, open_journal
from arrayd.replication.before_images import OPENED, go_back
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.bitmap import FormatError as BitmapFormatError
from arrayd.replication.changing_places import NOT_IN_TIME, ChangingPlaces
from arrayd.replication.copy_stores import CopyStores
from arrayd.replication.copy_told import Telling
from arrayd.replication.copying import Copies, Copying
from arrayd.replication.differences import Differences, differences
from arrayd.replication.draining import drain, restore_all
from arrayd.replication.group_rows import Driver, GroupRow
from arrayd.replication.guarded import GuardedVolume, UnreadableVolume
from arrayd.replication.journal import AuxiliaryJournal, FormatError, JournalError, Position
from arrayd.replication.pair_stores import clear_stores, forget_stores
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.restoration import Restoration
from arrayd.replication.stages import Doors, Progress, Stage, Told
from arrayd.replication.statuses import Event, Refusal, Side, State, Status
from arrayd.replication.verifying.comparing import AtPositions
from arrayd.replication.verifying.verifier import Verifier
from arrayd.volumes.volume import Volume, VolumeError, VolumeFailed

DRAIN_SECONDS = 30.0
"""How long a split waits for the last of the group's writes."""
SWAP_DRAIN_SECONDS = 6.0
"""Of these, how long the last writes may take to come: what the other stage needs is made in what is left."""
ANSWER_SECONDS = 5.0
"""Another array that answers nothing for so long, while somebody waits for it, does not answer."""

log = get_logger("replication")

FAILURES = (VolumeError, JournalError, BitmapError, FormatError, BitmapFormatError)


class Following(Stage):
    """See the module. `stop` leaves it of no use, unless it refuses: to go on, another one is prepared as `found`."""

    def __init__(self, row: GroupRow, doors: Doors, told: Told) -> None:
        super().__init__(row, doors, told)
        self.journal: AuxiliaryJournal | None = None
        self.acquisition: Acquisition
        self.restoration: Restoration
        self.copying: Copying | None = None
        """In COPY."""
        self._copies: Copies
        self.went_back = False
        """Whether it has stopped by before-images: the S-VOLs are what they were when the copy began."""
        self._pulling = Pulling(doors, row.peer)
        self._places = ChangingPlaces(self._pulling)
        self._volumes: dict[int, Volume] = {}
        self._stores = CopyStores(self)
        self._due = self._pulling.event()
        """Set when there may be something to be restored."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The loops."""
        self._chores: set[asyncio.Task[None]] = set()
        """What follows on a change of the row."""
        self._stepping = asyncio.Lock()
        """Held while a step is taken that was asked for."""
        self._driving = asyncio.Lock()
        """Held by who has the loops run, or not: after one that starts them the next one would wait for their end."""
        self._has_failed = False
        self._copy_ended = False

    # -- prepared ----------------------------------------------------------------------------------------------------

    async def prepare(self, found: bool = False) -> None:
        """See Stage: a restore that was begun is done again before anything else."""
        try:
            await self._prepare(found)
        except BaseException:
            await self._stores.close(None)
            raise

    async def _prepare(self, found: bool) -> None:
        row = self.row
        self._volumes = {pair.number: self.doors.volume(pair.volume) for pair in row.pairs}
        journal = await open_journal(row, self.doors.volume(row.journal_volume), found, self.doors.recent)
        self._copies = Copies(lambda: journal.regions.synced)
        self.restoration = Restoration(journal, self._volumes, self._stores.images, self._copies, self._moved)
        self.acquisition = Acquisition(row, self._pulling, journal, self._moved)
        self.restoration.ends = self.acquisition.ends
        self.acquisition.tells = Telling(lambda: self.copying, self.doors.now)
        if self._copies_now and row.consistent:
            await self._stores.open_images(self._volumes)
        await self.restoration.redo()
        if self._copies_now:
            pairs = await self._stores.open_bitmaps(self._volumes)
            self.copying = Copying(row, self._pulling, pairs, self._copies, self._moved)
        else:
            sizes = {number: volume.size for number, volume in self._volumes.items()}
            await clear_stores(self, sizes, found)
        pulling = Pulling(self.doors, row.peer)
        comparing = AtPositions(lambda: self.row, pulling, journal, self._copies, self._moved)
        self.verifier = Verifier(self, self._volumes, comparing, pulling)
        self.journal = journal

    @property
    def _copies_now(self) -> bool:
        return any(pair.state.status is Status.COPY for pair in self.row.pairs)

    # -- entered, and changed ----------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """See Stage."""
        await self._show()
        self._start()

    async def _show(self) -> None:
        for pair in self.row.pairs:
            kind = UnreadableVolume if pair.state.status is Status.COPY else GuardedVolume
            await self.doors.show(pair.volume, kind(self._volumes[pair.number]))

    def _start(self) -> None:
        """The loops, if the arrays drive."""
        if self.row.driver is not Driver.ARRAYS or self._tasks or self._has_failed:
            return
        self._begin(self._until_stopped(self.acquisition.run()), self._tasks)
        self._begin(self._until_stopped(self.restoration.run(self._pulling, self._due)), self._tasks)
        if self.copying is not None and not self.copying.copied:
            self._begin(self._until_stopped(self.copying.run()), self._tasks)

    def _begin(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.ensure_future(work)
        among.add(task)
        task.add_done_callback(among.discard)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Stopped:
            pass
        except FAILURES as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """The pairs suspend: nothing goes on here until whoever has the groups stops this stage."""
        self._pulling.stop()
        if not self._has_failed:
            self._has_failed = True
            log.error("group stopped", group=self.row.name, why=str(Event.ERROR), reason=str(error))
            self.told.event(Event.ERROR, str(error))

    def changed(self, row: GroupRow) -> None:
        """See Stage. The pairs are the same ones."""
        assert set(row.states) == set(self.row.states), "another stage is prepared for other pairs"
        driver = self.row.driver
        self.row = self.acquisition.row = row
        if self.copying is not None:
            self.copying.changed(row)
            if not self._copies_now:
                self._begin(self._settle(self.copying), self._chores)
                self.copying = None
        if row.driver is not driver:
            self._begin(self._drive(), self._chores)

    async def _settle(self, copying: Copying) -> None:
        """The copy has ended, and the row says so: hosts may read, bitmaps are clear, before-images are not needed any
        more. What is not removed is so at the next start."""
        await self._show()
        async with self.restoration.batch:
            self._stores.images.clear()
        self._stores.stay = True
        try:
            await self._stores.close(copying)
            await self._stores.remove_images()
        except VolumeError as error:
            log.warning("before-images stay", group=self.row.name, reason=str(error))

    async def _drive(self) -> None:
        """The loops run, or do not, as the row says now."""
        async with self._driving:
            self._pulling.stop()
            while self._tasks:
                await asyncio.wait(self._tasks)
            async with self._stepping:  # what a host has asked for ends first: nothing is restored by two at once
                if not self._has_failed:
                    self._pulling.resume()
                    self._start()

    def _moved(self) -> None:
        """Something new was heard, acquired, restored, or copied."""
        self._due.set()
        if self.journal is None:
            return
        self.acquisition.room.set()
        if self.verifier is not None:
            self.verifier.moved()
        heard, copying = self.acquisition.first_stored, self.copying
        if self._copy_ended or copying is None or not copying.copied or heard is None:
            return
        # What was copied before a restart had no more than there was when the other side was heard after it.
        if self.journal.regions.oldest >= max(self._copies.needed, heard):
            self._copy_ended = True
            self.told.event(Event.COPY_END, "")

    async def differences(self, number: int, offset: int, limit: int) -> Differences | None:
        """See Stage: what is still to be copied."""
        pairs = () if self.copying is None else self.copying.pairs
        bitmap = next((pair.bitmap for pair in pairs if pair.number == number), None)
        return None if bitmap is None else differences(bitmap, offset, limit)

    # -- steps, for whoever drives -----------------------------------------------------------------------------------

    async def acquire(self) -> bool:
        """Figure 13, one instruction; see `Acquisition.once`. False at once while the arrays drive."""
        return await self._step(self.acquisition.once)

    async def restore(self) -> bool:
        """Figure 14, one instruction; see `Restoration.once`. False at once while the arrays drive. The other side is
        told what is restored then, so that it can be purged."""
        return await self._step(self._restore_and_tell)

    async def _restore_and_tell(self) -> bool:
        there_was = await self.restoration.once()
        if there_was:
            await self.acquisition.tell()
        return there_was

    async def copy(self) -> bool:
        """Figure 11, one step; see `Copying.once`. False at once while the arrays drive."""
        return self.copying is not None and await self._step(self.copying.once)

    async def _step(self, once: Callable[[], Awaitable[bool]]) -> bool:
        async with self._stepping:
            if self.row.driver is Driver.ARRAYS or self._chores:
                return False
            self._pulling.check()
            try:
                return await once()
            except FAILURES as error:
                self._failed(error)
                raise

    # -- stopped -----------------------------------------------------------------------------------------------------

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See Stage. A split waits for the last of the group's writes, a takeover for what is here, a swap for the last
        of them while the other side's hosts wait; then the S-VOLs are at one position, restoration-completed."""
        await self._halt()
        async with self._stepping:  # no instruction of a host in between
            self._pulling.resume()
            try:
                refusal = await self._come_to_end(row)
            except (JournalError, BitmapError) as error:
                raise VolumeFailed(str(error)) from error
            finally:
                self._pulling.stop()
        if refusal is not None and not self._has_failed:
            self._pulling.resume()
            self._start()
        return refusal

    async def _halt(self) -> None:
        """Nothing runs any more."""
        while self._chores:
            await asyncio.wait(self._chores)
        if self.verifier is not None:
            await self.verifier.end()
        self._pulling.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)
        async with self._stepping:
            pass

    async def _come_to_end(self, row: GroupRow | None) -> Refusal | None:
        await self.restoration.redo()
        if self._stores.stay:
            await self._stores.remove_images()
        states = set() if row is None else set(row.states.values())
        if any(state.side is Side.P_VOL for state in states):
            if not await self._drain_fenced():
                return NOT_IN_TIME
        elif self.copying is None:
            if states & {State.S_SSUS, State.S_SSUS_WRITABLE}:
                await self._drain(self.doors.now() + DRAIN_SECONDS)
            if row is None or states & {State.S_SSUS, State.S_SSUS_WRITABLE, State.S_SSWS}:
                await restore_all(self.restoration)
        else:
            await self.copying.save()
        await self._stores.close(self.copying)
        if self._stores.images and states & OPENED:
            await go_back(self)
            self.went_back = True
        self.after = row
        return None

    async def _drain(self, until: float) -> bool:
        return await drain(self.acquisition, self.restoration, self.doors.now, until, ANSWER_SECONDS)

    async def _drain_fenced(self) -> bool:
        """The other side's hosts wait from now on, for a while; whether all of their writes are here in time."""
        asked = self.doors.now()
        end = await self._places.fence(self.row, ANSWER_SECONDS)
        if end is None:
            return False
        until = asked + SWAP_DRAIN_SECONDS
        return await self._drain(until) and self.position == end and self.doors.now() < until

    def too_late(self) -> Refusal | None:
        """See Stage: the other side's hosts wait for a while only."""
        return self._places.too_late(self.after)

    async def close(self) -> None:
        """See Stage: what the next one does not need is removed."""
        await self._halt()
        await self._stores.close(self.copying)
        if self.journal is not None:
            self.journal.recent.clear()
        row, stores = self.after, self.doors.stores
        for number in self._volumes:
            if row is None or number not in row.states:
                await forget_stores(self, number)
            elif self.went_back or not row.consistent:
                await stores.remove(self.images_name(number))

    # -- shown -------------------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position | None:
        """Up to where the S-VOLs have the group's writes, durably; None: what the row said before holds, since they
        went back to it."""
        return None if self.journal is None or self.went_back else self.journal.regions.oldest

    def progress(self) -> Progress:
        """See Stage."""
        if self.journal is None:
            return Progress()
        regions, told, copying = self.journal.regions, self.acquisition.told, self.copying
        return Progress(
            stored=told.stored if told is not None else None,
            acquired=regions.synced,
            restored=self.position,
            lag_s=self.acquisition.lag_s(),
            contact=self._pulling.contact,
            used_share=regions.used_share,
            differing=copying.left if copying else None,
            copying=copying.job if copying else None,
            restoring=self.restoration.job(self.acquisition.behind()),
            verifying=self.verifier.told() if self.verifier else None,
        )
