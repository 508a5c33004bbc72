"""Asymmetric logical unit access (SPC-5, 5.17): target port groups, their states, REPORT and SET TARGET PORT GROUPS.

All ports of this array are one target port group. Arrays that offer the same logical unit through this one (virtual
volumes, figure 3) have groups of their own: by them it is active, and never optimized, whatever a host asks for. A
state belongs to a logical unit and a group, so every logical unit has a `PortGroups` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from construct import BitsInteger, BitStruct, Bytewise, Const, Flag, Int8ub, Int16ub, Padding, Struct

from arrayd.scsi.command import NACA, Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field, invalid_parameter

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import Task

PARAMETER_LIST_MAX = 4 + 4 * 256
"""Longest parameter list of SET TARGET PORT GROUPS, in bytes."""


class AccessState(IntEnum):
    """Primary target port asymmetric access states (SPC-5, table 65)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    TRANSITIONING = 0xF


class StatusCode(IntEnum):
    """What changed a state last (SPC-5, table 311)."""

    NONE = 0
    SET_BY_COMMAND = 1
    SET_BY_ARRAY = 2


IMPLICIT_TRANSITION_SECONDS = 0
"""IMPLICIT TRANSITION TIME: 0 says that none is given."""

_BY_UNAVAILABLE = frozenset(
    {
        (0x03, None),  # REQUEST SENSE
        (0x12, None),  # INQUIRY
        (0xA0, None),  # REPORT LUNS
        (0xA3, 0x0A),  # REPORT TARGET PORT GROUPS
        (0xA4, 0x0A),  # SET TARGET PORT GROUPS
    }
)
_BY_STANDBY = _BY_UNAVAILABLE | {
    (0x4C, None),  # LOG SELECT
    (0x4D, None),  # LOG SENSE
    (0x15, None),  # MODE SELECT(6)
    (0x55, None),  # MODE SELECT(10)
    (0x1A, None),  # MODE SENSE(6)
    (0x5A, None),  # MODE SENSE(10)
    (0x1C, None),  # RECEIVE DIAGNOSTIC RESULTS
    (0x1D, None),  # SEND DIAGNOSTIC
    *((0x5E, action) for action in range(4)),  # PERSISTENT RESERVE IN
    *((0x5F, action) for action in range(8)),  # PERSISTENT RESERVE OUT
}
_ALLOWED = {
    AccessState.STANDBY: (_BY_STANDBY, Asc.TARGET_PORT_IN_STANDBY),
    AccessState.UNAVAILABLE: (_BY_UNAVAILABLE, Asc.TARGET_PORT_UNAVAILABLE),
    AccessState.TRANSITIONING: (_BY_UNAVAILABLE - {(0xA4, 0x0A)}, Asc.ASYMMETRIC_ACCESS_TRANSITION),
}
"""Commands (opcode, service action) that the states other than active process, and what the others end with
(SPC-5, 5.17.2.5 to 5.17.2.8)."""


class Port(NamedTuple):
    """A target port: relative identifier, target port group, and iSCSI port name (`iqn…,t,0xTPGT`). Identifiers and
    groups are unique across arrays."""

    identifier: int
    group: int
    name: str


class PortGroup:
    """One target port group, as one logical unit has it: `names` of its ports by their relative identifiers."""

    def __init__(self, identifier: int, names: Mapping[int, str], state: AccessState) -> None:
        self.identifier = identifier
        self.names = dict(names)
        self.state = state
        self.status_code = StatusCode.NONE


class PortTakenError(Exception):
    """Another array names a target port as its own that is not."""


class PortGroups:
    """One logical unit's view of the target port groups that it is reached through: `own`, which this array's ports are
    in, and those of other arrays, as they turn up."""

    def __init__(self, group: int, ports: tuple[int, ...], names: tuple[str, ...]) -> None:
        self.own = PortGroup(group, dict(zip(ports, names, strict=True)), AccessState.ACTIVE_OPTIMIZED)
        self.groups = {group: self.own}

    def of_another_unit(self) -> PortGroups:
        """This array's ports, as they start out for one more logical unit."""
        return PortGroups(self.own.identifier, tuple(self.own.names), tuple(self.own.names.values()))

    @property
    def ports(self) -> tuple[int, ...]:
        """The relative identifiers of all target ports."""
        return tuple(port for group in self.groups.values() for port in group.names)

    def check(self, port: Port) -> None:
        """Raises PortTakenError for a port of another array that a host could not tell from one of this array's."""
        own = self.own
        if port.identifier in own.names or port.group == own.identifier or port.name in own.names.values():
            raise PortTakenError(f"its target port {port.identifier}, {port.name}, is one of this array's own")

    def meet(self, port: Port) -> None:
        """The logical unit is reached through a port of another array."""
        group = self.groups.get(port.group)
        if group is None:
            group = self.groups[port.group] = PortGroup(port.group, {}, AccessState.ACTIVE_NON_OPTIMIZED)
        group.names[port.identifier] = port.name

    def of_port(self, port: int) -> PortGroup:
        """The group that a port is in."""
        return next(group for group in self.groups.values() if port in group.names)

    def state_conflict(self, nexus: Nexus, command: Command) -> None:
        """Raises CheckCondition (NOT READY) when the state of the nexus' target port group refuses `command`."""
        refusing = _ALLOWED.get(self.of_port(nexus.port).state)
        if refusing is not None and (command.opcode, command.action) not in refusing[0]:
            raise CheckCondition(Key.NOT_READY, refusing[1])


