"""What the two arrays of a group ask each other over the link, and the answers: payloads of REQUEST and ANSWER frames.

A question begins with what is asked and the group's id, an answer with its outcome. All integers are big-endian. Each
question may be asked twice: nothing is done twice by it. The side with the S-VOLs pulls (figures 11 and 13): it asks
FOLLOW, COPY, BITMAP, JOINED and FENCE; MEET is asked by either side. What the side with the P-VOLs of a synchronous
group asks besides is in `synchronous/formats.py`, and what is asked to compare the sides in `verifying/formats.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct as Layout
from typing import Any, NamedTuple

from construct import Bytes, ConstructError, Flag, GreedyBytes, Int8ub, Int16ub, Int32ub, Int64ub, PrefixedArray, Struct

from arrayd.link.channel import MESSAGE_BYTES_MAX
from arrayd.replication.group_rows import PAIRS_MAX, PeerRows
from arrayd.replication.journal.format import GROUP_BYTES, FormatError
from arrayd.replication.journal.regions import Position
from arrayd.replication.state_codes import STATE_CODES, STATES

SERVICE = 3
"""The link's number of this service."""
RUN_BYTES_MAX = 4 * 1024 * 1024
"""Of data in the answer to one FOLLOW; a single write may be longer."""
COPY_BYTES_MAX = 4 * 1024 * 1024
"""Of one COPY, all its ranges together."""
RANGES_MAX = 1024
"""Of one COPY, and pieces of its answer."""
ANSWER_BYTES_MAX = MESSAGE_BYTES_MAX
TEXT_BYTES_MAX = 1000
"""Of the reason why something failed."""


class Asked(IntEnum):
    """What is asked."""

    MEET = 1
    """The rows of both sides."""
    FOLLOW = 2
    """Records of the primary journal from a position on (figure 13), and that others are restored (figure 16)."""
    COPY = 3
    """What is in ranges of a P-VOL (figure 11)."""
    BITMAP = 4
    """A part of the bitmap of a P-VOL that was suspended."""
    JOINED = 5
    """The bitmap of a P-VOL is joined to that of its S-VOL, durably: the P-VOL's side may give it up."""
    FENCE = 6
    """Hosts' writes to the P-VOLs wait for a while, so that the sides can change places (figures 19 to 21)."""
    BEGIN = 7
    """A life of the stage of synchronous P-VOLs begins."""
    MIRROR = 8
    """Writes to P-VOLs are made to their S-VOLs (figure 24)."""
    SUMS = 9
    """Sums of what a volume has, by which the sides are compared."""
    MEND = 10
    """A range is written to both sides as one of them has it."""
    CHECK = 11
    """Whether the records of the primary journal are whole."""


SYNCHRONOUS = frozenset((Asked.BEGIN, Asked.MIRROR))
COMPARING = frozenset((Asked.SUMS, Asked.MEND, Asked.CHECK))


class Outcome(IntEnum):
    """What the answer is."""

    DONE = 0
    NO_GROUP = 1
    """This array has no such group with the array that asks."""
    NOT_NOW = 2
    """The group is of another generation or epoch here, or stands still: the sides are to meet first."""
    FAILED = 3
    """Why follows."""


class Piece(IntEnum):
    """What a range of a volume has."""

    DATA = 0
    HOLE = 1
    """Nothing: it reads as zeros, and has no disk."""
    ZEROS = 2


POSITION = Struct("sequence" / Int64ub, "byte" / Int64ub)
RANGE = Struct("offset" / Int64ub, "length" / Int32ub)
ROWS = Struct(
    "generation" / Int64ub,
    "consistent" / Flag,
    "epoch" / Int64ub,
    "held" / Flag,  # something is being told to both sides: see PeerRows
    "states" / PrefixedArray(Int16ub, Struct("number" / Int16ub, "state" / Int8ub)),
)
HEAD = Struct("asked" / Int8ub, "group" / Bytes(GROUP_BYTES))

