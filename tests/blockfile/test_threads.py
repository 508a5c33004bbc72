"""Cold reads by threads, in groups: all of them come, each with its own end, and no more threads than that takes."""

import asyncio
import errno
import os

import pytest

from arrayd.blockfile import threads
from tests.lab.disk import Failing, HeldThreads, OpenFile, buffers, data, make_cold, turns

PAGE = 4096


async def test_every_read_gets_its_own_data(open_file: OpenFile) -> None:
    file = await open_file(size=256 * PAGE)
    for number in range(256):
        file.write_now(number * PAGE, data(number))
    await make_cold(file)
    views = buffers(256)
    await asyncio.gather(*(file.read(number * PAGE, views[number]) for number in reversed(range(256))))
    assert all(view == data(number) for number, view in enumerate(views))


async def test_reads_of_a_turn_are_one_group_and_later_ones_wait_for_the_next(
    open_file: OpenFile, held: HeldThreads
) -> None:
    file = await open_file(executor=held)
    first = [file.read(0, view) for view in buffers(8)]
    assert held.jobs == []
    await turns()
    assert len(held.jobs) == 1
    second = [file.read(0, view) for view in buffers(8)]
    await turns()
    assert len(held.jobs) == threads.READERS == 2
    third = [file.read(0, view) for view in buffers(8)]
    await turns()
    assert len(held.jobs) == 2
    await held.run(1)
    assert [read.done() for read in (*first, *second, *third)] == [False] * 8 + [True] * 8 + [False] * 8
    assert len(held.jobs) == 2
    await held.run_all()
    assert all(read.done() for read in (*first, *third))


async def test_one_that_fails_fails_alone(open_file: OpenFile) -> None:
    file = await open_file(size=4 * PAGE, failing=lambda error: Failing(error.errno))
    file.write_now(0, data(7, 4 * PAGE))
    os.truncate(file.path, 2 * PAGE)
    views = buffers(3)
    results = await asyncio.gather(
        *(file.read(offset, view) for offset, view in zip((0, 3 * PAGE, PAGE), views, strict=True)),
        return_exceptions=True,
    )
    assert (results[0], str(results[1]), results[2]) == (None, str(errno.EIO), None)
    assert views[0] == views[2] == data(7)


async def test_who_does_not_wait_any_more_changes_nothing_for_others(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    given_up, waiting = (file.read(0, view) for view in buffers(2))
    given_up.cancel()
    await held.run_all()
    assert waiting.done()
    assert waiting.exception() is None


@pytest.mark.parametrize("reads", [1, 20])
async def test_the_file_is_not_closed_before_the_last(open_file: OpenFile, held: HeldThreads, reads: int) -> None:
    file = await open_file(executor=held)
    under_way = []
    for view in buffers(reads):
        under_way.append(file.read(0, view))
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(file.close())
    await turns()
    while held.jobs:
        assert not closing.done()
        await held.run()
    await closing
    assert all(read.done() for read in under_way)
