"""SANITIZE (SBC-4, 5.30 and 4.11): overwrites a whole volume in the background, while it is refused to everybody.

OVERWRITE writes its pattern everywhere. BLOCK ERASE overwrites with zeros what is on disk, and then frees it where the
volume is thin: a punched hole alone would leave the data on the disk below. Neither reaches copies that a file system
or an SSD below may keep; CRYPTOGRAPHIC ERASE is not offered, since nothing is encrypted. A sanitize outlives every
reset and lost nexus, but not the daemon: stopped, it is logged and not taken up again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from arrayd.log import get_logger
from arrayd.scsi.cdb import be16
from arrayd.scsi.command import Command, Reserved
from arrayd.scsi.sense import Asc, CheckCondition, Key, invalid_field, invalid_parameter
from arrayd.scsi.steps import STEP_BYTES, settled, steps
from arrayd.volumes.volume import VolumeError

if TYPE_CHECKING:
    from arrayd.scsi.logical_unit import LogicalUnit
    from arrayd.scsi.task import Task

OPCODE = 0x48
OVERWRITE, BLOCK_ERASE, EXIT_FAILURE_MODE = 0x01, 0x02, 0x1F
"""Service actions (SBC-4, table 103)."""

IMMED, ZNR, AUSE = 0x80, 0x40, 0x20
INVERT, TEST, OVERWRITE_COUNT = 0x80, 0x60, 0x1F
PARAMETER_HEADER_BYTES = 4

BYTES_PER_SECOND = 512 * 1024 * 1024
"""No faster than this, so that the volumes beside it keep their disk."""
OVERWRITE_SECONDS_MIN = 5.5
"""No OVERWRITE is over sooner, however small the volume: hosts that look every few seconds, as the field's conformance
suite does, see it at work."""
WATCHED_SECONDS, WATCHED_TIMES = 3.5, 2
"""But one whose data is written after so many seconds ends when it has been seen so often from then on: who looks
again at once, and then once a minute, need not wait for that minute."""
BYTES_BETWEEN_FLUSHES = 64 * 1024 * 1024
PROGRESS_WHOLE = 0x10000
EXTENTS_PER_STEP = 64

log = get_logger("scsi")


class Sanitizing:
    """The state of a logical unit's sanitize operation: none, at work, or failed (SBC-4, 4.11.2)."""

    def __init__(self) -> None:
        self.at_work = False
        self.failed = False
        self.may_exit_failure = False
        self._stopped = asyncio.Event()
        self._tellings = asyncio.Semaphore(0)
        self._done_bytes = 0
        self._total_bytes = 1
        self._watchers: list[asyncio.Future[None]] = []

    def refusal(self) -> CheckCondition | None:
        """What every command that the operation keeps out ends with, or None."""
        if self.at_work:
            return self.in_progress()
        if self.failed:
            return CheckCondition(Key.MEDIUM_ERROR, Asc.SANITIZE_FAILED)
        return None

    def in_progress(self) -> CheckCondition:
        """NOT READY, with how far the operation has got."""
        progress = min(self._done_bytes * PROGRESS_WHOLE // self._total_bytes, PROGRESS_WHOLE - 1)
        return CheckCondition(Key.NOT_READY, Asc.SANITIZE_IN_PROGRESS, progress=progress)

    @property
    def stopping(self) -> bool:
        """Whether the operation is to end at its next step."""
        return self._stopped.is_set()

    def told(self) -> None:
        """A host has been told `refusal`."""
        self._tellings.release()

    async def linger(self, since: float) -> None:
        """Stays at work, with everything written, until hosts had the time to see it; `since` it began, by the loop's
        clock."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(since + min(WATCHED_SECONDS, OVERWRITE_SECONDS_MIN)):
                await self._stopped.wait()
        self._tellings = asyncio.Semaphore(0)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(since + OVERWRITE_SECONDS_MIN):
                for _ in range(0 if self.stopping else WATCHED_TIMES):
                    await self._tellings.acquire()

    def begin(self, total_bytes: int, may_exit_failure: bool) -> None:
        """The operation starts; `total_bytes` is its whole work."""
        self.at_work, self.failed, self.may_exit_failure = True, False, may_exit_failure
        self._done_bytes, self._total_bytes = 0, max(total_bytes, 1)

    def advance(self, length: int) -> None:
        """`length` more bytes are done."""
        self._done_bytes += length
        self.wake()

    def end(self, failed: bool) -> None:
        """The operation is over."""
        self.at_work, self.failed = False, failed
        self.wake()

    def stop(self) -> None:
        """The daemon stops: the operation is broken off at its next step."""
        self._stopped.set()
        for _ in range(WATCHED_TIMES):
            self._tellings.release()

    async def ended(self, task: Task) -> None:
        """Waits until the operation has ended, or `task` that waits for it is aborted (the operation goes on)."""
        while self.at_work and not task.aborted:
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    def wake(self) -> None:
        """Has `ended` look again: the operation has got on or ended, or a task is aborted."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.set_result(None)


def sanitize(unit: LogicalUnit, task: Task) -> Awaitable[None] | None:
    """SANITIZE, OVERWRITE and BLOCK ERASE: begun once every task before it has ended; those behind are refused."""
    refusal = unit.medium.refusal()
    if refusal is not None:
        raise refusal
    if unit.sanitizing.at_work:
        raise unit.sanitizing.in_progress()
    patterns = _patterns(unit, task) if task.command.action == OVERWRITE else None
    unit.sanitizing.begin(unit.disk.size * len(patterns or (b"",)), bool(task.cdb[1] & AUSE))
    unit.refresh_all()
    unit.in_background(_carry_out(unit, patterns))
    return None if task.cdb[1] & IMMED else _answer(unit, task)


async def _answer(unit: LogicalUnit, task: Task) -> None:
    """Without IMMED: the answer tells how it ended."""
    await unit.sanitizing.ended(task)
    if unit.sanitizing.failed:
        raise CheckCondition(Key.MEDIUM_ERROR, Asc.SANITIZE_FAILED)


def exit_failure_mode(unit: LogicalUnit, _task: Task) -> None:
    """SANITIZE, EXIT FAILURE MODE: allowed when the operation that failed was started with AUSE."""
    refusal = unit.sanitizing.refusal()
    if refusal is None:
        return
    if unit.sanitizing.at_work:
        raise refusal
    if not unit.sanitizing.may_exit_failure:
        raise invalid_field((1, 4))
    unit.sanitizing.failed = False
    unit.refresh_all()


def _patterns(unit: LogicalUnit, task: Task) -> list[bytes]:
    """What the passes of an OVERWRITE write into every block, from its parameter list (SBC-4, table 105)."""
    data = bytes(task.data_out)
    pattern = data[PARAMETER_HEADER_BYTES:]
    count = data[0] & OVERWRITE_COUNT if data else 0
    if len(data) < task.wanted_out or data[0] & TEST or not count:
        raise invalid_parameter(0)
    if be16(data, 2) != len(pattern):
        raise invalid_parameter(2)
    block_size = unit.disk.block_size
    block = (pattern * (block_size // len(pattern) + 1))[:block_size]
    inverted = bytes(byte ^ 0xFF for byte in block)
    return [inverted if data[0] & INVERT and turn % 2 else block for turn in range(count)]


async def _carry_out(unit: LogicalUnit, patterns: list[bytes] | None) -> None:
    """The operation: passes that write `patterns`, or an erase (None)."""
    log.info("sanitize started", lun=unit.number, operation="block erase" if patterns is None else "overwrite")
    failed = True
    try:
        if patterns is None:
            await _erase(unit)
        else:
            since = asyncio.get_running_loop().time()
            for pattern in patterns:
                await _overwrite(unit, pattern * (STEP_BYTES // len(pattern)), steps(0, unit.disk.size))
            await unit.sanitizing.linger(since)
        failed = False
    except VolumeError as error:
        log.error("sanitize failed", lun=unit.number, reason=str(error))
    finally:
        unit.sanitizing.end(failed)
        unit.refresh_all()
    if unit.sanitizing.stopping:
        log.warning("sanitize broken off: it must be started again", lun=unit.number)
    else:
        log.info("sanitize ended", lun=unit.number, failed=failed)


async def _erase(unit: LogicalUnit) -> None:
    """Zeros over all that is mapped, made durable, then freed."""
    size, offset = unit.disk.size, 0
    zeros = bytes(STEP_BYTES)
    while offset < size and not unit.sanitizing.stopping:
        for extent in await unit.disk.extents(offset, size - offset, EXTENTS_PER_STEP):
            if extent.mapped:
                await _overwrite(unit, zeros, steps(extent.offset, extent.length))
            else:
                unit.sanitizing.advance(extent.length)
            offset = extent.offset + extent.length
    if unit.disk.thin and not unit.sanitizing.stopping:
        await settled(unit.disk.unmap(0, size))
        await settled(unit.disk.flush())


async def _overwrite(unit: LogicalUnit, filled: bytes, ranges: Iterator[tuple[int, int]]) -> None:
    """Writes the bytes of `filled` over `ranges`, durably, at BYTES_PER_SECOND."""
    loop = asyncio.get_running_loop()
    view = memoryview(filled)
    due, unflushed = loop.time(), 0
    for offset, length in ranges:
        if unit.sanitizing.stopping:
            return
        await settled(unit.disk.write(offset, view[:length]))
        unflushed += length
        if unflushed >= BYTES_BETWEEN_FLUSHES:
            await settled(unit.disk.flush())
            unflushed = 0
        unit.sanitizing.advance(length)
        due = max(due, loop.time() - 1.0) + length / BYTES_PER_SECOND
        await asyncio.sleep(max(0.0, due - loop.time()))
    await settled(unit.disk.flush())


def _no_parameters(_unit: LogicalUnit, cdb: bytes) -> int:
    _check_reserved(cdb)
    if be16(cdb, 7):
        raise invalid_field(7)
    return 0


def _overwrite_parameters(unit: LogicalUnit, cdb: bytes) -> int:
    _check_reserved(cdb)
    length = be16(cdb, 7)
    if not PARAMETER_HEADER_BYTES < length <= PARAMETER_HEADER_BYTES + unit.disk.block_size:
        raise invalid_field(7)
    return length


def _check_reserved(cdb: bytes) -> None:
    """An operation that destroys everything takes no field that it does not know (ZNR is for zoned units)."""
    if cdb[1] & ZNR:
        raise invalid_field((1, 6))
    for byte in range(2, 7):
        if cdb[byte]:
            raise invalid_field(byte)


COMMANDS = (
    Command(
        "SANITIZE, OVERWRITE", OPCODE, OVERWRITE, bytes.fromhex("48a10000000000ffff04"), sanitize,
        _overwrite_parameters, Reserved.WRITE, writes=True, waits_for_others=True,
    ),
    Command(
        "SANITIZE, BLOCK ERASE", OPCODE, BLOCK_ERASE, bytes.fromhex("48a20000000000ffff04"), sanitize,
        _no_parameters, Reserved.WRITE, writes=True, waits_for_others=True,
    ),
    Command(
        "SANITIZE, EXIT FAILURE MODE", OPCODE, EXIT_FAILURE_MODE, bytes.fromhex("48bf0000000000ffff04"),
        exit_failure_mode, _no_parameters, Reserved.WRITE, writes=True,
    ),
)  # fmt: skip