FOLLOW = Struct(
    "epoch" / Int64ub,
    "at" / POSITION,  # the first record that is asked for
    "restored" / POSITION,  # all before it is durable in the S-VOLs
    "bytes_max" / Int32ub,  # of data
    "wait_ms" / Int32ub,  # until there is something to be served
    "copying" / GreedyBytes,  # how a copy goes: see `copy_told.py`; empty: nothing new
)
COPY = Struct("generation" / Int64ub, "number" / Int16ub, "ranges" / PrefixedArray(Int16ub, RANGE))
BITMAP = Struct("generation" / Int64ub, "number" / Int16ub, "begin" / Int32ub)
JOINED = Struct("generation" / Int64ub, "number" / Int16ub)
FENCE = Struct("generation" / Int64ub)

FOLLOWED = Struct(
    "stored" / POSITION,  # journal-in of the primary journal
    "now" / Int64ub,  # ns since 1970, by the clock of the side that answers
    "oldest" / Int64ub,  # when the first record behind the run was written; 0: there is none
    "ended" / Flag,  # nothing is journaled any more: `stored` is the end of the group's writes
    # the run follows: see `journal/format.py`
)
COPIED = Struct(
    "stored" / POSITION,  # what is read has all writes before this, and none behind it
    "pieces" / PrefixedArray(Int16ub, Struct("offset" / Int64ub, "length" / Int32ub, "kind" / Int8ub)),
    # the data of the pieces that have some follows, one behind the other
)
COPY_HEAD, COPIED_HEAD = Layout(">QHH"), Layout(">QQH")
RANGE_LAYOUT, PIECE_LAYOUT = Layout(">QI"), Layout(">QIB")
"""COPY and COPIED, precompiled: what they have before their ranges and pieces, and each of these."""
PART = Struct("next" / Int32ub)  # the page where the next part begins; 0: this was the last; the part follows
FENCED = Struct("end" / POSITION)


class Range(NamedTuple):
    """`length` bytes of a volume from `offset` on."""

    offset: int
    length: int


class Followed(NamedTuple):
    """The answer to FOLLOW, beside its run; see FOLLOWED."""

    stored: Position
    now: int
    oldest: int
    ended: bool


class Copy(NamedTuple):
    """What COPY asks for."""

    generation: int
    number: int
    ranges: list[Range]


class CopyPiece(NamedTuple):
    """A piece of the answer to COPY; `data` only of Piece.DATA."""

    offset: int
    length: int
    kind: Piece
    data: memoryview | bytes = b""


