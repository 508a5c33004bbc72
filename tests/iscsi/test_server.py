"""Connections on real sockets: listening, accepting, what takes too long, what never reads, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct

import pytest

from arrayd import sockets
from arrayd.iscsi import server as server_module
from arrayd.iscsi.pdu import AsyncEvent
from arrayd.iscsi.server import HALF_OPEN_MAX, Server
from arrayd.scsi.task import FunctionResponse
from tests.iscsi.requests import TARGET, read_10, write_10
from tests.iscsi.serving import Serving
from tests.iscsi.session_driver import PATTERN, assert_nothing_left, blocks, make_node
from tests.lab.connection import Connection, IscsiError
from tests.lab.initiator import Session
from tests.lab.pdu import IMMEDIATE, RESERVED_TAG, Opcode, request
from tests.lab.waiting import LIMIT_SECONDS, until

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close(2) resets the connection."""


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "TICK_SECONDS", 0.02)
    for name in ("LOGIN_SECONDS", "PING_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(server_module, name, 0.2)


# -- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("portal", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("digest", ["None", "CRC32C"])
async def test_write_and_read(serving: Serving, portal: int, digest: str) -> None:
    session = await serving.session(portal=portal, HeaderDigest=digest, DataDigest=digest)
    for count in (1, 8, 128, 2048):
        data = PATTERN[count : count + blocks(count)]
        assert (await session.command(write_10(7, count), data_out=data)).status == 0
        assert (await session.command(read_10(7, count), read_bytes=len(data))).data == data
    await session.logout()
    await until(lambda: not serving.server.connections)


async def test_discovery_names_every_portal(serving: Serving) -> None:
    async with await Session.open(serving.addresses[1], None) as session:
        pdu = request(Opcode.TEXT, data=b"SendTargets=All\0")
        answer = await session.exchange(pdu, Opcode.TEXT_RESPONSE)
    records = [pair.partition(b"=")[2].decode() for pair in answer.data.split(b"\0") if pair]
    assert records == [TARGET, *(f"{address},1" for address in serving.addresses)]


async def test_many_sessions_at_once(serving: Serving) -> None:
    sessions = [await serving.session(number) for number in range(30)]
    answers = await asyncio.gather(
        *(session.command(read_10(number, 64), read_bytes=blocks(64)) for number, session in enumerate(sessions * 4))
    )
    assert all(answer.status == 0 and len(answer.data) == blocks(64) for answer in answers)
    for session in sessions:
        await session.close()
    await until(lambda: not serving.server.connections)


# -- the end of connections -------------------------------------------------------------------------------------------


async def test_an_initiator_that_still_sends_sees_the_last_pdu(serving: Serving) -> None:
    """Its data that nobody reads would have the kernel reset the connection, and throw the Reject away."""
    session = await serving.session()
    bad = request(Opcode.SCSI_COMMAND, 0)
    bad.cmd_sn = session.cmd_sn
    await session.connection.send(bad)
    for _ in range(100):
        await session.connection.send_bytes(bytes(10_000))
    async with asyncio.timeout(LIMIT_SECONDS):
        assert (await session.other.get()).opcode == Opcode.REJECT
    await session.close()
    await until(lambda: not serving.server.connections)


async def test_a_connection_reset_at_any_point(serving: Serving) -> None:
    """Login, read, write with its data on the way: cut off after any number of bytes."""
    recorded = await record(serving)
    await until(lambda: not serving.server.connections)
    for end in (*range(0, 500, 23), *range(500, len(recorded), 4999), len(recorded)):
        sock = serving.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, recorded[:end])
        if end % 2:
            await asyncio.sleep(0)
        sock.close()
    await until(lambda: not serving.server.connections)
    assert_nothing_left(serving.node)
    async with await serving.session() as session:
        assert (await session.command(bytes(6))).status == 0


async def record(serving: Serving) -> bytes:
    """What an initiator sends in a session."""
    sent = bytearray()
    connection = await Connection.open(serving.addresses[0])
    send_bytes = connection.send_bytes

    async def keep(content: bytes) -> None:
        sent.extend(content)
        await send_bytes(content)

    connection.send_bytes = keep  # type: ignore[method-assign]
    session = Session(connection)
    await session.login(TARGET, {"InitialR2T": "Yes", "ImmediateData": "No"})
    await session.command(bytes(6))
    await session.command(read_10(0, 300), read_bytes=blocks(300))
    await session.command(write_10(0, 300), data_out=PATTERN[: blocks(300)])
    await session.close()
    return bytes(sent)


async def test_a_session_that_is_reinstated_ends_at_once(serving: Serving) -> None:
    old = await serving.session(1)
    new = await serving.session(1)
    with pytest.raises(IscsiError):
        await old.command(bytes(6))
    assert (await new.command(bytes(6))).status == 0
    await until(lambda: len(serving.server.connections) == 1)
    await old.close()
    await new.close()


async def test_shutdown_is_announced(serving: Serving) -> None:
    session = await serving.session()
    serving.server.stop_listening()
    serving.server.announce_shutdown(10)
    async with asyncio.timeout(LIMIT_SECONDS):
        message = await session.other.get()
    assert message.opcode == Opcode.ASYNC
    assert message.header[36] == AsyncEvent.LOGOUT_REQUESTED
    await until(serving.server.idle)
    with pytest.raises(OSError, match=r"[Rr]efused|failed"):
        await Connection.open(serving.addresses[0])
    await session.logout()


async def test_a_task_in_flight_keeps_the_server_from_being_idle(serving: Serving) -> None:
    session = await serving.session()
    serving.volume.held = held = asyncio.Event()
    ended = await session.submit(read_10(0, 1), read_bytes=512)
    await until(lambda: not serving.server.idle())
    held.set()
    assert (await ended).status == 0
    await until(serving.server.idle)
    await session.close()


