"""The far end of a virtual volume: carries out what another array asks for the hosts that are connected to it.

Each I_T nexus there is one of the SCSI target here, with the target port of that array. So reservations, unit
attentions and mode pages are those of one logical unit that is seen by more than one target port.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from construct import ConstructError

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.link.channel import Call
from arrayd.log import get_logger
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.task import TO_INITIATOR, TO_TARGET, Attribute, FileExtent, Function, Status, Task
from arrayd.virtual.formats import (
    ANSWER_HEAD,
    ATTACH,
    CDB_BYTES_MAX,
    DETACH,
    EXECUTE_HEAD,
    HOPS_MAX,
    MANAGE,
    NEXUSES_MAX,
    Operation,
    Outcome,
)

POOL_FACTOR = 2
"""Data-Out has come: it may take so many times what the pool is to hold."""
READS = frozenset({0x08, 0x28, 0xA8, 0x88})
"""Operation codes of READ: what went well changed nothing, and may be done again."""
CDB_ALIGNED_BYTES = 16
ON_THE_SPOT_BYTES = 256 * 1024
"""Longest transfer without a task."""

log = get_logger("virtual")


Attach = Callable[[str, bytes, tuple[int, int, str], tuple[str, ...]], Nexus]
"""`attach(initiator, isid, (port, group, port name), path)`: makes an I_T nexus of the SCSI target here."""


class Host:
    """An I_T nexus that another array has a host for; `lost` once it is given up, though its tasks may go on."""

    __slots__ = ("lost", "nexus")

    def __init__(self, nexus: Nexus) -> None:
        self.nexus = nexus
        self.lost = False


Hosts = dict[int, "Host | str"]
"""By the asking array's number; a text says why one was refused."""


class FarEnd:
    """What is here for the arrays that ask; `us` is this array's name."""

    def __init__(self, us: str, attach: Attach, buffers: BufferPool) -> None:
        self._us = us
        self._attach = attach
        self._buffers = buffers
        self._hosts: dict[str, Hosts] = {}
        """By array."""

    def serve(self, array: str, call: Call, payload: memoryview) -> None:
        """See `link.channel.Service`; for requests of this array."""
        hosts = self._hosts.setdefault(array, {})
        operation = payload[0] if payload else 0
        try:
            if operation == Operation.EXECUTE:
                self._execute(hosts, call, payload)
            elif operation == Operation.MANAGE:
                self._manage(hosts, call, MANAGE.parse(bytes(payload)))
            elif operation == Operation.ATTACH:
                self._new(array, hosts, call, ATTACH.parse(bytes(payload)))
            elif operation == Operation.DETACH:
                self._lost(hosts, DETACH.parse(bytes(payload)).nexus)
                _answer(call, Outcome.DONE)
            else:
                raise ValueError(f"operation {operation}")
        except (ConstructError, ValueError) as error:
            log.error("request refused", array=array, reason=str(error))
            _answer(call, Outcome.REFUSED, b"malformed request")

    def gone(self, array: str) -> None:
        """The array is not there any more: I_T nexus loss for all of its hosts."""
        hosts = self._hosts.pop(array, {})
        for number in list(hosts):
            self._lost(hosts, number)

    def stop(self) -> None:
        """No array asks any more."""
        for array in list(self._hosts):
            self.gone(array)

    # -- hosts -----------------------------------------------------------------------------------------------------

    def _new(self, array: str, hosts: Hosts, call: Call, told: Any) -> None:
        self._lost(hosts, told.nexus)
        path = tuple(told.path)
        refusal = self._refusal(hosts, path)
        if refusal is None:
            port = (told.port, told.group, told.port_name)
            hosts[told.nexus] = Host(self._attach(told.initiator, told.isid, port, path))
            _answer(call, Outcome.DONE)
        else:
            log.warning("virtual volume refused", array=array, path=" -> ".join((*path, self._us)), reason=refusal)
            if len(hosts) < NEXUSES_MAX:
                hosts[told.nexus] = refusal
            _answer(call, Outcome.REFUSED, refusal.encode())

    def _refusal(self, hosts: Hosts, path: tuple[str, ...]) -> str | None:
        if self._us in path:
            return "it leads back to this array"
        if len(path) >= HOPS_MAX:
            return f"more than {HOPS_MAX} arrays in a row"
        if len(hosts) >= NEXUSES_MAX:
            return f"more than {NEXUSES_MAX} hosts of one array"
        return None

    def _lost(self, hosts: Hosts, number: int) -> None:
        host = hosts.pop(number, None)
        if isinstance(host, Host):
            host.lost = True
            host.nexus.detach()

    def _host(self, hosts: Hosts, call: Call, number: int) -> Host | None:
        """The host of this number; None: answered that there is none."""
        host = hosts.get(number)
        if isinstance(host, Host):
            return host
        if host is None:
            _answer(call, Outcome.NO_NEXUS)
        else:
            _answer(call, Outcome.REFUSED, host.encode())
        return None

    # -- commands ----------------------------------------------------------------------------------------------------

    def _execute(self, hosts: Hosts, call: Call, payload: memoryview) -> None:
        if len(payload) < EXECUTE_HEAD.size:
            raise ValueError("a command without a CDB")
        _, attribute, cdb_length, number, lun, tag, expected_out, expected_in = EXECUTE_HEAD.unpack_from(payload)
        data_at = EXECUTE_HEAD.size + cdb_length
        if cdb_length > CDB_BYTES_MAX or len(payload) < data_at:
            raise ValueError(f"a CDB of {cdb_length} bytes")
        host = self._host(hosts, call, number)
        if host is None:
            return
        nexus = host.nexus
        cdb, data = bytes(payload[EXECUTE_HEAD.size : data_at]), payload[data_at:]
        if attribute <= Attribute.SIMPLE and _done_on_the_spot(nexus, call, lun, cdb, expected_in, data):
            return
        buffer = self._copy(data)
        if data and buffer is None:
            _answer(call, Outcome.DONE, status=Status.BUSY)
            return
        padded, done = cdb.ljust(CDB_ALIGNED_BYTES, b"\0"), partial(_ended, call, host)
        task = Task(padded, lun, tag, attribute, expected_out, expected_in, done)
        task.out_buffer = buffer
        nexus.enter(task)
        if buffer is not None:
            task.data_out = buffer.view[: min(task.wanted_out, len(data))]
        nexus.execute(task)

    def _copy(self, data: memoryview) -> PooledBuffer | None:
        """The data in a buffer of its own; None without data, or without room."""
        buffer = self._buffers.take_beyond(len(data), POOL_FACTOR) if data else None
        if buffer is not None:
            buffer.view[:] = data
        return buffer

    def _manage(self, hosts: Hosts, call: Call, told: Any) -> None:
        host = self._host(hosts, call, told.nexus)
        if host is None:
            return
        done = partial(_managed, call)
        if told.function == Function.TARGET_WARM_RESET:
            host.nexus.reset_unit(told.lun, done)
        else:
            host.nexus.manage(told.function, told.lun, told.tag, done)


