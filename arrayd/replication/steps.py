"""One step of a group's work at a time, for a host that drives the loop of figure 16 by itself: figures 11, 13, 14 and
16, and the pointers of figure 15.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from arrayd.replication.journal.format import ENTRY_BYTES, METADATA_AT
from arrayd.replication.journal.regions import AuxiliaryRegions, PrimaryRegions
from arrayd.replication.stages import Stage

Step = Callable[[], Awaitable[bool]]
"""One step; whether there was something to do. Raises VolumeError, JournalError, BitmapError; where the other side is
asked LinkError, Refused and FormatErrors, too, and Stopped."""


@runtime_checkable
class Follows(Protocol):
    """A stage of S-VOLs that run: see `following.py`."""

    def acquire(self) -> Awaitable[bool]:
        """Figure 13."""

    def restore(self) -> Awaitable[bool]:
        """Figure 14."""

    def copy(self) -> Awaitable[bool]:
        """Figure 11."""


@runtime_checkable
class Purges(Protocol):
    """A stage whose journal is purged (figure 16)."""

    def purge(self) -> Awaitable[bool]:
        """Releases what the S-VOLs have."""


class Laid(Protocol):
    """A journal that is open."""

    @property
    def regions(self) -> PrimaryRegions | AuxiliaryRegions:
        """Its positions."""


@runtime_checkable
class Journals(Protocol):
    """A stage that has a journal open."""

    @property
    def journal(self) -> Laid:
        """It."""


def acquire(stage: Stage) -> Step | None:
    """One journal acquisition; None: the stage acquires nothing."""
    return stage.acquire if isinstance(stage, Follows) else None


def restore(stage: Stage) -> Step | None:
    """One restoration, likewise."""
    return stage.restore if isinstance(stage, Follows) else None


def copy(stage: Stage) -> Step | None:
    """One step of the copy, likewise."""
    return stage.copy if isinstance(stage, Follows) else None


def purge(stage: Stage) -> Step | None:
    """One purge, likewise."""
    return stage.purge if isinstance(stage, Purges) else None


def positions(stage: Stage) -> PrimaryRegions | AuxiliaryRegions | None:
    """Those of the journal that the stage has open."""
    return stage.journal.regions if isinstance(stage, Journals) else None


def lbas(regions: PrimaryRegions | AuxiliaryRegions) -> dict[str, int]:
    """The pointers of figure 15, as LBAs of the journal's volume."""
    return regions.lbas(METADATA_AT + regions.size.entries * ENTRY_BYTES)
