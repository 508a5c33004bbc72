"""pairvolchk, pairevtwait and pairsyncwait without I/O: what to do next after an answer, or the exit code.

A wait is told what is heard of both sides and what time it is, and answers with a pause before the next question, or
with its end. Its pauses grow like those between attempts (`attempts.py`). Nothing is guessed of a side that is silent:
a wait goes on without it until time is up, and then says so. The codes are those of
`arrayd/replication/exit_codes.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from arrayd.commands.results import Result
from arrayd.host.attempts import PAUSE_MAX_S, PAUSE_MIN_S
from arrayd.host.groups import Group
from arrayd.host.pair_status import Heard, PairStatus, Silence
from arrayd.host.show import moment
from arrayd.replication import exit_codes
from arrayd.replication.exit_codes import EventWait, SyncWait
from arrayd.replication.statuses import P_SUSPENDED, Side, State, Status

TIMEOUT_S_MAX = 1_000_000
"""Of a wait: eleven days. Nobody waits for ever by oversight."""
WAITED_FOR: Mapping[str, Status] = {
    status.value.lower(): status for status in Status if status not in (Status.PDUB, Status.PFUL, Status.PFUS)
}
"""What may stand behind -s, in small letters. PFUL and PFUS count as PAIR and PSUS; PDUB is no volume's."""
S_VOLS_ONLY = frozenset({Status.SSUS, Status.SSWS})
"""What no P-VOL shows."""
_MARKER = re.compile(r"([0-9a-f]{16})([0-9a-f]{16})")


class Judged(Enum):
    """Which volumes of a group are looked at."""

    P_VOLS = "the P-VOLs, wherever they are"
    S_VOLS = "the S-VOLs"
    LOCAL = "those of this side"


@dataclass(frozen=True, slots=True)
class Again:
    """Ask the arrays again after a pause."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more to ask: the exit code, and what is told beside it."""

    code: int
    text: str


Step = Again | Ended


@dataclass(frozen=True, slots=True)
class Marker:
    """A point of a group's writes, as CCI's Q-marker is one: the write of this number, under the pairs of this
    generation. A resync makes a new generation, in which the number means nothing. Writes of a synchronous group have
    no numbers: its points have 0, and whatever was answered before one of them was taken, in PAIR, is on both sides."""

    generation: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.generation:016x}{self.sequence:016x}"

    @classmethod
    def read(cls, text: str) -> Marker:
        """The marker that was printed as `text`. Raises ValueError with what was expected."""
        found = _MARKER.fullmatch(text.lower())
        if found is None:
            raise ValueError("32 hexadecimal digits, as pairsyncwait -nowait prints them")
        return cls(int(found[1], 16), int(found[2], 16))


def wanted_statuses(given: Iterable[str]) -> frozenset[Status]:
    """What stands behind -s, in small or capital letters. Raises ValueError with what was expected."""
    names = [name.lower() for name in given]
    if not names or not all(name in WAITED_FOR for name in names):
        raise ValueError(f"one or more of {', '.join(WAITED_FOR)}")
    return frozenset(WAITED_FOR[name] for name in names)


