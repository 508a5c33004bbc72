"""A host: it attaches to the SCSI target of an array and sends commands to its LUNs, as a transport hands them in.

READ and WRITE go by the fast tables where these take them, as those of an iSCSI connection do, or by a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple

from arrayd.scsi.inner_initiator import NotDoneError
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.sense import Key
from arrayd.scsi.task import CDB, TO_INITIATOR, TO_TARGET, Attribute, Commit, FileExtent, Status, Task
from tests.simulation.doors import Gone, Life
from tests.simulation.world import Machine, Violated

BLOCK_BYTES = 512
ANSWERED_SECONDS = 20.0
"""An array that lives answers within this, whatever it answers: a host waits no longer."""
ATTENTIONS_MAX = 8
AGAIN_SECONDS = 0.3
"""After a command that failed, before the next."""
READ_10, WRITE_10, SYNCHRONIZE_CACHE_10, WRITE_SAME_16, UNMAP = 0x28, 0x2A, 0x35, 0x93, 0x42
FUA, NDOB = 0x08, 0x01


class Response(NamedTuple):
    """How a command ended."""

    status: int
    sense: bytes = b""
    data: bytes = b""
    aborted: bool = False

    @property
    def good(self) -> bool:
        """Whether it was carried out."""
        return self.status == Status.GOOD and not self.aborted

    @property
    def key(self) -> int:
        """The sense key, or 0."""
        return self.sense[2] & 0x0F if len(self.sense) > 2 else 0

    def __str__(self) -> str:
        if self.aborted:
            return "aborted"
        if self.status != Status.CHECK_CONDITION:
            return Status(self.status).name
        return f"{Key(self.key).name} {self.sense[12]:02x}/{self.sense[13]:02x}"


End = Callable[[Response], None]
"""`end(response)`: a command has ended."""


class Initiator:
    """The initiator `name`, at one machine; it attaches anew to each life of its array."""

    def __init__(self, machine: Machine, name: str, random: Random) -> None:
        self.machine = machine
        self.name = name
        self._random = random
        self.patience_s = ANSWERED_SECONDS
        """How long it waits for an answer."""
        self._nexus: Nexus | None = None
        self._life: Life | None = None
        self._tag = 0

    async def command(
        self,
        lun: int,
        cdb: bytes,
        data: bytes = b"",
        expected_in: int = 0,
        answered: Callable[[], None] | None = None,
    ) -> Response:
        """One command, again after unit attentions. `answered` is called at the moment of an answer that it was carried
        out. Raises Gone, where nobody knows what became of it."""
        for _ in range(ATTENTIONS_MAX):
            response = await self._once(lun, cdb, data, expected_in, answered)
            if response.key != Key.UNIT_ATTENTION:
                return response
        raise Violated(f"{self.name}: unit attentions without end")

    async def _once(
        self, lun: int, cdb: bytes, data: bytes, expected_in: int, answered: Callable[[], None] | None
    ) -> Response:
        life = self.machine.alive
        if life is not self._life:
            self._nexus, self._life = life.run(self._attach), life
        ended: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        life.waiting[ended] = None
        durable = cdb[0] == SYNCHRONIZE_CACHE_10 or (cdb[0] == WRITE_10 and bool(cdb[1] & FUA))
        end = partial(_end, life, ended, "durable answer" if durable else "answer", answered)
        life.run(self._send, lun, cdb, data, expected_in, end)
        late = asyncio.get_running_loop().call_later(self.patience_s, self._too_late, ended, cdb, lun)
        try:
            return await ended
        finally:
            late.cancel()
            life.waiting.pop(ended, None)

    def _too_late(self, ended: asyncio.Future[Response], cdb: bytes, lun: int) -> None:
        if not ended.done():
            text = f"{self.name}: no answer to {cdb.hex()} of LUN {lun} in {self.patience_s:g} s"
            ended.set_exception(Violated(text))

    def _attach(self) -> Nexus:
        array: Any = self.machine.array
        nexus: Nexus = array._target.attach(self.name, bytes(6), array._port, None, local=True)
        return nexus

    def _send(self, lun: int, cdb: bytes, data: bytes, expected_in: int, end: End) -> None:
        """In the life of the array."""
        nexus = self._nexus
        assert nexus is not None
        if self._random.random() < 0.5 and _fast(nexus, lun, cdb, data, expected_in, end):
            return

        def done(task: Task) -> None:
            found = task.data_in
            assert not isinstance(found, FileExtent)
            response = Response(task.status, bytes(task.sense), bytes(found)[:expected_in], task.aborted)
            del found
            task.data_in = b""
            if task.buffer is not None:
                task.buffer.release()
            end(response)

        self._tag += 1
        task = Task(
            cdb.ljust(16, b"\0"),
            encode_lun(lun),
            self._tag & 0xFFFFFFFF,
            Attribute.SIMPLE,
            len(data),
            expected_in,
            done,
        )
        nexus.enter(task)
        task.data_out = memoryview(data)[: task.wanted_out]
        nexus.execute(task)

    # -- what hosts mostly do ----------------------------------------------------------------------------------------

    async def read(self, lun: int, lba: int, blocks: int) -> Response:
        """READ(10)."""
        return await self.command(lun, _cdb(READ_10, 0, lba, blocks), expected_in=blocks * BLOCK_BYTES)

    async def write(
        self, lun: int, lba: int, data: bytes, fua: bool = False, answered: Callable[[], None] | None = None
    ) -> Response:
        """WRITE(10)."""
        cdb = _cdb(WRITE_10, FUA if fua else 0, lba, len(data) // BLOCK_BYTES)
        return await self.command(lun, cdb, data, answered=answered)

    async def write_same(
        self, lun: int, lbas: range, block: bytes, answered: Callable[[], None] | None = None
    ) -> Response:
        """WRITE SAME(16) of one block, or of zeros, for which none is sent."""
        head = bytes((WRITE_SAME_16, 0 if block else NDOB))
        cdb = head + lbas.start.to_bytes(8) + len(lbas).to_bytes(4) + bytes(2)
        return await self.command(lun, cdb, block, answered=answered)

    async def unmap(self, lun: int, lbas: range, answered: Callable[[], None] | None = None) -> Response:
        """UNMAP of one range."""
        extent = lbas.start.to_bytes(8) + len(lbas).to_bytes(4) + bytes(4)
        data = (len(extent) + 6).to_bytes(2) + len(extent).to_bytes(2) + bytes(4) + extent
        cdb = bytes((UNMAP,)) + bytes(6) + len(data).to_bytes(2) + b"\0"
        return await self.command(lun, cdb, data, answered=answered)

    async def flush(self, lun: int, answered: Callable[[], None] | None = None) -> Response:
        """SYNCHRONIZE CACHE(10) of all of it."""
        return await self.command(lun, _cdb(SYNCHRONIZE_CACHE_10, 0, 0, 0), answered=answered)


class HostLun:
    """One LUN, as `arrayd.commands.slots` wants it."""

    def __init__(self, initiator: Initiator, lun: int) -> None:
        self._initiator = initiator
        self._lun = lun

    async def read(self, offset: int, length: int) -> bytes:
        """Raises NotDoneError."""
        response = await self._carried_out(self._initiator.read, offset // BLOCK_BYTES, length // BLOCK_BYTES)
        return response.data

    async def write(self, offset: int, data: bytes) -> None:
        """Raises NotDoneError."""
        await self._carried_out(self._initiator.write, offset // BLOCK_BYTES, data)

    async def _carried_out(self, command: Any, *told: Any) -> Response:
        try:
            response: Response = await command(self._lun, *told)
        except Gone:
            await asyncio.sleep(AGAIN_SECONDS)
            raise NotDoneError("the array is gone") from None
        if not response.good:
            await asyncio.sleep(AGAIN_SECONDS)
            raise NotDoneError(str(response))
        return response


def _cdb(opcode: int, flags: int, lba: int, blocks: int) -> bytes:
    return bytes((opcode, flags)) + lba.to_bytes(4) + b"\0" + blocks.to_bytes(2) + b"\0"


def _fast(
    nexus: Nexus, lun: int, cdb: bytes, data: bytes, expected_in: int, end: End
) -> bool:  # fmt: skip
    """Has the command carried out on the spot, if it may be."""
    opcode, flags, word, count, _ = CDB.unpack(cdb.ljust(16, b"\0"))
    fast = nexus.fast.get(encode_lun(lun), {}).get(opcode | (TO_TARGET if data else TO_INITIATOR))
    if fast is None or not (data or expected_in):
        return False
    view = memoryview(data) if data else memoryview(bytearray(expected_in))
    done = fast(flags, word, count, view)
    if done is False:
        return False
    if done is True:
        end(Response(Status.GOOD, b"", b"" if data else bytes(view)))
    elif isinstance(done, Commit):
        done.when_ended(lambda commit: end(Response(commit.status, bytes(commit.sense))))
    else:
        done.when_ended(lambda told: end(Response(told.status, bytes(told.sense), bytes(told.data_in), told.aborted)))
    return True


def _end(
    life: Life, ended: asyncio.Future[Response], door: str, answered: Callable[[], None] | None, response: Response
) -> None:
    """The answer leaves the array, which is a moment to die like others: before the host has it, or after."""
    life.before(door, response)
    if not ended.done():
        if answered is not None and response.good:
            answered()
        ended.set_result(response)
    life.after(door)
