"""Reads that must wait for the disk, in groups.

Asking whether a range is in memory (RWF_NOWAIT) makes the kernel begin to read it. So all reads are under way before a
thread begins to wait for the first of them: one that waits for many in a row is as quick as a thread for each, without
waking as many. That, more than the disk, is what a cold read costs. What comes while threads are at it waits for the
next group.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

READERS = 2
"""Groups under way at once: one waits for the disk while the other is answered."""

ColdRead = tuple[int, memoryview, asyncio.Future[None]]
"""Offset, where to, and the future that is done when it is."""


class ColdReads:
    """The cold reads of one file.

    `submit(function, argument)` has a thread call it; `over(count)` is called when so many reads have ended.
    """

    def __init__(
        self,
        descriptor: int,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[Callable[[list[ColdRead]], None], list[ColdRead]], object],
        failing: Callable[[OSError], Exception],
        over: Callable[[int], None],
    ) -> None:
        self._descriptor = descriptor
        self._loop = loop
        self._submit = submit
        self._failing = failing
        self._over = over
        self._due = False
        """Whether a group is about to begin."""
        self._running = 0
        self._next: list[ColdRead] = []
        """As many as tasks in flight at the most."""

    def read(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        """Fills `view` from `offset`; begins when this turn of the loop ends, at the soonest."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._next.append((offset, view, future))
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

    def _in_thread(self, reads: list[ColdRead]) -> None:
        self._loop.call_soon_threadsafe(self._done, reads, [self._read(offset, view) for offset, view, _ in reads])

    def _read(self, offset: int, view: memoryview) -> OSError | None:
        done = 0
        try:
            while done < len(view):
                count = os.preadv(self._descriptor, (view[done:],), offset + done)
                if count == 0:
                    return OSError(errno.EIO, "the file is shorter than its volume")
                done += count
        except OSError as error:
            return error
        return None

    def _done(self, reads: list[ColdRead], errors: list[OSError | None]) -> None:
        self._running -= 1
        self._begin()
        self._over(len(reads))
        for (_, _, future), error in zip(reads, errors, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(self._failing(error))
