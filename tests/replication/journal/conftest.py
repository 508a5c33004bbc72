"""Files and volumes on a real disk for all tests of journals."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab.disk import MIB, disk, held, open_file, threads
from tests.replication.lossy import Disk, LossyVolume

__all__ = ["disk", "held", "open_file", "threads", "volume"]


@pytest.fixture
async def volume(disk: Path) -> AsyncIterator[LossyVolume]:
    async with Disk(disk / "journal", MIB).volume() as made:
        yield made
