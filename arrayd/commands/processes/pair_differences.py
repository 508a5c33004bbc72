"""The command that lists the ranges in which a pair may differ, as this side has them marked: what was written here
since the pair was suspended or taken over, and what the S-VOLs' side did not have then. A part at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from arrayd.commands.processes.pairs import GROUP, NUMBER, pair_refusals
from arrayd.commands.registry import REGISTRY, CommandError, Input, Output
from arrayd.commands.results import Result
from arrayd.replication.bitmap import REGION_BYTES

if TYPE_CHECKING:
    from arrayd.commands.context import Context

RANGES_LISTED_MAX = 1024
"""In one answer."""


class WhichPair(Input):
    """A pair of a group, by its number: what is marked from this byte of its volume on, so many ranges at the most."""

    group: str = GROUP
    pair: int = NUMBER
    offset: int = Field(default=0, ge=0, lt=1 << 63)
    limit: int = Field(default=RANGES_LISTED_MAX, ge=1, le=RANGES_LISTED_MAX)


class Differences(Output):
    """`ranges` in order, each with its offset and length in bytes; `following`: where to ask on, none if these were the
    last. Regions of `region_bytes` are marked, whole ones; `marked_bytes` are marked of all of the volume."""

    group: str
    pair: int
    name: str
    state: str
    size: int
    region_bytes: int = REGION_BYTES
    marked_bytes: int
    ranges: list[tuple[int, int]]
    following: int | None = None


@REGISTRY.command(75, "pair-differences")
async def pair_differences(context: Context, told: WhichPair) -> Differences:
    """List ranges that a pair may differ in, as they are marked here: both sides have their own."""
    at_work = context.replication.at_work(told.group)
    stage = None if at_work is None else at_work.stages.stage
    row = None if stage is None else next((pair for pair in stage.row.pairs if pair.number == told.pair), None)
    if stage is None or row is None:
        raise CommandError(Result.NOT_FOUND, f"group {told.group}: there is no pair {told.pair}")
    with pair_refusals():
        part = await stage.differences(told.pair, told.offset, told.limit)
    if part is None:
        raise CommandError(Result.CONFLICT, f"group {told.group}: nothing is marked here: {row.name} {row.state}")
    return Differences(
        group=told.group,
        pair=told.pair,
        name=row.name,
        state=str(row.state),
        size=part.size,
        marked_bytes=part.marked_bytes,
        ranges=part.ranges,
        following=part.following,
    )
