"""Figure 16 by the host: the journal is acquired, restored and purged by one instruction after the other, and before
the pairs are PAIR the initial copy of figure 11 is made in the same way. `arrayctl replicate`.

A turn of the loop:

    S1103         while it is COPY: the S-VOLs' side copies some of what differs (figure 11)
    S1601-S1603   journal status of the primary: journal-out and journal-in
    S1604         journal acquisition instruction (figure 13)
    S1605-S1607   journal status of the auxiliary
    S1608         all up to that journal-in has been read, or it is acquired again
    S1609         restore instruction (figure 14), until all that has been read is restored
    S1610         purge instruction: what the S-VOLs have leaves the primary

Whoever has the P-VOLs is asked for at the beginning of each turn: the sides may have changed places. A turn that fails
may be made again: each instruction goes on where the one before has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from arrayd.commands.results import Result
from arrayd.host import pair_commands
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_commands import Process
from arrayd.host.pair_status import Silence
from arrayd.host.pair_wait import Sides
from arrayd.host.show import Column
from arrayd.replication.exit_codes import EventWait
from arrayd.replication.statuses import P_RUNNING, S_RUNNING, Side, State, Status

HOST = "host"
COPIES_A_TURN = 8
"""Steps of figure 11 in one turn, 2 MiB each: hosts write meanwhile, and the journal is not to fill up."""
ACQUISITIONS_A_TURN = 64
"""Instructions of figure 13, of 4 MiB each, before what they have brought is restored."""
RUNNING = frozenset(P_RUNNING + S_RUNNING)

STEPS = (
    Column("Group", "group"),
    Column("Step", "step"),
    Column("Array", "array"),
    Column("What", "what"),
    Column("Result", "result"),
)

Row = dict[str, Any]
Tell = Callable[[Row], None]


@dataclass(frozen=True, slots=True)
class Pointers:
    """A journal as journal-status tells of it (figure 15): names to LBAs, and to numbers of writes before them."""

    epoch: int
    lbas: Mapping[str, int]
    sequences: Mapping[str, int]

    @classmethod
    def read(cls, told: Any, array: str) -> Pointers:
        """Raises CommandFailed: it is none."""
        try:
            sequences = {str(name): int(at["sequence"]) for name, at in told["positions"].items()}
            lbas = {str(name).removesuffix("_lba"): int(lba) for name, lba in told["lbas"].items()}
            return cls(int(told["epoch"]), lbas, sequences)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CommandFailed(Result.INTERNAL, f"an answer that is no journal: {error}", array) from None

    def shown(self) -> str:
        """As a line has it, in figure 15's words."""
        return ", ".join(
            f"{name.replace('_', '-')} LBA {lba} ({self.sequences.get(name, '?')})" for name, lba in self.lbas.items()
        )


class NotDriven(CommandFailed):
    """The group is not one that a host drives, or is none: another turn finds the same."""


