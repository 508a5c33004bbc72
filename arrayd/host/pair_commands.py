"""The commands about pairs as a host builds them: process numbers and input parameters. `docs/arrayctl.md`.

A command that changes pairs says what its array showed when the host looked (`generation`), and what the other side did
(`rows`, null where it did not answer): an array that has moved on since refuses it, and the host looks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from arrayd.host.answers import Command
from arrayd.host.pair_status import Heard, PairStatus
from arrayd.replication.statuses import Operation

SEQUENCE = "sequence"
"""In the edited data of pair-takeover: the newest of the group's writes that the S-VOLs have."""


class Process(IntEnum):
    """Process numbers. By a number an array need not be asked first which commands it has."""

    PAIR_STATUS = 60
    PAIR_CREATE = 61
    PAIR_SPLIT = 62
    PAIR_DELETE = 63
    PAIR_RESYNC = 64
    PAIR_SWAP = 65
    PAIR_TAKEOVER = 66
    PAIR_SET = 67
    JOURNAL_STATUS = 70
    JOURNAL_ACQUIRE = 71
    JOURNAL_RESTORE = 72
    JOURNAL_PURGE = 73
    PAIR_COPY = 74
    PAIR_DIFFERENCES = 75
    PAIR_VERIFY = 76
    PAIR_VERIFY_STOP = 77
    PAIR_VERIFY_FOUND = 78


CHANGES: Mapping[Operation, tuple[Process, Mapping[str, Any]]] = {
    Operation.PAIRSPLIT: (Process.PAIR_SPLIT, {"writable": False}),
    Operation.PAIRSPLIT_RW: (Process.PAIR_SPLIT, {"writable": True}),
    Operation.PAIRSPLIT_S: (Process.PAIR_DELETE, {}),
    Operation.PAIRRESYNC: (Process.PAIR_RESYNC, {"swap": None}),
    Operation.PAIRRESYNC_SWAPS: (Process.PAIR_RESYNC, {"swap": "swaps"}),
    Operation.PAIRRESYNC_SWAPP: (Process.PAIR_RESYNC, {"swap": "swapp"}),
    Operation.SWAP: (Process.PAIR_SWAP, {}),
    Operation.SVOL_SSUS: (Process.PAIR_TAKEOVER, {}),
    Operation.PVOL_PSUE: (Process.PAIR_TAKEOVER, {}),
}
"""How a side is told what is to happen to a group that there is: which command, and what it takes besides."""

NEW_EPOCH = frozenset({Operation.PAIRRESYNC, Operation.PAIRRESYNC_SWAPS, Operation.PAIRRESYNC_SWAPP, Operation.SWAP})
"""Where a new journal begins."""


def status(array: str, group: str, luns: Sequence[int]) -> Command:
    """pair-status: of a group, and of volumes that are, or are to be, in its pairs."""
    return Command(array, Process.PAIR_STATUS, {"group": group, "luns": list(luns)})


def change(
    array: str, group: str, operation: Operation, here: PairStatus, there: Heard | None, number: int | None = None
) -> Command:
    """This side's part of `operation`; `number` names one pair (PAIRSPLIT_S alone). `here` and `there` are what was
    heard of this side and of the other; None: this side does it alone, whatever the other shows."""
    process, more = CHANGES[operation]
    told = {"group": group, "generation": here.generation, "rows": rows(there), **more}
    if operation in NEW_EPOCH:
        told["epoch"] = next_epoch(here, there)
    if number is not None:
        told["pair"] = number
    return Command(array, process, told)


def delete(array: str, group: str, generation: int, number: int | None) -> Command:
    """pair-delete of what was just made, of which the other side has nothing."""
    told: dict[str, Any] = {"group": group, "generation": generation, "rows": None}
    return Command(array, Process.PAIR_DELETE, told if number is None else {**told, "pair": number})


def settings(array: str, group: str, **values: Any) -> Command:
    """pair-set: the pace of copies, a limit of their speed, the driver."""
    return Command(array, Process.PAIR_SET, {"group": group, **values})


def step(array: str, group: str, process: Process) -> Command:
    """journal-status, and the steps of figure 16 that are like it."""
    return Command(array, process, {"group": group})


def differences(array: str, group: str, pair: int, offset: int, limit: int) -> Command:
    """pair-differences: ranges of one pair, from this byte on, so many at the most."""
    return Command(array, Process.PAIR_DIFFERENCES, {"group": group, "pair": pair, "offset": offset, "limit": limit})


def verify(array: str, group: str, pair: int | None, repair_from: str | None) -> Command:
    """pair-verify: of all pairs, or of one; what differs is mended as P or S has it."""
    return Command(array, Process.PAIR_VERIFY, {"group": group, "pair": pair, "repair_from": repair_from})


def verify_stop(array: str, group: str) -> Command:
    """pair-verify-stop."""
    return Command(array, Process.PAIR_VERIFY_STOP, {"group": group})


def verify_found(array: str, group: str, first: int) -> Command:
    """pair-verify-found: ranges from this one on."""
    return Command(array, Process.PAIR_VERIFY_FOUND, {"group": group, "first": first})


def rows(heard: Heard | None) -> dict[str, Any] | None:
    """What one side shows, as the other is told it; None where it does not answer."""
    if not isinstance(heard, PairStatus):
        return None
    states = {str(number): str(state) for number, state in sorted(heard.by_number.items())}
    return {"generation": heard.generation, "consistent": heard.consistent, "states": states}


def next_epoch(*heard: Heard | None) -> int:
    """One that no journal of the group had on either side, as far as they answer."""
    return 1 + max((each.last_epoch or 0 for each in heard if isinstance(each, PairStatus)), default=0)
