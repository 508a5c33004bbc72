"""The limit of a copy's speed holds, in virtual time: whatever the pace, for all groups together, and from when it is
changed on; and how long the copy will still take is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from arrayd.link.channel import LinkError
from arrayd.replication.asking import Asked, Question, decode_copied
from arrayd.replication.asking import Piece as Kind
from arrayd.replication.copy_rate import PART_BYTES_MIN, SAVED_SECONDS, Limit, part_bytes
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.jobs import Job
from arrayd.replication.statuses import State
from tests.replication.following_doors import row_of
from tests.replication.test_copying import Parts
from tests.simulation.loop import SimLoop

RATE = 1024 * 1024
LATE = 0.01
SIZE = 4 * RATE
"""Of a volume; there are two, and a half of each is a hole."""


class Lab(Parts):
    """Two volumes to be copied; `came` are the bytes of data that came, and when."""

    def __init__(self, loop: SimLoop, row: GroupRow) -> None:
        super().__init__()
        self.loop = loop
        self.came: list[tuple[float, int]] = []
        self.primary.changed = self.changed
        self.primary.after_answer = self.takes_its_time
        self.site.now = loop.time
        self.wanted = row

    def changed(self, question: Question, answer: bytes) -> bytes:
        if question.asked is Asked.COPY:
            _, pieces = decode_copied(memoryview(answer))
            count = sum(piece.length for piece in pieces if piece.kind is Kind.DATA)
            self.came.append((self.loop.time(), count))
        return answer

    async def takes_its_time(self, _question: Question) -> None:
        await asyncio.sleep(0.001)

    @property
    def seconds(self) -> float:
        return self.came[-1][0] - self.came[0][0]

    def check(self, rate: int, begun: float = 0.0) -> None:
        """No while, however it is cut out, has more than its share, but for a part and what was saved up."""
        came = [(at, count) for at, count in self.came if at >= begun]
        spare = rate * SAVED_SECONDS + 2 * max(PART_BYTES_MIN, int(rate * SAVED_SECONDS))
        totals = [0]
        for _, count in came:
            totals.append(totals[-1] + count)
        for low, high in combinations(range(len(came)), 2):
            passed = came[high][0] - came[low][0]
            assert totals[high + 1] - totals[low] <= rate * passed + spare, (came[low], came[high])


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop(1000.0)
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.replication.test_copying.SIZE", SIZE)
    monkeypatch.setattr("tests.replication.test_copying.REGION", SIZE // 14)


Scenario = Callable[[], Coroutine[Any, Any, None]]


def copying_row(**fields: Any) -> GroupRow:
    return row_of({0: State.S_COPY, 3: State.S_COPY}, **fields)


def lab_of(loop: SimLoop, **fields: Any) -> Lab:
    lab = Lab(loop, copying_row(**fields))
    for number, volume in lab.primary.volumes.items():
        volume[:] = bytes([number + 1]) * (SIZE // 2) + bytes(SIZE // 2)
    return lab


@pytest.mark.parametrize("pace", [3, 15])
def test_the_limit_of_a_group_holds_and_is_used(loop: SimLoop, pace: int) -> None:
    lab = lab_of(loop, pace=pace, copy_rate=RATE)

    async def scenario() -> None:
        await lab.make(lab.wanted)
        await lab.copying.run()

    loop.run_until_complete(scenario())
    assert lab.site.contents == lab.primary.volumes
    lab.check(RATE)
    # A half of it is holes, which cost nothing: 4 MiB of data at 1 MiB/s.
    assert 3.0 <= lab.seconds <= 4.6


def test_without_a_limit_it_takes_what_it_takes(loop: SimLoop) -> None:
    lab = lab_of(loop)

    async def scenario() -> None:
        await lab.make(lab.wanted)
        await lab.copying.run()

    loop.run_until_complete(scenario())
    assert lab.seconds < 0.1


def test_the_limit_of_the_array_is_of_all_groups_together(loop: SimLoop) -> None:
    labs = [lab_of(loop) for _ in range(2)]
    came: list[tuple[float, int]] = []

    async def scenario() -> None:
        shared = Limit(RATE)
        for lab in labs:
            lab.came = came
            doors = lab.site.doors
            lab.site.doors = lambda doors=doors: replace(doors(), copy_limit=shared)  # type: ignore[method-assign, misc]
            await lab.make(lab.wanted)
        await asyncio.gather(*(lab.copying.run() for lab in labs))

    loop.run_until_complete(scenario())
    labs[0].check(RATE)
    assert 7.0 <= labs[0].seconds <= 9.0


def test_a_limit_that_is_changed_holds_at_once(loop: SimLoop) -> None:
    lab = lab_of(loop, copy_rate=RATE // 16)

    async def scenario() -> None:
        await lab.make(lab.wanted)
        copying = asyncio.ensure_future(lab.copying.run())
        await asyncio.sleep(10.0)
        assert sum(count for _, count in lab.came) <= RATE // 16 * 10.5
        lab.copying.changed(replace(lab.wanted, copy_rate=2 * RATE))
        changed = loop.time()
        await asyncio.sleep(1.0)
        lab.check(2 * RATE, changed)
        assert sum(count for at, count in lab.came if at >= changed) >= RATE, "it is used"
        lab.copying.changed(replace(lab.wanted, copy_rate=None))
        await copying

    loop.run_until_complete(scenario())
    assert lab.site.contents == lab.primary.volumes


def test_a_host_that_drives_waits_as_well(loop: SimLoop) -> None:
    lab = lab_of(loop, copy_rate=RATE)

    async def scenario() -> None:
        await lab.make(lab.wanted)
        while await lab.copying.once():
            pass

    loop.run_until_complete(scenario())
    lab.check(RATE)
    assert lab.seconds >= 3.0


def test_who_waits_for_a_slow_limit_is_stopped_at_once(loop: SimLoop) -> None:
    lab = lab_of(loop, copy_rate=1)

    async def scenario() -> None:
        await lab.make(lab.wanted)
        copying = asyncio.ensure_future(lab.copying.run())
        await asyncio.sleep(5.0)
        begun = loop.time()
        lab.pulling.stop()
        await asyncio.wait((copying,))
        copying.exception()
        assert loop.time() - begun < LATE

    loop.run_until_complete(scenario())


def test_what_was_not_spent_in_time_is_lost() -> None:
    limit = Limit(1000)
    limit.spend(100.0, 1000)
    assert limit.wait(100.0) == pytest.approx(1.0 - SAVED_SECONDS)
    assert limit.wait(200.0) == 0.0
    limit.give_back(500)
    limit.spend(100.0, 0)
    assert limit.wait(100.0) == pytest.approx(0.5 - SAVED_SECONDS)
    limit.change(None)
    limit.spend(100.0, 1 << 40)
    limit.give_back(1)
    assert limit.wait(100.0) == 0.0


@pytest.mark.parametrize(
    ("rates", "part"),
    [((None, None), 1 << 21), ((1 << 30, None), 1 << 21), ((None, 1 << 20), 1 << 18), ((1, 9), 1 << 14)],
)
def test_parts_are_short_where_the_limit_is_low(rates: tuple[int | None, ...], part: int) -> None:
    assert part_bytes(map(Limit, rates), 1 << 21) == part


def test_how_long_it_takes_is_told_while_it_goes_on_and_not_when_it_fails(loop: SimLoop) -> None:
    lab = lab_of(loop, copy_rate=RATE // 4)
    failing = [False]

    async def fails(_question: Question) -> None:
        if failing[0]:
            raise LinkError("cut", maybe_done=True)

    async def scenario() -> list[Job]:
        await lab.make(lab.wanted, marked=False)
        lab.primary.bitmaps = dict.fromkeys((0, 3), (1 << SIZE // 2 // 4096) - 1)
        lab.primary.before_answer = fails
        jobs = [lab.copying.job]
        copying = asyncio.ensure_future(lab.copying.run())
        for failing[0], seconds in ((False, 8.0), (True, 2.0), (False, 4.0)):
            await asyncio.sleep(seconds)
            jobs.append(lab.copying.job)
        await copying
        return [*jobs, lab.copying.job]

    unknown, going, cut, again, done = loop.run_until_complete(scenario())
    assert unknown == Job(0, None, None), "the other side's bitmap is not known"
    assert (going.done or 0) + (going.left or 0) == SIZE
    assert going.rate == pytest.approx(RATE / 4, rel=0.1)
    assert going.seconds_left == pytest.approx(SIZE / (RATE / 4) - 8.0, abs=1.5)
    assert (cut.rate, cut.seconds_left) == (None, None)
    assert cut.left
    assert again.seconds_left
    assert (done.done, done.left, done.seconds_left) == (SIZE, 0, 0.0)


def test_another_limit_makes_what_was_measured_before_worthless(loop: SimLoop) -> None:
    lab = lab_of(loop, copy_rate=RATE)

    async def scenario() -> list[float | None]:
        await lab.make(lab.wanted)
        copying = asyncio.ensure_future(lab.copying.run())
        await asyncio.sleep(2.5)
        rates = [lab.copying.job.rate]
        lab.copying.changed(replace(lab.wanted, copy_rate=RATE // 8))
        rates.append(lab.copying.job.rate)
        await asyncio.sleep(3.0)
        rates.append(lab.copying.job.rate)
        lab.copying.changed(lab.wanted)
        await copying
        return rates

    before, unknown, after = loop.run_until_complete(scenario())
    assert before == pytest.approx(RATE, rel=0.3)
    assert unknown is None
    assert after
    assert after < RATE / 4, "a part of before is in it, and no more"
