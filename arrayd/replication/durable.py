"""Writes and flushes that wait until the journal of their group is synced: one sync serves all who wait.

The volumes are not synced for it: what a power loss takes from them is written again from the journal (`redo.py`). Only
what was written to a volume before it was in a pair is in no journal: the first flush syncs that volume as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arrayd.replication.journal import PrimaryJournal
from arrayd.replication.redo import flush_all
from arrayd.replication.writes import Write
from arrayd.volumes.volume import Volume, VolumeError


class Durable:
    """Those of one group. `volume_failed` and `journal_failed` are called when one cannot be synced."""

    def __init__(
        self,
        journal: PrimaryJournal,
        volume_failed: Callable[[VolumeError], None],
        journal_failed: Callable[[VolumeError], None],
    ) -> None:
        self.unsynced: dict[int, Volume] = {}
        """Volumes with writes from before they were in a pair, which nobody may have made durable."""
        self.task: asyncio.Task[None] | None = None
        """What syncs, while somebody waits."""
        self._journal = journal
        self._volume_failed = volume_failed
        self._journal_failed = journal_failed
        self._waiting: list[Write] = []

    def wait(self, write: Write) -> None:
        """Ends `write` when all that the journal has collected is durable."""
        self._waiting.append(write)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._sync())

    async def _sync(self) -> None:
        """Syncs again and again until nobody waits."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                await self._sync_volumes({write.number for write in waiting})
            except VolumeError as error:
                self._volume_failed(error)
                for write in waiting:
                    write.done(error)
                continue
            try:
                await self.sync()
            except VolumeError:
                for write in waiting:
                    # Its data is in the volume, and as durable as that when nobody needs the journal any more.
                    write.kind = None
                    write.keep(write)
            else:
                for write in waiting:
                    write.done()
        self.task = None

    async def sync(self) -> None:
        """Makes durable what the journal has collected. Raises VolumeError: the journal has failed, which is told."""
        try:
            await self._journal.sync()
        except VolumeError as error:
            self._journal_failed(error)
            raise

    async def _sync_volumes(self, numbers: set[int]) -> None:
        volumes = {number: volume for number, volume in self.unsynced.items() if number in numbers}
        await flush_all(volumes)
        self.synced(volumes)

    def synced(self, volumes: dict[int, Volume]) -> None:
        """What was written to these before they were in a pair is durable."""
        for number in volumes:
            self.unsynced.pop(number, None)
