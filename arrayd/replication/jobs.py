"""How what takes long goes on: what is done, what is left, the rate of the last while, and how long it will take.

Pure but for the times that it is told, of one clock. What is not known is None: the rate of what has hardly begun, and
of what stands still, and so how long that will take. Nothing is extrapolated over a pause.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 30.0
"""The last while: what the rate is of."""
SAMPLE_SECONDS = 1.0
"""Between two samples of it."""
SAMPLES_MAX = 32
"""As many as the last while has, and those at its ends."""
MEASURED_SECONDS = 2.0
"""The rate of less is not known yet."""
STALLED_SECONDS = 10.0
"""What has not gone on for so long stands still."""
LEFT_SECONDS_MAX = 10 * 365 * 86400.0
"""What would take longer has no end that anybody knows of."""


@dataclass(frozen=True, slots=True)
class Job:
    """Bytes that are done and those that are left, and bytes a second."""

    done: int | None = None
    """Since it began, or the array has started."""
    left: int | None = None
    rate: float | None = None
    """Of the last while."""

    @property
    def seconds_left(self) -> float | None:
        """How long what is left now takes, if it goes on like this."""
        if not self.left:
            return None if self.left is None else 0.0
        if not self.rate or self.left > self.rate * LEFT_SECONDS_MAX:
            return None
        return self.left / self.rate


class Meter:
    """Measures the rate at which something is done that began at `now`."""

    def __init__(self, now: float) -> None:
        self.done = 0
        self.restart(now)

    def restart(self, now: float) -> None:
        """It goes on otherwise from now on: the rate before says nothing of it."""
        self._samples: deque[tuple[float, int]] = deque([(now, self.done)], SAMPLES_MAX)
        """Times, and what was done before each."""
        self._moved_at = now

    def add(self, now: float, count: int) -> None:
        """So much more is done."""
        if now - self._moved_at > STALLED_SECONDS:
            self.restart(now)
        self._moved_at = now
        if now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((now, self.done))
        self.done += count

    def rate(self, now: float) -> float | None:
        """A second, in the last while; None: it is not known, or nothing goes on."""
        samples = self._samples
        while len(samples) > 1 and samples[1][0] <= now - WINDOW_SECONDS:
            samples.popleft()
        begun, before = samples[0]
        if now - begun < MEASURED_SECONDS or now - self._moved_at > STALLED_SECONDS or self.done == before:
            return None
        return (self.done - before) / (now - begun)
