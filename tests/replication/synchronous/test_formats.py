"""Questions of synchronous pairs, byte by byte; and whatever else comes is refused, and no more."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.replication import asking
from arrayd.replication.asking import ANSWER_BYTES_MAX, Asked, Outcome, Refused, refused
from arrayd.replication.journal import FormatError
from arrayd.replication.journal.format import WRITE_BYTES_MAX
from arrayd.replication.journal.format import Kind as JournalKind
from arrayd.replication.sums import SUM_BYTES, SUMS_MAX
from arrayd.replication.synchronous import formats
from arrayd.replication.synchronous.formats import BATCH_WRITES, MIRROR, Carried, Kind
from arrayd.replication.synchronous.reconciling import STEP_SUMS

GROUP = bytes(range(16))
NOTHING = memoryview(b"")
U64 = st.integers(0, (1 << 64) - 1)
U16 = st.integers(0, (1 << 16) - 1)
GOLDEN_WRITES = [
    Carried(3, Kind.WRITE, True, 4096, 4, memoryview(b"data")),
    Carried(0, Kind.FLUSH, False, 0, 0, NOTHING),
    Carried(1, Kind.UNMAP, False, 512, 1 << 33, NOTHING),
    Carried(2, Kind.ZEROS, True, 1024, 512, NOTHING),
]


def fields_of(question: bytes) -> Any:
    return asking.decode_question(memoryview(question)).fields


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (formats.begin(GROUP, 5, 6), f"07{GROUP.hex()} 0000000000000005 0000000000000006"),
        (
            formats.mirror(GROUP, 5, 6, GOLDEN_WRITES),
            f"08{GROUP.hex()} 0000000000000005 0000000000000006 0004"
            " 0003 01 01 0000000000001000 0000000000000004"
            " 0000 00 00 0000000000000000 0000000000000000"
            " 0001 02 00 0000000000000200 0000000200000000"
            " 0002 03 01 0000000000000400 0000000000000200"
            " 64617461",
        ),
        (formats.begun(True), "00 01"),
        (formats.begun(False), "00 00"),
        (formats.begun(True, b"how"), "00 01 686f77"),
    ],
)  # fmt: skip
def test_golden_bytes(message: bytes, golden: str) -> None:
    assert message.hex() == golden.replace(" ", "")


def test_what_is_said_is_heard() -> None:
    assert formats.decode_begin(fields_of(formats.begin(GROUP, 5, 6))) == (5, 6)
    told = formats.decode_mirror(fields_of(formats.mirror(GROUP, 5, 6, GOLDEN_WRITES)))
    assert (told.generation, told.life, told.writes) == (5, 6, GOLDEN_WRITES)
    assert formats.decode_begun(memoryview(formats.begun(True, b"how"))) == (True, b"how")
    assert formats.decode_begun(memoryview(formats.begun(False))) == (False, b"")


def test_kinds_are_those_of_a_journal() -> None:
    """A write keeps its kind on its way through all of it."""
    for kind in (Kind.WRITE, Kind.UNMAP, Kind.ZEROS):
        assert int(JournalKind[kind.name]) == int(kind)


@st.composite
def writes(draw: st.DrawFn) -> list[Carried]:
    made = []
    for _ in range(draw(st.integers(1, 6))):
        kind, durable, number = draw(st.sampled_from(Kind)), draw(st.booleans()), draw(U16)
        data = draw(st.binary(min_size=1, max_size=40)) if kind is Kind.WRITE else b""
        extent = len(data) if kind is Kind.WRITE else 0 if kind is Kind.FLUSH else draw(st.integers(1, 1 << 63))
        made.append(Carried(number, kind, durable, draw(U64), extent, memoryview(data)))
    return made


@given(U64, U64, writes())
def test_both_codecs_agree(generation: int, life: int, some: list[Carried]) -> None:
    packed = formats.mirror(GROUP, generation, life, some)
    fields = fields_of(packed)
    told, parsed = formats.decode_mirror(fields), asking.parsed(MIRROR, fields)
    assert (told.generation, told.life) == (parsed.generation, parsed.life) == (generation, life)
    assert told.writes == some
    for write, each in zip(some, parsed.writes, strict=True):
        assert (each.number, each.kind, each.offset, each.extent) == (
            write.number, write.kind, write.offset, write.extent,
        )  # fmt: skip
        assert bool(each.flags & formats.DURABLE) is write.durable
    built = MIRROR.build(
        {
            "generation": generation,
            "life": life,
            "writes": [
                {"number": e.number, "kind": e.kind, "flags": int(e.durable), "offset": e.offset, "extent": e.extent}
                for e in some
            ],
        }
    )
    assert packed == asking.head(Asked.MIRROR, GROUP) + built + b"".join(bytes(each.data) for each in some)


DECODERS: list[Callable[[memoryview], Any]] = [formats.decode_begin, formats.decode_mirror, formats.decode_begun]


@given(st.sampled_from(DECODERS), st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(decode: Callable[[memoryview], Any], payload: bytes) -> None:
    try:
        decode(memoryview(payload))
    except (FormatError, Refused):
        pass


@given(writes(), st.integers(0, 400), st.binary(max_size=4))
def test_a_mirror_that_is_changed_is_read_or_refused(some: list[Carried], at: int, other: bytes) -> None:
    packed = bytearray(formats.mirror(GROUP, 1, 2, some)[17:])
    packed[at : at + len(other)] = other
    try:
        told = formats.decode_mirror(memoryview(packed))
    except FormatError:
        return
    for each in told.writes:
        assert len(each.data) == (each.extent if each.kind is Kind.WRITE else 0)


@given(writes(), st.data())
def test_a_mirror_that_is_cut_short_or_goes_on_is_refused(some: list[Carried], data: st.DataObject) -> None:
    packed = formats.mirror(GROUP, 1, 2, some)[17:]
    for wrong in (packed[: data.draw(st.integers(0, len(packed) - 1))], packed + b"x"):
        with pytest.raises(FormatError):
            formats.decode_mirror(memoryview(wrong))


def raw(count: int, *told: tuple[int, int, int, int, int], data: bytes = b"") -> memoryview:
    packed = struct.pack(">QQH", 1, 2, count) + b"".join(struct.pack(">HBBQQ", *each) for each in told)
    return memoryview(packed + data)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (raw(0), "of 0 writes"),
        (raw(BATCH_WRITES + 1, *[(0, 0, 0, 0, 0)] * (BATCH_WRITES + 1)), "of 65 writes"),
        (raw(2, (0, 0, 0, 0, 0)), "of 2 writes"),
        (raw(1, (0, 4, 0, 0, 512)), "kind 4"),
        (raw(1, (0, 1, 2, 0, 4), data=b"1234"), "flags 2"),
        (raw(1, (0, 1, 0, 0, 4), data=b"123"), "cut short"),
        (raw(1, (0, 1, 0, 0, 4), data=b"12345"), "behind"),
        (raw(1, (0, 1, 0, 0, 0)), "0 bytes of kind 1"),
        (raw(1, (0, 2, 0, 0, 0)), "0 bytes of kind 2"),
        (raw(1, (0, 0, 0, 0, 512)), "512 bytes of kind 0"),
        (memoryview(b"short"), "cut short"),
        (raw(1, (0, 1, 0, 0, (1 << 64) - 1), data=b"1"), "cut short"),
    ],
)
def test_what_no_mirror_says(wrong: memoryview, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        formats.decode_mirror(wrong)


def test_a_refusal_is_heard() -> None:
    with pytest.raises(Refused, match="why") as heard:
        formats.decode_begun(memoryview(refused(Outcome.FAILED, "why")))
    assert heard.value.outcome is Outcome.FAILED


def test_all_of_it_fits_into_messages() -> None:
    longest = Carried(0, Kind.WRITE, False, 0, WRITE_BYTES_MAX, memoryview(bytes(WRITE_BYTES_MAX)))
    assert len(formats.mirror(GROUP, 1, 2, [longest])) <= ANSWER_BYTES_MAX
    assert STEP_SUMS <= SUMS_MAX
    assert STEP_SUMS * SUM_BYTES <= asking.COPY_BYTES_MAX
