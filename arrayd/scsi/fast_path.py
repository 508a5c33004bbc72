"""READ and WRITE that complete on the spot: the hottest code of the project (SBC-4, 5.15 to 5.18 and 5.40 to 5.43).

A closure per operation code, with everything that does not change between commands bound into it. It does the plain
case only: no flag but DPO, no group, no control bits, data as long as the CDB says, within capacity. For anything else
it returns False with nothing done, and the command takes the long way, which says what is wrong with it.

See `arrayd.scsi.task.FastIO` for how the CDB arrives: `word` is its bytes 2-9 and `count` its bytes 10-13.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

from arrayd.log import get_logger
from arrayd.scsi.block import READ_10 as READ_10_ROW
from arrayd.scsi.block import WRITE_10 as WRITE_10_ROW
from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.task import (
    BY_FILE,
    FETCH,
    TO_INITIATOR,
    TO_TARGET,
    Commit,
    FastIO,
    FastTable,
    Fetch,
    FileExtent,
    Status,
)
from arrayd.volumes.volume import VolumeFull, VolumeReadOnly

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.nexus import Nexus

READ_6, READ_10, READ_12, READ_16 = (TO_INITIATOR | opcode for opcode in (0x08, 0x28, 0xA8, 0x88))
LONG_READ_10, LONG_READ_12, LONG_READ_16 = (BY_FILE | opcode for opcode in (0x28, 0xA8, 0x88))
FETCH_10, FETCH_12, FETCH_16 = (FETCH | opcode for opcode in (0x28, 0xA8, 0x88))
WRITE_6, WRITE_10, WRITE_12, WRITE_16 = (TO_TARGET | opcode for opcode in (0x0A, 0x2A, 0xAA, 0x8A))

NOT_DPO = 0xEF
"""DPO (disable page out) is advice that we do not take; every other bit of byte 1 asks for something."""

log = get_logger("scsi")

TransferNow = Callable[[int, Any], bool | Commit]
"""`transfer_now(offset, view)`, the range and the length checked; `view` as `FastIO` has it."""


def fast(unit: LogicalUnit, nexus: Nexus) -> FastTable:
    """What `nexus` may do on the spot with a `unit` that has a medium and stands ready."""
    table: FastTable = {}
    volume = unit.disk
    shift = volume.block_size.bit_length() - 1
    if unit.may(nexus, READ_10_ROW):
        table[READ_6] = _six(volume.read_now, shift, volume.size)
        table[READ_10] = _ten(volume.read_now, shift, volume.size)
        table[READ_12] = _twelve(volume.read_now, shift, volume.size)
        table[READ_16] = _sixteen(volume.read_now, shift, volume.size)
        name_file = _name_file(unit)
        table[LONG_READ_10] = _ten(name_file, shift, volume.size)
        table[LONG_READ_12] = _twelve(name_file, shift, volume.size)
        table[LONG_READ_16] = _sixteen(name_file, shift, volume.size)
        fetch = _fetch(unit)
        table[FETCH_10] = _ten(fetch, shift, volume.size)
        table[FETCH_12] = _twelve(fetch, shift, volume.size)
        table[FETCH_16] = _sixteen(fetch, shift, volume.size)
    if unit.may(nexus, WRITE_10_ROW):
        on_the_spot = volume.write_cache and not volume.answers_later
        write_now = volume.write_now if on_the_spot else _write_and_commit(unit)
        table[WRITE_6] = _six(write_now, shift, volume.size)
        table[WRITE_10] = _ten(write_now, shift, volume.size)
        table[WRITE_12] = _twelve(write_now, shift, volume.size)
        table[WRITE_16] = _sixteen(write_now, shift, volume.size)
    return table


def _name_file(unit: LogicalUnit) -> TransferNow:
    """Reads by saying in which file, and where in it, the data lies warm."""
    warm_file = unit.disk.warm_file

    def name_file(offset: int, extent: FileExtent) -> bool:
        file = warm_file(offset, extent.length)
        if file is None:
            return False
        extent.file, extent.offset = file, offset
        return True

    return name_file


def _fetch(unit: LogicalUnit) -> TransferNow:
    """Reads from the disk, and says so when that is done."""
    fetch_now, buffers = unit.disk.fetch_now, unit.buffers

    def fetch(offset: int, fetch: Fetch) -> bool:
        buffer = buffers.take(fetch.length)
        if buffer is None:
            return False
        future = fetch_now(offset, buffer.view)
        if future is None:
            buffer.release()
            return False
        fetch.buffer = buffer
        unit.fetches += 1
        future.add_done_callback(partial(_end_fetch, unit, fetch))
        return True

    return fetch


def _end_fetch(unit: LogicalUnit, fetch: Fetch, future: asyncio.Future[None]) -> None:
    if future.exception() is not None:
        assert fetch.buffer is not None
        fetch.buffer.release()
        fetch.buffer = None
        fetch.status = Status.CHECK_CONDITION
        fetch.sense = unit.sense_data(CheckCondition(Key.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR))
    fetch.ended(fetch)
    unit.fetch_ended()


def _write_and_commit(unit: LogicalUnit) -> TransferNow:
    """Writes to a volume without a write cache, or that answers later: taken on the spot, and answered together when
    they are durable, or done."""
    commit_now = unit.disk.commit_now
    latest: tuple[asyncio.Future[None] | None, Commit] = (None, Commit())

    def write(offset: int, view: memoryview) -> bool | Commit:
        nonlocal latest
        future = commit_now(offset, view)
        if future is None:
            return False
        if future is not latest[0]:
            latest = (future, Commit())
            future.add_done_callback(partial(_end_commit, unit, latest[1]))
        return latest[1]

    return write


def _end_commit(unit: LogicalUnit, commit: Commit, future: asyncio.Future[None]) -> None:
    error = future.exception()
    if error is None:
        commit.end(Status.GOOD, b"")
    elif isinstance(error, VolumeFull | VolumeReadOnly):
        # Read-only: they waited, and the volume has become such meanwhile.
        asc = Asc.SPACE_ALLOCATION_FAILED if isinstance(error, VolumeFull) else Asc.WRITE_PROTECTED
        commit.end(Status.CHECK_CONDITION, unit.sense_data(CheckCondition(Key.DATA_PROTECT, asc)))
    else:
        log.error("writes are not durable", lun=unit.number, reason=str(error))
        commit.end(Status.CHECK_CONDITION, unit.sense_data(CheckCondition(Key.MEDIUM_ERROR, Asc.WRITE_ERROR)))


def _ten(transfer_now: TransferNow, shift: int, size: int) -> FastIO:
    # Bytes 6-9 are group number, transfer length (16 bits) and control: shifted left by 8 less than a block they are
    # the length in bytes, exactly when group number and control are zero.
    tail_shift = shift - 8

    def ten(flags: int, word: int, _count: int, view: Sized) -> bool | Commit:
        length = len(view)
        offset = (word >> 32) << shift
        if (word & 0xFFFFFFFF) << tail_shift != length or offset + length > size or flags & NOT_DPO or not length:
            return False
        return transfer_now(offset, view)

    return ten


def _sixteen(transfer_now: TransferNow, shift: int, size: int) -> FastIO:
    def sixteen(flags: int, word: int, count: int, view: Sized) -> bool | Commit:
        length = len(view)
        offset = word << shift
        if count << shift != length or offset + length > size or flags & NOT_DPO or not length:
            return False
        return transfer_now(offset, view)

    return sixteen


def _twelve(transfer_now: TransferNow, shift: int, size: int) -> FastIO:
    def twelve(flags: int, word: int, count: int, view: Sized) -> bool | Commit:
        length = len(view)
        offset = (word >> 32) << shift
        if (word & 0xFFFFFFFF) << shift != length or count or offset + length > size or flags & NOT_DPO or not length:
            return False
        return transfer_now(offset, view)

    return twelve


def _six(transfer_now: TransferNow, shift: int, size: int) -> FastIO:
    # Byte 1 is the high bits of the LBA; bytes 2-5 are the rest of it, transfer length and control.
    def six(flags: int, word: int, _count: int, view: Sized) -> bool | Commit:
        length = len(view)
        offset = ((flags & 0x1F) << 16 | word >> 48) << shift
        blocks = (word >> 40) & 0xFF or 256
        if blocks << shift != length or (word >> 32) & 0xFF or offset + length > size:
            return False
        return transfer_now(offset, view)

    return six
