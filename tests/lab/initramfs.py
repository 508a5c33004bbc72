"""The guest's root file system: an initramfs of this machine's own programs, packed as a cpio archive.

The archive is the "newc" format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst, written
here rather than by cpio(1), so that no root, no device nodes and no copy of the tree are needed.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.lab import parts
from tests.lab.kernel import MODULES, Kernel

PROGRAMS = (
    "iscsid",
    "iscsiadm",
    "mkfs.ext4",
    "e2fsck",
    "resize2fs",
    "multipath",
    "multipathd",
    "udevadm",
    "lsscsi",
    "sg_inq",
    "sg_luns",
    "sg_readcap",
    "sg_get_lba_status",
    "sg_persist",
    "sg_rtpg",
    "sg_vpd",
    "sg_turs",
    "sg_write_buffer",
    "sg_raw",
    "sg_dd",
    "sg_xcopy",
)
"""What the guest runs besides busybox, each with the libraries that ldd names."""

OPTIONAL_PROGRAMS = frozenset({"lsscsi"})
UDEV_FOLDER = Path("/lib/udev")
UDEVD = Path("/lib/systemd/systemd-udevd")
UDEV_RULES = (
    "50-udev-default.rules",
    "55-dm.rules",
    "56-dm-mpath.rules",
    "60-block.rules",
    "60-multipath.rules",
    "60-persistent-storage.rules",
    "60-persistent-storage-dm.rules",
    "95-dm-notify.rules",
)
UDEV_PROGRAMS = ("scsi_id", "ata_id")
MULTIPATH_PLUGINS = Path("/lib/multipath")
THREAD_CANCEL = "libgcc_s.so.1"
"""What libc opens by itself when a thread is cancelled, as multipathd's are; ldd does not name it."""
INIT = Path(__file__).with_name("init.sh")
LDD_TIMEOUT_S = 20.0

INITIATOR_NAME = "iqn.2026-11.io.arrayd:guest"
"""What the guest's iscsid calls itself."""

NEWC_MAGIC = b"070701"
NEWC_TRAILER = "TRAILER!!!"
MODE_FOLDER, MODE_PROGRAM, MODE_FILE, MODE_LINK = 0o040755, 0o100755, 0o100644, 0o120777

ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\n"
UDEV_GROUPS = ("root", "tty", "disk", "kmem", "input", "sgx", "kvm", "render", "lp", "cdrom", "tape")
GROUPS = "\n".join(f"{name}:x:{number}:" for number, name in enumerate(UDEV_GROUPS))
ISCSID_CONF = """\
iscsid.startup = /usr/sbin/iscsid
node.startup = manual
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 5
node.conn[0].timeo.logout_timeout = 5
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.session.initial_login_retry_max = 8
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.xmit_thread_priority = -20
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
node.session.nr_sessions = 1
node.conn[0].tcp.window_size = 4194304
"""
"""Debian's own values but for shorter login and logout timeouts, and more memory to receive in: with less the kernel
closes the window now and then and does not say when it is open again, and user networking asks only after 5 s."""

MULTIPATH_CONF = """\
defaults {
    user_friendly_names yes
    find_multipaths no
    polling_interval 1
    max_polling_interval 2
    fast_io_fail_tmo 2
}
devices {
    device {
        vendor "ARRAYD"
        product "VOLUME"
        path_grouping_policy group_by_prio
        prio alua
        path_checker tur
        failback immediate
        no_path_retry queue
    }
}
"""
"""As docs/connect-linux.md says, but quicker to see that a path is lost."""


