"""Commands about the links with other arrays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pydantic import Field

from arrayd.commands import asking
from arrayd.commands.registry import REGISTRY, CommandError, Input, Output
from arrayd.commands.results import Result
from arrayd.link.channel import LinkError

if TYPE_CHECKING:
    from arrayd.commands.context import Context

TEST_SECONDS = 30.0
"""A test that takes longer has failed."""
ROUNDS_MAX = 100
PIECE_BYTES = 1024 * 1024


class Test(Input):
    """Which link, and how much: `rounds` short messages, and `megabytes` (2**20 bytes) each way."""

    array: str
    rounds: int = Field(default=10, ge=1, le=ROUNDS_MAX)
    megabytes: int = Field(default=4, ge=0, le=64)


class Tested(Output):
    """Round-trip times in microseconds, and how fast data went, in bytes a second."""

    array: str
    round_trip_us_min: float
    round_trip_us_median: float
    there_bytes_per_s: float | None
    back_bytes_per_s: float | None


@REGISTRY.command(7, "link-test")
async def link_test(context: Context, told: Test) -> Tested:
    """Measure the link with another array: round trip and bandwidth, each way."""
    if told.array not in {link.array for link in context.links()}:
        raise CommandError(Result.NOT_FOUND, f"there is no link with {told.array}")
    try:
        async with asyncio.timeout(TEST_SECONDS):
            times = sorted([await _timed(context, told.array, 0, 0) for _ in range(told.rounds)])
            there = [await _timed(context, told.array, PIECE_BYTES, 0) for _ in range(told.megabytes)]
            back = [await _timed(context, told.array, 0, PIECE_BYTES) for _ in range(told.megabytes)]
    except LinkError as error:
        raise CommandError(Result.UNDELIVERABLE, f"{told.array} cannot be reached: {error}") from error
    except TimeoutError as error:
        raise CommandError(Result.EXPIRED, f"the test took more than {TEST_SECONDS:g} s") from error
    return Tested(
        array=told.array,
        round_trip_us_min=round(times[0] * 1e6, 1),
        round_trip_us_median=round(times[len(times) // 2] * 1e6, 1),
        there_bytes_per_s=round(len(there) * PIECE_BYTES / sum(there)) if there else None,
        back_bytes_per_s=round(len(back) * PIECE_BYTES / sum(back)) if back else None,
    )


async def _timed(context: Context, array: str, there: int, back: int) -> float:
    begun = context.now()
    answer = await asking.ask(context.ask, array, asking.test(there, back), back + asking.EXPECTED_BYTES)
    if asking.outcome_of(answer) != asking.Outcome.ENDED:
        raise CommandError(Result.FAILED, f"{array}: {answer[1:].decode(errors='replace')}")
    return context.now() - begun
