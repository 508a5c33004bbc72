"""The fast layouts and the declared formats of CDBs read the same fields."""

import pytest
from construct import Construct
from hypothesis import given
from hypothesis import strategies as st

from arrayd.scsi.cdb import (
    READ_WRITE_6,
    READ_WRITE_10,
    READ_WRITE_12,
    READ_WRITE_16,
    be16,
    be24,
    be32,
    be64,
    block_range,
)

FORMATS: list[tuple[int, Construct]] = [(0x28, READ_WRITE_10), (0xA8, READ_WRITE_12), (0x88, READ_WRITE_16)]


@pytest.mark.parametrize(("opcode", "layout"), FORMATS)
@given(data=st.data())
def test_block_range_is_what_the_format_says(opcode: int, layout: Construct, data: st.DataObject) -> None:
    cdb = bytes((opcode,)) + data.draw(st.binary(min_size=layout.sizeof() - 1, max_size=layout.sizeof() - 1))
    fields = layout.parse(cdb)
    assert block_range(cdb) == (fields.logical_block_address, fields.transfer_length)
    assert layout.build(fields) == cdb


@given(tail=st.binary(min_size=5, max_size=5))
def test_six_byte_block_range(tail: bytes) -> None:
    fields = READ_WRITE_6.parse(b"\x08" + tail)
    lba = (fields.logical_block_address_high & 0x1F) << 16 | fields.logical_block_address
    assert block_range(b"\x08" + tail) == (lba, fields.transfer_length or 256)


def test_big_endian_fields() -> None:
    data = bytes(range(16))
    assert (be16(data, 1), be24(data, 1), be32(data, 1)) == (0x0102, 0x010203, 0x01020304)
    assert be64(data, 1) == 0x0102030405060708
