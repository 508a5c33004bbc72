"""The task that exchanges the rows of one group with the other array (MEET): at once when its row has changed, and
about once a second; less often where its stage asks the other side anyway.

A question, or an answer, that this side's row has overtaken is dropped, and asked again.
"""

from __future__ import annotations

import asyncio

from arrayd.link.channel import LinkError
from arrayd.replication.asking import Outcome, Refused, decode_met, meet
from arrayd.replication.at_work import AtWork
from arrayd.replication.group_rows import GroupRow, PeerRows
from arrayd.replication.journal import FormatError
from arrayd.replication.stages import Ask

MEET_SECONDS = 1.0
FOLLOWING_SECONDS = 5.0
"""Between two questions while S-VOLs follow: who has the P-VOLs asks meanwhile."""
ANSWER_SECONDS = 4.0
"""A question that is not answered in time is given up: what it says may not be so any more."""
ANSWER_BYTES = 4096
"""What the answer may come to: the rows of PAIRS_MAX pairs."""


class Meeting:
    """The meetings of one group."""

    def __init__(self, at_work: AtWork, ask: Ask) -> None:
        self._at_work = at_work
        self._ask = ask
        self._again = asyncio.Event()
        at_work.changed = self._again.set

    async def run(self) -> None:
        """Meets until it is cancelled."""
        while True:
            self._again.clear()
            row = self._at_work.row
            rows = None if row is None else await self._unless_changed(row)
            if rows is not None:
                self._at_work.seen(rows)
            try:
                async with asyncio.timeout(FOLLOWING_SECONDS if self._at_work.following else MEET_SECONDS):
                    await self._again.wait()
            except TimeoutError:
                continue

    async def _unless_changed(self, row: GroupRow) -> PeerRows | None:
        """What the other side shows, if it says so in time, and this side's row has not changed meanwhile."""
        asking = asyncio.ensure_future(self._met(row))
        changed = asyncio.ensure_future(self._again.wait())
        try:
            await asyncio.wait((asking, changed), timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (asking, changed):
                each.cancel()
            await asyncio.gather(asking, changed, return_exceptions=True)
        return None if asking.cancelled() or self._again.is_set() else asking.result()

    async def _met(self, row: GroupRow) -> PeerRows | None:
        try:
            return decode_met((await self._ask(row.peer, meet(row.id, self._at_work.rows()), ANSWER_BYTES)).kept())
        except Refused as refusal:
            return PeerRows() if refusal.outcome is Outcome.NO_GROUP else None
        except (LinkError, FormatError):
            return None
