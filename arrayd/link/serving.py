"""Requests of a peer: each is carried out once, and its answer kept until the peer has it; without I/O.

A peer is held to the credit that it was given: what it sends beyond that ends the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from arrayd.buffers import PooledBuffer
from arrayd.link.asking import HEAD_BYTES_MAX, MESSAGE_BYTES_MAX, Asking
from arrayd.link.frames import FrameError

REQUESTS_MAX = 512
"""Requests of a peer that are taken at once."""
BYTES_MAX = 64 * 1024 * 1024
"""What requests of a peer, and their answers, may come to at once."""
RUNNING_MAX = 2 * REQUESTS_MAX
"""Requests of a peer under way at once, those included that it has given up: these take no credit any more."""
KEPT_MAX = 2 * REQUESTS_MAX
KEPT_BYTES_MAX = 2 * BYTES_MAX
"""Answers that a peer has not said to have, and their bytes; a peer that owes more is not served."""


class Source(Protocol):
    """Data of an answer that lies elsewhere, and is read a piece at a time when its turn to be sent comes."""

    def __len__(self) -> int:
        """Bytes of it."""

    def load(self, at: int, view: memoryview) -> None:
        """Fills `view` with what begins at byte `at`. Raises OSError, which ends the connection."""


Data = memoryview | bytes | Source


class Call:
    """One request of the peer's, as a service sees it: it calls `answer` once, at once or later."""

    __slots__ = ("_serving", "buffer", "cost", "counted", "number")

    def __init__(self, serving: Serving, number: int, cost: int, buffer: PooledBuffer | None) -> None:
        self._serving = serving
        self.number = number
        self.cost = cost
        """What it takes of the credit of the peer, in bytes."""
        self.counted = True
        """Whether it takes any: not when the peer has given it up."""
        self.buffer = buffer
        """What a long request lies in, its data from `DATA_AT` on. A service that wants it for longer than it is called
        takes it from here, and releases it."""

    @property
    def answered(self) -> bool:
        """Whether it has its answer."""
        return self._serving.running.get(self.number) is not self

    def charge(self, count: int) -> None:
        """The answer may come to so many bytes. Raises FrameError, to be passed on, if the peer has no such credit."""
        self._serving.charge(self, count)

    def answer(self, head: bytes, data: Data = b"", buffer: PooledBuffer | None = None, keep: bool = True) -> None:
        """Sends the answer. `data` lies in `buffer`, which is the link's to release, or is a `Source` and longer than
        SHORT_BYTES, or may change after the call. Not to `keep` it means that the request may be carried out again if
        the answer is lost: so it is with a `Source`."""
        # A service has mistaken itself, and not the peer: what no peer takes would end every connection from now on.
        assert len(head) <= HEAD_BYTES_MAX, "a head is short"
        assert len(head) + len(data) <= MESSAGE_BYTES_MAX, "an answer is no longer than a message may be"
        self._serving.answered(self, head, data, buffer, keep)


Service = Callable[[Call, memoryview], None]
"""`service(call, payload)`: carries out a request of the peer's; `payload` lasts as long as this call. It must not
raise: what is wrong with a payload is for the service to answer. Only what `Call.charge` raises passes."""


Done = int | Callable[[Call], None]


class AtOnce(Protocol):
    """What a service has besides, if it can carry out some requests on the spot."""

    def at_once(self, payload: memoryview, room: memoryview) -> Done:
        """Carries out a request and puts its answer into `room`; the answer's bytes, or 0 with nothing done. Negative:
        to be kept, since the request must not be carried out again. Or begins it: returns what is to be called with the
        `Call` that it will answer. Nothing is sent meanwhile."""


class Sender(Protocol):
    """The connection that there is now."""

    def send_request(self, request: Asking) -> None:
        """Sends it, all of it or as it goes."""

    def send_answer(self, number: int, head: bytes, data: Data, buffer: PooledBuffer | None) -> None:
        """Sends it. `buffer`, in which `data` lies, is the connection's to release; without one `data` may change."""

    def sends(self, number: int) -> bool:
        """Whether the request of this number is long, and has not wholly gone."""

    def room(self) -> memoryview:
        """Where a short answer can be put, to be sent by `send_placed` before anything else is."""

    def send_placed(self, number: int, length: int, kept: bool) -> None:
        """Sends what was put in its place as an answer."""

    def send_unknown(self, number: int) -> None:
        """Says of a request that it never came."""

    def send_ask(self, numbers: list[int]) -> None:
        """Asks for the answers to these."""


