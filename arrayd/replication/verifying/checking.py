"""Looks through the records that a journal has on its disk: each is to be what was written, chained to the one before.

Records are purged, or restored, and written over meanwhile: what is found damaged and has gone by then was not.
"""

from __future__ import annotations

import asyncio

from arrayd.replication.journal import AuxiliaryJournal, JournalDamaged, JournalError, Position, PrimaryJournal
from arrayd.replication.journal.format import WRITE_BYTES_MAX, chain_next
from arrayd.replication.journal.journal import in_turns
from arrayd.replication.verifying.formats import Checked

CHECK_BYTES = 8 * 1024 * 1024
"""About so much is looked through for one question."""

assert CHECK_BYTES >= WRITE_BYTES_MAX


class Checking:
    """Looks through `journal`, part by part."""

    def __init__(self, journal: PrimaryJournal | AuxiliaryJournal) -> None:
        self.journal = journal
        self._at: Position | None = None
        self._chain = b""
        """The hash over all before that."""

    async def part(self, at: Position) -> Checked:
        """Looks on from `at`, where the part before has ended, or from the oldest record on. Raises VolumeError."""
        regions = self.journal.regions
        end = regions.synced
        try:
            if at < regions.oldest or self._at != at:
                at = self._at = regions.oldest
                self._chain = await self.journal.chain(at)
            done = at.byte
            while at != end and at.byte - done < CHECK_BYTES:
                at = await self._run(at, end)
        except JournalError as error:
            begun, self._at = self._at, None
            # The regions move before a record is written over.
            if begun is None or begun < regions.oldest:
                return Checked(regions.oldest, end)
            return Checked(end, end, f"{self.journal.role.name.lower()} journal: {error}")
        return Checked(at, end)

    async def _run(self, at: Position, end: Position) -> Position:
        """One run of records; where it ends."""
        records = await self.journal.read_through(at, end)
        done = 0
        for part, _ in in_turns([record.entry for record in records]):
            for record in records[done : done + len(part)]:
                self._chain = chain_next(self._chain, record)
            done += len(part)
            await asyncio.sleep(0)
        at = self._at = records[-1].entry.end
        known = self.journal.chain_known(at)
        if known is not None and known != self._chain:
            raise JournalDamaged(f"the records before {at.sequence} are chained otherwise than they were")
        return at
