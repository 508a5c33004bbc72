"""The way of hosts' writes to both arrays: in bounded time, whatever the other one does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from arrayd.link.channel import LinkError
from arrayd.replication import asking
from arrayd.replication.asking import Asked, Outcome
from arrayd.replication.group_rows import Fence
from arrayd.replication.stages import Answer
from arrayd.replication.statuses import Event, State
from arrayd.replication.synchronous import formats, mirror
from arrayd.replication.synchronous.formats import BATCH_BYTES, BATCH_WRITES
from arrayd.replication.synchronous.mirroring import Mirroring
from arrayd.volumes.volume import Volume, VolumeFailed, finished
from tests.replication.synchronous.sides import NUMBERS, REGION, Sides, suspended, turns, until_in_time
from tests.simulation.loop import SimLoop

SIZE = 64 * REGION


@pytest.mark.parametrize("fence", Fence)
async def test_a_write_does_not_wait_for_a_life_that_cannot_be_begun(fence: Fence) -> None:
    """The stage itself tries for ever to begin it, and no write may wait for that one."""
    sides = Sides(SIZE, fence)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.near.begin(sides.near.row)
    sides.cut = True
    await sides.near.begin(sides.near.row)
    waiting = [asyncio.ensure_future(sides.write(number, 0, b"a" * 512)) for number in NUMBERS]
    await until_in_time(lambda: bool(sides.near.events))
    expected = Event.ERROR if fence is Fence.NEVER else Event.ERROR_FENCED
    assert [event for event, _ in sides.near.events] == [expected]
    sides.cut = False
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await asyncio.gather(*waiting)
    await sides.close()


SECONDS = 5.0
"""What MIRROR_SECONDS is where time is virtual."""

Ask = Callable[[asking.Question, Callable[[], Awaitable[Answer]]], Awaitable[Answer]]


def intercept(sides: Sides, ask: Ask) -> None:
    """Questions of the P-VOLs' side go by `ask(question, pass on)` from now on."""
    stage = sides.near.stage
    assert isinstance(stage, Mirroring)
    original = stage.doors.ask

    async def asks(array: str, question: bytes, expects: int) -> Answer:
        told = asking.decode_question(memoryview(question))

        async def pass_on() -> Answer:
            return await original(array, question, expects)

        return await ask(told, pass_on)

    stage._pulling.doors = replace(stage.doors, ask=asks)


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", SECONDS)
    monkeypatch.setattr(mirror, "AGAIN_SECONDS", 0.05)
    with asyncio.Runner(loop_factory=lambda: SimLoop(1000.0)) as runner:
        runner.run(work())


