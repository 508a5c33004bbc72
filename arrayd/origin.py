"""Who a command comes from, as every room can say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """`name` is of the initiator or, if `is_array`, of the array that sends commands of its own. `path` has the arrays
    that the command passed, the first one first; it is empty when it came by iSCSI. `local`: the initiator is on the
    machine of the array that it is connected to."""

    name: str
    path: tuple[str, ...] = ()
    local: bool = False
    is_array: bool = False


def over_link(name: str, path: tuple[str, ...], local: bool) -> Origin:
    """Of a command that came over the link. An array that sends commands of its own is the first of the path; no
    initiator is called so, since every array takes none whose name is not an iSCSI name."""
    return Origin(name, path, local, name == path[0])
