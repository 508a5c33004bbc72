"""Commands are begun at once, but not without end."""

from __future__ import annotations

import asyncio

from arrayd.commands.pace import BURST, COMMANDS_PER_SECOND, Pace


async def begun_within(pace: Pace, turns: int) -> float:
    """Seconds until the last of so many turns, which are asked for at once."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.gather(*(pace.turn() for _ in range(turns)))
    return loop.time() - begun


async def test_a_burst_begins_at_once_and_what_is_more_waits() -> None:
    more = 50
    assert await begun_within(Pace(), BURST + more) >= (more - 1) / COMMANDS_PER_SECOND


async def test_a_turn_that_is_free_is_taken_without_a_pause() -> None:
    pace = Pace()
    for _ in range(BURST):
        turn = pace.turn()
        try:
            turn.send(None)
        except StopIteration:
            continue
        raise AssertionError("it paused")


async def test_who_waited_long_has_no_more_than_a_burst() -> None:
    pace = Pace()
    await pace.turn()
    pace._next_at -= 1000
    assert await begun_within(pace, BURST + 50) >= 49 / COMMANDS_PER_SECOND
