"""paircreate: makes the pairs of a group, both sides of each, or none.

The host asks both arrays what lies at the LUNs that its file names, chooses the journals of an asynchronous group,
numbers the pairs, and tells both sides. What one side refuses is taken back on the other. Volumes that are in the
group's pairs already stay as they are, so that the same command again changes nothing, and one for a group that has
grown makes the pairs that are new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from arrayd.commands.results import Result
from arrayd.host import pair_commands
from arrayd.host.answers import Command, Ended
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import FENCE_LEVELS, Group, GroupVolume
from arrayd.host.machine import random_bytes
from arrayd.host.pair_asking import NOT_DONE, Arrays, check_gone
from arrayd.host.pair_changes import half, side_of
from arrayd.host.pair_commands import Process
from arrayd.host.pair_misfits import of_another_mode
from arrayd.host.pair_status import Heard, Pair, PairStatus, Silence
from arrayd.host.pair_wait import Sides
from arrayd.replication.statuses import Operation, Refusal, Side, State, follows

PAIRS_A_MESSAGE = 256
"""Pairs that one command makes: an input parameter has room for so many. More go behind, into the same group."""
ID_BYTES = 16
BOTH = "a pair is made on both arrays: again when both answer"
PACE, PACE_MAX = 3, 15
"""Of copies: what there is unless another is named, and the quickest."""
OPTIONS = {Side.P_VOL: "-jp", Side.S_VOL: "-js"}
"""That name a side's journal."""
LETTERS = {Side.P_VOL: "P", Side.S_VOL: "S"}
CREATES = {Side.P_VOL: Operation.PAIRCREATE_VL, Side.S_VOL: Operation.PAIRCREATE_VR}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    p_vols: str
    """The array whose volumes become the P-VOLs."""
    copy: bool = True
    """False (-nocopy): the S-VOLs are the same already."""
    pace: int = PACE
    driver: str = "arrays"
    p_journal: int | None = None
    """The LUN of the P-VOLs' journal (-jp); None: that of the file, or one that is not used."""
    s_journal: int | None = None
    copy_rate: int | None = None
    """Of copies: bytes a second at the most (--copy-rate); None: no limit."""
    fence: str | None = None
    """The fence level of a synchronous group (-f); None: that of its pairs, or of the file."""

    def journal(self, side: Side) -> int | None:
        """That of one side."""
        return self.p_journal if side is Side.P_VOL else self.s_journal


@dataclass(frozen=True, slots=True)
class End:
    """One side of the pairs that are to be made."""

    array: str
    """As the host's file names it."""
    status: PairStatus
    side: Side
    journal: int | None
    """None: the group is synchronous."""


def create(arrays: Arrays, wanted: Wanted) -> None:
    """Makes what is not there yet. Raises CommandFailed: there is no pair more than before, or the text says where."""
    sides = arrays.ask()
    statuses = _statuses(arrays, sides)
    sides_of = {array: Side.P_VOL if array == wanted.p_vols else Side.S_VOL for array in arrays.names}
    for array, status in statuses.items():
        _check_mode(arrays.group, array, status, wanted)
    new = [volume for volume in arrays.group.volumes if _is_new(volume, statuses, sides_of)]
    if not new:
        for array, status in statuses.items():
            _running_journal(arrays.group, array, status, wanted.journal(sides_of[array]))
        return
    for volume in new:
        _check_sizes(volume, statuses)
    ends = {
        array: End(array, status, sides_of[array], _journal(arrays.group, array, status, sides_of[array], wanted))
        for array, status in statuses.items()
    }
    for commands in _commands(arrays.group, ends, new, wanted):
        ended = arrays.tell(commands, any_order=True)
        if any(each.result != Result.OK for each in ended):
            _settle(arrays, commands, ended)


def _statuses(arrays: Arrays, sides: Sides) -> dict[str, PairStatus]:
    """What both say. Raises CommandFailed."""
    raw = {array: each for array in arrays.names if isinstance(each := sides.heard[array], PairStatus)}
    for array, status in raw.items():
        for volume in arrays.group.volumes:
            if volume.luns[array] not in status.pairs:
                raise CommandFailed(Result.NOT_FOUND, f"no volume at LUN {volume.luns[array]}: {volume.name}", array)
    check_gone(sides)
    if len(raw) < len(arrays.names):
        raise CommandFailed(Result.UNREACHABLE, f"{sides.silences()}: {BOTH}")
    return raw


