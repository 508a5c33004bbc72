"""The sockets of iSCSI: listens, accepts, receives and sends for `connection.py`; nothing else here touches one.

Own non-blocking sockets with `add_reader`: one `recv_into`, every whole PDU of it executed, one `send`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from arrayd.iscsi.connection import Connection
from arrayd.iscsi.discovery import Address
from arrayd.iscsi.pdu import AsyncEvent
from arrayd.iscsi.session import Node, PeerPolicy
from arrayd.log import get_logger
from arrayd.scsi.task import FileExtent
from arrayd.sockets import Listener, tune
from arrayd.spinner import Spinner

HALF_OPEN_MAX = 256
"""Connections that have not logged in yet; one more, and the oldest of them is closed."""
LOGIN_SECONDS = 15
PING_SECONDS = 30
"""An initiator that is silent for so long is sent a NOP-In, and dropped when it stays silent as long again."""
CLOSE_SECONDS = 5
"""How long a connection that is to end may take to read what it is still sent."""
TICK_SECONDS = 1.0
ROUNDS_A_TURN = 2
"""How often in a row an output may be filled and sent before other connections get their turn."""
DISCARD_BYTES = 64 * 1024
RECEIVES_A_TURN = 16
"""recv(2) calls for one connection before others get their turn."""

log = get_logger("iscsi")


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
        self._ended = False
        self._closed = False
        server.loop.add_reader(self._descriptor, self.readable)

    @property
    def logged_in(self) -> bool:
        """Whether this connection has a session now."""
        return self.connection.phase is not None and not self._ended

    def readable(self) -> None:
        """Something came: takes it in, and sends what that made. Where all there was space for came, more may have."""
        connection = self.connection
        self._flush_due = True
        for _ in range(RECEIVES_A_TURN):
            space = connection.space()
            try:
                count = self._receive(space)
            except BlockingIOError:
                break
            except OSError as error:
                self.close(str(error))
                return
            if not count:
                self.close("closed by the initiator")
                return
            connection.received(count)
            if count < len(space) or connection.stalled or connection.closing:
                break
        self.flush()

    def wake(self) -> None:
        """There is something to send: once this turn of the loop is over, all of it together."""
        if not self._flush_due:
            self._flush_due = True
            self.server.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends, and lets the connection go on where the output had stopped it, until all is sent or none goes."""
        self._flush_due = False
        if self._ended:
            return
        connection = self.connection
        try:
            for _ in range(ROUNDS_A_TURN):
                if not self._drain() or not (connection.stalled or connection.has_pending()):
                    break
                self._flush_due = True
                connection.process()
                self._flush_due = False
            else:
                self._drain()
                self.wake()
        except OSError as error:
            self.close(str(error))
            return
        # Who waits for a disk waits for longer than we spin, and a thread may need the processor.
        if self._touch is not None and not connection.waits():
            self._touch()
        self.active = self.server.now
        if connection.closing and connection.output.empty and not connection.has_pending():
            if connection.dropped:
                self.close(connection.closing)
            else:
                self._part()
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
        reading = not (
            self.connection.stalled or self.connection.closing or (self.server.paused and self._waits_for_none())
        )
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.server.loop.add_reader(self._descriptor, self.readable)
            else:
                self.server.loop.remove_reader(self._descriptor)

    def _waits_for_none(self) -> bool:
        """Whether no task here waits for data of the initiator."""
        phase = self.connection.phase
        return phase is not None and not phase.tasks.transfers

    def pause(self) -> None:
        """The server takes no more commands."""
        if not self._ended:
            self._watch()

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
            sent = first.file.send(self._descriptor, first.offset, first.length)
            if sent == 0:
                raise OSError("the file of a volume ended early")
            output.sent_from_file(sent)
            return True
        views, total, file_is_next = output.gathered()
        sent = self.sock.sendmsg(views, (), socket.MSG_MORE if file_is_next else 0)
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

    def _part(self) -> None:
        """All is sent: says so to the initiator, and waits until it closes, too.

        Closing at once would not do: what it sent and nobody read would make the kernel reset the connection, and it
        might never see our last PDU.
        """
        self._end(self.connection.closing)
        self.closing_since = self.server.loop.time()
        self.server.half_open[self] = None
        self.server.loop.remove_writer(self._descriptor)
        self.server.loop.add_reader(self._descriptor, self._discard)
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.close(str(error))

    def _discard(self) -> None:
        """Receives what nobody wants any more."""
        try:
            count = self._receive(self.server.waste)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self.close("")

    def close(self, why: str) -> None:
        """Closes the socket and ends the session; a second call does nothing."""
        if self._closed:
            return
        self._end(why)
        self._closed = True
        loop = self.server.loop
        loop.remove_reader(self._descriptor)
        loop.remove_writer(self._descriptor)
        self.server.connections.pop(self, None)
        self.server.half_open.pop(self, None)
        self.sock.close()

    def _end(self, why: str) -> None:
        """Ends the session; a second call does nothing."""
        if self._ended:
            return
        self._ended = True
        event = "connection ended" if self.connection.session is None else "session ended"
        log.info(event, peer=self.peer, initiator=self.connection.initiator_name, reason=why)
        self.connection.closed()


