"""A SCSI task, and what a transport may ask of a SCSI target: the seam between `iscsi` and `scsi` (SAM-5).

The transport makes a `Task` from a command PDU, lets it `enter` its task set (which says how many bytes of Data-Out
the command wants), fills `data_out`, and has it executed. `task.done(task)` is called once, at once or later, when
nothing of the task touches the medium or a buffer any more; then status, sense and `data_in` are final.

Commands that complete at once without a Task go by `Nexus.fast`: see `FastIO`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import Struct as Layout
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from arrayd.buffers import PooledBuffer
    from arrayd.volumes.volume import WarmFile

MAX_TRANSFER_BYTES = 8 * 1024 * 1024
"""Largest Data-In or Data-Out of one command, in bytes (told to hosts in VPD B0h)."""


class Status(IntEnum):
    """Status codes (SAM-5, 5.3.1)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class Attribute(IntEnum):
    """Task attributes, by the codes that iSCSI gives them (RFC 7143, 11.3.1)."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3
    ACA = 4


class Function(IntEnum):
    """Task management functions, by the codes that iSCSI gives them (RFC 7143, 11.5.1)."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LUN_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class DeliveryFailure(IntEnum):
    """Why Data-Out did not come as it must: additional sense codes that RFC 7143, 11.4.7.2 gives a transport."""

    UNEXPECTED_UNSOLICITED_DATA = 0x0C0C
    INCORRECT_AMOUNT_OF_DATA = 0x0C0D
    PROTOCOL_SERVICE_CRC_ERROR = 0x4705


class FunctionResponse(IntEnum):
    """Task management responses, by the codes that iSCSI gives them (RFC 7143, 11.6.1)."""

    COMPLETE = 0
    TASK_DOES_NOT_EXIST = 1
    LUN_DOES_NOT_EXIST = 2
    TASK_STILL_ALLEGIANT = 3
    REASSIGNMENT_NOT_SUPPORTED = 4
    NOT_SUPPORTED = 5
    AUTHORIZATION_FAILED = 6
    REJECTED = 255


SENDFILE_BYTES = 128 * 1024
"""From this length on a warm range goes from the file to the socket without a copy. For less, a system call for each
range costs more than two copies."""


class Nowhere:
    """`FileExtent.file` until somebody says where the data lies."""

    def send(self, _socket: int, _offset: int, _length: int) -> int:
        """See WarmFile."""
        raise AssertionError("data without a place")

    def load(self, _offset: int, _view: memoryview) -> None:
        """See WarmFile."""
        raise AssertionError("data without a place")


NOWHERE = Nowhere()


class FileExtent:
    """Data-In that lies warm in a file (a `Volume.warm_file`): the transport sends it from there."""

    __slots__ = ("file", "length", "offset")

    def __init__(self, file: WarmFile, offset: int, length: int) -> None:
        self.file = file
        self.offset = offset
        self.length = length

    def __len__(self) -> int:
        return self.length

    def load(self, at: int, view: memoryview) -> None:
        """Fills `view` with what begins at byte `at` of it. Raises OSError."""
        self.file.load(self.offset + at, view)


class Commit:
    """What writes that were done on the spot still wait for: one for all that the same sync makes durable."""

    __slots__ = ("_waiting", "sense", "status")

    def __init__(self) -> None:
        self.status: int = Status.GOOD
        self.sense: bytes = b""
        self._waiting: list[Callable[[Commit], None]] = []

    def when_ended(self, ended: Callable[[Commit], None]) -> None:
        """Calls `ended` when `status` and `sense` are final, for all the writes alike. Never from within this call."""
        self._waiting.append(ended)

    def end(self, status: int, sense: bytes) -> None:
        """All the writes are durable, or none is known to be."""
        self.status = status
        self.sense = sense
        for ended in self._waiting:
            ended(self)


class Fetch:
    """A read that is begun on the spot and waits for a disk: `length` bytes. `ended(fetch)` is called when it has.

    Then `status` and `sense` are final, and `buffer`, which is the transport's to release, has the data, if any.
    """

    __slots__ = ("buffer", "ended", "length", "sense", "status")

    def __init__(self, length: int, ended: Callable[[Fetch], None]) -> None:
        self.length = length
        self.ended = ended
        self.buffer: PooledBuffer | None = None
        self.status: int = Status.GOOD
        self.sense: bytes = b""

    def __len__(self) -> int:
        return self.length


class Relayed(Protocol):
    """A READ or WRITE that was begun on the spot and is carried out by another array.

    `ended(relayed)`, for everybody who asked by `when_ended`, is called when the rest is final: as of a `Task`, with
    `data_in`, which lasts as long as the call."""

    status: int
    sense: bytes
    wanted_out: int
    aborted: bool
    data_in: memoryview

    def when_ended(self, ended: Callable[[Relayed], None]) -> None:
        """Calls `ended` when it has ended, never from within this call."""


FastIO = Callable[[int, int, int, Any], "bool | Commit | Relayed"]
"""`fast(flags, word, count, view)`: carries out a CDB on the spot, or returns False having done nothing.

The CDB comes as the integers that byte 1, bytes 2-9 and bytes 10-13 are, so that a transport decodes it along with its
own header; bytes 14-15 are zero (no group number, no control byte of a 16-byte CDB). A 10-byte CDB is zero-padded.
For a read, the memoryview `view` is filled wholly; for a write, it holds all of the data. A read `BY_FILE` has a
`FileExtent` of the length wanted instead, which is told where the data lies; a read `FETCH` a `Fetch`, which ends when
the data is there. True means status GOOD, no residual (of a `FETCH`: begun); a `Commit` that a write is done, and
answered when that has ended; a `Relayed` that the command is begun, and `view` may be used for something else.
"""

