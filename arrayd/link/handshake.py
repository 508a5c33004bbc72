"""Who may talk: the first four frames of a connection, without I/O.

    dialer    HELLO      who I am, and a nonce
    listener  CHALLENGE  who I am, and a nonce
    dialer    PROOF      that I know the secret
    listener  WELCOME    the same

A proof is HMAC-SHA256 by the secret of the role and of HELLO and CHALLENGE as they were sent. Both nonces are in it, so
none that was overheard serves again; the role is in it, so none can be sent back to its maker; and who dials proves
itself first, so nobody gets a proof to guess the secret from by just connecting. Either side may say GOODBYE with a
reason instead.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from construct import ConstructError

from arrayd.link.frames import HELLO, PROOF, VERSION, Kind, frame

REASON_BYTES_MAX = 200


class RefusedError(Exception):
    """One side will not talk to the other; the text is the reason, for both logs. `ours`: it was we who refused."""

    def __init__(self, reason: str, ours: bool = True) -> None:
        super().__init__(reason)
        self.ours = ours


@dataclass(frozen=True, slots=True)
class Introduction:
    """An array, as it presents itself; see `frames.HELLO`."""

    name: str
    serial: str
    incarnation: int
    requests_max: int
    bytes_max: int


class Handshake:
    """One side of it. `check(peer)` raises RefusedError for one that may not talk; `admit(peer)` does, once it has
    proven who it is, if it may not talk now. When `done`, both sides talk."""

    def __init__(
        self,
        us: Introduction,
        secret: bytes,
        nonce: bytes,
        *,
        dials: bool,
        check: Callable[[Introduction], None],
        admit: Callable[[Introduction], None],
    ) -> None:
        self.peer: Introduction | None = None
        self.done = False
        self._secret = secret
        self._dials = dials
        self._check = check
        self._admit = admit
        self._hello = HELLO.build(
            {
                "version": VERSION,
                "name": us.name,
                "serial": us.serial,
                "incarnation": us.incarnation,
                "nonce": nonce,
                "requests_max": us.requests_max,
                "bytes_max": us.bytes_max,
            }
        )
        self._us = us
        self._transcript = self._hello if dials else b""
        self._awaited = Kind.CHALLENGE if dials else Kind.HELLO

    def begin(self) -> bytes:
        """What to send first: nothing, for who listens."""
        return frame(Kind.HELLO, self._hello) if self._dials else b""

    def take(self, kind: int, payload: bytes) -> bytes:
        """Takes a frame of the peer; what to send. Raises RefusedError."""
        if kind == Kind.GOODBYE:
            raise RefusedError(reason_of(payload), ours=False)
        if kind != self._awaited:
            raise RefusedError(f"expected a frame of kind {self._awaited.name}, not {kind}")
        if kind in (Kind.HELLO, Kind.CHALLENGE):
            return self._introduced(payload)
        return self._proven(payload)

    def _introduced(self, payload: bytes) -> bytes:
        told = _parse(HELLO, payload, "not an introduction")
        if told.version != VERSION:
            raise RefusedError(f"speaks version {told.version} of the protocol, not {VERSION}")
        peer = Introduction(told.name, told.serial, told.incarnation, told.requests_max, told.bytes_max)
        if peer.name == self._us.name or peer.serial == self._us.serial:
            raise RefusedError(f"has name {peer.name!r} and serial {peer.serial!r}: one of them is of the other, too")
        self._check(peer)
        self.peer = peer
        self._transcript += payload
        if self._dials:
            self._awaited = Kind.WELCOME
            return frame(Kind.PROOF, self._prove())
        self._transcript += self._hello
        self._awaited = Kind.PROOF
        return frame(Kind.CHALLENGE, self._hello)

    def _proof_of(self, dialer: bool) -> bytes:
        role = b"dialer" if dialer else b"listener"
        return hmac.digest(self._secret, role + hashlib.sha256(self._transcript).digest(), "sha256")

    def _prove(self) -> bytes:
        built: bytes = PROOF.build({"proof": self._proof_of(self._dials)})
        return built

    def _proven(self, payload: bytes) -> bytes:
        told = _parse(PROOF, payload, "not a proof")
        if not hmac.compare_digest(told.proof, self._proof_of(not self._dials)):
            raise RefusedError("does not know the secret")
        assert self.peer is not None
        self._admit(self.peer)
        self.done = True
        return b"" if self._dials else frame(Kind.WELCOME, self._prove())


def goodbye(reason: str) -> bytes:
    """The frame that ends a connection."""
    return frame(Kind.GOODBYE, reason.encode()[:REASON_BYTES_MAX])


def reason_of(payload: bytes) -> str:
    """The reason in a GOODBYE, fit for a log."""
    text = bytes(payload[:REASON_BYTES_MAX]).decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text) or "no reason given"


def _parse(declaration: Any, payload: bytes, otherwise: str) -> Any:
    try:
        return declaration.parse(bytes(payload))
    except (ConstructError, UnicodeDecodeError) as error:
        raise RefusedError(otherwise) from error