class Server:
    """Listens for `node` on its portals. `poll_us` is adaptive polling, in microseconds (0: off)."""

    def __init__(self, node: Node, poll_us: int, random_bytes: Callable[[int], bytes]) -> None:
        self.node = node
        self.random_bytes = random_bytes
        self.loop = asyncio.get_running_loop()
        self.spinner = Spinner(self.loop, poll_us)
        self.connections: dict[SocketConnection, None] = {}
        self.half_open: dict[SocketConnection, None] = {}
        """Connections without a session: before the login, or after the end."""
        self.waste = memoryview(bytearray(DISCARD_BYTES))
        self.now = self.loop.time()
        self.paused = False
        self._listening: list[Listener] = []
        self._tick = self.loop.call_later(TICK_SECONDS, self._on_tick)

    def listen(self, addresses: Sequence[Address]) -> list[Address]:
        """Binds and listens; the addresses, with the ports the kernel chose for port 0. Raises OSError."""
        for host, port in addresses:
            try:
                self._listening.append(Listener(host, port, self._begin))
            except OSError as error:
                raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from error
        bound = [listener.address for listener in self._listening]
        self.node.listening = bound
        return bound

    def _begin(self, sock: socket.socket, peer: Address) -> None:
        from_loopback = tune(sock, peer[0])
        local = sock.getsockname()[:2]
        self._make_room()
        policy = PeerPolicy(self.node, local, from_loopback)
        connection = SocketConnection(self, sock, f"{peer[0]}:{peer[1]}", policy)
        self.connections[connection] = None
        self.half_open[connection] = None

    def _make_room(self) -> None:
        """Closes the oldest connection without a session when there are as many as there may be."""
        while len(self.half_open) >= HALF_OPEN_MAX:
            oldest = next(iter(self.half_open))
            if oldest.logged_in:
                del self.half_open[oldest]
            else:
                oldest.close("too many connections without login")

    def _on_tick(self) -> None:
        self.now = now = self.loop.time()
        for connection in [connection for connection in self.half_open if connection.logged_in]:
            del self.half_open[connection]
        for connection in list(self.connections):
            connection.tick(now)
        self._tick = self.loop.call_later(TICK_SECONDS, self._on_tick)

    def stop_listening(self) -> None:
        """Takes no new connections."""
        listening, self._listening = self._listening, []
        for listener in listening:
            listener.close()

    def announce_shutdown(self, seconds: int) -> None:
        """Asks every initiator to log out within `seconds`."""
        for connection in self.connections:
            phase = connection.connection.phase
            if phase is not None:
                phase.announce(AsyncEvent.LOGOUT_REQUESTED, seconds)

    def pause(self) -> None:
        """Takes no more commands; those in flight go on, and get their data."""
        self.paused = True
        for connection in list(self.connections):
            connection.pause()

    def idle(self) -> bool:
        """Whether no task is in flight and nothing is left to send."""
        return not any(connection.connection.busy() for connection in self.connections)

    def close(self) -> None:
        """Closes every connection."""
        self._tick.cancel()
        for connection in list(self.connections):
            connection.close("the array stops")
