"""The arrays that this one is linked with: dials those whose address it knows, admits those that dial.

There is one channel for each. Either side may dial. When both do at once, the array whose name comes first in order
holds on to its own attempt and refuses the other's; apart from that the newest connection counts, since whoever dials
knows of no other.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from arrayd.buffers import BufferPool
from arrayd.link.channel import BYTES_MAX, POOL_BYTES, REQUESTS_MAX, Asking, Channel, LinkError, Service
from arrayd.link.connection import Connection
from arrayd.link.frames import NONCE_BYTES
from arrayd.link.handshake import Handshake, Introduction, RefusedError
from arrayd.link.transport import Stream, dial, take
from arrayd.log import get_logger
from arrayd.sockets import Address, Listener
from arrayd.spinner import Spinner

TICK_SECONDS = 0.5
BEAT_SECONDS = 1.0
"""How often each side says that it lives."""
SILENCE_SECONDS = 5.0
"""A connection on which nothing is received for so long is cut."""
DIAL_SECONDS = 5.0
"""How long an array may take to answer, and a handshake to end."""
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 2.0
"""Pause before dialing again: twice as long each time, less up to half of it by chance. What asks the other array over
and over pauses as long at the most (`replication/pulling.py`): both together are over soon after a cut is."""
STRANGERS_MAX = 64
"""Connections whose handshake has not ended; one more is closed at once."""

log = get_logger("link")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the links are made of. `arrays` are the names that may talk, with the address to dial or None; `timeout` is
    how long, in seconds, what waits for an array survives without a connection; `poll_us` is adaptive polling, in
    microseconds (0: off)."""

    name: str
    serial: str
    arrays: Mapping[str, Address | None]
    secret: bytes
    timeout: float
    listen: Address | None = None
    client: ssl.SSLContext | None = None
    server: ssl.SSLContext | None = None
    poll_us: int = 0