def refused(outcome: Outcome) -> Ask:
    async def ask(_told: asking.Question, _pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
        return Answer(memoryview(asking.refused(outcome, "so it is")))

    return ask


async def cut(_told: asking.Question, _pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
    raise LinkError("cut", maybe_done=True)


async def silent(_told: asking.Question, _pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def mirrors_lost(told: asking.Question, pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
    """Lives begin, and no write is answered."""
    if told.asked is Asked.MIRROR:
        raise LinkError("cut", maybe_done=True)
    return await pass_on()


KNOWN = {Fence.NEVER: Event.ERROR, Fence.DATA: Event.ERROR_FENCED, Fence.STATUS: Event.ERROR}
"""Of a write that the other side has refused: it knows."""
UNKNOWN = KNOWN | {Fence.STATUS: Event.ERROR_FENCED}


@pytest.mark.parametrize("fence", Fence)
@pytest.mark.parametrize(
    ("ask", "least", "events"),
    [
        (cut, SECONDS, UNKNOWN),
        (silent, SECONDS, UNKNOWN),
        (mirrors_lost, SECONDS, UNKNOWN),
        (refused(Outcome.NOT_NOW), SECONDS, KNOWN),
        (refused(Outcome.FAILED), 0.0, KNOWN),
        (refused(Outcome.NO_GROUP), 0.0, KNOWN),
    ],
)
def test_a_write_is_given_up_in_time_as_the_fence_level_says(
    fence: Fence, ask: Ask, least: float, events: dict[Fence, Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        sides = Sides(SIZE, fence)
        await sides.pair(State.P_PAIR, marked=False)
        await sides.write(0, 0, b"a" * 512)
        intercept(sides, ask)
        begun = loop.time()
        waiting = [asyncio.ensure_future(sides.write(number, at, b"b" * 512)) for number in NUMBERS for at in (0, 512)]
        while not sides.near.events:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert least <= loop.time() - begun <= least + 0.2
        assert [event for event, _ in sides.near.events] == [events[fence]]
        await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
        await asyncio.gather(*waiting)
        assert loop.time() - begun <= least + 0.5
        assert await sides.near.marked(0) == [(0, REGION)]
        await sides.close()

    in_virtual_time(work, monkeypatch)


@pytest.mark.parametrize("failures", [1, 3, 20])
def test_what_fails_for_a_while_is_asked_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By turns it is lost before it was carried out, and afterwards, and refused."""

    async def work() -> None:
        sides, left = Sides(SIZE), failures

        async def fails(_told: asking.Question, pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
            nonlocal left
            if left:
                left -= 1
                if left % 3 == 0:
                    raise LinkError("cut", maybe_done=True)
                if left % 3 == 1:
                    return Answer(memoryview(asking.refused(Outcome.NOT_NOW)))
                await pass_on()
                raise LinkError("cut, and it was done", maybe_done=True)
            return await pass_on()

        await sides.pair(State.P_PAIR, marked=False)
        intercept(sides, fails)
        await asyncio.gather(*(sides.write(0, at * 512, bytes([1 + at]) * 1024) for at in range(20)))
        assert not left
        assert sides.alike()
        assert sides.near.events == []
        await sides.close()

    in_virtual_time(work, monkeypatch)


async def test_an_answer_that_is_none_suspends_the_pairs() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await turns()

    async def nonsense(_told: asking.Question, _pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
        return Answer(memoryview(b"\x77"))

    intercept(sides, nonsense)
    waiting = asyncio.ensure_future(sides.write(0, 0, b"a" * 512))
    await until_in_time(lambda: bool(sides.near.events))
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await waiting
    await sides.close()


async def test_a_life_is_begun_once_for_all_who_see_that_it_is_not_known() -> None:
    """The other side was started again: it knows of no life."""
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    sides.far.kill()
    sides.far.revive()
    await sides.far.begin(sides.far.row, found=True)
    sides.asked.clear()
    await asyncio.gather(*(sides.write(0, at * 512, b"b" * 512) for at in range(20)))
    assert sides.asked.count(Asked.BEGIN) == 1
    assert sides.alike()
    await sides.close()


async def test_what_hosts_write_in_a_turn_goes_together_in_messages_of_bounded_size() -> None:
    sides = Sides(4 * 1024 * 1024)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    batches: list[tuple[int, int]] = []

    async def counts(told: asking.Question, pass_on: Callable[[], Awaitable[Answer]]) -> Answer:
        writes = formats.decode_mirror(told.fields).writes
        batches.append((len(writes), sum(len(each.data) for each in writes)))
        return await pass_on()

    intercept(sides, counts)
    await asyncio.gather(*(sides.write(0, at * 512, b"b" * 512) for at in range(2 * BATCH_WRITES + 1)))
    assert batches == [(BATCH_WRITES, BATCH_WRITES * 512)] * 2 + [(1, 512)]
    batches.clear()
    lengths = (BATCH_BYTES // 2, BATCH_BYTES // 2, 512, 3 * BATCH_BYTES, 512, BATCH_BYTES)
    places = [sum(lengths[:number]) for number in range(len(lengths))]
    await asyncio.gather(*(sides.write(0, at, b"c" * length) for at, length in zip(places, lengths, strict=True)))
    assert [size for _, size in batches] == [BATCH_BYTES, 512, 3 * BATCH_BYTES, 512, BATCH_BYTES]
    assert sides.alike()
    await sides.close()


async def test_a_sync_waits_for_both_sides_and_makes_this_one_durable() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    stage = sides.near.stage
    assert isinstance(stage, Mirroring)
    go = sides.far.hold(0)
    writing = asyncio.ensure_future(sides.write(0, 512, b"b" * 512))
    await turns()
    syncing = asyncio.ensure_future(stage._mirror.sync())
    await turns()
    later = asyncio.ensure_future(sides.write(3, 0, b"c" * 512))
    assert not syncing.done()
    go.set()
    await syncing
    assert sides.near.files[0].durable[:1024] == b"a" * 512 + b"b" * 512
    await asyncio.gather(writing, later)
    await sides.close()


async def test_a_sync_ends_when_the_group_stops() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    await sides.write(0, 0, b"a" * 512)
    stage = sides.near.stage
    assert isinstance(stage, Mirroring)
    sides.cut = True
    writing = asyncio.ensure_future(sides.write(0, 512, b"b" * 512))
    await turns()
    with pytest.raises(VolumeFailed, match="stopped"):
        await stage._mirror.sync()
    sides.cut = False
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await writing
    await sides.close()


async def test_a_log_that_fails_stops_the_group_and_hosts_go_on_by_what_comes_next() -> None:
    sides = Sides(SIZE)
    await sides.pair(State.P_PAIR, marked=False)
    stage = sides.near.stage
    assert stage is not None
    log = sides.near.stores.files[stage.store_name("activity", 0)]
    log.refusals, log.fails = 1.0, VolumeFailed("full")
    waiting = [asyncio.ensure_future(sides.write(0, at * 512, b"b" * 512)) for at in range(3)]
    flushing: Volume = sides.host(0)
    waiting.append(asyncio.ensure_future(finished(flushing.flush())))
    await until_in_time(lambda: bool(sides.near.events))
    assert sides.near.events[0][0] is Event.ERROR
    assert "full" in sides.near.events[0][1]
    log.fails = None
    await sides.near.begin(suspended(sides.near.row, State.P_PSUE))
    await asyncio.gather(*waiting)
    await sides.close()
