"""COPY and its answer have two codecs: the declarations, and what is precompiled. Both agree."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication import asking
from arrayd.replication.asking import COPIED, COPY, HEAD, RANGES_MAX, Asked, CopyPiece, Piece, Range
from arrayd.replication.journal import FormatError, Position
from tests.lab.search import examples

GROUP = b"a group's number"
RANGES = st.lists(st.builds(Range, st.integers(0, 2**64 - 1), st.integers(1, 4096)), min_size=1, max_size=9)
PIECES = st.lists(
    st.builds(
        lambda offset, length, kind, byte: CopyPiece(
            offset, length, kind, bytes([byte]) * length if kind is Piece.DATA else b""
        ),
        st.integers(0, 2**64 - 1),
        st.integers(1, 40),
        st.sampled_from(Piece),
        st.integers(0, 255),
    ),
    max_size=9,
)


@settings(max_examples=examples(40))
@given(st.integers(0, 2**63), st.integers(0, 65535), RANGES)
def test_copy(generation: int, number: int, ranges: list[Range]) -> None:
    packed = asking.copy(GROUP, generation, number, ranges)
    told = [each._asdict() for each in ranges]
    declared = COPY.build({"generation": generation, "number": number, "ranges": told})
    assert packed == HEAD.build({"asked": Asked.COPY, "group": GROUP}) + declared
    assert asking.decode_question(memoryview(packed)).fields == (generation, number, ranges)
    for wrong in (packed[:-1], packed + b"\0", packed[:20]):
        with pytest.raises(FormatError):
            asking.decode_question(memoryview(wrong))


@pytest.mark.parametrize(
    "ranges", [[], [Range(0, 0)], [Range(0, 1)] * (RANGES_MAX + 1), [Range(0, 4 << 20), Range(0, 1)]]
)
def test_no_copy(ranges: list[Range]) -> None:
    with pytest.raises(FormatError):
        asking.decode_question(memoryview(asking.copy(GROUP, 1, 1, ranges)))


@settings(max_examples=examples(40))
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), PIECES)
def test_copied(sequence: int, byte: int, pieces: list[CopyPiece]) -> None:
    packed = asking.copied(Position(sequence, byte), pieces)
    told = [{"offset": each.offset, "length": each.length, "kind": each.kind} for each in pieces]
    assert packed == b"\0" + COPIED.build({"stored": {"sequence": sequence, "byte": byte}, "pieces": told})
    answer = packed + b"".join(each.data for each in pieces)
    assert asking.decode_copied(memoryview(answer)) == (Position(sequence, byte), pieces)
    for wrong in (answer[:-1], answer + b"\0", answer[:10]):
        with pytest.raises(FormatError):
            asking.decode_copied(memoryview(wrong))


def test_no_pieces() -> None:
    unknown = asking.copied(Position(0, 0), [CopyPiece(0, 1, Piece.HOLE)])[:-1] + b"\3"
    many = asking.copied(Position(0, 0), [CopyPiece(0, 1, Piece.HOLE)] * (RANGES_MAX + 1))
    for wrong in (unknown, many):
        with pytest.raises(FormatError):
            asking.decode_copied(memoryview(wrong))
