"""How bytes go to an array's LUN and back: one interface, which `scsi.py` and `disk.py` carry out, and its errors.

Four things are all that a host needs: READ and WRITE of a command device, and WRITE BUFFER and READ BUFFER for
addressed commands. Everything is tried once; whoever calls knows whether to try again, because only an identification
number makes that safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from arrayd.scsi.sense import Asc

BLOCK_BYTES = 512
"""Offsets and lengths of reads and writes are multiples of this."""


class TransportError(Exception):
    """It did not go through; the text says why, on one line and without a secret."""


class Unreachable(TransportError):
    """There is no way to the LUN: nobody listens, the login is refused, or there is no such device of an array."""


class Interrupted(TransportError):
    """The array may have received it or not: the connection broke, time ran out, the link behind it is down, or the
    unit had something to say first. The same may be sent again."""


class Refused(TransportError):
    """The array received it and said no. `asc` is its additional sense code, None where the kernel keeps that back."""

    def __init__(self, reason: str, asc: int | None = None) -> None:
        super().__init__(reason)
        self.asc = asc

    @property
    def out_of_sequence(self) -> bool:
        """Whether it may be that another host was faster (COMMAND SEQUENCE ERROR)."""
        return self.asc is None or self.asc == Asc.COMMAND_SEQUENCE_ERROR.value


class Transport(Protocol):
    """The way to one LUN. Lengths and offsets are bytes, times seconds. Everything raises TransportError."""

    def read(self, offset: int, length: int, timeout_s: float) -> bytes:
        """READ: `length` bytes at `offset`."""

    def write(self, offset: int, data: bytes, timeout_s: float) -> None:
        """WRITE, of all of `data` in one command."""

    def write_buffer(self, lane: int, data: bytes, timeout_s: float) -> None:
        """WRITE BUFFER of an addressed command; `lane` is the buffer ID."""

    def read_buffer(self, lane: int, length: int, timeout_s: float) -> bytes:
        """READ BUFFER of its answer, `length` bytes at the most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a SCSI command ended: status, sense data, and the data that was read, as much as there was."""

    status: int
    sense: bytes = b""
    data: bytes = b""


class Unit(Protocol):
    """A logical unit that carries out any SCSI command."""

    def execute(self, cdb: bytes, data_out: bytes, read_bytes: int, timeout_s: float) -> Outcome:
        """One command, with Data-Out or with up to `read_bytes` of Data-In. Raises Unreachable and Interrupted."""
