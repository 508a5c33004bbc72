"""What the side with the P-VOLs knows of a copy: the other side pulls it, and says how it goes as it asks anyway.

It comes behind FOLLOW, once a second. A side that is older does not tell it, or passes it over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from struct import Struct

from arrayd.replication.copying import Copying
from arrayd.replication.group_rows import PAIRS_MAX
from arrayd.replication.jobs import Job
from arrayd.replication.journal.format import FormatError
from arrayd.replication.stages import Progress

TELL_SECONDS = 1.0
"""Between two times that it is told."""
STALE_SECONDS = 5.0
"""After so long without a word nobody knows whether the copy goes on. What is left is still left: nothing is copied
without this side."""
UNKNOWN = (1 << 64) - 1
"""Stands for a number that is not known."""

HEAD, PAIR = Struct(">QQQH"), Struct(">HQ")
"""Bytes done and left, bytes a second, number of pairs; of each of these its number, and bytes that are left."""


@dataclass(frozen=True, slots=True)
class CopyTold:
    """A copy as it is told: all of it, and what is left of each pair by its number, where that is known."""

    job: Job = field(default_factory=Job)
    left: Mapping[int, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As it is behind FOLLOW."""
        rate = None if self.job.rate is None else round(self.job.rate)
        numbers = (UNKNOWN if each is None else each for each in (self.job.done, self.job.left, rate))
        pairs = b"".join(PAIR.pack(*each) for each in sorted(self.left.items()))
        return HEAD.pack(*numbers, len(self.left)) + pairs

    @classmethod
    def decode(cls, told: bytes) -> CopyTold:
        """Raises FormatError."""
        if len(told) < HEAD.size:
            raise FormatError("what is told of a copy is cut short")
        *numbers, count = HEAD.unpack_from(told)
        if count > PAIRS_MAX or len(told) != HEAD.size + count * PAIR.size:
            raise FormatError(f"what is told of a copy: {count} pairs in {len(told)} bytes")
        job = Job(*(None if each == UNKNOWN else each for each in numbers))
        return cls(job, dict(PAIR.iter_unpack(told[HEAD.size :])))


class Telling:
    """What the side with the S-VOLs tells of the copy that there is, if there is one."""

    def __init__(self, copying: Callable[[], Copying | None], now: Callable[[], float]) -> None:
        self._copying = copying
        self._now = now
        self._told_at: float | None = None

    def __call__(self) -> bytes:
        """What goes behind the FOLLOW that is asked now; empty: nothing new."""
        copying, now = self._copying(), self._now()
        if copying is None or (self._told_at is not None and now - self._told_at < TELL_SECONDS):
            return b""
        self._told_at = now
        return CopyTold(copying.job, copying.left).encode()


class Heard:
    """What the side with the P-VOLs was told last; nothing of a pair that it was not told of."""

    def __init__(self) -> None:
        self._told = CopyTold()
        self._at = 0.0

    def hear(self, told: bytes, now: float) -> None:
        """What was behind a FOLLOW. Raises FormatError."""
        if told:
            self._told, self._at = CopyTold.decode(told), now

    def progress(self, progress: Progress, now: float) -> Progress:
        """How a group goes in COPY, beside what is known of it otherwise."""
        job = self._told.job
        if now - self._at > STALE_SECONDS:
            job = replace(job, rate=None)
        return replace(progress, copying=job, differing=self._told.left or None)
