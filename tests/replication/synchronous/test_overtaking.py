"""What is copied is not written over what a host has written since it was asked for: against a model of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.replication.asking import CopyPiece, Piece, Range
from arrayd.replication.journal.regions import START
from arrayd.replication.synchronous.overtaking import Overtaking

SIZE = 40
spans = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 12)).map(lambda it: Range(it[0], min(it[1], SIZE - it[0])))


def apart(ranges: list[Range]) -> list[Range]:
    taken: list[Range] = []
    for offset, length in sorted(ranges):
        if not taken or offset >= taken[-1].offset + taken[-1].length:
            taken.append(Range(offset, length))
    return taken


@st.composite
def asked_pieces(draw: st.DrawFn) -> tuple[list[Range], list[CopyPiece]]:
    """Ranges that are apart, and what came of them: each whole, or in parts."""
    ranges = apart(draw(st.lists(spans, min_size=1, max_size=5)))
    pieces = []
    for offset, length in ranges:
        cut = draw(st.integers(0, length))
        for at, size in ((offset, cut), (offset + cut, length - cut)):
            if size:
                kind = draw(st.sampled_from(Piece))
                pieces.append(CopyPiece(at, size, kind, b"c" * size if kind is Piece.DATA else b""))
    return ranges, pieces


@given(
    asked_pieces(),
    st.lists(spans, max_size=4),
    st.lists(spans, max_size=6),
    st.lists(st.tuples(st.integers(0, 8), spans), max_size=6),
)
def test_what_was_written_since_stays(
    asked: tuple[list[Range], list[CopyPiece]],
    before: list[Range],
    since: list[Range],
    between: list[tuple[int, Range]],
) -> None:
    """Writes of a host come before the question, between it and the answer, and between two parts of what came."""
    ranges, pieces = asked
    overtaking, content, newer = Overtaking(), bytearray(b"." * SIZE), set[int]()

    def write(offset: int, length: int, byte: bytes) -> None:
        overtaking.wrote(1, offset, length)
        overtaking.wrote(2, 0, SIZE)  # of another pair
        content[offset : offset + length] = byte * length

    for each in before:
        write(*each, b"b")
    ticket = overtaking.begin(1, ranges)
    for each in since:
        write(*each, b"h")
        newer.update(range(each.offset, each.offset + each.length))
    overtaking.read(START)
    turn = 0
    for piece in pieces:
        for part in overtaking.parts(ticket, piece):
            assert part.kind is piece.kind
            assert piece.offset <= part.offset < part.offset + part.length <= piece.offset + piece.length
            assert len(part.data) == (part.length if part.kind is Piece.DATA else 0)
            places = set(range(part.offset, part.offset + part.length))
            assert not places & newer
            content[part.offset : part.offset + part.length] = b"c" * part.length
            for when, each in between:
                if when == turn:
                    write(*each, b"h")
                    newer.update(range(each.offset, each.offset + each.length))
            turn += 1
    overtaking.end(ticket)
    copied = {at for offset, length in ranges for at in range(offset, offset + length)}
    for at in range(SIZE):
        if at in newer:
            assert content[at] == ord("h")
        elif at in copied:
            assert content[at] == ord("c"), "all of it is written that nobody has overtaken"


def test_the_data_is_what_belongs_there() -> None:
    overtaking = Overtaking()
    ticket = overtaking.begin(0, [Range(100, 10)])
    overtaking.wrote(0, 103, 2)
    overtaking.wrote(0, 90, 11)
    piece = CopyPiece(100, 10, Piece.DATA, memoryview(b"0123456789"))
    assert [(part.offset, bytes(part.data)) for part in overtaking.parts(ticket, piece)] == [
        (101, b"12"),
        (105, b"56789"),
    ]


def test_what_is_under_way_is_kept_and_no_more() -> None:
    overtaking = Overtaking()
    first, second = overtaking.begin(0, [Range(0, 10)]), overtaking.begin(0, [Range(20, 10)])
    overtaking.wrote(0, 10, 10)
    overtaking.wrote(0, 25, 1)
    overtaking.wrote(1, 0, 10)
    assert [len(each.written) for each in overtaking._under_way.values()] == [0, 1]
    overtaking.end(first)
    overtaking.end(second)
    assert not overtaking._under_way
    with pytest.raises(KeyError):
        overtaking.end(first)
