"""Logins as real initiators do them: their keys, their order, byte for byte where it matters."""

import pytest

from arrayd.iscsi.chap import Credentials, format_binary, response
from arrayd.iscsi.keys import Negotiated, parse_binary, parse_pairs
from arrayd.iscsi.login import Access, Login
from arrayd.iscsi.pdu import BHS_BYTES, pad
from tests.iscsi.login_driver import FULL, OPERATIONAL, SECURITY, TARGET, Initiator, Policy, steady_bytes


def text(*pairs: str) -> bytes:
    return "".join(f"{pair}\0" for pair in pairs).encode()


def agreed(host: Initiator) -> Negotiated:
    assert host.login.complete
    assert host.login.parameters is not None
    return host.login.parameters


# What libiscsi offers, whoever uses it (iscsi-ls, iscsi-test-cu, QEMU): everything at once, markers included.
LIBISCSI = (
    "InitialR2T=No",
    "ImmediateData=Yes",
    "MaxBurstLength=262144",
    "FirstBurstLength=262144",
    "DefaultTime2Wait=2",
    "DefaultTime2Retain=0",
    "MaxOutstandingR2T=1",
    "ErrorRecoveryLevel=0",
    "IFMarker=No",
    "OFMarker=No",
    "MaxConnections=1",
    "MaxRecvDataSegmentLength=262144",
    "DataPDUInOrder=Yes",
    "DataSequenceInOrder=Yes",
)

# What open-iscsi offers in a normal session with the defaults of iscsid.conf.
OPEN_ISCSI = (
    "HeaderDigest=None",
    "DataDigest=None",
    "DefaultTime2Wait=2",
    "DefaultTime2Retain=0",
    "IFMarker=No",
    "OFMarker=No",
    "ErrorRecoveryLevel=0",
    "InitialR2T=No",
    "ImmediateData=Yes",
    "MaxBurstLength=16776192",
    "FirstBurstLength=262144",
    "MaxOutstandingR2T=1",
    "MaxConnections=1",
    "DataPDUInOrder=Yes",
    "DataSequenceInOrder=Yes",
    "MaxRecvDataSegmentLength=262144",
)
OPEN_ISCSI_NAMES = ("InitiatorName=iqn.1993-08.org.debian:01:host1", "InitiatorAlias=host1")


def test_libiscsi_discovery_byte_for_byte() -> None:
    request = bytes.fromhex(
        "43870000 0000018b 80946f3f 00000000 06281cbb 00000000 441ac556 00000001 00000000 00000000 00000000 00000000"
    )
    data = text(
        "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls",
        "SessionType=Discovery",
        "HeaderDigest=None",
        "DataDigest=None",
        *LIBISCSI,
    )
    login = Login(Policy(tsih=7), steady_bytes)
    (answer,) = login.receive(request, data)
    assert answer[:BHS_BYTES] == bytes.fromhex(
        "23870000 0000016c 80946f3f 00000007 06281cbb 00000000 00000000 441ac556 441ac595 00000000 00000000 00000000"
    )
    assert answer[BHS_BYTES:] == pad(
        text(
            "HeaderDigest=None",
            "DataDigest=None",
            "InitialR2T=Irrelevant",
            "ImmediateData=Irrelevant",
            "MaxBurstLength=Irrelevant",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=0",
            "MaxOutstandingR2T=Irrelevant",
            "ErrorRecoveryLevel=0",
            "IFMarker=No",
            "OFMarker=No",
            "MaxConnections=Irrelevant",
            "DataPDUInOrder=Irrelevant",
            "DataSequenceInOrder=Irrelevant",
            "FirstBurstLength=Irrelevant",
            "MaxRecvDataSegmentLength=262144",
        )
    )
    assert login.complete
    assert (login.stat_sn, login.exp_cmd_sn) == (1, 0x441AC556)


@pytest.mark.parametrize("digests", ["None,CRC32C", "CRC32C,None", "CRC32C", "None"])
def test_libiscsi_and_qemu_normal_session(digests: str) -> None:
    host = Initiator()
    names = ("InitiatorName=iqn.2008-11.org.linux-kvm", f"TargetName={TARGET}", "SessionType=Normal")
    host.send(text(*names, f"HeaderDigest={digests}", "DataDigest=None", *LIBISCSI), to=FULL)
    result = agreed(host)
    assert (result.max_burst, result.first_burst, result.max_send_segment) == (262144, 262144, 262144)
    assert (result.initial_r2t, result.immediate_data, result.max_outstanding_r2t) == (False, True, 1)
    assert (result.header_digest, result.data_digest) == (digests.startswith("CRC32C"), False)


