"""One connection of the link, without I/O: bytes in, bytes out. First the handshake, then frames for a channel.

What is short goes out as it comes. Long messages go as frames of PAYLOAD_BYTES_MAX, and no more of them is handed to
the socket at once than BULK_BYTES: what is short never waits behind a copy for longer than that takes.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from arrayd.buffers import PooledBuffer
from arrayd.link.channel import SHORT_BYTES, Channel, Request
from arrayd.link.frames import (
    HANDSHAKE_BYTES_MAX,
    HEADER,
    HEADER_BYTES,
    MORE,
    NUMBERS,
    PAYLOAD_BYTES_MAX,
    FrameError,
    Kind,
    frame,
    intact,
    seal,
)
from arrayd.link.handshake import Handshake, Introduction, RefusedError, goodbye, reason_of
from arrayd.output import Output, Outside

RECEIVE_BYTES = 1024 * 1024
"""Received in one go; several of the longest frames."""
OUTPUT_BYTES = 256 * 1024
BULK_BYTES = 1024 * 1024
"""Of long messages so much is handed to the socket at once."""
MESSAGE_BYTES_MAX = 8 * 1024 * 1024 + 4096
"""Longest message: the longest transfer of a SCSI command, and what says which."""
PARTS_MAX = 64
"""Messages that have come in part."""
SERIAL_MASK = 0xFFFFFFFF


@dataclass(slots=True)
class Bulk:
    """A long message that goes out frame by frame: what of it is left. `buffer`, in which `data` lies, is released
    behind the last."""

    kind: Kind
    service: int
    number: int
    head: bytes
    data: memoryview
    buffer: PooledBuffer | None


class Connection:
    """`welcome(connection, peer)` gives the channel of a peer that has proven who it is; `wake` says that there is
    something to send; `now()` is the time in seconds."""

    def __init__(
        self,
        handshake: Handshake,
        welcome: Callable[[Connection, Introduction], Channel],
        wake: Callable[[], None],
        now: Callable[[], float],
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
        self._now = now
        self._memory = mmap.mmap(-1, RECEIVE_BYTES)
        self._received = memoryview(self._memory)
        self._at = self._end = 0
        self._frames_received = 0
        self._frames_sent = 0
        self._parts: dict[tuple[int, int], bytearray] = {}
        """Messages that have come in part, by kind and number."""
        self._bulk: deque[Bulk] = deque()
        self._undelivered: deque[tuple[int, int]] = deque()
        """Answers that were sent: the number of the last frame of each, and the request's."""
        self._put(handshake.begin())

    @property
    def peer(self) -> Introduction | None:
        """Who is at the other end, as far as it has said."""
        return self._handshake.peer

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def space(self) -> memoryview:
        """Where to receive into; never empty."""
        if self._at == self._end:
            self._at = self._end = 0
        elif len(self._received) - self._end < HEADER_BYTES + PAYLOAD_BYTES_MAX:
            count = self._end - self._at
            self._memory.move(0, self._at, count)
            self._at, self._end = 0, count
        return self._received[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes came into what `space` returned: takes in every whole frame."""
        self._end += count
        self.received_at = self._now()
        try:
            while not self.closing and self._one_frame():
                pass
        except FrameError as error:
            self.close(f"protocol error: {error}")
        except RefusedError as error:
            if error.ours:
                self.say_goodbye(f"refused: {error}")
            else:
                self.close(f"the other array: {error}")

    def _one_frame(self) -> bool:
        at, received = self._at, self._received
        data = at + HEADER_BYTES
        if self._end < data:
            return False
        length, kind, flags, service, number, acknowledged, crc = HEADER.unpack_from(received, at)
        if length > (PAYLOAD_BYTES_MAX if self.channel is not None else HANDSHAKE_BYTES_MAX):
            raise FrameError(f"a frame of {length} bytes")
        end = data + length
        if self._end < end:
            return False
        payload = received[data:end]
        if not intact(received[at:data], payload, crc):
            raise FrameError("a frame that was damaged on its way")
        self._at = end
        self._frames_received = self._frames_received + 1 & SERIAL_MASK
        channel = self.channel
        if channel is None:
            self._shake_hands(kind, payload)
            return True
        if self._undelivered:
            self._acknowledged(channel, acknowledged)
        if kind in (Kind.REQUEST, Kind.ANSWER):
            self._message(channel, kind, flags, service, number, payload)
        else:
            self._control(channel, kind, number, payload)
        return True

    def _acknowledged(self, channel: Channel, count: int) -> None:
        """The peer has received `count` frames of ours, modulo 2**32, and the answers in them."""
        count = self._frames_sent - (self._frames_sent - count & SERIAL_MASK)
        while self._undelivered and self._undelivered[0][0] <= count:
            channel.delivered(self._undelivered.popleft()[1])

    def _shake_hands(self, kind: int, payload: memoryview) -> None:
        handshake = self._handshake
        self._put(handshake.take(kind, bytes(payload)))
        if handshake.done:
            peer = handshake.peer
            assert peer is not None
            self.channel = self._welcome(self, peer)
            self.channel.connect(self, peer.incarnation, peer.requests_max, peer.bytes_max)

    def _message(self, channel: Channel, kind: int, flags: int, service: int, number: int, payload: memoryview) -> None:
        """A message, whole or in part."""
        part = self._parts.get((kind, number)) if self._parts else None
        if flags & MORE or part is not None:
            if part is None:
                if len(self._parts) >= PARTS_MAX:
                    raise FrameError(f"more than {PARTS_MAX} messages in part")
                part = self._parts[kind, number] = bytearray()
            part += payload
            if len(part) > MESSAGE_BYTES_MAX:
                raise FrameError(f"a message of more than {MESSAGE_BYTES_MAX} bytes")
            if flags & MORE:
                return
            del self._parts[kind, number]
            payload = memoryview(part)
        if kind == Kind.REQUEST:
            channel.request_came(service, number, payload)
        else:
            channel.answer_came(number, payload)

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

    def send_request(self, request: Request) -> None:
        """See Sender."""
        self._send(Kind.REQUEST, request.service, request.number, request.head, request.data, None)

    def send_answer(self, number: int, head: bytes, data: memoryview | bytes, buffer: PooledBuffer | None) -> None:
        """See Sender."""
        self._send(Kind.ANSWER, 0, number, head, data, buffer)

    def send_unknown(self, number: int) -> None:
        """See Sender."""
        self._put(frame(Kind.UNKNOWN, number=number, received=self._frames_received))

    def send_ask(self, numbers: list[int]) -> None:
        """See Sender."""
        self._put(frame(Kind.ASK, NUMBERS.build(numbers), received=self._frames_received))

    def beat(self) -> None:
        """Sends a BEAT, so that the peer knows that we live, and we how far away it is."""
        self._put(frame(Kind.BEAT, number=int(self._now() * 1e6), received=self._frames_received))

    def _send(
        self,
        kind: Kind,
        service: int,
        number: int,
        head: bytes,
        data: memoryview | bytes,
        buffer: PooledBuffer | None,
    ) -> None:
        if len(head) + len(data) > SHORT_BYTES:
            if kind == Kind.ANSWER and buffer is None:
                data = bytes(data)
            self._bulk.append(Bulk(kind, service, number, head, memoryview(data), buffer))
            self._wake()
            return
        payload = b"".join((head, data))
        self._put(frame(kind, payload, service=service, number=number, received=self._frames_received))
        if kind == Kind.ANSWER:
            self._undelivered.append((self._frames_sent, number))
        if buffer is not None:
            buffer.release()

    def fill(self) -> None:
        """Puts frames of long messages into the output, each message's turn by turn, as far as it may have them."""
        output = self.output
        while self._bulk and output.outside_bytes < BULK_BYTES and output.room >= HEADER_BYTES + SHORT_BYTES:
            bulk = self._bulk.popleft()
            piece = bulk.data[: PAYLOAD_BYTES_MAX - len(bulk.head)]
            bulk.data = bulk.data[len(piece) :]
            length, more = len(bulk.head) + len(piece), bool(bulk.data)
            flags = MORE if more else 0
            header = HEADER.pack(length, bulk.kind, flags, bulk.service, bulk.number, self._frames_received, 0)
            output.append(seal(header, bulk.head, piece))
            output.append(bulk.head)
            output.attach(Outside(piece, None if more else bulk.buffer))
            self._frames_sent += 1
            bulk.head = b""
            if more:
                self._bulk.append(bulk)
            elif bulk.kind == Kind.ANSWER:
                self._undelivered.append((self._frames_sent, bulk.number))

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
        if self.channel is not None:
            self.channel.disconnect()
