"""A real daemon under attack: it neither falls, nor stalls, nor grows, and a good session beside it notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from arrayd.iscsi.server import HALF_OPEN_MAX
from tests.iscsi.requests import read_10, write_10
from tests.iscsi.session_driver import PATTERN, blocks
from tests.lab.connection import IscsiError
from tests.lab.daemon import ArraydProcess, configuration
from tests.lab.initiator import Session
from tests.lab.pdu import IMMEDIATE, Opcode, Pdu, encode_text, request

HALF_OPEN_LOGINS = 10_000
AT_ONCE = 2000
"""Sockets of our own that are open at a time."""
GROWTH_BYTES = 100 << 20
"""What an attack may cost in memory, all its buffers together."""
ANSWER_SECONDS = 2.0
"""What the slowest answer to the good session may take: the daemon shares two processors with the attack."""
FLOOD_SECONDS = 0.5

pytestmark = pytest.mark.external
"""Not because of a part outside Python, but because it keeps both processors busy for a while."""


class Daemon:
    """A daemon, and a session of a host that goes on with its work."""

    def __init__(self, process: ArraydProcess) -> None:
        self.process = process
        self.slowest = 0.0
        self.rounds = 0

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def session(self, number: int, **keys: str) -> Session:
        address, target = self.process.addresses[0], self.process.target
        session = await Session.open(address, target, keys, isid=number.to_bytes(6, "big"))
        while (await session.command(bytes(6))).status:
            pass
        return session

    async def work(self, session: Session, stop: asyncio.Event) -> None:
        """Writes and reads back until `stop`; notes the slowest answer."""
        while not stop.is_set():
            began = time.monotonic()
            data = PATTERN[self.rounds % 1000 :][: blocks(16)]
            assert (await session.command(write_10(0, 16), data_out=data)).status == 0
            assert (await session.command(read_10(0, 16), read_bytes=len(data))).data == data
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.rounds += 1
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArraydProcess]:
    with ArraydProcess(tmp_path_factory.mktemp("hostile"), configuration({"data": {"size": "64MiB"}})) as process:
        yield process


@pytest.fixture
async def daemon(process: ArraydProcess) -> AsyncIterator[Daemon]:
    """The daemon with its good session at work; afterwards it has answered all along, and is as small as before."""
    daemon = Daemon(process)
    good = await daemon.session(1)
    before = daemon.memory
    stop = asyncio.Event()
    work = asyncio.create_task(daemon.work(good, stop))
    yield daemon
    stop.set()
    await work
    assert daemon.rounds
    assert daemon.slowest < ANSWER_SECONDS
    assert daemon.memory - before < GROWTH_BYTES
    await good.logout()
    async with await daemon.session(2) as after:
        assert (await after.command(bytes(6))).status == 0
    assert "Traceback" not in process.log


async def flood(session: Session, make: Callable[[int], Pdu]) -> None:
    """Sends as fast as it goes for FLOOD_SECONDS, whatever is answered, or until the target has enough."""
    end = time.monotonic() + FLOOD_SECONDS
    number = 0
    with contextlib.suppress(OSError, IscsiError):
        while time.monotonic() < end:
            for _ in range(50):
                number += 1
                await session.connection.send(make(number))
            await asyncio.sleep(0)
    await session.close()


def numbered(session: Session, pdu: Pdu, tag: int) -> Pdu:
    pdu.tag = tag
    pdu.cmd_sn = session.cmd_sn
    return pdu


@pytest.mark.timeout(120)
async def test_half_open_logins(daemon: Daemon) -> None:
    """As many connections as will, that say nothing, or the beginning of a login."""
    open_files = await asyncio.to_thread(open_half, daemon)
    assert open_files < HALF_OPEN_MAX + 100


def open_half(daemon: Daemon) -> int:
    """Opens them all, AT_ONCE at a time; how many files the daemon has open at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, AT_ONCE + 500), hard), hard))
    login = request(Opcode.LOGIN | IMMEDIATE, 4, data=encode_text({"InitiatorName": "iqn.2026-11.io.arrayd:half"}))
    half = bytes(login.packed()) + login.data
    socks: deque[socket.socket] = deque()
    try:
        for number in range(HALF_OPEN_LOGINS):
            sock = socket.create_connection(("127.0.0.1", daemon.process.port))
            socks.append(sock)
            with contextlib.suppress(OSError):
                sock.send(half[: number % len(half)])
            if len(socks) == AT_ONCE:
                socks.popleft().close()
        return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
    finally:
        for sock in socks:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "make",
    [
        lambda session, number: numbered(session, request(Opcode.NOP_OUT | IMMEDIATE), number),
        lambda session, number: numbered(session, request(Opcode.NOP_OUT | IMMEDIATE, data=PATTERN[:200_000]), number),
        lambda session, number: numbered(session, request(Opcode.TASK_MANAGEMENT | IMMEDIATE, 0x82), number),
        lambda session, number: numbered(
            session, request(Opcode.TEXT | IMMEDIATE, data=b"SendTargets=\0" + b"X=1\0" * 100), number
        ),
        lambda session, number: numbered(session, request(Opcode.SCSI_COMMAND | IMMEDIATE, 0x81), number),
        lambda session, number: numbered(session, request(0x1F | IMMEDIATE), number),
        lambda session, number: request(Opcode.DATA_OUT, data=PATTERN[:262_144]),
    ],
    ids=["NOP", "long NOP", "task management", "text", "commands", "unknown", "Data-Out"],
)
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does not read"])
async def test_flood(daemon: Daemon, make: Callable[[Session, int], Pdu], reads: bool) -> None:
    session = await daemon.session(3)
    session._receive_one = _ignore  # type: ignore[method-assign,assignment]
    if not reads:
        assert session._receiver is not None
        session._receiver.cancel()
        session.connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.wait([asyncio.create_task(flood(session, lambda number: make(session, number)))], timeout=2)
        transport = session.connection.writer.transport
        if not transport.is_closing():  # the array has not closed it by itself
            transport.abort()
    else:
        await flood(session, lambda number: make(session, number))