CDB = Layout(">BBQIH")
"""A CDB of 16 bytes as these integers: its byte 0, byte 1, bytes 2-9, bytes 10-13 and bytes 14-15."""

TO_INITIATOR = 0x100
TO_TARGET = 0x200
"""The direction of data in a key of `FastTable`: a READ that comes with data is none for the fast path."""
BY_FILE = 0x400
"""Instead of a direction: a long READ, which is answered by saying where its data lies."""
FETCH = 0x800
"""Instead of a direction: a cold READ, which is begun, and answered when its data is there."""

FastTable = dict[int, FastIO]
"""CDB operation code, with the direction of its data, to `FastIO`. Empty whenever the logical unit must look at each
command of this nexus."""


class Task:
    """One command on its way through a target.

    `cdb` is 16 bytes or more, zero-padded; `lun` is the 8-byte LUN as a big-endian integer; `tag` the initiator task
    tag; `expected_out` and `expected_in` what the initiator is ready to send and take, in bytes. `data_in` may be
    longer than `expected_in`: the transport cuts it and reports the residual against `required_in`/`required_out`.
    """

    __slots__ = (
        "aborted",
        "attribute",
        "buffer",
        "cdb",
        "comes",
        "command",
        "counted",
        "data_in",
        "data_out",
        "data_sn",
        "done",
        "emitted",
        "executing",
        "expected_in",
        "expected_out",
        "finished",
        "held_bytes",
        "immediate_status",
        "lun",
        "nexus",
        "out_buffer",
        "sense",
        "status",
        "tag",
        "takes_file",
        "transfer",
        "unit",
        "wanted_out",
    )

    def __init__(
        self,
        cdb: bytes,
        lun: int,
        tag: int,
        attribute: int,
        expected_out: int,
        expected_in: int,
        done: Callable[[Task], None],
    ) -> None:
        self.cdb = cdb
        self.lun = lun
        self.tag = tag
        self.attribute = attribute
        self.expected_out = expected_out
        self.expected_in = expected_in
        self.done = done
        self.data_out: memoryview = memoryview(b"")
        self.data_in: bytes | bytearray | memoryview | FileExtent = b""
        self.takes_file = False
        """Whether the transport can send a `FileExtent` (no data digest in force)."""
        self.wanted_out = 0
        """Data-Out bytes the command asks for by its CDB; set by `Nexus.enter`."""
        self.status: int = Status.GOOD
        self.sense: bytes = b""
        self.aborted = False
        self.out_buffer: PooledBuffer | None = None
        """The transport's own: the pooled buffer that `data_out` lies in."""
        self.buffer: PooledBuffer | None = None
        """A pooled buffer that `data_in` lies in; released by the transport once sent."""
        self.comes: Callable[[Task, int], None] | None = None
        """Tells a transport that takes it so that the first bytes, so many, of a long `data_in` are there: it may send
        them. All of it will be there, and is as long as expected, if the task ends with status GOOD."""
        self.emitted = 0
        """The transport's own: so much of Data-In has gone, or is on its way."""
        self.data_sn = 0
        """The transport's own: Data-In PDUs that this was."""
        self.counted = False
        """The transport's own: whether the task takes a place in the command window."""
        self.held_bytes = 0
        """The transport's own: what the task takes of the connection's share of buffers."""
        self.transfer: Any = None
        """The transport's own: the Data-Out transfer of this task."""
        self.nexus: Any = None
        self.unit: Any = None
        self.command: Any = None
        self.executing = False
        self.immediate_status = False
        """True when `enter` already decided the status: the command is answered without being executed."""
        self.finished: list[Callable[[], None]] | None = None
        """Called when an aborted task has ended (task management waits for them)."""

    def reply(self, data: bytes | bytearray | memoryview, allocation_length: int) -> None:
        """Sets Data-In, cut to the CDB's allocation length (SPC-5, 4.2.5.6)."""
        self.data_in = data if len(data) <= allocation_length else data[:allocation_length]


class Nexus(Protocol):
    """An I_T nexus as a transport sees it."""

    fast: dict[int, FastTable]

    def enter(self, task: Task) -> None:
        """Enters `task` into the task set of its logical unit and sets `wanted_out`. Never fails: the task may."""

    def execute(self, task: Task) -> None:
        """Executes an entered task, whose `data_out` is complete; ends in one call of `task.done`."""

    def fail(self, task: Task, failure: DeliveryFailure) -> None:
        """Ends an entered task whose Data-Out did not come as it must; as `execute`, in one call of `task.done`."""

    def manage(self, function: int, lun: int, tag: int, done: Callable[[int], None]) -> None:
        """Carries out a task management function; `done(response)` when no affected task can do anything more."""

    def see(self, luns: frozenset[int] | None) -> None:
        """LUN masking from now on (None: all); a unit attention tells the initiator if that changes anything."""

    def detach(self) -> None:
        """I_T nexus loss (SAM-5, 6.3.4): its tasks are aborted, its unit attentions and SPC-2 reservations end."""


class Target(Protocol):
    """A SCSI target device as a transport sees it."""

    def attach(
        self, initiator: str, isid: bytes, port: int, luns: frozenset[int] | None, *, local: bool = False
    ) -> Nexus:
        """A new I_T nexus: initiator name and ISID, relative target port, the LUNs it may see (None: all), and whether
        the initiator is on this machine."""