@dataclass
class Archive:
    """A cpio archive in the making; each name is added once, parents first."""

    parts: list[bytes] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        """Add one entry at the absolute path ``name``, unless it is there already."""
        path = PurePosixPath(name.lstrip("/"))
        for parent in reversed(path.parents[:-1]):
            self._append_once(str(parent), MODE_FOLDER, b"")
        self._append_once(str(path), mode, content)

    def add_file(self, source: Path, name: str | None = None) -> None:
        """Add a file of this machine under its own path (or ``name``), as executable as it is here."""
        mode = MODE_PROGRAM if source.stat().st_mode & 0o111 else MODE_FILE
        self.add(name or str(source), mode, source.read_bytes())

    def _append_once(self, name: str, mode: int, content: bytes) -> None:
        if name not in self.names:
            self.names.add(name)
            self._append(name, mode, content)

    def _append(self, name: str, mode: int, content: bytes) -> None:
        encoded = name.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        fields = (len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = NEWC_MAGIC + b"".join(b"%08x" % number for number in fields)
        self.parts += [_padded(header + encoded), _padded(content)]

    def packed(self) -> bytes:
        """The archive, closed by its trailer."""
        self._append(NEWC_TRAILER, 0, b"")
        return b"".join(self.parts)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def build(kernel: Kernel) -> bytes:
    """The initramfs for ``kernel`` out of what this machine has installed.

    Skips the running test when a program is missing.
    """
    parts.require("busybox", "ldd", *(program for program in PROGRAMS if program not in OPTIONAL_PROGRAMS))
    archive = Archive()
    for folder in ("/dev", "/proc", "/sys", "/root"):
        archive.add(folder, MODE_FOLDER)
    archive.add("/etc/ld.so.cache", MODE_FILE, Path("/etc/ld.so.cache").read_bytes())
    _add_busybox(archive)
    _add_programs(archive)
    _add_udev(archive)
    _add_settings(archive)
    for module in sorted(kernel.modules.rglob("*")):
        if module.is_file():
            archive.add_file(module, f"/lib/modules/{kernel.version}/{module.relative_to(kernel.modules)}")
    archive.add("/init", MODE_PROGRAM, INIT.read_bytes())
    return archive.packed()


def _found(program: str) -> Path:
    path = parts.find(program)
    if path is None:
        raise FileNotFoundError(program)
    return path


def _add_busybox(archive: Archive) -> None:
    busybox = _found("busybox")
    archive.add_file(busybox, "/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=LDD_TIMEOUT_S, check=True)
    for applet in applets.stdout.split():
        if applet not in PROGRAMS:
            archive.add(f"/bin/{applet}", MODE_LINK, b"/bin/busybox")
    archive.add("/sbin/modprobe", MODE_LINK, b"/bin/busybox")  # the kernel calls it by this path


def _add_programs(archive: Archive) -> None:
    binaries = [(_found(program), f"/usr/sbin/{program}") for program in PROGRAMS if parts.find(program)]
    binaries.append((UDEVD, str(UDEVD)))
    unfound = [*(UDEV_FOLDER / name for name in UDEV_PROGRAMS), *sorted(MULTIPATH_PLUGINS.glob("lib*.so"))]
    binaries += [(binary, str(binary)) for binary in unfound if binary.exists()]
    for binary, name in binaries:
        archive.add_file(binary.resolve(), name)
    for library in _libraries([binary for binary, _ in binaries]):
        archive.add_file(library.resolve(), str(library))


def _libraries(binaries: list[Path]) -> list[Path]:
    listing = subprocess.run(
        ["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=LDD_TIMEOUT_S, check=False
    ).stdout  # a static program makes ldd's status 1
    libraries = {Path(path) for path in re.findall(r"(/\S+\.so\S*) \(0x", listing)}
    beside_libc = [library.parent / THREAD_CANCEL for library in libraries if library.name.startswith("libc.so")]
    return sorted(libraries.union(library for library in beside_libc if library.exists()))


def _add_udev(archive: Archive) -> None:
    for rule in UDEV_RULES:
        source = UDEV_FOLDER / "rules.d" / rule
        if source.exists():
            archive.add_file(source)


def _add_settings(archive: Archive) -> None:
    files = {
        "/etc/passwd": ACCOUNTS,
        "/etc/group": GROUPS + "\n",
        "/etc/modules": "\n".join(MODULES) + "\n",
        "/etc/mtab": "",
        "/etc/iscsi/initiatorname.iscsi": f"InitiatorName={INITIATOR_NAME}\n",
        "/etc/iscsi/iscsid.conf": ISCSID_CONF,
        "/etc/multipath.conf": MULTIPATH_CONF,
    }
    for name, text in files.items():
        archive.add(name, MODE_FILE, text.encode())
