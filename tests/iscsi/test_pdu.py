"""PDUs against bytes written down from the figures of RFC 7143, section 11."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.pdu import (
    AHS_SEQUENCE,
    BHS_BYTES,
    HEADERS,
    NO_TAG,
    SENSE_SEGMENT,
    AhsType,
    AsyncEvent,
    LoginStatus,
    LogoutReason,
    Opcode,
    ProtocolError,
    RejectReason,
    SnackType,
    Stage,
    build,
    build_header,
    pad,
    parse_ahs,
    parse_header,
)

SN = {"stat_sn": 0x11121314, "exp_cmd_sn": 0x21222324, "max_cmd_sn": 0x31323334}
SN_BYTES = "11121314 21222324 31323334"
COMMANDED = {"cmd_sn": 0x41424344, "exp_stat_sn": 0x51525354}
COMMANDED_BYTES = "41424344 51525354"
LUN = 0x0001020304050607
LUN_BYTES = "00010203 04050607"
ITT = 0xA1A2A3A4
ITT_BYTES = "a1a2a3a4"
TTT = 0xB1B2B3B4
TTT_BYTES = "b1b2b3b4"
NONE = "00000000"
NO_TAG_BYTES = "ffffffff"
ISID = bytes.fromhex("80c1c2c3c4c5")

GOLDEN: list[tuple[Opcode, dict[str, Any], str]] = [
    (
        Opcode.NOP_OUT,
        {"immediate": True, "lun": LUN, "initiator_task_tag": ITT, "target_transfer_tag": TTT, **COMMANDED},
        f"40800000 00000000 {LUN_BYTES} {ITT_BYTES} {TTT_BYTES} {COMMANDED_BYTES} {NONE * 4}",
    ),
    (
        Opcode.SCSI_COMMAND,
        {
            "final": True,
            "read": True,
            "write": True,
            "attribute": 3,
            "total_ahs_length": 5,
            "data_segment_length": 0x010203,
            "lun": LUN,
            "initiator_task_tag": ITT,
            "expected_data_transfer_length": 0x61626364,
            "cdb": bytes(range(16)),
            **COMMANDED,
        },
        f"01e30000 05010203 {LUN_BYTES} {ITT_BYTES} 61626364 {COMMANDED_BYTES} 00010203 04050607 08090a0b 0c0d0e0f",
    ),
    (
        Opcode.TASK_MANAGEMENT_REQUEST,
        {
            "immediate": True,
            "function": 1,
            "lun": LUN,
            "initiator_task_tag": ITT,
            "referenced_task_tag": 0x71727374,
            "ref_cmd_sn": 0x81828384,
            "exp_data_sn": 0x91929394,
            **COMMANDED,
        },
        f"42810000 00000000 {LUN_BYTES} {ITT_BYTES} 71727374 {COMMANDED_BYTES} 81828384 91929394 {NONE * 2}",
    ),
    (
        Opcode.LOGIN_REQUEST,
        {
            "immediate": True,
            "transit": True,
            "csg": Stage.LOGIN_OPERATIONAL_NEGOTIATION,
            "nsg": Stage.FULL_FEATURE_PHASE,
            "version_max": 2,
            "version_min": 1,
            "isid": ISID,
            "tsih": 0x0D0E,
            "initiator_task_tag": ITT,
            "cid": 0x0708,
            **COMMANDED,
        },
        f"43870201 00000000 80c1c2c3 c4c50d0e {ITT_BYTES} 07080000 {COMMANDED_BYTES} {NONE * 4}",
    ),
    (
        Opcode.TEXT_REQUEST,
        {"continue_": True, "initiator_task_tag": ITT, **COMMANDED},
        f"04400000 00000000 {NONE * 2} {ITT_BYTES} {NO_TAG_BYTES} {COMMANDED_BYTES} {NONE * 4}",
    ),
    (
        Opcode.DATA_OUT,
        {
            "final": True,
            "lun": LUN,
            "initiator_task_tag": ITT,
            "target_transfer_tag": TTT,
            "exp_stat_sn": 0x51525354,
            "data_sn": 0xD1D2D3D4,
            "buffer_offset": 0xE1E2E3E4,
        },
        f"05800000 00000000 {LUN_BYTES} {ITT_BYTES} {TTT_BYTES} {NONE} 51525354 {NONE} d1d2d3d4 e1e2e3e4 {NONE}",
    ),
    (
        Opcode.LOGOUT_REQUEST,
        {"immediate": True, "reason": LogoutReason.CLOSE_CONNECTION, "initiator_task_tag": ITT, "cid": 7, **COMMANDED},
        f"46810000 00000000 {NONE * 2} {ITT_BYTES} 00070000 {COMMANDED_BYTES} {NONE * 4}",
    ),
    (
        Opcode.SNACK_REQUEST,
        {
            "type": SnackType.R_DATA,
            "lun": LUN,
            "initiator_task_tag": ITT,
            "target_transfer_tag": TTT,
            "exp_stat_sn": 0x51525354,
            "beg_run": 0xE1E2E3E4,
            "run_length": 0xF1F2F3F4,
        },
        f"10830000 00000000 {LUN_BYTES} {ITT_BYTES} {TTT_BYTES} {NONE} 51525354 {NONE * 2} e1e2e3e4 f1f2f3f4",
    ),
    (
        Opcode.NOP_IN,
        {"initiator_task_tag": NO_TAG, "target_transfer_tag": TTT, "lun": LUN, **SN},
        f"20800000 00000000 {LUN_BYTES} {NO_TAG_BYTES} {TTT_BYTES} {SN_BYTES} {NONE * 3}",
    ),
    (
        Opcode.SCSI_RESPONSE,
        {
            "bidirectional_overflow": True,
            "underflow": True,
            "response": 1,
            "status": 2,
            "data_segment_length": 20,
            "initiator_task_tag": ITT,
            "snack_tag": TTT,
            "exp_data_sn": 0xD1D2D3D4,
            "bidirectional_residual_count": 0xE1E2E3E4,
            "residual_count": 0xF1F2F3F4,
            **SN,
        },
        f"21920102 00000014 {NONE * 2} {ITT_BYTES} {TTT_BYTES} {SN_BYTES} d1d2d3d4 e1e2e3e4 f1f2f3f4",
    ),
    (
        Opcode.SCSI_RESPONSE,
        {"bidirectional_underflow": True, "overflow": True, "initiator_task_tag": ITT, **SN},
        f"218c0000 00000000 {NONE * 2} {ITT_BYTES} {NONE} {SN_BYTES} {NONE * 3}",
    ),
    (
        Opcode.TASK_MANAGEMENT_RESPONSE,
        {"response": 5, "initiator_task_tag": ITT, **SN},
        f"22800500 00000000 {NONE * 2} {ITT_BYTES} {NONE} {SN_BYTES} {NONE * 3}",
    ),
    (
        Opcode.LOGIN_RESPONSE,
        {
            "continue_": True,
            "csg": Stage.LOGIN_OPERATIONAL_NEGOTIATION,
            "version_max": 2,
            "version_active": 1,
            "isid": ISID,
            "tsih": 0x0D0E,
            "initiator_task_tag": ITT,
            "status": LoginStatus.INVALID_DURING_LOGIN,
            **SN,
        },
        f"23440201 00000000 80c1c2c3 c4c50d0e {ITT_BYTES} {NONE} {SN_BYTES} 020b0000 {NONE * 2}",
    ),
    (
        Opcode.TEXT_RESPONSE,
        {"final": True, "lun": LUN, "initiator_task_tag": ITT, **SN},
        f"24800000 00000000 {LUN_BYTES} {ITT_BYTES} {NO_TAG_BYTES} {SN_BYTES} {NONE * 3}",
    ),
    (
        Opcode.DATA_IN,
        {
            "final": True,
            "underflow": True,
            "has_status": True,
            "status": 8,
            "data_segment_length": 512,
            "initiator_task_tag": ITT,
            "data_sn": 0xD1D2D3D4,
            "buffer_offset": 0xE1E2E3E4,
            "residual_count": 0xF1F2F3F4,
            **SN,
        },
        f"25830008 00000200 {NONE * 2} {ITT_BYTES} {NO_TAG_BYTES} {SN_BYTES} d1d2d3d4 e1e2e3e4 f1f2f3f4",
    ),
    (
        Opcode.DATA_IN,
        {"acknowledge": True, "overflow": True, "lun": LUN, "initiator_task_tag": ITT, "target_transfer_tag": TTT},
        f"25440000 00000000 {LUN_BYTES} {ITT_BYTES} {TTT_BYTES} {NONE * 6}",
    ),
    (
        Opcode.LOGOUT_RESPONSE,
        {"response": 1, "initiator_task_tag": ITT, "time2wait": 0x0102, "time2retain": 0x0304, **SN},
        f"26800100 00000000 {NONE * 2} {ITT_BYTES} {NONE} {SN_BYTES} {NONE} 01020304 {NONE}",
    ),
    (
        Opcode.R2T,
        {
            "lun": LUN,
            "initiator_task_tag": ITT,
            "target_transfer_tag": TTT,
            "r2t_sn": 0xD1D2D3D4,
            "buffer_offset": 0xE1E2E3E4,
            "desired_data_transfer_length": 0xF1F2F3F4,
            **SN,
        },
        f"31800000 00000000 {LUN_BYTES} {ITT_BYTES} {TTT_BYTES} {SN_BYTES} d1d2d3d4 e1e2e3e4 f1f2f3f4",
    ),
    (
        Opcode.ASYNC_MESSAGE,
        {
            "async_event": AsyncEvent.LOGOUT_REQUESTED,
            "async_vcode": 0x22,
            "parameter1": 0x0102,
            "parameter2": 0x0304,
            "parameter3": 0x0506,
            **SN,
        },
        f"32800000 00000000 {NONE * 2} {NO_TAG_BYTES} {NONE} {SN_BYTES} 01220102 03040506 {NONE}",
    ),
    (
        Opcode.REJECT,
        {"reason": RejectReason.INVALID_PDU_FIELD, "data_segment_length": 48, "data_sn": 0xD1D2D3D4, **SN},
        f"3f800900 00000030 {NONE * 2} {NO_TAG_BYTES} {NONE} {SN_BYTES} d1d2d3d4 {NONE * 2}",
    ),
]


@pytest.mark.parametrize(("opcode", "fields", "octets"), GOLDEN, ids=lambda value: getattr(value, "name", None))
def test_header_is_as_in_its_figure(opcode: Opcode, fields: dict[str, Any], octets: str) -> None:
    header = bytes.fromhex(octets)
    assert len(header) == BHS_BYTES
    assert build_header(opcode, **fields) == header
    parsed = parse_header(header)
    assert {name: parsed[name] for name in fields} == fields
    assert parsed.opcode == opcode


def test_every_opcode_has_a_golden_header() -> None:
    assert {opcode for opcode, _, _ in GOLDEN} == set(Opcode) == set(HEADERS)


@given(st.sampled_from(list(Opcode)), st.binary(min_size=BHS_BYTES, max_size=BHS_BYTES))
def test_what_is_parsed_is_built_again(opcode: Opcode, noise: bytes) -> None:
    parsed = parse_header(bytes([noise[0] & 0x40 | opcode]) + noise[1:])
    fields = {name: value for name, value in parsed.items() if not name.startswith("_") and name != "opcode"}
    again = build_header(opcode, **fields)
    assert parse_header(again) == parsed


def refusal(parse: Callable[[bytes], object], octets: bytes) -> RejectReason | None:
    """The reason for which `parse` refuses these bytes; None if it takes them."""
    try:
        parse(octets)
    except ProtocolError as error:
        return error.reason
    return None


@given(st.binary(max_size=60))
def test_a_header_is_parsed_or_refused_with_a_reason(noise: bytes) -> None:
    if len(noise) != BHS_BYTES:
        expected: RejectReason | None = RejectReason.INVALID_PDU_FIELD
    else:
        expected = None if noise[0] & 0x3F in set(Opcode) else RejectReason.COMMAND_NOT_SUPPORTED
    assert refusal(parse_header, noise) is expected


def test_an_unknown_field_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="no field cdb"):
        build_header(Opcode.NOP_IN, cdb=bytes(16))


def test_a_whole_pdu_has_its_lengths_and_padding() -> None:
    pdu = build(Opcode.TEXT_RESPONSE, b"A=1\0B", ahs=bytes(8), final=True)
    assert pdu[4:8] == bytes.fromhex("02000005")
    assert pdu[BHS_BYTES:] == bytes(8) + b"A=1\0B\0\0\0"
    assert pad(b"") == b""
    assert pad(b"1234") == b"1234"


def test_additional_header_segments() -> None:
    # 11.2.2.3: a 20-byte CDB leaves 4 bytes; AHSLength counts them and the reserved byte. 11.2.2.4: always 5.
    segments = bytes.fromhex("0005 01 00 a1a2a3a4 0005 02 00 00100000")
    extended, bidirectional = parse_ahs(segments)
    assert (extended.type, extended.content.cdb_rest) == (AhsType.EXTENDED_CDB, bytes.fromhex("a1a2a3a4"))
    assert (bidirectional.type, bidirectional.content.read_length) == (
        AhsType.EXPECTED_BIDIRECTIONAL_READ_DATA_LENGTH,
        0x100000,
    )
    built = AHS_SEQUENCE.build(
        {
            "segments": [
                {"length": 5, "type": 1, "content": {"cdb_rest": bytes.fromhex("a1a2a3a4")}},
                {"length": 5, "type": 2, "content": {"read_length": 0x100000}},
            ]
        }
    )
    assert built == segments


def test_additional_header_segment_with_padding() -> None:
    (extended,) = parse_ahs(bytes.fromhex("0002 01 00 a1 000000"))
    assert extended.content.cdb_rest == b"\xa1"
    assert parse_ahs(b"") == []


@pytest.mark.parametrize("octets", ["00", "00050100a1a2a3", "0005020000100000ff", "ffff0100"])
def test_additional_header_segments_that_do_not_fit(octets: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_ahs(bytes.fromhex(octets))
    assert caught.value.reason is RejectReason.INVALID_PDU_FIELD


@given(st.binary(max_size=64))
def test_additional_header_segments_are_parsed_or_refused_with_a_reason(noise: bytes) -> None:
    assert refusal(parse_ahs, noise) in (None, RejectReason.INVALID_PDU_FIELD)


def test_sense_segment() -> None:
    parsed = SENSE_SEGMENT.parse(bytes.fromhex("0003 700005 aabb"))
    assert (parsed.sense, parsed.rest) == (bytes.fromhex("700005"), bytes.fromhex("aabb"))
