"""What the host's verbs answer about pairs, as small numbers: horctakeover, pairvolchk, pairevtwait, pairsyncwait.

The numbers are CCI's (CCI Command Reference, "returned values" of each command). Its answers are below 128; what
stopped a command is 128 or more (`arrayd.commands.results`), of which those here are CCI's own, too. SSWS has no code
in CCI, whose pairvolchk calls it PSUS: here it has 30 of a synchronous and 50 of an asynchronous pair, so that a
script that looks at the tens still finds an S-VOL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, IntEnum

from arrayd.replication.statuses import (
    COPYING,
    NEVER_WHOLE,
    NO_PAIR,
    P_RUNNING,
    Operation,
    Refusal,
    Side,
    State,
    Status,
    column,
)

# -- horctakeover ------------------------------------------------------------------------------------------------------


class Takeover(IntEnum):
    """What horctakeover did: its exit code."""

    NOTHING = 0
    """This side's host may write already."""
    SWAP = 1
    """The sides have changed places; the pair is PAIR, and nothing was lost."""
    SVOL = 2
    """The other array has ended the pair; the S-VOL has left it, too, and is a volume like any other."""
    PVOL_SMPL = 3
    """The other array has ended the pair; the fenced P-VOL has left it, too."""
    PVOL_PSUE = 4
    """The fenced P-VOL takes writes again; the pair stays suspended."""
    SVOL_SSUS = 5
    """The S-VOL is writable (SSWS); what the P-VOL had and the S-VOL had not is not there."""


class Peer(Enum):
    """What horctakeover hears of the other array."""

    ANSWERS = "peer answers"
    HAS_NO_PAIR = "peer has no pair"
    SILENT = "peer silent"


_TAKES_WRITES = (*P_RUNNING, State.P_PSUS, State.P_PSUE, State.P_PFUS, State.S_SSWS)
_FOLLOWS = (State.S_PAIR, State.S_PFUL)
_STANDS = (State.S_SSUS, State.S_SSUS_WRITABLE, State.S_PSUE, State.S_PFUS)

TAKEOVERS: Mapping[Peer, Mapping[State, Takeover | Refusal]] = {
    Peer.ANSWERS: column(
        (_TAKES_WRITES, Takeover.NOTHING),
        ((State.P_PSUE_FENCED,), Takeover.PVOL_PSUE),
        (_FOLLOWS, Takeover.SWAP),
        (_STANDS, Takeover.SVOL_SSUS),
        ((State.S_COPY,), COPYING),
        ((State.SMPL,), NO_PAIR),
    ),
    Peer.HAS_NO_PAIR: column(
        (_TAKES_WRITES, Takeover.NOTHING),
        ((State.P_PSUE_FENCED,), Takeover.PVOL_SMPL),
        ((State.S_COPY, *_FOLLOWS, *_STANDS), Takeover.SVOL),
        ((State.SMPL,), NO_PAIR),
    ),
    Peer.SILENT: column(
        (_TAKES_WRITES, Takeover.NOTHING),
        ((State.P_PSUE_FENCED,), Takeover.PVOL_PSUE),
        ((State.S_COPY, *_FOLLOWS, *_STANDS), Takeover.SVOL_SSUS),
        ((State.SMPL,), NO_PAIR),
    ),
}
"""What horctakeover does, by what it hears of the peer and by what this side shows."""

CARRIED_OUT: Mapping[Takeover, Operation | None] = {
    Takeover.NOTHING: None,
    Takeover.SWAP: Operation.SWAP,
    Takeover.SVOL: Operation.PAIRSPLIT_S,
    Takeover.PVOL_SMPL: Operation.PAIRSPLIT_S,
    Takeover.PVOL_PSUE: Operation.PVOL_PSUE,
    Takeover.SVOL_SSUS: Operation.SVOL_SSUS,
}
"""How each is carried out: a swap by both sides, all others by this side alone."""


def needs_consistent(taken: Takeover | Refusal) -> bool:
    """Whether it is refused unless the S-VOL's data are a point of the group's writes."""
    return taken in (Takeover.SVOL, Takeover.SVOL_SSUS)


def takeover(state: State, peer: Peer, *, consistent: bool) -> Takeover | Refusal:
    """What horctakeover does at this side, or why nothing. `consistent` is as in `statuses.follows`."""
    taken = TAKEOVERS[peer][state]
    return NEVER_WHOLE if needs_consistent(taken) and not consistent else taken


# -- pairvolchk --------------------------------------------------------------------------------------------------------

ASYNCHRONOUS = 20
"""More than the code of a synchronous pair in the same status."""

