"""What must wait for the disk, by threads: what `ring.py` does, where the kernel offers no ring.

Asking whether a range is in memory (RWF_NOWAIT) makes the kernel begin to read it. So all reads are under way before a
thread begins to wait for the first of them: one that waits for many in a row is as quick as a thread for each, without
waking as many. That, more than the disk, is what a cold read costs. What comes while threads are at it waits for the
next group.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from arrayd.blockfile.cold_read import ColdRead, too_short

READERS = 2
"""Groups of reads under way at once: one waits for the disk while the other is answered."""


def _fill(read: ColdRead) -> OSError | None:
    """Waits for the disk."""
    done = 0
    try:
        while done < len(read.view):
            count = os.preadv(read.descriptor, (read.view[done:],), read.offset + done)
            if count == 0:
                return too_short()
            done += count
    except OSError as error:
        return error
    return None


class Threads:
    """The cold reads and syncs of one file. `submit(function, argument, …)` has a thread call it."""

    busy = False
    """Nobody need know: see `file.WARY_READS`."""

    def __init__(self, submit: Callable[..., object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._submit = submit
        self._due = False
        """Whether a group is about to begin."""
        self._running = 0
        self._next: list[ColdRead] = []
        """As many as tasks in flight at the most."""

    def read(
        self,
        descriptor: int,
        offset: int,
        view: memoryview,
        failing: Callable[[OSError], Exception],
        over: Callable[[], None],
    ) -> asyncio.Future[None]:
        """As `Ring.read`."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._next.append(ColdRead(descriptor, offset, view, future, failing, over))
        if not self._due and self._running < READERS:
            self._due = True
            self._loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        self._due = False
        if self._next:
            group, self._next = self._next, []
            self._running += 1
            self._submit(self._in_thread, group)

    def _in_thread(self, group: list[ColdRead]) -> None:
        self._loop.call_soon_threadsafe(self._done, group, [_fill(read) for read in group])

    def _done(self, group: list[ColdRead], errors: list[OSError | None]) -> None:
        self._running -= 1
        self._begin()
        for read, error in zip(group, errors, strict=True):
            read.end(error)

    def sync(self, descriptor: int, over: Callable[[OSError | None], None]) -> None:
        """As `Ring.sync`."""
        self._submit(self._sync_in_thread, descriptor, over)

    def _sync_in_thread(self, descriptor: int, over: Callable[[OSError | None], None]) -> None:
        failure = None
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            failure = error
        self._loop.call_soon_threadsafe(over, failure)
