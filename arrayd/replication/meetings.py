"""Two sides of a pair: what both do together, and what each learns from what the other shows when they meet again.

As long as they see each other, an operation or event is both sides' or neither's (`together`), and what they show is
`settled`. Cut off, each side may split, end the pair, take over, suspend; or a command reached one side only. When they
meet, each takes the state that `met` gives, until nothing changes any more: the same, whoever looks first. Only then
are they told anything together, and while that is under way they do not meet. What the S-VOL's side may refuse it
carries out first: so a swap that reached one side only is one that it took.

The rows of both sides have a generation: one more at each start of a copy, swap and takeover, and the greater of both
once they have met. The rules (CCI's, where it has one):

- The P-VOL's status leads (CCI judges a pair by it), but a suspension found on either side suspends both.
- A side whose host may have written stays writable: SSUS writable and SSWS are never closed by meeting.
- Of COPY and PAIR in one generation, the S-VOL knows which it is. In two, a resync reached one side only: both suspend.
- A side that finds its peer in no pair suspends; it ends its own part by `pairsplit -S`.
- Two P-VOLs, or two S-VOLs, are a swap that reached one side only. The newer side leads (in one generation, the one
  that was taken over), and the other takes the place beside it; if that one was suspended meanwhile, so is the pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from arrayd.replication.statuses import (
    FOLLOWING,
    NEED_PEER,
    P_RUNNING,
    PEER_SILENT,
    S_RUNNING,
    Happening,
    Operation,
    Refusal,
    Side,
    State,
    column,
    follows,
)

OTHER_SIDE: Mapping[Happening, Operation] = {
    Operation.PAIRCREATE_VL: Operation.PAIRCREATE_VR,
    Operation.PAIRCREATE_VR: Operation.PAIRCREATE_VL,
}
"""What the other side is told, where it is not the same."""

Learned = Mapping[State, State]
"""By what this side shows: what it shows then. What is not in it does not change."""

_P_SUSPENDS = dict.fromkeys(P_RUNNING, State.P_PSUS)
_P_GIVES_WAY = dict.fromkeys((*P_RUNNING, State.P_PSUE, State.P_PFUS), State.P_PSUS)
"""To an S-VOL that hosts may have written to. A fenced P-VOL stays so."""
_S_FAILS = dict.fromkeys((*S_RUNNING, State.S_SSUS, State.S_PFUS), State.S_PSUE)

LEARNED: Mapping[State, Learned] = column(
    # what the S-VOL's side shows, and what the P-VOL's side learns from it
    ((State.S_COPY,), {State.P_PAIR: State.P_COPY, State.P_PFUL: State.P_COPY}),
    ((State.S_PAIR, State.S_PFUL), {State.P_COPY: State.P_PAIR}),
    ((State.S_SSUS,), _P_SUSPENDS),
    ((State.S_SSUS_WRITABLE, State.S_SSWS), _P_GIVES_WAY),
    ((State.S_PSUE,), dict.fromkeys(P_RUNNING, State.P_PSUE)),
    ((State.S_PFUS,), dict.fromkeys(P_RUNNING, State.P_PFUS)),
    # what the P-VOL's side shows, and what the S-VOL's side learns from it
    ((State.P_COPY,), {}),
    ((State.P_PAIR,), {State.S_PFUL: State.S_PAIR}),
    ((State.P_PFUL,), {State.S_PAIR: State.S_PFUL}),
    ((State.P_PSUS,), dict.fromkeys((*S_RUNNING, State.S_PSUE, State.S_PFUS), State.S_SSUS)),
    ((State.P_PSUE, State.P_PSUE_FENCED), _S_FAILS),
    ((State.P_PFUS,), dict.fromkeys((*S_RUNNING, State.S_SSUS, State.S_PSUE), State.S_PFUS)),
    # in no pair
    ((State.SMPL,), _P_SUSPENDS | dict.fromkeys(S_RUNNING, State.S_SSUS)),
)
"""By what the peer shows: what this side learns from it, being the other side of the pair."""

RUNNING_STATES = frozenset(P_RUNNING + S_RUNNING)

COUNTERPART: Mapping[State, State] = column(
    ((State.SMPL,), State.SMPL),
    ((State.P_COPY,), State.S_COPY),
    ((State.P_PAIR,), State.S_PAIR),
    ((State.P_PFUL,), State.S_PFUL),
    ((State.P_PSUS,), State.S_SSUS),
    ((State.P_PSUE, State.P_PSUE_FENCED), State.S_PSUE),
    ((State.P_PFUS,), State.S_PFUS),
    ((State.S_COPY,), State.P_COPY),
    ((State.S_PAIR,), State.P_PAIR),
    ((State.S_PFUL,), State.P_PFUL),
    ((State.S_SSUS, State.S_SSUS_WRITABLE, State.S_SSWS), State.P_PSUS),
    ((State.S_PSUE,), State.P_PSUE),
    ((State.S_PFUS,), State.P_PFUS),
)
"""What the other side shows beside this one, when all is as it was told."""


class Age(IntEnum):
    """The generation of this side's row of the pair, beside the peer's."""

    OLDER = -1
    SAME = 0
    NEWER = 1


SUSPENDED_AS: Mapping[Side, State] = {Side.NONE: State.SMPL, Side.P_VOL: State.P_PSUS, Side.S_VOL: State.S_SSUS}
"""What a side shows whose pair was suspended because the sides differ."""


def met(state: State, peer: State, age: Age) -> State:
    """What this side shows after it saw that the peer shows `peer`."""
    if state.side is peer.side:
        return _beside(state, peer, age)
    if age is not Age.SAME and state in RUNNING_STATES and peer in RUNNING_STATES:
        return SUSPENDED_AS[state.side]
    return LEARNED[peer].get(state, state)


def _beside(state: State, peer: State, age: Age) -> State:
    """The same, where the peer claims the same side. Two that contradict in one generation stay as they are: of a
    resync and a swap at once each has reached one side, and nothing is guessed."""
    peer_leads = age is Age.OLDER or (age is Age.SAME and peer is State.S_SSWS is not state)
    if not peer_leads:
        return state
    counterpart = COUNTERPART[peer]
    if state in RUNNING_STATES or counterpart not in FOLLOWING:
        return counterpart
    return SUSPENDED_AS[counterpart.side]


def settled(state: State, peer: State) -> bool:
    """Whether the two sides of a pair may show these, and go on to, while they see each other."""
    if state.side is peer.side:
        return state is State.SMPL
    return met(state, peer, Age.SAME) is state and met(peer, state, Age.SAME) is peer


def contradict(state: State, peer: State) -> bool:
    """Whether two sides of one generation claim the same side for ever: see `_beside`."""
    claim = state.side is peer.side and state is not State.SMPL
    return claim and met(state, peer, Age.SAME) is state and met(peer, state, Age.SAME) is peer


def half(state: State, peer: State) -> bool:
    """Whether one side is in the pair and the other, which ended it while cut off, is not."""
    return (state is State.SMPL) is not (peer is State.SMPL)


def together(state: State, peer: State, happening: Happening, *, consistent: bool) -> tuple[State, State] | Refusal:
    """What both sides show after `happening`, told to this side; or the first side's refusal: then neither changes.
    `consistent` is about the S-VOL, whichever side has it: see `statuses.follows`. The sides have met: a side that has
    not heard of a suspension would take a resync for nothing new."""
    assert settled(state, peer), f"{state} and {peer} have not met"
    here = follows(state, happening, consistent=consistent)
    there = follows(peer, OTHER_SIDE.get(happening, happening), consistent=consistent)
    if isinstance(here, Refusal):
        return here
    return there if isinstance(there, Refusal) else (here, there)


def alone(state: State, happening: Happening, *, consistent: bool) -> State | Refusal:
    """What this side shows after `happening` while the peer does not answer."""
    outcome = follows(state, happening, consistent=consistent)
    return PEER_SILENT if happening in NEED_PEER and isinstance(outcome, State) and outcome is not state else outcome
