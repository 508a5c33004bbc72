"""SCSI commands by the kernel: ioctl SG_IO, version 3 (include/scsi/sg.h), on /dev/sgX and on /dev/sdX. A door."""

from __future__ import annotations

import ctypes
import errno
import fcntl

from arrayd.host.transport import Interrupted, Outcome, Unreachable

SG_IO = 0x2285
INTERFACE = ord("S")
NO_DATA, TO_DEVICE, FROM_DEVICE = -1, -2, -3
SENSE_BYTES = 252
"""Longest sense data of a fixed or descriptor format (SPC-5, 4.4)."""

HOST_STATUS = {
    0x01: "the target cannot be reached",
    0x02: "the bus stayed busy",
    0x03: "no answer in time",
    0x05: "the command was aborted",
    0x08: "the unit was reset",
    0x0E: "the connection broke",
    0x0F: "the connection is down",
}
"""What the kernel's initiator says of commands that did not get through (include/scsi/scsi_status.h)."""
DRIVER_SENSE = 0x08
"""Driver status: there is sense data. Nothing is wrong with the driver."""
DRIVER_MASK = 0x0F


class _Header(ctypes.Structure):
    """struct sg_io_hdr."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),  # milliseconds
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


def execute(descriptor: int, name: str, cdb: bytes, data_out: bytes, read_bytes: int, timeout_s: float) -> Outcome:
    """One command for the device behind `descriptor`; `name` stands in errors. Raises Unreachable and Interrupted."""
    command = ctypes.create_string_buffer(cdb, len(cdb))
    sense = ctypes.create_string_buffer(SENSE_BYTES)
    length = len(data_out) or read_bytes
    data = ctypes.create_string_buffer(data_out, length) if length else None
    header = _Header(
        interface_id=INTERFACE,
        dxfer_direction=TO_DEVICE if data_out else FROM_DEVICE if read_bytes else NO_DATA,
        cmd_len=len(cdb),
        mx_sb_len=SENSE_BYTES,
        dxfer_len=length,
        dxferp=ctypes.addressof(data) if data is not None else None,
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=max(1, round(timeout_s * 1000)),
    )
    try:
        fcntl.ioctl(descriptor, SG_IO, header)
    except OSError as error:
        raise _failure(name, error) from None
    if header.host_status:
        reason = HOST_STATUS.get(header.host_status, f"host status {header.host_status:#04x}")
        raise Interrupted(f"{name}: {reason}")
    if header.driver_status & DRIVER_MASK not in (0, DRIVER_SENSE):
        raise Interrupted(f"{name}: driver status {header.driver_status:#04x}")
    came = data.raw[: read_bytes - header.resid] if data is not None and read_bytes else b""
    return Outcome(header.status, sense.raw[: header.sb_len_wr], came)


def _failure(name: str, error: OSError) -> Interrupted | Unreachable:
    if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS):
        return Unreachable(f"{name}: not a device that takes SCSI commands")
    if error.errno in (errno.EPERM, errno.EACCES):
        return Unreachable(f"{name}: SCSI commands to it need root (CAP_SYS_RAWIO)")
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return Unreachable(f"{name}: the device is gone")
    return Interrupted(f"{name}: {error.strerror}")