class Replicating:
    """Goes through figure 16 for the group of `arrays`. `tell(row)` is called after each step; after the first turn
    only for those that have found something new."""

    def __init__(self, arrays: Arrays, tell: Tell) -> None:
        self._arrays = arrays
        self._tell = tell
        self._shown: dict[str, object] = {}
        """By step: what was told last."""
        self._first = True
        self._did = False

    def turn(self) -> bool:
        """One turn of the loop; whether there was anything to do. Raises CommandFailed."""
        self._did = False
        primary, auxiliary, copying = self._sides(self._arrays.ask())
        if copying:
            self._copy(auxiliary)
        journal = self._status(primary, "S1603", "journal status of the primary")
        read = self._acquire(auxiliary, journal)
        if read is not None:
            self._restore(auxiliary, read)
            self._purge(primary)
        self._first = False
        return self._did

    # -- who has what --------------------------------------------------------------------------------------------------

    def _sides(self, sides: Sides) -> tuple[str, str, bool]:
        """The arrays with the P-VOLs and the S-VOLs, and whether it is COPY. Raises CommandFailed."""
        name = self._arrays.group.name
        shown: list[tuple[str, set[State]]] = []
        for array in self._arrays.names:
            heard = sides.of(array)
            if isinstance(heard, Silence):
                raise CommandFailed(heard.result, heard.reason)
            if not heard.asynchronous:
                raise NotDriven(Result.CONFLICT, f"group {name} is synchronous: there is nothing to drive", array)
            states = self._running(array, sides.states(heard))
            if heard.driver != HOST:
                reason = f"group {name} is driven by the arrays: pair-set driver={HOST} at both, or let them"
                raise NotDriven(Result.CONFLICT, reason, array)
            shown.append((array, states))
        told = {array: ", ".join(sorted(map(str, states))) for array, states in shown}
        self._line("", self._arrays.here, "pairs", _listed(told), {"pairs": told})
        p_vols = [array for array, states in shown if all(state.side is Side.P_VOL for state in states)]
        if len(p_vols) != 1:
            raise CommandFailed(Result.CONFLICT, f"the two sides of group {name} have not met: again in a moment")
        s_vols = self._arrays.other(p_vols[0])
        copying = any(state.status is Status.COPY for array, states in shown for state in states if array == s_vols)
        return p_vols[0], s_vols, copying

    def _running(self, array: str, states: Mapping[str, State]) -> set[State]:
        """What they show. Raises CommandFailed: there is nothing to replicate."""
        stopped = {name: state for name, state in states.items() if state not in RUNNING}
        # Volumes that are in no pair yet stand aside.
        paired = {name: state for name, state in stopped.items() if state is not State.SMPL}
        if paired:
            text = ", ".join(f"{name} {state}" for name, state in paired.items())
            raise CommandFailed(EventWait.SUSPENDED, f"it is suspended, pairresync first: {text}", array)
        if len(stopped) == len(states):
            raise NotDriven(Result.CONFLICT, f"group {self._arrays.group.name} has no pairs: paircreate first", array)
        return {state for name, state in states.items() if name not in stopped}

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _copy(self, array: str) -> None:
        left, did = None, 0
        for _ in range(COPIES_A_TURN):
            told = self._instruct(array, Process.PAIR_COPY)
            left = told.get("left")
            if not told.get("done"):
                break
            did += 1
        text = "nothing is left" if not left else f"{left} bytes are left"
        self._line("S1103", array, "initial copy", text, {"left": left, "instructions": did}, did=did > 0)

    def _status(self, array: str, step: str, what: str) -> Pointers:
        pointers = Pointers.read(self._instruct(array, Process.JOURNAL_STATUS), array)
        self._journal(step, array, what, pointers)
        return pointers

    def _acquire(self, array: str, primary: Pointers) -> Pointers | None:
        """Until all up to journal-in has been read: the auxiliary journal then. None: it is of another epoch."""
        wanted = primary.sequences.get("journal_in", 0)
        for _ in range(ACQUISITIONS_A_TURN):
            told = self._instruct(array, Process.JOURNAL_ACQUIRE)
            did = bool(told.get("done"))
            self._journal("S1604", array, "journal acquisition", Pointers.read(told.get("journal"), array), did=did)
            read = self._status(array, "S1607", "journal status of the auxiliary")
            if read.epoch != primary.epoch:
                return None
            completed, to_be_read = (read.sequences.get(name) for name in ("read_completed", "to_be_read"))
            if completed == to_be_read and ((completed or 0) >= wanted or not did):  # S1608
                break
        return read

    def _restore(self, array: str, read: Pointers) -> None:
        """Until all that has been read is restored."""
        did = True
        while did:
            told = self._instruct(array, Process.JOURNAL_RESTORE)
            did = bool(told.get("done"))
            restored = Pointers.read(told.get("journal"), array)
            self._journal("S1609", array, "restore", restored, did=did)
            if restored.sequences.get("restoration_completed", 0) >= read.sequences.get("read_completed", 0):
                break

    def _purge(self, array: str) -> None:
        told = self._instruct(array, Process.JOURNAL_PURGE)
        purged = Pointers.read(told.get("journal"), array)
        self._journal("S1610", array, "purge", purged, did=bool(told.get("done")))

    def _instruct(self, array: str, process: Process) -> Mapping[str, Any]:
        """The edited data of one instruction. Raises CommandFailed."""
        (ended,) = self._arrays.tell([pair_commands.step(array, self._arrays.group.name, process)])
        if ended.result != Result.OK:
            raise CommandFailed(ended.result, ended.reason)
        return ended.edited if isinstance(ended.edited, dict) else {}

    # -- told ----------------------------------------------------------------------------------------------------------

    def _journal(self, step: str, array: str, what: str, pointers: Pointers, *, did: bool = False) -> None:
        told = {"lbas": dict(pointers.lbas), "sequences": dict(pointers.sequences)}
        self._line(step, array, what, pointers.shown(), told, did=did)

    def _line(
        self, step: str, array: str, what: str, result: str, told: Mapping[str, Any], *, did: bool = False
    ) -> None:
        self._did = self._did or did
        new = self._shown.get(step) != (array, result)
        self._shown[step] = (array, result)
        if self._first or did or (new and step in ("", "S1603", "S1607")):
            row = {"group": self._arrays.group.name, "step": step or None, "array": array, "what": what}
            self._tell({**row, "result": result, **told})


def _listed(told: Mapping[str, str]) -> str:
    return "; ".join(f"{array}: {text}" for array, text in told.items())


GOES_ON = frozenset(
    {
        Result.UNREACHABLE,
        Result.UNDELIVERABLE,
        Result.NO_ROUTE,
        Result.EXPIRED,
        Result.INTERRUPTED,
        Result.BUSY,
        Result.FAILED,
        Result.CONFLICT,
        Result.NO_SLOT,
    }
)
"""Why a turn may fail that goes well in another one."""


def run(
    turn: Callable[[], bool],
    turns: int | None,
    interval_s: float,
    pause: Callable[[float], None],
    complain: Callable[[str], None],
) -> None:
    """Goes through `turns` turns; None: until it is interrupted. After one that found nothing to do, or that failed, it
    pauses. Raises CommandFailed: the last turn failed, or none will go well."""
    said, left = "", turns
    while True:
        left = None if left is None else left - 1
        try:
            did, reason = turn(), ""
        except CommandFailed as failure:
            if failure.result not in GOES_ON or isinstance(failure, NotDriven) or left == 0:
                raise
            did, reason = False, str(failure)
        if reason and reason != said:
            complain(reason)
        said = reason
        if left == 0:
            return
        if not did:
            pause(interval_s)
