"""A pair management table on a database in memory, and rows to begin with."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from arrayd.replication.group_rows import Fence, GroupRow, Mode, PairRow
from arrayd.replication.pairs import Pairs
from arrayd.replication.statuses import State, Status
from arrayd.tables import MIGRATIONS, Work
from arrayd.tables.pairs import put_group, read_pairs

PAIR_A = PairRow(0, "data", "v0", 0, "410002:v0")
PAIR_B = PairRow(1, "log", "v1", 1, "410002:v1")
GROUP = GroupRow(b"\x01" * 16, "oradb", 0, "j0", "remote", "410002", 20, 1, (PAIR_A, PAIR_B))
OTHER = GroupRow(b"\x02" * 16, "back", 1, "j1", "remote", "410002", 21, 2, (PairRow(0, "data", "v2", 2, "410002:v2"),))

PAIR_C = PairRow(0, "data", "v3", 3, "410002:v3")
MIRROR = GroupRow(b"\x03" * 16, "mirror", 2, None, "remote", "410002", None, 3, (PAIR_C,), Mode.SYNC, fence=Fence.DATA)
"""A synchronous one."""


class NotSavedError(Exception):
    """What a commit ends with that fails."""


async def fail(_work: Work) -> None:
    """A `save` that commits nothing."""
    raise NotSavedError


class Database:
    """Its tables are those that the migrations make."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys = ON")
        for statement in (statement for statements in MIGRATIONS for statement in statements):
            self.connection.execute(statement)

    async def save(self, work: Work) -> None:
        self.connection.execute("BEGIN")
        work(self.connection)
        self.connection.execute("COMMIT")

    def pairs(self) -> Pairs:
        """The table as the next daemon finds it."""
        return Pairs.of(read_pairs(self.connection, len(MIGRATIONS)))

    def holding(self, group: GroupRow, *states: State, last_epoch: int = 9) -> Pairs:
        """The table with one group, whose pairs show these."""
        pairs = tuple(
            replace(pair, state=state, error="why" if state.status is Status.PSUE else "")
            for pair, state in zip(group.pairs, states, strict=True)
        )
        row = replace(group, pairs=pairs)
        put_group(row.stored(), row.stored_pairs(pairs), (), f"{last_epoch:016x}")(self.connection)
        return self.pairs()

    def close(self) -> None:
        self.connection.close()


def shown(pairs: Pairs) -> tuple[list[GroupRow], int]:
    """All that a table knows."""
    return pairs.groups(), pairs.last_epoch
