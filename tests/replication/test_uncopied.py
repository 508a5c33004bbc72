"""P-VOLs that were suspended in COPY: what was left of it is marked at the other side, which this one says it lacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from arrayd.replication.group_rows import GroupRow, PeerRows
from arrayd.replication.statuses import Event, Operation, State
from arrayd.replication.transitions import Circumstances
from tests.replication.tables import GROUP, OTHER, Database


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.close()


async def test_p_vols_that_are_suspended_in_copy_say_so_until_they_are_copied_again(database: Database) -> None:
    """What is left to be copied is marked at the other side: this one alone does not know it."""
    pairs = database.holding(GROUP, State.P_COPY, State.P_PAIR)
    for happening, uncopied in (
        (Operation.PAIRSPLIT, [True, False]),
        (Event.ERROR, [True, False]),
        (Operation.PAIRRESYNC, [False, False]),
        (Event.ERROR, [True, True]),
    ):
        peer = PeerRows({0: State.S_SSUS, 1: State.S_SSUS}, pairs.groups()[0].generation)
        told = None if happening is not Operation.PAIRRESYNC else peer
        at = Circumstances(1.0, "why" if happening is Event.ERROR else "", pairs.last_epoch + 1 if told else None)
        assert isinstance(await pairs.happen("oradb", happening, told, at, database.save), GroupRow)
        assert [pair.uncopied for pair in database.pairs().groups()[0].pairs] == uncopied
    s_vols = database.holding(OTHER, State.S_COPY)
    await s_vols.happen("back", Event.ERROR, None, Circumstances(7.0), database.save)
    assert not s_vols.groups()[0].pairs[0].uncopied, "they have what is left in their own bitmaps"
