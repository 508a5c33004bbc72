"""The near end of a virtual volume: hands the tasks of hosts that are connected here to the array that has the unit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from arrayd.buffers import BufferPool
from arrayd.link.channel import LinkError, Request
from arrayd.log import get_logger
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.target import encode_lun
from arrayd.scsi.task import FunctionResponse, Status, Task
from arrayd.virtual.formats import ANSWER_HEAD, ATTACH, DETACH, EXECUTE_HEAD, MANAGE, SERVICE, Operation, Outcome

POOL_FACTOR = 2
"""Data-In has come: it may take so many times what the pool is to hold."""
ANSWER_BYTES = 512
"""What an answer comes to beside Data-In."""
TRIES_MAX = 3
"""How often a command is sent to an array that has forgotten its nexus."""

Send = Callable[[Request], None]

log = get_logger("virtual")


class NearEnd:
    """The way to the units of one array. `us` is this array's name; `send` puts a request on the link."""

    def __init__(self, us: str, array: str, send: Send, buffers: BufferPool) -> None:
        self._us = us
        self.array = array
        self.send = send
        self.buffers = buffers
        self._numbers = itertools.count(1)
        self._units: dict[int, RemoteUnit] = {}
        self._known: dict[Nexus, int] = {}
        """Nexuses that the other array was told of, by our number for them."""
        self._uses: dict[Nexus, int] = {}
        """How many virtual volumes of this array each nexus sees."""
        self.tags = itertools.count(1)

    def unit(self, lun: int) -> RemoteUnit:
        """LUN `lun` of that array; always the same one."""
        return self._units.setdefault(lun, RemoteUnit(self, lun))

    def number(self, nexus: Nexus) -> int:
        """Our number for a nexus; the other array is told of it before anything else is asked for it."""
        number = self._known.get(nexus)
        if number is None:
            number = self._known[nexus] = next(self._numbers)
            port = nexus.target_port
            told = {
                "operation": Operation.ATTACH,
                "nexus": number,
                "initiator": nexus.initiator,
                "isid": nexus.isid,
                "port": port.identifier,
                "group": port.group,
                "port_name": port.name,
                "path": [*nexus.path, self._us],
            }
            self.send(Request(SERVICE, ATTACH.build(told), b"", ANSWER_BYTES, self._attached))
        return number

    def _attached(self, answer: memoryview | LinkError) -> None:
        if not isinstance(answer, LinkError) and answer[0] == Outcome.REFUSED:
            log.warning("virtual volume refused", array=self.array, reason=bytes(answer[ANSWER_HEAD.size :]).decode())

    def forgotten(self, nexus: Nexus, number: int) -> None:
        """The other array does not know this number, or no more."""
        if self._known.get(nexus) == number:
            del self._known[nexus]

    def meet(self, nexus: Nexus) -> None:
        """A nexus sees one more unit there."""
        self._uses[nexus] = self._uses.get(nexus, 0) + 1

    def forget(self, nexus: Nexus) -> None:
        """A nexus sees one unit less; with the last it is lost to the other array."""
        self._uses[nexus] -= 1
        if self._uses[nexus]:
            return
        del self._uses[nexus]
        number = self._known.pop(nexus, None)
        if number is not None:
            told = {"operation": Operation.DETACH, "nexus": number}
            self.send(Request(SERVICE, DETACH.build(told), b"", ANSWER_BYTES, lambda _answer: None))


