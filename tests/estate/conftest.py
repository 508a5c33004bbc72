"""Whole arrays whose estate changes while they run, and ways in which the end of a change can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arrayd.array import Array
from arrayd.tables import Work
from tests.lab.array import Place, place, slow_syncs
from tests.lab.disk import disk

__all__ = ["disk", "place", "slow_syncs"]


class RefusedError(Exception):
    """What a commit ends with that fails."""


async def refuse(_work: Work) -> None:
    """A `save` that commits nothing."""
    raise RefusedError


@asynccontextmanager
async def running(place: Place, **changes: Any) -> AsyncIterator[tuple[Array, str]]:
    """A running array and its address."""
    array = Array(place.load(**changes))
    (address,) = await array.start()
    try:
        yield array, address
    finally:
        await array.stop()


def files(place: Place) -> set[str]:
    """What lies in the folder of volumes."""
    return {file.name for file in (place.folder / "state" / "volumes").iterdir()}
