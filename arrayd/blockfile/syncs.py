"""Syncs of one file, grouped: one fdatasync serves everyone who waits when it begins, and two go on at once.

While the disk is busy with one group the processor takes in the next: with one sync at a time they wait for each other.
Each sync under way has an open file of its own, since the kernel reports a failed write-back once to each open file:
on one and the same, one of two syncs would take the other's error and leave it a success.

A failed fdatasync is never retried into success: the file stays failed, since the kernel may have dropped the pages it
could not write.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from functools import partial

from arrayd.blockfile import opening

SYNCS_MAX = 2
"""Syncs under way at once."""
GROUP = 16
"""So many who wait begin a sync, though another is under way; fewer wait until one has ended. Half of the 32 commands
that initiators have under way by default."""

Waiting = list[asyncio.Future[None]]


class Syncs:
    """The syncs of the file that is open as `descriptor`.

    `fdatasync(descriptor, ended)` begins one, and calls `ended` with how it ended. `written()` says how much is
    written, and `cleaned(written)` is called when so much has been synced; `failed()` when the file has failed.
    `failing` turns an OSError into what those who wait get.
    """

    def __init__(
        self,
        descriptor: int,
        loop: asyncio.AbstractEventLoop,
        fdatasync: Callable[[int, Callable[[OSError | None], None]], None],
        failing: Callable[[OSError], Exception],
        written: Callable[[], int],
        cleaned: Callable[[int], None],
        failed: Callable[[], None],
    ) -> None:
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._loop = loop
        self._fdatasync = fdatasync
        self._failing = failing
        self._written = written
        self._cleaned = cleaned
        self._failed = failed
        self._free = [descriptor]
        """Open files that no sync uses."""
        self._opened: list[int] = []
        """Those of them that are our own: opened when they are first needed, since most files never need them."""
        self._running = 0
        self._due = False
        """Whether a sync is about to begin at the end of this turn of the loop."""
        self._waiting: Waiting = []
        self._shared: asyncio.Future[None] | None = None
        self._asked = 0
        """Who waits, each of those counted that share a future."""

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nothing is under way."""
        return not (self._running or self._due or self._waiting)

    def sync(self) -> asyncio.Future[None]:
        """Done when everything written before the call is durable."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.failure is not None:
            future.set_exception(self._failing(self.failure))
        else:
            self._waiting.append(future)
            self._ask()
        return future

    def commit(self) -> asyncio.Future[None]:
        """`sync` for many: all who ask before the next sync begins share one future, which nobody may cancel."""
        if self.failure is not None:
            return self.sync()
        future = self._shared
        if future is None:
            future = self._shared = self._loop.create_future()
            self._waiting.append(future)
        self._ask()
        return future

    def _ask(self) -> None:
        self._asked += 1
        if self._asked >= GROUP and self._may_begin():
            self._begin()
        elif not self._running and not self._due:
            # Not at once: whoever else asks in this turn shall be served, too.
            self._due = True
            self._loop.call_soon(self._begin_due)

    def _may_begin(self) -> bool:
        """Whether there is an open file for one more sync."""
        if not self._free and self._running < SYNCS_MAX:
            try:
                self._opened.append(opening.open_again(self._descriptor))
            except OSError:
                return False
            self._free.append(self._opened[-1])
        return bool(self._free)

    def _begin_due(self) -> None:
        self._due = False
        if self._waiting and not self._running:
            self._begin()

    def _begin(self) -> None:
        """Starts one fdatasync for all who wait now, on a free open file."""
        waiting, self._waiting = self._waiting, []
        self._shared = None
        self._asked = 0
        self._running += 1
        descriptor, written = self._free.pop(), self._written()

        self._fdatasync(descriptor, partial(self._ended, waiting, descriptor, written))

    def _ended(self, waiting: Waiting, descriptor: int, written: int, failure: OSError | None) -> None:
        self._running -= 1
        self._free.append(descriptor)
        if failure is not None:
            self.fail(failure)
        if self.failure is None:
            self._cleaned(written)
            if self._waiting:
                self._begin()
        self._settle(waiting)

    def fail(self, failure: OSError) -> None:
        """The file has failed, and all who wait hear of it.

        Whatever the system says, and be it that a disk below is full: data that was taken in is lost.
        """
        if self.failure is None:
            self.failure = OSError(errno.EIO, f"could not be written to the disk: {failure.strerror}")
            self._failed()
        waiting, self._waiting = self._waiting, []
        self._shared = None
        self._settle(waiting)

    def _settle(self, waiting: Waiting) -> None:
        for future in waiting:
            if future.done():
                continue
            if self.failure is None:
                future.set_result(None)
            else:
                future.set_exception(self._failing(self.failure))

    def close(self) -> None:
        """Closes the open files of its own; `idle` it must be."""
        for descriptor in self._opened:
            os.close(descriptor)
