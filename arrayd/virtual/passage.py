"""READ and WRITE of hosts here that go to another array without a task: the near half of `scsi/fast_path.py`.

A closure per operation code, with everything that does not change between commands bound into it. What cannot be sent
this instant takes the long way (`near.py`), which waits. Whether the command is right is for the other array to say.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct as Layout
from typing import TYPE_CHECKING, NamedTuple

from arrayd.link.channel import Asking, LinkError
from arrayd.link.frames import FrameError
from arrayd.scsi.sense import Asc, CheckCondition, Key
from arrayd.scsi.task import TO_INITIATOR, TO_TARGET, Attribute, FastIO, FastTable, Relayed, Status, Task
from arrayd.virtual.formats import (
    ANSWER_BYTES,
    ANSWER_HEAD,
    EXECUTE_HEAD,
    PLAIN,
    PLAIN_CDB_BYTES,
    SERVICE,
    Answer,
    Operation,
    Outcome,
    read_answer,
)

if TYPE_CHECKING:
    from arrayd.scsi.nexus import Nexus
    from arrayd.scsi.virtual_unit import VirtualUnit
    from arrayd.virtual.near import RemoteUnit

READS = (0x08, 0x28, 0xA8, 0x88)
WRITES = (0x0A, 0x2A, 0xAA, 0x8A)
TRIES_MAX = 3
"""How often a command is sent to an array that has forgotten its nexus."""
NO_DATA = memoryview(b"")
GOOD, EXECUTE, SIMPLE = int(Status.GOOD), int(Operation.EXECUTE), int(Attribute.SIMPLE)
HEAD_BYTES = ANSWER_HEAD.size
head_of = Layout(">Q").unpack_from


def lives(nexus: Nexus) -> bool:
    """Whether the session of a nexus goes on."""
    return nexus in nexus.target.nexuses


class Route(NamedTuple):
    """Between whom commands go: what does not change from one to the next."""

    remote: RemoteUnit
    unit: VirtualUnit
    nexus: Nexus


class Passage(Asking):
    """A command on its way there and back: a `scsi.task.Relayed`."""

    __slots__ = ("_number", "_route", "_tries", "_waiting", "aborted", "data_in", "sense", "status", "wanted_out")
    service = SERVICE
    status: int
    sense: bytes
    wanted_out: int
    aborted: bool
    data_in: memoryview

    def __init__(self, route: Route, number: int, head: bytes, data: bytes, expects: int) -> None:
        self.head = head
        self.data = data
        self.expects = expects
        self.cost = len(head) + len(data) + expects
        self.buffer = None
        self._route = route
        self._number = number
        self._tries = 1
        self._waiting: tuple[Callable[[Relayed], None], ...] = ()

    def when_ended(self, ended: Callable[[Relayed], None]) -> None:
        """See Relayed."""
        self._waiting = (*self._waiting, ended)

    def wanted(self) -> bool:
        """See Asking: not when the session of the host is over."""
        return lives(self._route.nexus)

    def ended(self, answer: memoryview | LinkError) -> None:
        """See Asking."""
        length = len(self.data)
        if (
            answer.__class__ is memoryview
            and len(answer) >= HEAD_BYTES
            and head_of(answer)[0] == length  # done, status GOOD, no sense, and all of Data-Out was wanted
        ):
            self.status = GOOD
            self.sense = b""
            self.aborted = False
            self.wanted_out = length
            self.data_in = answer[HEAD_BYTES:]
        elif not self._judge(answer):
            return
        for ended in self._waiting:
            ended(self)
        self._route.unit.relay_ended(self)

    def _judge(self, answer: memoryview | LinkError) -> bool:
        """Takes in an answer; whether it is the end. Raises FrameError when it has ended with one that is none."""
        self.status, self.sense, self.aborted, self.wanted_out, self.data_in = GOOD, b"", False, 0, NO_DATA
        if isinstance(answer, LinkError):
            cannot(self, answer)
            return True
        try:
            told = read_answer(answer)
        except FrameError:
            fail_between(self)
            for ended in self._waiting:
                ended(self)
            self._route.unit.relay_ended(self)
            raise
        if told.outcome == Outcome.NO_NEXUS and self._tries < TRIES_MAX:
            remote = self._route.remote
            number = remote.number_again(self._route.nexus, self._number)
            if number:
                self._tries += 1
                self._number = number
                self.head = with_number(self.head, number)
                remote.near.send(self)
                return False
        take(self, told)
        self.data_in = told.data
        return True


def take(task: Task | Passage, told: Answer) -> None:
    """What another array has answered, but for Data-In, as the end of a task."""
    task.wanted_out = told.wanted_out
    if told.outcome == Outcome.DONE:
        task.status = told.status
        task.sense = bytes(told.text)
    elif told.outcome == Outcome.ABORTED:
        task.aborted = True
    elif told.outcome in (Outcome.LOST, Outcome.NO_NEXUS):
        fail_between(task)
    else:
        _fail(task, Key.NOT_READY, Asc.MANUAL_INTERVENTION_REQUIRED)


def cannot(task: Task | Passage, error: LinkError) -> None:
    """What a host is told when the other array cannot be reached: to try again where a command may have been carried
    out, else that there is no way there now, so that it takes another."""
    task.wanted_out = 0
    if error.maybe_done:
        fail_between(task)
    else:
        _fail(task, Key.NOT_READY, Asc.TARGET_PORT_UNAVAILABLE)


def fail_between(task: Task | Passage) -> None:
    """Nobody knows whether the task was carried out, nor how far."""
    _fail(task, Key.ABORTED_COMMAND, Asc.LOGICAL_UNIT_COMMUNICATION_FAILURE)


def _fail(task: Task | Passage, key: Key, asc: Asc) -> None:
    task.status = Status.CHECK_CONDITION
    task.sense = CheckCondition(key, asc).fixed()


def with_number(head: bytes, number: int) -> bytes:
    """The head of an EXECUTE with another number for the nexus."""
    fields = list(EXECUTE_HEAD.unpack_from(head))
    fields[3] = number
    return EXECUTE_HEAD.pack(*fields) + head[EXECUTE_HEAD.size :]


def fast(remote: RemoteUnit, unit: VirtualUnit, nexus: Nexus) -> FastTable:
    """What `nexus` may do on the spot with a virtual volume: have commands begun there."""
    table: FastTable = {TO_INITIATOR | code: _relay(remote, unit, nexus, code, reads=True) for code in READS}
    table.update({TO_TARGET | code: _relay(remote, unit, nexus, code, reads=False) for code in WRITES})
    return table


def _relay(remote: RemoteUnit, unit: VirtualUnit, nexus: Nexus, code: int, reads: bool) -> FastIO:
    near, route, encoded, begun = remote.near, Route(remote, unit, nexus), remote.encoded, unit.relayed
    pack, known, send, tags = PLAIN.pack, near.known.get, near.send.at_once, near.tags

    def relay(flags: int, word: int, count: int, view: memoryview) -> bool | Passage:
        number = known(nexus)
        length = len(view)
        if number is None or not length:
            return False
        out, into = (0, length) if reads else (length, 0)
        tag = next(tags) & 0xFFFFFFFF
        head = pack(EXECUTE, SIMPLE, PLAIN_CDB_BYTES, number, encoded, tag, out, into, code, flags, word, count, 0)
        passage = Passage(route, number, head, b"" if reads else bytes(view), into + ANSWER_BYTES)
        if not send(passage):
            return False
        begun[passage] = None
        return passage

    return relay
