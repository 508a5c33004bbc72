"""A transport by a block device of Linux: READ and WRITE past the page cache (O_DIRECT), the rest by SG_IO. A door.

Without O_DIRECT a read would be answered by the page cache of this host, and never reach the array.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from pathlib import Path

from arrayd.host import sg
from arrayd.host.scsi import ScsiTransport
from arrayd.host.transport import Interrupted, Outcome, Refused, TransportError, Unreachable

GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM})
PASSING = frozenset({errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ENOLINK, errno.ECOMM, errno.EINTR})
"""What the kernel says when the connection broke, the link behind it is down or a command was aborted (blk_errors)."""


class DeviceFile:
    """A device, open. `name` stands in errors. Opened when first needed, and again when the device was gone."""

    def __init__(self, path: Path, direct: bool) -> None:
        self.name = str(path)
        self._flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_DIRECT if direct else 0)
        self._descriptor = -1

    def descriptor(self) -> int:
        """Raises Unreachable."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self.name, self._flags)
            except OSError as error:
                raise Unreachable(f"{self.name}: {error.strerror}") from None
        return self._descriptor

    def close(self) -> None:
        """Closes it, if it is open."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SgUnit:
    """A device as a Unit."""

    def __init__(self, file: DeviceFile) -> None:
        self._file = file

    def execute(self, cdb: bytes, data_out: bytes, read_bytes: int, timeout_s: float) -> Outcome:
        """See Unit."""
        try:
            return sg.execute(self._file.descriptor(), self._file.name, cdb, data_out, read_bytes, timeout_s)
        except TransportError:
            self._file.close()
            raise


class DiskTransport:
    """A block device. What its reads and writes take is the kernel's to decide: its timeouts hold, not ours."""

    def __init__(self, path: Path) -> None:
        self._file = DeviceFile(path, direct=True)
        self._scsi = ScsiTransport(SgUnit(self._file), str(path))

    def read(self, offset: int, length: int, timeout_s: float) -> bytes:
        """See Transport."""
        with mmap.mmap(-1, length) as buffer:  # aligned to a page, as O_DIRECT wants it
            try:
                count = os.preadv(self._file.descriptor(), [buffer], offset)
            except OSError as error:
                raise self._failure(error) from None
            if count != length:
                raise Interrupted(f"{self._file.name}: a read of {length} bytes brought {count}")
            return buffer[:]

    def write(self, offset: int, data: bytes, timeout_s: float) -> None:
        """See Transport."""
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            try:
                count = os.pwritev(self._file.descriptor(), [buffer], offset)
            except OSError as error:
                raise self._failure(error) from None
        if count != len(data):
            raise Interrupted(f"{self._file.name}: a write of {len(data)} bytes took {count}")

    def write_buffer(self, lane: int, data: bytes, timeout_s: float) -> None:
        """See Transport."""
        self._scsi.write_buffer(lane, data, timeout_s)

    def read_buffer(self, lane: int, length: int, timeout_s: float) -> bytes:
        """See Transport."""
        return self._scsi.read_buffer(lane, length, timeout_s)

    def close(self) -> None:
        """Closes the device."""
        self._file.close()

    def _failure(self, error: OSError) -> TransportError:
        text = f"{self._file.name}: {error.strerror}"
        if error.errno in GONE:
            self._file.close()
            return Unreachable(text)
        if error.errno in PASSING:
            return Interrupted(text)
        return Refused(text)  # EREMOTEIO above all: ILLEGAL REQUEST, whose additional sense code the kernel keeps


def kind_of(path: Path) -> str:
    """ "disk" for a block device, "sg" for a SCSI generic device. Raises Unreachable for anything else."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise Unreachable(f"{path}: {error.strerror}") from None
    if stat.S_ISBLK(mode):
        return "disk"
    if stat.S_ISCHR(mode):
        return "sg"
    raise Unreachable(f"{path}: neither a block device nor a SCSI generic device")


def beside(path: Path, lun: int, sysfs: Path = Path("/sys")) -> Path:
    """The device of another LUN of the same target, of the same kind. Raises Unreachable if the kernel has none."""
    kind = kind_of(path)
    name = path.resolve().name
    folder, within = ("block", "block") if kind == "disk" else ("class/scsi_generic", "scsi_generic")
    try:
        target, _, _ = (sysfs / folder / name / "device").resolve(strict=True).name.rpartition(":")
        unit = sysfs / "class/scsi_device" / f"{target}:{lun}" / "device"
        found = sorted(each.name for each in (unit / within).iterdir())
    except OSError:
        found = []
    if not found:
        raise Unreachable(f"{path}: the kernel has no device for LUN {lun} of the same target")
    return path.resolve().parent / found[0]
