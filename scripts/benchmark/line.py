"""The line between two arrays as a row wants it: whole, cut, slow or long; carried by a thread of its own."""

import asyncio
import threading
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from scripts.benchmark.rows import Link
from tests.lab.paired import Wire, wire

SLOW_BYTES_A_SECOND = 1_000_000 // 8
"""1 Mbit/s."""
DELAYS = {Link.DELAYED_5: 0.005, Link.DELAYED_20: 0.020}
"""Seconds, each way."""


class Line:
    """A context manager: a wire, which is carried while it is entered."""

    def __init__(self) -> None:
        self.wire: Wire
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wire = asyncio.run_coroutine_threadsafe(self._stack.enter_async_context(wire()), self._loop).result()
        return self

    def set(self, link: Link) -> None:
        """What it is from now on."""

        async def go() -> None:
            (self.wire.cut if link is Link.CUT else self.wire.mend)()
            self.wire.limit(SLOW_BYTES_A_SECOND if link is Link.SLOW else None)
            self.wire.delay(DELAYS.get(link, 0.0))

        asyncio.run_coroutine_threadsafe(go(), self._loop).result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
