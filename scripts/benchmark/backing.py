"""The volumes' files, the same way for every target: filled, in the page cache or out of it, written back."""

import errno
import os
import time
from collections.abc import Collection
from pathlib import Path

CHUNK_BYTES = 1 << 20
SAMPLES = 64
COLD_SHARE = 0.9
COOLING_LIMIT_S = 10.0


class BackingError(Exception):
    """A file is not as a run needs it."""


def fill(path: Path, size: int) -> None:
    """Write ``size`` bytes that are not zero: no target shall profit from a hole."""
    noise = os.urandom(CHUNK_BYTES)
    with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
        for offset in range(0, size, CHUNK_BYTES):
            os.pwrite(file.fileno(), noise[: size - offset], offset)
        os.fsync(file.fileno())


def settle(paths: Collection[Path]) -> None:
    """Have everything written back, so that no run pays for the one before."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def warm(paths: Collection[Path]) -> None:
    """Read everything into the page cache."""
    buffer = bytearray(CHUNK_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def cool(paths: Collection[Path]) -> None:
    """Drop everything from the page cache, and look whether it is gone: the kernel takes it as advice. Settle first."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            deadline = time.monotonic() + COOLING_LIMIT_S
            while True:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if cold_share(file.fileno(), path.stat().st_size) >= COLD_SHARE:
                    break
                if time.monotonic() > deadline:
                    raise BackingError(f"{path} stays in the page cache")
                time.sleep(0.05)  # pages under write-back, or in a processor's batch, go a little later


def cold_share(descriptor: int, size: int) -> float:
    """Which part of some places of a file is not in the page cache (RWF_NOWAIT refuses to read those)."""
    cold = 0
    for index in range(SAMPLES):
        try:
            os.preadv(descriptor, [bytearray(1)], size * index // SAMPLES, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            cold += 1
    return cold / SAMPLES
