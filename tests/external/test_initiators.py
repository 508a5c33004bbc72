"""Other initiators than Linux's: libiscsi's own tools, and QEMU's block layer through its iSCSI driver."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.lab import parts
from tests.lab.daemon import ArraydProcess, configuration
from tests.lab.fixtures import StartArray

pytestmark = [pytest.mark.external, pytest.mark.timeout(120)]

TOOL_TIMEOUT_S = 60.0
SECRET = "twelve-and-more"
MIB = 1 << 20
UNIT_SERIAL_NUMBER = 0x80
BENCH_REQUESTS = 2000


def tool(*command: str, status: int = 0) -> str:
    """What a program printed; it must end with ``status`` in time."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TOOL_TIMEOUT_S, check=False
    )
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture
def array(start_array: StartArray) -> ArraydProcess:
    return start_array(configuration({"data": {"size": "64MiB"}, "more": {"size": "32MiB", "block_size": 4096}}))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file as large as LUN 0: random data, and holes where its odd MiB are."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        for number in range(0, 64, 2):
            file.seek(number * MIB)
            file.write(os.urandom(MIB))
        file.truncate(64 * MIB)
    return path


def test_iscsi_ls_lists_the_target_and_its_luns(array: ArraydProcess) -> None:
    parts.require("iscsi-ls")
    listing = tool("iscsi-ls", "--show-luns", f"iscsi://{array.addresses[0]}/")
    assert f"Target:{array.target} Portal:{array.addresses[0]},1" in listing
    lines = [line for line in listing.splitlines() if line.startswith("Lun:")]
    assert [line.split()[0] for line in lines] == ["Lun:0", "Lun:1"]
    assert all("Type:DIRECT_ACCESS" in line for line in lines)


def test_iscsi_inq_reads_who_it_is(array: ArraydProcess) -> None:
    parts.require("iscsi-inq")
    standard = tool("iscsi-inq", array.url())
    assert "Peripheral Device Type:DIRECT_ACCESS" in standard
    pages = tool("iscsi-inq", "--evpd=1", "--pagecode=0", array.url())
    for name in ("SUPPORTED_VPD_PAGES", "UNIT_SERIAL_NUMBER", "DEVICE_IDENTIFICATION", "BLOCK_LIMITS"):
        assert name in pages
    serials = {tool("iscsi-inq", "--evpd=1", f"--pagecode={UNIT_SERIAL_NUMBER}", array.url(lun)) for lun in (0, 1)}
    assert len(serials) == 2


def test_a_command_device_is_a_disk_for_them(start_array: StartArray) -> None:
    parts.require("iscsi-ls", "iscsi-inq", "iscsi-readcapacity16")
    array = start_array(configuration({"data": {"size": "64MiB"}}) | {"luns": {"9": {"command_device": {}}}})
    listing = tool("iscsi-ls", "--show-luns", f"iscsi://{array.addresses[0]}/")
    (line,) = [line for line in listing.splitlines() if line.startswith("Lun:9")]
    assert "Type:DIRECT_ACCESS" in line
    assert "Product:COMMAND DEVICE" in tool("iscsi-inq", array.url(9))
    for code in (0x00, 0x80, 0xB0, 0xB1, 0xB2):
        tool("iscsi-inq", "--evpd=1", f"--pagecode={code}", array.url(9))
    assert f"Total size:{65 * 256 * 1024}" in tool("iscsi-readcapacity16", array.url(9)).splitlines()


@pytest.mark.parametrize(("lun", "mib", "block_size"), [(0, 64, 512), (1, 32, 4096)])
def test_iscsi_readcapacity16_reads_size_and_provisioning(
    array: ArraydProcess, lun: int, mib: int, block_size: int
) -> None:
    parts.require("iscsi-readcapacity16")
    capacity = tool("iscsi-readcapacity16", array.url(lun)).splitlines()
    assert f"Total size:{mib * MIB}" in capacity
    assert f"LOGICAL BLOCK LENGTH IN BYTES:{block_size}" in capacity
    assert "LBPME:1 LBPRZ:1" in capacity


def test_iscsi_swp_write_protects(array: ArraydProcess, image: Path) -> None:
    parts.require("iscsi-swp", "qemu-img")
    parts.require_qemu_iscsi()
    tool("iscsi-swp", "--swp=on", array.url())
    assert "SWP:1" in tool("iscsi-swp", array.url())
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), array.url(), status=1)
    tool("iscsi-swp", "--swp=off", array.url())
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), array.url())


def test_qemu_img_copies_there_and_back(array: ArraydProcess, image: Path, tmp_path: Path) -> None:
    parts.require("qemu-img")
    parts.require_qemu_iscsi()
    assert json.loads(tool("qemu-img", "info", "--output=json", array.url()))["virtual-size"] == 64 * MIB
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), array.url())
    tool("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), array.url())
    tool("qemu-img", "convert", "-f", "raw", "-O", "raw", array.url(), str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == image.read_bytes()


def test_qemu_img_sees_holes_and_makes_them(array: ArraydProcess, image: Path) -> None:
    """GET LBA STATUS tells which blocks are mapped; a copy leaves the image's holes unmapped on the LUN."""
    parts.require("qemu-img")
    parts.require_qemu_iscsi()
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), array.url())
    extents = json.loads(tool("qemu-img", "map", "--output=json", "-f", "raw", array.url()))
    assert sum(extent["length"] for extent in extents if extent["data"]) == 32 * MIB
    assert os.stat(array.volume_file("data")).st_blocks * 512 < 40 * MIB


@pytest.mark.parametrize("arguments", [(), ("-w",), ("-w", "--flush-interval=64")], ids=["read", "write", "flush"])
def test_qemu_img_bench_runs_deep_queues(array: ArraydProcess, arguments: tuple[str, ...]) -> None:
    parts.require("qemu-img")
    parts.require_qemu_iscsi()
    depth = ("-c", str(BENCH_REQUESTS), "-d", "64", "-s", "4096", "-S", "20480", "-t", "none")
    assert "Run completed" in tool("qemu-img", "bench", "-f", "raw", *depth, *arguments, array.url())


def test_chap_by_url(start_array: StartArray) -> None:
    parts.require("iscsi-inq")
    name = "iqn.2026-11.io.arrayd:libiscsi"
    chap = {"user": "host", "secret_file": "host.secret"}
    config = configuration({"data": {"size": "32MiB"}}, initiators=[{"name": name, "chap": chap}])
    array = start_array(config, {"host.secret": SECRET})
    address, target = array.addresses[0], array.target
    initiator = f"--initiator-name={name}"
    assert "DIRECT_ACCESS" in tool("iscsi-inq", initiator, f"iscsi://host%{SECRET}@{address}/{target}/0")
    for wrong in (f"iscsi://host%{SECRET}x@{address}/{target}/0", f"iscsi://{address}/{target}/0"):
        done = subprocess.run(["iscsi-inq", initiator, wrong], capture_output=True, timeout=TOOL_TIMEOUT_S, check=False)
        assert done.returncode != 0
    assert SECRET not in array.log
