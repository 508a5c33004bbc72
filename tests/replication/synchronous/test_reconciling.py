"""P-VOLs get what S-VOLs have, where they differ, and nothing else is sent."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from arrayd.link.channel import LinkError
from arrayd.replication import asking
from arrayd.replication.asking import Asked, Outcome, Piece, Question, Refused
from arrayd.replication.group_rows import GroupRow, Mode, PairRow
from arrayd.replication.journal import FormatError
from arrayd.replication.journal.regions import START
from arrayd.replication.pulling import Pulling, Stopped
from arrayd.replication.stages import Answer, Doors
from arrayd.replication.statuses import State
from arrayd.replication.sums import SUM_BYTES, sums_of
from arrayd.replication.synchronous.reconciling import STEP_SUMS, reconcile
from arrayd.replication.verifying import formats
from arrayd.replication.verifying.formats import Summed
from arrayd.replication.writes import Range
from arrayd.volumes.file_volume import FileVolume
from arrayd.volumes.volume import VolumeFailed
from tests.replication.modelled import Machine, ModelFile
from tests.replication.still import volume_of
from tests.replication.synchronous.sides import GROUP

SIZE = 2 * STEP_SUMS * SUM_BYTES + SUM_BYTES + 4096


class Parts:
    """A P-VOL and its S-VOL, and who answers for the latter. `wrong`: what is answered instead, by what is asked."""

    def __init__(self) -> None:
        self.near, self.far = (ModelFile(Machine(seed), SIZE, 0.3) for seed in (1, 2))
        self.volume: FileVolume = volume_of(self.near)
        self.asked: list[Question] = []
        self.copied: list[tuple[int, int]] = []
        self.wrong: dict[Asked, bytes | Exception] = {}
        doors: Any = Doors(
            "near", b"b" * 16, lambda: 0, lambda: asyncio.get_running_loop().time(), self._ask,
            lambda _name: self.volume, lambda *_: asyncio.sleep(0), None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.pulling = Pulling(doors, "far")
        pair = PairRow(0, "p", "v", 0, "2:v", State.P_PAIR)
        self.row = GroupRow(GROUP, "g", 0, None, "far", "2", None, 1, (pair,), mode=Mode.SYNC)

    async def _ask(self, _array: str, question: bytes, expects: int) -> Answer:
        told = asking.decode_question(memoryview(question))
        self.asked.append(told)
        wrong = self.wrong.get(told.asked)
        if isinstance(wrong, Exception):
            raise wrong
        answer = wrong if wrong is not None else await self._answer(told)
        assert len(answer) <= expects
        return Answer(memoryview(answer))

    async def _answer(self, told: Question) -> bytes:
        if told.asked is Asked.SUMS:
            _, (number, offset, length, _) = formats.decode_sums(told.fields)
            assert number == 0
            return formats.summed(Summed(START, await sums_of(volume_of(self.far), offset, length), []))
        pieces, data = [], b""
        for offset, length in told.fields.ranges:
            self.copied.append((offset, length))
            pieces.append(asking.CopyPiece(offset, length, Piece.DATA))
            data += self.far.content[offset : offset + length]
        return asking.copied(START, pieces) + data

    async def reconcile(self, *ranges: tuple[int, int]) -> None:
        await reconcile(self.row, self.pulling, {0: self.volume}, [Range(0, *each) for each in ranges])


@pytest.fixture
async def parts() -> Parts:
    made = Parts()
    made.near.content[:] = made.far.content[:] = random.Random(1).randbytes(SIZE)
    return made


async def test_only_what_differs_is_sent(parts: Parts) -> None:
    for at in (0, 5 * SUM_BYTES + 9, 70 * SUM_BYTES, SIZE - 1):
        parts.far.content[at] ^= 1
    await parts.reconcile((0, SIZE))
    assert parts.near.content == parts.far.content
    for offset, length in parts.copied:
        assert parts.near.durable[offset : offset + length] == parts.near.content[offset : offset + length]
    assert parts.copied == [
        (0, SUM_BYTES),
        (5 * SUM_BYTES, SUM_BYTES),
        (70 * SUM_BYTES, SUM_BYTES),
        (2 * STEP_SUMS * SUM_BYTES + SUM_BYTES, 4096),
    ]
    assert [each.asked for each in parts.asked].count(Asked.SUMS) == 3


async def test_what_is_not_asked_about_stays(parts: Parts) -> None:
    parts.far.content[0] ^= 1
    parts.far.content[SUM_BYTES] ^= 1
    before = bytes(parts.near.content[:SUM_BYTES])
    await parts.reconcile((SUM_BYTES, SUM_BYTES))
    assert parts.near.content[:SUM_BYTES] == before
    assert parts.near.content[SUM_BYTES:] == parts.far.content[SUM_BYTES:]


async def test_all_of_it_may_differ(parts: Parts) -> None:
    parts.far.content[:] = bytes(0xFF ^ each for each in parts.far.content)
    await parts.reconcile((0, SIZE))
    assert parts.near.content == parts.far.content
    assert sum(length for _, length in parts.copied) == SIZE


async def test_what_it_was_that_is_the_same_is_durable_afterwards(parts: Parts) -> None:
    parts.near.put(0, bytes(parts.far.content[:512]))
    parts.near.durable[:512] = bytes(512)
    await parts.reconcile((0, SUM_BYTES))
    assert parts.near.durable[:512] == parts.far.content[:512]


async def test_nothing_to_be_compared_asks_nothing(parts: Parts) -> None:
    await parts.reconcile()
    assert parts.asked == []


@pytest.mark.parametrize(
    ("asked", "wrong", "error"),
    [
        (Asked.SUMS, LinkError("cut", maybe_done=True), LinkError),
        (Asked.SUMS, asking.refused(Outcome.NOT_NOW), Refused),
        (Asked.SUMS, formats.summed(Summed(START, [1], [])), FormatError),
        (Asked.SUMS, b"\0\0", FormatError),
        (Asked.COPY, LinkError("cut", maybe_done=True), LinkError),
        (Asked.COPY, asking.refused(Outcome.FAILED, "gone"), Refused),
        (Asked.COPY, asking.copied(START, []), FormatError),
        (Asked.COPY, asking.copied(START, [asking.CopyPiece(512, SUM_BYTES, Piece.ZEROS)]), FormatError),
    ],
)
async def test_what_goes_wrong_is_raised_and_it_may_be_done_again(
    parts: Parts, asked: Asked, wrong: bytes | Exception, error: type[Exception]
) -> None:
    parts.far.content[3] ^= 1
    parts.wrong[asked] = wrong
    with pytest.raises(error):
        await parts.reconcile((0, SIZE))
    parts.wrong.clear()
    await parts.reconcile((0, SIZE))
    assert parts.near.content == parts.far.content


async def test_holes_and_zeros_are_made(parts: Parts) -> None:
    parts.far.content[:SUM_BYTES] = bytes(SUM_BYTES)
    for kind in (Piece.HOLE, Piece.ZEROS):
        parts.near.content[:SUM_BYTES] = b"x" * SUM_BYTES
        parts.wrong[Asked.COPY] = asking.copied(START, [asking.CopyPiece(0, SUM_BYTES, kind)])
        await parts.reconcile((0, SUM_BYTES))
        assert parts.near.content[:SUM_BYTES] == bytes(SUM_BYTES)


async def test_a_disk_that_fails_is_told(parts: Parts) -> None:
    parts.far.content[3] ^= 1
    parts.near.refusals, parts.near.fails = 1.0, VolumeFailed("gone")
    with pytest.raises(VolumeFailed):
        await parts.reconcile((0, SIZE))


async def test_it_stops_when_it_is_told_to(parts: Parts) -> None:
    parts.pulling.stop()
    with pytest.raises(Stopped):
        await parts.reconcile((0, SIZE))
