"""The ranges that a bitmap has, as people are told of them: joined where they touch, and part by part."""

from __future__ import annotations

from typing import NamedTuple

from arrayd.replication.bitmap import REGION_BYTES, Bitmap

LOOKED_AT_MAX = 8192
"""Ranges of the bitmap, of 1 MiB at the most, that are joined at a time: some ms of work."""


class Differences(NamedTuple):
    """Ranges (offset, length) of a volume of `size` bytes, in order; `marked_bytes` of all of it. `following`: the
    first byte that is not looked at here; None: all from the first on is."""

    size: int
    marked_bytes: int
    ranges: list[tuple[int, int]]
    following: int | None


def differences(bitmap: Bitmap, offset: int, limit: int) -> Differences:
    """`limit` ranges at the most of what is marked from `offset` on, at the most; what is being copied counts, too."""
    joined: list[tuple[int, int]] = []
    following: int | None = None
    # The first region may begin before it.
    found = bitmap.ranges(offset - offset % REGION_BYTES) if offset < bitmap.size else iter(())
    for number, (begin, length) in enumerate(found):
        end, begin = begin + length, max(begin, offset)
        beside = bool(joined) and sum(joined[-1]) == begin
        if number == LOOKED_AT_MAX or (not beside and len(joined) == limit):
            following = begin
            break
        if beside:
            joined[-1] = (joined[-1][0], end - joined[-1][0])
        else:
            joined.append((begin, end - begin))
    return Differences(bitmap.size, bitmap.marked_bytes, joined, following)
