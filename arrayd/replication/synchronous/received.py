"""What comes to synchronous S-VOLs: hosts' writes, which are made to them, and questions about what they have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from arrayd.replication.activity import Activity
from arrayd.replication.before_images import BeforeImages
from arrayd.replication.front import LockedTogether
from arrayd.replication.guarded import GuardedVolume
from arrayd.replication.journal import FormatError, Position
from arrayd.replication.journal.regions import START
from arrayd.replication.redo import flush_all
from arrayd.replication.synchronous.formats import Carried, Kind
from arrayd.replication.synchronous.overtaking import Overtaking
from arrayd.volumes.volume import Volume


class Received:
    """Writes to the S-VOLs `volumes`, by number. `images` has before-images while a copy has not ended."""

    def __init__(
        self,
        volumes: Mapping[int, Volume],
        activity: Activity,
        overtaking: Overtaking,
        images: Mapping[int, BeforeImages],
    ) -> None:
        self._volumes = volumes
        self._activity = activity
        self._overtaking = overtaking
        self._images = images
        self._coming: set[asyncio.Future[None]] = set()
        """One for each call of `carry_out`."""
        self._jobs: set[asyncio.Future[None]] = set()
        """Writes that are on their way to a volume."""

    async def carry_out(self, writes: Sequence[Carried]) -> None:
        """All of them, none of which overlap, nor what else is under way. Raises VolumeError, and FormatError for what
        is not in an S-VOL: then nothing is done."""
        for each in writes:
            self.check(each.number, each.offset, each.extent)
        coming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming.add(coming)
        try:
            if self._images:
                await self._keep_before(writes)
            await self._make(writes)
        finally:
            self._coming.discard(coming)
            coming.set_result(None)
        durable = {each.number for each in writes if each.durable or each.kind is Kind.FLUSH}
        if durable:
            await flush_all({number: self._volumes[number] for number in durable})

    async def carried_out(self) -> None:
        """What came before the call is in the S-VOLs, or was refused."""
        if coming := set(self._coming):
            await asyncio.wait(coming)

    async def _make(self, writes: Sequence[Carried]) -> None:
        """Each begins in the turn in which its blocks were seen to be hot: whoever waits in between may find that they
        have cooled down."""
        jobs: list[asyncio.Future[None]] = []
        try:
            for number, each in enumerate(writes):
                while not self._activity.takes(each):
                    await self._activity.admit(writes[number:], self.sync)
                if (pending := self._begin(each)) is not None:
                    jobs.append(self._job(pending))
        finally:
            if jobs:
                await asyncio.wait(jobs)
            errors = [error for job in jobs if (error := job.exception()) is not None]
        if errors:
            raise errors[0]

    def _job(self, pending: Awaitable[None]) -> asyncio.Future[None]:
        job = asyncio.ensure_future(pending)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def sync(self) -> None:
        """All that was begun before the call is in the S-VOLs, durably. Raises VolumeError."""
        if jobs := set(self._jobs):
            await asyncio.wait(jobs)
        await flush_all(self._volumes)

    def check(self, number: int, offset: int, extent: int) -> None:
        """Raises FormatError for what is not in an S-VOL."""
        volume = self._volumes.get(number)
        if volume is None:
            raise FormatError(f"there is no pair {number}")
        if offset % volume.block_size or extent % volume.block_size or offset + extent > volume.size:
            raise FormatError(f"{extent} bytes from {offset} on, of a volume of {volume.size} bytes")

    async def _keep_before(self, writes: Sequence[Carried]) -> None:
        """What they write over, where a copy has not ended."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        for each in writes:
            if each.extent:
                ranges.setdefault(each.number, []).append((each.offset, each.extent))
        for number, those in ranges.items():
            images = self._images.get(number)
            if images is not None:
                await images.keep(those)

    def _begin(self, each: Carried) -> Awaitable[None] | None:
        volume = self._volumes[each.number]
        if each.kind is Kind.FLUSH:
            return None
        self._overtaking.wrote(each.number, each.offset, each.extent)
        if each.kind is Kind.WRITE:
            return None if volume.write_now(each.offset, each.data) else volume.write(each.offset, each.data)
        if each.kind is Kind.UNMAP:
            return volume.unmap(each.offset, each.extent)
        return volume.write_zeros(each.offset, each.extent)


class Still:
    """S-VOLs that nobody writes to while they are read: see `copying_out.Source`."""

    def position(self) -> Position | None:
        """There are no positions."""
        return START

    def needs_flush(self, _number: int) -> bool:
        """What was there before is synced by whoever reads it."""
        return False


class Read(GuardedVolume, LockedTogether):
    """One of them: no lock is needed."""

    def lock_ranges(self, _ranges: Sequence[tuple[int, int]]) -> AbstractAsyncContextManager[None]:
        """See LockedTogether."""
        return nullcontext()