class RemoteUnit:
    """A `scsi.virtual_unit.Remote`: LUN `lun` of the array that `near` leads to."""

    def __init__(self, near: NearEnd, lun: int) -> None:
        self.near = near
        self.lun = lun
        self._encoded = encode_lun(lun)
        self._tags: dict[Task, tuple[int, int]] = {}
        """Of tasks under way: our numbers for the nexus and the task."""

    def meet(self, nexus: Nexus) -> None:
        """See Remote."""
        self.near.meet(nexus)

    def execute(self, nexus: Nexus, task: Task, ended: Callable[[], None]) -> None:
        """See Remote."""
        self._send(nexus, task, ended, 1)

    def _send(self, nexus: Nexus, task: Task, ended: Callable[[], None], tries: int) -> None:
        number, tag = self.near.number(nexus), next(self.near.tags) & 0xFFFFFFFF
        self._tags[task] = number, tag
        head = EXECUTE_HEAD.pack(
            Operation.EXECUTE, task.attribute, len(task.cdb), number, self._encoded, tag, task.expected_out,
            task.expected_in,
        )  # fmt: skip
        came = partial(self._came, nexus, task, ended, tries)
        self.near.send(Request(SERVICE, head + task.cdb, task.data_out, task.expected_in + ANSWER_BYTES, came))

    def _came(
        self, nexus: Nexus, task: Task, ended: Callable[[], None], tries: int, answer: memoryview | LinkError
    ) -> None:
        number, _ = self._tags.pop(task)
        if isinstance(answer, LinkError):
            _cannot(task, answer)
        else:
            outcome, status, text_length, wanted_out = ANSWER_HEAD.unpack_from(answer)
            if outcome == Outcome.NO_NEXUS and tries < TRIES_MAX and not task.aborted:
                self.near.forgotten(nexus, number)
                self._send(nexus, task, ended, tries + 1)
                return
            data_at = ANSWER_HEAD.size + text_length
            task.wanted_out = wanted_out
            if outcome == Outcome.DONE:
                task.status = status
                task.sense = bytes(answer[ANSWER_HEAD.size : data_at])
                self._take_data(task, answer[data_at:])
            elif outcome == Outcome.ABORTED:
                task.aborted = True
            elif outcome in (Outcome.LOST, Outcome.NO_NEXUS):
                _fail(task, Key.ABORTED_COMMAND, Asc.LOGICAL_UNIT_COMMUNICATION_FAILURE)
            else:
                _fail(task, Key.NOT_READY, Asc.MANUAL_INTERVENTION_REQUIRED)
        ended()

    def _take_data(self, task: Task, data: memoryview) -> None:
        if not data:
            return
        buffer = self.near.buffers.take_beyond(len(data), POOL_FACTOR)
        if buffer is None:
            task.status = Status.BUSY
            return
        buffer.view[:] = data
        task.buffer, task.data_in = buffer, buffer.view

    def manage(self, nexus: Nexus, function: int, task: Task | None, done: Callable[[int], None]) -> None:
        """See Remote."""
        number, tag = self._tags.get(task, (0, 0)) if task is not None else (self.near.number(nexus), 0)
        if not number:
            done(FunctionResponse.TASK_DOES_NOT_EXIST)
            return
        told = {"operation": Operation.MANAGE, "function": function, "nexus": number, "lun": self._encoded, "tag": tag}

        def came(answer: memoryview | LinkError) -> None:
            if isinstance(answer, LinkError) or answer[0] != Outcome.DONE:
                done(FunctionResponse.REJECTED)
            else:
                done(FunctionResponse.COMPLETE if task is not None else answer[1])

        self.near.send(Request(SERVICE, MANAGE.build(told), b"", ANSWER_BYTES, came))

    def forget(self, nexus: Nexus) -> None:
        """See Remote."""
        self.near.forget(nexus)


def _cannot(task: Task, error: LinkError) -> None:
    """What a host is told when the other array cannot be reached: to try again where a command may have been carried
    out, else that there is no way there now, so that it takes another."""
    task.wanted_out = 0
    if error.maybe_done:
        _fail(task, Key.ABORTED_COMMAND, Asc.LOGICAL_UNIT_COMMUNICATION_FAILURE)
    else:
        _fail(task, Key.NOT_READY, Asc.TARGET_PORT_UNAVAILABLE)


def _fail(task: Task, key: Key, asc: Asc) -> None:
    task.status = Status.CHECK_CONDITION
    task.sense = CheckCondition(key, asc).fixed()
