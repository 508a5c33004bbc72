"""What volumes are in use for beside hosts (pairs, journals), as the estate asks for it: such a volume is not deleted,
not resized, and its LUN is not taken away or given to another, by command or by reload.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from arrayd.config.schema import Config
from arrayd.estate.errors import Conflict
from arrayd.estate.rows import Holdings


class Uses(Protocol):
    """Who knows what volumes are in use for. It answers at once; who begins to use a volume does so in the ledger's
    turn, so that no change of the estate is under way meanwhile."""

    def holds(self, volume: str) -> str | None:
        """What the volume of this name is, and how that ends, in a few words; None: it is in no such use."""


def check_free(uses: Uses, volume: str, what: str) -> None:
    """Raises Conflict, about `what`, for a volume that is in use."""
    use = uses.holds(volume)
    if use is not None:
        raise Conflict(f"{what}: {use}" if what == f"volume {volume}" else f"{what}: volume {volume} is {use}")


def held_back(uses: Uses, old: Holdings, new: Config) -> Iterator[str]:
    """Why a configuration is not changed to this one, a line for each volume."""
    after = old.with_config(new)
    for name, volume in sorted(old.volumes.items()):
        use = uses.holds(name)
        if use is None:
            continue
        lun = old.lun_of.get(name)
        if name not in after.volumes:
            yield f"volumes.{name}: it cannot go: it is {use}"
        elif after.volumes[name].size != volume.size:
            yield f"volumes.{name}.size: it cannot change: it is {use}"
        elif lun is not None and after.lun_of.get(name) != lun:
            yield f"luns.{lun}: volume {name} cannot leave it: it is {use}"
