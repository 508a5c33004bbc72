"""The hot layouts against the declarations in `pdu.py`: field by field, both ways."""

from __future__ import annotations

from struct import Struct
from typing import Any

import pytest
from construct import Container
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.pdu import BHS_BYTES, HEADERS, NO_TAG, Opcode, build_header, parse_header
from arrayd.iscsi.wire import (
    ANSWER,
    COMMAND,
    DATA_IN,
    DATA_OUT,
    GOOD_RESPONSE_HEAD,
    READY_TO_TRANSFER,
    RESPONSE,
    SERIAL_MASK,
    good_data_in_head,
    serial_before,
)

words = st.integers(0, 0xFFFFFFFF)
RESERVED_FLAGS = {
    Opcode.SCSI_COMMAND: 0x18,
    Opcode.DATA_OUT: 0x7F,
    Opcode.DATA_IN: 0x38,
    Opcode.SCSI_RESPONSE: 0x61,
    Opcode.R2T: 0x7F,
}


def lengths(fields: Container[Any]) -> int:
    return int(fields.total_ahs_length) << 24 | int(fields.data_segment_length)


def command(f: Any) -> tuple[Any, ...]:
    cdb = f.cdb
    flags = f.final << 7 | f.read << 6 | f.write << 5 | f.attribute
    parts = (cdb[0], cdb[1], *(int.from_bytes(cdb[a:b], "big") for a, b in ((2, 10), (10, 14), (14, 16))))
    return (f.immediate << 6 | f.opcode, flags, lengths(f), f.lun, f.initiator_task_tag,
            f.expected_data_transfer_length, f.cmd_sn, f.exp_stat_sn, *parts)  # fmt: skip


def data_out(f: Any) -> tuple[Any, ...]:
    return (f.immediate << 6 | f.opcode, f.final << 7, lengths(f), f.lun, f.initiator_task_tag, f.target_transfer_tag,
            f.exp_stat_sn, f.data_sn, f.buffer_offset)  # fmt: skip


def data_in(f: Any) -> tuple[Any, ...]:
    flags = f.final << 7 | f.acknowledge << 6 | f.overflow << 2 | f.underflow << 1 | f.has_status
    return (f.immediate << 6 | f.opcode, flags, f.status, lengths(f), f.lun, f.initiator_task_tag,
            f.target_transfer_tag, f.stat_sn, f.exp_cmd_sn, f.max_cmd_sn, f.data_sn, f.buffer_offset,
            f.residual_count)  # fmt: skip


def response(f: Any) -> tuple[Any, ...]:
    flags = (f.final << 7 | f.bidirectional_overflow << 4 | f.bidirectional_underflow << 3 | f.overflow << 2
             | f.underflow << 1)  # fmt: skip
    return (f.immediate << 6 | f.opcode, flags, f.response, f.status, lengths(f), f.initiator_task_tag, f.snack_tag,
            f.stat_sn, f.exp_cmd_sn, f.max_cmd_sn, f.exp_data_sn, f.bidirectional_residual_count,
            f.residual_count)  # fmt: skip


def ready_to_transfer(f: Any) -> tuple[Any, ...]:
    return (f.immediate << 6 | f.opcode, f.final << 7, lengths(f), f.lun, f.initiator_task_tag, f.target_transfer_tag,
            f.stat_sn, f.exp_cmd_sn, f.max_cmd_sn, f.r2t_sn, f.buffer_offset,
            f.desired_data_transfer_length)  # fmt: skip


LAYOUTS = [
    (Opcode.SCSI_COMMAND, COMMAND, command),
    (Opcode.DATA_OUT, DATA_OUT, data_out),
    (Opcode.DATA_IN, DATA_IN, data_in),
    (Opcode.SCSI_RESPONSE, RESPONSE, response),
    (Opcode.R2T, READY_TO_TRANSFER, ready_to_transfer),
]


@pytest.mark.parametrize(("opcode", "layout", "values"), LAYOUTS, ids=lambda value: getattr(value, "name", ""))
class TestBothCodecs:
    def test_are_as_long(self, opcode: Opcode, layout: Struct, values: Any) -> None:
        assert layout.size == BHS_BYTES

    @given(data=st.data())
    def test_take_the_same_out_of_any_header(
        self, opcode: Opcode, layout: Struct, values: Any, data: st.DataObject
    ) -> None:
        first = data.draw(st.sampled_from([opcode, opcode | 0x40]))
        header = bytearray(bytes([first]) + data.draw(st.binary(min_size=47, max_size=47)))
        header[1] &= ~RESERVED_FLAGS[opcode]
        assert layout.unpack(bytes(header)) == values(parse_header(bytes(header)))

    @given(data=st.data())
    def test_put_the_same_together(self, opcode: Opcode, layout: Struct, values: Any, data: st.DataObject) -> None:
        header = bytes([opcode]) + data.draw(st.binary(min_size=47, max_size=47))
        fields = parse_header(header)
        built = HEADERS[opcode].build(fields)
        assert layout.pack(*values(fields)) == built


@given(tag=words, stat_sn=words, exp_cmd_sn=words, max_cmd_sn=words, length=st.integers(1, 0xFFFFFF))
def test_an_answer_in_one_call_is_the_pdu_that_it_stands_for(
    tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int, length: int
) -> None:
    numbers = {"stat_sn": stat_sn, "exp_cmd_sn": exp_cmd_sn, "max_cmd_sn": max_cmd_sn}
    assert ANSWER.pack(good_data_in_head(length), tag, NO_TAG, *numbers.values()) == build_header(
        Opcode.DATA_IN, final=True, has_status=True, data_segment_length=length, initiator_task_tag=tag, **numbers
    )
    assert ANSWER.pack(GOOD_RESPONSE_HEAD, tag, 0, *numbers.values()) == build_header(
        Opcode.SCSI_RESPONSE, initiator_task_tag=tag, **numbers
    )


@given(words, st.integers(1, 0x7FFFFFFF))
def test_serial_numbers_wrap(start: int, ahead: int) -> None:
    later = (start + ahead) & SERIAL_MASK
    assert serial_before(start, later)
    assert not serial_before(later, start)
    assert not serial_before(start, start)
