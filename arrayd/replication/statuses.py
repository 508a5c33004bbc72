"""The one table of pair statuses: what each is for a host's writes, and what follows on each operation and event.

A volume of a pair has a side and a status, named as users of CCI know them (Hitachi, Command Control Interface: its
CCI Command Reference has the statuses, which commands each takes, takes without effect or rejects, and the exit codes).
Two of these have two kinds: SSUS is read-only or writable (pairsplit -rw), and a P-VOL in PSUE takes writes or, by the
fence level of a synchronous pair, refuses them. A `State` is a side, a status and the kind: a row of the table.

Both sides carry out an operation, or neither: `meetings.together` asks both rows. A column is what one side does.
Where CCI's ways are left, or it has none:

- pairsplit -rw of a pair that is split read-only opens the S-VOL. CCI takes the command and does nothing, which leaves
  a host with a volume that is not what was asked for.
- A journal that is full during a copy is an error (PSUE). PFUS is kept for pairs that were PAIR.
- A peer that is out of reach changes nothing by itself: an asynchronous pair goes on journaling. For a synchronous pair
  it is an error, fenced or not.
- What makes an S-VOL writable, or the source of a copy, needs data that are a point of the group's writes
  (`consistent`): a copy that was never whole is not given to a host, nor copied back over good data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import TypeVar


class Side(IntEnum):
    """Which volume of a pair it is. The numbers are pairvolchk's."""

    NONE = 1
    """SMPL: none."""
    P_VOL = 2
    S_VOL = 3


class Status(StrEnum):
    """A pair's status on one side, as CCI names it."""

    SMPL = "SMPL"
    """In no pair."""
    COPY = "COPY"
    """The initial copy, or a resync, runs. The S-VOL is not (yet) the group's writes up to some point."""
    PAIR = "PAIR"
    """The copy has ended; the S-VOL follows."""
    PSUS = "PSUS"
    """Split by command: the P-VOL's name for it."""
    SSUS = "SSUS"
    """Split by command: the S-VOL's name for it."""
    PSUE = "PSUE"
    """Suspended by an error."""
    PDUB = "PDUB"
    """No volume's status: pairvolchk's word for a group whose volumes differ."""
    PFUL = "PFUL"
    """PAIR, and the journal is nearly full."""
    PFUS = "PFUS"
    """Suspended because the journal was full. The host goes on; a bitmap tracks what changed."""
    SSWS = "SSWS"
    """The S-VOL was taken over without its P-VOL: it is writable, and its data lead."""


class Writes(StrEnum):
    """What becomes of a host's write."""

    PLAIN = "taken"
    JOURNALED = "taken, journaled first"
    """Of an asynchronous pair; of a synchronous one the same rows mean MIRRORED."""
    MIRRORED = "taken, mirrored first"
    """No row's: see `State.writes_of`."""
    MARKED = "taken, marked in the bitmap first"
    REFUSED = "refused with DATA PROTECT"


class State(Enum):
    """A row of the table: side, status, and what becomes of a host's write. Reads are always taken."""

    SMPL = (Side.NONE, Status.SMPL, Writes.PLAIN)
    P_COPY = (Side.P_VOL, Status.COPY, Writes.JOURNALED)
    P_PAIR = (Side.P_VOL, Status.PAIR, Writes.JOURNALED)
    P_PFUL = (Side.P_VOL, Status.PFUL, Writes.JOURNALED)
    P_PSUS = (Side.P_VOL, Status.PSUS, Writes.MARKED)
    P_PSUE = (Side.P_VOL, Status.PSUE, Writes.MARKED)
    P_PSUE_FENCED = (Side.P_VOL, Status.PSUE, Writes.REFUSED)
    P_PFUS = (Side.P_VOL, Status.PFUS, Writes.MARKED)
    S_COPY = (Side.S_VOL, Status.COPY, Writes.REFUSED)
    S_PAIR = (Side.S_VOL, Status.PAIR, Writes.REFUSED)
    S_PFUL = (Side.S_VOL, Status.PFUL, Writes.REFUSED)
    S_SSUS = (Side.S_VOL, Status.SSUS, Writes.REFUSED)
    S_SSUS_WRITABLE = (Side.S_VOL, Status.SSUS, Writes.MARKED)
    S_PSUE = (Side.S_VOL, Status.PSUE, Writes.REFUSED)
    S_PFUS = (Side.S_VOL, Status.PFUS, Writes.REFUSED)
    S_SSWS = (Side.S_VOL, Status.SSWS, Writes.MARKED)

    def __init__(self, side: Side, status: Status, writes: Writes) -> None:
        self.side = side
        self.status = status
        self.writes = writes

    def writes_of(self, *, asynchronous: bool) -> Writes:
        """What becomes of a host's write to a volume of such a pair."""
        return Writes.MIRRORED if self.writes is Writes.JOURNALED and not asynchronous else self.writes

    def __str__(self) -> str:
        volume = {Side.NONE: "", Side.P_VOL: "P-VOL ", Side.S_VOL: "S-VOL "}[self.side]
        kind = self.name.partition(self.status)[2].lower().replace("_", " ")
        return f"{volume}{self.status}{kind}"


