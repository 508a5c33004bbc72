"""One connection of the link, without I/O: bytes in, bytes out. First the handshake, then frames for a channel.

Here is what comes; `outgoing.py` has what goes. Long messages are received where they are to lie (`parts.py`).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from crc32c import crc32c

from arrayd.link.channel import BYTES_MAX, Channel
from arrayd.link.frames import (
    CRC_BYTES,
    HANDSHAKE_BYTES_MAX,
    HEADER,
    HEADER_BYTES,
    MORE,
    NUMBERS,
    PAYLOAD_BYTES_MAX,
    SHORT_HEADER,
    SHORT_HEADER_BYTES,
    FrameError,
    Kind,
    frame,
)
from arrayd.link.handshake import Handshake, Introduction, RefusedError, goodbye, reason_of
from arrayd.link.outgoing import ANSWER, REQUEST, SERIAL_MASK, Outgoing
from arrayd.link.parts import Parts, Sink

RECEIVE_BYTES = 1024 * 1024
"""Received in one go; several of the longest frames."""
BACKLOG_BYTES_MAX = 3 * BYTES_MAX
"""More than the credit of both sides comes to: who keeps to it never has so much waiting."""
MESSAGES = (REQUEST, ANSWER)
BULK_HEAD_BYTES = 8 * 1024
"""How much is received at a time while a long message comes, so that the bulk of it goes straight to its place."""


class Connection:
    """`welcome(connection, peer)` gives the channel of a peer that has proven who it is; `wake` and `push` are as
    `Outgoing` has them; `now()` is the time in seconds."""

    def __init__(
        self,
        handshake: Handshake,
        welcome: Callable[[Connection, Introduction], Channel],
        wake: Callable[[], None],
        now: Callable[[], float],
        push: Callable[[], None] = lambda: None,
    ) -> None:
        self.out = Outgoing(wake, push)
        self.closing = ""
        """Why the connection ends once its output is sent; empty while it goes on."""
        self.channel: Channel | None = None
        self.round_trip = 0.0
        """Seconds that the last BEAT took there and its ECHO back."""
        self.received_at = now()
        self._handshake = handshake
        self._welcome = welcome
        self._wake = wake
        self._now = now
        self._memory = mmap.mmap(-1, RECEIVE_BYTES)
        self._received = memoryview(self._memory)
        self._at = self._end = 0
        self._parts = Parts()
        self.out.put(handshake.begin())

    @property
    def peer(self) -> Introduction | None:
        """Who is at the other end, as far as it has said."""
        return self._handshake.peer

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def space(self) -> memoryview:
        """Where to receive into; never empty."""
        if self._parts.sink is not None:
            return self._parts.sink.left
        if self._at == self._end:
            self._at = self._end = 0
        elif len(self._received) - self._end < HEADER_BYTES + PAYLOAD_BYTES_MAX:
            count = self._end - self._at
            self._memory.move(0, self._at, count)
            self._at, self._end = 0, count
        if self._parts.expected():
            return self._received[self._end : self._end + BULK_HEAD_BYTES]
        return self._received[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes came into what `space` returned: takes in every whole frame."""
        self.received_at = self._now()
        try:
            sink = self._parts.sink
            if sink is None:
                self._end += count
            elif count < len(sink.left):
                sink.left = sink.left[count:]
                return
            else:
                self._filled(sink)
            self._take_in()
        except FrameError as error:
            self.close(f"protocol error: {error}")
        except RefusedError as error:
            if error.ours:
                self.say_goodbye(f"refused: {error}")
            else:
                self.close(f"the other array: {error}")

    def _take_in(self) -> None:
        """The hot loop: every whole frame that was received."""
        received, unpack, out = self._received, HEADER.unpack_from, self.out
        at, end = self._at, self._end
        while end - at >= HEADER_BYTES and not self.closing:
            channel = self.channel
            fields = unpack(received, at)
            crc, length, kind, flags, service, number, acknowledged = fields
            if length > (PAYLOAD_BYTES_MAX if channel is not None else HANDSHAKE_BYTES_MAX):
                raise FrameError(f"a frame of {length} bytes")
            data = at + HEADER_BYTES
            following = data + length
            if end < following:
                if length >= BULK_HEAD_BYTES and self._parts.takes(kind, number):
                    self._parts.begin_sink(received[at:end], fields)
                    self._at = end
                return
            if crc32c(received[at + CRC_BYTES : following]) != crc:
                raise FrameError("a frame that was damaged on its way")
            if out.backlog_bytes > BACKLOG_BYTES_MAX:
                raise FrameError(f"it does not take its answers: {out.backlog_bytes} bytes wait")
            self._at = at = following
            if channel is None:
                self._shake_hands(kind, received[data:following])
            else:
                if out.undelivered:
                    out.acknowledged(channel, acknowledged)
                if flags & MORE or self._parts.takes(kind, number):
                    self._parts.take(channel, kind, flags, service, number, received[data:following])
                elif kind in MESSAGES:
                    self._take_short(channel, kind, service, data, following)
                else:
                    self._control(channel, kind, number, received[data:following])
            # Not before all of it is taken in: what is acknowledged is not asked for again.
            out.received = out.received + 1 & SERIAL_MASK

    def _take_short(self, channel: Channel, kind: int, service: int, at: int, end: int) -> None:
        """The messages of one frame. Raises FrameError."""
        received, unpack = self._received, SHORT_HEADER.unpack_from
        if at == end:
            raise FrameError("a frame without a message")
        while at + SHORT_HEADER_BYTES <= end and not self.closing:
            length, number = unpack(received, at)
            data = at + SHORT_HEADER_BYTES
            at = data + length
            if at > end:
                raise FrameError("a message that is longer than its frame")
            if kind == REQUEST:
                channel.request_came(service, number, received[data:at])
            else:
                channel.answer_came(number, received[data:at])
        if at != end and not self.closing:
            raise FrameError("a frame that ends within a message")

    def _filled(self, sink: Sink) -> None:
        """All of a frame is where it belongs."""
        channel = self.channel
        assert channel is not None
        if not sink.intact:
            raise FrameError("a frame that was damaged on its way")
        out = self.out
        if out.undelivered:
            out.acknowledged(channel, sink.acknowledged)
        self._parts.filled(channel, sink)
        out.received = out.received + 1 & SERIAL_MASK

    def beat(self) -> None:
        """Sends a BEAT, so that the peer knows that we live, and we how far away it is."""
        self.out.put(frame(Kind.BEAT, number=int(self._now() * 1e6), received=self.out.received))

    def _shake_hands(self, kind: int, payload: memoryview) -> None:
        handshake = self._handshake
        self.out.put(handshake.take(kind, bytes(payload)))
        if handshake.done:
            peer = handshake.peer
            assert peer is not None
            self.channel = self._welcome(self, peer)
            self.channel.connect(self.out, peer.incarnation, peer.requests_max, peer.bytes_max)

    def _control(self, channel: Channel, kind: int, number: int, payload: memoryview) -> None:
        if kind == Kind.BEAT:
            self.out.put(frame(Kind.ECHO, number=number, received=self.out.received))
        elif kind == Kind.ECHO:
            self.round_trip = max(self._now() - number / 1e6, 0.0)
        elif kind == Kind.ASK:
            if len(payload) % 8:
                raise FrameError("an ASK that is no list of numbers")
            channel.ask_came(list(NUMBERS.parse(bytes(payload))))
        elif kind == Kind.UNKNOWN:
            channel.unknown_came(number)
        elif kind == Kind.GOODBYE:
            self.close(f"ended by the other array: {reason_of(bytes(payload))}")
        else:
            raise FrameError(f"a frame of kind {kind}")

    # -- ends --------------------------------------------------------------------------------------------------------

    def close(self, why: str) -> None:
        """Ends the connection once what is in the output is sent."""
        if not self.closing:
            self.closing = why
            self._wake()

    def say_goodbye(self, why: str) -> None:
        """Ends the connection, and tells the peer why."""
        self.out.put(goodbye(why))
        self.close(why)

    def closed(self) -> None:
        """The connection is gone."""
        self.out.discard()
        if self.channel is not None:
            self.channel.disconnect()
        self._parts.release(self.channel)
