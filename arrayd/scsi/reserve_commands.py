"""PERSISTENT RESERVE IN and OUT (SPC-5, 6.15 and 6.16), RESERVE and RELEASE (SPC-2, 7.16 to 7.22)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from construct import BitsInteger, BitStruct, Const, Flag, Int16ub, Int32ub, Int64ub, Padding, Struct

from arrayd.scsi import transport_id
from arrayd.scsi.command import NACA, Command, Reserved
from arrayd.scsi.persistent import (
    NO_RESERVATION,
    Change,
    PersistentState,
    Registrant,
    check_key,
    clear,
    move,
    preempt,
    register,
    release,
    reserve,
)
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field, invalid_parameter

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import Task

PARAMETER_LIST_LENGTH = 24
PARAMETER_LIST_MAX = 16 * 1024
"""Longest parameter list, in bytes: with SPEC_I_PT, room for some 60 of the longest TransportIDs."""

READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)
"""Service actions (SPC-5, tables 223 and 228)."""

BASIC_LIST = Struct(
    "reservation_key" / Int64ub,
    "service_action_key" / Int64ub,
    Padding(4),
    "flags" / BitStruct(Padding(4), "spec_i_pt" / Flag, "all_tg_pt" / Flag, Padding(1), "aptpl" / Flag),
    Padding(3),
)
"""Parameter list of all service actions but REGISTER AND MOVE, without TransportIDs (SPC-5, table 229)."""

MOVE_LIST = Struct(
    "reservation_key" / Int64ub,
    "service_action_key" / Int64ub,
    Padding(1),
    "flags" / BitStruct(Padding(6), "unreg" / Flag, "aptpl" / Flag),
    "port" / Int16ub,
    "transport_id_length" / Int32ub,
)
"""Parameter list of REGISTER AND MOVE, without the TransportID (SPC-5, table 231)."""

CAPABILITIES = Struct(
    "length" / Const(8, Int16ub),
    "can"
    / BitStruct(
        "rlr_c" / Const(0, BitsInteger(1)),
        Padding(2),
        "crh" / Const(1, BitsInteger(1)),
        "sip_c" / Const(1, BitsInteger(1)),
        "atp_c" / Const(1, BitsInteger(1)),
        Padding(1),
        "ptpl_c" / Const(1, BitsInteger(1)),
        "tmv" / Const(1, BitsInteger(1)),
        "allow_commands" / Const(0, BitsInteger(3)),
        Padding(3),
        "ptpl_a" / Flag,
    ),
    "types" / Const(b"\xea\x01"),
    Padding(2),
)
"""REPORT CAPABILITIES (SPC-5, table 226): all six types; compatible with RESERVE as SPC-4, 5.13.3 has it."""

FULL_STATUS = struct.Struct(">Q4xBB4xHI")
"""A full status descriptor without its TransportID (SPC-5, table 228): key, ALL_TG_PT and R_HOLDER, scope and type,
relative target port, bytes of the TransportID. Precompiled, because there may be a thousand of them in one answer."""
R_HOLDER = 0x01


def read_keys(unit: LogicalUnit, task: Task) -> None:
    """READ KEYS (SPC-5, 6.15.2)."""
    keys = b"".join(key.to_bytes(8, "big") for key in unit.reservations.state.registrations.values())
    _reply_in(unit, task, keys)


def read_reservation(unit: LogicalUnit, task: Task) -> None:
    """READ RESERVATION (SPC-5, 6.15.3)."""
    state = unit.reservations.state
    descriptor = (
        b"" if state.type == NO_RESERVATION else state.key.to_bytes(8, "big") + bytes((0, 0, 0, 0, 0, state.type, 0, 0))
    )
    _reply_in(unit, task, descriptor)


def report_capabilities(unit: LogicalUnit, task: Task) -> None:
    """REPORT CAPABILITIES (SPC-5, 6.15.4)."""
    task.reply(CAPABILITIES.build({"can": {"ptpl_a": unit.reservations.aptpl}}), _allocation_length(task))


def read_full_status(unit: LogicalUnit, task: Task) -> None:
    """READ FULL STATUS (SPC-5, 6.15.5)."""
    state = unit.reservations.state
    _reply_in(unit, task, b"".join(_full_status(state, r, key) for r, key in state.registrations.items()))


def _full_status(state: PersistentState, registrant: Registrant, key: int) -> bytes:
    holds = state.held_by(registrant)
    named = transport_id.build(registrant.initiator_port)
    flags, kind = (R_HOLDER, state.type) if holds else (0, 0)
    return FULL_STATUS.pack(key, flags, kind, registrant.port, len(named)) + named


def _reply_in(unit: LogicalUnit, task: Task, body: bytes) -> None:
    """PRGENERATION, the length of what follows, and that (SPC-5, table 224)."""
    head = unit.reservations.generation.to_bytes(4, "big") + len(body).to_bytes(4, "big")
    task.reply(head + body, _allocation_length(task))


def _allocation_length(task: Task) -> int:
    return int.from_bytes(task.cdb[7:9], "big")


@dataclass(frozen=True, slots=True)
class Request:
    """A PERSISTENT RESERVE OUT, read and checked as far as it can be without the state."""

    transition: Callable[[PersistentState], Change]
    counts: bool = True
    aptpl: bool | None = None


async def persistent_reserve_out(unit: LogicalUnit, task: Task) -> None:
    """PERSISTENT RESERVE OUT but for REGISTER AND MOVE (SPC-5, 6.16)."""
    await _carry_out(unit, task, _basic_request(unit, task))


async def register_and_move(unit: LogicalUnit, task: Task) -> None:
    """REGISTER AND MOVE (SPC-5, 6.16.4)."""
    await _carry_out(unit, task, _move_request(unit, task))


async def preempt_and_abort(unit: LogicalUnit, task: Task) -> None:
    """PREEMPT AND ABORT (SPC-5, 5.14.11.2.5): done when the tasks of the preempted nexuses have ended."""
    change = await _carry_out(unit, task, _basic_request(unit, task))
    preempted = [t for t in unit.tasks if t is not task and Registrant.of(t.nexus) in change.preempted]
    if not unit.mode_pages.task_aborted_status:
        for nexus in {t.nexus for t in preempted if t.nexus is not task.nexus}:
            unit.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, nexus)
    ended = asyncio.Event()
    unit.abort(preempted, ended.set, task.nexus)
    await ended.wait()


async def _carry_out(unit: LogicalUnit, task: Task, request: Request) -> Change:
    """Brings the change about and tells the nexuses that are here; who is not learns of it by READ KEYS."""

    def transition(state: PersistentState) -> Change:
        if task.aborted:  # while it waited for its turn
            raise CheckCondition(Key.ABORTED_COMMAND, Asc.NONE)
        return request.transition(state)

    change = await unit.reservations.change(transition, counts=request.counts, aptpl=request.aptpl)
    present: dict[Registrant, Nexus] = {Registrant.of(nexus): nexus for nexus in unit.attentions}
    for registrant, asc in change.attentions:
        if registrant in present:
            unit.establish(asc, present[registrant])
    return change


def _basic_request(unit: LogicalUnit, task: Task) -> Request:
    """Reads CDB and parameter list of all service actions but REGISTER AND MOVE."""
    data = _parameter_list(task)
    action = task.cdb[1] & 0x1F
    fields = BASIC_LIST.parse(data[:PARAMETER_LIST_LENGTH])
    flags, key, new_key = fields.flags, fields.reservation_key, fields.service_action_key
    if flags.spec_i_pt and action != REGISTER:
        raise invalid_parameter((20, 3))
    if len(data) != PARAMETER_LIST_LENGTH and not flags.spec_i_pt:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    sender = Registrant.of(task.nexus)
    if action in (REGISTER, REGISTER_AND_IGNORE):
        initiators = [sender.initiator_port, *(_initiator_ports(data) if flags.spec_i_pt else ())]
        ports = unit.port_groups.ports if flags.all_tg_pt else (sender.port,)
        registrants = {Registrant(initiator, port): None for initiator in initiators for port in ports}
        known_key = key if action == REGISTER else None

        def registration(state: PersistentState) -> Change:
            if flags.spec_i_pt and sender in state.registrations:
                check_key(state, sender, key)
                raise invalid_parameter((20, 3))
            return register(state, sender, registrants, known_key, new_key)

        return Request(registration, aptpl=flags.aptpl)

    # A scope other than the logical unit's makes a type that is none, and so is refused as one.
    kind = task.cdb[2]
    actions: dict[int, Callable[[PersistentState], Change]] = {
        RESERVE: partial(reserve, sender=sender, kind=kind),
        RELEASE: partial(release, sender=sender, kind=kind),
        CLEAR: partial(clear, sender=sender),
        PREEMPT: partial(preempt, sender=sender, victim_key=new_key, kind=kind),
        PREEMPT_AND_ABORT: partial(preempt, sender=sender, victim_key=new_key, kind=kind),
    }
    return Request(_with_key(sender, key, actions[action]), counts=action not in (RESERVE, RELEASE))


def _with_key(
    sender: Registrant, key: int, transition: Callable[[PersistentState], Change]
) -> Callable[[PersistentState], Change]:
    def checked(state: PersistentState) -> Change:
        check_key(state, sender, key)
        return transition(state)

    return checked


def _move_request(unit: LogicalUnit, task: Task) -> Request:
    data = _parameter_list(task)
    fields = MOVE_LIST.parse(data[:PARAMETER_LIST_LENGTH])
    if len(data) != PARAMETER_LIST_LENGTH + fields.transport_id_length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    sender = Registrant.of(task.nexus)

    def moving(state: PersistentState) -> Change:
        if fields.service_action_key == 0:
            raise invalid_parameter(8)
        if fields.port not in unit.port_groups.ports:
            raise invalid_parameter(18)
        names = list(_transport_ids(data, PARAMETER_LIST_LENGTH))
        destination = Registrant(names[0], fields.port) if len(names) == 1 else sender
        if destination == sender:
            raise invalid_parameter(PARAMETER_LIST_LENGTH)
        return move(state, sender, destination, fields.service_action_key, fields.flags.unreg)

    return Request(_with_key(sender, fields.reservation_key, moving), aptpl=fields.flags.aptpl)


def _parameter_list(task: Task) -> bytes:
    length = int.from_bytes(task.cdb[5:9], "big")
    if length < PARAMETER_LIST_LENGTH or len(task.data_out) < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return bytes(task.data_out[:length])


def _initiator_ports(data: bytes) -> list[str]:
    """The initiator ports that SPEC_I_PT names (SPC-5, table 230)."""
    start = PARAMETER_LIST_LENGTH + 4
    if len(data) < start or int.from_bytes(data[PARAMETER_LIST_LENGTH:start], "big") != len(data) - start:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return list(_transport_ids(data, start))


def _transport_ids(data: bytes, at: int) -> Iterable[str]:
    """The initiator ports of the TransportIDs that fill `data` from `at` on."""
    while at < len(data):
        try:
            name, length = transport_id.parse(data[at:])
        except ValueError:
            raise invalid_parameter(at) from None
        yield name
        at += length


def parameter_list_length(_unit: LogicalUnit, cdb: bytes) -> int:
    """The Data-Out of PERSISTENT RESERVE OUT, in bytes."""
    length = int.from_bytes(cdb[5:9], "big")
    if length > PARAMETER_LIST_MAX:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return length


def reserve_unit(unit: LogicalUnit, task: Task) -> None:
    """RESERVE(6) and RESERVE(10), of the whole logical unit and for the sender (SPC-2, 7.21 and 7.22)."""
    _refuse_third_parties(task)
    unit.reservations.reserve(task.nexus)


def release_unit(unit: LogicalUnit, task: Task) -> None:
    """RELEASE(6) and RELEASE(10) (SPC-2, 7.16 and 7.17)."""
    _refuse_third_parties(task)
    unit.reservations.release(task.nexus)


def _refuse_third_parties(task: Task) -> None:
    """Extents and third parties, which SPC-2 leaves optional, are not supported."""
    for bit in (4, 1, 0):
        if task.cdb[1] >> bit & 1:
            raise invalid_field((1, bit))


def _in(name: str, action: int, handler: Callable[[LogicalUnit, Task], None]) -> Command:
    return Command(
        f"PERSISTENT RESERVE IN, {name}",
        0x5E,
        action,
        bytes((0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, NACA)),
        handler,
        reserved=Reserved.ALLOWED,
        # More than SAM-5, 5.14 allows: who fences, or cleans up, after a reset reads the keys first, and tools that
        # do (sg_persist, libiscsi's) take a unit attention for a failure. It stays pending for the next command.
        ignores_attention=action == READ_KEYS,
    )


def _out(name: str, action: int, scope_type: int = 0) -> Command:
    """`scope_type` is the mask of the byte of scope and type, which some service actions ignore."""
    handlers = {PREEMPT_AND_ABORT: preempt_and_abort, REGISTER_AND_MOVE: register_and_move}
    return Command(
        f"PERSISTENT RESERVE OUT, {name}",
        0x5F,
        action,
        bytes((0x5F, action, scope_type, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, NACA)),
        handlers.get(action, persistent_reserve_out),
        parameter_list_length,
        Reserved.OWN_RULE,
    )


COMMANDS: tuple[Command, ...] = (
    _in("READ KEYS", READ_KEYS, read_keys),
    _in("READ RESERVATION", READ_RESERVATION, read_reservation),
    _in("REPORT CAPABILITIES", REPORT_CAPABILITIES, report_capabilities),
    _in("READ FULL STATUS", READ_FULL_STATUS, read_full_status),
    _out("REGISTER", REGISTER),
    _out("RESERVE", RESERVE, 0xFF),
    _out("RELEASE", RELEASE, 0xFF),
    _out("CLEAR", CLEAR),
    _out("PREEMPT", PREEMPT, 0xFF),
    _out("PREEMPT AND ABORT", PREEMPT_AND_ABORT, 0xFF),
    _out("REGISTER AND IGNORE EXISTING KEY", REGISTER_AND_IGNORE),
    _out("REGISTER AND MOVE", REGISTER_AND_MOVE),
    Command("RESERVE(6)", 0x16, None, bytes((0x16, 0, 0, 0, 0, NACA)), reserve_unit, reserved=Reserved.OWN_RULE),
    Command("RELEASE(6)", 0x17, None, bytes((0x17, 0, 0, 0, 0, NACA)), release_unit, reserved=Reserved.OWN_RULE),
    Command("RESERVE(10)", 0x56, None, bytes((0x56, *bytes(8), NACA)), reserve_unit, reserved=Reserved.OWN_RULE),
    Command("RELEASE(10)", 0x57, None, bytes((0x57, *bytes(8), NACA)), release_unit, reserved=Reserved.OWN_RULE),
)
