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
from arrayd.link.channel import SHORT_BYTES, Call, Done
from arrayd.log import get_logger
from arrayd.scsi.alua import PortTakenError
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.task import (
    MAX_TRANSFER_BYTES,
    TO_INITIATOR,
    TO_TARGET,
    Attribute,
    Commit,
    FileExtent,
    Function,
    Relayed,
    Status,
    Task,
)
from arrayd.virtual.formats import (
    ANSWER_HEAD,
    ATTACH,
    CDB_BYTES_MAX,
    DETACH,
    EXECUTE_HEAD,
    GOOD_READ,
    HOPS_MAX,
    MANAGE,
    NEXUSES_MAX,
    PLAIN,
    PLAIN_CDB_BYTES,
    TEXT_BYTES_MAX,
    Operation,
    Outcome,
    good_write,
)

POOL_FACTOR = 2
"""Data-Out has come: it may take so many times what the pool is to hold."""
READS = frozenset({0x08, 0x28, 0xA8, 0x88})
"""Operation codes of READ: what went well changed nothing, and may be done again."""
CDB_ALIGNED_BYTES = 16
EXECUTE, SIMPLE = int(Operation.EXECUTE), int(Attribute.SIMPLE)
HEAD_BYTES, PLAIN_BYTES, unpack_plain = ANSWER_HEAD.size, PLAIN.size, PLAIN.unpack_from

log = get_logger("virtual")


Attach = Callable[[str, bytes, tuple[int, int, str], tuple[str, ...], bool], Nexus]
"""`attach(initiator, isid, (port, group, port name), path, local)`: makes an I_T nexus of the SCSI target here.
Raises PortTakenError for a port that is not the other array's."""


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

    def service(self, array: str) -> FarService:
        """What this array may ask; see `link.channel.Service`."""
        return FarService(self, array)

    def hosts(self, array: str) -> Hosts:
        """The hosts of an array."""
        return self._hosts.setdefault(array, {})

    def serve(self, array: str, call: Call, payload: memoryview) -> None:
        """See `link.channel.Service`; for requests of this array."""
        hosts = self.hosts(array)
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
        refusal = self._refusal(array, hosts, path)
        if refusal is None:
            port = (told.port, told.group, told.port_name)
            try:
                hosts[told.nexus] = Host(self._attach(told.initiator, told.isid, port, path, bool(told.local)))
            except PortTakenError as error:
                refusal = str(error)
        if refusal is None:
            _answer(call, Outcome.DONE)
        else:
            log.warning("virtual volume refused", array=array, path=" -> ".join((*path, self._us)), reason=refusal)
            if len(hosts) < NEXUSES_MAX:
                hosts[told.nexus] = refusal
            _answer(call, Outcome.REFUSED, refusal.encode())

    def _refusal(self, array: str, hosts: Hosts, path: tuple[str, ...]) -> str | None:
        # Who may command is decided by the last array of the path, and the link has proven only who asks.
        if not path or path[-1] != array:
            return "it comes by another array than it says"
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
        call.charge(min(expected_in, MAX_TRANSFER_BYTES))
        nexus = host.nexus
        cdb, length = bytes(payload[EXECUTE_HEAD.size : data_at]), len(payload) - data_at
        buffer = self._keep(call, payload[data_at:])
        if length and buffer is None:
            _answer(call, Outcome.DONE, status=Status.BUSY)
            return
        padded, done = cdb.ljust(CDB_ALIGNED_BYTES, b"\0"), partial(_ended, call, host)
        task = Task(padded, lun, tag, attribute, expected_out, expected_in, done)
        task.out_buffer = buffer
        task.takes_file = expected_in > SHORT_BYTES
        nexus.enter(task)
        if buffer is not None:
            # A long request lies where its data begins a page, a short one was copied to the beginning.
            start = len(buffer.view) - length
            task.data_out = buffer.view[start : start + min(task.wanted_out, length)]
        nexus.execute(task)

    def _keep(self, call: Call, data: memoryview) -> PooledBuffer | None:
        """A buffer that ends with the data: what a long request lies in, or a copy. None without data, or room."""
        buffer, call.buffer = call.buffer, None
        if buffer is None and data:
            buffer = self._buffers.take_beyond(len(data), POOL_FACTOR)
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


