"""The near end of a virtual volume: hands the tasks of hosts that are connected here to the array that has the unit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

from arrayd.buffers import BufferPool, PooledBuffer
from arrayd.link.channel import Asking, LinkError, Request
from arrayd.link.frames import FrameError
from arrayd.log import get_logger
from arrayd.scsi.lun import encode_lun
from arrayd.scsi.nexus import Nexus
from arrayd.scsi.task import FastTable, FunctionResponse, Status, Task
from arrayd.scsi.virtual_unit import VirtualUnit
from arrayd.virtual import passage
from arrayd.virtual.formats import (
    ANSWER_BYTES,
    ATTACH,
    DETACH,
    EXECUTE_HEAD,
    GOOD_READ,
    MANAGE,
    SERVICE,
    Operation,
    Outcome,
    read_answer,
)
from arrayd.virtual.passage import TRIES_MAX, lives

POOL_FACTOR = 2
"""Data-In has come: it may take so many times what the pool is to hold."""


class Send(Protocol):
    """Puts a request on the link: see `link.peers.Way`."""

    def __call__(self, request: Asking) -> None:
        """Now, or when there is a connection and credit."""

    @property
    def at_once(self) -> Callable[[Asking], bool]:
        """Now, or not at all."""


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
        self.known: dict[Nexus, int] = {}
        """Nexuses that the other array was told of, by our number for them."""
        self._uses: dict[Nexus, int] = {}
        """How many virtual volumes of this array each nexus sees."""
        self.tags = itertools.count(1)

    def unit(self, lun: int) -> RemoteUnit:
        """LUN `lun` of that array; always the same one."""
        return self._units.setdefault(lun, RemoteUnit(self, lun))

    def number(self, nexus: Nexus) -> int:
        """Our number for a nexus; the other array is told of it before anything else is asked for it."""
        number = self.known.get(nexus)
        if number is None:
            number = self.known[nexus] = next(self._numbers)
            port = nexus.target_port
            told = {
                "operation": Operation.ATTACH,
                "nexus": number,
                "initiator": nexus.initiator,
                "isid": nexus.isid,
                "port": port.identifier,
                "group": port.group,
                "port_name": port.name,
                "local": nexus.origin.local,
                "path": [*nexus.path, self._us],
            }
            self.send(Request(SERVICE, ATTACH.build(told), b"", ANSWER_BYTES, self._attached))
        return number

    def _attached(self, answer: memoryview | LinkError) -> None:
        if not isinstance(answer, LinkError):
            told = read_answer(answer)
            if told.outcome == Outcome.REFUSED:
                log.warning("virtual volume refused", array=self.array, reason=fit_for_a_log(told.text))

    def forgotten(self, nexus: Nexus, number: int) -> None:
        """The other array does not know this number, or no more."""
        if self.known.get(nexus) == number:
            del self.known[nexus]

    def meet(self, nexus: Nexus) -> None:
        """A nexus sees one more unit there."""
        self._uses[nexus] = self._uses.get(nexus, 0) + 1

    def forget(self, nexus: Nexus) -> None:
        """A nexus sees one unit less; with the last it is lost to the other array."""
        self._uses[nexus] -= 1
        if self._uses[nexus]:
            return
        del self._uses[nexus]
        number = self.known.pop(nexus, None)
        if number is not None:
            told = {"operation": Operation.DETACH, "nexus": number}
            self.send(Request(SERVICE, DETACH.build(told), b"", ANSWER_BYTES, lambda _answer: None))


class Errand(Asking):
    """A task on its way to the array that carries it out, and back. Data-In that is long goes on to the host as it
    comes, if that takes it so."""

    __slots__ = ("_ended", "_nexus", "_passed_on", "_remote", "_task", "_tries")

    def __init__(
        self, remote: RemoteUnit, nexus: Nexus, task: Task, ended: Callable[[], None], tries: int, head: bytes
    ) -> None:
        super().__init__(SERVICE, head, task.data_out, task.expected_in + ANSWER_BYTES)
        self._remote = remote
        self._nexus = nexus
        self._task = task
        self._ended = ended
        self._tries = tries
        self._passed_on: PooledBuffer | None = None
        """What the answer lies in that the task has a share of."""

    def wanted(self) -> bool:
        """See Asking."""
        return not self._task.aborted and lives(self._nexus)

    def comes(self, head: memoryview, data: memoryview, come: int) -> None:
        """See Asking: it is passed on if it will be all that the host expects, and the status GOOD."""
        task = self._task
        if task.comes is not None and not task.aborted and head == GOOD_READ and len(data) == task.expected_in:
            if self._passed_on is not self.buffer:
                self._let_go()
                assert self.buffer is not None
                task.buffer, self._passed_on = self.buffer.share(), self.buffer
            task.data_in = data
            task.comes(task, come)

    def _let_go(self) -> None:
        """The task's share of an answer that broke off; what was passed on has its own."""
        task = self._task
        if task.buffer is not None:
            task.data_in = b""
            task.buffer.release()
            task.buffer = None

    def ended(self, answer: memoryview | LinkError) -> None:
        """See Asking."""
        task = self._task
        number, _ = self._remote.tags.pop(task)
        if isinstance(answer, LinkError):
            passage.cannot(task, answer)
            self._ended()
            return
        try:
            told = read_answer(answer)
        except FrameError:
            passage.fail_between(task)
            self._ended()
            raise
        if told.outcome == Outcome.NO_NEXUS and self._tries < TRIES_MAX and not task.aborted:
            self._remote.near.forgotten(self._nexus, number)
            self._remote.send(self._nexus, task, self._ended, self._tries + 1)
            return
        passage.take(task, told)
        if told.data and told.outcome == Outcome.DONE:
            self._take_data(told.data)
        self._ended()

    def _take_data(self, data: memoryview) -> None:
        """Data-In, from where a long answer lies, or in a copy."""
        task = self._task
        self._let_go()
        if self.buffer is not None:
            task.buffer, self.buffer = self.buffer, None
            task.data_in = data
            return
        buffer = self._remote.near.buffers.take_beyond(len(data), POOL_FACTOR)
        if buffer is None:
            task.status = Status.BUSY
            return
        buffer.view[:] = data
        task.buffer, task.data_in = buffer, buffer.view


