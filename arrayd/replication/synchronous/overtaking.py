"""What hosts write to S-VOLs of a synchronous group while these are copied: writes overtake what was read before them.

A range that is copied is read from its P-VOL under a lock: the data has all writes that were answered before, and none
that is under way. A write that comes here between the question and the data's being written is as new as the data, or
newer. So the data is not written where such a write has been.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from arrayd.replication.asking import CopyPiece, Piece, Range
from arrayd.replication.journal import Position


@dataclass
class Asked:
    """Ranges of a pair that were asked for, and where it was written since."""

    number: int
    ranges: Sequence[Range]
    written: list[Range] = field(default_factory=list)


class Overtaking:
    """See `copying.UnderWay`."""

    def __init__(self) -> None:
        self._under_way: dict[int, Asked] = {}
        self._next = 0

    def wrote(self, number: int, offset: int, extent: int) -> None:
        """A host's write to the pair is carried out in this turn of the event loop."""
        for asked in self._under_way.values():
            if asked.number == number and any(
                each.offset < offset + extent and offset < each.offset + each.length for each in asked.ranges
            ):
                asked.written.append(Range(offset, extent))

    def begin(self, number: int, ranges: Sequence[Range]) -> int:
        """See UnderWay."""
        self._next += 1
        self._under_way[self._next] = Asked(number, ranges)
        return self._next

    def read(self, stored: Position) -> None:
        """See UnderWay: there are no positions."""

    def parts(self, ticket: int, piece: CopyPiece) -> Iterator[CopyPiece]:
        """See UnderWay: what no write has overtaken until it is given."""
        written = self._under_way[ticket].written
        at, end = piece.offset, piece.offset + piece.length
        while at < end:
            ahead = sorted(
                (each.offset, each.offset + each.length) for each in written if each.offset + each.length > at
            )
            begin, stop = next(((begin, stop) for begin, stop in ahead if begin < end), (end, end))
            if begin <= at:
                at = stop
                continue
            data = piece.data
            if piece.kind is Piece.DATA:
                data = data[at - piece.offset : begin - piece.offset]
            yield CopyPiece(at, begin - at, piece.kind, data)
            at = begin

    def end(self, ticket: int) -> None:
        """See UnderWay."""
        del self._under_way[ticket]
