"""The pair management table (1001, figure 10) in memory: it answers at once, and changes only with a committed Work.

One change of a group at a time. Each computes what the rows are to be, has done what has to come before they say so
(`between`: a stage ends, another one gets ready), has them committed by `save`, together with whatever else its caller
wants committed (the answer to a command), and only then shows them. What the table of statuses or the rules of meetings
refuse is not stored. Whoever gives up waiting does not call a change back: what is committed is also shown.

A volume is in one pair, and a journal is one group's; synchronous groups have none. A second leg (three sites) will be
a group of its own, with the same name and volumes: `of_volume` tells of several pairs already, and the indexes of the
tables are made anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from arrayd.replication.group_rows import (
    EPOCH_MAX,
    Driver,
    GroupRow,
    PairRow,
    PeerRows,
    groups_of,
    stored_epoch,
)
from arrayd.replication.journal.regions import START
from arrayd.replication.meetings import RUNNING_STATES, Age
from arrayd.replication.statuses import Happening, Operation, Refusal, Side, State, follows
from arrayd.replication.transitions import (
    COPIES,
    HEARD,
    NOT_MET,
    Circumstances,
    learned,
    moved,
    pair_in,
    sides_differ,
    what_follows,
)
from arrayd.tables.changes import Work
from arrayd.tables.pairs import StoredPairs, drop_group, put_group, use_epoch
from arrayd.turns import CHANGES_MAX, Turns

GROUPS_MAX = 256
"""As many as there are CTG numbers."""

Save = Callable[[Work], Awaitable[None]]
"""Commits a change of the tables, durably, with whatever else is to be committed. Raises what it likes; then nothing
is."""

Between = Callable[[GroupRow | None, GroupRow | None], Awaitable[GroupRow | None]]
"""`await between(old, new)` does what must be done before a row of a group is committed, which may take its time; the
row that is, with what else is known then. None: no row. Raises what it likes; then nothing is committed."""

Outcome = GroupRow | Refusal | None
"""What became of a group: the row from then on, or why it stays as it was, or None: there is no such group any more."""

NOT_ALONE = Refusal("the pairs of a group change places together: again for the whole group")


class PairsError(Exception):
    """A row that cannot be made: nothing was changed. One line, for people."""


class Pairs:
    """The rows of this array."""

    def __init__(self, groups: list[GroupRow] | None = None, last_epoch: int = 0) -> None:
        self._groups = {group.name: group for group in groups or ()}
        self.last_epoch = last_epoch
        """The greatest that a journal of this array ever had or was to have, or its group before."""
        self._turns: dict[str, Turns] = {}
        self._ending: Counter[str] = Counter()
        """Volumes of groups of which pairs are being ended, by how many such changes are under way."""
        self._making = asyncio.Lock()
        """One new group at a time: it is compared with all others."""
        self._index()

    @classmethod
    def of(cls, stored: StoredPairs) -> Pairs:
        """The table as it is stored. Raises ValueError for what cannot have been stored."""
        groups, last_epoch = groups_of(stored), int(stored.last_epoch, 16)
        if any(group.epoch > last_epoch for group in groups):
            raise ValueError("tables.db: pairs: a group of an epoch that is still to come")
        return cls(groups, last_epoch)

    # -- answers -----------------------------------------------------------------------------------------------------

    def groups(self) -> list[GroupRow]:
        """All of them, by name."""
        return [self._groups[name] for name in sorted(self._groups)]

    def group(self, name: str) -> GroupRow | None:
        """One of them."""
        return self._groups.get(name)

    def of_volume(self, volume: str) -> tuple[tuple[GroupRow, PairRow], ...]:
        """The pairs that a volume of this array is in, and their groups: one at most, today."""
        return self._of_volume.get(volume, ())

    def holds(self, volume: str) -> str | None:
        """Why a volume may not be deleted, resized or mapped elsewhere, in a few words; None: it may."""
        if volume in self._ending:
            return "in a pair that is just being ended"
        role = self.role(volume)
        return None if role is None else f"{role}: pairsplit -S ends it"

    def role(self, volume: str) -> str | None:
        """What a volume is in the pairs, in a few words; None: nothing."""
        if volume in self._journals:
            return f"the journal of group {self._journals[volume].name}"
        for group, pair in self.of_volume(volume):
            kind = "P-VOL" if pair.state.side is Side.P_VOL else "S-VOL"
            return f"the {kind} of pair {pair.name} in group {group.name}"
        return None

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        """While pairs of a group are ended its volumes stay held: hosts see them through a stage for longer than there
        are rows."""
        group = self._groups.get(name)
        volumes = [] if group is None else [*_journal_of(group), *(pair.volume for pair in group.pairs)]
        self._ending.update(volumes)
        try:
            yield
        finally:
            self._ending.subtract(volumes)
            self._ending += Counter()  # those that are in none any more are forgotten

    # -- changes -----------------------------------------------------------------------------------------------------

    async def create(
        self, group: GroupRow, operation: Operation, when: float, save: Save, between: Between | None = None
    ) -> GroupRow:
        """Makes a group whose pairs are SMPL in `group`, as `operation` (paircreate -vl or -vr) tells this side. Where
        there is a group of this name and id already, it gets the pairs, and the rest of `group` is not looked at.
        Raises PairsError, and what `save` does. The caller sees to it that the estate does not change meanwhile."""
        made = await self._in_turn(group.name, partial(self._create, group, operation, when, save, between))
        assert isinstance(made, GroupRow)
        return made

    async def happen(
        self,
        name: str,
        happening: Happening,
        peer: PeerRows | None,
        circumstances: Circumstances,
        save: Save,
        pair: int | None = None,
        between: Between | None = None,
    ) -> Outcome:
        """Carries out this side's part of what happens to a group, or to one of its pairs. `peer` is what the other
        side shows before, or None: it does not answer. Pairs that end (pairsplit -S) have no row any more, and with the
        last one the group ends. Raises PairsError, and what `save` does."""
        return await self._in_turn(
            name, partial(self._happen, name, happening, peer, circumstances, save, pair, between)
        )

    async def meet(
        self, name: str, peer: PeerRows, circumstances: Circumstances, save: Save, between: Between | None = None
    ) -> Outcome:
        """Takes what follows from seeing the other side's rows, once: both sides look until nothing changes. A side
        that takes its place beside one that has changed places already takes its epoch, too. Raises PairsError, and
        what `save` and `between` do."""
        return await self._in_turn(name, partial(self._meet, name, peer, circumstances, save, between))

    async def keep(
        self,
        name: str,
        save: Save,
        *,
        pace: int | None = None,
        driver: Driver | None = None,
        copy_rate: int | None = None,
        synced: Collection[int] = (),
    ) -> GroupRow:
        """Keeps what is not a matter of states; None: as it was; a `copy_rate` of 0: no limit. `synced` are the numbers
        of pairs that are not `unsynced` any more. Raises PairsError, and what `save` does."""
        kept = await self._in_turn(name, partial(self._keep, name, save, pace, driver, copy_rate, synced))
        assert isinstance(kept, GroupRow)
        return kept

    async def settle(self) -> None:
        """Waits for the changes under way."""
        for turns in list(self._turns.values()):
            await turns.settle()

    # -- how they are made -------------------------------------------------------------------------------------------

    async def _create(
        self, group: GroupRow, operation: Operation, when: float, save: Save, between: Between | None
    ) -> Outcome:
        async with self._making:
            return await self._create_alone(group, operation, when, save, between)

    async def _create_alone(
        self, group: GroupRow, operation: Operation, when: float, save: Save, between: Between | None
    ) -> Outcome:
        old = self._groups.get(group.name)
        self._check_new(group, old)
        made = []
        for pair in group.pairs:
            state = follows(pair.state, operation, consistent=False)
            if pair.state is not State.SMPL or state not in COPIES:
                raise PairsError(f"group {group.name}: {operation} makes no pair of what is {pair.state}")
            made.append(pair_in(pair, state, Circumstances(when)))
        base = replace(group, generation=0) if old is None else old
        all_of_them = (*made, *(() if old is None else old.pairs))
        pairs = tuple(sorted(all_of_them, key=lambda pair: pair.number))
        try:
            # The volumes that are new are no point of the group's writes before their copy has ended.
            new = replace(base, pairs=pairs, generation=base.generation + 1, consistent=False)
        except ValueError as error:
            raise PairsError(f"group {group.name}: {error}") from error
        return await self._commit(old, new, save, between)

    def _check_new(self, group: GroupRow, old: GroupRow | None) -> None:
        volumes = [pair.volume for pair in group.pairs]
        if old is None:
            self._check_new_group(group)
            volumes += _journal_of(group)
        elif old.id != group.id:
            raise PairsError(f"group {group.name}: there is one, with another id")
        for volume in volumes:
            held = self.holds(volume)
            if held is not None:
                raise PairsError(f"group {group.name}: volume {volume} is {held}")

    def _check_new_group(self, group: GroupRow) -> None:
        if len(self._groups) >= GROUPS_MAX:
            raise PairsError(f"group {group.name}: there are {GROUPS_MAX} groups, as many as there may be")
        for other in self._groups.values():
            if other.id == group.id:
                raise PairsError(f"group {group.name}: group {other.name} has its id")
            if other.ctg == group.ctg:
                raise PairsError(f"group {group.name}: group {other.name} has CTG {group.ctg}")
        self._check_epoch(group.name, group.epoch)

    def _check_epoch(self, name: str, epoch: int) -> None:
        if not self.last_epoch < epoch <= EPOCH_MAX:
            raise PairsError(f"group {name}: epoch {epoch}: expected more than {self.last_epoch}")

    async def _happen(
        self,
        name: str,
        happening: Happening,
        peer: PeerRows | None,
        circumstances: Circumstances,
        save: Save,
        number: int | None,
        between: Between | None,
    ) -> Outcome:
        group = self._groups.get(name)
        told = [] if group is None else [pair for pair in group.pairs if number in (None, pair.number)]
        if group is None or not told:
            outcome = follows(State.SMPL, happening, consistent=False)
            if isinstance(outcome, Refusal):
                return outcome
            if outcome is not State.SMPL:
                raise PairsError(f"group {name}: {happening} of what has no row: create makes it")
            return group
        if peer is not None and peer.states and peer.generation != group.generation:
            return NOT_MET
        states: dict[int, State] = {}
        for pair in told:
            after = what_follows(group, pair, happening, peer)
            if isinstance(after, Refusal):
                return after
            states[pair.number] = after
        if circumstances.epoch is not None:
            self._check_epoch(name, circumstances.epoch)
        if sides_differ(group, states):
            return NOT_ALONE
        return await self._commit(group, moved(group, states, happening, circumstances), save, between)

    async def _meet(
        self, name: str, peer: PeerRows, circumstances: Circumstances, save: Save, between: Between | None
    ) -> Outcome:
        group = self._groups.get(name)
        if group is None:
            return None
        age = Age((group.generation > peer.generation) - (group.generation < peer.generation))
        states = {pair.number: learned(group, pair, peer, age) for pair in group.pairs}
        if sides_differ(group, states):
            return NOT_ALONE
        if circumstances.epoch is not None:
            self._check_epoch(name, circumstances.epoch)
        new = moved(group, states, None, replace(circumstances, error=circumstances.error or HEARD))
        assert new is not None, "no meeting ends a pair"
        new = replace(new, generation=max(group.generation, peer.generation))
        if new.side is Side.P_VOL and any(state.side is Side.S_VOL for state in peer.states.values()):
            new = replace(new, consistent=peer.consistent)
        changed_places = new.side is not group.side and any(state in RUNNING_STATES for state in states.values())
        if changed_places and peer.epoch > group.epoch:
            new = replace(new, epoch=peer.epoch, restored=START, acknowledged=START)
        return await self._commit(group, new, save, between)

    async def _keep(
        self,
        name: str,
        save: Save,
        pace: int | None,
        driver: Driver | None,
        copy_rate: int | None,
        synced: Collection[int],
    ) -> Outcome:
        group = self._groups.get(name)
        if group is None:
            raise PairsError(f"group {name}: there is none")
        try:
            kept = replace(group, pace=group.pace if pace is None else pace, driver=driver or group.driver)
            kept = kept if copy_rate is None else replace(kept, copy_rate=copy_rate or None)
            kept = kept.with_unsynced(synced, False)
        except ValueError as error:
            raise PairsError(f"group {name}: {error}") from error
        return await self._commit(group, kept, save, None)

    async def _commit(
        self, old: GroupRow | None, new: GroupRow | None, save: Save, between: Between | None
    ) -> GroupRow | None:
        """Has the difference of two rows of a group committed, and shows the new one."""
        if new == old:
            return old
        if between is not None:
            new = await between(old, new)
        if new is None:
            assert old is not None
            await save(drop_group(old.id.hex()))
            del self._groups[old.name]
        else:
            before = {} if old is None else {pair.number: pair for pair in old.pairs}
            changed = [pair for pair in new.pairs if before.pop(pair.number, None) != pair]
            last_epoch = max(self.last_epoch, new.epoch)
            work = put_group(new.stored(), new.stored_pairs(changed), tuple(before), stored_epoch(last_epoch))
            await save(work)
            self._groups[new.name] = new
            self.last_epoch = max(self.last_epoch, last_epoch)
        self._index()
        return new

    async def reserve(self, epoch: int, commit: Save) -> None:
        """A journal is to have this epoch: no other one gets it, though the change that it is made for may never be
        committed. Raises what `commit` does."""
        if epoch > self.last_epoch:
            await commit(use_epoch(stored_epoch(epoch)))
            self.last_epoch = max(self.last_epoch, epoch)

    def _index(self) -> None:
        self._journals = {journal: group for group in self._groups.values() for journal in _journal_of(group)}
        self._of_volume: dict[str, tuple[tuple[GroupRow, PairRow], ...]] = {}
        for group in self._groups.values():
            for pair in group.pairs:
                self._of_volume[pair.volume] = (*self._of_volume.get(pair.volume, ()), (group, pair))

    async def _in_turn(self, name: str, change: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        turns = self._turns.setdefault(name, Turns())
        if turns.full:
            raise PairsError(f"{CHANGES_MAX} changes of pairs wait already")
        try:
            return await turns.take(change)
        finally:
            if turns.idle and self._turns.get(name) is turns:
                del self._turns[name]


def _journal_of(group: GroupRow) -> tuple[str, ...]:
    """This side's journal volume, if the group has one."""
    return () if group.journal is None else (group.journal,)