def test_libiscsi_mutual_chap() -> None:
    chap, mutual = Credentials("host1", b"the host's secret"), Credentials("primary", b"the target's secret")
    name = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls"
    host = Initiator(Policy(access={name: Access(chap, mutual)}))
    first = host.send(
        text(f"InitiatorName={name}", "SessionType=Discovery", "AuthMethod=CHAP,None"), SECURITY, OPERATIONAL
    )
    assert (first.text, first.header.transit) == (b"AuthMethod=CHAP\0", False)
    challenged = host.send(b"CHAP_A=5\0", SECURITY)
    assert challenged.text == b"CHAP_A=5\0CHAP_I=1\0CHAP_C=0x0102030405060708090a0b0c0d0e0f10\0"
    # It writes its digits in capitals, and its challenge is longer than the hash.
    value = response(5, 1, chap.secret, parse_binary(challenged.pairs["CHAP_C"])).hex().upper()
    proof = text("CHAP_N=host1", f"CHAP_R=0x{value}", "CHAP_I=1", "CHAP_C=0x" + "5A" * 32)
    proved = host.send(proof, SECURITY, OPERATIONAL)
    assert proved.header.transit
    assert proved.pairs == {
        "CHAP_N": "primary",
        "CHAP_R": format_binary(response(5, 1, mutual.secret, b"\x5a" * 32)),
    }
    host.send(text("HeaderDigest=None", "DataDigest=None", *LIBISCSI), to=FULL)
    assert agreed(host).discovery


def test_open_iscsi_discovery() -> None:
    host = Initiator()
    first = host.send(text(*OPEN_ISCSI_NAMES, "SessionType=Discovery", "AuthMethod=None"), SECURITY, OPERATIONAL)
    assert (first.text, first.header.transit) == (b"AuthMethod=None\0", True)
    answer = host.send(
        text(
            "HeaderDigest=None",
            "DataDigest=None",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=0",
            "IFMarker=No",
            "OFMarker=No",
            "ErrorRecoveryLevel=0",
            "MaxRecvDataSegmentLength=32768",
        ),
        to=FULL,
    )
    assert "Irrelevant" not in answer.pairs.values()
    assert agreed(host).initiator_alias == "host1"
    assert agreed(host).max_send_segment == 32768


@pytest.mark.parametrize("stage", [SECURITY, OPERATIONAL])
def test_open_iscsi_normal_session_with_its_defaults(stage: int) -> None:
    host = Initiator()
    names = text(*OPEN_ISCSI_NAMES, f"TargetName={TARGET}", "SessionType=Normal")
    if stage == SECURITY:
        assert host.send(names + text("AuthMethod=None"), SECURITY, OPERATIONAL).header.transit
        names = b""
    answer = host.send(names + text(*OPEN_ISCSI), to=FULL)
    assert answer.pairs["MaxRecvDataSegmentLength"] == "262144"
    answered = dict(parse_pairs(text(*OPEN_ISCSI)))
    for name in answered.keys() - {"MaxRecvDataSegmentLength"}:
        assert answer.pairs[name] == answered[name]
    result = agreed(host)
    assert (result.max_burst, result.first_burst) == (16776192, 262144)
    assert (result.initial_r2t, result.immediate_data) == (False, True)
    assert (result.time2wait, result.time2retain) == (2, 0)


def test_open_iscsi_chap_with_both_digests() -> None:
    chap = Credentials("host1", b"the host's secret")
    name = OPEN_ISCSI_NAMES[0].partition("=")[2]
    host = Initiator(Policy(access={name: Access(chap)}))
    names = text(*OPEN_ISCSI_NAMES, f"TargetName={TARGET}", "SessionType=Normal")
    assert not host.send(names + text("AuthMethod=CHAP"), SECURITY, OPERATIONAL).header.transit
    challenged = host.send(b"CHAP_A=8,7,6,5\0", SECURITY, OPERATIONAL).pairs
    assert challenged["CHAP_A"] == "8"
    value = response(8, int(challenged["CHAP_I"]), chap.secret, parse_binary(challenged["CHAP_C"]))
    assert host.send(text("CHAP_N=host1", f"CHAP_R={format_binary(value)}"), SECURITY, OPERATIONAL).header.transit
    host.send(text("HeaderDigest=CRC32C,None", "DataDigest=CRC32C,None", *OPEN_ISCSI[2:]), to=FULL)
    assert (agreed(host).header_digest, agreed(host).data_digest) == (True, True)
