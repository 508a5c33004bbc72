"""How fast a copy and a restore of a pair go, beside one stream: as many bytes from file to file by one connection.

What is left is asked for again and again; the rate is that from when the first of it has gone until all has.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from scripts.benchmark.generator import Run
from tests.lab.daemon import DaemonError

POLL_SECONDS = 0.01
LIMIT_SECONDS = 120.0
PIECE_BYTES = 1 << 20


def watch(left: Callable[[], int | None]) -> Run:
    """A transfer that is about to begin, and of which ``left()`` tells how many bytes are to go; None: not known yet.
    Raises DaemonError if it does not end."""
    deadline = time.monotonic() + LIMIT_SECONDS
    most = 0
    begun: tuple[float, int] | None = None
    while True:
        count, now = left(), time.monotonic()
        if count is not None:
            if count == 0 and begun is not None:
                return _run(begun[1], now - begun[0])
            most = max(most, count)
            if begun is None and 0 < count < most:
                begun = now, count
        if now > deadline:
            raise DaemonError(f"{count} bytes are left after {LIMIT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def stream(source: Path, destination: Path, size: int) -> Run:
    """``size`` bytes of a file, over a TCP connection into another one, which is there, and synced at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=_send, args=(source, listener.getsockname(), size))
        begin = time.monotonic()
        sender.start()
        incoming, _ = listener.accept()
        with incoming, destination.open("r+b", buffering=0) as file:
            buffer = memoryview(bytearray(PIECE_BYTES))
            at = 0
            while count := incoming.recv_into(buffer):
                os.pwrite(file.fileno(), buffer[:count], at)
                at += count
            os.fdatasync(file.fileno())
        seconds = time.monotonic() - begin
        sender.join()
    if at != size:
        raise DaemonError(f"{at} bytes of {size} came")
    return _run(size, seconds)


def _send(source: Path, address: tuple[str, int], size: int) -> None:
    with socket.create_connection(address) as sock, source.open("rb", buffering=0) as file:
        at = 0
        while at < size:
            at += os.sendfile(sock.fileno(), file.fileno(), at, min(size - at, PIECE_BYTES))


def _run(count: int, seconds: float) -> Run:
    """As a run of commands of PIECE_BYTES, whose latencies nobody has measured."""
    commands = max(1, count // PIECE_BYTES)
    return Run(
        seconds=seconds,
        commands=commands,
        iops=count / PIECE_BYTES / seconds,
        mb_per_s=count / seconds / 1e6,
        p50_us=0.0,
        p99_us=0.0,
        p999_us=0.0,
        max_us=0.0,
        target_us_a_command=0.0,
        target_share=0.0,
        client_share=0.0,
        others_share=0.0,
    )
