"""SendTargets: where the target is to be found (RFC 7143, appendix C)."""

from __future__ import annotations

from collections.abc import Sequence

Address = tuple[str, int]
"""Host (an IP address or a name, no brackets) and TCP port."""


def portals(advertise: Sequence[Address], listening: Sequence[Address], local: Address) -> list[Address]:
    """The addresses to answer: `advertise` if there are any, else the listening ones.

    A wildcard among those stands for the address `local` that this very connection came by.
    """
    raise NotImplementedError


def send_targets(
    value: str, discovery: bool, target_name: str, portal_group_tag: int, addresses: Sequence[Address]
) -> list[tuple[str, str]] | None:
    """The pairs that answer SendTargets=`value`; None to reject it."""
    raise NotImplementedError