class Serving:
    """Our end of what a peer asks. `services` are by their number in REQUEST frames."""

    def __init__(self, services: Mapping[int, Service]) -> None:
        self._services = services
        self._at_once: dict[int, Callable[[memoryview, memoryview], Done]] = {
            number: service.at_once for number, service in services.items() if hasattr(service, "at_once")
        }
        self._sender: Sender | None = None
        self._asked = False
        """Whether the peer has said, on this connection, what it waits for: no answer is sent before."""
        self.running: dict[int, Call] = {}
        """Requests of the peer that are not answered yet."""
        self._counted = 0
        self._taken = 0
        """Of these, how many take credit, and how many bytes of it, with what has come in part."""
        self._kept: dict[int, tuple[bytes, bytes]] = {}
        """Answers that the peer may not have, by number."""
        self._kept_bytes = 0

    def take(self, count: int) -> None:
        """So many bytes of the peer's credit are in use. Raises FrameError, and nothing is, if it has not so much."""
        if self._taken + count > BYTES_MAX:
            raise FrameError(f"requests of more than {BYTES_MAX} bytes at once")
        self._taken += count

    def give_back(self, count: int) -> None:
        """So many bytes are free again."""
        self._taken -= count

    def charge(self, call: Call, count: int) -> None:
        """See `Call.charge`."""
        self.take(count)
        call.cost += count

    def request_came(self, service: int, number: int, payload: memoryview, buffer: PooledBuffer | None = None) -> None:
        """REQUEST, all of it, in `buffer` if it is long. Raises FrameError."""
        sender = self._sender
        if not self._asked or sender is None:
            raise FrameError("a request before ASK")
        if number in self.running or number in self._kept:
            raise FrameError(f"request {number} came twice")
        cost = len(payload)
        if self._counted >= REQUESTS_MAX or len(self.running) >= RUNNING_MAX:
            raise FrameError(f"more than {REQUESTS_MAX} requests at once")
        if self._taken + cost > BYTES_MAX:
            raise FrameError(f"requests of more than {BYTES_MAX} bytes at once")
        at_once = self._at_once.get(service)
        if at_once is not None and buffer is None:
            room = sender.room()
            done = at_once(payload, room)
            if done:
                if isinstance(done, int):
                    self._placed(sender, number, done, room)
                else:
                    done(self._begin(number, cost, None))
                return
        found = self._services.get(service)
        if found is None:
            raise FrameError(f"a request for service {service}, which there is not")
        self._check_kept()
        call = self._begin(number, cost, buffer)
        try:
            found(call, payload)
        except FrameError:
            self._end(call)
            raise
        finally:
            if call.buffer is not None:
                call.buffer.release()

    def _begin(self, number: int, cost: int, buffer: PooledBuffer | None) -> Call:
        self._counted += 1
        self._taken += cost
        self.running[number] = call = Call(self, number, cost, buffer)
        return call

    def _placed(self, sender: Sender, number: int, length: int, room: memoryview) -> None:
        """What was done on the spot is answered by what lies in `room`."""
        if length > 0:
            sender.send_placed(number, length, False)
            return
        self._kept[number] = bytes(room[:-length]), b""
        sender.send_placed(number, -length, True)
        self._check_kept()

    def _check_kept(self) -> None:
        if len(self._kept) > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            raise FrameError("it does not say which answers it has")

    def _end(self, call: Call) -> None:
        if self.running.pop(call.number, None) is not call:
            raise AssertionError("a request is answered once")
        if call.counted:
            self._counted -= 1
            self._taken -= call.cost

    def answered(self, call: Call, head: bytes, data: Data, buffer: PooledBuffer | None, keep: bool) -> None:
        """See `Call.answer`."""
        self._end(call)
        sender = self._sender if self._asked else None
        if keep:
            assert isinstance(data, memoryview | bytes), "what is read late is not kept"
            data = copy = bytes(data)
            self._kept[call.number] = (head, copy)
            self._kept_bytes += len(copy)
        if buffer is not None and (keep or sender is None):
            buffer.release()
            buffer = None
        if sender is not None:
            sender.send_answer(call.number, head, data, buffer)

    def delivered(self, number: int) -> None:
        """The peer has the answer to this request."""
        kept = self._kept.pop(number, None)
        if kept is not None:
            self._kept_bytes -= len(kept[1])

    def ask_came(self, numbers: list[int]) -> None:
        """ASK: these wait for an answer, and no others. Raises FrameError for a second one."""
        sender = self._sender
        if self._asked or sender is None:
            raise FrameError("a second ASK")
        self._asked = True
        self._kept = {number: self._kept[number] for number in numbers if number in self._kept}
        self._kept_bytes = sum(len(data) for _, data in self._kept.values())
        for call in set(self.running.values()) - {self.running.get(number) for number in numbers}:
            if call.counted:
                call.counted = False
                self._counted -= 1
                self._taken -= call.cost
        for number in numbers:
            if number in self._kept:
                sender.send_answer(number, *self._kept[number], None)
            elif number not in self.running:
                sender.send_unknown(number)
