"""How quickly S-VOLs are copied to at the most, in bytes a second: a limit of each group, and one of all together.

What is under a limit asks how long it has to `wait`, and then spends what it takes, at once: so the limit holds however
many parts are under way, and a limit that is changed is the new one from then on. Only data counts: holes and zeros,
which cost the link nothing, are given back. What was not spent in time is lost but for SAVED_SECONDS of it, so that a
timer that is late costs nothing, and no burst follows on a pause.
"""

from __future__ import annotations

from collections.abc import Iterable

SAVED_SECONDS = 0.25
"""So much of the rate may be saved up, and is asked for at once."""
PART_BYTES_MIN = 16 * 1024
"""Of a part, however slow."""


class Limit:
    """`rate` bytes a second in the long run; None: there is no limit. Times are seconds of one clock."""

    def __init__(self, rate: int | None = None) -> None:
        self.rate = rate
        self._free_at = 0.0
        """When the next part may begin."""

    def change(self, rate: int | None) -> None:
        """Another rate, from now on: what was spent before counts no more."""
        if rate != self.rate:
            self.rate, self._free_at = rate, 0.0

    def wait(self, now: float) -> float:
        """Seconds until something may be spent."""
        return 0.0 if self.rate is None else max(self._free_at - now, 0.0)

    def spend(self, now: float, count: int) -> None:
        """So many bytes are asked for; it need not wait."""
        if self.rate is not None:
            self._free_at = max(self._free_at, now - SAVED_SECONDS) + count / self.rate

    def give_back(self, count: int) -> None:
        """So many of those that were spent were no data."""
        if self.rate is not None:
            self._free_at -= count / self.rate


def part_bytes(limits: Iterable[Limit], most: int) -> int:
    """Of a part under these limits: one is never long in coming, so that whoever waits is heard."""
    rates = [each.rate for each in limits if each.rate is not None]
    return min(most, max(PART_BYTES_MIN, int(min(rates) * SAVED_SECONDS))) if rates else most