class Operation(StrEnum):
    """What a pair is told to do, as it is told to one side. horctakeover is one of the last four, or pairsplit -S:
    `exit_codes.takeover` says which."""

    PAIRCREATE_VL = "paircreate -vl"
    """A pair, of which this side becomes the P-VOL; the other side is told the next one."""
    PAIRCREATE_VR = "paircreate -vr"
    """A pair, of which this side becomes the S-VOL."""
    PAIRSPLIT = "pairsplit"
    PAIRSPLIT_RW = "pairsplit -rw"
    """Split, and the S-VOL is writable."""
    PAIRSPLIT_S = "pairsplit -S"
    """The pair ends."""
    PAIRRESYNC = "pairresync"
    PAIRRESYNC_SWAPS = "pairresync -swaps"
    """Resync from the S-VOL, which becomes the P-VOL; asked for at the S-VOL's side."""
    PAIRRESYNC_SWAPP = "pairresync -swapp"
    """The same, asked for at the P-VOL's side."""
    SWAP = "swap-takeover"
    """Both sides change places; nothing is lost, nothing copied (figures 19-21)."""
    SVOL_SSUS = "SVOL-SSUS-takeover"
    """The S-VOL becomes writable without its P-VOL; this side alone."""
    PVOL_PSUE = "PVOL-PSUE-takeover"
    """A fenced P-VOL takes writes again without its S-VOL; this side alone."""


class Event(StrEnum):
    """What happens to a pair."""

    COPY_END = "the copy has ended"
    ERROR = "error"
    ERROR_FENCED = "error, fence level data or status"
    """An error of a synchronous pair after which its P-VOL must take no write."""
    JOURNAL_NEARLY_FULL = "journal nearly full"
    JOURNAL_FULL = "journal full"
    JOURNAL_HAS_ROOM = "journal has room again"


