"""Reads that must wait for the disk, by io_uring: no thread waits, and one system call begins all reads of a turn.

io_uring(7), io_uring_setup(2), io_uring_enter(2), by ctypes. What costs in a cold read is not the disk: it is waking
threads, and telling the (virtual) disk of each request by itself. Here the loop begins all reads of a turn at once, the
kernel tells the disk of them together, and an eventfd says that some have ended. Where the kernel does not offer it
(before Linux 5.19, or forbidden, as many container engines have it) `cold.py` does the same with threads.

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
from typing import Self

from arrayd.blockfile import kernel

SETUP_SYSCALL, ENTER_SYSCALL, REGISTER_SYSCALL = 425, 426, 427
"""The same numbers on every architecture but Alpha."""
ENTRIES = 256
"""Reads of all files under way at once; more wait in order. Completions have twice the room."""
RETRY_SECONDS = 0.01
"""Pause when the kernel would not hear of a read."""
COOP_TASKRUN = 1 << 8
"""No interrupt for a completion: the loop makes system calls enough (Linux 5.19)."""
SINGLE_MMAP = 1 << 0
REGISTER_EVENTFD = 4
OPCODE_READ = 22
SUBMISSIONS_AT, SQES_AT = 0, 0x10000000

PARAMETERS = Struct("=10I 8IQ 8IQ")
"""struct io_uring_params: sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, reserved (3);
offsets of the submission ring (head, tail, mask, entries, flags, dropped, array) and of the completion ring (head,
tail, mask, entries, overflow, cqes, flags), each with 12 reserved bytes behind."""
SQE = Struct("=BBHiQQIIQ24x")
"""struct io_uring_sqe: opcode, flags, priority, descriptor, offset, address, length, flags of the read, user data."""
CQE = Struct("=QiI")
"""struct io_uring_cqe: user data, result, flags."""
WORD = Struct("=I")


class Read:
    """One read under way: `view` is filled up to `done`. It pins the memory until it has ended."""

    __slots__ = ("descriptor", "done", "failing", "future", "offset", "over", "pin", "view")

    def __init__(
        self,
        descriptor: int,
        offset: int,
        view: memoryview,
        future: asyncio.Future[None],
        failing: Callable[[OSError], Exception],
        over: Callable[[], None],
    ) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.view = view
        self.pin: ctypes.c_char | None = ctypes.c_char.from_buffer(view)
        self.done = 0
        self.future = future
        self.failing = failing
        self.over = over

    def end(self, error: OSError | None) -> None:
        """The kernel does not touch the memory any more."""
        self.pin = None
        self.over()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self.failing(error))


class Ring:
    """The ring of an array, for the cold reads of all its files. Raises OSError where the kernel offers none."""

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
        self._next: deque[Read] = deque()
        """As many as tasks in flight at the most."""
        self._under_way: dict[int, Read] = {}
        self._number = self._filled = self._told = 0
        """Reads ever numbered, put into the ring, and told to the kernel."""
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

    def _ask(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Tells the kernel of all reads that wait, as far as there is room, in one system call."""
        self._due = False
        (tail,) = WORD.unpack_from(self._rings, self._tail_at)
        count = 0
        while self._next and len(self._under_way) < ENTRIES:
            read = self._next.popleft()
            assert read.pin is not None
            self._number += 1
            self._under_way[self._number] = read
            SQE.pack_into(
                self._sqes, (tail + count & self._mask) * SQE.size, OPCODE_READ, 0, 0, read.descriptor,
                read.offset + read.done, ctypes.addressof(read.pin) + read.done, len(read.view) - read.done, 0,
                self._number,
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
        """Tells the kernel of `count` more reads; how many of them it has heard of. Raises OSError."""
        return kernel.system_call(ENTER_SYSCALL, self._descriptor, count, 0, 0, None, 0)

    def _ended(self) -> None:
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        self._take()

    def _take(self) -> None:
        """Ends the reads that the kernel says have ended."""
        (head,) = WORD.unpack_from(self._rings, self._completion_head_at)
        (tail,) = WORD.unpack_from(self._rings, self._completion_tail_at)
        ended = []
        while head != tail:
            number, result, _ = CQE.unpack_from(self._rings, self._cqes_at + (head & self._completion_mask) * CQE.size)
            ended.append((self._under_way.pop(number), result))
            head = head + 1 & 0xFFFFFFFF
        WORD.pack_into(self._rings, self._completion_head_at, head)
        for read, result in ended:
            self._one_ended(read, result)
        if self._next and len(self._under_way) < ENTRIES:
            self._ask()

    def _one_ended(self, read: Read, result: int) -> None:
        if result in (-errno.EINTR, -errno.EAGAIN):
            result = 0
        elif result < 0:
            read.end(OSError(-result, os.strerror(-result)))
            return
        elif result == 0:
            read.end(OSError(errno.EIO, "the file is shorter than its volume"))
            return
        read.done += result
        if read.done == len(read.view):
            read.end(None)
        else:
            self._next.appendleft(read)

    def close(self) -> None:
        """Gives the ring back; no read is under way any more."""
        self._loop.remove_reader(self._event)
        self._rings.close()
        self._sqes.close()
        os.close(self._event)
        os.close(self._descriptor)
