"""The side with the P-VOLs shows of a copy what the other side tells it with FOLLOW, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from construct import Struct
from hypothesis import given
from hypothesis import strategies as st

from arrayd.replication import asking
from arrayd.replication.asking import FOLLOW, HEAD
from arrayd.replication.copy_told import STALE_SECONDS, TELL_SECONDS, CopyTold, Heard, Telling
from arrayd.replication.figures import percent
from arrayd.replication.jobs import Job
from arrayd.replication.journal import FormatError
from arrayd.replication.journal.regions import START
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import State
from tests.replication.following_doors import GROUP, until
from tests.replication.following_parts import NUMBERS, SIZE
from tests.replication.following_parts import Parts as Remote
from tests.replication.pair_doors import Site
from tests.replication.test_copying import Parts

NUMBER = st.none() | st.integers(0, 2**64 - 2)
JOB = st.builds(Job, NUMBER, NUMBER, NUMBER)
TOLD = st.builds(CopyTold, JOB, st.dictionaries(st.integers(0, 65535), st.integers(0, 2**64 - 2), max_size=9))


@given(TOLD)
def test_it_is_heard_as_it_was_told(told: CopyTold) -> None:
    assert CopyTold.decode(told.encode()) == told


@given(TOLD)
def test_what_is_no_such_thing(told: CopyTold) -> None:
    for wrong in (told.encode()[:-1], told.encode() + b"\0", b"\0"):
        with pytest.raises(FormatError):
            CopyTold.decode(wrong)


def test_a_side_that_is_older_passes_it_over_and_one_that_does_not_tell_it_is_understood() -> None:
    """So the protocol is of the same version."""
    told = CopyTold(Job(1, 2, 3.0), {0: 2}).encode()
    question = asking.follow(GROUP, 2, START, START, 65536, 1000, told)
    older = Struct(*FOLLOW.subcons[:-1]).parse(question[HEAD.sizeof() :])
    newer = asking.decode_question(memoryview(question)).fields
    assert all(getattr(older, key) == getattr(newer, key) for key in ("epoch", "bytes_max", "wait_ms"))
    assert newer.copying == told
    assert asking.decode_question(memoryview(question[: -len(told)])).fields.copying == b""


async def test_it_is_told_once_a_second_and_not_without_a_copy() -> None:
    parts = Parts()
    await parts.make()
    copying = [None, parts.copying]
    telling = Telling(lambda: copying[-1], lambda: parts.now)
    assert CopyTold.decode(telling()) == CopyTold(parts.copying.job, parts.copying.left)
    parts.now += TELL_SECONDS / 2
    assert telling() == b""
    parts.now += TELL_SECONDS / 2
    assert telling() != b""
    copying.pop()
    parts.now += TELL_SECONDS
    assert telling() == b""


def test_a_rate_is_forgotten_that_was_told_long_ago_and_not_what_is_left() -> None:
    heard = Heard()
    assert heard.progress(Progress(), 0.0) == Progress(copying=Job())
    heard.hear(CopyTold(Job(10, 100, 5.0), {0: 100}).encode(), 7.0)
    heard.hear(b"", 8.0)
    told = heard.progress(Progress(lag_s=1.0), 7.0 + STALE_SECONDS)
    assert told == Progress(lag_s=1.0, copying=Job(10, 100, 5.0), differing={0: 100})
    later = heard.progress(Progress(), 7.1 + STALE_SECONDS)
    assert later == Progress(copying=Job(10, 100, None), differing={0: 100})
    assert later.copying is not None
    assert later.copying.seconds_left is None


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as made:
        yield made


async def test_p_vols_show_of_a_copy_what_they_were_told(site: Site) -> None:
    primary = await site.begun()
    row = primary.stage.row
    assert State.P_COPY in row.states.values()
    pair = row.pairs[0]
    size = site.raw[pair.volume].size
    assert percent(pair, size, primary.stage.progress()) is None, "it has not heard of it"
    told = CopyTold(Job(size // 4, 3 * size // 4, 1000.0), {pair.number: 3 * size // 4}).encode()
    await primary.ask(asking.follow(GROUP, row.epoch + 1, START, START, 0, 0, told))
    assert percent(pair, size, primary.stage.progress()) is None, "of another epoch"
    answer = await primary.ask(asking.follow(GROUP, row.epoch, START, START, 0, 0, told[:-1]))
    assert answer[0] == asking.Outcome.FAILED
    await primary.ask(asking.follow(GROUP, row.epoch, START, START, 0, 0, told))
    progress = primary.stage.progress()
    assert percent(pair, size, progress) == 25
    assert progress.copying == Job(size // 4, 3 * size // 4, 1000)
    await primary.leave()


async def test_s_vols_tell_how_their_copy_goes() -> None:
    remote = Remote(State.S_COPY)
    heard: list[CopyTold] = []
    cut = asyncio.Event()

    async def listen(question: asking.Question) -> None:
        if question.asked is asking.Asked.FOLLOW and question.fields.copying:
            heard.append(CopyTold.decode(question.fields.copying))
            remote.now += TELL_SECONDS
        elif question.asked is asking.Asked.COPY and len(heard) < 3:
            await cut.wait()

    remote.primary.before_answer = listen
    stage = await remote.entered()
    await until(lambda: len(heard) >= 3)
    assert heard[0].left == dict.fromkeys(NUMBERS, SIZE)
    assert heard[0].job == Job(0, 2 * SIZE, None)
    cut.set()
    await until(lambda: heard[-1].job.left == 0)
    assert heard[-1].left == dict.fromkeys(NUMBERS, 0)
    assert heard[-1].job.done == 2 * SIZE
    told = stage.progress()
    assert told.copying is not None
    assert told.copying.seconds_left == 0.0
    await remote.close()
