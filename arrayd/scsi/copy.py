"""EXTENDED COPY (LID1) and RECEIVE COPY RESULTS: the copy manager (SPC-4, 5.16, 6.4 and 6.18 to 6.22).

A copy touches the logical units that its nexus sees, and only as far as the nexus itself may, step by step: what a
READ(16) of the source or a WRITE(16) of the destination would be refused, ends the copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arrayd.scsi import copy_descriptors
from arrayd.scsi.command import NACA, Command, Reserved
from arrayd.scsi.copy_descriptors import CONCURRENT_COPIES_MAX, COPY_STATUS, OPERATING_PARAMETERS, Cscd, Segment
from arrayd.scsi.designators import logical_unit_designators
from arrayd.scsi.sense import Asc, CheckCondition, Key, illegal_request, invalid_field
from arrayd.scsi.steps import scratch, settled, steps
from arrayd.scsi.task import Status
from arrayd.scsi.virtual_unit import VirtualUnit
from arrayd.volumes.volume import Extent, VolumeError

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.task import Task

READ_16 = bytes((0x88,)) + bytes(15)
WRITE_16 = bytes((0x8A,)) + bytes(15)

EXTENTS_AT_A_TIME = 256

IN_PROGRESS, COMPLETED, COMPLETED_WITH_ERRORS = range(3)
"""COPY MANAGER STATUS (SPC-4, table 242)."""


class Copy:
    """How far one copy has come."""

    def __init__(self) -> None:
        self.status = IN_PROGRESS
        self.segments_done = 0
        self.bytes_done = 0
        self.failure: CheckCondition | None = None


class Copies:
    """The copies of one logical unit: those under way, and by nexus and list identifier what became of the last ones.

    A list identifier is one byte, so at most 256 are remembered for a nexus.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self._remembered: dict[Nexus, dict[int, Copy]] = {}

    def begin(self, nexus: Nexus, list_id: int | None) -> Copy:
        """A new copy, remembered as `list_id`. Raises CheckCondition if one of that identifier is under way."""
        copy = Copy()
        if list_id is not None:
            remembered = self._remembered.setdefault(nexus, {})
            before = remembered.get(list_id)
            if before is not None and before.status == IN_PROGRESS:
                raise illegal_request(Asc.OPERATION_IN_PROGRESS)
            remembered[list_id] = copy
        self.under_way += 1
        return copy

    def end(self, copy: Copy) -> None:
        """The copy has ended, well or with its `failure`, or was aborted while it was in progress."""
        self.under_way -= 1
        if copy.status == IN_PROGRESS:
            copy.status = COMPLETED_WITH_ERRORS

    def find(self, nexus: Nexus, list_id: int) -> Copy:
        """The copy that `nexus` knows as `list_id`. Raises CheckCondition."""
        copy = self._remembered.get(nexus, {}).get(list_id)
        if copy is None:
            raise invalid_field(2)
        return copy

    def nexus_lost(self, nexus: Nexus) -> None:
        """I_T nexus loss: nobody will ask for its copies again."""
        self._remembered.pop(nexus, None)


async def extended_copy(unit: LogicalUnit, task: Task) -> None:
    """EXTENDED COPY (LID1) (SPC-4, 6.4). Segments are copied in order; the first that fails ends the copy."""
    length = int.from_bytes(task.cdb[10:14], "big")
    if length == 0:
        return
    if len(task.data_out) < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    wanted = copy_descriptors.parse(bytes(task.data_out[:length]))
    if unit.copies.under_way == CONCURRENT_COPIES_MAX:
        task.status = Status.BUSY
        return
    copy = unit.copies.begin(task.nexus, wanted.list_id)
    try:
        for segment in wanted.segments:
            found = _range_of(unit, task, wanted.cscds, segment)
            async with scratch(unit.scratch) as memory:
                await _copy_range(task, copy, found, memory)
            if task.aborted:
                return
            copy.segments_done += 1
        copy.status = COMPLETED
    except CheckCondition as error:
        copy.failure = error
        raise
    except VolumeError as error:
        copy.failure = _aborted(Asc.THIRD_PARTY_DEVICE_FAILURE)
        raise copy.failure from error
    finally:
        unit.copies.end(copy)


