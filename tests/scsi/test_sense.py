"""Sense data in both formats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field, invalid_parameter


def test_fixed_golden() -> None:
    error = CheckCondition(Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY, information=0x1234)
    assert error.fixed().hex() == "f0000e000012340a000000001d0000000000"


def test_descriptor_golden() -> None:
    error = CheckCondition(Key.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY, information=0x1234)
    assert error.descriptor().hex() == "720e1d000000000c" + "000a80000000000000001234"


def test_field_pointers() -> None:
    assert invalid_field((1, 4)).sense_key_specific() == bytes((0xCC, 0, 1))
    assert invalid_field(7).sense_key_specific() == bytes((0xC0, 0, 7))
    assert invalid_parameter((300, 0)).sense_key_specific() == bytes((0x88, 1, 44))
    assert invalid_field(7).descriptor().hex() == "7205240000000008" + "02060000c0000700"
    assert illegal_request(Asc.LOGICAL_UNIT_NOT_SUPPORTED).sense_key_specific() == bytes(3)


def test_progress() -> None:
    error = CheckCondition(Key.NOT_READY, Asc.SANITIZE_IN_PROGRESS, progress=0x8000)
    assert error.fixed()[15:18] == bytes((0x80, 0x80, 0x00))
    assert error.descriptor()[8:16] == bytes((2, 6, 0, 0, 0x80, 0x80, 0x00, 0))


def test_information_that_does_not_fit_the_fixed_format() -> None:
    error = CheckCondition(Key.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE, information=1 << 32)
    assert error.fixed()[0] == 0x70
    assert error.fixed()[3:7] == bytes(4)
    assert error.descriptor()[12:20] == (1 << 32).to_bytes(8, "big")


@given(
    key=st.sampled_from(Key),
    asc=st.sampled_from(Asc),
    information=st.none() | st.integers(0, (1 << 64) - 1),
    field=st.none() | st.integers(0, 0xFFFF) | st.tuples(st.integers(0, 0xFFFF), st.integers(0, 7)),
)
def test_both_formats_say_the_same(
    key: Key, asc: Asc, information: int | None, field: int | tuple[int, int] | None
) -> None:
    error = CheckCondition(key, asc, information=information, field=field)
    fixed, descriptor = error.fixed(), error.descriptor()
    assert len(fixed) == 18 == fixed[7] + 8
    assert len(descriptor) == descriptor[7] + 8
    assert fixed[2] == descriptor[1] == key
    assert fixed[12:14] == descriptor[2:4] == asc.value.to_bytes(2, "big")
    assert bool(fixed[0] & 0x80) == (information is not None and information < 1 << 32)


@pytest.mark.parametrize("asc", Asc)
def test_codes_are_two_bytes(asc: Asc) -> None:
    assert 0 <= asc.value <= 0xFFFF
