"""The sockets of iSCSI: listens, accepts, receives and sends for `connection.py`; nothing else here touches one.

Own non-blocking sockets with `add_reader`: one `recv_into`, every whole PDU of it executed, one `send`. After activity
the event loop spins for a while before it sleeps (adaptive polling), since at depth 1 the wake-up of an idle processor
is what takes the time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence

from arrayd.iscsi.connection import Connection
from arrayd.iscsi.discovery import Address
from arrayd.iscsi.output import OwnBytes
from arrayd.iscsi.pdu import AsyncEvent
from arrayd.iscsi.session import Node, PeerPolicy
from arrayd.log import get_logger
from arrayd.scsi.task import FileExtent

BACKLOG = 256
HALF_OPEN_MAX = 256
"""Connections that have not logged in yet; one more, and the oldest of them is closed."""
LOGIN_SECONDS = 15
PING_SECONDS = 30
"""An initiator that is silent for so long is sent a NOP-In, and dropped when it stays silent as long again."""
CLOSE_SECONDS = 5
"""How long a connection that is to end may take to read what it is still sent."""
TICK_SECONDS = 1.0
ACCEPT_PAUSE_SECONDS = 1.0
"""Pause after accept(2) failed for want of resources."""
ACCEPTS_AT_ONCE = 64
GATHER_MAX = 64
"""Pieces of memory in one sendmsg(2)."""

log = get_logger("iscsi")


class Spinner:
    """Keeps the event loop from sleeping for `microseconds` after each touch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, microseconds: int) -> None:
        self._loop = loop
        self.seconds = microseconds / 1e6
        self._until = 0.0
        self._spinning = False

    def touch(self) -> None:
        """There was activity: spin on from now."""
        self._until = self._loop.time() + self.seconds
        if not self._spinning and self.seconds:
            self._spinning = True
            self._loop.call_soon(self._spin)

    def _spin(self) -> None:
        """A callback that is always ready keeps the loop polling; at its end the loop sleeps again."""
        if self._loop.time() < self._until:
            self._loop.call_soon(self._spin)
        else:
            self._spinning = False


class SocketConnection:
    """A connection on its socket."""

    def __init__(self, server: Server, sock: socket.socket, peer: str, policy: PeerPolicy) -> None:
        self.server = server
        self.sock = sock
        self.peer = peer
        self.connection = Connection(policy, server.random_bytes, self.wake)
        self.opened = self.active = server.loop.time()
        self.closing_since: float | None = None
        self._descriptor = sock.fileno()
        self._receive = sock.recv_into
        self._send = sock.send
        self._touch = server.spinner.touch if server.spinner.seconds else None
        self._flush_due = False
        self._writing = False
        self._reading = True
        self._closed = False
        server.loop.add_reader(self._descriptor, self.readable)

    def readable(self) -> None:
        """Something came: takes it in, and sends what that made."""
        connection = self.connection
        try:
            count = self._receive(connection.space())
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if not count:
            self.close("closed by the initiator")
            return
        self._flush_due = True
        connection.received(count)
        self.flush()
        if self._touch is not None:
            self._touch()

    def wake(self) -> None:
        """There is something to send: once this turn of the loop is over, all of it together."""
        if not self._flush_due:
            self._flush_due = True
            self.server.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends, and lets the connection go on where the output had stopped it, until all is sent or none goes."""
        self._flush_due = False
        if self._closed:
            return
        connection = self.connection
        try:
            while self._drain():
                if not connection.stalled and not connection.has_pending():
                    break
                self._flush_due = True
                connection.process()
                self._flush_due = False
        except OSError as error:
            self.close(str(error))
            return
        self.active = self.server.now
        if connection.closing and connection.output.empty:
            self.close(connection.closing)
            return
        self._watch()

    def _watch(self) -> None:
        """Asks the loop for what this connection waits for: room to send, and input unless it could not be answered."""
        unsent = not self.connection.output.empty
        if unsent != self._writing:
            self._writing = unsent
            if unsent:
                self.server.loop.add_writer(self._descriptor, self.flush)
            else:
                self.server.loop.remove_writer(self._descriptor)
        reading = not self.connection.stalled and not self.connection.closing
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.server.loop.add_reader(self._descriptor, self.readable)
            else:
                self.server.loop.remove_reader(self._descriptor)

    def _drain(self) -> bool:
        """Sends as much of the output as goes without waiting; whether that is all of it."""
        output = self.connection.output
        try:
            while output.segments:
                if not self._send_segments():
                    return False
            while output.head < output.tail:
                output.head += self._send(output.view[output.head : output.tail])
                output.mark = max(output.mark, output.head)
        except BlockingIOError:
            return False
        output.reset()
        return True

    def _send_segments(self) -> bool:
        """One system call for the segments at the front: gathered memory, or a piece of a file."""
        output = self.connection.output
        first = output.segments[0]
        if isinstance(first, FileExtent):
            sent = first.send(self._descriptor, first.offset, first.length)
            if sent == 0:
                raise OSError("the file of a volume ended early")
            first.offset += sent
            first.length -= sent
            if first.length == 0:
                output.segments.popleft()
            return True
        views: list[memoryview] = []
        total = 0
        flags = 0
        for segment in output.segments:
            if isinstance(segment, FileExtent):
                flags = socket.MSG_MORE
                break
            view = output.view[segment.start : segment.end] if isinstance(segment, OwnBytes) else segment.view
            views.append(view)
            total += len(view)
            if len(views) == GATHER_MAX:
                break
        sent = self.sock.sendmsg(views, (), flags)
        output.sent(sent)
        return sent == total

    def tick(self, now: float) -> None:
        """Once a second: ends what takes too long."""
        connection = self.connection
        if connection.closing:
            if self.closing_since is None:
                self.closing_since = now
            elif now - self.closing_since > CLOSE_SECONDS:
                self.close(connection.closing)
        elif connection.phase is None:
            if now - self.opened > LOGIN_SECONDS:
                self.close("no login in time")
        elif now - self.active > PING_SECONDS:
            self.active = now
            if not connection.phase.ping():
                self.close("the initiator does not answer")

    def close(self, why: str) -> None:
        """Closes the socket and ends the session; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        loop = self.server.loop
        loop.remove_reader(self._descriptor)
        loop.remove_writer(self._descriptor)
        self.server.connections.pop(self, None)
        self.server.half_open.pop(self, None)
        if self.connection.session is not None:
            log.info("session ended", peer=self.peer, initiator=self.connection.session.parameters.initiator_name,
                     reason=why)  # fmt: skip
        else:
            log.info("connection ended", peer=self.peer, reason=why)
        self.connection.closed()
        self.sock.close()


