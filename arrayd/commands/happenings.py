"""What the array notes in its event log by itself: links that come and go, volumes that fail, and who was refused."""

from __future__ import annotations

from collections.abc import Callable

from arrayd.commands.events import Events
from arrayd.estate.estate import Estate
from arrayd.origin import Origin

REFUSED_SECONDS = 60.0
"""So often at the most is it noted that the same one was refused."""
REFUSED_MAX = 64
"""Refused ones that are told apart; what others there are is not noted for a while."""


class Happenings:
    """Notes them in `events`; `now()` is the time in seconds."""

    def __init__(self, events: Events, now: Callable[[], float]) -> None:
        self._events = events
        self._now = now
        self._refused: dict[tuple[str, tuple[str, ...]], float] = {}
        self._failed: set[str] = set()

    def link_changed(self, array: str, reason: str | None) -> None:
        """A connection has come, or gone for this reason."""
        if reason is None:
            self._events.add("info", "link", f"link with {array} up", array=array)
        else:
            self._events.add("warning", "link", f"link with {array} down: {reason}", array=array)

    def refused(self, origin: Origin, reason: str) -> None:
        """Somebody may not command this array, and tried."""
        now, who = self._now(), (origin.name, origin.path)
        self._refused = {who: at for who, at in self._refused.items() if now - at < REFUSED_SECONDS}
        if who not in self._refused and len(self._refused) < REFUSED_MAX:
            self._refused[who] = now
            self._events.add("warning", "command", f"command refused: {reason}", origin=origin.name, path=origin.path)

    def look_at(self, estate: Estate) -> None:
        """Notes volumes that have failed since the last look."""
        failed = {row.name for row in estate.volumes.rows() if row.state == "failed"}
        for name in sorted(failed - self._failed):
            self._events.add("error", "volume", f"volume {name} failed: it is not written any more", volume=name)
        self._failed = failed
