"""Which programs of the machine a test needs, and the Debian package that brings each."""

import os
import shutil
from pathlib import Path

import pytest

POSTGRES_FOLDERS = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
"""Where Debian puts the server of each version and what belongs to it, in no PATH; the newest first."""
SYSTEM_PATH = os.pathsep.join([*POSTGRES_FOLDERS, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""PATH with the folders of system programs, which a user's own PATH often lacks."""

PACKAGE_OF = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "dpkg": "dpkg",
    "e2fsck": "e2fsprogs",
    "gcc": "gcc",
    "initdb": "postgresql",
    "iscsi-inq": "libiscsi-bin",
    "iscsi-ls": "libiscsi-bin",
    "iscsi-readcapacity16": "libiscsi-bin",
    "iscsi-swp": "libiscsi-bin",
    "iscsi-test-cu": "libiscsi-bin",
    "iscsiadm": "open-iscsi",
    "iscsid": "open-iscsi",
    "ldd": "libc-bin",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "multipath": "multipath-tools",
    "multipathd": "multipath-tools",
    "pg_amcheck": "postgresql",
    "pg_checksums": "postgresql",
    "pgbench": "postgresql",
    "postgres": "postgresql",
    "psql": "postgresql",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-storage-daemon": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "sg_inq": "sg3-utils",
    "tgtd": "tgt",
    "udevadm": "udev",
}
FUSE_PROGRAMS = ("qemu-storage-daemon", "losetup", "mount", "mkfs.ext4", "e2fsck")
POSTGRES_PROGRAMS = ("initdb", "pg_amcheck", "pg_checksums", "pgbench", "postgres", "psql")
QEMU_ISCSI_DRIVER = "block-iscsi.so"


def find(program: str) -> Path | None:
    """Path of ``program``, system folders included; None when the machine has none."""
    found = shutil.which(program, path=SYSTEM_PATH)
    return Path(found) if found else None


def require(*programs: str) -> None:
    """Skip the running test and say what to install, unless the machine has all of ``programs``.

    Under ``.ci/run`` every such skip is turned into a failure.
    """
    missing = [program for program in programs if find(program) is None]
    if missing:
        packages = sorted({PACKAGE_OF.get(program, program) for program in missing})
        pytest.skip(f"needs {', '.join(missing)}: apt-get install {' '.join(packages)}")


def has_qemu_iscsi() -> bool:
    """Whether QEMU's block layer has its iSCSI driver (Debian: qemu-block-extra)."""
    return any(Path("/usr/lib").glob(f"*/qemu/{QEMU_ISCSI_DRIVER}"))


def lacks_for_fuse() -> str:
    """What keeps this process from mounting a file system on a LUN through FUSE; empty when nothing does."""
    if os.geteuid() != 0:
        return "root, to mount a file system"
    lacks = [device for device in ("/dev/fuse", "/dev/loop-control") if not Path(device).exists()]
    return " and ".join(lacks + [program for program in FUSE_PROGRAMS if find(program) is None])


def require_qemu_iscsi() -> None:
    """Skip the running test unless QEMU has its iSCSI driver."""
    if not has_qemu_iscsi():
        pytest.skip("needs QEMU's iSCSI driver: apt-get install qemu-block-extra")


def require_fuse() -> None:
    """Skip the running test unless it can mount a file system on a LUN through FUSE."""
    require(*FUSE_PROGRAMS)
    require_qemu_iscsi()
    if lacks := lacks_for_fuse():
        pytest.skip(f"needs {lacks}")
