"""However much there is to do at once, no connection has the event loop for long: others get their turn."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import pytest

from arrayd.iscsi.server import SocketConnection
from tests.iscsi.requests import read_10
from tests.iscsi.serving import Serving
from tests.iscsi.session_driver import PATTERN, blocks
from tests.lab.initiator import Session
from tests.lab.pdu import IMMEDIATE, Opcode, Pdu, pad, request

pytestmark = pytest.mark.slow

TURN_SECONDS = 0.05
"""Of processor time; other processes on the machine do not count."""
STREAM_BYTES = 2 << 20
ANSWER_BYTES = 400 << 20
"""What the answers may come to, or the test would take long."""


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """As in the daemon, what was there at the start is not the collector's business. It stays so: to unfreeze it would
    give all tests that come later what tests/conftest.py has frozen."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Processor seconds of each turn that a connection takes of the loop."""
    taken: list[float] = []

    def timed(method: Callable[[SocketConnection], None]) -> Callable[[SocketConnection], None]:
        def turn(connection: SocketConnection) -> None:
            began = time.thread_time()
            method(connection)
            taken.append(time.thread_time() - began)

        return turn

    monkeypatch.setattr(SocketConnection, "readable", timed(SocketConnection.readable))
    monkeypatch.setattr(SocketConnection, "flush", timed(SocketConnection.flush))
    return taken


FLOODS: dict[str, Callable[[], Pdu]] = {
    "NOP": lambda: request(Opcode.NOP_OUT | IMMEDIATE),
    "long NOP": lambda: request(Opcode.NOP_OUT | IMMEDIATE, data=PATTERN[:200_000]),
    "task management": lambda: request(Opcode.TASK_MANAGEMENT | IMMEDIATE, 0x82),
    "text": lambda: request(Opcode.TEXT | IMMEDIATE, data=b"SendTargets=\0" + b"X=1\0" * 100),
    "TEST UNIT READY": lambda: request(Opcode.SCSI_COMMAND | IMMEDIATE, 0x81),
    "READ of 8 MiB": lambda: scsi(0xC1, read_10(0, 16384), blocks(16384)),
    "READ of 512 bytes": lambda: scsi(0xC1, read_10(0, 1), 512),
    "nothing known": lambda: request(0x1F | IMMEDIATE),
    "duplicates": lambda: request(Opcode.NOP_OUT),
    "Data-Out of no task": lambda: request(Opcode.DATA_OUT, data=PATTERN[:512]),
}


def scsi(flags: int, cdb: bytes, expected: int) -> Pdu:
    pdu = request(Opcode.SCSI_COMMAND | IMMEDIATE, flags)
    pdu.header[32:42] = cdb
    pdu.transfer_tag = expected
    return pdu


@pytest.mark.parametrize("kind", FLOODS)
async def test_no_flood_takes_the_loop_for_itself(serving: Serving, turns: list[float], kind: str) -> None:
    """However much is there to do at once, others get their turn."""
    serving.volume.data.extend(bytes(blocks(16384) - len(serving.volume.data)))
    serving.volume.size = blocks(16384)
    session = await serving.session()
    assert session._receiver is not None
    session._receiver.cancel()
    await asyncio.wait([session._receiver])
    session._receiver = None
    stream = bytearray()
    for tag in range(1, 5_000):
        pdu = FLOODS[kind]()
        if len(stream) > STREAM_BYTES or (kind.startswith("READ") and tag * pdu.transfer_tag > ANSWER_BYTES):
            break
        pdu.tag, pdu.cmd_sn = tag, session.cmd_sn - 1
        stream += pdu.packed() + pad(pdu.data)
    turns.clear()
    session.connection.writer.write(bytes(stream))
    taken = asyncio.create_task(take_all(session))
    await session.connection.writer.drain()
    last = request(Opcode.LOGOUT | IMMEDIATE)
    last.tag = 0x10000000
    await session.connection.send(last)
    await taken
    assert len(turns) > 3
    assert max(turns) < TURN_SECONDS
    await session.close()


async def take_all(session: Session) -> None:
    while await session.connection.reader.read(1 << 20):
        pass
