"""The precompiled layouts of the hot path and the declared ones agree on every field (RFC 7143, section 11)."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi import wire
from arrayd.iscsi.pdu import BHS_BYTES, Opcode, build_header, parse_header

BYTE, WORD, LUN = st.integers(0, 0xFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 2**64 - 1)
LENGTHS = {"total_ahs_length": BYTE, "data_segment_length": st.integers(0, 0xFFFFFF)}
TARGET_NUMBERS = {"stat_sn": WORD, "exp_cmd_sn": WORD, "max_cmd_sn": WORD}


def fields(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(strategies)


def lengths_of(header: Any) -> int:
    """TotalAHSLength and DataSegmentLength as the one word they share."""
    return int(header["total_ahs_length"] << 24 | header["data_segment_length"])


def values(header: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(header[name] for name in names)


@given(
    fields(
        immediate=st.booleans(),
        final=st.booleans(),
        read=st.booleans(),
        write=st.booleans(),
        attribute=st.integers(0, 7),
        lun=LUN,
        initiator_task_tag=WORD,
        expected_data_transfer_length=WORD,
        cmd_sn=WORD,
        exp_stat_sn=WORD,
        cdb=st.binary(min_size=16, max_size=16),
        **LENGTHS,
    )
)
def test_scsi_command(header: dict[str, Any]) -> None:
    opcode, flags, lengths, lun, tag, expected, cmd_sn, exp_stat_sn, *cdb = wire.COMMAND.unpack(
        build_header(Opcode.SCSI_COMMAND, **header)
    )
    assert opcode == header["immediate"] << 6 | Opcode.SCSI_COMMAND
    assert flags == header["final"] << 7 | header["read"] << 6 | header["write"] << 5 | header["attribute"]
    assert lengths == lengths_of(header)
    assert (lun, tag, expected, cmd_sn, exp_stat_sn) == values(
        header, "lun", "initiator_task_tag", "expected_data_transfer_length", "cmd_sn", "exp_stat_sn"
    )
    pieces = [piece.to_bytes(size, "big") for piece, size in zip(cdb, (1, 1, 8, 4, 2), strict=True)]
    assert b"".join(pieces) == header["cdb"]


@given(
    fields(
        final=st.booleans(),
        lun=LUN,
        initiator_task_tag=WORD,
        target_transfer_tag=WORD,
        exp_stat_sn=WORD,
        data_sn=WORD,
        buffer_offset=WORD,
        **LENGTHS,
    )
)
def test_data_out(header: dict[str, Any]) -> None:
    opcode, flags, lengths, *rest = wire.DATA_OUT.unpack(build_header(Opcode.DATA_OUT, **header))
    assert (opcode, flags, lengths) == (Opcode.DATA_OUT, header["final"] * wire.FINAL, lengths_of(header))
    assert tuple(rest) == values(
        header, "lun", "initiator_task_tag", "target_transfer_tag", "exp_stat_sn", "data_sn", "buffer_offset"
    )


@given(
    fields(
        final=st.booleans(),
        overflow=st.booleans(),
        underflow=st.booleans(),
        has_status=st.booleans(),
        status=BYTE,
        lun=LUN,
        initiator_task_tag=WORD,
        target_transfer_tag=WORD,
        data_sn=WORD,
        buffer_offset=WORD,
        residual_count=WORD,
        **LENGTHS,
        **TARGET_NUMBERS,
    )
)
def test_data_in(header: dict[str, Any]) -> None:
    flags = (
        header["final"] * wire.FINAL
        | header["overflow"] * wire.DATA_IN_OVERFLOW
        | header["underflow"] * wire.DATA_IN_UNDERFLOW
        | header["has_status"] * wire.DATA_IN_STATUS
    )
    rest = values(header, "lun", "initiator_task_tag", "target_transfer_tag", *TARGET_NUMBERS, "data_sn")
    packed = wire.DATA_IN.pack(
        Opcode.DATA_IN,
        flags,
        header["status"],
        lengths_of(header),
        *rest,
        *values(header, "buffer_offset", "residual_count"),
    )
    assert packed == build_header(Opcode.DATA_IN, **header)


@given(
    fields(
        overflow=st.booleans(),
        underflow=st.booleans(),
        response=BYTE,
        status=BYTE,
        initiator_task_tag=WORD,
        snack_tag=WORD,
        exp_data_sn=WORD,
        bidirectional_residual_count=WORD,
        residual_count=WORD,
        **LENGTHS,
        **TARGET_NUMBERS,
    )
)
def test_scsi_response(header: dict[str, Any]) -> None:
    flags = wire.FINAL | header["overflow"] * wire.RESPONSE_OVERFLOW | header["underflow"] * wire.RESPONSE_UNDERFLOW
    rest = values(header, "initiator_task_tag", "snack_tag", *TARGET_NUMBERS, "exp_data_sn")
    packed = wire.RESPONSE.pack(
        Opcode.SCSI_RESPONSE,
        flags,
        header["response"],
        header["status"],
        lengths_of(header),
        *rest,
        *values(header, "bidirectional_residual_count", "residual_count"),
    )
    assert packed == build_header(Opcode.SCSI_RESPONSE, **header)


@given(
    fields(
        lun=LUN,
        initiator_task_tag=WORD,
        target_transfer_tag=WORD,
        r2t_sn=WORD,
        buffer_offset=WORD,
        desired_data_transfer_length=WORD,
        **TARGET_NUMBERS,
    )
)
def test_ready_to_transfer(header: dict[str, Any]) -> None:
    rest = values(header, "lun", "initiator_task_tag", "target_transfer_tag", *TARGET_NUMBERS)
    last = values(header, "r2t_sn", "buffer_offset", "desired_data_transfer_length")
    packed = wire.READY_TO_TRANSFER.pack(Opcode.R2T, wire.FINAL, 0, *rest, *last)
    assert packed == build_header(Opcode.R2T, **header)


@given(WORD, WORD, WORD, WORD, st.integers(0, 0xFFFFFF))
def test_good_answers_in_one_call(tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int, length: int) -> None:
    numbers = (stat_sn, exp_cmd_sn, max_cmd_sn)
    response = parse_header(wire.ANSWER.pack(wire.GOOD_RESPONSE_HEAD, tag, 0, *numbers))
    assert response.opcode == Opcode.SCSI_RESPONSE
    assert values(response, "final", "status", "overflow", "underflow") == (True, 0, False, False)
    assert values(response, "initiator_task_tag", *TARGET_NUMBERS) == (tag, *numbers)
    data_in = parse_header(wire.ANSWER.pack(wire.good_data_in_head(length), tag, 0xFFFFFFFF, *numbers))
    assert data_in.opcode == Opcode.DATA_IN
    assert values(data_in, "final", "has_status", "status", "data_segment_length") == (True, True, 0, length)
    assert values(data_in, "initiator_task_tag", *TARGET_NUMBERS) == (tag, *numbers)
    assert values(data_in, "data_sn", "buffer_offset", "residual_count", "lun") == (0, 0, 0, 0)


def test_every_layout_is_a_whole_header() -> None:
    layouts = [wire.COMMAND, wire.DATA_OUT, wire.DATA_IN, wire.RESPONSE, wire.READY_TO_TRANSFER, wire.ANSWER]
    assert {layout.size for layout in layouts} == {BHS_BYTES}


@given(WORD, st.integers(1, 2**31 - 1))
def test_serial_numbers_wrap(number: int, ahead: int) -> None:
    later = (number + ahead) & wire.SERIAL_MASK
    assert wire.serial_before(number, later)
    assert not wire.serial_before(later, number)
    assert not wire.serial_before(number, number)
