"""CHAP as the target's side of it, one-way and mutual (RFC 7143, 12.1.3; RFC 1994).

Three steps: the initiator lists algorithms (CHAP_A); the target picks one and sends an identifier and a challenge
(CHAP_A, CHAP_I, CHAP_C); the initiator answers with its name and the hash of identifier, secret and challenge (CHAP_N,
CHAP_R), and may challenge the target in the same message (CHAP_I, CHAP_C), which then answers likewise.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from arrayd.iscsi.keys import Pair, parse_binary, parse_number

BINARY_BYTES_MAX = 1024
"""Longest challenge or response, decoded (RFC 7143, 12.1.3)."""
ALGORITHMS_MAX = 16
"""Longest list of algorithms that is looked at."""

HASHES: dict[int, Callable[..., Any]] = {
    8: hashlib.sha3_256,
    7: hashlib.sha256,
    6: hashlib.sha1,
    5: hashlib.md5,
}
"""CHAP_A algorithms by their registered numbers, the target's preference first."""


class AuthenticationError(Exception):
    """The initiator did not prove who it is, or asked for a proof it cannot have."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A CHAP name (CHAP_N) and its secret."""

    user: str
    secret: bytes = field(repr=False)


def response(algorithm: int, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """CHAP_R: the hash of identifier, secret and challenge (RFC 1994, 4.1)."""
    # The protocol names these hashes; a build of the library that bars them for security must still compute them.
    digest: bytes = HASHES[algorithm](bytes([identifier]) + secret + challenge, usedforsecurity=False).digest()
    return digest


def format_binary(value: bytes) -> str:
    """A binary value as the target sends it: hexadecimal after 0x."""
    return "0x" + value.hex()


class Chap:
    """One CHAP exchange. `initiator` is what the initiator must know; `mutual` what the target may be asked for."""

    def __init__(
        self, initiator: Credentials, mutual: Credentials | None, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.complete = False
        self._initiator = initiator
        self._mutual = mutual
        self._random_bytes = random_bytes
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""

    def receive(self, keys: Mapping[str, str]) -> list[Pair]:
        """One step of the initiator's CHAP keys in, the target's out; AuthenticationError ends it."""
        if self.complete:
            raise AuthenticationError("CHAP keys after the end of CHAP")
        if not self._algorithm:
            _expect(keys, {"CHAP_A"})
            return self._challenge_initiator(keys["CHAP_A"])
        mutual = {"CHAP_I", "CHAP_C"} if keys.keys() & {"CHAP_I", "CHAP_C"} else set()
        _expect(keys, {"CHAP_N", "CHAP_R"} | mutual)
        self._verify(keys["CHAP_N"], keys["CHAP_R"])
        answer = self._prove(keys["CHAP_I"], keys["CHAP_C"]) if mutual else []
        self.complete = True
        return answer

    def _challenge_initiator(self, offered: str) -> list[Pair]:
        """Picks the best algorithm of the list and sends a challenge as long as its hash."""
        numbers = offered.split(",", ALGORITHMS_MAX)[:ALGORITHMS_MAX]
        algorithm = next((number for number in HASHES if str(number) in numbers), None)
        if algorithm is None:
            raise AuthenticationError("no CHAP algorithm in common")
        self._algorithm = algorithm
        self._identifier = self._random_bytes(1)[0]
        self._challenge = self._random_bytes(HASHES[algorithm](usedforsecurity=False).digest_size)
        return [
            ("CHAP_A", str(algorithm)),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", format_binary(self._challenge)),
        ]

    def _verify(self, name: str, proof: str) -> None:
        """Checks CHAP_N and CHAP_R, in a time that does not tell which of them was wrong, or where."""
        expected = response(self._algorithm, self._identifier, self._initiator.secret, self._challenge)
        same_proof = hmac.compare_digest(_decode(proof), expected)
        same_name = hmac.compare_digest(name.encode(), self._initiator.user.encode())
        if not (same_name and same_proof):
            raise AuthenticationError("wrong CHAP name or response")

    def _prove(self, identifier: str, challenge: str) -> list[Pair]:
        """The target's own CHAP_N and CHAP_R.

        A reflected challenge is refused, and so is one secret for both directions: either would let an initiator that
        knows no secret have the target compute its response for it (RFC 7143, 9.2.1).
        """
        if self._mutual is None:
            raise AuthenticationError("mutual CHAP asked for, but the target has no secret for it")
        if hmac.compare_digest(self._mutual.secret, self._initiator.secret):
            raise AuthenticationError("one secret for both directions of CHAP")
        value = _decode(challenge)
        if hmac.compare_digest(value, self._challenge):
            raise AuthenticationError("the target's own challenge was sent back")
        try:
            number = parse_number(identifier)
        except ValueError as error:
            raise AuthenticationError("CHAP_I is not a number") from error
        if number > 255 or not value:
            raise AuthenticationError("CHAP_I or CHAP_C out of range")
        proof = response(self._algorithm, number, self._mutual.secret, value)
        return [("CHAP_N", self._mutual.user), ("CHAP_R", format_binary(proof))]


def _expect(keys: Mapping[str, str], names: set[str]) -> None:
    """Exactly the keys that this step consists of."""
    if keys.keys() != names:
        raise AuthenticationError(f"CHAP keys {', '.join(sorted(keys))} where {', '.join(sorted(names))} belong")


def _decode(value: str) -> bytes:
    """A binary value of bounded length."""
    try:
        decoded = parse_binary(value)
    except ValueError as error:
        raise AuthenticationError("a CHAP value that is not binary") from error
    if len(decoded) > BINARY_BYTES_MAX:
        raise AuthenticationError("a CHAP value that is too long")
    return decoded