@dataclass(frozen=True, slots=True)
class Range:
    """A segment in bytes: `length` from `start` of the source to `target` of the destination."""

    source: LogicalUnit
    destination: LogicalUnit
    start: int
    target: int
    length: int

    @property
    def overlaps_ahead(self) -> bool:
        """Whether the copy goes into what it still has to read: it then goes backwards."""
        return self.source is self.destination and self.start < self.target < self.start + self.length


def _range_of(unit: LogicalUnit, task: Task, cscds: list[Cscd], segment: Segment) -> Range:
    """Finds the units of `segment` and checks it against them. Raises CheckCondition (COPY ABORTED)."""
    source = _find_unit(unit, task, cscds, segment.source)
    destination = _find_unit(unit, task, cscds, segment.destination)
    from_size, to_size = source.disk.block_size, destination.disk.block_size
    length = segment.blocks * (to_size if segment.counts_destination else from_size)
    if length % from_size or length % to_size:
        raise _aborted(Asc.UNEXPECTED_INEXACT_SEGMENT)
    found = Range(source, destination, segment.source_lba * from_size, segment.destination_lba * to_size, length)
    if found.start + length > source.disk.size or found.target + length > destination.disk.size:
        raise _aborted(Asc.NONE)
    return found


async def _copy_range(task: Task, copy: Copy, wanted: Range, memory: memoryview) -> None:
    at, end = wanted.start, wanted.start + wanted.length
    while at < end:
        extents = await _extents(task.nexus, wanted, at)
        for extent in extents:
            pieces = list(steps(extent.offset, extent.length))
            for offset, size in reversed(pieces) if wanted.overlaps_ahead else pieces:
                if task.aborted:
                    return
                await _copy_piece(task.nexus, wanted, Extent(offset, size, extent.mapped), memory[:size])
                copy.bytes_done += size
        at = extents[-1].offset + extents[-1].length


async def _extents(nexus: Nexus, wanted: Range, at: int) -> list[Extent]:
    """The next extents of the source: what has no data there needs none at the destination either."""
    _check_access(nexus, wanted.source, READ_16)
    source, length = wanted.source.disk, wanted.start + wanted.length - at
    if wanted.overlaps_ahead or source.block_size != wanted.destination.disk.block_size:
        return [Extent(at, length, True)]
    return await source.extents(at, length, EXTENTS_AT_A_TIME)


async def _copy_piece(nexus: Nexus, wanted: Range, piece: Extent, memory: memoryview) -> None:
    """Asks before each request what may be by now: while one was awaited, a unit may have gone, and its volume, or
    another may be in the place of that."""
    target = piece.offset - wanted.start + wanted.target
    if piece.mapped:
        _check_access(nexus, wanted.source, READ_16)
        await settled(wanted.source.disk.read(piece.offset, memory))
    _check_access(nexus, wanted.destination, WRITE_16)
    disk = wanted.destination.disk
    if piece.mapped:
        await settled(disk.write(target, memory))
    elif disk.thin:
        await settled(disk.unmap(target, piece.length))
    else:
        await settled(disk.write_zeros(target, piece.length))


def _find_unit(unit: LogicalUnit, task: Task, cscds: list[Cscd], index: int) -> LogicalUnit:
    """The block device that the nexus sees under the designator of CSCD `index`. Raises CheckCondition."""
    if index >= len(cscds):
        raise _aborted(Asc.COPY_TARGET_NOT_REACHABLE)
    cscd = cscds[index]
    for candidate in (unit, *task.nexus.units.values()):
        # A logical unit of another array is not copied from here: hosts ask that array. A command device is not at all:
        # to read it is to take answers that are for somebody.
        if isinstance(candidate, VirtualUnit) or candidate.volume is None or candidate.volume.takes_commands:
            continue
        if cscd.designator in logical_unit_designators(candidate.identity):
            if cscd.device_type != candidate.device_type or cscd.block_bytes != candidate.volume.block_size:
                raise _aborted(Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE)
            found: LogicalUnit = candidate
            return found
    raise _aborted(Asc.COPY_TARGET_NOT_REACHABLE)


