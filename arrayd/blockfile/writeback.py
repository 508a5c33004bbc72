"""How much may lie in the page cache and not yet on the disk, all files together.

Past the kernel's dirty limit a pwrite sleeps, so the event loop must stop writing before that (balance_dirty_pages
lets everyone run freely below the middle of the background threshold and the limit). A file asks for a grant, writes
against it, and tells what became clean. When much is dirty, the file with most of it is asked to clean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from arrayd.blockfile import kernel

LIMIT_MAX = 4 * 1024 * 1024 * 1024
"""However much memory there is: an initiator waits for all of it when it flushes."""
LIMIT_MIN = 16 * 1024 * 1024
LIMIT_SHARE = 0.75
"""The part of the kernel's limit that is ours; others write files, too."""
GRANT_BYTES = 1024 * 1024
"""What a file may write before it asks again."""
CLEANING_SHARE = 0.8
"""The part of the limit from which on files are cleaned."""
KEPT_SHARE = 0.7
"""The part of the limit that cleaning may leave: overwriting the same blocks makes no more of them dirty."""
CLEANINGS_MAX = 2
"""Files that are cleaned at once: one on a stuck disk does not stop the others."""


class Share:
    """What one file has in the page cache: bytes ever granted, and how many of those are clean again."""

    __slots__ = ("_budget", "clean", "cleaned", "cleaning", "granted")

    def __init__(self, budget: Writeback, clean: Callable[[int], asyncio.Future[int | OSError]]) -> None:
        self._budget = budget
        self.clean = clean
        self.granted = 0
        self.cleaned = 0
        self.cleaning = False

    @property
    def dirty(self) -> int:
        """Bytes that may be dirty, what is granted and not yet written included."""
        return self.granted - self.cleaned

    def take(self, length: int) -> int:
        """A grant of `length` bytes or more; 0 when the limit is reached."""
        grant = max(length, GRANT_BYTES)
        if self._budget.dirty + grant > self._budget.limit:
            return 0
        self.charge(grant)
        return grant

    def charge(self, length: int) -> None:
        """Counts `length` bytes whatever the limit: a thread writes them, which may sleep."""
        self.granted += length
        self._budget.add(length)

    def cleaned_to(self, mark: int) -> None:
        """Of the bytes granted, the first `mark` are clean; less than was said before says nothing new."""
        if mark > self.cleaned:
            self._budget.add(self.cleaned - mark)
            self.cleaned = mark

    def leave(self) -> None:
        """The file is closed."""
        self.cleaned_to(self.granted)
        self._budget.shares.discard(self)


class Writeback:
    """The bound for all files of a process: `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dirty = 0
        self.shares: set[Share] = set()

    @classmethod
    def for_this_machine(cls) -> Self:
        """The bound that the kernel's limits allow."""
        return cls(max(min(int(kernel.dirty_limit() * LIMIT_SHARE), LIMIT_MAX), LIMIT_MIN))

    def join(self, clean: Callable[[int], asyncio.Future[int | OSError]]) -> Share:
        """A share for one more file. `clean(keep)` writes it back, or finds that no more than `keep` bytes of it are
        dirty; it calls `cleaned_to`, and never fails."""
        share = Share(self, clean)
        self.shares.add(share)
        return share

    def add(self, length: int) -> None:
        """Counts; and has the dirtiest file cleaned if it is time."""
        self.dirty += length
        if length > 0 and self.dirty > self.limit * CLEANING_SHARE:
            self._clean()

    def _clean(self) -> None:
        at_rest = [share for share in self.shares if not share.cleaning]
        if not at_rest or len(self.shares) - len(at_rest) >= CLEANINGS_MAX:
            return
        share = max(at_rest, key=lambda share: share.dirty)
        share.cleaning = True
        others = self.dirty - share.dirty
        cleaning = share.clean(max(0, int(self.limit * KEPT_SHARE) - others))

        def cleaned(_: asyncio.Future[int | OSError]) -> None:
            share.cleaning = False

        cleaning.add_done_callback(cleaned)
