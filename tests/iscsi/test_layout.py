"""Headers built and parsed by their layouts are what construct makes of their declarations, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
from construct import ConstructError, Container
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.pdu import BHS_BYTES, HEADERS, LAYOUTS, Opcode, build_header, parse_header

HEADER_BYTES = st.binary(min_size=BHS_BYTES, max_size=BHS_BYTES)


def declared(fields: Container[Any]) -> dict[str, Any]:
    """Without what construct keeps for itself."""
    return {name: value for name, value in fields.items() if not name.startswith("_")}


@given(opcode=st.sampled_from(Opcode), noise=HEADER_BYTES)
def test_any_header_has_the_fields_that_are_declared_and_is_built_of_them_again(opcode: Opcode, noise: bytes) -> None:
    header = bytes([noise[0] & 0xC0 | opcode]) + noise[1:]
    fields = declared(HEADERS[opcode].parse(header))
    parsed = declared(parse_header(header))
    assert parsed == fields
    assert {name: type(value) for name, value in parsed.items()} == {n: type(value) for n, value in fields.items()}
    assert LAYOUTS[opcode].build(fields) == HEADERS[opcode].build(fields)


@pytest.mark.parametrize("opcode", Opcode)
def test_every_field_alone(opcode: Opcode) -> None:
    """The others have their defaults; None is one, too."""
    names = [sub.name for sub in HEADERS[opcode].subcon.subcons if sub.name]
    ones = declared(HEADERS[opcode].parse(b"\xff" * BHS_BYTES))
    assert LAYOUTS[opcode].names == set(names) == set(ones)
    for name in names:
        if name != "opcode":
            for value in (ones[name], None):
                assert build_header(opcode, **{name: value}) == HEADERS[opcode].build({"opcode": opcode, name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"cdb": bytes(15)},
        {"cdb": bytes(17)},
        {"cdb": "x" * 16},
        {"lun": -1},
        {"lun": 1 << 64},
        {"lun": "1"},
        {"attribute": 8},
        {"total_ahs_length": 256},
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((ConstructError, TypeError)):
        build_header(Opcode.SCSI_COMMAND, **fields)
    with pytest.raises((ConstructError, TypeError)):
        HEADERS[Opcode.SCSI_COMMAND].build({"opcode": Opcode.SCSI_COMMAND, **fields})
