"""Requests and answers between two arrays, over one connection after another, without I/O.

A channel lives as long as both arrays do; connections come and go. What was not answered when one was cut is asked for
on the next: each side begins with ASK, a list of the requests it waits for. The other sends answers that it has kept,
says UNKNOWN of those that it never took, and they are sent again, under the same number. So nothing is executed twice,
and no answer is lost. Only what changed nothing (a READ that went well) has its answer not kept, and is done again. An
array that started again has another incarnation: then everything that was under way fails, and ends, before it is
talked to.

Flow control is by credit. Each side says in the handshake how many requests it takes at once, and how many bytes these
and their answers may come to; an answer gives the credit back. So each side can always take in what comes, and none
waits for the other to read. A part of the credit is for short requests alone: a copy never starves a command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from arrayd.buffers import PooledBuffer
from arrayd.link.frames import FrameError

REQUESTS_MAX = 512
"""Requests of a peer that are taken at once."""
BYTES_MAX = 64 * 1024 * 1024
"""What requests of a peer, and their answers, may come to at once."""
SHORT_BYTES = 64 * 1024
"""A request that is no longer, with its answer, may use the last of the credit."""
SHORT_SHARE = 8
"""One part in so many of the credit is for short requests."""
WAITING_MAX = 4096
"""Requests of a kind, short or long, that wait for credit or for a connection; one more fails."""


class LinkError(Exception):
    """A request has no answer; the text says why. `maybe_done`: whether it may have been carried out."""

    def __init__(self, reason: str, maybe_done: bool) -> None:
        super().__init__(reason)
        self.maybe_done = maybe_done


class Request:
    """One request of ours: `head` and `data` are its payload, and stay as they are until `ended`.

    `ended(answer)` is called once: with the answer's payload, which lasts as long as the call, or with a LinkError.
    """

    __slots__ = ("cost", "data", "ended", "head", "number", "service")

    def __init__(
        self,
        service: int,
        head: bytes,
        data: memoryview | bytes,
        expects: int,
        ended: Callable[[memoryview | LinkError], None],
    ) -> None:
        self.service = service
        self.head = head
        self.data = data
        self.cost = len(head) + len(data) + expects
        self.ended = ended
        self.number = 0


class Call:
    """One request of the peer's, as a service sees it: it calls `answer` once, at once or later."""

    __slots__ = ("_channel", "number")

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self.number = number

    def answer(
        self, head: bytes, data: memoryview | bytes = b"", buffer: PooledBuffer | None = None, keep: bool = True
    ) -> None:
        """Sends the answer. `data` lies in `buffer`, which is the link's to release, or may change after the call.
        Not to `keep` it means that the request may be carried out again if the answer is lost."""
        self._channel.answered(self, head, data, buffer, keep)


Service = Callable[[Call, memoryview], None]
"""`service(call, payload)`: carries out a request of the peer's; `payload` lasts as long as this call. It must not
raise: what is wrong with a payload is for the service to answer."""


class Sender(Protocol):
    """The connection that a channel has now."""

    def send_request(self, request: Request) -> None:
        """Sends it, all of it or as it goes."""

    def send_answer(self, number: int, head: bytes, data: memoryview | bytes, buffer: PooledBuffer | None) -> None:
        """Sends it. `buffer`, in which `data` lies, is the connection's to release; without one `data` may change."""

    def send_unknown(self, number: int) -> None:
        """Says of a request that it never came."""

    def send_ask(self, numbers: list[int]) -> None:
        """Asks for the answers to these."""


