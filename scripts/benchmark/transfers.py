"""How fast a copy and a restore of a pair go, beside one stream: as many bytes from file to file by one connection.

What is left is asked for again and again; the rate is that from when nothing of it had gone yet until all has.
"""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from scripts.benchmark.generator import Run
from tests.lab.daemon import DaemonError

POLL_SECONDS = 0.01
LIMIT_SECONDS = 120.0
PIECE_BYTES = 1 << 20


def watch(left: Callable[[], int | None]) -> Run:
    """A transfer that is about to begin, and of which ``left()`` tells how many bytes are to go; None: it is not known
    yet, or over. Raises DaemonError if it does not end."""
    deadline = monotonic() + LIMIT_SECONDS
    most, begun = 0, 0.0
    while (now := monotonic()) < deadline:
        count = left() or 0
        if count >= most:
            most, begun = count, now
        elif not count:
            return _run(most, monotonic() - begun)
        sleep(POLL_SECONDS)
    raise DaemonError(f"{count} bytes are left after {LIMIT_SECONDS:.0f} s")


def stream(source: Path, destination: Path, size: int) -> Run:
    """``size`` bytes of a file, over a TCP connection into another one, which is there, and synced at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=_send, args=(source, listener.getsockname(), size))
        begin = monotonic()
        sender.start()
        incoming, _ = listener.accept()
        with incoming, destination.open("r+b", buffering=0) as file:
            buffer = memoryview(bytearray(PIECE_BYTES))
            at = 0
            while count := incoming.recv_into(buffer):
                os.pwrite(file.fileno(), buffer[:count], at)
                at += count
            os.fdatasync(file.fileno())
        seconds = monotonic() - begin
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
