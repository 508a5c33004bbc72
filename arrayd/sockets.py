"""Sockets that listen, and what every connected one is set to: the same for hosts and for other arrays."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from arrayd.log import get_logger

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted; one more, and who dials tries again a second later."""
ACCEPTS_AT_ONCE = 64
ACCEPT_PAUSE_SECONDS = 1.0
"""Pause after accept(2) failed for want of resources."""
LOOPBACK_CONGESTION_CONTROL = b"reno"
"""Nothing congests on loopback, and an algorithm that paces what it sends (BBR) arms a timer every few segments: reads
of 256 KiB take 2 to 3 times as long with it. Peers elsewhere get what the system is set to."""

Address = tuple[str, int]

log = get_logger("sockets")


def do_not_pace(sock: socket.socket, address: str) -> bool:
    """Sets what congestion control connections to or from `address` have, if that is on loopback; whether it is. For a
    socket that is not connected yet: one that an algorithm has begun to pace is paced for ever, also by another."""
    loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    if loopback:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, LOOPBACK_CONGESTION_CONTROL)
    return loopback


def tune(sock: socket.socket, peer: str) -> bool:
    """Sets up a connected socket, which does not block; whether `peer`, its other end, is on this machine."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Once more: who listens everywhere takes connections from loopback, too.
    return do_not_pace(sock, peer)


class Listener:
    """Takes connections on one address: `accepted(socket, peer)` is called for each, and may raise OSError if it has
    ended before it began. Raises OSError."""

    def __init__(self, host: str, port: int, accepted: Callable[[socket.socket, Address], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._accepted = accepted
        self._closed = False
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
        self._sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            do_not_pace(self._sock, str(where[0]))
            self._sock.bind(where)
            self._sock.listen(BACKLOG)
        except OSError:
            self._sock.close()
            raise
        self.address: Address = self._sock.getsockname()[:2]
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                log.warning("cannot accept", reason=str(error))
                self._loop.remove_reader(self._sock.fileno())
                self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again)
                return
            try:
                self._accepted(sock, peer[:2])
            except OSError:
                sock.close()

    def _accept_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Takes no more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
