"""The format of frames: both codecs agree, and damage shows."""

from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from arrayd.link.frames import (
    CRC_BYTES,
    FRAME,
    HEADER,
    HEADER_BYTES,
    SHORT,
    SHORT_HEADER,
    SHORT_HEADER_BYTES,
    Kind,
    frame,
    short,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(
    crc=U32, length=U32, kind=st.sampled_from(Kind), flags=st.integers(0, 255), service=st.integers(0, 65535),
    number=U64, received=U32,
)  # fmt: skip
def test_both_codecs_agree(**fields: int) -> None:
    packed = HEADER.pack(*fields.values())
    assert FRAME.build(fields) == packed
    parsed = FRAME.parse(packed)
    assert {name: int(parsed[name]) for name in fields} == fields
    assert FRAME.sizeof() == HEADER_BYTES == 24


@given(length=U32, number=U64)
def test_both_codecs_agree_on_short_messages(length: int, number: int) -> None:
    told = {"length": length, "number": number}
    assert SHORT.build(told) == SHORT_HEADER.pack(length, number)
    assert SHORT.sizeof() == SHORT_HEADER_BYTES == 12


def test_a_short_message_is_these_bytes() -> None:
    assert short(258, b"arrayd") == bytes.fromhex("00000006 0000000000000102 617272617964")


def test_a_frame_is_these_bytes() -> None:
    assert frame(Kind.REQUEST, b"arrayd", flags=2, service=7, number=258, received=3) == bytes.fromhex(
        "12745589 00000006 08 02 0007 0000000000000102 00000003 617272617964"
    )


@given(payload=st.binary(max_size=300), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_shows(payload: bytes, at: int, bit: int) -> None:
    sent = bytearray(frame(Kind.ANSWER, payload, number=5))
    sent[at % len(sent)] ^= 1 << bit
    crc, *_ = HEADER.unpack_from(sent)
    assert crc32c(sent[CRC_BYTES:]) != crc
