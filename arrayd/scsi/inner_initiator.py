"""An initiator in the array itself: READ and WRITE to its own LUNs, virtual volumes included, as a host would send
them.

So an array commands others as hosts do (the command setting and transmission sections of figure 22's devices).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from arrayd.origin import Origin
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.sense import Key
from arrayd.scsi.task import Attribute, FileExtent, Status, Task

TRIES_MAX = 8
"""A command is sent again after a unit attention, so often."""
SHIFT = 9
"""Blocks of 512 bytes, as command devices have them."""


class NotDoneError(Exception):
    """A command ended with another status than GOOD; the text says which."""


class Attach(Protocol):
    """Makes a nexus; see `arrayd.scsi.target.ScsiTarget.attach`."""

    def __call__(self, initiator: str, isid: bytes, port: int, luns: None, *, local: bool) -> Nexus:
        """The nexus."""


class InnerInitiator:
    """An initiator `name` with a nexus of its own, by port `port`. A read or a write that is cancelled goes on by
    itself: its task and its buffer are the target's until it has ended."""

    def __init__(self, attach: Attach, name: str, port: int) -> None:
        self._nexus = attach(name, bytes(6), port, None, local=True)
        self._nexus.origin = Origin(name, is_array=True)
        self._tag = 0

    async def read(self, lun: int, offset: int, length: int) -> bytes:
        """READ(10) of whole blocks. Raises NotDoneError."""
        task = await self._carry_out(_cdb(0x28, offset, length), lun, b"", length)
        data = task.data_in
        assert not isinstance(data, FileExtent)
        copy = bytes(data)
        del data
        _release(task)
        if len(copy) != length:
            raise NotDoneError(f"{len(copy)} bytes came of {length}")
        return copy

    async def write(self, lun: int, offset: int, data: bytes) -> None:
        """WRITE(10) of whole blocks. Raises NotDoneError."""
        await self._carry_out(_cdb(0x2A, offset, len(data)), lun, data, 0)

    async def _carry_out(self, cdb: bytes, lun: int, data: bytes, expected_in: int) -> Task:
        for _ in range(TRIES_MAX):
            task = await self._send(cdb, lun, data, expected_in)
            if task.status == Status.GOOD and not task.aborted:
                return task
            _release(task)
            if task.aborted:
                raise NotDoneError("the command was aborted")
            if (
                task.status != Status.CHECK_CONDITION
                or len(task.sense) < 3
                or task.sense[2] & 0x0F != Key.UNIT_ATTENTION
            ):
                raise NotDoneError(_why(task))
        raise NotDoneError("unit attentions without end")

    async def _send(self, cdb: bytes, lun: int, data: bytes, expected_in: int) -> Task:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(task: Task) -> None:
            if over.done():
                _release(task)  # nobody waits for it any more
            else:
                over.set_result(None)

        self._tag += 1
        task = Task(cdb, encode_lun(lun), self._tag & 0xFFFFFFFF, Attribute.SIMPLE, len(data), expected_in, done)
        self._nexus.enter(task)
        task.data_out = memoryview(data)[: task.wanted_out]
        self._nexus.execute(task)
        try:
            await over
        except asyncio.CancelledError:
            if not over.cancelled():
                _release(task)  # it ended in the same turn
            raise
        return task

    def detach(self) -> None:
        """Ends the nexus."""
        self._nexus.detach()


class InnerLun:
    """One LUN, as the inner initiator sees it."""

    def __init__(self, initiator: InnerInitiator, number: int) -> None:
        self._initiator = initiator
        self._number = number

    async def read(self, offset: int, length: int) -> bytes:
        """Raises NotDoneError."""
        return await self._initiator.read(self._number, offset, length)

    async def write(self, offset: int, data: bytes) -> None:
        """Raises NotDoneError."""
        await self._initiator.write(self._number, offset, data)


def _release(task: Task) -> None:
    """Gives back what the Data-In of a task that has ended lies in, if it lies in a buffer."""
    task.data_in = b""
    if task.buffer is not None:
        task.buffer.release()


def _cdb(opcode: int, offset: int, length: int) -> bytes:
    lba, blocks = offset >> SHIFT, length >> SHIFT
    return bytes((opcode, 0)) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + bytes(7)


def _why(task: Task) -> str:
    if task.status != Status.CHECK_CONDITION or len(task.sense) < 14:
        return f"status {Status(task.status).name}"
    return f"sense key {task.sense[2] & 0x0F:x}h, additional sense code {task.sense[12]:02x}h/{task.sense[13]:02x}h"
