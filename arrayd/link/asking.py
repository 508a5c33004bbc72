"""Requests of ours, as whoever asks sees them."""

from __future__ import annotations

from collections.abc import Callable

from arrayd.buffers import PooledBuffer

HEAD_BYTES_MAX = 4096
"""Longest head of a request or an answer: it goes in one frame, and lies right before the data where it is received."""
MESSAGE_BYTES_MAX = 8 * 1024 * 1024 + HEAD_BYTES_MAX
"""Longest request or answer: the longest transfer of a SCSI command, and what says which."""


class LinkError(Exception):
    """A request has no answer; the text says why. `maybe_done`: whether it may have been carried out."""

    def __init__(self, reason: str, maybe_done: bool) -> None:
        super().__init__(reason)
        self.maybe_done = maybe_done


class Asking:
    """One request of ours: `head` and `data` are its payload, and stay as they are until `ended`. `expects` is the most
    that its answer comes to, in bytes: one that is longer is dropped, and the request has failed."""

    __slots__ = ("buffer", "cost", "data", "expects", "head", "number", "service")

    def __init__(self, service: int, head: bytes, data: memoryview | bytes, expects: int) -> None:
        assert len(head) <= HEAD_BYTES_MAX, "a head is short"
        self.service = service
        self.head = head
        self.data = data
        self.expects = expects
        self.cost = len(head) + len(data) + expects
        self.number = 0
        self.buffer: PooledBuffer | None = None
        """What a long answer lies in, from when it begins to come. Who wants it for longer than `ended` takes it from
        here then, and releases it; who wants it before that has a share."""

    def wanted(self) -> bool:
        """Whether it shall be sent still, or again. What nobody waits for any more must not be carried out late: who
        asked may have asked for something else since, and by another way."""
        return True

    def comes(self, head: memoryview, data: memoryview, come: int) -> None:
        """Called while a long answer comes: its head, and where all of its data will be; the first `come` bytes of that
        are there, intact. It may break off, and another one come from the beginning, to another buffer."""

    def ended(self, answer: memoryview | LinkError) -> None:
        """Called once: with the answer's payload, which lasts as long as the call, or with a LinkError. Raises
        FrameError, and has ended all the same, if the answer is none."""
        raise NotImplementedError

    def end(self, answer: memoryview | LinkError) -> None:
        """Ends it, and releases the buffer unless it was taken. Raises FrameError as `ended` does."""
        try:
            self.ended(answer)
        finally:
            if self.buffer is not None:
                self.buffer.release()
                self.buffer = None


class Request(Asking):
    """A request that calls `ended(answer)`, and asks `wanted()`: see Asking."""

    __slots__ = ("_ended", "_wanted")

    def __init__(
        self,
        service: int,
        head: bytes,
        data: memoryview | bytes,
        expects: int,
        ended: Callable[[memoryview | LinkError], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(service, head, data, expects)
        self._ended = ended
        self._wanted = wanted

    def wanted(self) -> bool:
        """See Asking."""
        return self._wanted()

    def ended(self, answer: memoryview | LinkError) -> None:
        """See Asking."""
        self._ended(answer)