Happening = Operation | Event


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is done; `text` says why, and what to do instead."""

    text: str


NO_PAIR = Refusal("the volume is in no pair: paircreate makes one")
PAIRED = Refusal("the volume is in a pair already: pairresync resumes it, pairsplit -S ends it")
LEADS = Refusal("the S-VOL was taken over and its data lead: pairresync -swaps at its side, or -swapp at the P-VOL's")
RUNNING = Refusal("the pair is not split: horctakeover at the S-VOL's side swaps it, or pairsplit first")
COPYING = Refusal("the copy has not ended: pairevtwait -s pair first")
SUSPENDED = Refusal("the pair is suspended: pairresync first, or horctakeover to make the S-VOL writable")
P_VOL_HERE = Refusal("this side has the P-VOL: horctakeover at the S-VOL's side")
S_VOL_HERE = Refusal("this side has the S-VOL: horctakeover there decides what it does")
USE_SWAPP = Refusal("this side has the P-VOL: pairresync -swapp, or -swaps at the S-VOL's side")
USE_SWAPS = Refusal("this side has the S-VOL: pairresync -swaps, or -swapp at the P-VOL's side")
NEVER_WHOLE = Refusal(
    "the copy to the S-VOL was never whole: pairresync and pairevtwait -s pair, or pairsplit -S leaves it as it is"
)
PEER_SILENT = Refusal("the other array does not answer: again when it does, or pairsplit -S ends the pair on this side")

P_RUNNING = (State.P_COPY, State.P_PAIR, State.P_PFUL)
P_SUSPENDED = (State.P_PSUS, State.P_PSUE, State.P_PSUE_FENCED, State.P_PFUS)
S_RUNNING = (State.S_COPY, State.S_PAIR, State.S_PFUL)
FOLLOWING = frozenset((*P_RUNNING, *S_RUNNING)) - {State.P_COPY, State.S_COPY}
"""Where only what is written from now on goes to the S-VOL: nothing that was written beside the pair would."""
S_SPLIT = (State.S_SSUS, State.S_SSUS_WRITABLE)
S_STOPPED = (State.S_PSUE, State.S_PFUS)
S_SUSPENDED = (*S_SPLIT, *S_STOPPED, State.S_SSWS)
P_ALL = P_RUNNING + P_SUSPENDED
S_ALL = S_RUNNING + S_SUSPENDED
NONE = (State.SMPL,)

Cell = TypeVar("Cell")


def _others(*named: State) -> tuple[State, ...]:
    """All rows but these."""
    return tuple(state for state in State if state not in named)


def column(*rules: tuple[tuple[State, ...], Cell]) -> Mapping[State, Cell]:
    """A column of the table: each rule is rows and what stands in them. Every row must have exactly one cell."""
    cells = {state: cell for states, cell in rules for state in states}
    assert sum(len(states) for states, _ in rules) == len(cells), "a row has two cells"
    assert len(cells) == len(State), f"no cell: {sorted(str(state) for state in State if state not in cells)}"
    return cells


NO_CHANGE = None
"""In a cell: it is taken, and nothing changes."""
Outcome = State | Refusal | None
"""What a cell holds: the state that follows on this side, or why there is none, or NO_CHANGE."""

_REVERSED: Mapping[State, Outcome] = column(
    (P_SUSPENDED, State.S_COPY),
    (S_SUSPENDED, State.P_COPY),
    ((State.P_COPY, State.S_COPY), COPYING),
    ((State.P_PAIR, State.P_PFUL, State.S_PAIR, State.S_PFUL), RUNNING),
    (NONE, NO_PAIR),
)

TABLE: Mapping[Happening, Mapping[State, Outcome]] = {
    Operation.PAIRCREATE_VL: column(
        (NONE, State.P_COPY), (P_RUNNING, NO_CHANGE), (P_SUSPENDED, PAIRED), (S_ALL, PAIRED)
    ),
    Operation.PAIRCREATE_VR: column(
        (NONE, State.S_COPY),
        (S_RUNNING, NO_CHANGE),
        (S_SUSPENDED, PAIRED),
        (P_ALL, PAIRED),
    ),
    Operation.PAIRSPLIT: column(
        (P_RUNNING, State.P_PSUS),
        (S_RUNNING, State.S_SSUS),
        (P_SUSPENDED, NO_CHANGE),
        (S_SUSPENDED, NO_CHANGE),
        (NONE, NO_PAIR),
    ),
    Operation.PAIRSPLIT_RW: column(
        (P_RUNNING, State.P_PSUS),
        ((*S_RUNNING, State.S_SSUS), State.S_SSUS_WRITABLE),
        (P_SUSPENDED, NO_CHANGE),
        ((State.S_SSUS_WRITABLE, State.S_SSWS), NO_CHANGE),
        (S_STOPPED, SUSPENDED),
        (NONE, NO_PAIR),
    ),
    Operation.PAIRSPLIT_S: column((P_ALL, State.SMPL), (S_ALL, State.SMPL), (NONE, NO_CHANGE)),
    Operation.PAIRRESYNC: column(
        (P_SUSPENDED, State.P_COPY),
        ((*S_SPLIT, *S_STOPPED), State.S_COPY),
        (P_RUNNING, NO_CHANGE),
        (S_RUNNING, NO_CHANGE),
        ((State.S_SSWS,), LEADS),
        (NONE, NO_PAIR),
    ),
    Operation.PAIRRESYNC_SWAPS: _REVERSED,
    Operation.PAIRRESYNC_SWAPP: _REVERSED,
    Operation.SWAP: column(
        ((State.P_PAIR, State.P_PFUL), State.S_PAIR),
        ((State.S_PAIR, State.S_PFUL), State.P_PAIR),
        ((State.P_COPY, State.S_COPY), COPYING),
        (P_SUSPENDED, SUSPENDED),
        ((*S_SPLIT, *S_STOPPED), SUSPENDED),
        ((State.S_SSWS,), LEADS),
        (NONE, NO_PAIR),
    ),
    Operation.SVOL_SSUS: column(
        ((*S_RUNNING, *S_SPLIT, *S_STOPPED), State.S_SSWS),
        ((State.S_SSWS,), NO_CHANGE),
        (P_ALL, P_VOL_HERE),
        (NONE, NO_PAIR),
    ),
    Operation.PVOL_PSUE: column(
        ((State.P_PSUE_FENCED,), State.P_PSUE),
        ((*P_RUNNING, State.P_PSUS, State.P_PSUE, State.P_PFUS), NO_CHANGE),
        (S_ALL, S_VOL_HERE),
        (NONE, NO_PAIR),
    ),
    Event.COPY_END: column(
        ((State.P_COPY,), State.P_PAIR),
        ((State.S_COPY,), State.S_PAIR),
        (_others(State.P_COPY, State.S_COPY), NO_CHANGE),
    ),
    Event.ERROR: column(
        (P_RUNNING, State.P_PSUE), (S_RUNNING, State.S_PSUE), (_others(*P_RUNNING, *S_RUNNING), NO_CHANGE)
    ),
    Event.ERROR_FENCED: column(
        (P_RUNNING, State.P_PSUE_FENCED), (S_RUNNING, State.S_PSUE), (_others(*P_RUNNING, *S_RUNNING), NO_CHANGE)
    ),
    Event.JOURNAL_NEARLY_FULL: column(
        ((State.P_PAIR,), State.P_PFUL),
        ((State.S_PAIR,), State.S_PFUL),
        (_others(State.P_PAIR, State.S_PAIR), NO_CHANGE),
    ),
    Event.JOURNAL_FULL: column(
        ((State.P_PAIR, State.P_PFUL), State.P_PFUS),
        ((State.S_PAIR, State.S_PFUL), State.S_PFUS),
        ((State.P_COPY,), State.P_PSUE),
        ((State.S_COPY,), State.S_PSUE),
        (_others(*P_RUNNING, *S_RUNNING), NO_CHANGE),
    ),
    Event.JOURNAL_HAS_ROOM: column(
        ((State.P_PFUL,), State.P_PAIR),
        ((State.S_PFUL,), State.S_PAIR),
        (_others(State.P_PFUL, State.S_PFUL), NO_CHANGE),
    ),
}
"""What follows on this side, by what happens and by what this side shows."""

ASKED_ELSEWHERE: Mapping[tuple[Operation, Side], Refusal] = {
    (Operation.PAIRRESYNC_SWAPS, Side.P_VOL): USE_SWAPP,
    (Operation.PAIRRESYNC_SWAPP, Side.S_VOL): USE_SWAPS,
}
"""Operations that are asked for at one side only: what a host is told that asks at the other. An array that carries
out its part of what was asked for at the peer does not look here."""

NEED_CONSISTENT = frozenset(
    {Operation.PAIRSPLIT_RW, Operation.PAIRRESYNC_SWAPS, Operation.PAIRRESYNC_SWAPP, Operation.SVOL_SSUS}
)
"""What an S-VOL refuses unless its data are a point of the group's writes: it becomes writable, or the source."""