def _check_access(nexus: Nexus, unit: LogicalUnit, cdb: bytes) -> None:
    """Raises CheckCondition unless `nexus` sees `unit` and could now send it the command `cdb` itself."""
    if nexus not in unit.attentions:
        raise _aborted(Asc.COPY_TARGET_NOT_REACHABLE)
    if unit.not_ready is not None or not unit.may(nexus, unit.commands.find(unit, cdb)):
        raise _aborted(Asc.THIRD_PARTY_DEVICE_FAILURE)


def _aborted(asc: Asc) -> CheckCondition:
    return CheckCondition(Key.COPY_ABORTED, asc)


def receive_copy_status(unit: LogicalUnit, task: Task) -> None:
    """RECEIVE COPY STATUS (LID1) (SPC-4, 6.22)."""
    copy = unit.copies.find(task.nexus, task.cdb[2])
    fields = {
        "status": copy.status,
        "segments_processed": copy.segments_done,
        "transfer_count": copy.bytes_done >> 10,
    }
    task.reply(COPY_STATUS.build(fields), _allocation_length(task))


def receive_copy_data(unit: LogicalUnit, task: Task) -> None:
    """RECEIVE COPY DATA (LID1) (SPC-4, 6.18): a block to block copy holds no data."""
    if unit.copies.find(task.nexus, task.cdb[2]).status == IN_PROGRESS:
        raise invalid_field(2)
    task.reply(bytes(4), _allocation_length(task))


def receive_copy_operating_parameters(_unit: LogicalUnit, task: Task) -> None:
    """RECEIVE COPY OPERATING PARAMETERS (SPC-4, 6.20)."""
    task.reply(OPERATING_PARAMETERS.build({}), _allocation_length(task))


def receive_copy_failure_details(unit: LogicalUnit, task: Task) -> None:
    """RECEIVE COPY FAILURE DETAILS (LID1) (SPC-4, 6.19): status and sense data of a copy that failed, or nothing."""
    copy = unit.copies.find(task.nexus, task.cdb[2])
    if copy.status == IN_PROGRESS:
        raise invalid_field(2)
    if copy.failure is None:
        task.reply(bytes(4), _allocation_length(task))
        return
    sense = copy.failure.descriptor() if unit.mode_pages.descriptor_sense else copy.failure.fixed()
    body = bytes(52) + bytes((Status.CHECK_CONDITION, 0)) + len(sense).to_bytes(2, "big") + sense
    task.reply(len(body).to_bytes(4, "big") + body, _allocation_length(task))


def _allocation_length(task: Task) -> int:
    return int.from_bytes(task.cdb[10:14], "big")


def parameter_list_length(_unit: LogicalUnit, cdb: bytes) -> int:
    """The Data-Out of EXTENDED COPY, in bytes."""
    length = int.from_bytes(cdb[10:14], "big")
    if length > copy_descriptors.PARAMETER_LIST_MAX:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return length


_LENGTH_USAGE = bytes((0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, NACA))
"""CDB usage data of bytes 3 to 15."""

COMMANDS: tuple[Command, ...] = (
    Command(
        "EXTENDED COPY(LID1)",
        0x83,
        0x00,
        bytes((0x83, 0x00, 0)) + _LENGTH_USAGE,
        extended_copy,
        parameter_list_length,
    ),
    Command(
        "RECEIVE COPY STATUS(LID1)",
        0x84,
        0x00,
        bytes((0x84, 0x00, 0xFF)) + _LENGTH_USAGE,
        receive_copy_status,
    ),
    Command(
        "RECEIVE COPY DATA(LID1)",
        0x84,
        0x01,
        bytes((0x84, 0x01, 0xFF)) + _LENGTH_USAGE,
        receive_copy_data,
    ),
    Command(
        "RECEIVE COPY OPERATING PARAMETERS",
        0x84,
        0x03,
        bytes((0x84, 0x03, 0)) + _LENGTH_USAGE,
        receive_copy_operating_parameters,
        reserved=Reserved.ALLOWED,
    ),
    Command(
        "RECEIVE COPY FAILURE DETAILS(LID1)",
        0x84,
        0x04,
        bytes((0x84, 0x04, 0xFF)) + _LENGTH_USAGE,
        receive_copy_failure_details,
    ),
)
