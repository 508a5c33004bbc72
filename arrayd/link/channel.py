"""Requests and answers between two arrays, over one connection after another, without I/O.

A channel lives as long as both arrays do; connections come and go. What was not answered when one was cut is asked for
on the next: each side begins with ASK, a list of the requests it waits for. The other sends answers that it has kept,
says UNKNOWN of those that it never took, and they are sent again, under the same number. So nothing is executed twice,
and no answer is lost. Only what changed nothing (a READ that went well) has its answer not kept, and is done again. An
array that started again has another incarnation: then everything that was under way fails, and ends, before it is
talked to.

Flow control is by credit. Each side says in the handshake how many requests it takes at once, and how many bytes these
and their answers may come to; an answer gives the credit back. So each side can always take in what comes, and none
waits for the other to read. Who sends more than that ends the connection. A part of the credit is for short requests
alone: a copy never starves a command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.link.asking import HEAD_BYTES_MAX as HEAD_BYTES_MAX
from arrayd.link.asking import MESSAGE_BYTES_MAX as MESSAGE_BYTES_MAX
from arrayd.link.asking import Asking as Asking
from arrayd.link.asking import LinkError as LinkError
from arrayd.link.asking import Request as Request
from arrayd.link.frames import FrameError
from arrayd.link.serving import BYTES_MAX as BYTES_MAX
from arrayd.link.serving import REQUESTS_MAX as REQUESTS_MAX
from arrayd.link.serving import Call as Call
from arrayd.link.serving import Data as Data
from arrayd.link.serving import Done as Done
from arrayd.link.serving import Sender as Sender
from arrayd.link.serving import Service as Service
from arrayd.link.serving import Serving
from arrayd.link.serving import Source as Source
from arrayd.log import get_logger

SHORT_BYTES = 64 * 1024
"""A request that is no longer, with its answer, may use the last of the credit."""
POOL_BYTES = 2 * BYTES_MAX
"""Memory of long messages that come; a buffer is up to twice as long as what it is for."""
DATA_AT = HEAD_BYTES_MAX
"""Where the data of a long message lies in its buffer: at the beginning of a page. Its head lies right before."""
GIVEN_UP = "nobody waits for it any more"
SHORT_SHARE = 8
"""One part in so many of the credit is for short requests."""
WAITING_MAX = 4096
"""Requests of a kind, short or long, that wait for credit or for a connection; one more fails."""

log = get_logger("link")


class Channel(Serving):
    """Our end of what goes on with one peer. `services` are by their number in REQUEST frames; long messages are
    received into `buffers`."""

    def __init__(self, services: Mapping[int, Service], buffers: BufferPool | None = None) -> None:
        super().__init__(services)
        self.buffers = buffers or BufferPool(POOL_BYTES)
        self.incarnation = 0
        """Of the peer that we talk to; 0: none so far."""
        self._requests_max = 0
        self._bytes_max = 0
        self._next_number = 1
        self._outstanding: dict[int, Asking] = {}
        """Requests that were sent, or begun to be, by number: they may have reached the peer."""
        self._outstanding_bytes = 0
        self._short: deque[Asking] = deque()
        self._long: deque[Asking] = deque()
        """Requests that wait for credit or for a connection, each kind in order."""

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
            self._kept_bytes = 0
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
            request.end(LinkError(reason, maybe_done=True))

    # -- our requests ------------------------------------------------------------------------------------------------

    def request(self, request: Asking) -> None:
        """Sends it as soon as there is a connection, and credit."""
        waiting = self._short if request.cost <= SHORT_BYTES else self._long
        if not waiting and self._sender is not None and self._has_credit(request):
            self._send(request, self._sender)
        elif len(waiting) < WAITING_MAX:
            waiting.append(request)
        else:
            request.ended(LinkError("too many requests wait for the other array", maybe_done=False))

    def request_at_once(self, request: Asking) -> bool:
        """Sends a short request now, or returns False. Of all that is here this is the hottest."""
        sender, outstanding = self._sender, self._outstanding
        cost = request.cost
        taken = self._outstanding_bytes + cost
        if (
            sender is None
            or self._short
            or cost > SHORT_BYTES
            or len(outstanding) >= self._requests_max
            or taken > self._bytes_max
        ):
            return False
        request.number = number = self._next_number
        self._next_number = number + 1
        outstanding[number] = request
        self._outstanding_bytes = taken
        sender.send_request(request)
        return True

    def _has_credit(self, request: Asking) -> bool:
        outstanding, cost = len(self._outstanding), request.cost
        requests_max, bytes_max = self._requests_max, self._bytes_max
        if cost > SHORT_BYTES:
            requests_max -= requests_max // SHORT_SHARE
            bytes_max -= bytes_max // SHORT_SHARE
        if outstanding < requests_max and self._outstanding_bytes + cost <= bytes_max:
            return True
        return not outstanding  # even what is longer than it should be

    def _send(self, request: Asking, sender: Sender) -> None:
        request.number = number = self._next_number
        self._next_number = number + 1
        self._outstanding[number] = request
        self._outstanding_bytes += request.cost
        sender.send_request(request)

    def _send_waiting(self) -> None:
        """Sends what there is credit for now."""
        for waiting in (self._short, self._long):
            while waiting and self._sender is not None and self._has_credit(waiting[0]):
                request = waiting.popleft()
                if request.wanted():
                    self._send(request, self._sender)
                else:
                    request.ended(LinkError(GIVEN_UP, maybe_done=False))

    def answer_came(self, number: int, payload: memoryview) -> None:
        """ANSWER, all of it, and short: raises FrameError for one that nobody waits for, or that is malformed."""
        request = self._outstanding.get(number)
        if request is None or request.buffer is not None or (request.cost > SHORT_BYTES and self._sends(number)):
            raise FrameError(f"an answer to request {number}, which waits for none")
        del self._outstanding[number]
        self._outstanding_bytes -= request.cost
        request.ended(payload if len(payload) <= request.expects else _too_long(request, len(payload)))
        if self._short or self._long:
            self._send_waiting()

    def request_begins(self, head_bytes: int, length: int) -> PooledBuffer:
        """A long REQUEST begins to come, with `length` bytes of data: what it is to lie in. It takes of the peer's
        credit from now on. Raises FrameError."""
        self.take(head_bytes + length)
        return self._place(length)

    def answer_begins(self, number: int, head_bytes: int, length: int) -> PooledBuffer | None:
        """A long ANSWER begins to come, with `length` bytes of data: what it is to lie in, the head right before
        `DATA_AT`. None: it is to be dropped, since it is longer than what was asked for. Raises FrameError for one that
        nobody waits for."""
        request = self._outstanding.get(number)
        if request is None or self._sends(number):
            raise FrameError(f"an answer to request {number}, which waits for none")
        if head_bytes + length > request.expects:
            # It ends here and now: asked for on the next connection, the same answer would come, and end that, too.
            self._over(request, _too_long(request, head_bytes + length))
            return None
        request.buffer = self._place(length)
        return request.buffer

    def _place(self, length: int) -> PooledBuffer:
        """What a long message lies in, with `length` bytes of data."""
        buffer = self.buffers.take_beyond(DATA_AT + length, POOL_BYTES)
        assert buffer is not None, "credit bounds what a peer may have here, and what we asked for"
        return buffer

    def answer_comes(self, number: int, head: memoryview, data: memoryview, come: int) -> None:
        """The first `come` bytes of the data of a long ANSWER are there."""
        self._outstanding[number].comes(head, data, come)

    def answer_is_there(self, number: int, answer: memoryview) -> None:
        """All of a long ANSWER is there. Raises FrameError for one that is malformed."""
        self._over(self._outstanding[number], answer)

    def answer_broke_off(self, number: int) -> None:
        """A long ANSWER will not come to its end: it is asked for again on the next connection."""
        request = self._outstanding[number]
        assert request.buffer is not None
        request.buffer.release()
        request.buffer = None

    def _sends(self, number: int) -> bool:
        """Whether a request has not wholly gone: there can be no answer to it, and its data must stay."""
        return self._sender is not None and self._sender.sends(number)

    def unknown_came(self, number: int) -> None:
        """UNKNOWN: the peer never took the request, or has forgotten its answer, and may carry it out again."""
        request = self._outstanding.get(number)
        if request is None or self._sender is None or request.buffer is not None or self._sends(number):
            raise FrameError(f"request {number} is unknown to both")
        if request.wanted():
            self._sender.send_request(request)
            return
        self._over(request, LinkError(GIVEN_UP, maybe_done=False))

    def _over(self, request: Asking, answer: memoryview | LinkError) -> None:
        """It is outstanding no more, and ends with this: what waits may go."""
        del self._outstanding[request.number]
        self._outstanding_bytes -= request.cost
        request.end(answer)
        self._send_waiting()


def _too_long(request: Asking, length: int) -> LinkError:
    """Nobody knows what it says, but that the request was carried out."""
    log.error("answer dropped", bytes=length, expected=request.expects)
    return LinkError(f"an answer of {length} bytes, where {request.expects} were expected at most", maybe_done=True)
