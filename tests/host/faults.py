"""A way to a real array that notes what goes over it and loses what a test wants lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from arrayd.commands.formats import Request, decode_request
from arrayd.commands.messages import Message, decode_message
from arrayd.host import Host, PathTable, Way
from arrayd.host.connections import Connections
from arrayd.host.transport import Interrupted, Refused, Transport, Unreachable
from arrayd.host.way import DEFAULT
from arrayd.scsi.sense import Asc

Fault = Callable[[Callable[[], bytes | None]], bytes | None]
"""Is given an operation, and carries it out or not."""


def fine(operation: Callable[[], bytes | None]) -> bytes | None:
    return operation()


def before(operation: Callable[[], bytes | None]) -> bytes | None:
    """It does not reach the array."""
    raise Interrupted("cut before")


def after(operation: Callable[[], bytes | None]) -> bytes | None:
    """It reaches the array; the answer is lost."""
    operation()
    raise Interrupted("cut after")


def gone(operation: Callable[[], bytes | None]) -> bytes | None:
    raise Unreachable("nobody listens")


def taken(operation: Callable[[], bytes | None]) -> bytes | None:
    raise Refused("the slot is in use", Asc.COMMAND_SEQUENCE_ERROR.value)


class FaultyConnections(Connections):
    """`faults` has one for each operation from now on. `requests` and `messages` are what was written so far."""

    def __init__(self, table: PathTable) -> None:
        super().__init__(table)
        self.faults: deque[Fault] = deque()
        self.requests: list[Request] = []
        self.messages: list[Message] = []
        self.operations = 0

    def _open(self, array: str, lun: int) -> Transport:
        return FaultyTransport(super()._open(array, lun), self)

    def carry_out(self, operation: Callable[[], bytes | None]) -> bytes:
        self.operations += 1
        return (self.faults.popleft() if self.faults else fine)(operation) or b""


class FaultyTransport:
    """See FaultyConnections."""

    def __init__(self, inner: Transport, notes: FaultyConnections) -> None:
        self._inner = inner
        self._notes = notes

    def read(self, offset: int, length: int, timeout_s: float) -> bytes:
        return self._notes.carry_out(lambda: self._inner.read(offset, length, timeout_s))

    def write(self, offset: int, data: bytes, timeout_s: float) -> None:
        self._notes.requests.append(decode_request(data))
        self._notes.carry_out(lambda: self._inner.write(offset, data, timeout_s))

    def write_buffer(self, lane: int, data: bytes, timeout_s: float) -> None:
        self._notes.messages.append(decode_message(data))
        self._notes.carry_out(lambda: self._inner.write_buffer(lane, data, timeout_s))

    def read_buffer(self, lane: int, length: int, timeout_s: float) -> bytes:
        return self._notes.carry_out(lambda: self._inner.read_buffer(lane, length, timeout_s))


class FaultyHost(Host):
    """A host that goes such a way."""

    def __init__(self, table: PathTable, way: Way = DEFAULT) -> None:
        self.notes = FaultyConnections(table)
        super().__init__(table, way, self.notes)
