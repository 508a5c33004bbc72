"""A wire between two arrays that can be cut: what arrives on its address goes on to another one, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from weakref import WeakKeyDictionary

from arrayd.link.frames import HEADER, HEADER_BYTES, Kind


class How(Enum):
    """Where the wire is cut."""

    BEFORE = "before the frame"
    WITHIN = "in the middle of the frame"
    BEHIND = "behind the frame"


@dataclass
class Cut:
    """The wire is to be cut at the `count`th frame of `kind` from now on, on its way `there` (from who dials) or
    back."""

    there: bool
    kind: Kind
    count: int
    how: How


class Relay:
    """`address` is where to dial. `held`: connections are taken, and nothing goes on."""

    def __init__(self, to: str) -> None:
        self._to = to
        self.address = ""
        self.cut: Cut | None = None
        self.cuts = 0
        """How often the wire was cut."""
        self.down = False
        """Whether connections are refused."""
        self.carried = 0
        """Bytes that went on, either way."""
        self.bytes_a_second: float | None = None
        """No more goes on, each way of each connection."""
        self.delay_s = 0.0
        """What goes on arrives so much later, in order."""
        self._due: WeakKeyDictionary[asyncio.StreamWriter, float] = WeakKeyDictionary()
        """When what was passed on last arrives."""
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def break_off(self) -> None:
        """Cuts what there is."""
        for end in self._ends:
            end.transport.abort()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self.down:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the test is over
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._to.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        ends = {writer, far_writer}
        self._ends |= ends
        ways = [
            asyncio.ensure_future(self._carry(reader, far_writer, there=True)),
            asyncio.ensure_future(self._carry(far_reader, writer, there=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ends -= ends
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, there: bool) -> None:
        try:
            while True:
                head = await reader.readexactly(HEADER_BYTES)
                _crc, length, kind, *_ = HEADER.unpack(head)
                frame = head + await reader.readexactly(length)
                how = self._how(there, kind)
                if how is How.WITHIN:
                    frame = frame[: len(frame) // 2]
                if how is not How.BEFORE:
                    self.carried += len(frame)
                    await self._pass_on(writer, frame)
                    if self.bytes_a_second is not None:
                        await asyncio.sleep(len(frame) / self.bytes_a_second)
                if how is not None:
                    self.cuts += 1
                    await asyncio.sleep(0)
                    writer.close()  # what was written arrives
                    return
        except (asyncio.IncompleteReadError, OSError):
            pass

    async def _pass_on(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        if not self.delay_s:
            writer.write(frame)
            await writer.drain()
            return
        loop = asyncio.get_running_loop()
        # Never two at one moment: timers of one moment are in no order.
        due = self._due[writer] = max(loop.time() + self.delay_s, self._due.get(writer, 0.0) + 1e-6)
        loop.call_at(due, _write, writer, frame)

    def _how(self, there: bool, kind: int) -> How | None:
        cut = self.cut
        if cut is None or (cut.there, cut.kind) != (there, kind):
            return None
        cut.count -= 1
        if cut.count:
            return None
        self.cut = None
        return cut.how

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    if not writer.is_closing():
        writer.write(frame)


@asynccontextmanager
async def relay(to: str) -> AsyncIterator[Relay]:
    """A wire to `to`, host:port."""
    wire = Relay(to)
    server = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
    wire.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