class Channel:
    """Our end of what goes on with one peer. `services` are by their number in REQUEST frames."""

    def __init__(self, services: Mapping[int, Service]) -> None:
        self._services = services
        self._sender: Sender | None = None
        self._asked = False
        """Whether the peer has said, on this connection, what it waits for: no answer is sent before."""
        self.incarnation = 0
        """Of the peer that we talk to; 0: none so far."""
        self._requests_max = 0
        self._bytes_max = 0
        self._next_number = 1
        self._outstanding: dict[int, Request] = {}
        """Requests that were sent, or begun to be, by number: they may have reached the peer."""
        self._outstanding_bytes = 0
        self._short: deque[Request] = deque()
        self._long: deque[Request] = deque()
        """Requests that wait for credit or for a connection, each kind in order."""
        self.running: dict[int, Call] = {}
        """Requests of the peer that are not answered yet."""
        self._kept: dict[int, tuple[bytes, bytes]] = {}
        """Answers that the peer may not have, by number."""

    # -- connections -------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._sender is not None

    @property
    def idle(self) -> bool:
        """Whether nothing of ours is under way or waits."""
        return not self._outstanding and not self._short and not self._long

    def connect(self, sender: Sender, incarnation: int, requests_max: int, bytes_max: int) -> None:
        """A connection stands; the peer has said who it is and what it takes. Nothing of another incarnation of it runs
        any more."""
        assert self._sender is None
        if incarnation != self.incarnation:
            assert not self.running
            self._kept.clear()
            self.incarnation = incarnation
            self._fail_outstanding("the other array was started again")
        self._sender, self._asked = sender, False
        self._requests_max, self._bytes_max = requests_max, bytes_max
        sender.send_ask(list(self._outstanding))
        self._send_waiting()

    def disconnect(self) -> None:
        """The connection is gone."""
        self._sender = None

    def fail(self, reason: str) -> None:
        """Gives up everything that waits for the peer."""
        waiting = [*self._short, *self._long]
        self._short.clear()
        self._long.clear()
        self._fail_outstanding(reason)
        for request in waiting:
            request.ended(LinkError(reason, maybe_done=False))

    def _fail_outstanding(self, reason: str) -> None:
        outstanding, self._outstanding = self._outstanding, {}
        self._outstanding_bytes = 0
        for request in outstanding.values():
            request.ended(LinkError(reason, maybe_done=True))

    # -- our requests ------------------------------------------------------------------------------------------------

    def request(self, request: Request) -> None:
        """Sends it as soon as there is a connection, and credit."""
        waiting = self._short if request.cost <= SHORT_BYTES else self._long
        if not waiting and self._sender is not None and self._has_credit(request):
            self._send(request, self._sender)
        elif len(waiting) < WAITING_MAX:
            waiting.append(request)
        else:
            request.ended(LinkError("too many requests wait for the other array", maybe_done=False))

    def _has_credit(self, request: Request) -> bool:
        outstanding = len(self._outstanding)
        if not outstanding:
            return True  # even what is longer than it should be
        requests_max, bytes_max = self._requests_max, self._bytes_max
        if request.cost > SHORT_BYTES:
            requests_max -= requests_max // SHORT_SHARE
            bytes_max -= bytes_max // SHORT_SHARE
        return outstanding < requests_max and self._outstanding_bytes + request.cost <= bytes_max

    def _send(self, request: Request, sender: Sender) -> None:
        request.number = self._next_number
        self._next_number += 1
        self._outstanding[request.number] = request
        self._outstanding_bytes += request.cost
        sender.send_request(request)

    def _send_waiting(self) -> None:
        """Sends what there is credit for now."""
        for waiting in (self._short, self._long):
            while waiting and self._sender is not None and self._has_credit(waiting[0]):
                self._send(waiting.popleft(), self._sender)

    def answer_came(self, number: int, payload: memoryview) -> None:
        """ANSWER: raises FrameError for one that nobody waits for."""
        request = self._outstanding.pop(number, None)
        if request is None:
            raise FrameError(f"an answer to request {number}, which waits for none")
        self._outstanding_bytes -= request.cost
        request.ended(payload)
        if self._short or self._long:
            self._send_waiting()

    def unknown_came(self, number: int) -> None:
        """UNKNOWN: the peer never took the request, or has forgotten its answer, and may carry it out again."""
        request = self._outstanding.get(number)
        if request is None or self._sender is None:
            raise FrameError(f"request {number} is unknown to both")
        self._sender.send_request(request)

    # -- requests of the peer ----------------------------------------------------------------------------------------

    def request_came(self, service: int, number: int, payload: memoryview) -> None:
        """REQUEST, all of it. Raises FrameError."""
        if not self._asked:
            raise FrameError("a request before ASK")
        if number in self.running or number in self._kept:
            raise FrameError(f"request {number} came twice")
        found = self._services.get(service)
        if found is None:
            raise FrameError(f"a request for service {service}, which there is not")
        if len(self.running) >= REQUESTS_MAX:
            raise FrameError(f"more than {REQUESTS_MAX} requests at once")
        call = Call(self, number)
        self.running[number] = call
        found(call, payload)

    def answered(
        self, call: Call, head: bytes, data: memoryview | bytes, buffer: PooledBuffer | None, keep: bool
    ) -> None:
        """See `Call.answer`."""
        if self.running.get(call.number) is not call:
            raise AssertionError("a request is answered once")
        del self.running[call.number]
        sender = self._sender if self._asked else None
        if keep:
            data = copy = bytes(data)
            self._kept[call.number] = (head, copy)
        if buffer is not None and (keep or sender is None):
            buffer.release()
            buffer = None
        if sender is not None:
            sender.send_answer(call.number, head, data, buffer)

    def delivered(self, number: int) -> None:
        """The peer has the answer to this request."""
        self._kept.pop(number, None)

    def ask_came(self, numbers: list[int]) -> None:
        """ASK: these wait for an answer, and no others. Raises FrameError for a second one."""
        sender = self._sender
        if self._asked or sender is None:
            raise FrameError("a second ASK")
        self._asked = True
        self._kept = {number: self._kept[number] for number in numbers if number in self._kept}
        for number in numbers:
            if number in self._kept:
                sender.send_answer(number, *self._kept[number], None)
            elif number not in self.running:
                sender.send_unknown(number)
