"""Hosts wait for a P-VOL of which nobody knows what it has, and go on in the order in which they came."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any

import pytest

from arrayd.replication.guarded import GuardedVolume, UnreadableVolume
from arrayd.replication.synchronous.waiting import WaitingVolume
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeFailed, VolumeNotReady, VolumeReadOnly, finished
from tests.replication.modelled import Machine, ModelFile
from tests.replication.still import volume_of
from tests.replication.synchronous.sides import turns

SIZE = 64 * 1024


class Parts:
    def __init__(self, **settings: Any) -> None:
        self.file = ModelFile(Machine(1), SIZE, refusals=0.3)
        self.raw: FileVolume = volume_of(self.file, **settings)
        self.waiting = WaitingVolume(self.raw)


@pytest.fixture
async def parts() -> Parts:
    return Parts()


def begun(answer: Awaitable[None] | None) -> asyncio.Future[None]:
    assert answer is not None
    return asyncio.ensure_future(answer)


async def test_nothing_is_read_or_written_before_it_is_known_by_which_way(parts: Parts) -> None:
    waiting, view = parts.waiting, memoryview(bytearray(512))
    assert not waiting.read_now(0, view)
    assert not waiting.write_now(0, view)
    assert waiting.commit_now(0, view) is None
    assert waiting.fetch_now(0, view) is None
    assert waiting.warm_file(0, 512) is None
    jobs: list[asyncio.Future[Any]] = [
        begun(waiting.read(0, view)),
        begun(waiting.write(0, memoryview(b"a" * 512))),
        begun(waiting.unmap(512, 512)),
        begun(waiting.write_zeros(1024, 512)),
        begun(waiting.flush()),
        asyncio.ensure_future(waiting.extents(0, SIZE, 10)),
    ]
    await turns()
    assert not any(job.done() for job in jobs)
    assert parts.file.calls == []
    waiting.replace(parts.raw)
    results = await asyncio.gather(*jobs)
    assert [(each.offset, each.length) for each in results[5]] == [(0, SIZE)]
    assert parts.file.content[:512] == b"a" * 512
    assert bytes(view) == bytes(512), "it was read before the write"


async def test_what_waited_comes_before_what_comes_by_the_new_way(parts: Parts) -> None:
    jobs = [begun(parts.waiting.write(0, memoryview(bytes([number]) * 512))) for number in range(1, 20)]
    parts.waiting.replace(parts.raw)
    await finished(parts.raw.write(0, memoryview(b"z" * 512)))
    await asyncio.gather(*jobs)
    assert parts.file.content[:512] == b"z" * 512


async def test_later_calls_go_by_the_new_way_and_by_the_next_one(parts: Parts) -> None:
    parts.waiting.replace(parts.raw)
    await finished(parts.waiting.write(0, memoryview(b"a" * 512)))
    assert parts.file.content[:512] == b"a" * 512
    parts.waiting.replace(GuardedVolume(parts.raw))
    with pytest.raises(VolumeReadOnly):
        parts.waiting.write(0, memoryview(b"b" * 512))
    async with parts.waiting.lock(0, 512):
        assert parts.raw.locks


async def test_each_hears_what_the_new_way_says(parts: Parts) -> None:
    writing = begun(parts.waiting.write(0, memoryview(bytes(512))))
    reading = begun(parts.waiting.read(0, memoryview(bytearray(512))))
    parts.waiting.replace(UnreadableVolume(parts.raw))
    with pytest.raises(VolumeReadOnly):
        await writing
    with pytest.raises(VolumeNotReady):
        await reading


async def test_who_locks_waits_too_and_writes_by_the_new_way(parts: Parts) -> None:
    async def compares_and_writes() -> None:
        async with parts.waiting.lock(0, 512):
            held.set()
            await go.wait()
            await finished(parts.waiting.write_under_lock(0, memoryview(b"l" * 512)))

    held, go = asyncio.Event(), asyncio.Event()
    holder = asyncio.ensure_future(compares_and_writes())
    await turns()
    assert not held.is_set()
    parts.waiting.replace(parts.raw)
    await held.wait()
    other = begun(parts.raw.write(0, memoryview(b"o" * 512)))
    await turns()
    assert not other.done()
    go.set()
    await holder
    await other
    assert parts.file.content[:512] == b"o" * 512


async def test_who_has_a_lock_from_before_does_not_wait(parts: Parts) -> None:
    """Else he would keep his range locked until what waits for it has ended."""
    async with parts.raw.lock(0, 512):
        with pytest.raises(VolumeNotReady):
            parts.waiting.write_under_lock(0, memoryview(bytes(512)))
    parts.waiting.replace(parts.raw)
    async with parts.raw.lock(0, 512):
        await finished(parts.waiting.write_under_lock(0, memoryview(b"a" * 512)))
    assert parts.file.content[:512] == b"a" * 512


async def test_nothing_follows(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    error = VolumeFailed("the volume is not served any more")
    job, given_up = begun(parts.waiting.write(0, memoryview(bytes(512)))), begun(parts.waiting.flush())
    locking = asyncio.ensure_future(parts.waiting.lock(0, 512).__aenter__())
    await turns()
    given_up.cancel()
    parts.waiting.give_up(error)
    for each in (job, locking):
        with pytest.raises(VolumeFailed):
            await each
    with pytest.raises(VolumeFailed):
        parts.waiting.read(0, memoryview(bytearray(512)))
    assert parts.file.calls == []
    gc.collect()
    assert not caplog.records


async def test_one_that_was_replaced_is_not_given_up(parts: Parts) -> None:
    parts.waiting.replace(parts.raw)
    parts.waiting.give_up(VolumeFailed("gone"))
    await finished(parts.waiting.write(0, memoryview(b"a" * 512)))
    assert parts.file.content[:512] == b"a" * 512


async def test_who_gave_up_waiting_ends_nobody_else(parts: Parts) -> None:
    jobs = [begun(parts.waiting.write(0, memoryview(bytes([number]) * 512))) for number in range(3)]
    jobs[1].cancel()
    parts.waiting.replace(parts.raw)
    await asyncio.gather(jobs[0], jobs[2])
    assert parts.file.content[:512] == b"\2" * 512