NEED_PEER = frozenset(
    {
        Operation.PAIRCREATE_VL,
        Operation.PAIRCREATE_VR,
        Operation.PAIRRESYNC,
        Operation.PAIRRESYNC_SWAPS,
        Operation.PAIRRESYNC_SWAPP,
        Operation.SWAP,
    }
)
"""What one side does not do without the other."""


def needs_consistent(state: State, happening: Happening) -> bool:
    """Whether the cell holds only for an S-VOL that is consistent."""
    return happening in NEED_CONSISTENT and state.side is Side.S_VOL and isinstance(TABLE[happening][state], State)


def follows(state: State, happening: Happening, *, consistent: bool) -> State | Refusal:
    """What this side shows after `happening`: `state` itself where nothing changes.

    `consistent`, of an S-VOL: its data are the group's writes up to some point (and its own host's since), or the
    before-images of the copy under way lead back to one. Whoever makes it writable or the source goes back first."""
    outcome = TABLE[happening][state]
    if needs_consistent(state, happening) and not consistent:
        return NEVER_WHOLE
    return state if outcome is NO_CHANGE else outcome


def asked(state: State, operation: Operation) -> Refusal | None:
    """Why `operation` is not asked for at this side, or None if it may be."""
    return ASKED_ELSEWHERE.get((operation, state.side))
