"""Devices of Linux: reads and writes past the page cache, SG_IO, and which device is another LUN of the same target."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arrayd.commands.formats import DEVICE_BYTES
from arrayd.host import Host, connections, disk, sg
from arrayd.host.addresses import parse
from arrayd.host.connections import OUR_NAME, machine_initiator
from arrayd.host.disk import DeviceFile, DiskTransport, SgUnit, beside, kind_of
from arrayd.host.paths import PathTable
from arrayd.host.transport import Interrupted, Refused, TransportError, Unreachable

TIMEOUT_S = 5.0


@pytest.fixture
def device(disk: Path) -> Iterator[DiskTransport]:
    """A file as long as a command device, which takes O_DIRECT as a block device does."""
    file = disk / "device"
    with file.open("wb") as stream:
        stream.truncate(DEVICE_BYTES)
    transport = DiskTransport(file)
    yield transport
    transport.close()


@pytest.mark.parametrize("length", [512, 4096, 65536, 131584])
def test_what_is_written_is_read(device: DiskTransport, length: int) -> None:
    data = os.urandom(length)
    device.write(256 * 1024, data, TIMEOUT_S)
    assert device.read(256 * 1024, length, TIMEOUT_S) == data


def test_a_read_behind_the_end_is_no_answer(device: DiskTransport) -> None:
    with pytest.raises(Interrupted, match="a read of 4096 bytes brought 0"):
        device.read(DEVICE_BYTES, 4096, TIMEOUT_S)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EREMOTEIO, Refused), (errno.EIO, Interrupted), (errno.ETIMEDOUT, Interrupted),
        (errno.ENOLINK, Interrupted), (errno.EBADE, Refused), (errno.ENXIO, Unreachable), (errno.ENODEV, Unreachable),
    ],
)  # fmt: skip
def test_what_the_kernel_says_of_a_write(
    code: int, kind: type[TransportError], device: DiskTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", fail)
        with pytest.raises(kind, match="device: ") as caught:
            device.write(0, bytes(512), TIMEOUT_S)
    if isinstance(caught.value, Refused):
        assert caught.value.out_of_sequence
    device.write(0, bytes(512), TIMEOUT_S)


def test_the_header_of_sg_io_is_the_kernels() -> None:
    assert ctypes.sizeof(sg._Header) == (88 if ctypes.sizeof(ctypes.c_void_p) == 8 else 64)


def test_a_file_takes_no_scsi_commands(device: DiskTransport) -> None:
    with pytest.raises(Unreachable, match="device: not a device that takes SCSI commands"):
        device.write_buffer(0, b"message", TIMEOUT_S)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host_status": 3}, "no answer in time"),
        ({"host_status": 0x55}, "host status 0x55"),
        ({"driver_status": 6}, "driver status 0x06"),
    ],
)
def test_what_did_not_get_through_is_interrupted(
    fields: dict[str, int], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_descriptor: int, request: int, header: Any) -> None:
        assert request == sg.SG_IO
        for name, value in fields.items():
            setattr(header, name, value)

    monkeypatch.setattr("fcntl.ioctl", answer)
    (tmp_path / "sg").touch()
    with pytest.raises(Interrupted, match=expected):
        SgUnit(DeviceFile(tmp_path / "sg", direct=False)).execute(bytes(6), b"", 0, TIMEOUT_S)


def test_sg_io_brings_data_and_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_descriptor: int, _request: int, header: Any) -> None:
        assert ctypes.string_at(header.cmdp, header.cmd_len) == b"\x12" + bytes(5)
        assert (header.dxfer_direction, header.dxfer_len, header.timeout) == (sg.FROM_DEVICE, 36, 5000)
        ctypes.memmove(header.dxferp, b"data", 4)
        ctypes.memmove(header.sbp, b"\x70\0\x05", 3)
        header.resid, header.sb_len_wr, header.status, header.driver_status = 32, 3, 2, sg.DRIVER_SENSE

    monkeypatch.setattr("fcntl.ioctl", answer)
    (tmp_path / "sg").touch()
    file = DeviceFile(tmp_path / "sg", direct=False)
    outcome = SgUnit(file).execute(b"\x12" + bytes(5), b"", 36, TIMEOUT_S)
    assert (outcome.status, outcome.data, outcome.sense) == (2, b"data", b"\x70\0\x05")
    file.close()


# -- which device ------------------------------------------------------------------------------------------------------


def test_what_is_no_device_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="file: neither a block device nor a SCSI generic device"):
        kind_of(tmp_path / "file")
    with pytest.raises(Unreachable, match="none: No such file or directory"):
        kind_of(tmp_path / "none")


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a kernel with two LUNs of one target, and one of another: sdb and sg1, sdc and sg2, sdd and sg3."""
    units = {"7:0:0:9": ("sdb", "sg1"), "7:0:0:10": ("sdc", "sg2"), "8:0:0:10": ("sdd", "sg3")}
    for address, (block, generic) in units.items():
        real = tmp_path / "devices" / address
        (real / "block" / block).mkdir(parents=True)
        (real / "scsi_generic" / generic).mkdir(parents=True)
        for folder, name in (("block", block), ("class/scsi_generic", generic), ("class/scsi_device", address)):
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "device").symlink_to(real)
    monkeypatch.setattr(disk, "kind_of", lambda path: "sg" if path.name.startswith("sg") else "disk")
    return tmp_path


@pytest.mark.parametrize(("given", "found"), [("/dev/sdb", "/dev/sdc"), ("/dev/sg1", "/dev/sg2")])
def test_another_lun_of_the_same_target(given: str, found: str, sysfs: Path) -> None:
    assert beside(Path(given), 10, sysfs) == Path(found)
    with pytest.raises(Unreachable, match="the kernel has no device for LUN 11 of the same target"):
        beside(Path(given), 11, sysfs)


def test_a_device_that_is_not_there_is_an_error_of_the_command(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("paths: {a: {direct: /dev/sd-none}}")
    with Host.load(file) as host, pytest.raises(Exception, match="/dev/sd-none: No such file or directory"):
        host.send("a", 2)


def test_a_device_that_is_something_else(tmp_path: Path) -> None:
    """/dev/null is a character device, and takes no SCSI commands."""
    file = tmp_path / "hosts.yaml"
    file.write_text("paths: {a: {direct: /dev/null}}")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with Host.load(file) as host, pytest.raises(Exception, match="/dev/null: not a device that takes SCSI commands"):
        host.send("a", 2)


# -- who we are --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("## a comment\nInitiatorName=iqn.1993-08.org.debian:01:host1\n", "iqn.1993-08.org.debian:01:host1"),
        ("InitiatorName = iqn.1993-08.org.debian:01:HOST1", "iqn.1993-08.org.debian:01:host1"),
        ("InitiatorName=nonsense", OUR_NAME),
        ("GenerateName=yes\n", OUR_NAME),
        (None, OUR_NAME),
    ],
)
def test_the_machines_initiator_has_a_name(text: str | None, name: str, tmp_path: Path) -> None:
    file = tmp_path / "initiatorname.iscsi"
    if text is not None:
        file.write_text(text)
    assert machine_initiator(file) == name


def test_the_path_table_names_the_initiator(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("paths: {a: {direct: iscsi://h/iqn.2026-11.a:b/1}}\ninitiator: iqn.2026-11.a:me")
    lines = connections.Connections(PathTable.load(file))
    lines.transport("a", -1)
    assert lines._initiators["a"]._name == "iqn.2026-11.a:me"
    assert str(parse("iscsi://h/iqn.2026-11.a:b/1")) == "iscsi://h:3260/iqn.2026-11.a:b/1"
