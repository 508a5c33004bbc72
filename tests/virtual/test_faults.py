"""The link is cut at every stage of a READ and a WRITE, and the far array is killed: each is carried out once, or the
host hears in bounded time that nobody knows."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.iscsi.requests import Outcome, read_10, write_10
from tests.virtual.pair import Pair

pytestmark = pytest.mark.slow

ABORTED_COMMAND, NOT_READY = 0x0B, 0x02
COMMUNICATION_FAILURE, TARGET_PORT_UNAVAILABLE = 0x0800, 0x040C
SHORT, LONG = 8, 700
"""Blocks: done on the spot, and as a task in several frames."""


def sense(outcome: Outcome) -> tuple[int, int]:
    """Key and additional code, in the fixed format."""
    return outcome.sense[2] & 0x0F, int.from_bytes(outcome.sense[12:14])


class Work:
    """One command, and what is right afterwards."""

    def __init__(self, op: str, blocks: int) -> None:
        self.op, self.blocks = op, blocks
        self.data = os.urandom(blocks * 512)

    def begin(self, pair: Pair) -> Outcome:
        pair.volume.writes.clear()
        if self.op == "write":
            return pair.begin(write_10(5, self.blocks), out=self.data)
        pair.volume.data[5 * 512 : 5 * 512 + len(self.data)] = self.data
        return pair.begin(read_10(5, self.blocks), expected_in=len(self.data))

    def check_done(self, pair: Pair, outcome: Outcome) -> None:
        """It went well, and was carried out once."""
        assert outcome.status == 0
        if self.op == "write":
            assert pair.volume.writes == [(5 * 512, len(self.data))]
            assert pair.volume.data[5 * 512 : 5 * 512 + len(self.data)] == self.data
        else:
            assert outcome.data == self.data

    def length(self, to_far: bool) -> int:
        """Bytes that go over the link, there or back."""
        return (len(self.data) if to_far == (self.op == "write") else 0) + 100


def cuts(length: int) -> Iterator[int]:
    """Every byte of the first and last frame headers and what is near them, and some in between."""
    yield from range(0, min(length, 130), 7)
    yield from range(130, length, max(length // 12, 1))
    yield length


WORKS = [(op, blocks) for op in ("read", "write") for blocks in (SHORT, LONG)]


@pytest.mark.parametrize(("op", "blocks"), WORKS)
async def test_cut_while_the_request_is_on_its_way(op: str, blocks: int) -> None:
    """Before any of it is sent, in the middle, and when all of it has been, but nothing of the answer."""
    work = Work(op, blocks)
    pair = Pair().login()
    for cut in cuts(work.length(to_far=True)):
        outcome = work.begin(pair)
        pair.line.carry(True, cut)
        pair.reconnect()
        pair.settle()
        work.check_done(pair, outcome)
    pair.assert_nothing_left()


@pytest.mark.parametrize(("op", "blocks"), WORKS)
async def test_cut_while_the_answer_is_on_its_way(op: str, blocks: int) -> None:
    """Before any of it is sent, in the middle, and when it is lost whole."""
    work = Work(op, blocks)
    pair = Pair().login()
    for cut in cuts(work.length(to_far=False)):
        outcome = work.begin(pair)
        pair.line.carry(True)
        pair.line.carry(False, cut)
        pair.reconnect()
        pair.settle()
        work.check_done(pair, outcome)
    pair.assert_nothing_left()


@pytest.mark.parametrize(("op", "blocks"), WORKS)
@pytest.mark.parametrize("answered", [False, True])
async def test_the_far_array_is_killed_in_the_middle(op: str, blocks: int, answered: bool) -> None:
    """What may have reached it ends: to be tried again. It was carried out once, or not at all."""
    work = Work(op, blocks)
    for cut in cuts(work.length(to_far=not answered)):
        pair = Pair().login()
        outcome = work.begin(pair)
        pair.line.carry(True, None if answered else cut)
        if answered:
            pair.line.carry(False, cut)
            pair.host.pump()
        pair.restart_far()
        pair.settle()
        if outcome.end is None or outcome.status:
            assert sense(outcome) == (ABORTED_COMMAND, COMMUNICATION_FAILURE)
        if op == "write":
            assert len(pair.volume.writes) <= 1
        # The host does as it is told, and hears first that the unit was reset.
        outcome = work.begin(pair)
        pair.settle()
        assert sense(outcome) == (6, 0x2900)
        outcome = work.begin(pair)
        pair.settle()
        work.check_done(pair, outcome)
        pair.assert_nothing_left()


@pytest.mark.parametrize(("op", "blocks"), WORKS)
async def test_the_link_does_not_come_back_in_time(op: str, blocks: int) -> None:
    """What was sent may have been done; what waited for a connection was not, and the host takes another path."""
    work = Work(op, blocks)
    pair = Pair().login()
    sent = work.begin(pair)
    pair.line.cut()
    waited = work.begin(pair)
    assert not waited.ended
    pair.line.a.channel.fail("no connection")
    pair.host.pump()
    assert sense(sent) == (ABORTED_COMMAND, COMMUNICATION_FAILURE)
    assert sense(waited) == (NOT_READY, TARGET_PORT_UNAVAILABLE)
    pair.reconnect()
    pair.settle()
    assert pair.volume.writes == []
    pair.assert_nothing_left()


async def test_many_at_once_through_many_cuts() -> None:
    """Depth 64, reads and writes; every 5,000 bytes the link is cut."""
    pair = Pair().login()
    began: list[tuple[int, bytes | None, Outcome]] = []
    for number in range(64):
        data = bytes([number + 1]) * 4096 if number % 2 else None
        cdb = write_10(number * 8, 8) if data else read_10(number * 8, 8)
        began.append((number, data, pair.begin(cdb, out=data or b"", expected_in=0 if data else 4096)))
    for _ in range(40):
        pair.line.carry(True, 5000)
        pair.line.carry(False, 5000)
        pair.host.pump()
        pair.reconnect()
        for turn in range(5):
            pair.line.carry(turn % 2 == 0)
            pair.host.pump()
    pair.settle()
    for number, data, outcome in began:
        assert outcome.status == 0
        assert data is None or pair.volume.data[number * 4096 : (number + 1) * 4096] == data
    assert sorted(pair.volume.writes) == [(number * 4096, 4096) for number in range(1, 64, 2)]
    pair.assert_nothing_left()


async def test_the_session_ends_while_commands_are_under_way() -> None:
    """They end without an answer, and what had not got there is not carried out any more."""
    pair = Pair().login()
    for blocks in (SHORT, LONG):
        Work("write", blocks).begin(pair)
        Work("read", blocks).begin(pair)
    pair.volume.writes.clear()
    pair.line.carry(True, 50)
    pair.host.close()
    pair.reconnect()
    pair.line.settle()
    assert not pair.near_target.nexuses
    assert pair.volume.writes == []
    pair.assert_nothing_left()
