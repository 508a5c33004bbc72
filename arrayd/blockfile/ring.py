"""What must wait for the disk, by io_uring: no thread waits, and one system call begins all reads of a turn.

io_uring(7), io_uring_setup(2), io_uring_enter(2), by ctypes. What costs in a cold read is not the disk: it is waking
threads, and telling the (virtual) disk of each request by itself. Here the loop begins all reads of a turn at once, the
kernel tells the disk of them together, and an eventfd says that some have ended. A sync costs no thread that would take
the interpreter from the loop twice. Where the kernel does not offer it (before Linux 5.19, or forbidden, as many
container engines have it) `threads.py` does the same.

Rings are memory that is shared with the kernel. All our stores come before io_uring_enter, and all our loads after the
read of the eventfd: these system calls are the barriers that the processor needs.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Protocol, Self

from arrayd.blockfile import kernel
from arrayd.blockfile.cold_read import ColdRead, too_short

SETUP_SYSCALL, ENTER_SYSCALL, REGISTER_SYSCALL = 425, 426, 427
"""The same numbers on every architecture but Alpha."""
ENTRIES = 256
"""Reads and syncs of all files under way at once; more wait in order. Completions have twice the room."""
RETRY_SECONDS = 0.01
"""Pause when the kernel would not hear of what is asked."""
COOP_TASKRUN = 1 << 8
"""No interrupt for a completion: the loop makes system calls enough (Linux 5.19)."""
SINGLE_MMAP = 1 << 0
REGISTER_EVENTFD = 4
OPCODE_SYNC, OPCODE_READ = 3, 22
SYNC_DATA_ONLY = 1 << 0
SUBMISSIONS_AT, SQES_AT = 0, 0x10000000

PARAMETERS = Struct("=10I 8IQ 8IQ")
"""struct io_uring_params: sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, reserved (3);
offsets of the submission ring (head, tail, mask, entries, flags, dropped, array) and of the completion ring (head,
tail, mask, entries, overflow, cqes, flags), each with 12 reserved bytes behind."""
SQE = Struct("=BBHiQQIIQ24x")
"""struct io_uring_sqe: opcode, flags, priority, descriptor, offset, address, length, flags of the read or sync, user
data."""
CQE = Struct("=QiI")
"""struct io_uring_cqe: user data, result, flags."""
WORD = Struct("=I")


class Request(Protocol):
    """What the kernel is asked for, and what becomes of it."""

    def entry(self) -> tuple[int, int, int, int, int, int]:
        """Opcode, descriptor, offset, address, length, flags."""

    def ended(self, result: int) -> bool:
        """The kernel has said so; whether that was all, or it must be asked for what is left."""


class Read(ColdRead):
    """One read under way: `view` is filled up to `_done`. It pins the memory until it has ended."""

    __slots__ = ("_done", "_pin")

    def __init__(
        self,
        descriptor: int,
        offset: int,
        view: memoryview,
        future: asyncio.Future[None],
        failing: Callable[[OSError], Exception],
        over: Callable[[], None],
    ) -> None:
        super().__init__(descriptor, offset, view, future, failing, over)
        self._pin: ctypes.c_char | None = ctypes.c_char.from_buffer(view)
        self._done = 0

    def entry(self) -> tuple[int, int, int, int, int, int]:
        """See Request."""
        assert self._pin is not None
        done = self._done
        address = ctypes.addressof(self._pin) + done
        return OPCODE_READ, self.descriptor, self.offset + done, address, len(self.view) - done, 0

    def ended(self, result: int) -> bool:
        """See Request; what was interrupted is asked for again."""
        if result in (-errno.EINTR, -errno.EAGAIN):
            return False
        if result <= 0:
            self.end(_error(result) or too_short())
            return True
        self._done += result
        if self._done < len(self.view):
            return False
        self.end(None)
        return True

    def end(self, error: OSError | None) -> None:
        """See ColdRead."""
        self._pin = None
        super().end(error)


class Sync:
    """One fdatasync under way. It is never tried again, whatever it says."""

    __slots__ = ("_descriptor", "_over")

    def __init__(self, descriptor: int, over: Callable[[OSError | None], None]) -> None:
        self._descriptor = descriptor
        self._over = over

    def entry(self) -> tuple[int, int, int, int, int, int]:
        """See Request."""
        return OPCODE_SYNC, self._descriptor, 0, 0, 0, SYNC_DATA_ONLY

    def ended(self, result: int) -> bool:
        """See Request."""
        self._over(_error(result))
        return True


def _error(result: int) -> OSError | None:
    return OSError(-result, os.strerror(-result)) if result < 0 else None


class Ring:
    """The ring of an array: cold reads and syncs of all its files. Raises OSError where the kernel offers none."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        parameters = ctypes.create_string_buffer(PARAMETERS.pack(0, 0, COOP_TASKRUN, *[0] * 25), PARAMETERS.size)
        self._descriptor = kernel.system_call(SETUP_SYSCALL, ENTRIES, ctypes.byref(parameters))
        try:
            self._map(PARAMETERS.unpack(parameters.raw))
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except BaseException:
            os.close(self._descriptor)
            raise
        event = ctypes.c_int(self._event)
        try:
            kernel.system_call(REGISTER_SYSCALL, self._descriptor, REGISTER_EVENTFD, ctypes.byref(event), 1)
            self._enter(0)  # who may make a ring need not be let use it
        except BaseException:
            self.close()
            raise
        self._due = False
        """Whether `_begin` is about to be called."""
        self._next: deque[Request] = deque()
        """As many as tasks in flight at the most."""
        self._under_way: dict[int, Request] = {}
        self._number = self._filled = self._told = 0
        """Requests ever numbered, put into the ring, and told to the kernel."""
        self._loop.add_reader(self._event, self._ended)

    @classmethod
    def or_none(cls) -> Self | None:
        """A ring, or None where the kernel offers none."""
        try:
            return cls()
        except OSError:
            return None

    def _map(self, told: tuple[int, ...]) -> None:
        entries, completions, features = told[0], told[1], told[5]
        if not features & SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "io_uring without a single mapping")
        submission, completion = told[10:17], told[19:26]
        size = max(submission[6] + entries * WORD.size, completion[5] + completions * CQE.size)
        self._rings = mmap.mmap(self._descriptor, size, offset=SUBMISSIONS_AT)
        self._sqes = mmap.mmap(self._descriptor, entries * SQE.size, offset=SQES_AT)
        self._tail_at, self._mask = submission[1], entries - 1
        for number in range(entries):
            WORD.pack_into(self._rings, submission[6] + number * WORD.size, number)
        self._completion_head_at, self._completion_tail_at, self._cqes_at = completion[0], completion[1], completion[5]
        self._completion_mask = completions - 1

    def read(
        self,
        descriptor: int,
        offset: int,
        view: memoryview,
        failing: Callable[[OSError], Exception],
        over: Callable[[], None],
    ) -> asyncio.Future[None]:
        """Fills `view` from `offset`; begins when this turn of the loop ends. `over` is called when it has ended."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._next.append(Read(descriptor, offset, view, future, failing, over))
        self._ask()
        return future

    def sync(self, descriptor: int, over: Callable[[OSError | None], None]) -> None:
        """Begins fdatasync(2), then and there; `over` is called with how it ended."""
        self._next.append(Sync(descriptor, over))
        self._begin()

    @property
    def busy(self) -> bool:
        """Whether anything is under way, or waits."""
        return bool(self._under_way or self._next)

    def _ask(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Tells the kernel of all that waits, as far as there is room, in one system call."""
        self._due = False
        (tail,) = WORD.unpack_from(self._rings, self._tail_at)
        count = 0
        while self._next and len(self._under_way) < ENTRIES:
            request = self._next.popleft()
            self._number += 1
            self._under_way[self._number] = request
            opcode, descriptor, offset, address, length, flags = request.entry()
            SQE.pack_into(
                self._sqes, (tail + count & self._mask) * SQE.size, opcode, 0, 0, descriptor, offset, address, length,
                flags, self._number,
            )  # fmt: skip
            count += 1
        WORD.pack_into(self._rings, self._tail_at, tail + count & 0xFFFFFFFF)
        self._filled += count
        self._submit()

    def _submit(self) -> None:
        try:
            while self._told < self._filled:
                self._told += self._enter(self._filled - self._told)
        except OSError:
            # Interrupted, or no memory for it now. What is in the ring stays there.
            self._loop.call_later(RETRY_SECONDS, self._begin)
        self._take()

    def _enter(self, count: int) -> int:
        """Tells the kernel of `count` more requests; how many of them it has heard of. Raises OSError."""
        return kernel.system_call(ENTER_SYSCALL, self._descriptor, count, 0, 0, None, 0)

    def _ended(self) -> None:
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        self._take()

    def _take(self) -> None:
        """Hears what the kernel says has ended."""
        (head,) = WORD.unpack_from(self._rings, self._completion_head_at)
        (tail,) = WORD.unpack_from(self._rings, self._completion_tail_at)
        ended = []
        while head != tail:
            number, result, _ = CQE.unpack_from(self._rings, self._cqes_at + (head & self._completion_mask) * CQE.size)
            ended.append((self._under_way.pop(number), result))
            head = head + 1 & 0xFFFFFFFF
        WORD.pack_into(self._rings, self._completion_head_at, head)
        for request, result in ended:
            if not request.ended(result):
                self._next.appendleft(request)
        if self._next and len(self._under_way) < ENTRIES:
            self._ask()

    def close(self) -> None:
        """Gives the ring back; nothing is under way any more."""
        self._loop.remove_reader(self._event)
        self._rings.close()
        self._sqes.close()
        os.close(self._event)
        os.close(self._descriptor)
