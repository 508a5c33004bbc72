"""Where the path table and the arrays do not say the same of a group: its mode, or a LUN that is another volume's, or
another group's. Such a volume looks as if it were in no pair."""

from __future__ import annotations

from collections.abc import Iterator

from arrayd.host.groups import Group, GroupVolume
from arrayd.host.pair_status import PairStatus
from arrayd.host.pair_wait import Sides


def misfits(sides: Sides) -> list[str]:
    """What does not fit, as far as the arrays tell: a line each, with the array that says so in front."""
    heard = {array: each for array, each in sides.heard.items() if isinstance(each, PairStatus)}
    lines = [line for array, status in heard.items() for line in _of_side(sides, array, status)]
    return lines + [line for volume in sides.group.volumes for line in _two_pairs(volume, heard)]


def of_another_mode(group: Group) -> str:
    """Of a group whose pairs are asynchronous where the path table says that they are not, or the other way round."""
    modes = ("asynchronous", "synchronous")
    shown, named = modes if group.synchronous else modes[::-1]
    return f"{group.name} is {shown}, and {named} by the path table"


def _of_side(sides: Sides, array: str, status: PairStatus) -> Iterator[str]:
    if status.paired and status.asynchronous is sides.group.synchronous:
        yield f"{array}: {of_another_mode(sides.group)}"
    named = {volume.luns[array]: volume.name for volume in sides.group.volumes}
    for lun, name in named.items():
        pair = status.pairs.get(lun)
        if pair is not None and pair.holder is not None:
            yield f"{array}: LUN {lun}, {name} by the path table, is {pair.holder}"
    for pair in status.paired.values():
        if pair.lun not in named:
            told = f"pair {pair.name or pair.number} of {sides.group.name}"
            yield f"{array}: LUN {pair.lun} is in {told}, and the path table does not name it"


def _two_pairs(volume: GroupVolume, heard: dict[str, PairStatus]) -> Iterator[str]:
    numbers = {
        array: pair.number
        for array, status in heard.items()
        if (pair := status.pairs.get(volume.luns[array])) is not None and pair.number in status.paired
    }
    if len(set(numbers.values())) > 1:
        luns = " and ".join(f"LUN {volume.luns[array]} of {array}" for array in numbers)
        yield f"{volume.name}: {luns} are not in one pair, as the path table has it"
