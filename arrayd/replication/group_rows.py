"""Rows of the pair management table (1001, figure 10): consistency groups and their pairs, typed, frozen and checked.

A group is several pairs with one order of writes, and with one journal on each side if it is asynchronous. This side's
rows say what this side shows; the other array has rows of its own, of the same id and the same numbers, and neither
reads the other's table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from arrayd.replication.journal.format import GROUP_BYTES
from arrayd.replication.journal.regions import START, Position
from arrayd.replication.statuses import Side, State, Status
from arrayd.tables.pairs import StoredGroup, StoredPair, StoredPairs

CTG_MAX = 255
PAIRS_MAX = 1024
"""Pairs of one group."""
PACE_MAX = 15
NUMBER_MAX = (1 << 16) - 1
"""Of a pair in its group: what a journal's record has room for."""
LUN_MAX = 16383
ERROR_CHARACTERS_MAX = 200
EPOCH_MAX = (1 << 63) - 1
GENERATION_MAX = (1 << 63) - 1


class Mode(StrEnum):
    """When a host's write is answered."""

    ASYNC = "async"
    """When it is in the journal and on the P-VOL; the S-VOL follows."""
    SYNC = "sync"
    """When both volumes have it (figure 24). There is no journal."""


class Fence(StrEnum):
    """When the P-VOLs of a synchronous group refuse hosts' writes: CCI's fence level."""

    NEVER = "never"
    """Never: hosts go on with the P-VOLs alone when the S-VOLs cannot be written."""
    DATA = "data"
    """Whenever a write cannot be on both sides."""
    STATUS = "status"
    """Only if the S-VOLs' side cannot be told that the pairs are suspended."""


