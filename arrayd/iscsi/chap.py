"""CHAP, one-way and mutual (RFC 7143, 12.1.3; RFC 1994)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """A CHAP name (CHAP_N) and its secret."""

    user: str
    secret: bytes = field(repr=False)