class RemoteUnit:
    """A `scsi.virtual_unit.Remote`: LUN `lun` of the array that `near` leads to."""

    def __init__(self, near: NearEnd, lun: int) -> None:
        self.near = near
        self.lun = lun
        self.encoded = encode_lun(lun)
        self.tags: dict[Task, tuple[int, int]] = {}
        """Of tasks under way: our numbers for the nexus and the task."""

    def meet(self, nexus: Nexus) -> None:
        """See Remote."""
        self.near.meet(nexus)

    def execute(self, nexus: Nexus, task: Task, ended: Callable[[], None]) -> None:
        """See Remote."""
        self.send(nexus, task, ended, 1)

    def send(self, nexus: Nexus, task: Task, ended: Callable[[], None], tries: int) -> None:
        """Asks for the task to be carried out: the first time, or again under another number for the nexus."""
        number, tag = self.near.number(nexus), next(self.near.tags) & 0xFFFFFFFF
        self.tags[task] = number, tag
        head = EXECUTE_HEAD.pack(
            Operation.EXECUTE, task.attribute, len(task.cdb), number, self.encoded, tag, task.expected_out,
            task.expected_in,
        )  # fmt: skip
        self.near.send(Errand(self, nexus, task, ended, tries, head + task.cdb))

    def fast(self, nexus: Nexus, unit: VirtualUnit) -> FastTable:
        """See Remote."""
        return passage.fast(self, unit, nexus)

    def number_again(self, nexus: Nexus, number: int) -> int:
        """The other array has forgotten our number for a nexus: another one, or 0 for a nexus that is gone."""
        self.near.forgotten(nexus, number)
        return self.near.number(nexus) if lives(nexus) else 0

    def manage(self, nexus: Nexus, function: int, task: Task | None, done: Callable[[int], None]) -> None:
        """See Remote."""
        number, tag = self.tags.get(task, (0, 0)) if task is not None else (self.near.number(nexus), 0)
        if not number:
            done(FunctionResponse.TASK_DOES_NOT_EXIST)
            return
        told = {"operation": Operation.MANAGE, "function": function, "nexus": number, "lun": self.encoded, "tag": tag}

        def came(answer: memoryview | LinkError) -> None:
            if isinstance(answer, LinkError):
                done(FunctionResponse.REJECTED)
                return
            try:
                told = read_answer(answer)
            except FrameError:
                done(FunctionResponse.REJECTED)
                raise
            if told.outcome != Outcome.DONE:
                done(FunctionResponse.REJECTED)
            else:
                done(FunctionResponse.COMPLETE if task is not None else told.status)

        self.near.send(Request(SERVICE, MANAGE.build(told), b"", ANSWER_BYTES, came))

    def forget(self, nexus: Nexus) -> None:
        """See Remote."""
        self.near.forget(nexus)


def fit_for_a_log(text: memoryview) -> str:
    """What another array says, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in bytes(text).decode(errors="replace"))