class Driver(StrEnum):
    """Who goes through the loop of figure 16."""

    ARRAYS = "arrays"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class PairRow:
    """One pair, as this side shows it. Raises ValueError for what no pair can be."""

    number: int
    """In the group, as records of the journal have it; the same on both sides."""
    name: str
    volume: str
    """This side's, by its name."""
    peer_lun: int
    peer_volume: str
    """Identity of the volume at that LUN: array serial, colon, name."""
    state: State = State.SMPL
    """SMPL only before the pair is created: such a row is not kept."""
    since: float = 0.0
    """When it got this state, in seconds since 1970."""
    error: str = ""
    """Why it is PSUE."""
    unsynced: bool = False
    """A P-VOL that could not be synced when it was suspended: the journal of the group's epoch may be alone in having
    what hosts were answered. See `unsynced.py`."""
    uncopied: bool = False
    """A P-VOL that was suspended in COPY: what was left of the copy is marked at the S-VOL's side, and not here."""

    def __post_init__(self) -> None:
        _check(0 <= self.number <= NUMBER_MAX, f"number {self.number}: expected 0 to {NUMBER_MAX}")
        _check(bool(self.name and self.volume and self.peer_volume), "a pair without a name or a volume")
        _check(0 <= self.peer_lun <= LUN_MAX, f"LUN {self.peer_lun}: expected 0 to {LUN_MAX}")
        _check(len(self.error) <= ERROR_CHARACTERS_MAX, f"an error of more than {ERROR_CHARACTERS_MAX} characters")
        _check(not self.error or self.state.status is Status.PSUE, f"an error, and {self.state}")


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A consistency group with its pairs, by number. Raises ValueError for what no group can be."""

    id: bytes
    """16 bytes, the same on both sides."""
    name: str
    ctg: int
    """Number of the group on this array, 0 to 255: the other array's may be another."""
    journal: str | None
    """This side's journal volume, by its name; None: the group is synchronous."""
    peer: str
    """The other array, by its name."""
    peer_serial: str
    peer_journal: int | None
    """LUN of the journal there, likewise."""
    epoch: int
    """Of the journal: greater than any before. A synchronous group has one, too, and nothing is of it."""
    pairs: tuple[PairRow, ...]
    mode: Mode = Mode.ASYNC
    pace: int = 3
    """Of copies: 1, slow, to 15."""
    driver: Driver = Driver.ARRAYS
    generation: int = 0
    """One more at each start of a copy, swap and takeover; the greater of both sides' once they have met."""
    consistent: bool = False
    """The S-VOLs are a point of the group's writes, or before-images lead back to one: what this side knows of it."""
    restored: Position = START
    """Up to here the S-VOLs have the group's writes, durably (restoration-completed of figure 15)."""
    acknowledged: Position = START
    """Up to here the other side has said that it has restored, so that the journal may be purged."""
    copy_rate: int | None = None
    """Of copies: bytes a second at the most; None: as quickly as the pace says."""
    fence: Fence = Fence.NEVER
    """Means nothing in an asynchronous group."""

    def __post_init__(self) -> None:
        _check(len(self.id) == GROUP_BYTES, f"an id of {len(self.id)} bytes: expected {GROUP_BYTES}")
        _check(bool(self.name and self.peer and self.peer_serial), "a group without one of its names")
        self._check_mode()
        _check(0 <= self.ctg <= CTG_MAX, f"CTG {self.ctg}: expected 0 to {CTG_MAX}")
        _check(0 < self.epoch <= EPOCH_MAX, f"epoch {self.epoch}: expected 1 or more")
        _check(1 <= self.pace <= PACE_MAX, f"copy pace {self.pace}: expected 1 to {PACE_MAX}")
        _check(self.copy_rate is None or self.copy_rate > 0, f"copy rate {self.copy_rate}: expected 1 or more")
        _check(0 <= self.generation <= GENERATION_MAX, f"generation {self.generation}: expected 0 or more")
        _check(0 < len(self.pairs) <= PAIRS_MAX, f"{len(self.pairs)} pairs: expected 1 to {PAIRS_MAX}")
        numbers = [pair.number for pair in self.pairs]
        _check(numbers == sorted(set(numbers)), "numbers of pairs out of order, or twice")
        for what, found in _once(self):
            _check(len(set(found)) == len(found), f"a {what} twice in group {self.name}")
        _check(len({pair.state.side for pair in self.pairs}) == 1, f"P-VOLs and S-VOLs in group {self.name}")

    def _check_mode(self) -> None:
        if self.mode is Mode.SYNC:
            _check(self.journal is None and self.peer_journal is None, f"synchronous group {self.name} with a journal")
            _check(self.driver is Driver.ARRAYS, "a synchronous group is driven by the arrays")
            return
        _check(bool(self.journal) and self.peer_journal is not None, f"asynchronous group {self.name} without journals")
        _check(0 <= (self.peer_journal or 0) <= LUN_MAX, f"LUN {self.peer_journal}: expected 0 to {LUN_MAX}")
        _check(self.fence is Fence.NEVER, f"a fence level, and group {self.name} is asynchronous")

    @property
    def journal_volume(self) -> str:
        """This side's journal volume, of a group that has one."""
        assert self.journal is not None, f"group {self.name} is synchronous"
        return self.journal

    @property
    def side(self) -> Side:
        """What this side's volumes are, all of them: one group has one direction."""
        return self.pairs[0].state.side

    @property
    def states(self) -> dict[int, State]:
        """What each pair shows, by its number."""
        return {pair.number: pair.state for pair in self.pairs}

    def with_unsynced(self, numbers: Collection[int], unsynced: bool) -> GroupRow:
        """The row with `unsynced` said of these pairs."""
        if not numbers:
            return self
        pairs = (replace(pair, unsynced=unsynced) if pair.number in numbers else pair for pair in self.pairs)
        return replace(self, pairs=tuple(pairs))

    def stored(self) -> StoredGroup:
        """The group as the tables keep it."""
        return StoredGroup(
            self.id.hex(),
            self.name,
            self.ctg,
            self.journal,
            self.peer,
            self.peer_serial,
            self.peer_journal,
            self.mode.value,
            self.pace,
            self.driver.value,
            self.generation,
            int(self.consistent),
            stored_epoch(self.epoch),
            "".join(f"{each:016x}" for each in self.restored),
            "".join(f"{each:016x}" for each in self.acknowledged),
            self.copy_rate,
            self.fence.value,
        )

    def stored_pairs(self, pairs: Iterable[PairRow]) -> list[StoredPair]:
        """Some of its pairs as the tables keep them."""
        return [
            StoredPair(
                self.id.hex(),
                pair.number,
                pair.name,
                pair.volume,
                pair.peer_lun,
                pair.peer_volume,
                pair.state.name,
                pair.since,
                pair.error,
                int(pair.unsynced),
                int(pair.uncopied),
            )
            for pair in pairs
        ]


