"""The network between machines: connections in memory under the real streams of `arrayd/link/transport.py`.

A connection is what TCP gives: bytes in order, none twice. They take their time; a line that is stalled keeps them
until it is heard of again, a cut ends its connections with what was on its way lost from some point on. A machine
without its array refuses, and one without power is silent.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import itertools
import os
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from arrayd.link.frames import HEADER_BYTES
from arrayd.link.transport import Stream
from tests.simulation.doors import Killed, Life, living
from tests.simulation.loop import SimLoop

WINDOW_BYTES = 96 * 1024
"""What a connection takes in before the other end has read it."""
FIRST_DESCRIPTOR = 2_000_000
PORTS_FROM = 40_000
BEAT_BYTES = 2 * HEADER_BYTES
"""What a heartbeat and the answer to one come to."""
UNANSWERED_SECONDS = 0.25
"""How often a dial is repeated that nobody answers."""
ACCEPTED_SECONDS = 2e-3
"""How long an accepted connection waits for its array, on the average: one may overtake another."""


class Line:
    """What lies between two machines. `seconds` is what a byte takes on its way."""

    def __init__(self, random: Random) -> None:
        self.seconds = random.choice((50e-6, 1e-3, 10e-3, 50e-3))
        self.jitter = self.seconds * random.choice((0.0, 0.5, 3.0))
        self.stalled = False
        self.refused = False
        """Whether nobody gets a new connection."""

    def delay(self, random: Random) -> float:
        """Of one piece."""
        return self.seconds + random.random() * self.jitter


class SimSocket:
    """One end of a connection, as `Stream` wants a socket. `peer` is the other end."""

    peer: SimSocket

    def __init__(self, network: Network, life: Life, line: Line, name: tuple[str, int]) -> None:
        self._network = network
        self.life = life
        self._line = line
        self._peer_name = name
        self._descriptor = next(network.descriptors)
        self.on_its_way: deque[tuple[float, bytes]] = deque()
        """To us: when it comes, and what; nothing for the end."""
        self._came = bytearray()
        self._ended = False
        self._reset = False
        self.closed = False
        network.loop.watch(self._descriptor, self)

    # -- what a Stream asks ------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """See socket."""
        return self._descriptor

    def getpeername(self) -> tuple[str, int]:
        """See socket."""
        return self._peer_name

    def recv_into(self, space: memoryview) -> int:
        """See socket. Raises OSError."""
        self.life.before("receive")
        self._check()
        if not self._came:
            if self._ended:
                return 0
            raise BlockingIOError(errno.EAGAIN, "nothing came")
        count = min(len(self._came), len(space))
        if self._network.random.random() < 0.3:
            count = self._network.random.randint(1, count)
        space[:count] = self._came[:count]
        del self._came[:count]
        self._network.loop.moved = True
        self.life.after("receive")
        return count

    def send(self, data: Any) -> int:
        """See socket. Raises OSError."""
        self.life.before("send", len(data))
        self._check()
        peer = self.peer
        room = self._room()
        if room <= 0:
            raise BlockingIOError(errno.EAGAIN, "no room")
        piece = bytes(data[:room])
        self._network.carry(peer, piece)
        self.life.after("send")
        return len(piece)

    def sendmsg(self, views: list[memoryview]) -> int:
        """See socket. Raises OSError."""
        return self.send(b"".join(views))

    def close(self) -> None:
        """See socket."""
        if not self.life.alive:
            raise Killed
        self.shut(b"")

    # -- what the network does ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._reset:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        assert not self.closed, "a closed socket is not used"

    def _room(self) -> int:
        peer = self.peer
        return WINDOW_BYTES - len(peer._came) - sum(len(piece) for _, piece in peer.on_its_way)

    def readable(self) -> bool:
        """See Pollable."""
        return bool(self._came) or self._ended or self._reset

    def writable(self) -> bool:
        """See Pollable."""
        return self._reset or self._room() > 0

    def shut(self, last: bytes | None) -> None:
        """This end is gone: the other one hears so, unless the machine is without power (None)."""
        if not self.closed:
            self.closed = True
            self._network.loop.forget(self._descriptor)
            if last is not None:
                self._network.carry(self.peer, last)

    def arrived(self, line_is_up: bool) -> None:
        """Takes in what is due."""
        self._network.loop.moved = True
        now = self._network.loop.time()
        while line_is_up and self.on_its_way and self.on_its_way[0][0] <= now:
            _, piece = self.on_its_way.popleft()
            if self.closed:
                # Whoever sends to a socket that is closed hears that it is.
                if piece and not self.peer.closed and self.life.name in self._network.with_power:
                    self.peer.broken(0)
            elif piece:
                self._came += piece
            else:
                self._ended = True

    def broken(self, lost: int) -> None:
        """The connection is cut: of what is on its way the last `lost` pieces are lost."""
        self._network.loop.moved = True
        for _ in range(min(lost, len(self.on_its_way))):
            self.on_its_way.pop()
        if not self.closed:
            self._reset = True


class SimListener:
    """Stands for `arrayd.sockets.Listener`."""

    def __init__(
        self, network: Network, host: str, port: int, accepted: Callable[[Any, tuple[str, int]], None]
    ) -> None:
        self._network = network
        self.life = living()
        self.life.before("listen", port)
        if port in network.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        network.listeners[port] = self
        self.address = (host, port)
        self._accepted = accepted

    def accept(self, sock: SimSocket) -> None:
        """A connection has come."""
        if self._network.listeners.get(self.address[1]) is not self:
            sock.shut(b"")
            return
        try:
            self.life.before("accept")
            self._accepted(sock, sock.getpeername())
        except Killed:
            return

    def close(self) -> None:
        """Takes no more."""
        if self._network.listeners.get(self.address[1]) is self:
            del self._network.listeners[self.address[1]]


class Network:
    """All lines and connections."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.descriptors = itertools.count(FIRST_DESCRIPTOR)
        self._ports = itertools.count(PORTS_FROM)
        self.listeners: dict[int, SimListener] = {}
        self._lines: dict[tuple[str, ...], Line] = {}
        self.connections: list[tuple[Line, SimSocket, SimSocket]] = []
        self.machines: dict[int, str] = {}
        """Whose address each port is."""
        self.with_power: set[str] = set()
        """Machines that are there at all."""

    def line(self, one: str, other: str) -> Line:
        """Between two machines."""
        key = tuple(sorted((one, other)))
        if key not in self._lines:
            self._lines[key] = Line(self.random)
        return self._lines[key]

    def carry(self, to: SimSocket, piece: bytes) -> None:
        """Puts a piece, or the end, on its way."""
        line = to._line
        at = self.loop.time() + line.delay(self.random)
        if to.on_its_way:
            at = max(at, to.on_its_way[-1][0])
        to.on_its_way.append((at, piece))
        self.loop.call_at(at, self._arrive, line, to, context=contextvars.Context())

    def _arrive(self, line: Line, to: SimSocket) -> None:
        to.arrived(not line.stalled)

    # -- what stands for the link's transport ------------------------------------------------------------------------

    async def dial(self, _host: str, port: int, context: object, _name: str, make: Any, spinner: Any) -> Stream:
        """See `arrayd.link.transport.dial`."""
        assert context is None
        life = living()
        life.before("dial", port)
        line = self.line(life.name, self.machines[port])
        await asyncio.sleep(line.delay(self.random))
        while line.stalled or not self._is_up(port):  # noqa: ASYNC110
            await asyncio.sleep(UNANSWERED_SECONDS)  # whoever dials gives up some time
        listener = self.listeners.get(port)
        if listener is None or line.refused:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        ours = SimSocket(self, life, line, ("127.0.0.1", port))
        theirs = SimSocket(self, listener.life, line, ("127.0.0.1", next(self._ports)))
        ours.peer, theirs.peer = theirs, ours
        self.connections = [each for each in self.connections if not (each[1].closed and each[2].closed)]
        self.connections.append((line, ours, theirs))
        later = self.random.expovariate(1 / ACCEPTED_SECONDS)
        self.loop.call_later(later, listener.accept, theirs, context=listener.life.context())
        life.after("dial")
        return Stream(ours, make, spinner)  # type: ignore[arg-type]

    def _is_up(self, port: int) -> bool:
        return self.machines[port] in self.with_power

    async def take(self, sock: Any, context: object, make: Any, spinner: Any) -> Stream:
        """See `arrayd.link.transport.take`."""
        assert context is None
        return Stream(sock, make, spinner)

    def listen(self, host: str, port: int, accepted: Callable[[Any, tuple[str, int]], None]) -> SimListener:
        """See `arrayd.sockets.Listener`."""
        return SimListener(self, host, port, accepted)

    # -- what happens to it ------------------------------------------------------------------------------------------

    def stall(self, one: str, other: str, stalled: bool) -> None:
        """Nothing comes through from now on; or all that was kept, and what follows."""
        line = self.line(one, other)
        line.stalled = stalled
        for of, *ends in self.connections:
            for end in ends:
                if of is line and not stalled:
                    end.arrived(True)

    def busy(self, one: str, other: str) -> bool:
        """Whether anything but a heartbeat is on its way between two machines."""
        line = self.line(one, other)
        pieces = (piece for of, *ends in self.connections if of is line for end in ends for _, piece in end.on_its_way)
        return any(len(piece) > BEAT_BYTES for piece in pieces)

    def cut(self, one: str, other: str) -> None:
        """Ends all connections between two machines."""
        line = self.line(one, other)
        for of, *ends in self.connections:
            if of is line:
                for end in ends:
                    end.arrived(not line.stalled)
                    end.broken(self.random.randint(0, len(end.on_its_way)))

    def forget(self, life: Life) -> None:
        """A life has ended: the kernel of its machine closes its sockets, if that has power."""
        for port in [port for port, listener in self.listeners.items() if listener.life is life]:
            del self.listeners[port]
        for _, *ends in self.connections:
            for end in ends:
                if end.life is life:
                    end.shut(None if life.power else b"")


def stand_ins(network: Network) -> dict[str, object]:
    """What takes the place of what, by dotted name."""
    return {
        "arrayd.link.peers.dial": network.dial,
        "arrayd.link.peers.take": network.take,
        "arrayd.link.peers.Listener": network.listen,
    }