def _is_new(volume: GroupVolume, statuses: dict[str, PairStatus], sides_of: dict[str, Side]) -> bool:
    """Whether a volume is in no pair. Raises CommandFailed where it is, and not in such a one."""
    for array, status in statuses.items():
        holder = status.pairs[volume.luns[array]].holder
        if holder is not None:
            reason = (
                f"{volume.name}: LUN {volume.luns[array]} is {holder}: another LUN in the path table, or end that first"
            )
            raise CommandFailed(Result.CONFLICT, reason, array)
    states = {array: status.pairs[volume.luns[array]].state for array, status in statuses.items()}
    for array, state in states.items():
        outcome = follows(state, CREATES[sides_of[array]], consistent=False)
        if isinstance(outcome, Refusal):
            raise CommandFailed(Result.CONFLICT, f"{volume.name}: {outcome.text}", array)
    made = [array for array, state in states.items() if state is not State.SMPL]
    if len(made) == 1:
        raise half(next(array for array in states if array not in made), [volume.name])
    return not made


def _check_sizes(volume: GroupVolume, statuses: dict[str, PairStatus]) -> None:
    pairs = {array: status.pairs[volume.luns[array]] for array, status in statuses.items()}
    sizes = {array: pair.size for array, pair in pairs.items()}
    blocks = {array: pair.block_size for array, pair in pairs.items()}
    for what, found in (("size", sizes), ("block size", blocks)):
        if len({each for each in found.values() if each is not None}) > 1:
            told = ", ".join(f"{each} bytes on {array}" for array, each in found.items())
            raise CommandFailed(Result.FAILED, f"{volume.name}: {told}: both volumes of a pair have one {what}")


def _check_mode(group: Group, array: str, status: PairStatus, wanted: Wanted) -> None:
    """What the pairs that there are have is not changed by more of them. Raises CommandFailed."""
    if not status.paired:
        return
    end = "pairsplit -S ends the group first"
    if status.asynchronous is group.synchronous:
        raise CommandFailed(Result.CONFLICT, f"{of_another_mode(group)}: {end}", array)
    fence = _running_fence(status)
    if wanted.fence not in (None, fence):
        raise CommandFailed(
            Result.CONFLICT, f"the fence level of {group.name} is {fence}, not {wanted.fence}: {end}", array
        )


def _running_fence(*statuses: PairStatus) -> str | None:
    """That of the pairs that there are; None: they are asynchronous, or there are none."""
    fences = [pair.fence.lower() for status in statuses for pair in status.paired.values() if pair.fence is not None]
    return next((fence for fence in fences if fence in FENCE_LEVELS), None)


def _running_journal(group: Group, array: str, status: PairStatus, wanted: int | None) -> int | None:
    """The LUN of the journal that this side's group has; None: it has none yet. Raises CommandFailed if another one is
    asked for."""
    running = [journal.lun for journal in status.journals] if status.id is not None else []
    if running and wanted not in (None, *running):
        reason = f"the journal of {group.name} is LUN {running[0]}, not {wanted}: pairsplit -S ends the group first"
        raise CommandFailed(Result.CONFLICT, reason, array)
    return running[0] if running else None


def _journal(group: Group, array: str, status: PairStatus, side: Side, wanted: Wanted) -> int | None:
    """The LUN of this side's journal: what the group has, else what is asked for, else one that is not used; None: the
    group has none. Raises CommandFailed."""
    if group.synchronous:
        return None
    asked = wanted.journal(side)
    running = _running_journal(group, array, status, asked)
    if running is not None:
        return running
    free = [each.lun for each in status.candidates]
    named = asked if asked is not None else group.journals.get(array)
    if named in free or (named is None and free):
        return min(free) if named is None else named
    make = "make one (volumes.NAME with use: journal), or name one under groups.NAME.journals"
    if named is None:
        raise CommandFailed(Result.NOT_FOUND, f"no journal volume that is not used: {make}", array)
    who = f"groups.{group.name}.journals" if asked is None else OPTIONS[side]
    others = f"there is LUN {', '.join(map(str, sorted(free)))}" if free else make
    raise CommandFailed(Result.NOT_FOUND, f"{who}: LUN {named} is no journal volume that is not used: {others}", array)