class FarService:
    """The service of virtual volumes for one array: see `link.channel.Service`."""

    def __init__(self, end: FarEnd, array: str) -> None:
        self._end = end
        self._array = array

    def __call__(self, call: Call, payload: memoryview) -> None:
        """What is not done on the spot."""
        self._end.serve(self._array, call, payload)

    def at_once(self, payload: memoryview, room: memoryview) -> Done:
        """READ and WRITE, where nothing stands against it: see `scsi.task.FastIO`. Data goes straight between the
        volume and what the link has received, or is to send."""
        length = len(payload) - PLAIN_BYTES
        done: bool | Commit | Relayed
        if length < 0 or payload[0] != EXECUTE:
            return 0
        _, attribute, cdb_length, number, lun, _, out, into, code, flags, word, count, rest = unpack_plain(payload)
        host = self._end.hosts(self._array).get(number)
        if cdb_length != PLAIN_CDB_BYTES or rest or attribute > SIMPLE or host.__class__ is not Host:
            return 0
        table = host.nexus.fast.get(lun)
        if not table:
            return 0
        if length:
            write = table.get(TO_TARGET | code)
            if write is None or into or out != length or len(room) < HEAD_BYTES:
                return 0
            done = write(flags, word, count, payload[PLAIN_BYTES:])
            if done is True:
                room[:HEAD_BYTES] = good_write(length)
                return -HEAD_BYTES
        else:
            read = table.get(TO_INITIATOR | code)
            end: int = HEAD_BYTES + into
            if read is None or out or end > len(room):
                return 0
            done = read(flags, word, count, room[HEAD_BYTES:end])
            if done is True:
                room[:HEAD_BYTES] = GOOD_READ
                return end
        if isinstance(done, bool):
            return 0
        # Not charged: so many requests as there may be, of this length, are within the credit.
        if isinstance(done, Commit):
            later: Done = partial(_answer_committed, done, length)
        else:
            later = partial(_answer_relayed, done, bool(length))
        return later


def _answer_committed(commit: Commit, length: int, call: Call) -> None:
    commit.when_ended(partial(_committed, call, length))


def _answer_relayed(relayed: Relayed, writes: bool, call: Call) -> None:
    relayed.when_ended(partial(_relayed, call, writes))


def _committed(call: Call, length: int, commit: Commit) -> None:
    _answer(call, Outcome.DONE, commit.sense, status=commit.status, wanted_out=length)


def _relayed(call: Call, writes: bool, relayed: Relayed) -> None:
    """What was passed on to the next array has ended."""
    if relayed.aborted:
        _answer(call, Outcome.ABORTED)
        return
    head = ANSWER_HEAD.pack(Outcome.DONE, relayed.status, len(relayed.sense), relayed.wanted_out) + relayed.sense
    call.answer(head, relayed.data_in, keep=writes or relayed.status != Status.GOOD)


def _managed(call: Call, response: int) -> None:
    _answer(call, Outcome.DONE, status=response)


def _ended(call: Call, host: Host, task: Task) -> None:
    task.data_out = memoryview(b"")
    if task.out_buffer is not None:
        task.out_buffer.release()
    data = task.data_in
    if task.aborted and task.status != Status.TASK_ABORTED:
        if task.buffer is not None:
            task.buffer.release()
        _answer(call, Outcome.LOST if host.lost else Outcome.ABORTED)
        return
    keep = task.cdb[0] not in READS or task.status != Status.GOOD
    length, wanted = len(data), task.wanted_out
    if length > task.expected_in:
        # More than was asked for is not sent, but told: the host's residual comes of it.
        wanted += 0 if task.expected_out else length - task.expected_in
        length = task.expected_in
    head = ANSWER_HEAD.pack(Outcome.DONE, task.status, len(task.sense), wanted) + task.sense
    call.answer(head, _cut(data, length), task.buffer, keep)


def _cut(data: bytes | bytearray | memoryview | FileExtent, length: int) -> memoryview | FileExtent:
    """The first `length` bytes of it. What lies in a file is read when it is sent."""
    if isinstance(data, FileExtent):
        return FileExtent(data.file, data.offset, length)
    return memoryview(data)[:length]


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
    text = text[:TEXT_BYTES_MAX]
    call.answer(ANSWER_HEAD.pack(outcome, status, len(text), wanted_out) + text, data, keep=keep)
