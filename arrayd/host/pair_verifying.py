"""pairverify: a verify is begun at the side that has the S-VOLs, and watched there; what it finds is listed.

The array goes on whether anybody watches or not. One that is not there any more when it is asked for was forgotten: the
array was started again, or the pairs were changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from arrayd.commands.results import Result
from arrayd.host import machine, pair_commands
from arrayd.host.answer_fields import NotAStatus
from arrayd.host.answers import Command
from arrayd.host.attempts import PAUSE_MAX_S, PAUSE_MIN_S
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import Group
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_differences import BLOCK_BYTES
from arrayd.host.pair_page import CONTACT, NOT_ASKED, UNKNOWN, Row, of_side, origin, sides_of
from arrayd.host.pair_progress import moment_left, rate
from arrayd.host.pair_status import Heard, PairStatus, Silence
from arrayd.host.pair_verified import RUNNING, Found, Verify, begun_of, ranges_of
from arrayd.host.show import Column, Output, size
from arrayd.replication.statuses import Side

SILENT_SECONDS = 60.0
"""So long an array may say nothing while it is watched."""
FORGOTTEN = "the verify is there no more: the array was started again, or the pairs were changed; begin it again"

DIFFERS, IS_MENDED = "differs", "mended"
FOUND = (
    Column("Group", "group"),
    Column("PairVol", "volume"),
    Column("LUN", "lun"),
    Column("LBA", "lba"),
    Column("Blocks", "blocks"),
    Column("What", "what"),
)
VERIFIES = (
    Column("Group", "group"),
    Column("L/R", "side"),
    Column("Verify", "state"),
    Column("%", "percent"),
    Column("Done", "done", size),
    Column("Left", "left", size),
    Column("Rate", "rate", rate),
    Column("ETA", "seconds_left", moment_left),
    Column("Differ", "differing", size),
    Column("Mended", "mended", size),
    Column("Why", "trouble"),
    Column("Seq#", "serial"),
    CONTACT,
)
_KEYS = ("percent", "done", "left", "rate", "seconds_left", "differing", "mended", "trouble")


@dataclass
class Watched:
    """A verify at the array `at`, which said `status` when it was looked at first."""

    arrays: Arrays
    at: str
    status: PairStatus
    verify: Verify


def begin(arrays: Arrays, volume: str | None, repair_from: str | None) -> Watched:
    """Begins one. Raises CommandFailed."""
    at, status = _s_vols(arrays)
    number = None if volume is None else _number(arrays, at, status, volume)
    side = None if repair_from is None else "S" if repair_from == at else "P"
    verify = _told(arrays, pair_commands.verify(at, arrays.group.name, number, side))
    return Watched(arrays, at, status, verify)


def running(arrays: Arrays) -> Watched:
    """The one that runs, or was the last. Raises CommandFailed."""
    at, status = _s_vols(arrays)
    if status.verify is None:
        raise CommandFailed(Result.NOT_FOUND, f"{at}: no verify since the array started, or the pairs were changed")
    return Watched(arrays, at, status, status.verify)


def stop(arrays: Arrays) -> Watched:
    """Ends the one that runs. Raises CommandFailed."""
    at, status = _s_vols(arrays)
    return Watched(arrays, at, status, _told(arrays, pair_commands.verify_stop(at, arrays.group.name)))


def watch(watched: Watched, show: Callable[[Verify], None]) -> Verify:
    """Until it has ended; `show` is called with each look. Raises CommandFailed."""
    heard_at, pause_s = machine.monotonic(), PAUSE_MIN_S
    while watched.verify.state == RUNNING:
        show(watched.verify)
        machine.pause(pause_s)
        pause_s = min(PAUSE_MAX_S, 2 * pause_s)
        heard = watched.arrays.ask(watched.at).of(watched.at)
        if isinstance(heard, PairStatus):
            if heard.verify is None or heard.verify.id != watched.verify.id:
                raise CommandFailed(Result.INTERRUPTED, FORGOTTEN, watched.at)
            heard_at, watched.verify = machine.monotonic(), heard.verify
        elif machine.monotonic() - heard_at >= SILENT_SECONDS:
            raise CommandFailed(Result(heard.result), f"{heard.reason}: the verify goes on, if the array does")
    show(watched.verify)
    return watched.verify


def found(watched: Watched) -> tuple[list[Row], list[str]]:
    """A row for each range that it has found, and what there is to be said beside. Raises CommandFailed."""
    arrays, ranges, first, more = watched.arrays, list[Found](), 0, False
    following: int | None = 0
    while following is not None:
        first = following
        (ended,) = arrays.tell([pair_commands.verify_found(watched.at, arrays.group.name, first)])
        if ended.result != Result.OK:
            raise CommandFailed(ended.result, ended.reason)
        try:
            part, following, more = ranges_of(ended.edited)
        except NotAStatus as error:
            raise CommandFailed(Result.INTERNAL, str(error), watched.at) from None
        if following is not None and following <= first:
            raise CommandFailed(Result.INTERNAL, f"ranges that go on at {following}, behind {first}", watched.at)
        ranges += part
    notes = [f"damaged: {each}" for each in watched.verify.damages]
    if more:
        notes.append("more ranges differ than are remembered; repair these first, or all at once by --repair-from")
    return [_row(watched, each) for each in ranges], notes


def _row(watched: Watched, each: Found) -> Row:
    arrays, at = watched.arrays, watched.at
    lun, pair = next(
        ((lun, pair) for lun, pair in watched.status.pairs.items() if pair.number == each.number), (None, None)
    )
    volume = next((volume for volume in arrays.group.volumes if volume.luns[at] == lun), None)
    block_bytes = (None if pair is None else pair.block_size) or BLOCK_BYTES
    return {
        "group": arrays.group.name,
        "volume": None if volume is None else volume.name,
        "lun": None if volume is None else volume.luns[arrays.local],
        "lba": each.offset // block_bytes,
        "blocks": -(-each.length // block_bytes),
        "what": IS_MENDED if each.mended else DIFFERS,
        "offset": each.offset,
        "length": each.length,
    }


def _s_vols(arrays: Arrays) -> tuple[str, PairStatus]:
    """The side that has the S-VOLs, and what it says. Raises CommandFailed."""
    sides = arrays.ask()
    for array in arrays.names:
        heard = sides.of(array)
        if isinstance(heard, PairStatus) and any(state.side is Side.S_VOL for state in heard.by_number.values()):
            return array, heard
    if silences := sides.silences():
        raise CommandFailed(sides.silence_code(), f"{silences}: the side with the S-VOLs compares them")
    raise CommandFailed(Result.CONFLICT, f"group {arrays.group.name}: it has no S-VOLs: paircreate first")


def _number(arrays: Arrays, at: str, status: PairStatus, name: str) -> int:
    volume = next(each for each in arrays.group.volumes if each.name == name)
    pair = status.pairs.get(volume.luns[at])
    if pair is None or pair.number is None:
        raise CommandFailed(Result.CONFLICT, f"{name}: it is in no pair", at)
    return pair.number


def _told(arrays: Arrays, command: Command) -> Verify:
    (ended,) = arrays.tell([command])
    if ended.result != Result.OK:
        raise CommandFailed(ended.result, ended.reason)
    try:
        return begun_of(ended.edited)
    except NotAStatus as error:
        raise CommandFailed(Result.INTERNAL, str(error), command.array) from None


# -- pairdisplay -v verify ---------------------------------------------------------------------------------------------


def verify_rows(group: Group, here: str, heard: Mapping[str, Heard]) -> list[Row]:
    """A row for each side that knows of a verify; of a side that says nothing, one that says so."""
    return [
        row
        for mark, array in sides_of(group, here)
        if (row := _side_row({"group": group.name, "side": mark, "array": array}, heard.get(array, NOT_ASKED)))
    ]


def _side_row(row: Row, heard: Heard) -> Row:
    if isinstance(heard, Silence):
        return row | origin(heard) | {"state": UNKNOWN} | dict.fromkeys(_KEYS)
    if heard.verify is None:
        return {}
    return row | origin(heard) | verify_row(heard.verify)


def verify_row(verify: Verify) -> Row:
    """What is told of one."""
    return {"state": verify.state} | {key: getattr(verify, key) for key in _KEYS}


def show_verifies(output: Output, group: Group, here: str, heard: Mapping[str, Heard], *, local: bool = False) -> None:
    """Prints the page, or of it what is of this side (`local`)."""
    output.rows(VERIFIES, of_side(verify_rows(group, here, heard), local))
