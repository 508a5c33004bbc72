"""The initiator's side of a login, against the target's own, and against targets that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayd.host.login import ROUNDS_MAX, Login, LoginError
from arrayd.iscsi import login as target_login
from arrayd.iscsi.chap import HASHES, Credentials
from arrayd.iscsi.keys import MAX_RECV_SEGMENT_BYTES, format_pairs
from arrayd.iscsi.login import Access
from arrayd.iscsi.pdu import BHS_BYTES, LoginStatus, Opcode, build, build_header
from tests.iscsi.login_driver import HOST, TARGET, Policy, steady_bytes
from tests.lab.search import examples

ISID = bytes([0x80, 1, 2, 3, 0, 0])
OURS = Credentials("user", b"a secret of ours")


def apart(pdu: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(pdu[5:8], "big")
    return pdu[:BHS_BYTES], pdu[BHS_BYTES : BHS_BYTES + length]


def log_in(policy: Policy, credentials: Credentials | None = None, target: str = TARGET) -> tuple[Login, Any]:
    """Both sides, until one has enough."""
    ours, theirs = Login(HOST, target, ISID, credentials), target_login.Login(policy, steady_bytes)
    request: bytes | None = ours.begin()
    while request is not None:
        (answer,) = theirs.receive(*apart(request))
        request = ours.receive(*apart(answer))
    return ours, theirs


def test_without_a_proof() -> None:
    ours, theirs = log_in(Policy())
    assert theirs.complete
    assert ours.agreed is not None
    assert ours.agreed.segment == MAX_RECV_SEGMENT_BYTES
    assert ours.agreed.immediate == MAX_RECV_SEGMENT_BYTES
    assert ours.agreed.exp_stat_sn == theirs.stat_sn
    assert ours.agreed.cmd_sn == theirs.exp_cmd_sn
    agreed = theirs.parameters
    assert (agreed.isid, agreed.initial_r2t, agreed.immediate_data) == (ISID, True, True)
    assert not agreed.header_digest
    assert not agreed.data_digest


@pytest.mark.parametrize("algorithm", HASHES)
def test_with_chap(algorithm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(access={HOST: Access(OURS)})
    monkeypatch.setattr("arrayd.host.login.HASHES", {algorithm: HASHES[algorithm]})
    ours, theirs = log_in(policy, OURS)
    assert theirs.complete
    assert ours.agreed is not None


def test_a_target_that_asks_for_no_proof_gets_none() -> None:
    _, theirs = log_in(Policy(), OURS)
    assert theirs.complete


@pytest.mark.parametrize(
    ("policy", "credentials", "target", "expected"),
    [
        (Policy(access={HOST: Access(OURS)}), None, TARGET, "authentication failure"),
        (Policy(access={HOST: Access(OURS)}), Credentials("user", b"not the secret"), TARGET, "authentication failure"),
        (Policy(access={}), None, TARGET, "authorization failure"),
        (Policy(), None, "iqn.2026-11.io.arrayd:other", "not found"),
        (Policy(tsih=LoginStatus.OUT_OF_RESOURCES), None, TARGET, "out of resources"),
    ],
)
def test_a_refusal_is_named(policy: Policy, credentials: Credentials | None, target: str, expected: str) -> None:
    with pytest.raises(LoginError, match=f"the target refuses the login: {expected}") as caught:
        log_in(policy, credentials, target)
    assert "secret" not in str(caught.value)


def answer(pairs: list[tuple[str, str]], **fields: Any) -> tuple[bytes, bytes]:
    return apart(build(Opcode.LOGIN_RESPONSE, format_pairs(pairs), isid=ISID, tsih=1, **fields))


@pytest.mark.parametrize(
    ("pairs", "fields", "expected"),
    [
        ([("AuthMethod", "CHAP")], {}, "asks for CHAP"),
        ([("CHAP_C", "0x01")], {}, "makes no sense"),
        ([("CHAP_A", "5"), ("CHAP_I", "1"), ("CHAP_C", "0x01")], {}, "not offered"),
        ([], {"status": 0x0101}, "target moved temporarily"),
        ([], {"status": 0x7777}, "status 7777h"),
        ([], {"transit": True, "nsg": 2}, "makes no sense"),
        ([("HeaderDigest", "CRC32C")], {"transit": True, "nsg": 3}, "digests"),
        ([("MaxRecvDataSegmentLength", "0")], {"transit": True, "nsg": 3}, "takes no data"),
        ([("MaxRecvDataSegmentLength", "x")], {"transit": True, "nsg": 3}, "makes no sense"),
    ],
)
def test_a_target_that_makes_no_sense(pairs: list[tuple[str, str]], fields: dict[str, Any], expected: str) -> None:
    login = Login(HOST, TARGET, ISID, None)
    login.begin()
    with pytest.raises(LoginError, match=expected):
        login.receive(*answer(pairs, **fields))


def test_a_login_has_an_end() -> None:
    login = Login(HOST, TARGET, ISID, None)
    login.begin()
    for _ in range(ROUNDS_MAX):
        assert login.receive(*answer([])) is not None
    with pytest.raises(LoginError, match="no end"):
        login.receive(*answer([]))


def test_something_else_than_a_login_response() -> None:
    login = Login(HOST, TARGET, ISID, None)
    login.begin()
    with pytest.raises(LoginError, match="something else"):
        login.receive(build_header(Opcode.NOP_IN), b"")


@settings(max_examples=examples(300), deadline=None)
@given(
    bhs=st.binary(min_size=BHS_BYTES, max_size=BHS_BYTES),
    opcode=st.sampled_from([Opcode.LOGIN_RESPONSE, None]),
    data=st.binary(max_size=200) | st.lists(st.sampled_from([("CHAP_A", "7"), ("CHAP_I", "999"), ("CHAP_C", "0xAB"),
        ("AuthMethod", "CHAP"), ("ImmediateData", "Maybe"), ("FirstBurstLength", "-1")])).map(format_pairs),
)  # fmt: skip
def test_no_answer_breaks_it(bhs: bytes, opcode: int | None, data: bytes) -> None:
    """Whatever comes: another request, the end, or LoginError."""
    if opcode is not None:
        bhs = bytes([opcode]) + bhs[1:36] + bytes(2) + bhs[38:]
    login = Login(HOST, TARGET, ISID, OURS)
    login.begin()
    try:
        request = login.receive(bhs, data)
    except LoginError:
        return
    assert (request is None) == (login.agreed is not None)
