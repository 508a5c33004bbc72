"""Ranges of a bitmap as people are told of them: all of what is marked, whatever the parts, and in the stages."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arrayd.replication import differences as module
from arrayd.replication.differences import Differences, differences
from arrayd.replication.group_rows import Driver
from arrayd.replication.marking import Marking
from arrayd.replication.stages import Stage
from arrayd.replication.standing import Standing
from arrayd.replication.statuses import State
from tests.lab.disk import settled
from tests.replication.following_parts import NUMBERS, Parts
from tests.replication.following_parts import SIZE as COPIED
from tests.replication.still import SIZE, Still, block, row_of

REGION = 4096
REGIONS = 12
ALL = REGIONS
"""More ranges than there are."""


class Marked:
    """Stands for a bitmap with these regions marked, in ranges of two regions at the most."""

    size = REGIONS * REGION - 512

    def __init__(self, regions: set[int]) -> None:
        self.regions = sorted(regions)
        self.marked_bytes = len(self.regions) * REGION

    def ranges(self, offset: int = 0) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for region in self.regions:
            if region < offset // REGION:
                continue
            begin, end = region * REGION, min((region + 1) * REGION, self.size)
            if found and sum(found[-1]) == begin and found[-1][1] == REGION:
                found[-1] = (found[-1][0], end - found[-1][0])
            else:
                found.append((begin, end - begin))
        return found


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, where none touches the one before."""
    found: list[tuple[int, int]] = []
    for begin, length in ranges:
        if found and sum(found[-1]) == begin:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((begin, length))
    return found


@given(
    st.sets(st.integers(0, REGIONS - 1)),
    st.integers(1, 5),
    st.sampled_from([1, 3, ALL]),
    st.integers(0, REGIONS * REGION + 10),
)
@example({0, 1, 2}, 1, ALL, 0)
def test_parts_of_any_length_tell_all_that_is_marked(regions: set[int], limit: int, look: int, offset: int) -> None:
    bitmap = Marked(regions)
    told: list[tuple[int, int]] = []
    at: int | None = offset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOOKED_AT_MAX", look)
        while at is not None:
            part = differences(bitmap, at, limit)  # type: ignore[arg-type]
            assert len(part.ranges) <= limit
            assert joined(part.ranges) == part.ranges
            assert part.following is None or part.following > at, "it gets on"
            assert part.marked_bytes == bitmap.marked_bytes
            told, at = told + part.ranges, part.following
    ends = [(max(begin, offset), begin + length) for begin, length in bitmap.ranges() if begin + length > offset]
    if look == ALL:
        assert joined(told) == told, "a range is cut in two only where too many were looked at"
    assert joined(told) == joined([(begin, end - begin) for begin, end in ends])


async def test_stages_that_mark_say_what_and_others_nothing() -> None:
    still = Still()
    await still.make_bitmaps(0, 8 * REGION)
    stage: Stage = Marking(row_of(State.S_SSWS), still.doors, still.told)
    await stage.prepare()
    await stage.enter()
    await settled(still.seen["data"].write(REGION, block(1)))
    told = Differences(SIZE, 3 * REGION, [(0, 2 * REGION), (8 * REGION, REGION)], None)
    assert await stage.differences(0, 0, 10) == told
    assert await stage.differences(0, 0, 1) == told._replace(ranges=told.ranges[:1], following=8 * REGION)
    assert await stage.differences(7, 0, 10) is None
    await stage.stop(row_of(State.S_SSUS))
    await stage.close()

    stage = Standing(row_of(State.S_SSUS), still.doors, still.told)
    await stage.prepare()
    await stage.enter()
    reads = (stage.differences(0, 0, 10), stage.differences(0, 8 * REGION, 10), stage.differences(7, 0, 10))
    assert list(await asyncio.gather(*reads)) == [told, told._replace(ranges=told.ranges[1:]), None]
    assert still.stores.opened == set()
    await stage.stop(row_of(State.S_SSUS))
    assert await stage.differences(0, 0, 10) is None, "the bitmap is another stage's"
    await stage.close()


async def test_s_vols_that_are_copied_say_what_is_left() -> None:
    parts = Parts(State.S_COPY, driver=Driver.HOST)
    stage = await parts.entered()
    assert await stage.differences(NUMBERS[1], 0, 5) == Differences(COPIED, COPIED, [(0, COPIED)], None)
    while await stage.copy():
        pass
    assert await stage.differences(NUMBERS[1], 0, 5) == Differences(COPIED, 0, [], None)
    stage.changed(replace(parts.next(State.S_PAIR), consistent=True))
    assert await stage.differences(NUMBERS[1], 0, 5) is None
    await parts.close()