# -- what was heard ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sides:
    """A group as both ends of its leg tell of it, at one moment."""

    group: Group
    here: str
    heard: Mapping[str, Heard]
    """By array. One that is not there was not asked."""

    @property
    def local(self) -> Heard:
        """What this side says."""
        return self.of(self.group.local(self.here))

    @property
    def remote(self) -> Heard:
        """What the other side says."""
        local = self.group.local(self.here)
        return self.of(next(array for array in self.group.arrays if array != local))

    def of(self, array: str) -> Heard:
        """What an array says of this group's volumes: an answer that leaves one out is none."""
        heard = self.heard.get(array, Silence(f"{array} was not asked", None))
        if isinstance(heard, PairStatus) and self._states(array, heard) is None:
            return Silence(f"{array} does not tell of all volumes of {self.group.name}", None, Result.NOT_FOUND)
        return heard

    def states(self, heard: PairStatus) -> dict[str, State]:
        """What the volumes show on the side that said `heard`, by name."""
        for array in self.group.arrays:
            if self.heard.get(array) is heard and (states := self._states(array, heard)) is not None:
                return states
        raise AssertionError("an answer that is no side's")

    def leading(self) -> PairStatus | None:
        """The side that a pair is judged by: that with the P-VOLs (CCI's way), this one if both or neither have them.
        None while that cannot be told, because a side that may have them is silent."""
        return self._with(Side.P_VOL)

    def judged(self, judged: Judged) -> PairStatus | None:
        """The side whose volumes are looked at, likewise."""
        if judged is Judged.LOCAL:
            return self.local if isinstance(self.local, PairStatus) else None
        return self._with(Side.P_VOL if judged is Judged.P_VOLS else Side.S_VOL)

    def _with(self, side: Side) -> PairStatus | None:
        local, remote = self.local, self.remote
        if isinstance(local, PairStatus) and self._has(side, local):
            return local
        if isinstance(remote, PairStatus) and self._has(side, remote):
            return remote
        return local if isinstance(local, PairStatus) and isinstance(remote, PairStatus) else None

    def said(self) -> list[PairStatus]:
        """The sides that answered, this one first."""
        return [each for each in (self.local, self.remote) if isinstance(each, PairStatus)]

    def conform(self) -> bool:
        """Whether each volume is a P-VOL on one side and an S-VOL on the other, or in no pair on either."""
        shown = [self.states(each) for each in self.said()]
        return len(shown) == 2 and all(
            {shown[0][name].side, shown[1][name].side} in ({Side.NONE}, {Side.P_VOL, Side.S_VOL}) for name in shown[0]
        )

    def silences(self) -> str:
        """Which sides that were asked say nothing, and since when; empty if none."""
        return "; ".join(map(_silence, self._silent()))

    def silence_code(self) -> Result:
        """The exit code where a side that was asked says nothing: also of an array that has no volume at a LUN."""
        lacking = any(each.result == Result.NOT_FOUND for each in self._silent())
        return Result.NOT_FOUND if lacking else Result.UNREACHABLE

    def _silent(self) -> list[Silence]:
        local = self.group.local(self.here)
        names = [local, *(array for array in self.group.arrays if array != local)]
        said = [self.of(array) for array in names if array in self.heard]
        return [each for each in said if isinstance(each, Silence)]

    def _has(self, side: Side, heard: PairStatus) -> bool:
        return any(state.side is side for state in self.states(heard).values())

    def _states(self, array: str, heard: PairStatus) -> dict[str, State] | None:
        return heard.states({volume.name: volume.luns[array] for volume in self.group.volumes})


def _silence(silent: Silence) -> str:
    """Why a side says nothing, and since when: an array that lacks a volume is there."""
    here = silent.result == Result.NOT_FOUND
    return silent.reason if here else f"{silent.reason}, last heard of {_when(silent.last_contact)}"


def _when(last_contact: float | None) -> str:
    return "at a time unknown" if last_contact is None else f"{moment(last_contact)} UTC"


# -- pairvolchk --------------------------------------------------------------------------------------------------------


def pairvolchk(sides: Sides, *, status: bool = False, remote: bool = False) -> Ended:
    """What this side's volumes are; with `status` (-ss), what they show, too. `remote` (-c): what the other side's are,
    if both sides are those of one pair."""
    judged = sides.remote if remote else sides.local
    if isinstance(judged, Silence) or (remote and isinstance(sides.local, Silence)):
        return Ended(sides.silence_code(), sides.silences())
    states = sides.states(judged)
    if remote and not sides.conform():
        told = [f"{each.array}: {_shown(sides.states(each))}" for each in sides.said()]
        return Ended(exit_codes.UNCONFORMED, f"the sides are not those of one pair: {'; '.join(told)}")
    if status:
        code = exit_codes.pairvolchk_ss(states.values(), asynchronous=judged.asynchronous)
        return Ended(code, _shown(states))
    return Ended(exit_codes.pairvolchk(states.values()), _shown(states))


# -- waiting -----------------------------------------------------------------------------------------------------------


class Waiting:
    """When a wait has to end, and how long it pauses: twice as long each time, never past its end."""

    def __init__(self, now: float, timeout_s: float) -> None:
        """`now` is the time of the clock that only goes forward, in seconds. Raises ValueError."""
        if not 0 <= timeout_s <= TIMEOUT_S_MAX:
            raise ValueError(f"seconds, 0 to {TIMEOUT_S_MAX}")
        self._deadline = now + timeout_s
        self._pause_s = PAUSE_MIN_S

    def again(self, now: float) -> Again | None:
        """The next pause; None if time is up."""
        remaining = self._deadline - now
        if remaining <= 0:
            return None
        pause_s = min(self._pause_s, remaining)
        self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)
        return Again(pause_s)


def pairevtwait_nowait(sides: Sides, which: Judged = Judged.P_VOLS) -> Ended:
    """`pairevtwait -nowait`: what the group shows now."""
    judged = sides.judged(which)
    if judged is None:
        return Ended(sides.silence_code(), sides.silences())
    states = sides.states(judged)
    return Ended(exit_codes.pairevtwait_nowait([state.status for state in states.values()]), _shown(states))


