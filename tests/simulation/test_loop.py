"""The loop in virtual time, the executor without threads, and a life that ends at a door."""

import asyncio
import time
from random import Random
from typing import Any

import pytest

from tests.simulation import doors
from tests.simulation.doors import Gone, Killed, Life, Plan
from tests.simulation.loop import SimLoop, Stuck
from tests.simulation.threads import SimExecutor
from tests.simulation.trace import Lines


def life_on(loop: SimLoop) -> Life:
    return Life("near", 1, Random(1), Lines(loop.time), lambda _life: None)


@pytest.fixture
def loop() -> Any:
    loop = SimLoop(1000.0)
    yield loop
    loop.close()


def test_an_hour_passes_at_once_and_timers_come_in_order(loop: SimLoop) -> None:
    came: list[int] = []

    async def scenario() -> None:
        for number in (3, 1, 2):
            loop.call_later(number * 100, came.append, number)
        loop.call_later(100, came.append, 10)
        await asyncio.sleep(900)

    begun = time.monotonic()
    loop.run_until_complete(scenario())
    assert came == [1, 10, 2, 3]
    assert 900 <= loop.time() < 901
    assert time.monotonic() - begun < 5


def test_nothing_left_to_happen_is_an_error(loop: SimLoop) -> None:
    with pytest.raises(Stuck, match="nothing is left"):
        loop.run_until_complete(loop.create_future())


def test_time_that_does_not_end_is_an_error(loop: SimLoop) -> None:
    async def scenario() -> None:
        for _ in range(2000):
            await asyncio.sleep(1)

    with pytest.raises(Stuck, match="1000 s"):
        loop.run_until_complete(scenario())


def test_jobs_overtake_one_another_and_end_later(loop: SimLoop) -> None:
    life = life_on(loop)
    ended: list[int] = []

    async def scenario() -> None:
        executor = life.run(SimExecutor)

        async def job(number: int) -> None:
            await loop.run_in_executor(executor, lambda: None)
            ended.append(number)

        await asyncio.gather(*(life.run(lambda n=number: asyncio.ensure_future(job(n))) for number in range(20)))

    loop.run_until_complete(scenario())
    assert sorted(ended) == list(range(20)) != ended
    assert loop.time() > 0


def test_a_dead_life_does_nothing_any_more(loop: SimLoop) -> None:
    life = life_on(loop)
    done: list[float | str] = []

    async def work() -> None:
        try:
            while True:
                doors.living().before("write")
                done.append(loop.time())
                await asyncio.sleep(1)
        finally:
            done.append("tidied up")

    async def scenario() -> None:
        life.plan = Plan(4, "write")
        task = life.run(lambda: asyncio.ensure_future(work()))
        loop.call_later(50, done.append, "the world goes on")
        await asyncio.sleep(100)
        assert not task.done() or isinstance(task.exception(), Killed)

    loop.run_until_complete(scenario())
    assert life.died_at == "before write"
    assert [each for each in done if isinstance(each, str)] == ["tidied up", "the world goes on"]
    assert len(done) == 5
    with pytest.raises(Gone):
        life.run(lambda: None)
    with pytest.raises(Killed):
        life.before("write")
    life.bury()


def test_who_waits_for_a_life_hears_that_it_has_ended(loop: SimLoop) -> None:
    life = life_on(loop)

    async def scenario() -> None:
        future = loop.create_future()
        life.waiting[future] = None
        loop.call_later(1, life.kill, "at rest", True)
        with pytest.raises(Gone):
            await future

    loop.run_until_complete(scenario())
    assert life.power


def test_sets_of_tasks_have_one_order(loop: SimLoop) -> None:
    async def scenario() -> list[int]:
        tasks = {asyncio.ensure_future(asyncio.sleep(1)) for _ in range(50)}
        order = [hash(task) for task in tasks]
        await asyncio.wait(tasks)
        return order

    order = loop.run_until_complete(scenario())
    assert order == sorted(order)
