"""One step of a group's work at a time, for a host that drives the loop of figure 16 by itself: figures 11, 13, 14 and
16, and the pointers of figure 15."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

from arrayd.replication.journal.format import ENTRY_BYTES, METADATA_AT
from arrayd.replication.journal.regions import AuxiliaryRegions, PrimaryRegions
from arrayd.replication.stages import Stage


class Once(Protocol):
    """Work that can be done step by step."""

    def once(self) -> Awaitable[bool]:
        """One step; whether there was something to do. Raises VolumeError, JournalError, BitmapError, LinkError."""


@runtime_checkable
class Acquires(Protocol):
    """A stage that asks for the primary journal (figure 13)."""

    @property
    def acquisition(self) -> Once:
        """The work."""


@runtime_checkable
class Restores(Protocol):
    """A stage that writes its journal to the S-VOLs (figure 14)."""

    @property
    def restoration(self) -> Once:
        """The work."""


@runtime_checkable
class Copies(Protocol):
    """A stage that copies the P-VOLs (figure 11)."""

    @property
    def copying(self) -> Once:
        """The work."""


@runtime_checkable
class Purges(Protocol):
    """A stage whose journal is purged (figure 16)."""

    def purge(self) -> Awaitable[bool]:
        """Releases what the S-VOLs have; whether there was anything. Raises VolumeError, JournalError."""


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


def acquire(stage: Stage) -> Awaitable[bool] | None:
    """One journal acquisition; None: the stage acquires nothing."""
    return stage.acquisition.once() if isinstance(stage, Acquires) else None


def restore(stage: Stage) -> Awaitable[bool] | None:
    """One restoration, likewise."""
    return stage.restoration.once() if isinstance(stage, Restores) else None


def copy(stage: Stage) -> Awaitable[bool] | None:
    """One step of the copy, likewise."""
    return stage.copying.once() if isinstance(stage, Copies) else None


def purge(stage: Stage) -> Awaitable[bool] | None:
    """One purge, likewise."""
    return stage.purge() if isinstance(stage, Purges) else None


def positions(stage: Stage) -> PrimaryRegions | AuxiliaryRegions | None:
    """Those of the journal that the stage has open."""
    return stage.journal.regions if isinstance(stage, Journals) else None


def lbas(regions: PrimaryRegions | AuxiliaryRegions) -> dict[str, int]:
    """The pointers of figure 15, as LBAs of the journal's volume."""
    return regions.lbas(METADATA_AT + regions.size.entries * ENTRY_BYTES)