async def _ignore(_pdu: Pdu) -> None:
    pass


async def test_writes_that_are_asked_for_and_never_come(daemon: Daemon) -> None:
    """Hosts that take every buffer they can get, and send nothing."""
    hosts = [await daemon.session(number, InitialR2T="Yes", ImmediateData="No") for number in range(10, 14)]
    for session in hosts:
        session._receive_one = _ignore  # type: ignore[method-assign,assignment]
        for tag in range(1, 200):
            pdu = request(Opcode.SCSI_COMMAND, 0xA1)
            pdu.header[32:42] = write_10(0, 16384)
            pdu.tag, pdu.transfer_tag, pdu.cmd_sn = tag, blocks(16384), session.cmd_sn
            session.cmd_sn += 1
            await session.connection.send(pdu)
    writer = await daemon.session(20, InitialR2T="Yes", ImmediateData="No")
    for _ in range(20):
        assert (await writer.command(write_10(4096, 2048), data_out=PATTERN[: blocks(2048)])).status == 0
    await writer.close()
    for session in hosts:
        await session.close()


async def test_connections_that_come_and_go(daemon: Daemon) -> None:
    """Logins that are dropped in every state, as fast as one host can."""

    async def come_and_go(number: int) -> None:
        session = await Session.open(daemon.process.addresses[0], daemon.process.target, isid=number.to_bytes(6, "big"))
        await session.submit(read_10(0, 2048), read_bytes=blocks(2048))
        session.connection.writer.transport.abort()
        await session.close()

    steps: list[Awaitable[None]] = [come_and_go(1000 + number % 7) for number in range(200)]
    for at in range(0, len(steps), 10):
        await asyncio.gather(*steps[at : at + 10], return_exceptions=True)
