"""Syncs: what is durable when, few of them for many who wait, several at once, and failure that stays."""

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrayd.blockfile import kernel, opening
from arrayd.blockfile.syncs import GROUP, SYNCS_MAX
from tests.lab.disk import Failing, HeldThreads, OpenFile, data, turns
from tests.lab.search import examples

P = ParamSpec("P")
T = TypeVar("T")
PAGE = kernel.PAGE_BYTES


def failed() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


class Syncs:
    """Stands for fdatasync: counts, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.failure: OSError | None = None
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor: int) -> None:
        self.count += 1
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self._real(descriptor)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


async def test_one_sync_serves_all_who_wait(open_file: OpenFile, held: HeldThreads, syncs: Syncs) -> None:
    file = await open_file(executor=held)
    first = [file.sync() for _ in range(GROUP - 1)]
    await turns()
    assert len(held.jobs) == 1
    second = [file.sync() for _ in range(GROUP - 1)]
    await turns()
    assert len(held.jobs) == 1
    await held.run()
    assert all(future.done() for future in first)
    assert not any(future.done() for future in second)
    await held.run()
    assert all(future.done() for future in second)
    assert (syncs.count, held.jobs) == (2, [])


async def test_who_comes_while_a_sync_runs_waits_for_the_next(open_file: OpenFile, held: HeldThreads) -> None:
    """The one under way began before the write."""
    file = await open_file(executor=held)
    first = file.sync()
    await turns()
    assert file.write_now(0, data(7))
    second = file.sync()
    await held.run()
    assert (first.done(), second.done()) == (True, False)
    await held.run()
    assert second.done()


async def test_a_failed_sync_is_never_retried_into_success(
    open_file: OpenFile, held: HeldThreads, syncs: Syncs
) -> None:
    file = await open_file(executor=held, failing=lambda error: Failing(error.errno))
    assert file.write_now(0, data(7))
    waiting = [file.sync()]
    await turns()
    waiting.append(file.sync())
    syncs.failure = failed()
    await held.run()
    waiting.append(file.sync())
    for future in waiting:
        with pytest.raises(Failing, match=str(errno.EIO)):
            await future
    assert not file.write_now(0, data(8))
    assert not file.write_now(512, data(8, 512))
    into = memoryview(bytearray(PAGE))
    assert file.read_now(0, into)
    assert into == data(7)
    assert (syncs.count, held.jobs) == (1, [])


async def test_nobody_waits_for_a_sync_any_more(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    given_up, waiting = file.sync(), file.sync()
    await turns()
    given_up.cancel()
    await held.run()
    assert waiting.done()
    assert waiting.exception() is None


async def test_many_who_wait_begin_another_sync_while_one_is_under_way(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    waiting = [file.sync() for _ in range(GROUP * (SYNCS_MAX + 1))]
    assert len(held.jobs) == SYNCS_MAX
    await turns()
    assert len(held.jobs) == SYNCS_MAX
    # They may end in any order, and each says only that its own are durable.
    await held.run(1)
    assert [future.done() for future in waiting] == [GROUP <= number < 2 * GROUP for number in range(len(waiting))]
    assert len(held.jobs) == SYNCS_MAX
    await held.run_all()
    assert all(future.done() for future in waiting)


async def test_syncs_under_way_at_once_use_open_files_of_their_own(
    open_file: OpenFile, held: HeldThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells a failed write-back once to each open file."""
    used: list[int] = []
    monkeypatch.setattr(os, "fdatasync", used.append)
    file = await open_file(executor=held)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        used.clear()
        waiting = [file.sync() for _ in range(GROUP * SYNCS_MAX)]
        await held.run_all()
        assert all(future.done() for future in waiting)
        assert len(set(used)) == SYNCS_MAX
        assert all(os.path.samestat(os.fstat(descriptor), os.stat(file.path)) for descriptor in used)
    await file.close()
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_without_another_open_file_one_sync_follows_the_other(
    open_file: OpenFile, held: HeldThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(opening, "open_again", none_left)
    file = await open_file(executor=held)
    waiting = [file.sync() for _ in range(GROUP * 3)]
    assert len(held.jobs) == 1
    await held.run_all()
    assert all(future.done() for future in waiting)


async def test_a_failure_reaches_everyone_who_waits(open_file: OpenFile, held: HeldThreads, syncs: Syncs) -> None:
    """Those as well whose own sync ends well after it: better told too much than too little."""
    file = await open_file(executor=held, failing=lambda error: Failing(error.errno))
    early = [file.sync() for _ in range(GROUP)]
    late = [file.sync() for _ in range(GROUP)]
    shared = file.commit()
    syncs.failure = failed()
    await held.run(1)
    await held.run_all()
    for future in (*early, *late, shared, file.sync(), file.commit()):
        with pytest.raises(Failing, match=str(errno.EIO)):
            await future
    assert held.jobs == []


async def test_what_was_durable_before_the_failure_is_durable(
    open_file: OpenFile, held: HeldThreads, syncs: Syncs
) -> None:
    file = await open_file(executor=held)
    early = [file.sync() for _ in range(GROUP)]
    late = [file.sync() for _ in range(GROUP)]
    await held.run(0)
    syncs.failure = failed()
    await held.run(0)
    assert all(future.exception() is None for future in early)
    assert all(isinstance(future.exception(), OSError) for future in late)


async def test_a_full_disk_below_is_a_failure_like_any_other(
    open_file: OpenFile, held: HeldThreads, syncs: Syncs
) -> None:
    """fdatasync says ENOSPC where a thin disk below is full: what was taken in is lost all the same."""
    file = await open_file(executor=held)
    syncs.failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    syncing = file.sync()
    await held.run_all()
    with pytest.raises(OSError, match="could not be written to the disk: No space left on device") as raised:
        await syncing
    assert raised.value.errno == errno.EIO


async def test_a_commit_is_shared_until_its_sync_begins(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    first = file.commit()
    assert file.commit() is first
    await turns()
    assert file.write_now(0, data(7))
    second = file.commit()
    assert second is not first
    await held.run()
    assert (first.done(), second.done()) == (True, False)
    await held.run()
    assert second.done()


async def test_who_shares_a_commit_counts_like_any_other(open_file: OpenFile, held: HeldThreads) -> None:
    file = await open_file(executor=held)
    commits = [file.commit() for _ in range(GROUP + 1)]
    assert len(held.jobs) == 1
    assert commits[GROUP - 1] is commits[0]
    assert commits[GROUP] is not commits[0]
    await held.run_all()
    assert all(commit.done() for commit in commits)


class Durable(HeldThreads):
    """Threads of a file whose writes are counted: of a sync it is certain only that it makes durable what was written
    when it was begun."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.durable = 0
        self.asked: list[tuple[int, asyncio.Future[None]]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        written = self.written

        def sync() -> T:
            self.durable = max(self.durable, written)
            return fn(*args, **kwargs)

        return super().submit(sync)

    def check(self) -> None:
        assert all(written <= self.durable for written, future in self.asked if future.done())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(steps=st.lists(st.tuples(st.sampled_from(("sync", "commit", "run", "turn")), st.integers(0, 20)), max_size=60))
async def test_nobody_is_told_too_early(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int]]
) -> None:
    held = Durable()
    file = await open_file(executor=held, name=f"file{id(held)}")
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    for what, number in steps:
        if what == "run" and held.jobs:
            await held.run(number % len(held.jobs))
        elif what == "turn":
            await turns(1)
        elif what in ("sync", "commit"):
            for _ in range(number):
                held.written += 1
                held.asked.append((held.written, getattr(file, what)()))
        held.check()
        assert len(held.jobs) <= SYNCS_MAX
    await held.run_all()
    assert all(future.done() for _, future in held.asked)
    await file.close()
