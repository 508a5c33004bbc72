"""What one connection of the link sends, without I/O: messages in, frames out.

What is short goes out as it comes: packed into the output, one message behind the other in a frame that is closed when
something else is to go or all of it is sent, so that many have one header and one checksum. Long messages go as frames
of PAYLOAD_BYTES_MAX from where their data lies, and no more of them is handed to the socket at once than BULK_BYTES:
what is short never waits behind a copy for longer than that takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from crc32c import crc32c

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.link.channel import SHORT_BYTES, Asking, Channel, Data, Source
from arrayd.link.frames import (
    CRC,
    CRC_BYTES,
    HEADER,
    HEADER_BYTES,
    MORE,
    NUMBERS,
    OPENING,
    PAYLOAD_BYTES_MAX,
    SHORT_HEADER,
    SHORT_HEADER_BYTES,
    Kind,
    frame,
    short,
)
from arrayd.output import Output, Outside, Releasable

OUTPUT_BYTES = 256 * 1024
"""No longer than a frame may be: so what is packed always fits into one."""
BULK_BYTES = 512 * 1024
"""Of long messages so much is handed to the socket at once."""
PUSH_MESSAGES = 16
"""Short messages that are packed before they are sent, though more are to come: the other array begins with these."""
SERIAL_MASK = 0xFFFFFFFF
REQUEST, ANSWER = int(Kind.REQUEST), int(Kind.ANSWER)
SERVICE_BITS = 16
SERVICE_MASK = (1 << SERVICE_BITS) - 1
OPENS_ANSWERS = ANSWER << SERVICE_BITS
NO_ROOM = memoryview(b"")


@dataclass(slots=True)
class Bulk:
    """A long message that goes out frame by frame. `opening` is the payload of the first; `at` is how much of `data`
    has gone. `buffer`, in which `data` lies, is released behind the last."""

    kind: int
    service: int
    number: int
    opening: bytes
    data: memoryview | Source
    buffer: Releasable | None
    at: int = 0


class Going:
    """A long request of ours, until all of it has gone."""

    __slots__ = ("_going", "_number")

    def __init__(self, going: set[int], number: int) -> None:
        going.add(number)
        self._going = going
        self._number = number

    def release(self) -> None:
        """See Releasable."""
        self._going.discard(self._number)


class Outgoing:
    """A `serving.Sender`. `wake` says that there is something to send, `push` that it had better be sent at once."""

    def __init__(self, wake: Callable[[], None], push: Callable[[], None]) -> None:
        self.output = Output(OUTPUT_BYTES)
        self.unpushed = 0
        """Short messages that were packed since something was sent."""
        self.received = 0
        """Frames that came on this connection, modulo 2**32."""
        self._wake = wake
        self._push = push
        self._sent = 0
        """Frames that went out, or are in the output and closed."""
        self._open = 0
        """The kind and the service of the frame that short messages are packed into; 0: there is none."""
        self._open_at = 0
        self._bulk: deque[Bulk] = deque()
        self._bulk_answer_bytes = 0
        self._going: set[int] = set()
        """Long requests that have not wholly gone."""
        self._pieces = BufferPool(BULK_BYTES)
        """What is read as it is sent: the same memory again and again, which the processor has in its cache."""
        self.undelivered: deque[tuple[int, int]] = deque()
        """Answers that were sent and are kept: how many frames go with the last of each, and the request's number."""

    # -- what a channel sends ----------------------------------------------------------------------------------------

    def send_request(self, request: Asking) -> None:
        """See Sender."""
        head, data = request.head, request.data
        if len(head) + len(data) > SHORT_BYTES:
            going = Going(self._going, request.number)
            self._send_long(REQUEST, request.service, request.number, head, data, going)
        else:
            self._pack(REQUEST << SERVICE_BITS | request.service, request.number, head, data)

    def send_answer(self, number: int, head: bytes, data: Data, buffer: PooledBuffer | None) -> None:
        """See Sender."""
        if len(head) + len(data) > SHORT_BYTES:
            if buffer is None and isinstance(data, memoryview):
                data = bytes(data)
            self._bulk_answer_bytes += len(data)
            self._send_long(ANSWER, 0, number, head, data, buffer)
            return
        assert isinstance(data, memoryview | bytes), "what is read late is long"
        self._pack(OPENS_ANSWERS, number, head, data)
        self.undelivered.append((self._sent + 1 if self._open else self._sent, number))
        if buffer is not None:
            buffer.release()

    def _pack(self, opens: int, number: int, head: bytes, data: memoryview | bytes) -> None:
        """A short message, straight into the output if there is room. `opens` is the kind and the service of its
        frame."""
        output = self.output
        if opens != self._open and not self._open_frame(opens):
            self._put_aside(opens, number, b"".join((head, data)))
            return
        view, at = output.view, output.tail
        start = at + SHORT_HEADER_BYTES
        middle = start + len(head)
        end = middle + len(data)
        if end > len(view):
            self._put_aside(opens, number, b"".join((head, data)))
            return
        SHORT_HEADER.pack_into(view, at, end - start, number)
        view[start:middle] = head
        if data:
            view[middle:end] = data
        output.tail = end
        self.unpushed = unpushed = self.unpushed + 1
        if unpushed < PUSH_MESSAGES:
            self._wake()
        else:
            self._push()

    def _put_aside(self, opens: int, number: int, message: bytes) -> None:
        """A short message that the output has no room for."""
        kind, service = Kind(opens >> SERVICE_BITS), opens & SERVICE_MASK
        self.put(frame(kind, short(number, message), service=service, received=self.received))

    def sends(self, number: int) -> bool:
        """See Sender."""
        return number in self._going

    @property
    def backlog_bytes(self) -> int:
        """What the peer has been answered and does not take, and what else waits behind the output."""
        return self.output.outside_bytes + self._bulk_answer_bytes

    @property
    def waits(self) -> bool:
        """Whether there are frames to be put into the output."""
        return bool(self._bulk or self._open)

    def room(self) -> memoryview:
        """See Sender."""
        if self._open != OPENS_ANSWERS and not self._open_frame(OPENS_ANSWERS):
            return NO_ROOM
        start = self.output.tail + SHORT_HEADER_BYTES
        return self.output.view[start : start + SHORT_BYTES]

    def send_placed(self, number: int, length: int, kept: bool) -> None:
        """See Sender."""
        output = self.output
        at = output.tail
        SHORT_HEADER.pack_into(output.view, at, length, number)
        output.tail = at + SHORT_HEADER_BYTES + length
        if kept:
            self.undelivered.append((self._sent + 1, number))
        self.unpushed = unpushed = self.unpushed + 1
        if unpushed < PUSH_MESSAGES:
            self._wake()
        else:
            self._push()

    def send_unknown(self, number: int) -> None:
        """See Sender."""
        self.put(frame(Kind.UNKNOWN, number=number, received=self.received))

    def send_ask(self, numbers: list[int]) -> None:
        """See Sender."""
        self.put(frame(Kind.ASK, NUMBERS.build(numbers), received=self.received))

    # -- frames ------------------------------------------------------------------------------------------------------

    def _open_frame(self, opens: int) -> bool:
        """Begins a frame of short messages, if there is room for its header."""
        self._close_frame()
        output = self.output
        if output.room < HEADER_BYTES:
            return False
        self._open, self._open_at = opens, output.tail
        output.tail += HEADER_BYTES
        return True

    def _close_frame(self) -> None:
        """Ends the frame of short messages, if one is open."""
        if not self._open:
            return
        output, at = self.output, self._open_at
        view, end, data = output.view, output.tail, at + HEADER_BYTES
        kind, service = self._open >> SERVICE_BITS, self._open & SERVICE_MASK
        self._open = 0
        if end == data:
            output.tail = at
            return
        HEADER.pack_into(view, at, 0, end - data, kind, 0, service, 0, self.received)
        CRC.pack_into(view, at, crc32c(view[at + CRC_BYTES : end]))
        self._sent += 1

    def _send_long(
        self, kind: int, service: int, number: int, head: bytes, data: Data, buffer: Releasable | None
    ) -> None:
        opening = OPENING.pack(len(data)) + head
        data = memoryview(data) if isinstance(data, bytes) else data
        self._bulk.append(Bulk(kind, service, number, opening, data, buffer))
        self._wake()

    def fill(self) -> None:
        """Before the output is sent: closes what is packed, and puts frames of long messages behind it, one message
        after the other, as far as they may have it. Raises OSError if data cannot be read."""
        self._close_frame()
        output = self.output
        # What is waited for alone goes frame by frame: the other array works on one while we make the next.
        most = BULK_BYTES if len(self._bulk) > 1 else 1
        while self._bulk and output.outside_bytes < most and output.room >= HEADER_BYTES + SHORT_BYTES:
            bulk = self._bulk[0]
            if bulk.opening:
                self._pack_bulk(bulk, MORE, bulk.opening)
                output.append(bulk.opening)
                bulk.opening = b""
            piece, buffer = self._next_piece(bulk)
            if piece is None:
                return
            more = bulk.at < len(bulk.data)
            self._pack_bulk(bulk, MORE if more else 0, piece)
            output.attach(Outside(piece, buffer))
            if not more:
                self._bulk.popleft()
                if bulk.kind == ANSWER:
                    self._bulk_answer_bytes -= len(bulk.data)
                    self.undelivered.append((self._sent, bulk.number))

    def _next_piece(self, bulk: Bulk) -> tuple[memoryview | None, Releasable | None]:
        """The data of its next frame, and who waits until that is sent. None: not before a piece before it is sent."""
        at, data = bulk.at, bulk.data
        end = min(at + PAYLOAD_BYTES_MAX, len(data))
        if isinstance(data, memoryview):
            bulk.at = end
            return data[at:end], bulk.buffer if end == len(data) else None
        buffer = self._pieces.take_beyond(PAYLOAD_BYTES_MAX, 1)
        if buffer is None:
            return None, None
        piece = buffer.view[: end - at]
        try:
            data.load(at, piece)
        except BaseException:
            buffer.release()
            raise
        bulk.at = end
        return piece, buffer

    def _pack_bulk(self, bulk: Bulk, flags: int, payload: bytes | memoryview) -> None:
        """The header of one frame of a long message."""
        output = self.output
        view, at = output.view, output.tail
        HEADER.pack_into(view, at, 0, len(payload), bulk.kind, flags, bulk.service, bulk.number, self.received)
        output.tail = at + HEADER_BYTES
        CRC.pack_into(view, at, crc32c(payload, crc32c(view[at + CRC_BYTES : output.tail])))
        self._sent += 1

    def put(self, data: bytes) -> None:
        """One whole frame, or none."""
        if not data:
            return
        self._close_frame()
        self._sent += 1
        if self.output.room >= len(data):
            self.output.append(data)
        else:
            self.output.attach(Outside(memoryview(data), None))
        self._wake()

    def acknowledged(self, channel: Channel, count: int) -> None:
        """The peer has received `count` frames of ours, modulo 2**32, and the answers in them."""
        undelivered = self.undelivered
        count = self._sent - (self._sent - count & SERIAL_MASK)
        while undelivered and undelivered[0][0] <= count:
            channel.delivered(undelivered.popleft()[1])

    def discard(self) -> None:
        """The connection is gone."""
        self._open = 0
        self.output.discard()
        for bulk in self._bulk:
            bulk.data = memoryview(b"")
            if bulk.buffer is not None:
                bulk.buffer.release()
        self._bulk.clear()
