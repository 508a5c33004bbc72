"""The stage of S-VOLs that stand still, and of P-VOLs that are fenced: hosts read them and do not write.

Nothing goes on here: what comes next begins where the stage before has ended, durably. S-VOLs that stand in the middle
of a copy hosts do not read either: a resync goes on with it, who opens them goes back to what they were.
"""

from __future__ import annotations

import asyncio

from arrayd.log import get_logger
from arrayd.replication.before_images import OPENED, go_back, half_copied
from arrayd.replication.bitmap import BitmapError
from arrayd.replication.differences import Differences, differences
from arrayd.replication.group_rows import GroupRow, Mode, PairRow
from arrayd.replication.guarded import GuardedVolume, UnreadableVolume, UnsureVolume
from arrayd.replication.meetings import RUNNING_STATES
from arrayd.replication.pair_stores import forget_pair, gone, open_bitmap
from arrayd.replication.redo import flush_all
from arrayd.replication.stages import Doors, Progress, Stage, Told
from arrayd.replication.statuses import P_RUNNING, Refusal, Side
from arrayd.volumes.volume import VolumeError, VolumeFailed

log = get_logger("replication")


class Standing(Stage):
    """S_SSUS, S_PSUE, S_PFUS; P_PSUE_FENCED."""

    def __init__(self, row: GroupRow, doors: Doors, told: Told) -> None:
        super().__init__(row, doors, told)
        self._went_back = False
        self._mixed = False
        """Whether S-VOLs are no point of the group's writes, as far as anybody knows."""
        self._reading = asyncio.Lock()
        """Held while a bitmap is read."""
        self._ended = False
        """Whether the bitmaps are another stage's."""
        self._differing: dict[int, int] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        """Pairs that have ended by themselves."""

    async def prepare(self, found: bool = False) -> None:
        """See `Stage.prepare`. What hosts have written is durable then, unless it was taken up: a host that flushes a
        volume hears what has become of that."""
        try:
            await flush_all({pair.number: self.doors.volume(pair.volume) for pair in self.row.pairs})
        except VolumeError as error:
            # Synchronous S-VOLs of which that is so are marked before (`receiving.py`); nobody is given them (`stop`).
            if not found and not (self.row.mode is Mode.SYNC and self.row.side is Side.S_VOL):
                raise
            log.error("a volume is not durable", group=self.row.name, reason=str(error))
        for pair in self.row.pairs:
            await self._look(pair)
        if self.row.side is Side.S_VOL:
            self._mixed = await self._is_mixed()

    async def _is_mixed(self) -> bool:
        row = self.row
        if not row.consistent or RUNNING_STATES & set(row.states.values()):  # these could not be taken up
            return True
        try:
            return await half_copied(self)
        except VolumeError as error:
            log.warning("before-images cannot be read", group=row.name, reason=str(error))
            return True

    async def _look(self, pair: PairRow) -> None:
        """How much the pair differs in, as its bitmap has it; a bitmap that cannot be read is for others to see to."""
        try:
            found = await self._read(pair, 0, 1)
        except VolumeError as error:
            log.warning("a bitmap cannot be read", pair=pair.name, reason=str(error))
            return
        if found is not None:
            self._differing[pair.number] = found.marked_bytes

    async def _read(self, pair: PairRow, offset: int, limit: int) -> Differences | None:
        name = self.bitmap_name(pair.number)
        async with self._reading:
            bitmap = await open_bitmap(self.doors, name, self.doors.volume(pair.volume).size, self.row.id)
            if bitmap is None:
                return None
            try:
                return differences(bitmap, offset, limit)
            finally:
                await bitmap.close()
                await self.doors.stores.close(name)

    async def differences(self, number: int, offset: int, limit: int) -> Differences | None:
        """See `Stage.differences`. The bitmap is open for as long as that takes."""
        pair = next((pair for pair in self.row.pairs if pair.number == number), None)
        return None if pair is None or self._ended else await self._read(pair, offset, limit)

    async def enter(self) -> None:
        """See `Stage.enter`."""
        await asyncio.gather(*(self.doors.show(pair.volume, self._guarded(pair)) for pair in self.row.pairs))

    def _guarded(self, pair: PairRow) -> GuardedVolume:
        # P-VOLs that run are here if they could not be taken up as they should.
        unsure = pair.unsynced or bool(set(P_RUNNING) & set(self.row.states.values()))
        kind = UnsureVolume if unsure else UnreadableVolume if self._mixed else GuardedVolume
        return kind(self.doors.volume(pair.volume))

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See `Stage.stop`. S-VOLs that hosts may write to next, or that become P-VOLs, and whose copy has not ended,
        go back to what they were before it."""
        self._ended = True
        async with self._reading:
            pass
        if row is not None and _leads(row):
            try:
                await go_back(self)
            except BitmapError as error:
                raise VolumeFailed(str(error)) from error
            self._went_back = True
            if self.row.mode is Mode.SYNC:
                await flush_all({pair.number: self.doors.volume(pair.volume) for pair in self.row.pairs})
        self.after = row
        return None

    async def close(self) -> None:
        """See `Stage.close`."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        for pair in gone(self.row, self.after):
            await forget_pair(self, pair)
        if self._went_back and self.after is not None and _leads(self.after):
            for pair in self.row.pairs:
                await self.doors.stores.remove(self.images_name(pair.number))

    def changed(self, row: GroupRow) -> None:
        """See `Stage.changed`: of pairs that have no row any more hosts see the volumes themselves."""
        for pair in gone(self.row, row):
            self._differing.pop(pair.number, None)
            self._leaving.add(asyncio.ensure_future(self._leave(pair)))
        self.after = self.row = row

    async def _leave(self, pair: PairRow) -> None:
        async with self._reading:
            await forget_pair(self, pair)

    def progress(self) -> Progress:
        """See `Stage.progress`."""
        return Progress(differing=dict(self._differing))


def _leads(row: GroupRow) -> bool:
    """Whether what the volumes have is a host's to write, or the source of a copy."""
    return row.side is Side.P_VOL or bool(OPENED & set(row.states.values()))
