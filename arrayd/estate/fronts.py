"""What hosts see of each volume: the volume itself, or another in front of it, the same disk by another way.

Pairs put one there (`show`): its writes are journaled, marked or refused. A volume that is there for a journal
(`use: journal`) is always seen guarded: a host reads it, and does not write to it.
"""

from __future__ import annotations

from arrayd.estate.ledger import Ledger
from arrayd.estate.units import Units
from arrayd.estate.volumes import Volumes
from arrayd.replication.guarded import GuardedVolume
from arrayd.volumes.volume import Volume


class Fronts:
    """Of all volumes."""

    def __init__(self, ledger: Ledger, volumes: Volumes, units: Units) -> None:
        self._ledger = ledger
        self._volumes = volumes
        self._units = units
        self._shown: dict[str, Volume] = {}
        self._guarded: dict[str, GuardedVolume] = {}
        """Volumes of journals: the same object as long as the volume is open."""

    def of(self, name: str) -> Volume:
        """What hosts see of a volume that is open."""
        return self._shown.get(name) or self._by_itself(name)

    def _by_itself(self, name: str) -> Volume:
        """What they see of one that nobody shows by another way."""
        volume = self._volumes.opened[name]
        if self._ledger.held.volumes[name].use != "journal":
            return volume
        guarded = self._guarded.get(name)
        if guarded is None or guarded.volume is not volume:
            opened = self._volumes.opened
            self._guarded = {other: each for other, each in self._guarded.items() if opened.get(other) is each.volume}
            guarded = self._guarded[name] = GuardedVolume(volume)
        return guarded

    async def show(self, name: str, volume: Volume | None) -> None:
        """Hosts see `volume` in the place of the volume `name` at once, wherever it is mapped and will be; None: the
        volume itself, which must stay open until then. What waited in the volume that they saw goes by this one.
        Returns when all that was handed to that one before is in the volume, or goes by this one, too."""
        old = self.of(name)
        if volume is None:
            self._shown.pop(name, None)
        else:
            self._shown[name] = volume
        new = self.of(name)
        if new is not old:
            self._units.target.replace(old, new)
            old.replace(new)
        # Writes that began before are done, or have a place among the locks of the volume, and whoever compares and
        # writes has one, too. Later ones wait behind this one, for as long as those take.
        below = self._volumes.opened[name]
        async with below.lock(0, below.size):
            return