@dataclass(frozen=True, slots=True)
class PeerRows:
    """What the other side last showed of a group: nothing, if it has no such group."""

    states: Mapping[int, State] = field(default_factory=dict)
    """By the pair's number; SMPL for those that are not here."""
    generation: int = 0
    consistent: bool = False
    epoch: int = 0
    """Of the group's journal there; 0: not told."""
    held: bool = False
    """That side is being told something, or just was, which both sides are told: nothing is learned from these rows
    yet, unless they go with this side's already."""

    @classmethod
    def of(cls, group: GroupRow, *, held: bool = False) -> PeerRows:
        """What the side that has this row shows."""
        return cls(group.states, group.generation, group.consistent, group.epoch, held)


def stored_epoch(epoch: int) -> str:
    """An epoch as the tables keep it."""
    return f"{epoch:016x}"


def groups_of(stored: StoredPairs) -> list[GroupRow]:
    """What is stored. Raises ValueError for what cannot have been stored."""
    pairs: dict[str, list[PairRow]] = {row.id: [] for row in stored.groups}
    try:
        for row in stored.pairs:
            state = State[row.state]
            _check(state is not State.SMPL, f"pair {row.name} is stored, and SMPL")
            pairs[row.id].append(PairRow(*row[1:6], state, *row[7:9], bool(row.unsynced), bool(row.uncopied)))
        return [_group_of(row, tuple(pairs[row.id])) for row in stored.groups]
    except (ValueError, KeyError) as error:
        raise ValueError(f"tables.db: pairs: {error}") from error


def _group_of(row: StoredGroup, pairs: tuple[PairRow, ...]) -> GroupRow:
    return GroupRow(
        bytes.fromhex(row.id),
        row.name,
        row.ctg,
        row.journal,
        row.peer,
        row.peer_serial,
        row.peer_journal,
        int(row.epoch, 16),
        pairs,
        Mode(row.mode),
        row.pace,
        Driver(row.driver),
        row.generation,
        bool(row.consistent),
        _position(row.restored),
        _position(row.acknowledged),
        row.copy_rate,
        Fence(row.fence),
    )


def _position(text: str) -> Position:
    _check(len(text) == 32, f"position {text!r}")
    return Position(int(text[:16], 16), int(text[16:], 16))


def _once(group: GroupRow) -> Iterable[tuple[str, list[object]]]:
    """What the pairs of a group may not share, nor a pair have of the journal."""
    of_pairs: list[tuple[str, Callable[[PairRow], object]]] = [
        ("name", lambda pair: pair.name),
        ("volume", lambda pair: pair.volume),
        ("LUN of the peer", lambda pair: pair.peer_lun),
        ("volume of the peer", lambda pair: pair.peer_volume),
    ]
    journals = {"volume": group.journal, "LUN of the peer": group.peer_journal}
    for what, value in of_pairs:
        journal = journals.get(what)
        yield what, [*(value(pair) for pair in group.pairs), *(() if journal is None else (journal,))]


def _check(good: bool, mistake: str) -> None:
    if not good:
        raise ValueError(mistake)
