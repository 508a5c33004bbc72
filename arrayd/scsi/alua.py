"""Asymmetric logical unit access (SPC-5, 5.17): target port groups, their states, REPORT and SET TARGET PORT GROUPS."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from arrayd.scsi.command import Command

if TYPE_CHECKING:
    from arrayd.scsi.nexus import Nexus


class AccessState(IntEnum):
    """Asymmetric access states (SPC-5, table 67)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    TRANSITIONING = 0xF


class PortGroups:
    """The target port group that this array's ports are in: `group` its identifier, `ports` the relative target port
    identifiers, `names` the iSCSI port names (`iqn…,t,0xTPGT`) in the same order. All are unique across arrays."""

    def __init__(self, group: int, ports: tuple[int, ...], names: tuple[str, ...]) -> None:
        self.group = group
        self.ports = ports
        self.names = dict(zip(ports, names, strict=True))
        self.state = AccessState.ACTIVE_OPTIMIZED

    def state_conflict(self, nexus: Nexus, command: Command) -> None:
        """Raises CheckCondition when the access state of the nexus' target port refuses `command`."""


COMMANDS: tuple[Command, ...] = ()
