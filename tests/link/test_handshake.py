"""Who may talk: both prove that they know the secret, and whoever lies, or is not wanted, hears why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.link.frames import HEADER, HEADER_BYTES, HELLO, VERSION, Kind
from arrayd.link.handshake import Handshake, Introduction, RefusedError, goodbye, reason_of
from tests.link.ends import handshake, introduction

A, B = introduction("a"), introduction("b")


def parts(data: bytes) -> tuple[int, bytes]:
    """Kind and payload of one frame."""
    _, length, kind, *_ = HEADER.unpack_from(data)
    assert len(data) == HEADER_BYTES + length
    return kind, data[HEADER_BYTES:]


def talk(dialer: Handshake, listener: Handshake) -> None:
    data, receiver, sender = dialer.begin(), listener, dialer
    while data:
        data = receiver.take(*parts(data))
        receiver, sender = sender, receiver


def test_both_learn_who_the_other_is() -> None:
    dialer, listener = handshake(A, True), handshake(B, False)
    talk(dialer, listener)
    assert dialer.done
    assert listener.done
    assert (dialer.peer, listener.peer) == (B, A)


@pytest.mark.parametrize("liar", ["dialer", "listener"])
def test_who_does_not_know_the_secret_is_refused(liar: str) -> None:
    dialer = handshake(A, True, secret=b"a guess" if liar == "dialer" else b"the secret")
    listener = handshake(B, False, secret=b"a guess" if liar == "listener" else b"the secret")
    with pytest.raises(RefusedError, match="does not know the secret"):
        talk(dialer, listener)
    assert not listener.done  # the dialer proves itself first: who just connects gets no proof to guess from


def test_a_proof_does_not_serve_again() -> None:
    """Another nonce of the listener: what the dialer said before is worth nothing."""
    dialer, listener = handshake(A, True), handshake(B, False)
    hello = dialer.begin()
    proof = dialer.take(*parts(listener.take(*parts(hello))))
    assert listener.take(*parts(proof))
    again = handshake(B, False, nonce=b"n" * 32)
    again.take(*parts(hello))
    with pytest.raises(RefusedError, match="does not know the secret"):
        again.take(*parts(proof))


def test_a_proof_cannot_be_sent_back_to_its_maker() -> None:
    dialer = handshake(A, True)
    listener = handshake(B, False)
    proof = dialer.take(*parts(listener.take(*parts(dialer.begin()))))
    _, payload = parts(proof)
    with pytest.raises(RefusedError, match="does not know the secret"):
        dialer.take(Kind.WELCOME, payload)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (introduction("a"), "one of them is of the other, too"),
        (replace(introduction("b"), serial=A.serial), "one of them is of the other, too"),
    ],
)
def test_nobody_talks_to_himself(peer: Introduction, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        talk(handshake(A, True), handshake(peer, False))


def test_another_version_is_refused() -> None:
    hello = HELLO.parse(parts(handshake(A, True).begin())[1])
    hello.version = VERSION + 1
    with pytest.raises(RefusedError, match=f"speaks version {VERSION + 1} of the protocol, not {VERSION}"):
        handshake(B, False).take(Kind.HELLO, HELLO.build(hello))


def test_checked_before_the_proof_and_admitted_after_it() -> None:
    order: list[tuple[str, str]] = []

    def noting(word: str) -> dict[str, object]:
        return {
            "check": lambda peer: order.append((word + " checks", peer.name)),
            "admit": lambda peer: order.append((word + " admits", peer.name)),
        }

    talk(handshake(A, True, **noting("dialer")), handshake(B, False, **noting("listener")))  # type: ignore[arg-type]
    assert order == [("listener checks", "a"), ("dialer checks", "b"), ("listener admits", "a"), ("dialer admits", "b")]


def test_who_is_not_admitted_gets_no_welcome() -> None:
    def refuse(_peer: Introduction) -> None:
        raise RefusedError("not now")

    listener = handshake(B, False, admit=refuse)
    with pytest.raises(RefusedError, match="not now"):
        talk(handshake(A, True), listener)
    assert not listener.done


def test_a_goodbye_says_why() -> None:
    with pytest.raises(RefusedError, match="array 'a' is not among") as raised:
        handshake(A, True).take(*parts(goodbye("array 'a' is not among")))
    assert not raised.value.ours


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"", "no reason given"), (b"\xff\n\x1b[31m", "\ufffd??[31m"), (b"x" * 10_000, "x" * 200)],
)
def test_a_reason_is_fit_for_a_log(payload: bytes, reason: str) -> None:
    assert reason_of(payload) == reason


@given(dials=st.booleans(), kind=st.integers(0, 255), payload=st.binary(max_size=300), later=st.booleans())
def test_whatever_comes_is_refused(dials: bool, kind: int, payload: bytes, later: bool) -> None:
    side, other = handshake(A, dials), handshake(B, not dials)
    if later:
        side.take(*parts(other.take(*parts(side.begin()))) if dials else parts(other.begin()))
    with pytest.raises(RefusedError):
        side.take(kind, payload)
