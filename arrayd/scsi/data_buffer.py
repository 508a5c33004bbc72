"""WRITE BUFFER and READ BUFFER(10): data, descriptor and echo modes (SPC-5, 6.52 and 6.18), and in the vendor specific
mode command interfaces and what became of them (figures 27 and 28).

Every nexus has a buffer of its own in each logical unit, with or without a medium, so that hosts do not disturb one
another.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from arrayd.origin import Origin
from arrayd.scsi.cdb import be24
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, illegal_request, invalid_field

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import Task

VENDOR = 0x01
DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B
"""Modes (SPC-5, tables 223 and 405)."""
MODE = 0x1F

DATA_BYTES = 64 * 1024
ECHO_BYTES = 4096
"""Capacity of the data and of the echo buffer."""
OFFSET_BOUNDARY = 0
"""Buffer offsets may be any multiple of 2**OFFSET_BOUNDARY bytes."""
COMMAND_BYTES_MAX = 256 * 1024
"""Of a command interface."""


class Sent(Protocol):
    """A command interface that was taken."""

    def answer(self) -> Awaitable[bytes] | bytes:
        """What is known of it now, or a little later."""


class Commander(Protocol):
    """Takes command interfaces; see `arrayd.commands`."""

    def take(self, origin: Origin, message: bytes) -> Sent:
        """Takes one, whatever it is: what is wrong with it is in its answer."""


class DataBuffers:
    """The data and echo buffers of each nexus, made when first written; `commander` takes command interfaces."""

    def __init__(self, commander: Commander | None = None) -> None:
        self.commander = commander
        self.data: dict[Nexus, bytearray] = {}
        self.echo: dict[Nexus, bytes] = {}

    def nexus_lost(self, nexus: Nexus) -> None:
        """What `nexus` wrote goes."""
        self.data.pop(nexus, None)
        self.echo.pop(nexus, None)


def _parameter_length(unit: LogicalUnit, cdb: bytes) -> int:
    mode, length = cdb[1] & MODE, be24(cdb, 6)
    if cdb[1] & ~MODE & 0xFF:
        raise invalid_field((1, 7))
    if mode == DATA:
        if cdb[2]:
            raise invalid_field(2)
        offset = be24(cdb, 3)
        if offset > DATA_BYTES:
            raise invalid_field(3)
        if offset + length > DATA_BYTES:
            raise invalid_field(6)
    elif mode == ECHO:
        if length > ECHO_BYTES:
            raise invalid_field(6)
    elif mode == VENDOR and unit.data_buffers.commander is not None:
        if any(cdb[3:6]):
            raise invalid_field(3)
        if length > COMMAND_BYTES_MAX:
            raise invalid_field(6)
    else:
        raise invalid_field((1, 4))
    return length


def write_buffer(unit: LogicalUnit, task: Task) -> None:
    """WRITE BUFFER, modes data, echo and vendor specific."""
    nexus, data = task.nexus, task.data_out[: task.wanted_out]
    mode = task.cdb[1] & MODE
    if mode == ECHO:
        unit.data_buffers.echo[nexus] = bytes(data)
        return
    if mode == VENDOR:
        assert unit.data_buffers.commander is not None
        nexus.sent[task.cdb[2]] = unit.data_buffers.commander.take(nexus.origin, bytes(data))
        return
    buffer = unit.data_buffers.data.setdefault(nexus, bytearray(DATA_BYTES))
    offset = be24(task.cdb, 3)
    buffer[offset : offset + len(data)] = data


def read_buffer(unit: LogicalUnit, task: Task) -> Awaitable[None] | None:
    """READ BUFFER(10), modes data, descriptor, echo, echo descriptor and vendor specific."""
    cdb, nexus = task.cdb, task.nexus
    mode, length = cdb[1] & MODE, be24(cdb, 6)
    if cdb[1] & ~MODE & 0xFF:
        raise invalid_field((1, 7))
    if mode == DATA:
        task.reply(_data(unit, nexus, cdb), length)
    elif mode == DESCRIPTOR:
        capacity = DATA_BYTES if cdb[2] == 0 else 0
        task.reply(bytes((OFFSET_BOUNDARY,)) + capacity.to_bytes(3, "big"), length)
    elif mode == ECHO:
        echo = unit.data_buffers.echo.get(nexus)
        if echo is None:
            raise illegal_request(Asc.COMMAND_SEQUENCE_ERROR)
        task.reply(echo, length)
    elif mode == ECHO_DESCRIPTOR:
        task.reply(ECHO_BYTES.to_bytes(4, "big"), length)
    elif mode == VENDOR and unit.data_buffers.commander is not None:
        return _read_answer(task)
    else:
        raise invalid_field((1, 4))
    return None


def _read_answer(task: Task) -> Awaitable[None] | None:
    """What became of the command interface that was written last to this buffer ID."""
    cdb = task.cdb
    if any(cdb[3:6]):
        raise invalid_field(3)
    sent = task.nexus.sent.get(cdb[2])
    if sent is None:
        raise illegal_request(Asc.COMMAND_SEQUENCE_ERROR)
    answer = sent.answer()
    if not isinstance(answer, bytes):
        return _reply_later(task, answer)
    task.reply(answer, be24(cdb, 6))
    return None


async def _reply_later(task: Task, answer: Awaitable[bytes]) -> None:
    task.reply(await answer, be24(task.cdb, 6))


def _data(unit: LogicalUnit, nexus: Nexus, cdb: bytes) -> bytes:
    offset = be24(cdb, 3)
    if cdb[2]:
        raise invalid_field(2)
    if offset > DATA_BYTES:
        raise invalid_field(3)
    buffer = unit.data_buffers.data.get(nexus)
    return bytes(DATA_BYTES - offset) if buffer is None else bytes(buffer[offset:])


def is_command_interface(cdb: bytes) -> bool:
    """Whether it writes a command interface, or reads what became of it."""
    return cdb[0] in COMMAND_INTERFACES and cdb[1] & MODE == VENDOR


COMMANDS = (
    Command(
        "WRITE BUFFER", 0x3B, None, bytes.fromhex("3b1fffffffffffffff04"), write_buffer, _parameter_length,
        Reserved.WRITE,
    ),
    Command("READ BUFFER(10)", 0x3C, None, bytes.fromhex("3c1fffffffffffffff04"), read_buffer, reserved=Reserved.READ),
)  # fmt: skip

COMMAND_INTERFACES = {command.opcode: command for command in COMMANDS}
"""The commands that carry them, by operation code."""
