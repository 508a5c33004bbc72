"""What is done now and then for P-VOLs that run, by itself: their journal is purged of what is restored, the age of
the oldest write is looked up for the lag, and blocks cool down that are not written to any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arrayd.log import get_logger
from arrayd.replication.copying_out import CopyingOut
from arrayd.replication.group import PrimaryGroup
from arrayd.replication.journal import JournalError
from arrayd.replication.serving import JournalServer
from arrayd.replication.statuses import Event
from arrayd.volumes.volume import VolumeError

TEND_SECONDS = 1
"""So often the journal is purged, and the age of the oldest write looked up, though nobody asks."""
COOL_SECONDS = 10
"""Between two times that blocks cool down, and the journal is synced for it."""

log = get_logger("replication")


class Tending:
    """Of the group `name`; `now` tells seconds, `purges` whether the arrays purge by themselves. `wanted` is set when
    it would be well to purge at once."""

    def __init__(self, name: str, now: Callable[[], float], purges: Callable[[], bool], wanted: asyncio.Event) -> None:
        self._name = name
        self._now = now
        self._purges = purges
        self._wanted = wanted
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._task is not None

    def begin(self, group: PrimaryGroup, server: JournalServer, copying: CopyingOut) -> None:
        """From now on."""
        self._ending = False
        self._task = asyncio.create_task(self._run(group, server, copying))

    async def end(self) -> None:
        """Waits for what is at work; it may begin again."""
        self._ending = True
        if self._task is not None:
            self._wanted.set()
            await asyncio.wait((self._task,))
            self._task = None

    async def _run(self, group: PrimaryGroup, server: JournalServer, copying: CopyingOut) -> None:
        cooled = self._now()
        while not self._ending:
            try:
                await asyncio.wait_for(self._wanted.wait(), TEND_SECONDS)
            except TimeoutError:
                pass
            self._wanted.clear()
            copying.rest()
            if group.stopped:
                continue
            try:
                await server.look()
                if self._purges():
                    await server.purge(wholly=False)
                if self._now() - cooled >= COOL_SECONDS:
                    cooled = self._now()
                    await _cool(group)
            except (JournalError, VolumeError) as error:
                # What has failed for good has stopped the group, which is told.
                log.error("not purged", group=self._name, reason=str(error))


async def _cool(group: PrimaryGroup) -> None:
    try:
        await group.activity.cool(group.journal.sync)
    except VolumeError as error:
        group.fail(Event.ERROR, f"journal or activity log: {error}")
        raise
