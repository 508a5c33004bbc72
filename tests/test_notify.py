"""sd_notify, over real sockets: what is sent, and that nothing is when nobody asked."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from arrayd.notify import STATUS_CHARS_MAX, Supervisor

SECONDS_MAX = 10


@pytest.fixture(params=["path", "abstract"])
def service(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket, and its name as NOTIFY_SOCKET has it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        tempfile.TemporaryDirectory(prefix="notify") as folder,  # a socket's path has 107 bytes; tmp_path may have more
    ):
        listener.settimeout(SECONDS_MAX)
        if request.param == "abstract":
            listener.bind("")
            yield listener, "@" + listener.getsockname()[1:].decode()
        else:
            listener.bind(f"{folder}/socket")
            yield listener, f"{folder}/socket"


def test_messages(service: tuple[socket.socket, str]) -> None:
    listener, name = service
    supervisor = Supervisor({"NOTIFY_SOCKET": name})
    supervisor.ready("a\nREADY=0 " + "x" * 1000)
    supervisor.reloading()
    supervisor.stopping()
    ready = listener.recv(4096).decode()
    assert ready.startswith("READY=1\nSTATUS=a READY=0 xxx")
    assert len(ready) == len("READY=1\nSTATUS=") + STATUS_CHARS_MAX
    assert listener.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert listener.recv(4096).startswith(b"STOPPING=1\n")


async def test_keep_alive(service: tuple[socket.socket, str]) -> None:
    listener, name = service
    supervisor = Supervisor({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000", "WATCHDOG_PID": str(os.getpid())})
    assert supervisor.watchdog_seconds == 0.002
    alive = asyncio.create_task(supervisor.keep_alive())
    for _ in range(3):
        assert await asyncio.to_thread(listener.recv, 4096) == b"WATCHDOG=1"
    alive.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alive


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
async def test_no_watchdog(environment: dict[str, str]) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": "@nobody-listens-here", **environment})
    assert supervisor.watchdog_seconds is None
    async with asyncio.timeout(SECONDS_MAX):
        await supervisor.keep_alive()


@pytest.mark.parametrize("name", ["", "@nobody-listens-here", "/nobody/listens", "vsock:2:1", "/" + "x" * 200])
def test_nobody_listens(name: str) -> None:
    Supervisor({"NOTIFY_SOCKET": name}).ready("on")


def test_a_supervisor_that_reads_nothing_does_not_stop_us(service: tuple[socket.socket, str]) -> None:
    _, name = service
    supervisor = Supervisor({"NOTIFY_SOCKET": name})
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(queue + 10):
        supervisor.stopping()
