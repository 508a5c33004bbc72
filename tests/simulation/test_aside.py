"""A verb that blocks, in virtual time."""

import asyncio
import threading

import pytest

from tests.simulation import aside
from tests.simulation.aside import Aside
from tests.simulation.loop import SimLoop


def run(work: object) -> object:
    loop = SimLoop(limit=100)
    try:
        return loop.run_until_complete(work)  # type: ignore[arg-type]
    finally:
        loop.close()


def test_time_passes_where_a_verb_waits_and_nowhere_else() -> None:
    times: list[float] = []

    async def scenario() -> str:
        now = asyncio.get_running_loop().time

        def verb() -> str:
            for seconds in (3, 4):
                aside.pause(seconds)
                times.append(round(now()))
            return "done"

        return await Aside().run(verb)

    assert run(scenario()) == "done"
    assert times == [3, 7]


def test_what_a_verb_raises_and_what_it_waited_for_raised() -> None:
    async def fails() -> None:
        raise OSError("no answer")

    def verb() -> None:
        with pytest.raises(OSError, match="no answer"):
            aside.wait(fails())
        raise ValueError("given up")

    with pytest.raises(ValueError, match="given up"):
        run(Aside().run(verb))


def test_a_verb_ends_with_the_run() -> None:
    async def scenario() -> None:
        verb = asyncio.ensure_future(Aside().run(lambda: aside.pause(50)))
        await asyncio.sleep(1)
        verb.cancel()
        await asyncio.gather(verb, return_exceptions=True)

    run(scenario())
    there = threading.active_count(), len(aside.IDLE)
    assert there[1] > 0
    run(scenario())
    assert (threading.active_count(), len(aside.IDLE)) == there, "its thread does the next one"
