"""A LUN as a disk of this machine, with no iSCSI in its kernel: qemu-storage-daemon shows it as a file by FUSE,
losetup makes a block device of that file, and ext4 is mounted from it. Needs root.

libiscsi, inside qemu-storage-daemon, reconnects for ever when the array is gone, and whoever uses the file system
sleeps uninterruptibly meanwhile. Only killing qemu-storage-daemon frees them, with I/O errors; so that is what every
way out of here does first when the array may be gone. For LUNs of 512-byte blocks: QEMU 7.2's iSCSI driver asks itself
for the state of 0x7FFFFE00 bytes of a thin LUN, which fails an assertion of its own with larger ones.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.daemon import ArraydProcess

EXPORT_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05


class FuseError(Exception):
    """The LUN could not be exported, attached, mounted or let go."""


class FuseDisk:
    """A LUN of ``array`` as the block device ``device``, while in its context. Files are kept in ``folder``.
    ``portal`` is where to connect, if not to the array itself."""

    def __init__(self, folder: Path, array: ArraydProcess, lun: int = 0, *, portal: str = "") -> None:
        self._folder = folder
        self._file = folder / "lun"
        where = f"transport=tcp,portal={portal or array.addresses[0]},target={array.target},lun={lun}"
        self._options = f"driver=iscsi,node-name=lun,{where}"
        self._process: subprocess.Popen[bytes] | None = None
        self._mounted: Path | None = None
        self.device = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file.touch()
        try:
            self._export()
            self.device = _run("losetup", "--find", "--show", str(self._file)).strip()
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self.device:
            self.abandon()
            return
        try:
            if self._mounted is not None:
                self.unmount()
            _run("losetup", "--detach", self.device)
            self.device = ""
            self._stop(signal.SIGTERM)
        finally:
            self.abandon()

    def _export(self) -> None:
        log = self._folder / "qemu-storage-daemon.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    "qemu-storage-daemon",
                    *("--blockdev", self._options),
                    *("--export", f"type=fuse,id=export,node-name=lun,mountpoint={self._file},writable=on"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + EXPORT_TIMEOUT_S
        while not _is_mounted(self._file):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise FuseError(f"no export: {log.read_text(errors='replace')}")
            time.sleep(POLL_S)

    def make_file_system(self) -> None:
        """mkfs.ext4, without first discarding every block through FUSE."""
        _run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", self.device)

    def mount(self, folder: Path) -> None:
        """Mount the disk's ext4 at ``folder``."""
        folder.mkdir(exist_ok=True)
        _run("mount", "-t", "ext4", self.device, str(folder))
        self._mounted = folder

    def unmount(self) -> None:
        """Write everything back and unmount."""
        _run("umount", str(self._mounted))
        self._mounted = None

    def check_file_system(self) -> None:
        """e2fsck changes nothing and must find nothing; the file system is not mounted."""
        _run("e2fsck", "-f", "-n", self.device)

    @contextlib.contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Innermost context around whoever uses the file system: frees who sleeps in it before that is awaited."""
        try:
            yield
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Let go of everything at once, losing what is not on the LUN: what a host does that goes down. Repeatable."""
        self._stop(signal.SIGKILL)
        if self._mounted is not None:
            _try("umount", "-l", str(self._mounted))
            self._mounted = None
        if self.device:
            _try("losetup", "--detach", self.device)
            self.device = ""
        if _is_mounted(self._file):
            _try("umount", "-l", str(self._file))

    def _stop(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
            raise FuseError("qemu-storage-daemon did not end") from late


def _is_mounted(path: Path) -> bool:
    # Not os.path.ismount, which asks the file system itself and would hang with it.
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == os.fspath(path) for line in mounts)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise FuseError(f"{' '.join(command)} hung") from late
    if done.returncode != 0:
        raise FuseError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _try(*command: str) -> None:
    with contextlib.suppress(FuseError):
        _run(*command)