class Refused(Exception):
    """The other side did not do it; `outcome` is not DONE."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


# -- questions ---------------------------------------------------------------------------------------------------------


def meet(group: bytes, rows: PeerRows) -> bytes:
    """MEET."""
    return head(Asked.MEET, group) + _rows(rows)


def follow(
    group: bytes, epoch: int, at: Position, restored: Position, bytes_max: int, wait_ms: int, copying: bytes = b""
) -> bytes:
    """FOLLOW."""
    fields = {"epoch": epoch, "at": at._asdict(), "restored": restored._asdict(), "bytes_max": bytes_max}
    return _build(Asked.FOLLOW, group, FOLLOW, **fields, wait_ms=wait_ms, copying=copying)


def copy(group: bytes, generation: int, number: int, ranges: Sequence[Range]) -> bytes:
    """COPY."""
    packed = b"".join(RANGE_LAYOUT.pack(*each) for each in ranges)
    return head(Asked.COPY, group) + COPY_HEAD.pack(generation, number, len(ranges)) + packed


def bitmap(group: bytes, generation: int, number: int, begin: int) -> bytes:
    """BITMAP."""
    return _build(Asked.BITMAP, group, BITMAP, generation=generation, number=number, begin=begin)


def joined(group: bytes, generation: int, number: int) -> bytes:
    """JOINED."""
    return _build(Asked.JOINED, group, JOINED, generation=generation, number=number)


def fence(group: bytes, generation: int) -> bytes:
    """FENCE."""
    return _build(Asked.FENCE, group, FENCE, generation=generation)


# -- what a question says ----------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """What is asked about which group, and the fields behind that: see MEET's ROWS, FOLLOW, COPY, BITMAP, JOINED and
    FENCE; of those that are SYNCHRONOUS or for COMPARING a copy of the bytes."""

    asked: Asked
    group: bytes
    fields: Any


LAYOUTS: dict[Asked, Struct] = {
    Asked.MEET: ROWS,
    Asked.FOLLOW: FOLLOW,
    Asked.COPY: COPY,
    Asked.BITMAP: BITMAP,
    Asked.JOINED: JOINED,
    Asked.FENCE: FENCE,
}


def decode_question(payload: memoryview) -> Question:
    """Raises FormatError."""
    told = parsed(HEAD, payload)
    if told.asked not in frozenset(Asked):
        raise FormatError(f"question {told.asked}, which there is not")
    asked, rest = Asked(told.asked), payload[HEAD.sizeof() :]
    if asked in SYNCHRONOUS | COMPARING:
        return Question(asked, told.group, memoryview(bytes(rest)))
    fields = _copy_of(rest) if asked is Asked.COPY else parsed(LAYOUTS[asked], rest)
    return Question(asked, told.group, fields)


def _copy_of(payload: memoryview) -> Copy:
    _check(len(payload) >= COPY_HEAD.size, "a COPY that is cut short")
    generation, number, count = COPY_HEAD.unpack_from(payload)
    _check(0 < count <= RANGES_MAX, f"{count} ranges")
    _check(len(payload) == COPY_HEAD.size + count * RANGE_LAYOUT.size, f"{count} ranges in {len(payload)} bytes")
    ranges = [Range(*each) for each in RANGE_LAYOUT.iter_unpack(payload[COPY_HEAD.size :])]
    total = sum(each.length for each in ranges)
    _check(total <= COPY_BYTES_MAX and all(each.length for each in ranges), f"a copy of {total} bytes")
    return Copy(generation, number, ranges)


def rows_of(fields: Any) -> PeerRows:
    """What MEET says, or its answer. Raises FormatError."""
    _check(len(fields.states) <= PAIRS_MAX, f"{len(fields.states)} pairs")
    unknown = [each.state for each in fields.states if each.state not in STATES]
    _check(not unknown, f"states {unknown}, which there are not")
    states = {each.number: STATES[each.state] for each in fields.states}
    _check(len(states) == len(fields.states), "a pair twice")
    return PeerRows(states, fields.generation, fields.consistent, fields.epoch, fields.held)


def position_of(fields: Any) -> Position:
    """A POSITION."""
    return Position(fields.sequence, fields.byte)


# -- answers -----------------------------------------------------------------------------------------------------------


def refused(outcome: Outcome, reason: str = "") -> bytes:
    """The answer where nothing was done."""
    return bytes((outcome,)) + reason.encode()[:TEXT_BYTES_MAX]


def met(rows: PeerRows) -> bytes:
    """The answer to MEET."""
    return bytes((Outcome.DONE,)) + _rows(rows)


def followed(told: Followed) -> bytes:
    """The answer to FOLLOW, before its run."""
    fields = told._asdict() | {"stored": told.stored._asdict()}
    return bytes((Outcome.DONE,)) + bytes(FOLLOWED.build(fields))


def copied(stored: Position, pieces: Sequence[CopyPiece]) -> bytes:
    """The answer to COPY, before its data."""
    packed = b"".join(PIECE_LAYOUT.pack(each.offset, each.length, each.kind) for each in pieces)
    return bytes((Outcome.DONE,)) + COPIED_HEAD.pack(*stored, len(pieces)) + packed


def part(next_page: int, part: bytes) -> bytes:
    """The answer to BITMAP."""
    return bytes((Outcome.DONE,)) + bytes(PART.build({"next": next_page})) + part


def done() -> bytes:
    """The answer to JOINED."""
    return bytes((Outcome.DONE,))


def fenced(end: Position) -> bytes:
    """The answer to FENCE."""
    return bytes((Outcome.DONE,)) + bytes(FENCED.build({"end": end._asdict()}))


def behind_done(answer: memoryview) -> memoryview:
    """What is behind the outcome DONE. Raises Refused, FormatError."""
    _check(len(answer) > 0, "an empty answer")
    if answer[0] != Outcome.DONE:
        _check(answer[0] in frozenset(Outcome), f"outcome {answer[0]}, which there is not")
        outcome = Outcome(answer[0])
        reason = bytes(answer[1 : 1 + TEXT_BYTES_MAX]).decode(errors="replace")
        raise Refused(outcome, reason or outcome.name.lower().replace("_", " "))
    return answer[1:]


def decode_met(answer: memoryview) -> PeerRows:
    """Raises Refused (NO_GROUP where it has none), FormatError."""
    return rows_of(parsed(ROWS, behind_done(answer)))


def decode_followed(answer: memoryview) -> tuple[Followed, memoryview]:
    """With the run. Raises Refused, FormatError."""
    rest = behind_done(answer)
    told = parsed(FOLLOWED, rest[: FOLLOWED.sizeof()])  # not the run: all of it would be copied
    return Followed(position_of(told.stored), told.now, told.oldest, told.ended), rest[FOLLOWED.sizeof() :]


def decode_copied(answer: memoryview) -> tuple[Position, list[CopyPiece]]:
    """Raises Refused, FormatError."""
    rest = behind_done(answer)
    _check(len(rest) >= COPIED_HEAD.size, "an answer to COPY that is cut short")
    sequence, byte, count = COPIED_HEAD.unpack_from(rest)
    _check(count <= RANGES_MAX, f"{count} pieces")
    at = COPIED_HEAD.size + count * PIECE_LAYOUT.size
    _check(len(rest) >= at, "an answer to COPY that is cut short")
    pieces = []
    for offset, length, kind in PIECE_LAYOUT.iter_unpack(rest[COPIED_HEAD.size : at]):
        _check(kind <= Piece.ZEROS, "a piece of a kind that there is not")
        data = rest[at : at + length] if kind == Piece.DATA else rest[:0]
        _check(kind != Piece.DATA or len(data) == length, "a piece that is cut short")
        at += len(data)
        pieces.append(CopyPiece(offset, length, Piece(kind), data))
    _check(at == len(rest), "bytes behind the last piece")
    return Position(sequence, byte), pieces


def decode_part(answer: memoryview) -> tuple[int, memoryview]:
    """The page where the next part begins, and this part (see `bitmap/`). Raises Refused, FormatError."""
    rest = behind_done(answer)
    next_page: int = parsed(PART, rest[: PART.sizeof()]).next
    return next_page, rest[PART.sizeof() :]


def decode_done(answer: memoryview) -> None:
    """Raises Refused, FormatError."""
    behind_done(answer)


def decode_fenced(answer: memoryview) -> Position:
    """Raises Refused, FormatError."""
    return position_of(parsed(FENCED, behind_done(answer)).end)


def head(asked: Asked, group: bytes) -> bytes:
    """What a question begins with."""
    return bytes(HEAD.build({"asked": asked, "group": group}))


def _build(asked: Asked, group: bytes, layout: Struct, **fields: object) -> bytes:
    return head(asked, group) + bytes(layout.build(fields))


def _rows(rows: PeerRows) -> bytes:
    states = [{"number": number, "state": STATE_CODES[state]} for number, state in sorted(rows.states.items())]
    told = {"generation": rows.generation, "consistent": rows.consistent, "epoch": rows.epoch, "held": rows.held}
    return bytes(ROWS.build(told | {"states": states}))


def parsed(layout: Struct, data: memoryview) -> Any:
    """The fields of `data`. Raises FormatError."""
    try:
        return layout.parse(data)
    except ConstructError as error:
        raise FormatError(f"cut short or malformed: {error}".splitlines()[0]) from error


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FormatError(otherwise)