STATUS_CODES: Mapping[tuple[Side, Status], int] = {
    (Side.NONE, Status.SMPL): 11,
    (Side.P_VOL, Status.COPY): 22,
    (Side.P_VOL, Status.PAIR): 23,
    (Side.P_VOL, Status.PSUS): 24,
    (Side.P_VOL, Status.PSUE): 25,
    (Side.P_VOL, Status.PDUB): 26,
    (Side.P_VOL, Status.PFUL): 27,
    (Side.P_VOL, Status.PFUS): 28,
    (Side.S_VOL, Status.SSWS): 30,
    (Side.S_VOL, Status.COPY): 32,
    (Side.S_VOL, Status.PAIR): 33,
    (Side.S_VOL, Status.SSUS): 34,
    (Side.S_VOL, Status.PSUE): 35,
    (Side.S_VOL, Status.PDUB): 36,
    (Side.S_VOL, Status.PFUL): 37,
    (Side.S_VOL, Status.PFUS): 38,
}
"""pairvolchk -ss, of a synchronous pair; ASYNCHRONOUS more for others, but for SMPL. A synchronous pair has no journal,
and so is never PFUL or PFUS: CCI has these as 47, 48, 57 and 58 only."""

UNCONFORMED = 235
"""CCI's EX_EVOLCE: `pairvolchk -c` of two sides that are not those of one pair; pairdisplay of a group that has other
volumes in the path table than on the arrays."""
UNMATCHED = 236
"""CCI's EX_ENQVOL: the volumes of a group are not all on one side."""


def pairvolchk(states: Collection[State]) -> int:
    """The exit code of pairvolchk for a group whose volumes show `states` on this side, at least one."""
    sides = {state.side for state in states}
    return sides.pop() if len(sides) == 1 else UNMATCHED


def pairvolchk_ss(states: Collection[State], *, asynchronous: bool) -> int:
    """The exit code of `pairvolchk -ss` for such a group. Volumes that differ are COPY if one of them is (CCI's order:
    a copy that has ended for some of them is no trouble), and else PDUB."""
    sides = {state.side for state in states}
    if len(sides) > 1:
        return UNMATCHED
    statuses = {state.status for state in states}
    differ = Status.COPY if Status.COPY in statuses else Status.PDUB
    side, status = sides.pop(), differ if len(statuses) > 1 else statuses.pop()
    return STATUS_CODES[side, status] + (ASYNCHRONOUS if asynchronous and side is not Side.NONE else 0)


# -- pairevtwait, pairsyncwait -----------------------------------------------------------------------------------------

SHOWN_AS: Mapping[Status, Status] = {Status.PFUL: Status.PAIR, Status.PFUS: Status.PSUS, Status.SSUS: Status.PSUS}
"""Who waits for PAIR or PSUS waits for these, too (CCI shows them so in most commands)."""


class EventWait(IntEnum):
    """How pairevtwait ended: its exit code. The last two are CCI's EX_EWSTOT and EX_EWSUSE."""

    REACHED = 0
    TIMEOUT = 233
    SUSPENDED = 234
    """The pair was suspended while it was waited for, and will not get there by itself."""


def pairevtwait(wanted: Status, shown: Status) -> EventWait | None:
    """How waiting for `wanted` has ended now that the P-VOL, or this side, shows `shown`; None if it goes on."""
    if wanted in (shown, SHOWN_AS.get(shown)):
        return EventWait.REACHED
    return EventWait.SUSPENDED if shown in (Status.PSUE, Status.PFUS) else None


NOWAIT_CODES: Mapping[Status, int] = {
    Status.SMPL: 1,
    Status.COPY: 2,
    Status.PAIR: 3,
    Status.PFUL: 3,
    Status.PSUS: 4,
    Status.SSUS: 4,
    Status.PFUS: 4,
    Status.SSWS: 4,
    Status.PSUE: 5,
}
"""pairevtwait -nowait, which does not wait but says what is shown. CCI has five codes; the other statuses have the code
of what it shows them as."""


def pairevtwait_nowait(shown: Collection[Status]) -> int:
    """The exit code of `pairevtwait -nowait` for a group whose volumes show these, at least one: it has one only where
    they show the same."""
    codes = {NOWAIT_CODES[status] for status in shown}
    return codes.pop() if len(codes) == 1 else UNMATCHED


INVALID_VOLUME = 222
"""CCI's EX_INVVOL: pairsyncwait of volumes that are not P-VOLs in PAIR, where no point is named."""
SYNC_NOWAIT = 0
"""pairsyncwait -nowait, which does not wait but tells the point that it would wait for."""


class SyncWait(IntEnum):
    """How pairsyncwait ended: its exit code."""

    DONE = 0
    """All that the P-VOLs had been written to when it was called is on the S-VOLs."""
    TIMEOUT = 1
    BROKEN = 2
    """The pair was suspended or ended before that."""
    CHANGED = 3
    """The pair was resynced since: the point that was waited for means nothing any more."""


def pairsyncwait(state: State, *, reached: bool, resynced: bool) -> SyncWait | None:
    """How waiting for a point of the group's writes has ended; None if it goes on. `reached`: the S-VOLs have it.
    `resynced`: the pair was made or resynced since the point was taken."""
    if resynced:
        return SyncWait.CHANGED
    if reached:
        return SyncWait.DONE
    return None if state.status in (Status.PAIR, Status.PFUL) else SyncWait.BROKEN


# -- pairverify --------------------------------------------------------------------------------------------------------


class Verify(IntEnum):
    """How pairverify ended: its exit code. CCI has no such command."""

    SAME = 0
    DIFFERS = 1
    """Something differs, or a journal is damaged."""
    MENDED = 2
    """What differed was repaired, and compared again."""
