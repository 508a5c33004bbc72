"""CHAP: who knows the secret gets in, whoever reflects does not (RFC 7143, 12.1.3 and 9.2.1)."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.chap import (
    BINARY_BYTES_MAX,
    HASHES,
    AuthenticationError,
    Chap,
    Credentials,
    format_binary,
    response,
)
from arrayd.iscsi.keys import parse_binary

HOST = Credentials("host1", b"the host's secret")
TARGET = Credentials("primary", b"the target's secret")


def counting_bytes() -> Callable[[int], bytes]:
    """Random bytes that a test can foretell: 0, then 1, 2, 3 and so on."""
    state = [0]

    def random_bytes(count: int) -> bytes:
        first = state[0]
        state[0] += count
        return bytes((first + index) % 256 for index in range(count))

    return random_bytes


def begin(mutual: Credentials | None = None, offered: str = "5") -> tuple[Chap, dict[str, str]]:
    chap = Chap(HOST, mutual, counting_bytes())
    return chap, dict(chap.receive({"CHAP_A": offered}))


def proof(challenged: dict[str, str], secret: bytes = HOST.secret) -> str:
    algorithm, identifier = int(challenged["CHAP_A"]), int(challenged["CHAP_I"])
    return format_binary(response(algorithm, identifier, secret, parse_binary(challenged["CHAP_C"])))


def test_response_is_the_hash_of_rfc_1994() -> None:
    assert response(5, 7, b"secret", b"challenge") == hashlib.md5(b"\x07secretchallenge").digest()
    assert response(6, 7, b"secret", b"challenge") == hashlib.sha1(b"\x07secretchallenge").digest()
    assert response(7, 7, b"secret", b"challenge") == hashlib.sha256(b"\x07secretchallenge").digest()
    assert response(8, 7, b"secret", b"challenge") == hashlib.sha3_256(b"\x07secretchallenge").digest()


def test_challenge_is_as_long_as_the_hash() -> None:
    _, challenged = begin(offered="5")
    assert challenged == {"CHAP_A": "5", "CHAP_I": "0", "CHAP_C": "0x0102030405060708090a0b0c0d0e0f10"}
    _, challenged = begin(offered="7")
    assert len(parse_binary(challenged["CHAP_C"])) == 32


@pytest.mark.parametrize(
    ("offered", "chosen"), [("5", "5"), ("5,6", "6"), ("5,7,6", "7"), ("5,6,7,8", "8"), ("9,5", "5"), ("x,7", "7")]
)
def test_the_best_algorithm_of_the_list(offered: str, chosen: str) -> None:
    _, challenged = begin(offered=offered)
    assert challenged["CHAP_A"] == chosen


@pytest.mark.parametrize("offered", ["", "9", "55", "05", "5 ", "9," * 100 + "5"])
def test_no_algorithm_that_both_have(offered: str) -> None:
    with pytest.raises(AuthenticationError, match="algorithm"):
        begin(offered=offered)


@pytest.mark.parametrize("algorithm", HASHES)
def test_one_way(algorithm: int) -> None:
    chap, challenged = begin(offered=str(algorithm))
    assert not chap.complete
    assert chap.receive({"CHAP_N": "host1", "CHAP_R": proof(challenged)}) == []
    assert chap.complete


@pytest.mark.parametrize("algorithm", HASHES)
def test_mutual(algorithm: int) -> None:
    chap, challenged = begin(TARGET, str(algorithm))
    keys = {"CHAP_N": "host1", "CHAP_R": proof(challenged), "CHAP_I": "0xff", "CHAP_C": "0b" + "QUJD" * 8}
    expected = response(algorithm, 255, TARGET.secret, b"ABC" * 8)
    assert chap.receive(keys) == [("CHAP_N", "primary"), ("CHAP_R", format_binary(expected))]
    assert chap.complete


def test_the_initiator_may_do_without_the_targets_proof() -> None:
    chap, challenged = begin(TARGET)
    assert chap.receive({"CHAP_N": "host1", "CHAP_R": proof(challenged)}) == []
    assert chap.complete


def refused(chap: Chap, keys: dict[str, str], why: str) -> None:
    with pytest.raises(AuthenticationError, match=why):
        chap.receive(keys)
    assert not chap.complete


def test_wrong_secret_and_wrong_name_are_told_alike() -> None:
    chap, challenged = begin()
    refused(chap, {"CHAP_N": "host1", "CHAP_R": proof(challenged, b"another secret")}, "wrong CHAP name or response")
    chap, challenged = begin()
    refused(chap, {"CHAP_N": "host2", "CHAP_R": proof(challenged)}, "wrong CHAP name or response")


def test_a_response_cut_short_is_wrong() -> None:
    chap, challenged = begin()
    refused(chap, {"CHAP_N": "host1", "CHAP_R": proof(challenged)[:-2]}, "wrong")


def test_mutual_without_a_secret_for_it() -> None:
    chap, challenged = begin()
    keys = {"CHAP_N": "host1", "CHAP_R": proof(challenged), "CHAP_I": "1", "CHAP_C": "0x" + "ab" * 16}
    refused(chap, keys, "no secret for it")


def test_a_reflected_challenge_is_refused() -> None:
    chap, challenged = begin(TARGET)
    reflected = "0x" + challenged["CHAP_C"][2:].upper()
    refused(chap, {"CHAP_N": "host1", "CHAP_R": proof(challenged), "CHAP_I": "1", "CHAP_C": reflected}, "sent back")


def test_one_secret_for_both_directions_is_refused() -> None:
    chap, challenged = begin(Credentials("primary", HOST.secret))
    keys = {"CHAP_N": "host1", "CHAP_R": proof(challenged), "CHAP_I": "1", "CHAP_C": "0x" + "ab" * 16}
    refused(chap, keys, "one secret")


def test_who_reflects_before_it_proves_itself_learns_nothing() -> None:
    chap, _ = begin(TARGET)
    keys = {"CHAP_N": "host1", "CHAP_R": "0x" + "00" * 16, "CHAP_I": "1", "CHAP_C": "0x" + "ab" * 16}
    refused(chap, keys, "wrong CHAP name or response")


@pytest.mark.parametrize(
    ("identifier", "challenge"),
    [("256", "0xab"), ("-1", "0xab"), ("x", "0xab"), ("1", "0x"), ("1", "0x" + "ab" * (BINARY_BYTES_MAX + 1))],
)
def test_a_challenge_out_of_range(identifier: str, challenge: str) -> None:
    chap, challenged = begin(TARGET)
    keys = {"CHAP_N": "host1", "CHAP_R": proof(challenged), "CHAP_I": identifier, "CHAP_C": challenge}
    refused(chap, keys, "CHAP")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"CHAP_N": "host1"},
        {"CHAP_A": "5"},
        {"CHAP_N": "host1", "CHAP_R": "0x00", "CHAP_I": "1"},
        {"CHAP_N": "host1", "CHAP_R": "0x00", "CHAP_C": "0xab"},
        {"CHAP_N": "host1", "CHAP_R": "0x00", "CHAP_A": "5"},
    ],
)
def test_keys_out_of_step(keys: dict[str, str]) -> None:
    chap, _ = begin(TARGET)
    refused(chap, keys, "belong")


def test_nothing_follows_the_end() -> None:
    chap, challenged = begin()
    keys = {"CHAP_N": "host1", "CHAP_R": proof(challenged)}
    chap.receive(keys)
    with pytest.raises(AuthenticationError, match="after the end"):
        chap.receive(keys)


def test_a_secret_does_not_show() -> None:
    assert "secret" not in repr(HOST).replace("Credentials", "")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"]),
            st.one_of(st.text(max_size=40), st.sampled_from(["5", "7,5", "0xab", "1", "host1"])),
        ),
        max_size=4,
    )
)
def test_who_does_not_know_the_secret_never_gets_in(steps: list[dict[str, str]]) -> None:
    chap = Chap(HOST, TARGET, counting_bytes())
    try:
        for keys in steps:
            chap.receive(keys)
    except AuthenticationError:
        pass
    assert not chap.complete
