"""Which stage a group is in, by what its row shows: see `stages.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from arrayd.replication.following import Following
from arrayd.replication.group_rows import GroupRow, Mode
from arrayd.replication.journaling import Journaling
from arrayd.replication.marking import Marking
from arrayd.replication.meetings import RUNNING_STATES, SUSPENDED_AS
from arrayd.replication.stages import Stage
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import Side, State, Writes
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.replication.synchronous.receiving import Receiving
from arrayd.replication.transitions import Circumstances, pair_in


class Kinds(NamedTuple):
    """The stages there are."""

    journaling: type[Stage]
    marking: type[Stage]
    following: type[Stage]
    standing: type[Stage]
    mirroring: type[Stage]
    receiving: type[Stage]

    def of(self, row: GroupRow) -> type[Stage]:
        """The stage of a group whose pairs are of one mind (see `of_one_mind`). Where some of its volumes may be
        written and others not, none are: that is more than the rows say, and harms nothing."""
        kinds = {self._of_state(pair.state, row.mode) for pair in row.pairs}
        return kinds.pop() if len(kinds) == 1 else self.standing

    def _of_state(self, state: State, mode: Mode) -> type[Stage]:
        if state in RUNNING_STATES:
            p_vols, s_vols = self.running(mode)
            return p_vols if state.side is Side.P_VOL else s_vols
        return self.marking if state.writes is Writes.MARKED else self.standing

    def running(self, mode: Mode) -> tuple[type[Stage], type[Stage]]:
        """The stages of P-VOLs and of S-VOLs that run."""
        return (self.journaling, self.following) if mode is Mode.ASYNC else (self.mirroring, self.receiving)

    def copied_to(self, row: GroupRow) -> bool:
        """Whether it is a row of S-VOLs that run."""
        return self.of(row) in (self.following, self.receiving)


KINDS = Kinds(Journaling, Marking, Following, Standing, Mirroring, Receiving)


def of_one_mind(row: GroupRow, when: float) -> GroupRow:
    """The row of a group that runs as a whole or not at all: where some of its pairs are suspended, because the other
    side has ended one of them or was told of one alone, all are."""
    running = [pair.state in RUNNING_STATES for pair in row.pairs]
    if all(running) or not any(running):
        return row
    told = Circumstances(when)
    pairs = [
        pair_in(pair, SUSPENDED_AS[row.side] if pair.state in RUNNING_STATES else pair.state, told)
        for pair in row.pairs
    ]
    return replace(row, pairs=tuple(pairs))
