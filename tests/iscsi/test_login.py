"""The login phase: stages, status codes, limits (RFC 7143, 6.3, 11.12 and 11.13)."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.chap import Credentials, format_binary, response
from arrayd.iscsi.keys import KEYS, LOGIN_SEGMENT_BYTES, MAX_RECV_SEGMENT_BYTES, parse_binary, parse_pairs
from arrayd.iscsi.login import REQUESTS_MAX, Access, Login
from arrayd.iscsi.pdu import BHS_BYTES, LoginStatus, Opcode, Stage, parse_header
from arrayd.iscsi.text import TEXT_BYTES_MAX
from tests.iscsi.login_driver import (
    DISCOVERY,
    FULL,
    HOST,
    NORMAL,
    OPERATIONAL,
    SECURITY,
    TARGET,
    Initiator,
    Policy,
    steady_bytes,
)

CHAP = Credentials("host1", b"the host's secret")
MUTUAL = Credentials("primary", b"the target's secret")


def guarded(mutual: Credentials | None = None) -> Policy:
    """A target that asks HOST for CHAP and knows nobody else."""
    return Policy(access={HOST: Access(CHAP, mutual)})


def proof(challenged: dict[str, str], secret: bytes = CHAP.secret) -> bytes:
    algorithm, identifier = int(challenged["CHAP_A"]), int(challenged["CHAP_I"])
    value = response(algorithm, identifier, secret, parse_binary(challenged["CHAP_C"]))
    return f"CHAP_N=host1\0CHAP_R={format_binary(value)}\0".encode()


# -- the ways in ------------------------------------------------------------------------------------------------------


def test_straight_to_full_feature_phase() -> None:
    host = Initiator(Policy(target_alias="an array", portal_group_tag=5))
    answer = host.send(NORMAL, to=FULL)
    assert (answer.status, answer.header.transit, answer.header.nsg) == (LoginStatus.SUCCESS, True, FULL)
    assert answer.header.tsih == 9
    assert answer.pairs == {
        "TargetAlias": "an array",
        "TargetPortalGroupTag": "5",
        "MaxRecvDataSegmentLength": str(MAX_RECV_SEGMENT_BYTES),
    }
    assert host.policy.admitted == [(HOST, bytes.fromhex("00023d000001"), 0, False)]


def test_what_holds_when_nothing_was_said() -> None:
    host = Initiator()
    host.send(NORMAL, to=FULL)
    agreed = host.login.parameters
    assert agreed is not None
    assert (agreed.initiator_name, agreed.initiator_alias, agreed.target_name) == (HOST, "", TARGET)
    assert (agreed.isid, agreed.tsih, agreed.cid, agreed.discovery) == (bytes.fromhex("00023d000001"), 9, 3, False)
    assert (agreed.header_digest, agreed.data_digest) == (False, False)
    assert (agreed.max_send_segment, agreed.max_recv_segment) == (8192, MAX_RECV_SEGMENT_BYTES)
    assert (agreed.max_burst, agreed.first_burst) == (262144, 65536)
    assert (agreed.initial_r2t, agreed.immediate_data, agreed.max_outstanding_r2t) == (True, True, 1)
    assert (agreed.time2wait, agreed.time2retain) == (2, 20)


def test_numbers_of_the_connection() -> None:
    host = Initiator()
    for expected in range(3):
        header = host.send(NORMAL if expected == 0 else b"").header
        assert (header.stat_sn, header.exp_cmd_sn, header.max_cmd_sn) == (expected, 1000, 1063)
    assert host.send(to=FULL).header.stat_sn == 3
    assert (host.login.stat_sn, host.login.exp_cmd_sn) == (4, 1000)


def test_command_numbers_wrap() -> None:
    host = Initiator()
    host.fields["cmd_sn"] = 0xFFFFFFF0
    assert host.send(NORMAL, to=FULL).header.max_cmd_sn == 0x2F


def test_through_every_stage_without_a_proof() -> None:
    host = Initiator()
    answer = host.send(NORMAL + b"AuthMethod=None\0", SECURITY, OPERATIONAL)
    assert answer.pairs == {"TargetPortalGroupTag": "1", "AuthMethod": "None"}
    assert (answer.header.transit, answer.header.csg, answer.header.nsg) == (True, SECURITY, OPERATIONAL)
    assert answer.header.tsih == 0
    answer = host.send(b"HeaderDigest=CRC32C,None\0DataDigest=CRC32C\0")
    assert not answer.header.transit
    assert not host.login.complete
    assert answer.pairs["HeaderDigest"] == "CRC32C"
    answer = host.send(to=FULL)
    assert answer.pairs == {}
    assert host.login.parameters is not None
    assert host.login.parameters.header_digest
    assert host.login.parameters.data_digest


def test_from_security_to_full_feature_phase() -> None:
    host = Initiator()
    host.send(NORMAL + b"AuthMethod=CHAP,None\0", SECURITY, FULL)
    assert host.login.parameters is not None
    assert host.login.parameters.max_recv_segment == LOGIN_SEGMENT_BYTES


def test_discovery_needs_no_target_name() -> None:
    host = Initiator(Policy(target_alias="an array"))
    answer = host.send(DISCOVERY + b"MaxRecvDataSegmentLength=32768\0", to=FULL)
    assert answer.pairs == {"MaxRecvDataSegmentLength": str(MAX_RECV_SEGMENT_BYTES)}
    assert host.login.parameters is not None
    assert (host.login.parameters.discovery, host.login.parameters.target_name) == (True, "")
    assert host.login.parameters.max_send_segment == 32768


def test_first_burst_never_exceeds_a_burst_agreed_on_later() -> None:
    host = Initiator()
    host.send(NORMAL + b"FirstBurstLength=131072\0")
    host.send(b"MaxBurstLength=65536\0", to=FULL)
    assert host.login.parameters is not None
    assert host.login.parameters.first_burst == 65536


# -- CHAP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [NORMAL, DISCOVERY])
def test_chap(text: bytes) -> None:
    host = Initiator(guarded())
    answer = host.send(text + b"AuthMethod=CHAP,None\0", SECURITY, OPERATIONAL)
    assert (answer.pairs["AuthMethod"], answer.header.transit) == ("CHAP", False)
    challenged = host.send(b"CHAP_A=7,5\0", SECURITY, OPERATIONAL)
    assert (challenged.pairs["CHAP_A"], challenged.header.transit) == ("7", False)
    answer = host.send(proof(challenged.pairs), SECURITY, OPERATIONAL)
    assert (answer.text, answer.header.transit) == (b"", True)
    assert host.send(to=FULL).header.transit
    assert host.login.complete


def test_mutual_chap() -> None:
    host = Initiator(guarded(MUTUAL))
    host.send(NORMAL + b"AuthMethod=CHAP\0", SECURITY)
    challenged = host.send(b"CHAP_A=5\0", SECURITY)
    answer = host.send(proof(challenged.pairs) + b"CHAP_I=77\0CHAP_C=0x" + b"ab" * 16 + b"\0", SECURITY, FULL)
    expected = response(5, 77, MUTUAL.secret, b"\xab" * 16)
    assert answer.pairs == {"CHAP_N": "primary", "CHAP_R": format_binary(expected)}
    assert host.login.complete


def test_wrong_secret() -> None:
    host = Initiator(guarded())
    host.send(NORMAL + b"AuthMethod=CHAP\0", SECURITY)
    challenged = host.send(b"CHAP_A=5\0", SECURITY)
    assert host.refused(proof(challenged.pairs, b"a guess"), SECURITY, FULL) is LoginStatus.AUTHENTICATION_FAILURE
    assert host.policy.admitted == []


@pytest.mark.parametrize(
    ("text", "stage", "to"),
    [
        (NORMAL, OPERATIONAL, FULL),
        (NORMAL, OPERATIONAL, None),
        (NORMAL, SECURITY, OPERATIONAL),
        (NORMAL, SECURITY, FULL),
        (NORMAL + b"AuthMethod=None\0", SECURITY, OPERATIONAL),
        (NORMAL + b"AuthMethod=KRB5,SRP\0", SECURITY, None),
    ],
)
def test_nobody_goes_around_chap(text: bytes, stage: Stage, to: Stage | None) -> None:
    assert Initiator(guarded()).refused(text, stage, to) is LoginStatus.AUTHENTICATION_FAILURE


def test_chap_only_where_the_target_has_no_secret() -> None:
    assert Initiator().refused(NORMAL + b"AuthMethod=CHAP\0", SECURITY) is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize(
    "text",
    [
        b"AuthMethod=CHAP\0CHAP_A=5\0",
        b"CHAP_A=5\0",
        b"AuthMethod=CHAP\0AuthMethod=CHAP\0",
        b"AuthMethod=\0AuthMethod=\0",
    ],
)
def test_security_keys_out_of_order(text: bytes) -> None:
    assert Initiator(guarded()).refused(NORMAL + text, SECURITY) is LoginStatus.INITIATOR_ERROR


# -- who may not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", LoginStatus.MISSING_PARAMETER),
        (b"InitiatorName=\0SessionType=Discovery\0", LoginStatus.MISSING_PARAMETER),
        (f"TargetName={TARGET}\0".encode(), LoginStatus.MISSING_PARAMETER),
        (f"InitiatorName={HOST}\0".encode(), LoginStatus.MISSING_PARAMETER),
        (f"InitiatorName={HOST}\0TargetName={TARGET}x\0".encode(), LoginStatus.NOT_FOUND),
        (f"InitiatorName={HOST}x\0TargetName={TARGET}\0".encode(), LoginStatus.AUTHORIZATION_FAILURE),
        (f"InitiatorName={HOST}x\0TargetName={TARGET}x\0".encode(), LoginStatus.AUTHORIZATION_FAILURE),
        (DISCOVERY.replace(b"Discovery", b"Vendor"), LoginStatus.SESSION_TYPE_NOT_SUPPORTED),
        (NORMAL + b"MaxRecvDataSegmentLength=1\0", LoginStatus.INITIATOR_ERROR),
        (NORMAL + b"MaxBurstLength=4096\0MaxBurstLength=4096\0", LoginStatus.INITIATOR_ERROR),
        (NORMAL + b"cut", LoginStatus.INITIATOR_ERROR),
    ],
)
def test_status_by_the_first_text(text: bytes, status: LoginStatus) -> None:
    host = Initiator(Policy(access={HOST: Access()}))
    assert host.refused(text, to=FULL) is status
    assert host.policy.admitted == []


@pytest.mark.parametrize(
    "status",
    [
        LoginStatus.TOO_MANY_CONNECTIONS,
        LoginStatus.SESSION_DOES_NOT_EXIST,
        LoginStatus.SERVICE_UNAVAILABLE,
        LoginStatus.OUT_OF_RESOURCES,
    ],
)
def test_the_target_may_have_no_session(status: LoginStatus) -> None:
    host = Initiator(Policy(tsih=status))
    host.fields["tsih"] = 77
    assert host.refused(NORMAL, to=FULL) is status
    assert host.policy.admitted == [(HOST, bytes.fromhex("00023d000001"), 77, False)]


# -- headers that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"version_min": 1, "version_max": 1}, LoginStatus.UNSUPPORTED_VERSION),
        ({"csg": 2}, LoginStatus.INITIATOR_ERROR),
        ({"csg": 3}, LoginStatus.INITIATOR_ERROR),
        ({"transit": True, "nsg": 0}, LoginStatus.INITIATOR_ERROR),
        ({"transit": True, "nsg": 1}, LoginStatus.INITIATOR_ERROR),
        ({"transit": True, "nsg": 2}, LoginStatus.INITIATOR_ERROR),
        ({"transit": True, "nsg": 3, "continue_": True}, LoginStatus.INITIATOR_ERROR),
        ({"total_ahs_length": 1}, LoginStatus.INITIATOR_ERROR),
        ({"data_segment_length": 1}, LoginStatus.INITIATOR_ERROR),
    ],
)
def test_a_first_header_that_cannot_be(fields: dict[str, Any], status: LoginStatus) -> None:
    assert Initiator().refused(NORMAL, **fields) is status


def test_a_later_version_that_still_speaks_ours() -> None:
    answer = Initiator().send(NORMAL, to=FULL, version_max=3)
    assert (answer.header.version_max, answer.header.version_active) == (0, 0)
    assert answer.header.transit


@pytest.mark.parametrize(
    ("name", "value"), [("isid", bytes(6)), ("tsih", 1), ("initiator_task_tag", 0x12), ("cid", 4), ("cmd_sn", 1001)]
)
def test_a_request_of_another_login(name: str, value: object) -> None:
    host = Initiator()
    host.send(NORMAL)
    changed: dict[str, Any] = {name: value}
    (answer,) = host.login.receive(host.header(**changed), b"")
    header = parse_header(answer[:BHS_BYTES])
    assert host.login.failed
    assert header.status == LoginStatus.INITIATOR_ERROR
    assert header.initiator_task_tag == 0x11


def test_no_way_back_to_the_security_stage() -> None:
    host = Initiator()
    host.send(NORMAL)
    assert host.refused(stage=SECURITY) is LoginStatus.INITIATOR_ERROR


OTHER_OPCODES = [*(set(Opcode) - {Opcode.LOGIN_REQUEST}), 0x1C]


@pytest.mark.parametrize("opcode", OTHER_OPCODES)
def test_nothing_is_answered_before_a_login_request(opcode: int) -> None:
    login = Login(Policy(), steady_bytes)
    assert login.receive(bytes([opcode]) + bytes(BHS_BYTES - 1), b"") == []
    assert login.failed
    assert login.status is LoginStatus.INVALID_DURING_LOGIN


@pytest.mark.parametrize("opcode", OTHER_OPCODES)
def test_only_login_requests_in_the_login_phase(opcode: int) -> None:
    host = Initiator()
    host.send(NORMAL)
    (answer,) = host.login.receive(bytes([opcode]) + bytes(BHS_BYTES - 1), b"")
    assert parse_header(answer[:BHS_BYTES]).status == LoginStatus.INVALID_DURING_LOGIN
    assert host.login.failed


# -- long texts -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, len(NORMAL)), max_size=6))
def test_a_text_may_be_cut_anywhere(cuts: list[int]) -> None:
    host = Initiator()
    edges = [0, *sorted(cuts), len(NORMAL)]
    pieces = [NORMAL[start:end] for start, end in pairwise(edges)]
    for piece in pieces[:-1]:
        answer = host.send(piece, continue_=True)
        assert (answer.text, answer.header.transit, answer.header.continue_) == (b"", False, False)
    assert host.send(pieces[-1], to=FULL).header.transit
    assert host.login.complete


def test_a_long_answer_comes_in_segments() -> None:
    host = Initiator()
    names = [f"X-{number:061}" for number in range(120)]
    text = "".join(f"{name}=1\0" for name in names).encode()
    assert len(NORMAL + text) < LOGIN_SEGMENT_BYTES
    answer = host.send(NORMAL + text, to=FULL)
    assert (answer.header.continue_, answer.header.transit, len(answer.text)) == (True, False, LOGIN_SEGMENT_BYTES)
    rest = host.send(to=FULL)
    assert (rest.header.continue_, rest.header.transit) == (False, True)
    pairs = dict(parse_pairs(answer.text + rest.text))
    assert pairs.pop("MaxRecvDataSegmentLength") == str(MAX_RECV_SEGMENT_BYTES)
    assert pairs == {"TargetPortalGroupTag": "1"} | dict.fromkeys(names, "NotUnderstood")
    assert host.login.complete


def test_nothing_may_be_said_before_the_answer_has_ended() -> None:
    host = Initiator()
    text = b"".join(b"X-%061d=1\0" % number for number in range(120))
    assert host.send(NORMAL + text).header.continue_
    assert host.refused(b"A=1\0") is LoginStatus.INITIATOR_ERROR


def test_a_segment_beyond_what_a_login_may_carry() -> None:
    text = NORMAL + b"X-a=" + b"x" * LOGIN_SEGMENT_BYTES + b"\0"
    assert Initiator().refused(text) is LoginStatus.INITIATOR_ERROR


def test_text_without_end() -> None:
    host = Initiator()
    for _ in range(TEXT_BYTES_MAX // LOGIN_SEGMENT_BYTES):
        host.send(b"x" * LOGIN_SEGMENT_BYTES, continue_=True)
    assert host.refused(b"x", continue_=True) is LoginStatus.INITIATOR_ERROR


def test_requests_without_end() -> None:
    host = Initiator()
    host.send(NORMAL)
    for _ in range(REQUESTS_MAX - 1):
        host.send()
    assert host.refused() is LoginStatus.INITIATOR_ERROR


# -- anything ---------------------------------------------------------------------------------------------------------

KEY_TEXT = st.lists(
    st.tuples(
        st.sampled_from([*KEYS, "X-a"]),
        st.sampled_from([HOST, TARGET, "Discovery", "Normal", "CHAP,None", "7,5", "0xab", "host1", "4096", "Yes", ""]),
    ).map(lambda pair: f"{pair[0]}={pair[1]}\0".encode()),
    max_size=6,
).map(b"".join)
REQUEST = st.fixed_dictionaries(
    {
        "text": st.one_of(KEY_TEXT, KEY_TEXT.map(lambda text: NORMAL + text), st.binary(max_size=40)),
        "stage": st.sampled_from([SECURITY, SECURITY, OPERATIONAL, OPERATIONAL, 2, 3]),
        "to": st.sampled_from([None, None, OPERATIONAL, FULL, 0, 2]),
        "continue_": st.sampled_from([False, False, False, True]),
        "version_min": st.sampled_from([0] * 9 + [1]),
    }
)


@given(st.booleans(), st.lists(st.one_of(REQUEST, st.binary(min_size=BHS_BYTES, max_size=80)), max_size=8))
def test_any_requests_are_answered_or_refused(locked: bool, requests: list[dict[str, Any] | bytes]) -> None:
    host = Initiator(guarded(MUTUAL) if locked else None)
    login = host.login
    for number, request in enumerate(requests):
        if isinstance(request, bytes):
            responses = login.receive(request[:BHS_BYTES], request[BHS_BYTES:])
        else:
            responses = login.receive(host.header(**request), request["text"])
        for sent in responses:
            header = parse_header(sent[:BHS_BYTES])
            assert header.opcode == Opcode.LOGIN_RESPONSE
            assert bool(header.status) == login.failed
        assert len(responses) == 1 or (login.failed and number == 0)
        assert (login.parameters is not None) == login.complete
        if login.complete or login.failed:
            break
    # HOST's secret is not among the things said.
    assert not (locked and login.complete)
