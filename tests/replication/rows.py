"""Two arrays' rows of one pair, as tests move them: together, alone, and when they meet."""

from __future__ import annotations

from typing import NamedTuple

from arrayd.replication.exit_codes import CARRIED_OUT, Peer, takeover
from arrayd.replication.meetings import Age, alone, met, together
from arrayd.replication.statuses import Event, Happening, Operation, Refusal, Side, State

HAPPENINGS: list[Happening] = [*Operation, *Event]
BY_TAKEOVER = {Operation.SWAP, Operation.SVOL_SSUS, Operation.PVOL_PSUE}
"""What no operator asks for by itself."""
TURNS_MAX = 4
"""So often two sides look at each other until nothing changes."""


class Pair(NamedTuple):
    """Two arrays' rows of one pair. `consistent` is about the S-VOL."""

    here: State
    there: State
    consistent: bool


NOTHING = Pair(State.SMPL, State.SMPL, True)


def turned(pair: Pair) -> Pair:
    return Pair(pair.there, pair.here, pair.consistent)


def consistent_after(pair: Pair, happening: Happening) -> bool:
    """Whether the S-VOL is a point of the group's writes: not from the initial copy's begin until a copy's end."""
    if happening in (Operation.PAIRCREATE_VL, Operation.PAIRCREATE_VR) and pair.here is State.SMPL:
        return False
    return pair.consistent or happening is Event.COPY_END


def meeting(pair: Pair, age: Age) -> Pair:
    """What both show when nothing changes any more: the same, whoever looks first. `age` is of the row here."""
    (settled_as,) = {_looking(pair, age, first) for first in ("here", "there", "both")}
    return settled_as


def _looking(pair: Pair, age: Age, first: str) -> Pair:
    """Looks in turns, and takes the greater generation then."""
    here, there, consistent = pair
    for turn in range(TURNS_MAX):
        if first == "both":
            here, there = met(here, there, age), met(there, here, Age(-age))
        elif (first == "here") == (turn % 2 == 0):
            here = met(here, there, age)
        else:
            there = met(there, here, Age(-age))
        # the older one has looked, and has the greater generation now
        if first == "both" or (age is Age.OLDER) == ((first == "here") == (turn % 2 == 0)):
            age = Age.SAME
    assert met(here, there, age) is here
    assert met(there, here, Age(-age)) is there
    return Pair(here, there, consistent)


def after_takeover(pair: Pair, peer: Peer) -> Pair | Refusal:
    """What both show after horctakeover here; without having met, if the peer was silent."""
    taken = takeover(pair.here, peer, consistent=pair.consistent)
    operation = None if isinstance(taken, Refusal) else CARRIED_OUT[taken]
    if isinstance(taken, Refusal) or operation is None:
        return taken if isinstance(taken, Refusal) else pair
    if operation is Operation.SWAP:
        both = together(pair.here, pair.there, operation, consistent=pair.consistent)
        return both if isinstance(both, Refusal) else Pair(*both, pair.consistent)
    here = alone(pair.here, operation, consistent=pair.consistent)
    assert isinstance(here, State), "horctakeover decides for what is refused"
    after = Pair(here, pair.there, pair.consistent)
    return after if peer is Peer.SILENT else meeting(after, Age.NEWER)


def heard_of(pair: Pair) -> Peer:
    return Peer.HAS_NO_PAIR if pair.there is State.SMPL else Peer.ANSWERS


def sides(pair: Pair) -> tuple[State, State]:
    """The P-VOL's side first."""
    first = pair.here.side is Side.P_VOL or pair.there.side is Side.S_VOL
    return (pair.here, pair.there) if first else (pair.there, pair.here)
