"""Files on a real disk, and threads that a test holds back: what the tests of block data and volumes have in common."""

import asyncio
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from arrayd.blockfile import BlockFile, Writeback, kernel

P = ParamSpec("P")
T = TypeVar("T")

MIB = 1024 * 1024
PLENTY = 1024 * MIB
ATTEMPTS_MAX = 100
COLD_LIMIT_S = 20.0
CHECKOUT = Path(__file__).resolve().parents[2]

OpenFile = Callable[..., Any]


def data(byte: int, length: int = kernel.PAGE_BYTES) -> memoryview:
    """That many of one byte."""
    return memoryview(bytes([byte]) * length)


def content(file: BlockFile, offset: int, length: int) -> bytes:
    """What the file holds, for anybody who reads it."""
    return file.path.read_bytes()[offset : offset + length]


class Failing(Exception):
    """What a volume makes of an OSError."""


class HeldThreads(Executor):
    """An executor whose jobs run when the test says so, in the order it says, in the thread of the test."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Keeps the job."""
        future: Future[T] = Future()

        def job() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.jobs.append(job)
        return future

    async def run(self, index: int = 0) -> None:
        """Runs one job, and lets the loop hear of it."""
        self.jobs.pop(index)()
        await turns()

    async def run_all(self) -> None:
        """Runs jobs, oldest first, until there are none."""
        await turns()
        while self.jobs:
            await self.run()


async def turns(count: int = 8) -> None:
    """Gives the loop some turns: enough for callbacks that wait for callbacks."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settled(pending: Awaitable[None] | None) -> None:
    """Awaits what a volume answered."""
    if pending is not None:
        await pending


def on_disk(folder: Path) -> bool:
    """Whether files in ``folder`` are on a disk, not in memory."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return not kernel.in_tmpfs(file.fileno())


@pytest.fixture
def disk() -> Iterator[Path]:
    """An empty folder on a file system with a disk below."""
    for parent in (Path(tempfile.gettempdir()), Path("/var/tmp"), CHECKOUT):
        if parent.is_dir() and on_disk(parent):
            with tempfile.TemporaryDirectory(prefix="arrayd-", dir=parent) as folder:
                yield Path(folder)
            return
    pytest.skip("needs a writable folder that is not in memory")


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Nothing of this process is written beyond the first half MiB of a file (EFBIG)."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that run as they come."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def held() -> HeldThreads:
    """Threads that the test holds back."""
    return HeldThreads()


@pytest.fixture
async def open_file(disk: Path, threads: ThreadPoolExecutor) -> AsyncIterator[OpenFile]:
    """``await open_file(size=…, executor=…, writeback=…, name=…)``: a BlockFile, closed after the test."""
    opened: list[BlockFile] = []

    async def open_one(
        size: int = MIB,
        executor: Executor | None = None,
        writeback: Writeback | None = None,
        name: str = "file",
        **options: Any,
    ) -> BlockFile:
        file = await BlockFile.open(disk / name, size, threads, writeback or Writeback(PLENTY), **options)
        if executor is not None:
            file._executor = executor
        opened.append(file)
        return file

    yield open_one
    for file in opened:
        if isinstance(file._executor, HeldThreads):
            await file._executor.run_all()
        if file.descriptor >= 0:
            await file.close()


def buffers(count: int) -> list[memoryview]:
    """So many pages to read into."""
    return [memoryview(bytearray(kernel.PAGE_BYTES)) for _ in range(count)]


async def make_cold(file: BlockFile) -> None:
    """Drops the file from the page cache; the kernel takes it as advice, so it is asked until it did."""
    await file.sync()
    deadline = time.monotonic() + COLD_LIMIT_S
    # Looking must not read: a read that is refused starts readahead all the same.
    while any(file.warm(at, kernel.PAGE_BYTES) for at in range(0, file.size, kernel.PAGE_BYTES)):
        assert time.monotonic() < deadline, "the file stays in the page cache"
        os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        await asyncio.sleep(0.01)


async def refused_when_cold(file: BlockFile, attempt: Callable[[], bool]) -> None:
    """`attempt` is refused while the file is cold. Some disks are quick enough to be done before the kernel looks."""
    for _ in range(ATTEMPTS_MAX):
        await make_cold(file)
        if not attempt():
            return
    raise AssertionError(f"done on the spot {ATTEMPTS_MAX} times")
