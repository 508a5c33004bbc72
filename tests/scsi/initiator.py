"""An initiator for tests: sends CDBs through an I_T nexus of a real `ScsiTarget`, without a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from arrayd.buffers import BufferPool
from arrayd.scsi.alua import Port, PortGroups
from arrayd.scsi.logical_unit import LogicalUnit
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.persistent import PersistentState
from arrayd.scsi.sense import Asc, Key
from arrayd.scsi.target import ScsiTarget
from arrayd.scsi.task import Attribute, FileExtent, Status, Task
from arrayd.volumes.volume import Volume

SERIAL = "410001"
PORTS = (1, 2)
NAMES = ("iqn.2026-11.io.arrayd:primary,t,0x0001", "iqn.2026-11.io.arrayd:primary,t,0x0002")
GROUP = 0x4101
PLENTY = 65536


@dataclass
class MemoryStore:
    """A ReservationStore; while `saving` is set, saves wait for the event."""

    kept: dict[str, PersistentState] = field(default_factory=dict)
    saving: asyncio.Event | None = None
    failure: Exception | None = None

    def load(self, identity: str) -> PersistentState | None:
        return self.kept.get(identity)

    async def save(self, identity: str, state: PersistentState | None) -> None:
        if self.saving is not None:
            await self.saving.wait()
        if self.failure is not None:
            raise self.failure
        if state is None:
            self.kept.pop(identity, None)
        else:
            self.kept[identity] = state


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command ended with."""

    status: int
    data: bytes
    sense: bytes

    @property
    def why(self) -> tuple[Key, Asc]:
        """Sense key and additional sense code, which must be there (fixed format)."""
        assert self.status == Status.CHECK_CONDITION, self
        return Key(self.sense[2] & 0x0F), Asc(int.from_bytes(self.sense[12:14], "big"))


async def turns() -> None:
    """Everything that can go on without waiting, goes on."""
    for _ in range(20):
        await asyncio.sleep(0)


def make_target(volumes: Mapping[int, Volume], store: MemoryStore | None = None) -> ScsiTarget:
    target = ScsiTarget(SERIAL, BufferPool(64 << 20), PortGroups(GROUP, PORTS, NAMES), store or MemoryStore())
    target.set_units(volumes)
    return target


def disk_unit(target: ScsiTarget, lun: int = 0) -> LogicalUnit:
    """The logical unit of a volume."""
    unit = target.units[lun]
    assert isinstance(unit, LogicalUnit)
    return unit


class Initiator:
    """One I_T nexus of `target`. Unit attentions that stand at the beginning are taken away, but for `fresh` ones."""

    def __init__(
        self,
        target: ScsiTarget,
        name: str = "iqn.1993-08.org.debian:01:host1",
        *,
        isid: bytes = bytes.fromhex("00023d000001"),
        port: int = PORTS[0],
        luns: frozenset[int] | None = None,
        fresh: bool = False,
        through: Port | None = None,
    ) -> None:
        path = ("near",) if through else ()
        self.nexus: Nexus = target.attach(name, isid, port, luns, through, path)
        self._tag = 0
        if not fresh:
            for unit in self.nexus.units.values():
                while isinstance(unit, LogicalUnit) and unit.take_attention(self.nexus) is not None:
                    pass

    def start(
        self,
        cdb: bytes,
        data: bytes = b"",
        lun: int = 0,
        attribute: int = Attribute.SIMPLE,
        expected_in: int = PLENTY,
    ) -> tuple[Task, asyncio.Future[Answer]]:
        """Sends a command; the task, and the future of its answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(task: Task) -> None:
            assert not isinstance(task.data_in, FileExtent)
            good = task.status in (Status.GOOD, Status.CONDITION_MET)
            answer.set_result(Answer(task.status, bytes(task.data_in) if good else b"", task.sense))
            if task.buffer is not None:
                task.buffer.release()

        self._tag += 1
        # A transport expects data one way only, unless the command is bidirectional.
        expected = (len(data), 0) if data else (0, expected_in)
        task = Task(cdb.ljust(16, b"\0"), encode_lun(lun), self._tag, attribute, *expected, done)
        self.nexus.enter(task)
        task.data_out = memoryview(data)
        self.nexus.execute(task)
        return task, answer

    async def send(self, cdb: bytes, data: bytes = b"", lun: int = 0, attribute: int = Attribute.SIMPLE) -> Answer:
        """Sends a command and waits for what it ends with."""
        return await self.start(cdb, data, lun, attribute)[1]

    async def good(self, cdb: bytes, data: bytes = b"", lun: int = 0) -> bytes:
        """Sends a command that must end with GOOD; its Data-In."""
        answer = await self.send(cdb, data, lun)
        assert answer.status == Status.GOOD, answer
        return answer.data

    async def attention(self, lun: int = 0) -> Asc | None:
        """The unit attention that TEST UNIT READY reports, if there is one."""
        answer = await self.send(bytes(6), lun=lun)
        if answer.status != Status.CHECK_CONDITION:
            return None
        key, asc = answer.why
        return asc if key is Key.UNIT_ATTENTION else None

    def leave(self) -> None:
        """I_T nexus loss."""
        self.nexus.detach()
