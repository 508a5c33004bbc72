"""What a connection has to send: bytes of its own, and between them data that is sent from where it lies.

PDUs and frames are packed into one page-aligned piece of memory. Large data is not copied there: it becomes a segment,
a pooled buffer or a range of a file, in its place in the stream. `iscsi/server.py` and `link/transport.py` drain it.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from arrayd.scsi.task import FileExtent

OUTPUT_BYTES = (256 + 32) * 1024
"""Four answers of 64 KiB with their headers in one send: with fewer each send wakes the initiator early, with more its
copy of them finds nothing in the processor's cache any more."""
SEGMENTS_MAX = 256
"""Segments that may wait to be sent; beyond it no response is begun."""
GATHER_MAX = 64
"""Pieces of memory in one sendmsg(2)."""


@dataclass(slots=True)
class OwnBytes:
    """`memory[start:end]` of the output itself."""

    start: int
    end: int


class Releasable(Protocol):
    """Who waits until data is sent; a buffer that it lies in, most often."""

    def release(self) -> None:
        """It is, or will not be; called once."""


@dataclass(slots=True)
class Outside:
    """Memory outside the output. `buffer` is released when all of `view` is sent, or will not be."""

    view: memoryview
    buffer: Releasable | None


Segment = OwnBytes | Outside | FileExtent


class Output:
    """Bytes `head` to `tail` of `memory`, less what `segments` say: these come first, in order, and hold all the bytes
    of `memory` up to `mark`."""

    __slots__ = ("head", "mark", "memory", "outside_bytes", "segments", "tail", "view")

    def __init__(self, size: int = OUTPUT_BYTES) -> None:
        self.memory = mmap.mmap(-1, size)
        self.view = memoryview(self.memory)
        self.head = 0
        self.tail = 0
        self.mark = 0
        self.segments: deque[Segment] = deque()
        self.outside_bytes = 0
        """Bytes that were attached and are not sent yet."""

    @property
    def room(self) -> int:
        """Bytes that can still be packed."""
        return len(self.view) - self.tail

    @property
    def empty(self) -> bool:
        """Whether all is sent."""
        return self.head == self.tail and not self.segments

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Copies `data` to the end; the caller knows that there is room."""
        end = self.tail + len(data)
        self.view[self.tail : end] = data
        self.tail = end

    def attach(self, segment: Outside | FileExtent) -> None:
        """Puts `segment` behind what is packed so far."""
        self._close_own()
        self.segments.append(segment)
        self.outside_bytes += len(segment.view) if isinstance(segment, Outside) else segment.length

    def _close_own(self) -> None:
        start = self.mark if self.segments or self.mark > self.head else self.head
        if self.tail > start:
            self.segments.append(OwnBytes(start, self.tail))
        self.mark = self.tail

    def reset(self) -> None:
        """Starts over: everything is sent."""
        self.head = self.tail = self.mark = 0

    def gathered(self) -> tuple[list[memoryview], int, bool]:
        """The segments at the front that lie in memory, their bytes in all, and whether a file extent is next."""
        views: list[memoryview] = []
        total = 0
        for segment in self.segments:
            if isinstance(segment, FileExtent):
                return views, total, True
            view = self.view[segment.start : segment.end] if isinstance(segment, OwnBytes) else segment.view
            views.append(view)
            total += len(view)
            if len(views) == GATHER_MAX:
                break
        return views, total, False

    def sent(self, count: int) -> None:
        """Notes that `count` bytes of the segments at the front, all of them in memory, went out."""
        segments = self.segments
        while count:
            first = segments[0]
            if isinstance(first, OwnBytes):
                length = first.end - first.start
                if count < length:
                    first.start += count
                    self.head = first.start
                    return
                self.head = first.end
            elif isinstance(first, Outside):
                length = len(first.view)
                self.outside_bytes -= min(count, length)
                if count < length:
                    first.view = first.view[count:]
                    return
                first.view = memoryview(b"")
                if first.buffer is not None:
                    first.buffer.release()
            else:
                raise AssertionError("a file extent is sent on its own")
            segments.popleft()
            count -= length

    def sent_from_file(self, count: int) -> None:
        """Notes that `count` bytes of the file extent at the front went out."""
        extent = self.segments[0]
        assert isinstance(extent, FileExtent)
        extent.offset += count
        extent.length -= count
        self.outside_bytes -= count
        if extent.length == 0:
            self.segments.popleft()

    def discard(self) -> None:
        """Gives back what the unsent segments hold; the connection is gone."""
        for segment in self.segments:
            if isinstance(segment, Outside):
                segment.view = memoryview(b"")
                if segment.buffer is not None:
                    segment.buffer.release()
        self.segments.clear()
        self.outside_bytes = 0
        self.reset()
