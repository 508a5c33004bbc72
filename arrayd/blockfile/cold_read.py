"""A read that waits for the disk, as whoever asked for it knows it: `ring.py` and `threads.py` carry it out."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable


class ColdRead:
    """Fills `view` from `offset`; `future` is done when that is, and `over` is called before."""

    __slots__ = ("descriptor", "failing", "future", "offset", "over", "view")

    def __init__(
        self,
        descriptor: int,
        offset: int,
        view: memoryview,
        future: asyncio.Future[None],
        failing: Callable[[OSError], Exception],
        over: Callable[[], None],
    ) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.view = view
        self.future = future
        self.failing = failing
        self.over = over

    def end(self, error: OSError | None) -> None:
        """Nobody touches the memory any more."""
        self.over()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self.failing(error))


def too_short() -> OSError:
    """What a read ends with beyond the end of its file."""
    return OSError(errno.EIO, "the file is shorter than its volume")
