"""The bytes of service 3 of the link: questions and answers there and back, hostile bytes, one of each as it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.replication import asking
from arrayd.replication.asking import Asked, CopyPiece, Followed, Outcome, Piece, Range, Refused
from arrayd.replication.group_rows import PeerRows
from arrayd.replication.journal import FormatError, Position
from arrayd.replication.state_codes import STATE_CODES
from arrayd.replication.statuses import State
from arrayd.replication.verifying import formats
from arrayd.replication.verifying.formats import Checked, Leads, Mending, Summed, Summing
from tests.lab.search import examples

GOLDEN = Path(__file__).with_name("asking.golden.txt")
GROUP = b"a group's number"
AT, END = Position(7, 4096), Position(9, 12288)
ROWS = PeerRows({0: State.P_PAIR, 3: State.S_SSWS}, 5, True, 2, False)
SUMMING = Summing(3, 65536, 8192, 4096)
MENDING = Mending(3, 65536, 512, Leads.S_VOLS, AT, bytes(512))
QUESTIONS = {
    "meet": asking.meet(GROUP, ROWS),
    "follow": asking.follow(GROUP, 2, END, AT, 65536, 1000),
    "copy": asking.copy(GROUP, 5, 3, [Range(0, 4096), Range(65536, 512)]),
    "bitmap": asking.bitmap(GROUP, 5, 3, 17),
    "joined": asking.joined(GROUP, 5, 3),
    "fence": asking.fence(GROUP, 5),
    "sums": formats.sums(GROUP, 5, SUMMING),
    "mend": formats.mend(GROUP, 5, MENDING),
    "check": formats.check(GROUP, 5, AT),
}
ANSWERS = {
    "refused": asking.refused(Outcome.NOT_NOW, "meet first"),
    "met": asking.met(ROWS),
    "followed": asking.followed(Followed(END, 11, 12, True)),
    "copied": asking.copied(AT, [CopyPiece(0, 2, Piece.DATA), CopyPiece(2, 4, Piece.HOLE)]) + b"ab",
    "part": asking.part(18, b"rows"),
    "done": asking.done(),
    "fenced": asking.fenced(END),
    "summed": formats.summed(Summed(AT, [1, 2], [3, 4])),
    "checked": formats.checked(Checked(AT, END, "damaged")),
}
DECODERS = (
    asking.decode_met,
    asking.decode_followed,
    asking.decode_copied,
    asking.decode_part,
    asking.decode_done,
    asking.decode_fenced,
)
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
U16 = st.integers(0, 2**16 - 1)
POSITIONS = st.builds(Position, U64, U64)
PEERS = st.builds(
    PeerRows,
    st.dictionaries(U16, st.sampled_from(sorted(STATE_CODES, key=str)), max_size=9),
    U64,
    st.booleans(),
    U64,
    st.booleans(),
)


def test_what_compares_the_sides() -> None:
    asked = [asking.decode_question(memoryview(QUESTIONS[name])) for name in ("sums", "mend", "check")]
    assert [each.asked for each in asked] == [Asked.SUMS, Asked.MEND, Asked.CHECK]
    assert formats.decode_sums(asked[0].fields) == (5, SUMMING)
    assert formats.decode_mend(asked[1].fields) == (5, MENDING)
    assert formats.decode_check(asked[2].fields) == (5, AT)
    assert formats.decode_summed(memoryview(ANSWERS["summed"]), SUMMING) == Summed(AT, [1, 2], [3, 4])
    assert formats.decode_checked(memoryview(ANSWERS["checked"])) == Checked(AT, END, "damaged")


@pytest.mark.parametrize(
    "wrong",
    [
        formats.sums(GROUP, 5, SUMMING._replace(sum_bytes=12288)),
        formats.sums(GROUP, 5, SUMMING._replace(sum_bytes=2048)),
        formats.sums(GROUP, 5, SUMMING._replace(length=0)),
        formats.sums(GROUP, 5, SUMMING._replace(length=(4 << 20) + 4096)),
        formats.mend(GROUP, 5, MENDING._replace(length=1 << 19)),
        formats.mend(GROUP, 5, MENDING._replace(data=bytes(3))),
        QUESTIONS["mend"][:30],
        QUESTIONS["check"][:30],
        QUESTIONS["sums"][:20],
    ],
)
def test_what_must_not_compare_them(wrong: bytes) -> None:
    question = asking.decode_question(memoryview(wrong))
    decode: dict[Asked, Callable[[memoryview], object]] = {
        Asked.SUMS: formats.decode_sums,
        Asked.MEND: formats.decode_mend,
        Asked.CHECK: formats.decode_check,
    }
    with pytest.raises(FormatError):
        decode[question.asked](question.fields)


@pytest.mark.parametrize("sums", [([1], []), ([1, 2], [1]), ([1, 2, 3], [])])
def test_as_many_sums_as_were_asked_for(sums: tuple[list[int], list[int]]) -> None:
    with pytest.raises(FormatError):
        formats.decode_summed(memoryview(formats.summed(Summed(AT, *sums))), SUMMING)


def test_one_of_each() -> None:
    lines = [f"{name} {data.hex()}" for name, data in (QUESTIONS | ANSWERS).items()]
    assert GOLDEN.read_text().splitlines() == lines


@settings(max_examples=examples(40))
@given(PEERS)
def test_rows(rows: PeerRows) -> None:
    question = asking.decode_question(memoryview(asking.meet(GROUP, rows)))
    assert (question.asked, question.group, asking.rows_of(question.fields)) == (Asked.MEET, GROUP, rows)
    assert asking.decode_met(memoryview(asking.met(rows))) == rows


@settings(max_examples=examples(40))
@given(U64, POSITIONS, POSITIONS, U32, U32, U16)
def test_questions(number: int, at: Position, restored: Position, small: int, wait: int, pair: int) -> None:
    fields = asking.decode_question(memoryview(asking.follow(GROUP, number, at, restored, small, wait))).fields
    assert (fields.epoch, fields.bytes_max, fields.wait_ms) == (number, small, wait)
    assert (asking.position_of(fields.at), asking.position_of(fields.restored)) == (at, restored)
    fields = asking.decode_question(memoryview(asking.bitmap(GROUP, number, pair, small))).fields
    assert (fields.generation, fields.number, fields.begin) == (number, pair, small)
    fields = asking.decode_question(memoryview(asking.joined(GROUP, number, pair))).fields
    assert (fields.generation, fields.number) == (number, pair)
    assert asking.decode_question(memoryview(asking.fence(GROUP, number))).fields.generation == number


@settings(max_examples=examples(40))
@given(POSITIONS, U64, U64, st.booleans(), U32, st.binary(max_size=40))
def test_answers(at: Position, now: int, oldest: int, ended: bool, page: int, rest: bytes) -> None:
    told = Followed(at, now, oldest, ended)
    read, run = asking.decode_followed(memoryview(asking.followed(told) + rest))
    assert (read, bytes(run)) == (told, rest)
    following, part = asking.decode_part(memoryview(asking.part(page, rest)))
    assert (following, bytes(part)) == (page, rest)
    assert asking.decode_fenced(memoryview(asking.fenced(at))) == at


@settings(max_examples=examples(200))
@given(st.sampled_from([*QUESTIONS.values(), *ANSWERS.values(), b""]), st.integers(0, 99), st.binary(max_size=60))
def test_hostile_bytes(good: bytes, at: int, bad: bytes) -> None:
    data = memoryview(good[:at] + bad)
    try:
        question = asking.decode_question(data)
        if question.asked is Asked.MEET:
            asking.rows_of(question.fields)
    except FormatError:
        pass
    for decode in DECODERS:
        try:
            decode(data)
        except (FormatError, Refused):
            pass