class Server:
    """Listens for `node` on its portals. `poll_us` is adaptive polling, in microseconds (0: off)."""

    def __init__(self, node: Node, poll_us: int, random_bytes: Callable[[int], bytes]) -> None:
        self.node = node
        self.random_bytes = random_bytes
        self.loop = asyncio.get_running_loop()
        self.spinner = Spinner(self.loop, poll_us)
        self.connections: dict[SocketConnection, None] = {}
        self.half_open: dict[SocketConnection, None] = {}
        self.now = self.loop.time()
        self._listening: list[socket.socket] = []
        self._tick = self.loop.call_later(TICK_SECONDS, self._on_tick)

    def listen(self, addresses: Sequence[Address]) -> list[Address]:
        """Binds and listens; the addresses, with the ports the kernel chose for port 0. Raises OSError."""
        for host, port in addresses:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
            )[0]
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            self._listening.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(BACKLOG)
            self.loop.add_reader(sock.fileno(), self._accept, sock)
        bound = [sock.getsockname()[:2] for sock in self._listening]
        self.node.listening = bound
        return bound

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                log.warning("cannot accept", reason=str(error))
                self.loop.remove_reader(listening.fileno())
                self.loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again, listening)
                return
            self._begin(sock, peer)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self.loop.add_reader(listening.fileno(), self._accept, listening)

    def _begin(self, sock: socket.socket, peer: Sequence[object]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            local = sock.getsockname()[:2]
        except OSError:
            sock.close()
            return
        if len(self.half_open) >= HALF_OPEN_MAX:
            next(iter(self.half_open)).close("too many connections without login")
        policy = PeerPolicy(self.node, local, ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback)
        connection = SocketConnection(self, sock, f"{peer[0]}:{peer[1]}", policy)
        self.connections[connection] = None
        self.half_open[connection] = None

    def _on_tick(self) -> None:
        self.now = now = self.loop.time()
        for connection in list(self.half_open):
            if connection.connection.phase is not None:
                del self.half_open[connection]
        for connection in list(self.connections):
            connection.tick(now)
        self._tick = self.loop.call_later(TICK_SECONDS, self._on_tick)

    def stop_listening(self) -> None:
        """Takes no new connections."""
        listening, self._listening = self._listening, []
        for sock in listening:
            self.loop.remove_reader(sock.fileno())
            sock.close()

    def announce_shutdown(self, seconds: int) -> None:
        """Asks every initiator to log out within `seconds`."""
        for connection in self.connections:
            phase = connection.connection.phase
            if phase is not None:
                phase.announce(AsyncEvent.LOGOUT_REQUESTED, seconds)

    def idle(self) -> bool:
        """Whether no task is in flight and nothing is left to send."""
        return not any(connection.connection.busy() for connection in self.connections)

    def close(self) -> None:
        """Closes every connection."""
        self._tick.cancel()
        for connection in list(self.connections):
            connection.close("the array stops")