def set_access_state(unit: LogicalUnit, group: PortGroup, state: AccessState, originator: Nexus | None) -> None:
    """Brings a group of `unit` to `state`, as `originator` asked or the array itself (None); the others are told."""
    group.status_code = StatusCode.SET_BY_ARRAY if originator is None else StatusCode.SET_BY_COMMAND
    if state is not group.state:
        group.state = state
        unit.establish_for_others(Asc.ASYMMETRIC_ACCESS_STATE_CHANGED, originator)
        unit.refresh_all()


GROUP_DESCRIPTOR = Struct(
    "access"
    / BitStruct(
        "pref" / Flag,
        Padding(3),
        "state" / BitsInteger(4),
        "t_sup" / Const(True, Flag),
        "o_sup" / Const(False, Flag),
        Padding(1),
        "lbd_sup" / Const(False, Flag),
        "u_sup" / Const(True, Flag),
        "s_sup" / Const(True, Flag),
        "an_sup" / Const(True, Flag),
        "ao_sup" / Flag,
        "group" / Bytewise(Int16ub),
    ),
    Padding(1),
    "status_code" / Int8ub,
    Padding(1),
    "port_count" / Int8ub,
)
"""Target port group descriptor without its ports (SPC-5, table 309)."""


def report_target_port_groups(unit: LogicalUnit, task: Task) -> None:
    """REPORT TARGET PORT GROUPS (SPC-5, 6.37), with the length only or the extended header."""
    parameter_format = task.cdb[1] >> 5
    if parameter_format > 1:
        raise invalid_field((1, 7))
    body = b"" if parameter_format == 0 else bytes((0x10, IMPLICIT_TRANSITION_SECONDS, 0, 0))
    groups = unit.port_groups
    for group in groups.groups.values():
        own = group is groups.own
        body += GROUP_DESCRIPTOR.build(
            {
                "access": {"pref": own, "state": group.state, "ao_sup": own, "group": group.identifier},
                "status_code": group.status_code,
                "port_count": len(group.names),
            }
        )
        body += b"".join(port.to_bytes(4, "big") for port in group.names)
    task.reply(len(body).to_bytes(4, "big") + body, int.from_bytes(task.cdb[6:10], "big"))


def set_target_port_groups(unit: LogicalUnit, task: Task) -> None:
    """SET TARGET PORT GROUPS (SPC-5, 6.45): all of the list is checked before any of it is done."""
    length = int.from_bytes(task.cdb[6:10], "big")
    data = bytes(task.data_out[:length])
    if len(data) < length or length % 4:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    wanted: dict[int, AccessState] = {}
    for at in range(4, length, 4):
        state = data[at] & 0x0F
        if state > AccessState.UNAVAILABLE:
            raise invalid_parameter((at, 3))
        identifier = int.from_bytes(data[at + 2 : at + 4], "big")
        if identifier not in unit.port_groups.groups:
            raise invalid_parameter(at + 2)
        if state == AccessState.ACTIVE_OPTIMIZED and identifier != unit.port_groups.own.identifier:
            # Linux asks for it whenever dm-multipath turns to a path. It would take it for as good as the direct one.
            raise invalid_parameter((at, 3))
        wanted[identifier] = AccessState(state)
    for identifier, asked in wanted.items():
        set_access_state(unit, unit.port_groups.groups[identifier], asked, task.nexus)


def parameter_list_length(_unit: LogicalUnit, cdb: bytes) -> int:
    """The Data-Out of SET TARGET PORT GROUPS, in bytes."""
    length = int.from_bytes(cdb[6:10], "big")
    if length > PARAMETER_LIST_MAX:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return length


COMMANDS: tuple[Command, ...] = (
    Command(
        "REPORT TARGET PORT GROUPS",
        0xA3,
        0x0A,
        bytes((0xA3, 0xEA, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, NACA)),
        report_target_port_groups,
        reserved=Reserved.ALLOWED,
    ),
    Command(
        "SET TARGET PORT GROUPS",
        0xA4,
        0x0A,
        bytes((0xA4, 0x0A, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, NACA)),
        set_target_port_groups,
        parameter_list_length,
        Reserved.WRITE,
    ),
)