def _done_on_the_spot(nexus: Nexus, call: Call, lun: int, cdb: bytes, expected_in: int, data: memoryview) -> bool:
    """READ and WRITE without a task, where nothing stands against it: see `scsi.task.FastIO`."""
    table = nexus.fast.get(lun)
    if not table or len(cdb) > CDB_ALIGNED_BYTES or max(expected_in, len(data)) > ON_THE_SPOT_BYTES:
        return False
    fast = table.get((TO_TARGET if data else TO_INITIATOR) | cdb[0])
    if fast is None or any(cdb[14:]):
        return False
    padded = cdb.ljust(CDB_ALIGNED_BYTES, b"\0")
    view = data if data else memoryview(bytearray(expected_in))
    done = fast(padded[1], int.from_bytes(padded[2:10]), int.from_bytes(padded[10:14]), view)
    if done is True:
        _answer(call, Outcome.DONE, wanted_out=len(data), data=b"" if data else view, keep=bool(data))
    elif done:
        done.when_ended(
            lambda commit: _answer(call, Outcome.DONE, commit.sense, status=commit.status, wanted_out=len(data))
        )
    return bool(done)


def _managed(call: Call, response: int) -> None:
    _answer(call, Outcome.DONE, status=response)


def _ended(call: Call, host: Host, task: Task) -> None:
    task.data_out = memoryview(b"")
    if task.out_buffer is not None:
        task.out_buffer.release()
    data = task.data_in
    assert not isinstance(data, FileExtent)
    if task.aborted and task.status != Status.TASK_ABORTED:
        if task.buffer is not None:
            task.buffer.release()
        _answer(call, Outcome.LOST if host.lost else Outcome.ABORTED)
        return
    keep = task.cdb[0] not in READS or task.status != Status.GOOD
    head = ANSWER_HEAD.pack(Outcome.DONE, task.status, len(task.sense), task.wanted_out) + task.sense
    call.answer(head, memoryview(data), task.buffer, keep)


def _answer(
    call: Call,
    outcome: Outcome,
    text: bytes = b"",
    *,
    status: int = 0,
    wanted_out: int = 0,
    data: memoryview | bytes = b"",
    keep: bool = True,
) -> None:
    call.answer(ANSWER_HEAD.pack(outcome, status, len(text), wanted_out) + text, data, keep=keep)
