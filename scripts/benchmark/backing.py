"""The volumes' files, the same way for every target: filled, in the page cache or out of it, written back."""

import ctypes
import mmap
import os
import time
from collections.abc import Collection
from pathlib import Path

CHUNK_BYTES = 128 << 10
"""The page cache takes in what one call writes as folios as large as they come, and ext4 looks at every block of a
folio to write one: files that were filled by 1 MiB would measure that, and no target."""
COLD_SHARE = 0.99
COOLING_LIMIT_S = 10.0
LIBC = ctypes.CDLL(None, use_errno=True)


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
                if cold_share(path) >= COLD_SHARE:
                    break
                if time.monotonic() > deadline:
                    raise BackingError(f"{path} stays in the page cache")
                time.sleep(0.05)  # pages under write-back, or in a processor's batch, go a little later


def cold_share(path: Path) -> float:
    """Which part of a file is not in the page cache, by mincore(2): a read to find out would bring pages in."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        resident = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        try:
            if LIBC.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), resident):
                raise OSError(ctypes.get_errno(), f"mincore: {path}")
        finally:
            del start  # the mapping cannot be closed while something points into it
    return sum(1 for page in resident if not page & 1) / len(resident)
