"""The whole table of pair statuses as text, for people: every row with every cell, and what two sides make of it.

A golden test compares it with a file, so that a change of the table is read before it is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from arrayd.replication import exit_codes, statuses
from arrayd.replication.exit_codes import ASYNCHRONOUS, STATUS_CODES, TAKEOVERS, Peer, Takeover
from arrayd.replication.meetings import COUNTERPART, Age, half, met, settled
from arrayd.replication.statuses import (
    ASKED_ELSEWHERE,
    NEED_PEER,
    TABLE,
    Happening,
    Operation,
    Refusal,
    Side,
    State,
    Status,
)

COLUMN = 46
"""Characters of what happens, at the beginning of a line."""

WITH_A_JOURNAL = frozenset({Status.PFUL, Status.PFUS})
"""What no synchronous pair ever is."""

OPPOSITE = [
    (state, peer)
    for state in State
    for peer in State
    if state.side is not Side.S_VOL and peer.side is not Side.P_VOL and state.side is not peer.side
]
"""Pairs of a P-VOL's side and an S-VOL's, or one of them and SMPL."""

LEGEND = """\
Pair statuses: what follows on this side, by what it shows and by what happens
==============================================================================

->        what this side shows then
=         it is taken, and nothing changes
no:       it is refused, and neither side changes
(both)    not while the other array does not answer
(point)   only if the S-VOL's data are a point of the group's writes
"""


def page() -> str:
    """The text, of lines of any length."""
    blocks = [LEGEND, *("\n".join(_row(state)) for state in State), "\n".join(_meetings()), "\n".join(_exit_codes())]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _line(what: str, cell: str) -> str:
    return f"{what:{COLUMN}}{cell}"


def _row(state: State) -> Iterator[str]:
    """One row: the meaning, every happening, horctakeover."""
    yield f"{state}"
    yield "-" * len(str(state))
    yield _line("a host's write", _writes(state))
    yield _line("pairvolchk", _codes(state))
    for happening in (*Operation, *statuses.Event):
        yield _line(happening, _cell(state, happening))
    for peer in Peer:
        yield _line(f"horctakeover, {peer.value}", _takeover(state, peer))
    yield _line("beside it, the other side shows", str(COUNTERPART[state]))


def _writes(state: State) -> str:
    asynchronous, synchronous = state.writes, state.writes_of(asynchronous=False)
    if asynchronous is synchronous or state.status in WITH_A_JOURNAL:
        return f"is {asynchronous}"
    return f"is {asynchronous}; of a synchronous pair: {synchronous}"


def _codes(state: State) -> str:
    code = STATUS_CODES[state.side, state.status]
    if state.side is Side.NONE:
        return f"{state.side.value}, -ss {code}"
    alone = state.status in WITH_A_JOURNAL
    return f"{state.side.value}, -ss {'' if alone else f'{code}, asynchronous '}{code + ASYNCHRONOUS}"


def _cell(state: State, happening: Happening) -> str:
    outcome = TABLE[happening][state]
    elsewhere = ASKED_ELSEWHERE.get((happening, state.side)) if isinstance(happening, Operation) else None
    if isinstance(outcome, Refusal):
        return f"no: {outcome.text}"
    if outcome is None:
        return "="
    marks = [f"-> {outcome}"]
    if happening in NEED_PEER:
        marks.append("(both)")
    if statuses.needs_consistent(state, happening):
        marks.append("(point)")
    if elsewhere is not None:
        marks.append(f"(asked for here: no: {elsewhere.text})")
    return " ".join(marks)


def _takeover(state: State, peer: Peer) -> str:
    taken = TAKEOVERS[peer][state]
    if isinstance(taken, Refusal):
        return f"no: {taken.text}"
    operation = exit_codes.CARRIED_OUT[taken]
    mark = " (point)" if exit_codes.needs_consistent(taken) else ""
    return f"exit {taken.value}, {taken.name}" + (f": {operation}" if operation else "") + mark


def _meetings() -> Iterator[str]:
    """What each pair of statuses becomes when both sides see each other."""
    yield "When the sides meet"
    yield "-------------------"
    for state, peer in OPPOSITE:
        if settled(state, peer):
            stay = "stay (half: pairsplit -S ends it)" if half(state, peer) else "stay"
            yield _line(f"{state} + {peer}", stay)
        else:
            yield _line(f"{state} + {peer}", _both(state, peer, Age.SAME))
    yield ""
    yield "When one is newer than the other: what is not as above"
    yield "------------------------------------------------------"
    for state, peer in OPPOSITE:
        for age in (Age.OLDER, Age.NEWER):
            if _both(state, peer, age) != _both(state, peer, Age.SAME):
                yield _line(f"{state} ({age.name.lower()}) + {peer}", _both(state, peer, age))
    yield ""
    yield "When both claim the same side, the first being newer"
    yield "----------------------------------------------------"
    for leader in State:
        others: dict[State, list[str]] = {}
        for state in State:
            if state.side is leader.side and state.side is not Side.NONE:
                others.setdefault(met(state, leader, Age.OLDER), []).append(str(state))
        for outcome, shown in others.items():
            every = "whatever it shows" if len(others) == 1 else f"from {', '.join(shown)}"
            yield _line(f"{leader}, the other -> {outcome}", every)
    yield ""
    yield "And in one generation"
    yield "---------------------"
    for state in State:
        for peer in State:
            if state.side is peer.side and met(state, peer, Age.SAME) is not state:
                yield _line(f"{state} + {peer}", _both(state, peer, Age.SAME))


def _both(state: State, peer: State, age: Age) -> str:
    return f"-> {met(state, peer, age)} + {met(peer, state, Age(-age))}"


def _exit_codes() -> Iterator[str]:
    """Exit codes that are no row's."""
    yield "Exit codes"
    yield "----------"
    for taken in Takeover:
        yield _line(f"horctakeover {taken.value}", taken.name)
    for side in (Side.P_VOL, Side.S_VOL):
        code = STATUS_CODES[side, Status.PDUB]
        yield _line(f"pairvolchk -ss {code}, {code + ASYNCHRONOUS}", "the group's volumes differ, and none is COPY")
    yield _line(f"pairvolchk -c {exit_codes.UNCONFORMED}", "the two sides are not those of one pair")
    yield _line(f"pairdisplay {exit_codes.UNCONFORMED}", "the arrays have other pairs than the path table")
    yield _line(f"pairvolchk {exit_codes.UNMATCHED}", "the group's volumes are not all on one side")
    for evented in exit_codes.EventWait:
        yield _line(f"pairevtwait {evented.value}", evented.name)
    for status, code in exit_codes.NOWAIT_CODES.items():
        yield _line(f"pairevtwait -nowait {code}", status.name)
    for synced in exit_codes.SyncWait:
        yield _line(f"pairsyncwait {synced.value}", synced.name)
    yield _line(f"pairsyncwait {exit_codes.INVALID_VOLUME}", "no P-VOL in PAIR, and no point named")
