"""pairsplit and pairresync: what becomes of a group that there is, told to both sides, or to the one that answers.

The table of statuses says what each side would do: what one of them refuses is told to neither. If an array refuses it
all the same, it has moved on, or has not heard yet what became of the other: the host looks again, and tells what is
left to be done, until the sides agree or time is up. So a command that reached one side only is brought to its end by
giving it again, and one that is carried out already changes nothing.

Which side is told first, where that matters: of a split that of the P-VOLs, so that the other can restore all that was
written until then; of what turns the pairs round that of the S-VOLs, which may have a reason to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from arrayd.commands.results import Result
from arrayd.host import machine, pair_commands
from arrayd.host.answers import Command, Ended
from arrayd.host.attempts import PAUSE_MAX_S, PAUSE_MIN_S
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_asking import NOT_DONE, Arrays, check_gone
from arrayd.host.pair_status import Heard, PairStatus, Silence
from arrayd.host.pair_wait import Sides
from arrayd.replication.statuses import (
    NEED_PEER,
    NO_PAIR,
    P_RUNNING,
    PEER_SILENT,
    S_RUNNING,
    Operation,
    Refusal,
    Side,
    State,
    asked,
    follows,
)

SETTLE_SECONDS = 10.0
"""So long the sides may take to tell each other what became of a pair."""

P_FIRST = frozenset({Operation.PAIRSPLIT, Operation.PAIRSPLIT_RW})
S_FIRST = frozenset({Operation.PAIRRESYNC_SWAPS, Operation.PAIRRESYNC_SWAPP, Operation.SWAP})
LOOK_AGAIN = (frozenset(Result) - NOT_DONE - {Result.OK}) | {Result.CONFLICT, Result.UNDELIVERABLE}
"""After these the host looks what the arrays show now."""

RUNNING = frozenset(P_RUNNING + S_RUNNING)


def carry_out(arrays: Arrays, operation: Operation, volume: str | None = None) -> list[str]:
    """Has `operation` happen to the group, or to one of its pairs: what is to be told beside that it is done. Raises
    CommandFailed: nothing was done, or the text says which side did what."""
    change = _Change(arrays, operation, volume)
    for late in looks():
        if change.done(arrays.ask(), late=late):
            break
    return change.notes


def looks() -> Iterator[bool]:
    """Each time that the arrays may be looked at: whether it is for the last time. There are pauses between."""
    until, pause_s = machine.monotonic() + SETTLE_SECONDS, PAUSE_MIN_S
    late = False
    while not late:
        late = machine.monotonic() >= until
        yield late
        machine.pause(pause_s)
        pause_s = min(PAUSE_MAX_S, 2 * pause_s)


def have_met(sides: Sides) -> bool:
    """Whether what both sides show may be the last word: they will not show something else once they have met. Where
    one of them is silent, what the other shows is."""
    here, there = sides.local, sides.remote
    if isinstance(here, Silence) or isinstance(there, Silence):
        return True
    shown, beside = here.by_number, there.by_number
    if shown and beside and here.generation != there.generation:
        return False
    both = [(shown.get(number, State.SMPL), beside.get(number, State.SMPL)) for number in {*shown, *beside}]
    return all(one.side is not other.side and (one in RUNNING) is (other in RUNNING) for one, other in both)


class _Change:
    """One operation on its way: which side has done its part."""

    def __init__(self, arrays: Arrays, operation: Operation, volume: str | None) -> None:
        self.notes: list[str] = []
        self._arrays = arrays
        self._operation = operation
        self._volume = volume
        self._did: list[str] = []
        """Sides that have done their part."""
        self._unknown: list[str] = []
        """Sides of which that was not known when they were last told."""
        self._failed: CommandFailed | None = None
        """Why a part was not carried out when it was last told."""
        self._after: dict[str, dict[int, State]] = {}
        """What each side that was told something shows when it is done, by the pairs' numbers."""

    def done(self, sides: Sides, *, late: bool) -> bool:
        """The next step, after a look at both sides: whether it is done then. Raises CommandFailed where it will not
        be, or is not and there is no other look."""
        if self._half_way(sides):
            if late and not self._arrived(sides):
                raise self._why(self._failed)
            return self._arrived(sides)
        try:
            parts = self._parts(sides)
        except CommandFailed as failure:
            if late or have_met(sides):
                raise self._why(failure) from None
            return False
        if not parts:
            return True
        self._take(self._arrays.tell(parts, any_order=self._operation not in P_FIRST | S_FIRST))
        if self._failed is not None and (late or self._failed.result not in LOOK_AGAIN):
            raise self._why(self._failed)
        return self._failed is None

    def _parts(self, sides: Sides) -> list[Command]:
        """What is still to be told; nothing: it is done. Raises CommandFailed."""
        heard = {array: sides.of(array) for array in self._arrays.names}
        statuses = {array: each for array, each in heard.items() if isinstance(each, PairStatus)}
        if not statuses:
            raise CommandFailed(Result.UNREACHABLE, sides.silences())
        number = self._number(statuses) if self._volume is not None else None
        after = {array: self._follows(array, heard, number) for array in statuses}
        changing = [array for array in statuses if not _shows(statuses[array], after[array])]
        if len(statuses) < len(heard) and (changing or self._failed is not None or self._operation in NEED_PEER):
            self._alone(sides, heard)
        self._after = {array: after[array] for array in changing}
        group, operation = self._arrays.group.name, self._operation
        # What ends asks nobody: sides that cannot meet any more can still be taken apart, each by itself.
        apart = operation is Operation.PAIRSPLIT_S and not have_met(sides)
        beside = {array: None if apart else heard[self._arrays.other(array)] for array in changing}
        return [
            pair_commands.change(array, group, operation, statuses[array], beside[array], number)
            for array in self._ordered(changing, statuses)
        ]

    def _alone(self, sides: Sides, heard: dict[str, Heard]) -> None:
        """One side does not answer. Raises CommandFailed for what needs both, and if that side is not gone."""
        check_gone(sides)
        if self._operation in NEED_PEER:
            raise CommandFailed(Result.UNREACHABLE, f"{sides.silences()}: {PEER_SILENT.text}")
        here = next(array for array, each in heard.items() if isinstance(each, PairStatus))
        self.notes = [f"{sides.silences()}: {self._operation} on {here} alone"]

    def _number(self, statuses: dict[str, PairStatus]) -> int:
        """The pair of the volume that was named; -1: it is in none."""
        volume = next(each for each in self._arrays.group.volumes if each.name == self._volume)
        numbers = {
            pair.number
            for array, status in statuses.items()
            if (pair := status.pairs.get(volume.luns[array])) is not None and pair.number in status.paired
        }
        if len(numbers) > 1:
            reason = f"{self._volume} is in two pairs, one on each side: the file and the arrays differ"
            raise CommandFailed(Result.CONFLICT, reason)
        return next(iter(numbers), -1)

    def _follows(self, array: str, heard: dict[str, Heard], number: int | None) -> dict[int, State]:
        """What this side shows when it is done. Raises CommandFailed for what it refuses."""
        here, there = heard[array], heard[self._arrays.other(array)]
        assert isinstance(here, PairStatus)
        shown, beside = here.by_number, there.paired if isinstance(there, PairStatus) else {}
        numbers = sorted({*shown, *beside}) if number is None else [number]
        if not numbers and self._operation is not Operation.PAIRSPLIT_S:
            raise refusal(array, NO_PAIR)
        after: dict[int, State] = {}
        for each in numbers:
            state = shown.get(each, State.SMPL)
            wrong = asked(state, self._operation) if array == self._arrays.local else None
            outcome = wrong or follows(state, self._operation, consistent=here.consistent)
            if isinstance(outcome, Refusal) and state is State.SMPL and each in beside:
                raise half(array, [pair.name or str(number) for number, pair in beside.items() if number not in shown])
            if isinstance(outcome, Refusal):
                raise refusal(array, outcome)
            after[each] = outcome
        return after

    def _half_way(self, sides: Sides) -> bool:
        """Whether one side at least has turned the pairs round: then the arrays bring it to its end when they meet, and
        the other is not told again."""
        turned = [array for array in self._after if self._shows_it(array, sides)]
        return self._operation in S_FIRST and self._failed is not None and bool(self._did or turned)

    def _arrived(self, sides: Sides) -> bool:
        """Whether all that were told show what they do when it is done."""
        return all(self._shows_it(array, sides) for array in self._after)

    def _shows_it(self, array: str, sides: Sides) -> bool:
        heard = sides.of(array)
        return isinstance(heard, PairStatus) and has_come_to(heard, self._after[array])

    def _ordered(self, changing: Iterable[str], statuses: dict[str, PairStatus]) -> list[str]:
        """The sides that are told, in the order in which they are."""
        first = Side.P_VOL if self._operation in P_FIRST else Side.S_VOL
        return sorted(changing, key=lambda array: side_of(statuses[array]) is not first)

    def _take(self, ended: list[Ended]) -> None:
        """Notes what became of the parts."""
        self._did += [each.array for each in ended if each.result == Result.OK]
        self._unknown = [each.array for each in ended if each.result != Result.OK and each.result not in NOT_DONE]
        failed = [each for each in ended if each.result not in (Result.OK, Result.NOT_EXECUTED)]
        self._failed = CommandFailed(failed[0].result, failed[0].reason) if failed else None

    def _why(self, failure: CommandFailed | None) -> CommandFailed:
        """Why it is not done, and who did what: nothing is added where nobody did anything."""
        assert failure is not None, "what has not failed has no reason"
        told = [f"{array} has done its part" for array in dict.fromkeys(self._did)]
        told += [f"whether {array} has is not known" for array in self._unknown]
        if not told:
            return failure
        again = "again, or pairdisplay to see what they show"
        return CommandFailed(failure.result, f"{failure}; {', '.join(told)}: {again}")


def _shows(status: PairStatus, after: Mapping[int, State]) -> bool:
    return all(status.by_number.get(number, State.SMPL) is state for number, state in after.items())


def has_come_to(status: PairStatus, after: Mapping[int, State]) -> bool:
    """Whether a side shows what it was told to come to, or what that has become by itself: a copy that has ended."""
    shown = [(status.by_number.get(number, State.SMPL), wanted) for number, wanted in after.items()]
    return all(state is wanted or (state.side is wanted.side and {state, wanted} <= RUNNING) for state, wanted in shown)


def half(array: str, names: Iterable[str]) -> CommandFailed:
    """Pairs of these names that this side does not have, and the other has: nothing was done."""
    named = ", ".join(names)
    return CommandFailed(Result.CONFLICT, f"{named}: the other side is in the pair alone: pairsplit -S ends it", array)


def refusal(array: str, refused: Refusal) -> CommandFailed:
    """What a side refuses, or would: nothing was done."""
    return CommandFailed(Result.CONFLICT, refused.text, array)


def side_of(status: PairStatus) -> Side:
    """Which volumes of the group an array has: all of its pairs are on one side."""
    return next((state.side for state in status.by_number.values()), Side.NONE)
