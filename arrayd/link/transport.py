"""The sockets of the link: dials, receives and sends for `connection.py`; nothing else here touches one.

TLS, where it is configured, wraps the socket; both sides show a certificate.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from arrayd.link.connection import Connection
from arrayd.sockets import do_not_pace, tune
from arrayd.spinner import Spinner

NOT_SENT_BYTES = 512 * 1024
"""Most that waits in the kernel unsent (TCP_NOTSENT_LOWAT): what is short goes past what we still have ourselves."""
RECEIVES_A_TURN = 8
"""recv(2) calls for one connection before others get their turn."""
CLOSE_SECONDS = 2.0
"""How long a connection that is to end may take to read what it is still sent."""
TCP_NOTSENT_LOWAT = 25
"""tcp(7), Linux 3.12."""
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


Make = Callable[["Stream"], Connection]
"""Makes the connection for a socket."""


class Stream:
    """A connection on its socket. `ended(why)` is called once, when the socket is closed."""

    def __init__(self, sock: socket.socket, make: Make, spinner: Spinner) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._touch = spinner.touch
        self._descriptor = sock.fileno()
        self._flush_due = False
        self._writing = False
        self._closed = False
        self._giving_up: asyncio.TimerHandle | None = None
        self._tls = isinstance(sock, ssl.SSLSocket)
        self.where = "{}:{}".format(*sock.getpeername()[:2])
        """The other end, for people."""
        self.ended: Callable[[str], None] = lambda why: None
        self.connection = make(self)
        self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        connection = self.connection
        for _ in range(RECEIVES_A_TURN):
            space = connection.space()
            try:
                count = self._sock.recv_into(space)
            except WOULD_BLOCK:
                break
            except OSError as error:
                self.close(error.strerror or str(error))
                return
            if not count:
                self.close("closed by the other array")
                return
            connection.received(count)
            if connection.closing or (count < len(space) and not self._tls):
                break
        else:
            self._loop.call_soon(self._readable_again)  # TLS may hold what the loop does not see
        self._touch()
        self._flush()

    def _readable_again(self) -> None:
        if not self._closed:
            self._readable()

    def wake(self) -> None:
        """There is something to send: once this turn of the loop is over, all of it together."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def push(self) -> None:
        """Sends what goes without waiting, in the middle of a turn."""
        try:
            if self._closed or self._writing or self._drain():
                return
        except OSError:
            pass  # that is for the end of the turn
        self.wake()

    def _flush(self) -> None:
        """Sends what goes without waiting."""
        self._flush_due = False
        if self._closed:
            return
        try:
            done = self._drain()
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        if done == self._writing:
            self._writing = not done
            if done:
                self._loop.remove_writer(self._descriptor)
            else:
                self._loop.add_writer(self._descriptor, self._flush)
        if self.connection.closing:
            if done:
                self.close(self.connection.closing)
            elif self._giving_up is None:
                self._giving_up = self._loop.call_later(CLOSE_SECONDS, self.close, self.connection.closing)

    def _drain(self) -> bool:
        """Sends as much as goes without waiting; whether that is all."""
        out = self.connection.out
        output = out.output
        out.unpushed = 0
        try:
            while True:
                out.fill()
                if output.segments:
                    views, total, _ = output.gathered()
                    sent = self._sock.send(b"".join(views)) if self._tls else self._sock.sendmsg(views)
                    output.sent(sent)
                    if sent < total:
                        return False
                elif output.head < output.tail:
                    output.head += self._sock.send(output.view[output.head : output.tail])
                    output.mark = max(output.mark, output.head)
                else:
                    output.reset()
                    if not out.waits:
                        return True
        except WOULD_BLOCK:
            return False

    def certified(self, name: str) -> bool:
        """Whether the peer's certificate, if it had to show one, is for this name."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return True
        names = (self._sock.getpeercert() or {}).get("subjectAltName", ())
        return ("DNS", name) in names

    def part(self, why: str) -> None:
        """Says goodbye, if that goes without waiting, and closes."""
        self.connection.say_goodbye(why)
        self._flush()
        self.close(why)

    def close(self, why: str) -> None:
        """Closes the socket; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self.connection.closed()
        self._sock.close()
        self.ended(why)


async def dial(host: str, port: int, context: ssl.SSLContext | None, name: str, make: Make, spinner: Spinner) -> Stream:
    """Connects to an array, which shows a certificate for `name` if there is a `context`. Raises OSError."""
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        do_not_pace(sock, str(address[0]))
        await loop.sock_connect(sock, address)
        return Stream(await _prepared(sock, context, name), make, spinner)
    except BaseException:
        sock.close()
        raise


async def _prepared(sock: socket.socket, context: ssl.SSLContext | None, name: str | None) -> socket.socket:
    """The socket with its options, and TLS on it if there is a `context`. Raises OSError."""
    tune(sock, sock.getpeername()[0])
    sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
    if context is None:
        return sock
    wrapped = context.wrap_socket(
        sock, server_side=name is None, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=True
    )
    try:
        while True:
            try:
                wrapped.do_handshake()
                return wrapped
            except ssl.SSLWantReadError:
                await _ready(wrapped, writing=False)
            except ssl.SSLWantWriteError:
                await _ready(wrapped, writing=True)
    except BaseException:
        wrapped.close()
        raise


async def _ready(sock: socket.socket, writing: bool) -> None:
    loop, descriptor = asyncio.get_running_loop(), sock.fileno()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    ready: asyncio.Future[None] = loop.create_future()

    def now_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, now_ready)
    try:
        await ready
    finally:
        remove(descriptor)


async def take(sock: socket.socket, context: ssl.SSLContext | None, make: Make, spinner: Spinner) -> Stream:
    """A connection on a socket that was accepted; as `dial`."""
    try:
        return Stream(await _prepared(sock, context, None), make, spinner)
    except BaseException:
        sock.close()
        raise
