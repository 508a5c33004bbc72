"""Writes to a volume that overlap take effect in the order of their calls, wherever each of them is done."""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.blockfile import BlockFile, Writeback, kernel, writeback
from arrayd.volumes.file_volume import FileVolume, volume_error
from tests.lab.disk import MIB, PLENTY, HeldThreads, OpenFile, data, settled, turns
from tests.lab.search import examples

PAGE = kernel.PAGE_BYTES
BLOCK = 512
NO_GRANT = MIB - 1
"""A bound that lets nothing be written on the spot, and is not reached by what is written in threads."""

BLOCKS = 24
SIZE = BLOCKS * BLOCK
RANGES = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 10)).map(
    lambda found: (found[0] * BLOCK, min(found[1], BLOCKS - found[0]) * BLOCK)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("write", "unmap", "zero", "add", "fast")), RANGES, st.integers(1, 255)),
        st.tuples(st.sampled_from(("durable", "pool")), RANGES, st.integers(1, 255)),
        st.tuples(st.just("run"), st.just((0, 0)), st.integers(0, 7)),
        st.tuples(st.just("turn"), st.just((0, 0)), st.integers(1, 3)),
    ),
    max_size=40,
)


class Ordered:
    """A volume whose threads are held back, and what it must hold in the end."""

    def __init__(self, volume: FileVolume, budget: Writeback, threads: HeldThreads) -> None:
        self.volume = volume
        self.budget = budget
        self.threads = threads
        self.expected = bytearray(SIZE)
        self.pending: list[asyncio.Future[None]] = []

    def wait_for(self, pending: Awaitable[None] | None) -> None:
        if pending is not None:
            self.pending.append(asyncio.ensure_future(pending))

    async def step(self, what: str, offset: int, length: int, number: int) -> None:
        """Does one thing; its effect on `expected` is there at once."""
        volume = self.volume
        place = slice(offset, offset + length)
        self.budget.limit = 0 if what == "pool" else PLENTY
        if what == "run":
            if self.threads.jobs:
                await self.threads.run(number % len(self.threads.jobs))
        elif what == "turn":
            await turns(number)
        elif what == "unmap":
            self.wait_for(volume.unmap(offset, length))
            self.expected[place] = bytes(length)
        elif what == "zero":
            self.wait_for(volume.write_zeros(offset, length))
            self.expected[place] = bytes(length)
        elif what == "add":
            self.wait_for(self.add(volume.lock(offset, length), offset, length))
            self.expected[place] = bytes((byte + 1) % 256 for byte in self.expected[place])
        else:
            view = data(number, length)
            if what != "fast" or not volume.write_now(offset, view):
                self.wait_for(volume.write(offset, view, what == "durable"))
            self.expected[place] = view

    async def add(self, lock: contextlib.AbstractAsyncContextManager[None], offset: int, length: int) -> None:
        """What COMPARE AND WRITE and ORWRITE do: read, change and write with nobody in between."""
        view = memoryview(bytearray(length))
        async with lock:
            await settled(self.volume.read(offset, view))
            view[:] = bytes((byte + 1) % 256 for byte in view)
            await settled(self.volume.write_under_lock(offset, view))

    async def finish(self) -> None:
        """Everything has ended well and the file is as expected."""
        while self.pending:
            await self.threads.run_all()
            self.pending = [pending for pending in self.pending if not (pending.done() and pending.result() is None)]
        assert self.volume.file.path.read_bytes() == self.expected
        assert not self.volume.locks


@pytest.mark.parametrize("write_cache", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(steps=STEPS)
def test_overlapping_writes_take_effect_in_the_order_of_their_calls(
    disk: Path, write_cache: bool, steps: list[tuple[str, tuple[int, int], int]]
) -> None:
    async def scenario(path: Path) -> None:
        budget, threads = Writeback(PLENTY), HeldThreads()
        with ThreadPoolExecutor(1) as real:
            file = await BlockFile.open(path, SIZE, real, budget, volume_error)
        file._executor = threads
        ordered = Ordered(FileVolume("1:data", file, write_cache=write_cache), budget, threads)
        for what, (offset, length), number in steps:
            await ordered.step(what, offset, length, number)
        await ordered.finish()
        await file.close()

    with (
        tempfile.TemporaryDirectory(dir=disk) as folder,
        mock.patch.object(writeback, "GRANT_BYTES", 1),
    ):
        asyncio.run(scenario(Path(folder) / "file"))


async def test_a_write_behind_one_that_is_under_way_waits_and_others_do_not(
    open_file: OpenFile, held: HeldThreads
) -> None:
    budget = Writeback(NO_GRANT)
    file = await open_file(executor=held, writeback=budget)
    volume = FileVolume("1:data", file)
    first = volume.write(0, data(1, 2 * PAGE))
    budget.limit = PLENTY
    second = volume.write(PAGE, data(2, 2 * PAGE))
    assert first is not None
    assert second is not None
    assert not volume.write_now(8 * PAGE, data(3))
    assert volume.write(8 * PAGE, data(3)) is None
    assert len(held.jobs) == 1
    await held.run_all()
    await asyncio.gather(asyncio.ensure_future(first), asyncio.ensure_future(second))
    assert file.path.read_bytes()[: 3 * PAGE] == bytes(data(1)) + data(2, 2 * PAGE)
    assert volume.write_now(8 * PAGE, data(4))


async def test_giving_up_does_not_give_up_the_place(open_file: OpenFile, held: HeldThreads) -> None:
    """Whoever waits may be cancelled; the thread is at work all the same, and the next write waits for it."""
    budget = Writeback(NO_GRANT)
    file = await open_file(executor=held, writeback=budget)
    volume = FileVolume("1:data", file)
    first = asyncio.ensure_future(settled(volume.write(0, data(1))))
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    second = volume.write(0, data(2))
    assert second is not None
    assert len(held.jobs) == 1
    await held.run_all()
    await second
    assert file.path.read_bytes()[:PAGE] == data(2)


async def test_who_holds_a_lock_and_is_cancelled_holds_it_until_its_thread_has_ended(
    open_file: OpenFile, held: HeldThreads
) -> None:
    file = await open_file(executor=held, writeback=Writeback(NO_GRANT))
    volume = FileVolume("1:data", file)

    async def work() -> None:
        async with volume.lock(0, PAGE):
            await settled(volume.write_under_lock(0, data(1)))

    working = asyncio.ensure_future(work())
    await turns()
    working.cancel()
    await turns()
    working.cancel()
    await turns()
    assert (working.done(), len(held.jobs), bool(volume.locks)) == (False, 1, True)
    await held.run_all()
    assert (working.cancelled(), bool(volume.locks)) == (True, False)
