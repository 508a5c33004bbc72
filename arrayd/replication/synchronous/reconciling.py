"""What P-VOLs may lack after a death of their side is read from the S-VOLs, which have all that hosts were answered.

The sides compare sums of the ranges that are hot, and only what differs is sent. Hosts see the P-VOLs afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from arrayd.log import get_logger
from arrayd.replication import asking
from arrayd.replication.asking import RANGES_MAX
from arrayd.replication.copying import HEAD_BYTES, PIECES_BYTES_MAX, check_pieces, write_piece
from arrayd.replication.group_rows import GroupRow
from arrayd.replication.pulling import Pulling
from arrayd.replication.redo import flush_all
from arrayd.replication.sums import SUM_BYTES, SUMS_MAX, differing, sums_of
from arrayd.replication.verifying import formats
from arrayd.replication.verifying.formats import Summing
from arrayd.replication.writes import Range
from arrayd.volumes.volume import Volume

STEP_SUMS = min(SUMS_MAX, asking.COPY_BYTES_MAX // SUM_BYTES)
"""Sums that are compared at once: all of it may differ, and is asked for in one COPY."""
ANSWER_SECONDS = 5.0

log = get_logger("replication")


async def reconcile(row: GroupRow, pulling: Pulling, volumes: Mapping[int, Volume], ranges: Iterable[Range]) -> None:
    """The volumes, by number, have in these ranges what the other side's have, durably. Raises LinkError, Refused,
    FormatError, VolumeError, Stopped; may be done again."""
    came = 0
    for number, offset, length in _steps(ranges):
        volume = volumes[number]
        asked = Summing(number, offset, length, SUM_BYTES)
        question = formats.sums(row.id, row.generation, asked)
        there = formats.decode_summed(await pulling.ask(question, asking.ANSWER_BYTES_MAX, ANSWER_SECONDS), asked)
        here = await sums_of(volume, offset, length)
        found = differing(offset, length, SUM_BYTES, here, there.sums)
        if found:
            assert len(found) <= RANGES_MAX
            total = sum(each.length for each in found)
            question = asking.copy(row.id, row.generation, number, found)
            with await pulling.answer(question, total + PIECES_BYTES_MAX + HEAD_BYTES, ANSWER_SECONDS) as answer:
                _, pieces = asking.decode_copied(answer)
                check_pieces(found, pieces)
                for piece in pieces:
                    await write_piece(piece, volume)
            came += total
    await flush_all(volumes)
    log.info("P-VOLs are as the S-VOLs are", group=row.name, bytes=came)


def _steps(ranges: Iterable[Range]) -> Iterator[Range]:
    for number, offset, length in ranges:
        for at in range(offset, offset + length, STEP_SUMS * SUM_BYTES):
            yield Range(number, at, min(STEP_SUMS * SUM_BYTES, offset + length - at))
