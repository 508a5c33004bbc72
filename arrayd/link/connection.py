"""One connection of the link, without I/O: bytes in, bytes out. First the handshake, then frames for a channel.

What is short goes out as it comes: packed into the output, one frame behind the other, and sent together. Long messages
go as frames of PAYLOAD_BYTES_MAX from where their data lies, and no more of them is handed to the socket at once than
BULK_BYTES: what is short never waits behind a copy for longer than that takes. They are received where they are to lie.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from crc32c import crc32c

from arrayd.buffers import PooledBuffer
from arrayd.link.channel import SHORT_BYTES, Asking, Channel
from arrayd.link.frames import (
    CRC,
    CRC_BYTES,
    HANDSHAKE_BYTES_MAX,
    HEADER,
    HEADER_BYTES,
    MORE,
    NUMBERS,
    OPENING,
    PAYLOAD_BYTES_MAX,
    FrameError,
    Kind,
    frame,
)
from arrayd.link.handshake import Handshake, Introduction, RefusedError, goodbye, reason_of
from arrayd.link.parts import Parts, Sink
from arrayd.output import Output, Outside

RECEIVE_BYTES = 1024 * 1024
"""Received in one go; several of the longest frames."""
OUTPUT_BYTES = 256 * 1024
BULK_BYTES = 1024 * 1024
"""Of long messages so much is handed to the socket at once."""
BULK_HEAD_BYTES = 8 * 1024
"""How much is received at a time while a long message comes, so that the bulk of it goes straight to its place."""
PUSH_FRAMES = 16
"""Short frames that are packed before they are sent, though more are being made: the other array begins with these."""
SERIAL_MASK = 0xFFFFFFFF
REQUEST, ANSWER = int(Kind.REQUEST), int(Kind.ANSWER)


@dataclass(slots=True)
class Bulk:
    """A long message that goes out frame by frame: what of it is left. `opening` is the payload of the first.
    `buffer`, in which `data` lies, is released behind the last."""

    kind: int
    service: int
    number: int
    opening: bytes
    data: memoryview
    buffer: PooledBuffer | None


class Connection:
    """`welcome(connection, peer)` gives the channel of a peer that has proven who it is; `wake` says that there is
    something to send, `push` that it had better be sent at once; `now()` is the time in seconds."""

    def __init__(
        self,
        handshake: Handshake,
        welcome: Callable[[Connection, Introduction], Channel],
        wake: Callable[[], None],
        now: Callable[[], float],
        push: Callable[[], None] = lambda: None,
    ) -> None:
        self.output = Output(OUTPUT_BYTES)
        self.closing = ""
        """Why the connection ends once its output is sent; empty while it goes on."""
        self.channel: Channel | None = None
        self.round_trip = 0.0
        """Seconds that the last BEAT took there and its ECHO back."""
        self.received_at = now()
        self._handshake = handshake
        self._welcome = welcome
        self._wake = wake
        self._push = push
        self.unpushed = 0
        """Short frames that were packed since something was sent."""
        self._now = now
        self._memory = mmap.mmap(-1, RECEIVE_BYTES)
        self._received = memoryview(self._memory)
        self._at = self._end = 0
        self._frames_received = 0
        self._frames_sent = 0
        self._parts = Parts()
        self._bulk: deque[Bulk] = deque()
        self._undelivered: deque[tuple[int, int]] = deque()
        """Answers that were sent and are kept: the number of the last frame of each, and the request's."""
        self._put(handshake.begin())

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
        received, unpack = self._received, HEADER.unpack_from
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
            self._at = at = following
            self._frames_received = self._frames_received + 1 & SERIAL_MASK
            payload = received[data:following]
            if channel is None:
                self._shake_hands(kind, payload)
                continue
            if self._undelivered:
                self._acknowledged(channel, acknowledged)
            if flags & MORE or self._parts.takes(kind, number):
                self._parts.take(channel, kind, flags, service, number, payload)
            elif kind == REQUEST:
                channel.request_came(service, number, payload)
            elif kind == ANSWER:
                channel.answer_came(number, payload)
            else:
                self._control(channel, kind, number, payload)

    def _filled(self, sink: Sink) -> None:
        """All of a frame is where it belongs."""
        channel = self.channel
        assert channel is not None
        if not sink.intact:
            raise FrameError("a frame that was damaged on its way")
        self._frames_received = self._frames_received + 1 & SERIAL_MASK
        if self._undelivered:
            self._acknowledged(channel, sink.acknowledged)
        self._parts.filled(channel, sink)

    def _acknowledged(self, channel: Channel, count: int) -> None:
        """The peer has received `count` frames of ours, modulo 2**32, and the answers in them."""
        undelivered = self._undelivered
        count = self._frames_sent - (self._frames_sent - count & SERIAL_MASK)
        while undelivered and undelivered[0][0] <= count:
            channel.delivered(undelivered.popleft()[1])

    def _shake_hands(self, kind: int, payload: memoryview) -> None:
        handshake = self._handshake
        self._put(handshake.take(kind, bytes(payload)))
        if handshake.done:
            peer = handshake.peer
            assert peer is not None
            self.channel = self._welcome(self, peer)
            self.channel.connect(self, peer.incarnation, peer.requests_max, peer.bytes_max)

    def _control(self, channel: Channel, kind: int, number: int, payload: memoryview) -> None:
        if kind == Kind.BEAT:
            self._put(frame(Kind.ECHO, number=number, received=self._frames_received))
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

    # -- bytes out: what a channel sends (see `channel.Sender`) ------------------------------------------------------

    def send_request(self, request: Asking) -> None:
        """See Sender."""
        head, data = request.head, request.data
        if len(head) + len(data) > SHORT_BYTES:
            self._send_long(REQUEST, request.service, request.number, head, data, None)
        else:
            self._pack(REQUEST, request.service, request.number, head, data)

    def send_answer(self, number: int, head: bytes, data: memoryview | bytes, buffer: PooledBuffer | None) -> None:
        """See Sender."""
        if len(head) + len(data) > SHORT_BYTES:
            self._send_long(ANSWER, 0, number, head, bytes(data) if buffer is None else data, buffer)
            return
        self._pack(ANSWER, 0, number, head, data)
        self._undelivered.append((self._frames_sent, number))
        if buffer is not None:
            buffer.release()

    def _pack(self, kind: int, service: int, number: int, head: bytes, data: memoryview | bytes) -> None:
        """A short message, straight into the output if there is room."""
        output = self.output
        view, at = output.view, output.tail
        start = at + HEADER_BYTES
        middle = start + len(head)
        end = middle + len(data)
        if end > len(view):
            payload, received = b"".join((head, data)), self._frames_received
            self._put(frame(Kind(kind), payload, service=service, number=number, received=received))
            return
        HEADER.pack_into(view, at, 0, end - start, kind, 0, service, number, self._frames_received)
        view[start:middle] = head
        if data:
            view[middle:end] = data
        CRC.pack_into(view, at, crc32c(view[at + CRC_BYTES : end]))
        output.tail = end
        self._frames_sent += 1
        self.unpushed = unpushed = self.unpushed + 1
        if unpushed < PUSH_FRAMES:
            self._wake()
        else:
            self._push()

    def room(self) -> memoryview:
        """See Sender."""
        start = self.output.tail + HEADER_BYTES
        return self.output.view[start : start + SHORT_BYTES]

    def send_placed(self, number: int, length: int, kept: bool) -> None:
        """See Sender."""
        output = self.output
        view, at = output.view, output.tail
        end = at + HEADER_BYTES + length
        HEADER.pack_into(view, at, 0, length, ANSWER, 0, 0, number, self._frames_received)
        CRC.pack_into(view, at, crc32c(view[at + CRC_BYTES : end]))
        output.tail = end
        self._frames_sent += 1
        if kept:
            self._undelivered.append((self._frames_sent, number))
        self.unpushed = unpushed = self.unpushed + 1
        if unpushed < PUSH_FRAMES:
            self._wake()
        else:
            self._push()

    def send_unknown(self, number: int) -> None:
        """See Sender."""
        self._put(frame(Kind.UNKNOWN, number=number, received=self._frames_received))

    def send_ask(self, numbers: list[int]) -> None:
        """See Sender."""
        self._put(frame(Kind.ASK, NUMBERS.build(numbers), received=self._frames_received))

    def beat(self) -> None:
        """Sends a BEAT, so that the peer knows that we live, and we how far away it is."""
        self._put(frame(Kind.BEAT, number=int(self._now() * 1e6), received=self._frames_received))

    def _send_long(
        self, kind: int, service: int, number: int, head: bytes, data: memoryview | bytes, buffer: PooledBuffer | None
    ) -> None:
        self._bulk.append(Bulk(kind, service, number, OPENING.pack(len(data)) + head, memoryview(data), buffer))
        self._wake()

    def fill(self) -> None:
        """Puts frames of long messages into the output, one message after the other, as far as they may have it."""
        output = self.output
        while self._bulk and output.outside_bytes < BULK_BYTES and output.room >= HEADER_BYTES + SHORT_BYTES:
            bulk = self._bulk[0]
            if bulk.opening:
                self._pack_bulk(bulk, MORE, bulk.opening)
                output.append(bulk.opening)
                bulk.opening = b""
            piece = bulk.data[:PAYLOAD_BYTES_MAX]
            bulk.data = bulk.data[len(piece) :]
            more = bool(bulk.data)
            self._pack_bulk(bulk, MORE if more else 0, piece)
            output.attach(Outside(piece, None if more else bulk.buffer))
            if not more:
                self._bulk.popleft()
                if bulk.kind == ANSWER:
                    self._undelivered.append((self._frames_sent, bulk.number))

    def _pack_bulk(self, bulk: Bulk, flags: int, payload: bytes | memoryview) -> None:
        """The header of one frame of a long message."""
        output = self.output
        view, at = output.view, output.tail
        HEADER.pack_into(
            view, at, 0, len(payload), bulk.kind, flags, bulk.service, bulk.number, self._frames_received
        )  # fmt: skip
        output.tail = at + HEADER_BYTES
        CRC.pack_into(view, at, crc32c(payload, crc32c(view[at + CRC_BYTES : output.tail])))
        self._frames_sent += 1

    def _put(self, data: bytes) -> None:
        """One short frame, or none."""
        if not data:
            return
        self._frames_sent += 1
        if self.output.room >= len(data):
            self.output.append(data)
        else:
            self.output.attach(Outside(memoryview(data), None))
        self._wake()

    # -- ends --------------------------------------------------------------------------------------------------------

    def close(self, why: str) -> None:
        """Ends the connection once what is in the output is sent."""
        if not self.closing:
            self.closing = why
            self._wake()

    def say_goodbye(self, why: str) -> None:
        """Ends the connection, and tells the peer why."""
        self._put(goodbye(why))
        self.close(why)

    def closed(self) -> None:
        """The connection is gone."""
        self.output.discard()
        for bulk in self._bulk:
            if bulk.buffer is not None:
                bulk.data = memoryview(b"")
                bulk.buffer.release()
        self._bulk.clear()
        self._parts.release(self.channel)
        if self.channel is not None:
            self.channel.disconnect()