class EventWaiting:
    """pairevtwait: until every volume of the group shows one of the statuses that were asked for."""

    def __init__(self, wanted: Collection[Status], now: float, timeout_s: float, which: Judged = Judged.P_VOLS) -> None:
        """Raises ValueError."""
        self._wanted = wanted
        self._which = which
        self._waiting = Waiting(now, timeout_s)

    def heard(self, sides: Sides, now: float) -> Step:
        """What to do after an answer."""
        judged = sides.judged(self._which)
        shown = sides.states(judged) if judged is not None else {}
        ends = [self._end_of(state.status) for state in shown.values()]
        if ends and all(end is EventWait.REACHED for end in ends):
            return Ended(EventWait.REACHED, _shown(shown))
        if EventWait.SUSPENDED in ends:
            return Ended(EventWait.SUSPENDED, _shown(shown))
        return self._waiting.again(now) or Ended(EventWait.TIMEOUT, _shown(shown) or sides.silences())

    def _end_of(self, shown: Status) -> EventWait | None:
        """How waiting has ended for a volume that shows this: any of what was asked for will do."""
        ends = {exit_codes.pairevtwait(wanted, shown) for wanted in self._wanted}
        return next((end for end in (EventWait.REACHED, EventWait.SUSPENDED) if end in ends), None)


def _shown(states: Mapping[str, State]) -> str:
    return ", ".join(f"{name} {state}" for name, state in states.items())


# -- pairsyncwait ------------------------------------------------------------------------------------------------------


def pairsyncwait_nowait(sides: Sides) -> Ended:
    """`pairsyncwait -nowait`: the point that it would wait for, as text that `-m` takes."""
    taken = _point(sides)
    return Ended(exit_codes.SYNC_NOWAIT, str(taken)) if isinstance(taken, Marker) else taken


class SyncWaiting:
    """pairsyncwait: until the S-VOLs have what the P-VOLs had been written to when it began."""

    def __init__(self, now: float, timeout_s: float, marker: Marker | None = None) -> None:
        """`marker` (-m): the point to wait for; None: the newest write, once somebody says which that is. Raises
        ValueError."""
        self._marker = marker
        self._waiting = Waiting(now, timeout_s)

    @property
    def marker(self) -> Marker | None:
        """The point that is waited for: what is told when time is up, for `-m` of another try."""
        return self._marker

    def heard(self, sides: Sides, now: float) -> Step:
        """What to do after an answer."""
        if self._marker is None:
            taken = _point(sides)
            if isinstance(taken, Marker):
                self._marker = taken
            elif taken.code not in (Result.UNREACHABLE, Result.NOT_FOUND):
                return _broken(sides) or taken
            else:
                return self._waiting.again(now) or Ended(SyncWait.TIMEOUT, taken.text)
        assert self._marker is not None
        ends = {self._end_of(sides, each, self._marker) for each in (sides.local, sides.remote)}
        # A side that has seen the resync knows more than one that has not; one that has the point, more than one that
        # was cut off from it.
        for end in (SyncWait.CHANGED, SyncWait.DONE, SyncWait.BROKEN):
            if end in ends:
                return Ended(end, str(self._marker))
        silences = sides.silences()
        text = f"{self._marker}; {silences}" if silences else str(self._marker)
        return self._waiting.again(now) or Ended(SyncWait.TIMEOUT, text)

    def _end_of(self, sides: Sides, heard: Heard, marker: Marker) -> SyncWait | None:
        """How waiting has ended by what one side says. A side of an older generation has yet to hear of this one; one
        that is in no pair any more has no generation that counts."""
        if isinstance(heard, Silence):
            return None
        if State.SMPL in sides.states(heard).values():
            return SyncWait.BROKEN
        if heard.generation < marker.generation:
            return None
        told = heard.restored if heard.asynchronous else marker.sequence
        reached = told is not None and told >= marker.sequence
        resynced = heard.generation > marker.generation
        ends = {
            exit_codes.pairsyncwait(state, reached=reached, resynced=resynced) for state in sides.states(heard).values()
        }
        return next((end for end in (SyncWait.CHANGED, SyncWait.DONE, SyncWait.BROKEN) if end in ends), None)


def _point(sides: Sides) -> Marker | Ended:
    """The newest write of the group, by the side with the P-VOLs; or why none is told."""
    leading = sides.leading()
    if leading is None:
        return Ended(sides.silence_code(), sides.silences())
    states = sides.states(leading)
    if not all(state in (State.P_PAIR, State.P_PFUL) for state in states.values()):
        return Ended(exit_codes.INVALID_VOLUME, _shown(states))
    if not leading.asynchronous:
        return Marker(leading.generation, 0)
    if leading.sequence is None:
        return Ended(Result.UNREACHABLE, f"{leading.array} does not know its newest write")
    return Marker(leading.generation, leading.sequence)


def _broken(sides: Sides) -> Ended | None:
    """How a wait ends that finds P-VOLs of a synchronous group suspended: hosts may have written to them alone. None:
    it is asynchronous, or runs."""
    leading = sides.leading()
    if leading is None or leading.asynchronous:
        return None
    states = sides.states(leading)
    return Ended(SyncWait.BROKEN, _shown(states)) if any(state in P_SUSPENDED for state in states.values()) else None