# -- what takes too long ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_times")
async def test_who_does_not_log_in_is_closed(serving: Serving) -> None:
    session = await serving.session()
    async with await Connection.open(serving.addresses[0]) as silent:
        await silent.send_bytes(bytes(20))
        await silent.receive_end()
    assert len(serving.server.connections) == 1
    await session.close()


@pytest.mark.usefixtures("short_times")
async def test_who_answers_pings_stays_and_who_does_not_goes(serving: Serving) -> None:
    alive = await serving.session(1)
    dead = await serving.session(2)
    pings = 0

    async def deaf(_pdu: object) -> None:
        nonlocal pings
        pings += 1

    dead._receive_one = deaf  # type: ignore[method-assign,assignment]
    await until(lambda: len(serving.server.connections) == 1)
    assert pings == 1
    assert (await alive.command(bytes(6))).status == 0
    await alive.close()
    await dead.close()


@pytest.mark.usefixtures("short_times")
async def test_who_does_not_read_its_end_is_closed(serving: Serving) -> None:
    stopped, other = await serving.session(1), await serving.session(2)
    await stop_reading(stopped, serving)
    answer = await other.exchange(request(Opcode.TASK_MANAGEMENT | IMMEDIATE, 0x87), Opcode.TASK_MANAGEMENT_RESPONSE)
    assert answer.header[2] == FunctionResponse.COMPLETE
    await until(lambda: not serving.server.connections)
    await stopped.close()
    await other.close()


async def stop_reading(session: Session, serving: Serving) -> None:
    """Sends reads and takes no answer, until the server stops to take them in."""
    assert session._receiver is not None
    session._receiver.cancel()
    session.connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (connection,) = (
        each
        for each in serving.server.connections
        if each.connection.session.parameters.isid == session.isid  # type: ignore[union-attr]
    )
    session._receiver = None
    session.max_cmd_sn = session.cmd_sn + 10_000
    for _ in range(5000):
        pdu = request(Opcode.SCSI_COMMAND, 0xC1)
        pdu.header[32:42] = read_10(0, 1024)
        pdu.tag, pdu.transfer_tag, pdu.cmd_sn = session.cmd_sn, blocks(1024), session.cmd_sn
        session.cmd_sn += 1
        await session.connection.send(pdu)
        if connection.connection.stalled:
            break
        await asyncio.sleep(0)
    assert connection.connection.stalled


async def test_a_reader_that_stops_does_not_stop_the_others(serving: Serving) -> None:
    stopped, other = await serving.session(1), await serving.session(2)
    await stop_reading(stopped, serving)
    assert serving.node.buffers.used_bytes < 64 << 20
    for number in range(200):
        data = PATTERN[number : number + blocks(64)]
        assert (await other.command(write_10(0, 64), data_out=data)).status == 0
        assert (await other.command(read_10(0, 64), read_bytes=len(data))).data == data
    assert (await other.command(read_10(0, 2048), read_bytes=blocks(2048))).status == 0
    await stopped.close()
    await other.close()


# -- who may connect --------------------------------------------------------------------------------------------------


async def test_the_oldest_half_open_connection_makes_room(serving: Serving) -> None:
    session = await serving.session()
    socks = []
    for _ in range(HALF_OPEN_MAX + 20):
        socks.append(serving.socket())
        await asyncio.sleep(0)
    await until(lambda: len(serving.server.connections) == HALF_OPEN_MAX + 1)
    for number, sock in enumerate(socks):
        sock.setblocking(False)
        with contextlib.ExitStack() as stack:
            if number >= 20:
                stack.enter_context(pytest.raises(BlockingIOError))
            assert sock.recv(1) == b""
    assert (await session.command(bytes(6))).status == 0
    async with await serving.session(2) as late:
        assert (await late.command(bytes(6))).status == 0
    for sock in socks:
        sock.close()
    await session.close()
    await until(lambda: not serving.server.connections)


async def test_logins_of_one_second_are_not_taken_for_half_open(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HALF_OPEN_MAX", 5)
    sessions = [await serving.session(number) for number in range(20)]
    for session in sessions:
        assert (await session.command(bytes(6))).status == 0
        await session.close()


async def test_accept_goes_on_when_there_are_descriptors_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ACCEPT_PAUSE_SECONDS", 0.05)
    session = await serving.session()
    sock = socket.socket()
    sock.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = socket.socket()
    lowest_free = probe.fileno()
    probe.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", serving.port))
        for _ in range(3):
            await asyncio.sleep(0.05)
            assert (await session.command(bytes(6))).status == 0
        assert len(serving.server.connections) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: len(serving.server.connections) == 2)
    sock.close()
    await session.close()


async def test_a_port_in_use() -> None:
    server = Server(make_node(), 0, bytes)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        server.listen([("127.0.0.1", 0), taken.getsockname()[:2]])
    server.stop_listening()
    server.close()


async def test_an_answer_to_nobody_is_no_fault(serving: Serving) -> None:
    """A NOP-Out that asks for nothing, and Data-Out of no task, get no answer and do no harm."""
    session = await serving.session()
    silent = request(Opcode.NOP_OUT | IMMEDIATE)
    silent.tag = RESERVED_TAG
    silent.cmd_sn = session.cmd_sn
    await session.connection.send(silent)
    await session.connection.send(request(Opcode.DATA_OUT, data=PATTERN[:100_001]))
    assert (await session.command(bytes(6))).status == 0
    assert session.other.empty()
    await session.close()
