"""`pairdisplay -v diff`: the ranges in which the two sides of a pair may differ, as each side has them marked, and both
together. They are asked for part by part, so many of each volume and side at the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from arrayd.commands.results import Result
from arrayd.host import pair_commands
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import GroupVolume
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_page import LOCAL, REMOTE, Row
from arrayd.host.pair_status import PairStatus
from arrayd.host.pair_wait import Sides
from arrayd.host.show import Column

RANGES_SHOWN = 1000
"""Of each volume and side, unless more are asked for."""
RANGES_SHOWN_MAX = 100_000
RANGES_ASKED = 1024
"""In one answer."""
BOTH = "L+R"
BLOCK_BYTES = 512
"""Of a volume whose array does not say it."""

DIFFERENCES = (
    Column("Group", "group"),
    Column("PairVol", "volume"),
    Column("L/R", "side"),
    Column("LUN", "lun"),
    Column("LBA", "lba"),
    Column("Blocks", "blocks"),
)

Range = tuple[int, int]
"""Offset and length, in bytes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a side has marked of a volume, in order, none beside another. `end`: it is not known what is marked from
    there on; None: this is all."""

    ranges: Sequence[Range]
    end: int | None = None


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The union of ranges."""
    union: list[Range] = []
    for offset, length in sorted(ranges):
        if union and offset <= sum(union[-1]):
            first = union[-1][0]
            union[-1] = (first, max(sum(union[-1]), offset + length) - first)
        else:
            union.append((offset, length))
    return union


def both(one: Found, other: Found) -> Found:
    """What any of two sides has marked, as far as both are known."""
    ends = [each.end for each in (one, other) if each.end is not None]
    end = min(ends, default=None)
    known = [
        (offset, length if end is None else min(length, end - offset))
        for offset, length in (*one.ranges, *other.ranges)
        if end is None or offset < end
    ]
    return Found(joined(known), end)


def ask(arrays: Arrays, array: str, number: int, limit: int) -> Found:
    """What `array` has marked of the pair `number`: `limit` ranges at the most. Raises CommandFailed."""
    ranges: list[Range] = []
    offset: int | None = 0
    while offset is not None:
        told = pair_commands.differences(array, arrays.group.name, number, offset, RANGES_ASKED)
        (ended,) = arrays.tell([told])
        if ended.result == Result.CONFLICT:  # it marks nothing: what differs, if anything, is at the other side
            return Found([])
        if ended.result != Result.OK:
            raise CommandFailed(ended.result, ended.reason)
        part, following = _read(ended.edited, array)
        if following is not None and following <= offset:
            raise CommandFailed(Result.INTERNAL, f"ranges that go on at {following}, behind {offset}", array)
        ranges, offset = joined([*ranges, *part]), following
        if len(ranges) > limit:
            return Found(ranges[:limit], ranges[limit][0])
    return Found(ranges)


def _read(edited: Any, array: str) -> tuple[list[Range], int | None]:
    try:
        ranges = [(int(offset), int(length)) for offset, length in edited["ranges"]]
        following = edited.get("following")
        return ranges, None if following is None else int(following)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed(Result.INTERNAL, f"an answer that has no ranges: {error}", array) from None


def rows(arrays: Arrays, sides: Sides, limit: int, *, local: bool = False) -> tuple[list[Row], list[str]]:
    """A row for each range: of the local side, of the other, of both together, volume by volume; and what there is to
    be said beside. A side that is silent has none, and there is no union then. Raises CommandFailed."""
    told: list[Row] = []
    notes: list[str] = []
    for volume in arrays.group.volumes:
        found: list[Found] = []
        block_bytes = BLOCK_BYTES
        for mark, array in ((LOCAL, arrays.local),) if local else ((LOCAL, arrays.local), (REMOTE, arrays.remote)):
            heard = sides.of(array)
            pair = heard.pairs.get(volume.luns[array]) if isinstance(heard, PairStatus) else None
            if pair is None or pair.number is None:
                continue
            each, block_bytes = ask(arrays, array, pair.number, limit), pair.block_size or BLOCK_BYTES
            found.append(each)
            told += _rows(arrays, volume, mark, array, each, block_bytes)
            if each.end is not None:
                notes.append(f"{volume.name}: {array} has more than {limit} ranges: --limit shows more of them")
        if len(found) == 2:
            told += _rows(arrays, volume, BOTH, None, both(*found), block_bytes)
    return told, notes


def _rows(
    arrays: Arrays, volume: GroupVolume, mark: str, array: str | None, found: Found, block_bytes: int
) -> Iterable[Row]:
    for offset, length in found.ranges:
        yield {
            "group": arrays.group.name,
            "volume": volume.name,
            "side": mark,
            "array": array,
            "lun": None if array is None else volume.luns[array],
            "lba": offset // block_bytes,
            "blocks": -(-length // block_bytes),
            "offset": offset,
            "length": length,
        }
