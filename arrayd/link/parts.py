"""A long message that comes in several frames: received where its data is wanted, without a copy on the way."""

from __future__ import annotations

from crc32c import crc32c

from arrayd.buffers import PooledBuffer
from arrayd.link.channel import DATA_AT, MESSAGE_BYTES_MAX, Channel
from arrayd.link.frames import CRC_BYTES, HEADER_BYTES, MORE, OPENING, PAYLOAD_BYTES_MAX, FrameError, Kind

PARTS_MAX = 64
"""Messages of one connection that have come in part."""
MORE_LONG = 64
"""After a long message so many receives are short: where one was, there are more."""

Fields = tuple[int, int, int, int, int, int, int]
"""Of a frame's header."""


class Part:
    """What has come of one message: its head, which lies right before a page of `buffer`, and some of its data."""

    __slots__ = ("buffer", "data", "head", "left", "payload", "service")

    def __init__(self, service: int, head: memoryview, length: int, buffer: PooledBuffer) -> None:
        memory = buffer.view
        start = DATA_AT - len(head)
        memory[start:DATA_AT] = head
        self.service = service
        self.buffer = buffer
        self.payload = memory[start : DATA_AT + length]
        self.head = memory[start:DATA_AT]
        self.data = self.left = memory[DATA_AT : DATA_AT + length]
        """Where the data goes that is still to come."""

    def place(self, length: int, flags: int) -> memoryview:
        """Where the next frame's data goes. Raises FrameError if it does not go on as it began."""
        _check_piece(length, len(self.left), flags)
        place, self.left = self.left[:length], self.left[length:]
        return place

    def release(self) -> None:
        """The message will not come to its end."""
        self.left = self.data = self.head = self.payload = memoryview(b"")
        self.buffer.release()


class Dropped:
    """An answer that nobody wants: its frames are received one over the other, in `_place`, and the connection goes on.
    `left` bytes are to come."""

    __slots__ = ("_place", "left")

    def __init__(self, length: int, place: memoryview) -> None:
        self.left = length
        self._place = place

    def place(self, length: int, flags: int) -> memoryview:
        """See Part."""
        _check_piece(length, self.left, flags)
        self.left -= length
        return self._place[:length]


def _check_piece(length: int, left: int, flags: int) -> None:
    if not 0 < length <= left or bool(flags & MORE) != (length < left):
        raise FrameError(f"a frame of {length} bytes, where {left} are left of the message")


class Sink:
    """A frame whose payload is received straight into its message: what is `left` to come of it."""

    __slots__ = ("_header", "acknowledged", "crc", "kind", "left", "number", "place")

    def __init__(self, header: bytes, fields: Fields, place: memoryview, here: int) -> None:
        self._header = header
        self.crc, _, self.kind, _, _, self.number, self.acknowledged = fields
        self.place = place
        self.left = place[here:]

    @property
    def intact(self) -> bool:
        """Whether all of it is what was sent."""
        return crc32c(self.place, crc32c(self._header[CRC_BYTES:])) == self.crc


class Parts:
    """The messages of one connection that have come in part, by kind and number."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        """A frame that is received straight into its message."""
        self._parts: dict[tuple[int, int], Part | Dropped] = {}
        self._dropping = memoryview(b"")
        """Where frames go that are dropped; made when there is the first."""
        self._more = 0
        """Receives until we do not expect another long message any more."""

    def expected(self) -> bool:
        """Whether what is received next is likely to be the data of a long message."""
        if self._parts:
            return True
        self._more = max(self._more - 1, 0)
        return self._more > 0

    def takes(self, kind: int, number: int) -> bool:
        """Whether a frame belongs to a message that has come in part."""
        return bool(self._parts) and (kind, number) in self._parts

    def take(self, channel: Channel, kind: int, flags: int, service: int, number: int, payload: memoryview) -> None:
        """A frame of a message in several, which has come whole. Raises FrameError."""
        part = self._parts.get((kind, number))
        if part is None:
            self._open(channel, kind, service, number, payload)
            return
        place = part.place(len(payload), flags)
        place[:] = payload
        self._goes_on(channel, kind, number, part)

    def _open(self, channel: Channel, kind: int, service: int, number: int, payload: memoryview) -> None:
        """The first frame of a message in several."""
        if kind not in (Kind.REQUEST, Kind.ANSWER):
            raise FrameError(f"a frame of kind {kind} that goes on")
        if len(payload) < OPENING.size:
            raise FrameError("a long message that does not say how long it is")
        (length,) = OPENING.unpack_from(payload)
        head = payload[OPENING.size :]
        if not length or len(head) > DATA_AT or len(head) + length > MESSAGE_BYTES_MAX:
            raise FrameError(f"a message of {len(head) + length} bytes, where {MESSAGE_BYTES_MAX} is the most")
        if len(self._parts) >= PARTS_MAX:
            raise FrameError(f"more than {PARTS_MAX} messages in part")
        if kind == Kind.REQUEST:
            buffer = channel.request_begins(len(head), length)
        else:
            begun = channel.answer_begins(number, len(head), length)
            if begun is None:
                self._dropping = self._dropping or memoryview(bytearray(PAYLOAD_BYTES_MAX))
                self._parts[kind, number] = Dropped(length, self._dropping)
                return
            buffer = begun
        self._parts[kind, number] = Part(service, head, length, buffer)

    def begin_sink(self, begun: memoryview, fields: Fields) -> None:
        """A frame of a message in several has come but for the end of its payload. Raises FrameError."""
        _, length, kind, flags, _, number, _ = fields
        place = self._parts[kind, number].place(length, flags)
        here = len(begun) - HEADER_BYTES
        place[:here] = begun[HEADER_BYTES:]
        self.sink = Sink(bytes(begun[:HEADER_BYTES]), fields, place, here)

    def filled(self, channel: Channel, sink: Sink) -> None:
        """All of the frame has come, and is intact."""
        self.sink = None
        self._goes_on(channel, sink.kind, sink.number, self._parts[sink.kind, sink.number])

    def _goes_on(self, channel: Channel, kind: int, number: int, part: Part | Dropped) -> None:
        """One more frame of it is in its place."""
        if not part.left:
            self._complete(channel, kind, number, part)
        elif kind == Kind.ANSWER and isinstance(part, Part):
            channel.answer_comes(number, part.head, part.data, len(part.data) - len(part.left))

    def _complete(self, channel: Channel, kind: int, number: int, part: Part | Dropped) -> None:
        self._more = MORE_LONG
        del self._parts[kind, number]
        if isinstance(part, Dropped):
            return
        if kind == Kind.ANSWER:
            channel.answer_is_there(number, part.payload)
            return
        try:
            channel.give_back(len(part.payload))
            channel.request_came(part.service, number, part.payload, part.buffer)
        except FrameError:
            part.release()
            raise

    def release(self, channel: Channel | None) -> None:
        """The connection is gone: none of them will come to its end."""
        self.sink = None
        for (kind, number), part in self._parts.items():
            if isinstance(part, Dropped):
                continue
            assert channel is not None, "nothing is in part before there is one"
            if kind == Kind.REQUEST:
                channel.give_back(len(part.payload))
                part.release()
            else:
                channel.answer_broke_off(number)
        self._parts.clear()