def _commands(group: Group, ends: dict[str, End], new: list[GroupVolume], wanted: Wanted) -> Iterator[list[Command]]:
    """What both arrays are told: each time some of the pairs, of the P-VOLs' side first."""
    statuses = [end.status for end in ends.values()]
    ids = {status.id for status in statuses if status.id is not None and side_of(status) is not Side.NONE}
    if len(ids) > 1:
        raise CommandFailed(Result.CONFLICT, f"{group.name} is two groups, one on each array: pairsplit -S ends both")
    group_id = next(iter(ids), None) or random_bytes(ID_BYTES).hex()
    used = {number for status in statuses for number in status.by_number}
    numbers = iter(number for number in range(len(used) + len(new)) if number not in used)
    numbered = [(next(numbers), volume) for volume in new]
    epoch = pair_commands.next_epoch(*statuses)
    leg = group.legs[0]
    settings: dict[str, Any] = {"mode": leg.mode.value, "pace": wanted.pace, "driver": wanted.driver}
    settings |= {"copy": wanted.copy, "epoch": epoch}
    if group.synchronous:
        settings["fence"] = _running_fence(*statuses) or wanted.fence or leg.fence
    if wanted.copy_rate is not None:
        settings["copy_rate"] = wanted.copy_rate
    of_side = {end.side: end for end in ends.values()}
    here, there = of_side[Side.P_VOL], of_side[Side.S_VOL]
    for begin in range(0, len(numbered), PAIRS_A_MESSAGE):
        some = numbered[begin : begin + PAIRS_A_MESSAGE]
        yield [
            Command(
                end.array,
                Process.PAIR_CREATE,
                {
                    "group": group.name,
                    "id": group_id,
                    **settings,
                    **_sides(end, other),
                    "pairs": _pairs(end, other, some),
                },
            )
            for end, other in ((here, there), (there, here))
        ]


def _sides(end: End, other: End) -> dict[str, Any]:
    journals = {"journal": end.journal, "peer_journal": other.journal}
    return {
        "side": LETTERS[end.side],
        "peer": other.status.array,
        "peer_serial": other.status.serial,
        **{key: lun for key, lun in journals.items() if lun is not None},
    }


def _pairs(end: End, other: End, numbered: list[tuple[int, GroupVolume]]) -> list[dict[str, Any]]:
    made = []
    for number, volume in numbered:
        lun, peer_lun = volume.luns[end.array], volume.luns[other.array]
        peer = other.status.pairs[peer_lun]
        told: dict[str, Any] = {"number": number, "name": volume.name, "lun": lun, "peer_lun": peer_lun}
        told["peer_volume"] = _identity(other, peer)
        sizes = {"peer_size": peer.size, "peer_block_size": peer.block_size}
        made.append(told | {key: value for key, value in sizes.items() if value is not None})
    return made


def _identity(end: End, pair: Pair) -> str:
    if pair.volume is None:
        raise CommandFailed(Result.INTERNAL, f"it does not tell which volume is at LUN {pair.lun}", end.array)
    return pair.volume


# -- what one side refused ---------------------------------------------------------------------------------------------


def _settle(arrays: Arrays, commands: list[Command], ended: list[Ended]) -> None:
    """After a part that failed: it was made all the same, on both sides; or what one side has is taken back. Raises
    CommandFailed, which says what is left of it if that cannot be told."""
    failed = next(each for each in ended if each.result not in (Result.OK, Result.NOT_EXECUTED))
    maybe = {each.array for each in ended if each.result == Result.OK or each.result not in NOT_DONE}
    left: list[str] = []
    if maybe:
        sides = arrays.ask()
        made = {each.array: _made(each, sides.of(each.array)) for each in commands if each.array in maybe}
        if len(made) == len(commands) and all(made.values()):
            return
        for command in commands:
            heard = sides.of(command.array)
            if command.array in maybe and isinstance(heard, Silence):
                left.append(f"whether {command.array} has made its side is not known")
            elif isinstance(heard, PairStatus) and made.get(command.array) and not _undone(arrays, command, heard):
                left.append(f"{command.array} has made its side")
    reason = f"; {', '.join(left)}: pairsplit -S ends it" if left else ""
    raise CommandFailed(failed.result, f"{failed.reason}{reason}")


def _made(command: Command, heard: Heard) -> set[int]:
    """The pairs that a side was told to make, and has."""
    if not isinstance(heard, PairStatus) or heard.id != command.input["id"]:
        return set()
    return {pair["number"] for pair in command.input["pairs"]} & heard.by_number.keys()


def _undone(arrays: Arrays, command: Command, heard: PairStatus) -> bool:
    """Ends the pairs that this side was told to make: whether that was done."""
    made = _made(command, heard)
    whole = made == heard.by_number.keys()
    numbers: list[int | None] = [None] if whole else [*sorted(made)]
    group = arrays.group.name
    deletes = [pair_commands.delete(command.array, group, heard.generation, number) for number in numbers]
    return all(arrays.tell([each])[0].result == Result.OK for each in deletes)
