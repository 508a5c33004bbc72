"""Two ends of a link in memory: what one sends the other receives, in pieces, until the line is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from arrayd.link.channel import BYTES_MAX, REQUESTS_MAX, Call, Channel, LinkError, Request, Service
from arrayd.link.connection import Connection
from arrayd.link.frames import MORE, OPENING, Kind, frame
from arrayd.link.handshake import Handshake, Introduction

SECRET = b"a secret of the tests"
SPARE_BYTES = 100
"""What the services of the tests answer beside what they were asked."""


def introduction(name: str, incarnation: int = 1, bytes_max: int = BYTES_MAX) -> Introduction:
    """An array of this name; its serial follows from it."""
    return Introduction(name, f"serial-{name}", incarnation, REQUESTS_MAX, bytes_max)


def fine(_peer: Introduction) -> None:
    """Lets everybody in."""


def handshake(
    us: Introduction,
    dials: bool,
    secret: bytes = SECRET,
    nonce: bytes = bytes(32),
    check: Callable[[Introduction], None] = fine,
    admit: Callable[[Introduction], None] = fine,
) -> Handshake:
    """One side of a handshake, which lets everybody in unless told otherwise."""
    return Handshake(us, secret, nonce, dials=dials, check=check, admit=admit)


def taken(connection: Connection, count: int | None = None) -> bytes:
    """The next bytes that a connection sends; None: all of them."""
    output, got = connection.out.output, b""
    while count is None or len(got) < count:
        connection.out.fill()
        if output.segments:
            views, _, _ = output.gathered()
            piece = b"".join(views)
        else:
            piece = bytes(output.view[output.head : output.tail])
        if count is not None:
            piece = piece[: count - len(got)]
        if not piece:
            break
        if output.segments:
            output.sent(len(piece))
        else:
            output.head += len(piece)
        if output.empty:
            output.reset()
        got += piece
    return got


def give(connection: Connection, data: bytes) -> None:
    """Has the connection receive these bytes, unless it ends."""
    left = memoryview(data)
    while left and not connection.closing:
        space = connection.space()
        piece = left[: len(space)]
        space[: len(piece)] = piece
        connection.received(len(piece))
        left = left[len(piece) :]


@dataclass
class End:
    """One array: its channel outlives its connections."""

    us: Introduction
    services: Mapping[int, Service]
    channel: Channel = field(init=False)
    connection: Connection | None = None

    def __post_init__(self) -> None:
        self.channel = Channel(self.services)


HARMLESS = b"harmless"
"""What begins so may be carried out twice."""


class Line:
    """The ends of a link, and what is between them. `a` dials."""

    def __init__(self, a: End, b: End) -> None:
        self.a, self.b = a, b
        self.now = 0.0

    def connect(self) -> None:
        """A new connection, whose handshake is yet to come."""
        for end, dials in ((self.a, True), (self.b, False)):
            shaking = handshake(end.us, dials, nonce=end.us.name.encode().ljust(32))
            end.connection = Connection(shaking, lambda _c, _p, end=end: end.channel, lambda: None, lambda: self.now)  # type: ignore[misc]

    def cut(self) -> None:
        """Nothing that is under way arrives any more."""
        for end in (self.a, self.b):
            if end.connection is not None:
                end.connection.closed()
                end.connection = None

    def carry(self, to_b: bool, count: int | None = None) -> bool:
        """Carries at most so many bytes one way; whether there were any."""
        sender, receiver = (self.a, self.b) if to_b else (self.b, self.a)
        if sender.connection is None or receiver.connection is None:
            return False
        data = taken(sender.connection, count)
        give(receiver.connection, data)
        return bool(data)

    def settle(self) -> None:
        """Carries everything, both ways, until there is nothing more."""
        while any([self.carry(True), self.carry(False)]):
            pass


class Answers:
    """What became of requests."""

    def __init__(self) -> None:
        self.ended: dict[int, bytes | LinkError] = {}

    def request(
        self,
        key: int,
        service: int = 1,
        head: bytes = b"",
        data: bytes = b"",
        expects: int | None = None,
    ) -> Request:
        """A request whose end is noted under `key`."""

        def ended(answer: memoryview | LinkError) -> None:
            assert key not in self.ended
            self.ended[key] = answer if isinstance(answer, LinkError) else bytes(answer)

        expects = len(head) + len(data) + SPARE_BYTES if expects is None else expects
        return Request(service, head, memoryview(data), expects, ended)


def echo(call: Call, payload: memoryview) -> None:
    """A service that answers with what it was asked."""
    call.answer(b"echo:", payload)


class Patient:
    """A service that answers when the test says so."""

    def __init__(self, charges: int = 0) -> None:
        self.charges = charges
        self.calls: list[tuple[Call, bytes]] = []
        self.carried_out: list[bytes] = []

    def __call__(self, call: Call, payload: memoryview) -> None:
        call.charge(self.charges)
        self.calls.append((call, bytes(payload)))
        self.carried_out.append(bytes(payload))

    def answer(self, index: int = 0) -> None:
        call, payload = self.calls.pop(index)
        call.answer(b"done:", payload, keep=not payload.startswith(HARMLESS))


def opening(length: int, head: bytes = b"", number: int = 1, kind: Kind = Kind.REQUEST) -> bytes:
    return frame(kind, OPENING.pack(length) + head, flags=MORE, service=1, number=number)


def piece(length: int, more: bool, number: int = 1, kind: Kind = Kind.REQUEST) -> bytes:
    return frame(kind, bytes(length), flags=MORE if more else 0, service=1, number=number)


def a_line(service: Service = echo, bytes_max: int = BYTES_MAX) -> Line:
    return Line(End(introduction("a"), {}), End(introduction("b", bytes_max=bytes_max), {1: service}))


def linked(service: Service = echo, **options: int) -> Line:
    line = a_line(service, **options)
    line.connect()
    line.settle()
    assert line.a.channel.connected
    assert line.b.channel.connected
    return line
