"""SendTargets: where the target is to be found (RFC 7143, 13.8 and appendix C)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from arrayd.iscsi.keys import Pair

Address = tuple[str, int]
"""Host (an IP address or a name, no brackets) and TCP port."""

_WILDCARDS = {"": 4, "0.0.0.0": 4, "::": 6}  # noqa: S104  what a listener may be bound to, not a binding


def _plain_host(host: str) -> str:
    """`host` without an IPv6 zone, and an IPv4 address out of its IPv6 mapping (RFC 4291, 2.5.5.2)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def format_portal(address: Address) -> str:
    """`host:port`, an IPv6 host in brackets (RFC 7143, 13.8)."""
    host = _plain_host(address[0])
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def portals(advertise: Sequence[Address], listening: Sequence[Address], local: Address) -> list[Address]:
    """The addresses to answer: `advertise` if there are any, else the listening ones.

    A wildcard among those stands for the address `local` that this very connection came by: the one address of the
    machine that this initiator is known to reach. An IPv4 wildcard says nothing to an IPv6 connection.
    """
    if advertise:
        return list(advertise)
    host = _plain_host(local[0])
    found: dict[Address, None] = {}
    for listener in listening:
        family = _WILDCARDS.get(listener[0])
        if family is None:
            found[listener] = None
        elif family == 6 or ":" not in host:
            found[(host, listener[1])] = None
    return list(found)


def send_targets(
    value: str, discovery: bool, target_name: str, portal_group_tag: int, addresses: Sequence[Address]
) -> list[Pair] | None:
    """The pairs that answer SendTargets=`value`; None to reject it.

    All targets are shown in a discovery session only, the session's own target in a normal session only; a name may be
    asked for in both, and one that is unknown has no records (RFC 7143, appendix C).
    """
    if value == "All":
        shown = discovery
    elif value == "":
        shown = not discovery
    elif value == target_name:
        shown = True
    else:
        return []
    if not shown:
        return None
    return [
        ("TargetName", target_name),
        *(("TargetAddress", f"{format_portal(address)},{portal_group_tag}") for address in addresses),
    ]
