"""The stage `journaling`: stands in for the file of this name until that is put in its place."""

from __future__ import annotations

from arrayd.replication.group_rows import GroupRow
from arrayd.replication.stages import Stage
from arrayd.replication.statuses import Refusal


class Journaling(Stage):
    """Does nothing."""

    async def prepare(self, found: bool = False) -> None:
        """See `Stage.prepare`."""

    async def enter(self) -> None:
        """See `Stage.enter`."""

    async def stop(self, row: GroupRow | None) -> Refusal | None:
        """See `Stage.stop`."""
        return None

    async def close(self) -> None:
        """See `Stage.close`."""
