"""tgt as a subject: a process of its own with a control port of its own, so that several run side by side."""

import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.benchmark import backing
from scripts.benchmark.generator import Place
from scripts.benchmark.rows import TargetSetup
from tests.lab.daemon import free_port

NAME = "iqn.2026-11.io.arrayd:tgt"
LUN_0 = 1
"""tgt keeps LUN 0 for itself: a controller."""
CONTROL_PORTS = 1 << 15
START_LIMIT_S = 10.0
STOP_LIMIT_S = 20.0
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class TgtError(Exception):
    """tgt is not there, or did not do as told."""


def program(name: str) -> Path:
    """The path of one of tgt's programs."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise TgtError(f"needs {name}: apt-get install tgt")
    return Path(found)


class TgtTarget:
    """A context manager: runs while it is entered. Its volumes and its log are in ``folder``."""

    def __init__(self, setup: TargetSetup, folder: Path, bytes_a_lun: int) -> None:
        self._setup = setup
        self._folder = folder
        self._bytes_a_lun = bytes_a_lun
        self.files = [folder / f"v{number}.img" for number in range(setup.luns)]
        self._port = free_port()
        self._control_port = str(self._port % CONTROL_PORTS)  # a name of ours, as free as the port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> Place:
        """Where the load generator finds it."""
        assert self._process is not None
        return Place(self._port, NAME, self._process.pid, LUN_0)

    def _admin(self, mode: str, operation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One tgtadm call."""
        command = [
            str(program("tgtadm")),
            "-C",
            self._control_port,
            "--lld",
            "iscsi",
            "--mode",
            mode,
            "--op",
            operation,
        ]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def _do(self, mode: str, operation: str, *arguments: str) -> None:
        done = self._admin(mode, operation, "--tid", "1", *arguments)
        if done.returncode:
            raise TgtError(f"tgtadm --mode {mode} --op {operation}: {done.stderr.strip()}")

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while self._admin("target", "show").returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TgtError(f"tgtd did not start (does it need root?): {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    @property
    def _log(self) -> Path:
        return self._folder / "tgtd.log"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in self.files:
            backing.fill(file, self._bytes_a_lun)
        command = [str(program("tgtd")), "-f", "-C", self._control_port, "--iscsi", f"portal=127.0.0.1:{self._port}"]
        if self._setup.io_threads is not None:
            command += ["-t", str(self._setup.io_threads)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_until_it_answers()
            self._do("target", "new", "--targetname", NAME)
            flags = ("--bsoflags", "sync") if self._setup.durable else ()
            for number, file in enumerate(self.files, LUN_0):
                self._do("logicalunit", "new", "--lun", str(number), "--backing-store", str(file), *flags)
            self._do("target", "bind", "--initiator-address", "ALL")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        """Target first, then the daemon by its own command: SIGTERM it ignores while it has a target."""
        assert self._process is not None
        self._admin("target", "delete", "--force", "--tid", "1")
        self._admin("system", "delete")
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)