@dataclass
class Peer:
    """One of the arrays, and what is known of it."""

    name: str
    address: Address | None
    channel: Channel
    since: float
    """When it was connected, or the connection lost."""
    stream: Stream | None = None
    serial: str = ""
    """As it says; empty before its first connection. It does not change while we run."""
    reason: str = "not connected yet"
    """Why there is no connection."""
    dialing: bool = False
    """Whether we have reached it, and talk about who we are."""
    given_up: bool = False
    """Whether what waited for it has failed; more fails at once."""
    down: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while there is no connection."""
    keeper: asyncio.Task[None] | None = None
    """What dials it."""


class Way:
    """Sends requests to the array of this name, whether it may be talked to now or not."""

    def __init__(self, links: Links, name: str) -> None:
        self._links = links
        self._name = name

    def __call__(self, request: Asking) -> None:
        """See `Links.request`."""
        self._links.request(self._name, request)

    def at_once(self, request: Asking) -> bool:
        """See `Channel.request_at_once`."""
        peer = self._links.peers.get(self._name)
        return peer is not None and peer.channel.request_at_once(request)


@dataclass
class Stranger:
    """A connection whose handshake has not ended."""

    stream: Stream
    since: float
    dialed: Peer | None
    over: asyncio.Future[None]


class Links:
    """All links of this array. `services(name)` are there for an array of this name. `gone(name)` is called when an
    array was started again, or cannot be reached: what is done for it shall end. It is let in again when nothing of
    that runs any more. `changed(name, reason)` is called when a connection comes (None), or goes (why)."""

    def __init__(
        self,
        settings: Settings,
        services: Callable[[str], Mapping[int, Service]],
        gone: Callable[[str], None],
        random_bytes: Callable[[int], bytes],
        now: Callable[[], float],
        changed: Callable[[str, str | None], None] = lambda _name, _reason: None,
    ) -> None:
        self._changed = changed
        self._settings = settings
        self._gone = gone
        self._random_bytes = random_bytes
        self._now = now
        self._loop = asyncio.get_running_loop()
        incarnation = int.from_bytes(random_bytes(8))
        self._services = services
        self._us = Introduction(settings.name, settings.serial, incarnation, REQUESTS_MAX, BYTES_MAX)
        self._buffers = buffers = BufferPool(POOL_BYTES)
        self.peers = {
            name: Peer(name, address, Channel(services(name), buffers), now())
            for name, address in settings.arrays.items()
        }
        self._spinner = Spinner(self._loop, settings.poll_us)
        self._former: dict[str, Peer] = {}
        """Arrays that were talked to and may not talk any more: what they asked, and were asked, keeps its number."""
        self._strangers: dict[Connection, Stranger] = {}
        self._securing = 0
        """Connections that were accepted and are not strangers yet."""
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    # -- start, stop, requests ---------------------------------------------------------------------------------------

    def start(self) -> Address | None:
        """Listens and dials from now on; the address, if it listens. Raises OSError."""
        if self._settings.listen is not None:
            self._listener = Listener(*self._settings.listen, self._accepted)
        self._begin(self._tick())
        for peer in self.peers.values():
            self._begin_to_keep(peer)
        return self._listener.address if self._listener else None

    def _begin_to_keep(self, peer: Peer) -> None:
        peer.down.set()
        if peer.address is not None and not self._stopped:
            peer.keeper = self._begin(self._keep(peer, peer.address))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def add(self, name: str, address: Address | None) -> None:
        """One more array may talk; it is dialed if there is an address."""
        peer = self._former.pop(name, None) or Peer(name, None, Channel(self._services(name), self._buffers), 0)
        peer.address, peer.since = address, self._now()
        peer.serial, peer.reason, peer.given_up = "", "not connected yet", self._stopped
        self.peers[name] = peer
        self._begin_to_keep(peer)

    def remove(self, name: str) -> None:
        """The array may not talk any more: its connection ends, what waits for it fails, what is done for it ends."""
        peer, why = self.peers.pop(name), "not linked any more"
        if peer.keeper is not None:
            peer.keeper.cancel()
        for stranger in list(self._strangers.values()):
            claimed = stranger.stream.connection.peer
            if stranger.dialed is peer or (claimed is not None and claimed.name == name):
                stranger.stream.close(why)
        if peer.stream is not None:
            peer.stream.part(why)
        peer.given_up = True
        peer.channel.fail(why)
        self._gone(name)
        if peer.channel.incarnation:
            self._former[name] = peer

    async def stop(self, why: str) -> None:
        """Ends all connections; what waits for an answer fails. A second call does nothing more."""
        self._stopped = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stranger in list(self._strangers.values()):
            stranger.stream.part(why)
        for peer in self.peers.values():
            peer.given_up = True
            if peer.stream is not None:
                peer.stream.part(why)
            peer.channel.fail(why)

    def way(self, name: str) -> Way:
        """How requests of an array are sent."""
        return Way(self, name)

    def request(self, name: str, request: Asking) -> None:
        """Sends a request to an array; it ends with a LinkError where there is no connection in time."""
        peer = self.peers.get(name)
        if peer is None:
            request.ended(LinkError(f"not linked with {name}", maybe_done=False))
        elif peer.given_up:
            request.ended(LinkError(f"no connection to {name}: {peer.reason}", maybe_done=False))
        else:
            peer.channel.request(request)

    # -- connections come --------------------------------------------------------------------------------------------

    async def _keep(self, peer: Peer, address: Address) -> None:
        """Dials whenever there is no connection."""
        pause = PAUSE_SECONDS
        while True:
            await peer.down.wait()
            try:
                await self._dial(peer, address)
            except OSError as error:  # TimeoutError is one
                self._not_connected(peer, f"cannot connect: {error.strerror or str(error) or 'no answer'}")
            if peer.stream is not None:
                pause = PAUSE_SECONDS
            await asyncio.sleep(pause * (1 - self._random_bytes(1)[0] / 512))
            if peer.stream is None:
                pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _dial(self, peer: Peer, address: Address) -> None:
        async with asyncio.timeout(DIAL_SECONDS):
            make = partial(self._make, peer)
            stream = await dial(*address, self._settings.client, peer.name, make, self._spinner)
        if peer.stream is not None:
            stream.close("connected meanwhile")
            return
        peer.dialing = True
        try:
            await self._watch(stream, peer)
        finally:
            peer.dialing = False

    def _accepted(self, sock: socket.socket, where: Address) -> None:
        if len(self._strangers) + self._securing >= STRANGERS_MAX:
            sock.close()
        else:
            self._begin(self._take(sock, f"{where[0]}:{where[1]}"))

    async def _take(self, sock: socket.socket, where: str) -> None:
        self._securing += 1
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                make = partial(self._make, None)
                stream = await take(sock, self._settings.server, make, self._spinner)
        except OSError as error:
            log.warning("connection refused", peer=where, reason=error.strerror or str(error) or "no TLS in time")
            return
        finally:
            self._securing -= 1
        await self._watch(stream, None)

    def _make(self, dialed: Peer | None, stream: Stream) -> Connection:
        handshake = Handshake(
            self._us,
            self._settings.secret,
            self._random_bytes(NONCE_BYTES),
            dials=dialed is not None,
            check=partial(self._check, dialed, stream),
            admit=partial(self._admit, dialed, stream),
        )
        return Connection(handshake, self._welcome, stream.wake, self._now, stream.push)

    def _check(self, dialed: Peer | None, stream: Stream, claimed: Introduction) -> None:
        """Whether the array that it says it is may talk to us."""
        peer = self.peers.get(claimed.name)
        if dialed is not None and peer is not dialed:
            raise RefusedError(f"says that it is {claimed.name!r}, not {dialed.name!r}")
        if peer is None:
            raise RefusedError(f"array {claimed.name!r} is not among link.arrays")
        if peer.serial not in ("", claimed.serial):
            raise RefusedError(f"array {claimed.name!r} has serial {peer.serial!r}, not {claimed.serial!r}")
        if any(claimed.serial == other.serial for other in self.peers.values() if other is not peer):
            raise RefusedError(f"serial {claimed.serial!r} is another array's")
        if not stream.certified(claimed.name):
            raise RefusedError(f"its certificate is not for {claimed.name!r}")

    def _admit(self, dialed: Peer | None, stream: Stream, proven: Introduction) -> None:
        """Whether the array, which has proven that it knows the secret, may talk to us now."""
        self._check(dialed, stream, proven)
        peer = self.peers[proven.name]
        if dialed is None and peer.dialing and self._us.name < peer.name:
            raise RefusedError("both dial: you are being called already")
        if peer.channel.incarnation not in (0, proven.incarnation):
            self._gone(peer.name)
            if peer.channel.running:
                raise RefusedError("what was asked before the restart still runs here")

    async def _watch(self, stream: Stream, dialed: Peer | None) -> None:
        """Waits until the handshake is over, either way."""
        over: asyncio.Future[None] = self._loop.create_future()
        self._strangers[stream.connection] = Stranger(stream, self._now(), dialed, over)
        stream.ended = partial(self._stranger_ended, stream)
        await over

    def _stranger_ended(self, stream: Stream, why: str) -> None:
        stranger = self._strangers.pop(stream.connection)
        claimed = stream.connection.peer
        peer = stranger.dialed or self.peers.get(claimed.name if claimed else "")
        if peer is None:
            log.warning("connection refused", peer=stream.where, reason=why)
        elif peer.stream is None:
            self._not_connected(peer, why)
        _set(stranger.over)

    def _welcome(self, connection: Connection, introduction: Introduction) -> Channel:
        stranger = self._strangers[connection]
        stream = stranger.stream
        del self._strangers[connection]
        _set(stranger.over)
        peer = self.peers[introduction.name]
        if peer.stream is not None:
            peer.stream.close("there is a newer connection")
        stream.ended = partial(self._lost, peer, stream)
        peer.stream, peer.serial, peer.since = stream, introduction.serial, self._now()
        peer.given_up = False
        peer.down.clear()
        log.info("link up", array=peer.name, peer=stream.where)
        self._changed(peer.name, None)
        return peer.channel

    # -- connections go ----------------------------------------------------------------------------------------------

    def _lost(self, peer: Peer, stream: Stream, why: str) -> None:
        if peer.stream is stream:
            peer.stream, peer.since, peer.reason = None, self._now(), why
            peer.down.set()
            log.warning("link down", array=peer.name, reason=why)
            self._changed(peer.name, why)

    def _not_connected(self, peer: Peer, why: str) -> None:
        if why != peer.reason:
            peer.reason = why
            log.warning("link not up", array=peer.name, reason=why)

    async def _tick(self) -> None:
        beat_at = 0.0
        while True:
            now = self._now()
            beats = now - beat_at >= BEAT_SECONDS
            if beats:
                beat_at = now
            for stranger in list(self._strangers.values()):
                if now - stranger.since > DIAL_SECONDS:
                    stranger.stream.close("no handshake in time")
            for peer in self.peers.values():
                if peer.stream is None:
                    self._give_up(peer, now)
                elif now - peer.stream.connection.received_at > SILENCE_SECONDS:
                    peer.stream.close(f"silent for {SILENCE_SECONDS:g} s")
                elif beats:
                    peer.stream.connection.beat()
            await asyncio.sleep(TICK_SECONDS)

    def _give_up(self, peer: Peer, now: float) -> None:
        if not peer.given_up and now - peer.since > self._settings.timeout:
            peer.given_up = True
            peer.channel.fail(f"no connection to {peer.name}: {peer.reason}")
            self._gone(peer.name)


def _set(over: asyncio.Future[None]) -> None:
    if not over.done():  # whoever waited may have been cancelled
        over.set_result(None)
