"""Hosts first: which part of the event loop the journal's service takes while hosts write to the group.

To serve a record costs the array about as much as to write one. So a burst of writes is not held to the pace at which
the other side can follow: while hosts write, the service works in short pieces, and others have the loop for so long
in between that its part is small. The other side lags behind then. The further it does, in seconds or by the room of
the journal, the larger that part is, until hosts write no quicker than the other side follows: otherwise the journal of
a group that is written to all the time would be full at some time, although link and disks have nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arrayd.replication.journal.regions import PrimaryRegions

SHARE_LEAST, SHARE_MOST = 0.15, 0.8
"""Of the loop's time while hosts write: when the other side is close behind, and when it is far."""
LAG_SECONDS, LAG_SECONDS_MAX = 2.0, 5.0
"""A lag up to the first is close, from the second on it is far."""
BEHIND_SHARE, BEHIND_SHARE_MAX = 0.25, 0.5
"""The same of what the other side has not restored, as a part of the journal."""
BUSY_SECONDS = 0.05
"""Hosts write as long as there was a write so lately."""
TURN_SECONDS, TURN_SECONDS_MAX = 0.00025, 0.001
"""So long the service works at the most before others have their turn; the second when the other side is far behind."""
TURN_PIECES = 8
"""The same in pieces of work: by a clock that stands still they take no time."""
REST_SECONDS_MIN = 0.002
"""A shorter rest is put off until there is more to make good: the loop's timers are no finer."""
CREDIT_SECONDS_MAX = 0.001
"""Of time that others have had, so much is made up for later."""
RUN_RECORDS = 64
RUN_BYTES = 1024 * 1024
"""Records, and bytes of their data, that are served at once while hosts write, who wait while they are read."""


def share(lag_s: float, behind: float) -> float:
    """Of the loop's time that the service is to have while hosts write: `lag_s` is the lag in seconds, `behind` the
    part of the journal that the other side has not restored."""
    far = max(
        (lag_s - LAG_SECONDS) / (LAG_SECONDS_MAX - LAG_SECONDS),
        (behind - BEHIND_SHARE) / (BEHIND_SHARE_MAX - BEHIND_SHARE),
    )
    return SHARE_LEAST + (SHARE_MOST - SHARE_LEAST) * min(max(far, 0.0), 1.0)


class HostsFirst:
    """The pieces of work of who serves the journal of `regions`. `now` tells seconds, `share` which part of the loop's
    time they are to have."""

    def __init__(self, regions: PrimaryRegions, now: Callable[[], float], share: Callable[[], float]) -> None:
        self._regions = regions
        self._now = now
        self._share = share
        self._seen = regions.stored
        self._busy_until = 0.0
        self._since = 0.0
        """When this turn began: the pieces of work since others had theirs."""
        self._pieces = 0
        self._owed = 0.0
        """Seconds that others are still to have; negative: more than they had to have."""

    def hosts_write(self) -> bool:
        """Whether they do: whether they have, lately."""
        if self._regions.stored != self._seen:
            self._seen = self._regions.stored
            self._busy_until = self._now() + BUSY_SECONDS
        return self._now() < self._busy_until

    def begin(self) -> None:
        """A piece of work begins, after others had their turn."""
        self._since = self._now()
        self._pieces = 0

    async def turn(self) -> None:
        """Between two pieces of work: others have their turn if it is time, and what is owed to hosts."""
        self._pieces += 1
        worked = self._now() - self._since
        if not self.hosts_write():
            self._owed = 0.0
            if worked >= TURN_SECONDS or self._pieces >= TURN_PIECES:
                await asyncio.sleep(0)
                self.begin()
            return
        # Longer, and it has waited for a disk.
        owed = self._owed + min(worked, TURN_SECONDS_MAX) * (1 / self._share() - 1)
        if owed <= 0 and worked < TURN_SECONDS_MAX and self._pieces < TURN_PIECES:
            return
        ended = self._now()
        await asyncio.sleep(owed if owed >= REST_SECONDS_MIN else 0)
        self.begin()
        self._owed = max(owed - (self._since - ended), -CREDIT_SECONDS_MAX)
