"""What is asked and answered of a virtual volume: both codecs agree, and what is no answer is told from one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.link.frames import FrameError
from arrayd.virtual.formats import (
    ANSWER,
    ANSWER_HEAD,
    EXECUTE,
    EXECUTE_HEAD,
    GOOD_READ,
    PLAIN,
    Operation,
    Outcome,
    good_write,
    read_answer,
)

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


@given(attribute=U8, cdb_length=U16, nexus=U32, lun=U64, tag=U32, expected_out=U32, expected_in=U32,
       cdb=st.binary(min_size=16, max_size=16))  # fmt: skip
def test_an_execute(cdb: bytes, **fields: int) -> None:
    built = EXECUTE.build({"operation": Operation.EXECUTE, **fields})
    assert EXECUTE_HEAD.pack(Operation.EXECUTE, *fields.values()) == built
    *head, code, flags, word, count, rest = PLAIN.unpack_from(built + cdb)
    assert tuple(head) == EXECUTE_HEAD.unpack(built)
    whole = bytes((code, flags)) + word.to_bytes(8) + count.to_bytes(4) + rest.to_bytes(2)
    assert whole == cdb


@given(outcome=st.sampled_from(Outcome), status=U8, wanted_out=U32, text=st.binary(max_size=300), data=st.binary())
def test_an_answer(outcome: Outcome, status: int, wanted_out: int, text: bytes, data: bytes) -> None:
    fields = {"outcome": outcome, "status": status, "sense_length": len(text), "wanted_out": wanted_out}
    built = ANSWER.build({**fields, "text": text + data})
    assert ANSWER_HEAD.pack(outcome, status, len(text), wanted_out) + text + data == built
    told = read_answer(memoryview(built))
    assert (told.outcome, told.status, told.wanted_out) == (outcome, status, wanted_out)
    assert (bytes(told.text), bytes(told.data)) == (text, data)


@given(length=U32)
def test_answers_that_are_kept_packed(length: int) -> None:
    assert read_answer(memoryview(good_write(length)))[:3] == (Outcome.DONE, 0, length)
    assert int.from_bytes(good_write(length)) == length
    assert int.from_bytes(GOOD_READ) == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "an answer of 0 bytes"),
        (bytes(7), "an answer of 7 bytes"),
        (b"\5" + bytes(7), "an answer with outcome 5"),
        (b"\0\2\0\2" + bytes(5), "shorter than its sense data"),
        (ANSWER_HEAD.pack(0, 2, 505, 0) + bytes(505), "an answer with 505 bytes of sense data"),
    ],
)
def test_what_is_no_answer(payload: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        read_answer(memoryview(payload))
