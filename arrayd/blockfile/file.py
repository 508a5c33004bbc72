"""One open file of block data.

What can be done without blocking is done on the spot; the rest goes to the one executor, and comes back through a
future of the loop, which is done when its thread is, whatever became of whoever waits for it.

All state is the loop's; threads only make system calls and report back.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TypeVar

from arrayd.blockfile import kernel, opening
from arrayd.blockfile.ring import Ring
from arrayd.blockfile.syncs import Syncs
from arrayd.blockfile.threads import Threads
from arrayd.blockfile.writeback import Writeback

T = TypeVar("T")

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PAGE_MASK = PAGE_BYTES - 1
ZEROS = bytes(1024 * 1024)
WRITE_BYTES = 128 * 1024
"""Most that is written at once. The page cache takes in what one call writes as folios as large as they come, and ext4
looks at every block of a folio to write one: a 4k write into a folio of 1 MiB takes 14 us, of 128 KiB 4 us."""

WARY_READS = 64
"""After a read that was not in memory while the ring was busy, so many are looked up before they are tried: to be
refused (RWF_NOWAIT) makes the kernel tell the disk of this one read then and there, and the ring tells it of all of a
turn together. For one that comes alone then and there is best; without a ring, too: a thread is slower to begin."""


class BlockFile:
    """One file of `size` bytes, open for nobody else.

    `read_now(offset, view)` and `write_now(offset, view)` are closures: they are the innermost part of the hot path.
    What fails is raised, out of the futures too, as `failing` turns an OSError into an exception.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        executor: Executor,
        writeback: Writeback,
        failing: Callable[[OSError], Exception] = lambda error: error,
        ring: Ring | None = None,
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.loop = asyncio.get_running_loop()
        self._executor = executor
        self._failing = failing
        self.in_memory = kernel.in_tmpfs(descriptor)
        self._disk = Threads(self._submit) if ring is None or self.in_memory else ring
        self.wary = 0
        """How many more reads are looked up before they are tried."""
        self._share = writeback.join(self._clean)
        self._syncs = Syncs(
            descriptor,
            self.loop,
            self._fdatasync,
            failing,
            self._written,
            self._share.cleaned_to,
            self._failed,
        )
        self._room = 0
        """Bytes of the grant that are not yet written."""
        self._jobs = 0
        self._idle: asyncio.Future[None] | None = None
        self._residence = None if self.in_memory else kernel.Residence(descriptor, self.size)
        self.read_now = self._make_read_now()
        self.write_now = self._make_write_in_memory() if self.in_memory else self._make_write_now()

    @classmethod
    async def open(
        cls,
        path: Path,
        size: int,
        executor: Executor,
        writeback: Writeback,
        failing: Callable[[OSError], Exception] = lambda error: error,
        *,
        allocate: bool = False,
        read_only: bool = False,
        larger: bool = False,
        ring: Ring | None = None,
    ) -> BlockFile:
        """Opens `path`, or makes it, durably, with its folder; with `allocate` all of it gets disk. `ring` reads what
        is cold and syncs, or threads do without one.

        Raises OSError, for the user: in use, larger than `size` unless it may be `larger`, or read-only and smaller.
        """
        opening_file = asyncio.wrap_future(executor.submit(opening.open_file, path, size, allocate, read_only, larger))
        try:
            descriptor = await asyncio.shield(opening_file)
        except asyncio.CancelledError:
            # The thread goes on; what it opens must not stay open.
            os.close(await opening_file)
            raise
        try:
            return cls(path, descriptor, executor, writeback, failing, ring)
        except BaseException:
            os.close(descriptor)
            raise

    # -- on the spot -------------------------------------------------------------------------------------------------

    def _make_read_now(self) -> Callable[[int, memoryview], bool]:
        preadv, descriptor, disk = os.preadv, self.descriptor, self._disk
        flags = 0 if self.in_memory else os.RWF_NOWAIT

        def read_now(offset: int, view: memoryview) -> bool:
            """Fills `view` if all of it is in memory."""
            if self.wary and not self._looks_warm(offset, len(view)):
                return False
            try:
                if preadv(descriptor, (view,), offset, flags) == len(view):
                    return True
            except OSError:
                pass
            self.wary = WARY_READS if disk.busy else 0
            return False

        return read_now

    def _looks_warm(self, offset: int, length: int) -> bool:
        """Whether it is worth while to try a read on the spot, after one that was not."""
        if self.warm(offset, length):
            self.wary -= 1
            return True
        self.wary = WARY_READS
        return False

    def _make_write_in_memory(self) -> Callable[[int, memoryview], bool]:
        pwrite, descriptor = os.pwrite, self.descriptor

        def write_now(offset: int, view: memoryview) -> bool:
            """Writes `view`, or finds no room for it."""
            try:
                return pwrite(descriptor, view, offset) == len(view)
            except OSError:
                return False

        return write_now

    def _make_write_now(self) -> Callable[[int, memoryview], bool]:
        pwrite, descriptor = os.pwrite, self.descriptor

        def write_now(offset: int, view: memoryview) -> bool:
            """Writes `view` into the page cache, unless the kernel might make us sleep."""
            length = len(view)
            if (offset | length) & PAGE_MASK and not self._edges_warm(offset, offset + length):
                return False
            self._room = room = self._room - length
            if room < 0 and not self._make_room(length):
                return False
            try:
                if length > WRITE_BYTES:
                    self._write_wholly(offset, view)
                    return True
                return pwrite(descriptor, view, offset) == length
            except OSError:
                return False

        return write_now

    def _make_room(self, length: int) -> bool:
        """Gets a grant for a write of `length` bytes, which are taken off `_room` already."""
        grant = 0 if self.failure is not None else self._share.take(length)
        self._room = self._room + grant if grant else 0
        return grant > 0

    def _edges_warm(self, start: int, end: int) -> bool:
        """Whether the pages that a write covers only in part are in memory: else the kernel reads them first."""
        for at in (start, end):
            if at & PAGE_MASK:
                try:
                    if os.preadv(self.descriptor, (bytearray(1),), at & ~PAGE_MASK, os.RWF_NOWAIT) != 1:
                        return False
                except OSError:
                    return False
                # The whole page becomes dirty.
                self._room -= PAGE_BYTES
        return True

    def warm(self, offset: int, length: int) -> bool:
        """Whether every page of the range is in memory, read and ready (it may be gone a moment later)."""
        return self._residence is None or self._residence.covers(offset, length)

    def send(self, socket: int, offset: int, length: int) -> int:
        """See `volume.WarmFile`."""
        return os.sendfile(socket, self.descriptor, offset, length)

    def load(self, offset: int, view: memoryview) -> None:
        """See `volume.WarmFile`."""
        if os.preadv(self.descriptor, (view,), offset) != len(view):
            raise OSError(errno.EIO, "the file of a volume ended early")

    # -- in the executor ---------------------------------------------------------------------------------------------

    def _job(self, work: Callable[[], T], done: Callable[[], None] | None = None) -> asyncio.Future[T]:
        """Has `work` done by a thread; if it did not fail, `done` is called on the loop before the future is done."""
        future: asyncio.Future[T] = self.loop.create_future()
        self._jobs += 1
        self._executor.submit(self._in_thread, work, future, done)
        return future

    def _in_thread(self, work: Callable[[], T], future: asyncio.Future[T], done: Callable[[], None] | None) -> None:
        try:
            result = work()
        except Exception as error:
            self.loop.call_soon_threadsafe(self._job_failed, future, error)
        else:
            self.loop.call_soon_threadsafe(self._job_done, future, result, done)

    def _job_failed(self, future: asyncio.Future[T], error: Exception) -> None:
        self._job_over()
        if not future.done():
            future.set_exception(self._failing(error) if isinstance(error, OSError) else error)

    def _job_done(self, future: asyncio.Future[T], result: T, done: Callable[[], None] | None) -> None:
        self._job_over()
        if done is not None:
            done()
        if not future.done():
            future.set_result(result)

    def _job_over(self, count: int = 1) -> None:
        self._jobs -= count
        if self._idle is not None and not self._jobs and not self._idle.done():
            self._idle.set_result(None)

    def _submit(self, work: Callable[..., None], *arguments: object) -> None:
        self._executor.submit(work, *arguments)

    def read(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        """Fills `view`."""
        self._jobs += 1
        return self._disk.read(self.descriptor, offset, view, self._failing, self._job_over)

    def write(self, offset: int, view: memoryview) -> asyncio.Future[None]:
        """Writes `view` into the page cache, from a thread, which may sleep."""
        if not self.in_memory:
            self._share.charge(len(view))
        return self._job(partial(self._write_wholly, offset, view))

    def _write_wholly(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self.descriptor, view[done : done + WRITE_BYTES], offset + done)

    def punch(self, offset: int, length: int) -> asyncio.Future[None]:
        """Frees the range; it reads as zeros."""
        return self._job(partial(self._punch, offset, length))

    def _punch(self, offset: int, length: int) -> None:
        try:
            kernel.fallocate(self.descriptor, kernel.PUNCH_HOLE | kernel.KEEP_SIZE, offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._write_zeros(offset, length)

    def zero(self, offset: int, length: int) -> asyncio.Future[None]:
        """Makes the range zeros and keeps it allocated."""
        return self._job(partial(self._zero, offset, length))

    def _zero(self, offset: int, length: int) -> None:
        try:
            kernel.fallocate(self.descriptor, kernel.ZERO_RANGE | kernel.KEEP_SIZE, offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._write_zeros(offset, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        zeros = memoryview(ZEROS)
        for at in range(offset, offset + length, len(zeros)):
            self._write_wholly(at, zeros[: offset + length - at])

    def extents(self, offset: int, length: int, limit: int) -> asyncio.Future[list[tuple[int, int, bool]]]:
        """At most `limit` (offset, length, mapped) from `offset` on."""
        return self._job(partial(kernel.extents, self.descriptor, offset, offset + length, limit))

    def resize(self, size: int, allocate: bool = False) -> asyncio.Future[None]:
        """Grows or cuts the file, durably; with `allocate` all of it gets disk. `size` is what it was until then."""

        def resized() -> None:
            self.size = size
            if self._residence is not None:
                self._residence.map(size)

        return self._job(partial(opening.resize, self.descriptor, size, allocate), resized)

    # -- durability --------------------------------------------------------------------------------------------------

    @property
    def failure(self) -> OSError | None:
        """Why the file failed: it is read, and not written or synced any more, until an operator has seen to it."""
        return self._syncs.failure

    def sync(self) -> asyncio.Future[None]:
        """Done when everything written before the call is durable."""
        return self._done() if self.in_memory else self._syncs.sync()

    def commit(self) -> asyncio.Future[None]:
        """`sync` for many: all who ask before the next sync begins share one future, which nobody may cancel."""
        return self._done() if self.in_memory else self._syncs.commit()

    def _fdatasync(self, descriptor: int, ended: Callable[[OSError | None], None]) -> None:
        """See Syncs."""
        self._jobs += 1

        def over(error: OSError | None) -> None:
            ended(error)
            self._job_over()

        self._disk.sync(descriptor, over)

    def _done(self) -> asyncio.Future[None]:
        """For a file in memory: no disk to wait for, it is as durable as it gets."""
        future: asyncio.Future[None] = self.loop.create_future()
        future.set_result(None)
        return future

    def _failed(self) -> None:
        """Nothing is written any more, and what is left in the page cache is not counted."""
        self._room = 0
        self._share.cleaned_to(self._share.granted)

    def _written(self) -> int:
        """How much of what was ever granted is written."""
        return self._share.granted - max(self._room, 0)

    def _clean(self, keep: int) -> asyncio.Future[int | OSError]:
        """See `Writeback.join`."""
        cleaning = self._job(partial(self._clean_in_thread, keep))
        cleaning.add_done_callback(partial(self._cleaned, self._written()))
        return cleaning

    def _clean_in_thread(self, keep: int) -> int | OSError:
        """Bytes that are still dirty, or how the file failed."""
        dirty = kernel.dirty_bytes(self.descriptor)
        if dirty is not None and dirty <= keep:
            return dirty
        try:
            # What fails is told to this open file, and to those of the syncs all the same.
            opened = opening.open_again(self.descriptor)
        except OSError:
            return dirty if dirty is not None else keep
        try:
            kernel.write_back(opened)
        except OSError as error:
            return error
        finally:
            os.close(opened)
        return kernel.dirty_bytes(self.descriptor) or 0

    def _cleaned(self, written: int, cleaning: asyncio.Future[int | OSError]) -> None:
        dirty = cleaning.result()
        if isinstance(dirty, OSError):
            self._syncs.fail(dirty)
        else:
            self._share.cleaned_to(written - dirty)

    # -- facts and end -----------------------------------------------------------------------------------------------

    def allocated_bytes(self) -> int:
        """Disk in use by the file."""
        return os.fstat(self.descriptor).st_blocks * 512

    def available_bytes(self) -> int:
        """Disk left in the file system."""
        facts = os.fstatvfs(self.descriptor)
        return facts.f_bavail * facts.f_frsize

    async def close(self) -> None:
        """Closes the file when no thread works on it any more. Whoever wants it durable syncs before; nobody calls
        `read_now` or `write_now` after: the descriptor's number may mean another file."""
        while self._jobs or not self._syncs.idle:
            self._idle = self.loop.create_future()
            await self._idle
        self._idle = None
        self._share.leave()
        self._syncs.close()
        if self._residence is not None:
            self._residence.close()
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)
