"""PostgreSQL as Debian has it, as its own user, its data in one folder and its write-ahead log in another: made,
started, stopped, killed all at once, and checked by its own tools.

As durable as it is by default, and set so that much is written besides the log: few buffers, checkpoints and vacuums
all the time.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from tests.lab import parts

USER: Final = "postgres"
"""Of Debian's package. The server does not run as root."""
COMMAND_SECONDS: Final = 120.0
END_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02

SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "''",
    "max_connections": "20",
    "shared_buffers": "1MB",
    "bgwriter_delay": "10ms",
    "backend_flush_after": "64kB",
    "min_wal_size": "4MB",
    "max_wal_size": "8MB",
    "checkpoint_timeout": "30s",
    "autovacuum_naptime": "1s",
    "log_checkpoints": "on",
    "restart_after_crash": "off",
}
WAL_SEGMENT_MB: Final = 1
RECOVERED: Final = "automatic recovery in progress"
"""Logged by a server that was not shut down."""


@contextlib.contextmanager
def reachable_folder() -> Iterator[Path]:
    """One that PostgreSQL's user reaches, unlike pytest's, and whose name is short enough for a socket's address."""
    folder = Path(tempfile.mkdtemp(prefix="arrayd-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


class Postgres:
    """A server of the files in `data`, and its clients. `folder` has its socket, and `log` what it logs: its user must
    reach all but the latter."""

    def __init__(self, folder: Path, data: Path, wal: Path, log: Path) -> None:
        self._data, self._wal, self._log = data, wal, log
        settings = SETTINGS | {"unix_socket_directories": f"'{folder}'"}
        self._settings = "".join(f"{key} = {value}\n" for key, value in settings.items())
        os.chown(folder, *_user())
        self._environment = {
            "PATH": parts.SYSTEM_PATH,
            "LC_ALL": "C.UTF-8",
            "PGHOST": str(folder),
            "PGUSER": USER,
            "PGDATABASE": "postgres",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._children: list[int] = []
        self._memory = ""
        """The shared memory by which it knows whether somebody uses its files."""

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    # -- the server --------------------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """A new cluster with data checksums."""
        for mounted in (self._data.parent, self._wal.parent):
            os.chown(mounted, *_user())
        self.run(
            "initdb",
            *("--pgdata", str(self._data), "--waldir", str(self._wal), "--wal-segsize", str(WAL_SEGMENT_MB)),
            *("--auth", "trust", "--data-checksums"),
        )
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(self._settings)
            file.flush()
            os.fsync(file.fileno())

    def start(self) -> None:
        """Start it, and wait until it takes connections: after a crash it recovers before."""
        with self._log.open("ab") as log:
            self._server = self.open("postgres", "-D", str(self._data), stdout=log)
        _wait(self._is_ready, lambda: f"the server is not ready:\n{self.log[-4000:]}")

    def _is_ready(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, f"the server ended:\n{self.log[-4000:]}"
        # As `pg_ctl start` does: its process on the first line, on the last ones its shared memory and how it is.
        said = (self._data / "postmaster.pid").read_text().splitlines() if self._claimed() else []
        if len(said) < 8 or said[0] != str(self._server.pid) or said[7].strip() != "ready":
            return False
        self._memory = said[6].split()[1]
        return True

    def _claimed(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def stop(self) -> None:
        """Shut it down: all is in its data files."""
        server, self._server = self._server, None
        assert server is not None
        server.send_signal(signal.SIGINT)
        assert server.wait(END_SECONDS) == 0, self.log[-4000:]

    def kill(self) -> None:
        """SIGKILL to all its processes. What sleeps for a disk ends later: see `gone`. Repeatable."""
        if self._server is None or self._children:
            return
        self._server.send_signal(signal.SIGSTOP)  # so that it makes no more
        with contextlib.suppress(FileNotFoundError):
            self._children = _children(self._server.pid)
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.kill()

    def gone(self) -> None:
        """After `kill`: all its processes have ended, and as after a crash of the host nothing of them is left in
        memory. Repeatable."""
        server, self._server = self._server, None
        if server is None:
            return
        server.wait(END_SECONDS)
        children, self._children = self._children, []
        _wait(lambda: not any(map(_lives, children)), lambda: f"of {children} some do not end")
        # It is left when all of them were killed, each time one more.
        subprocess.run(["ipcrm", "--shmem-id", self._memory], capture_output=True, timeout=COMMAND_SECONDS, check=False)

    # -- its clients -------------------------------------------------------------------------------------------------

    def open(
        self, program: str, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL, stdout: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """A program of PostgreSQL's, as its user, which runs; errors go where its output goes."""
        path = parts.find(program)
        assert path is not None
        return subprocess.Popen(
            [str(path), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd="/",
            env=self._environment,
            user=USER,
            group=USER,
            extra_groups=[],
        )

    def run(self, program: str, *arguments: str) -> str:
        """What such a program says that ends well."""
        with self.open(program, *arguments, stdout=subprocess.PIPE) as process:
            said, _ = process.communicate(timeout=COMMAND_SECONDS)
        assert process.returncode == 0, f"{program} {' '.join(arguments)}: {said.decode(errors='replace')}"
        return said.decode()

    def sql(self, text: str) -> list[str]:
        """The rows that come of it, their columns separated by |."""
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text).splitlines()

    # -- what it says of its files -----------------------------------------------------------------------------------

    def check_relations(self) -> None:
        """amcheck has nothing to say of any table and any index, those of the system and TOAST too: each index is in
        order, and has an entry for every row of its table."""
        said = self.run("pg_amcheck", "--heapallindexed", "--parent-check", "--rootdescend")
        assert said == "", said

    def check_sums(self) -> None:
        """Of the server, which is shut down, every block has its checksum."""
        said = self.run("pg_checksums", "--check", "--pgdata", str(self._data))
        assert "Bad checksums:  0" in said, said


def _user() -> tuple[int, int]:
    user = pwd.getpwnam(USER)
    return user.pw_uid, user.pw_gid


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid: int) -> bool:
    """Whether it runs or sleeps: whoever has to wait for it may take a while."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(condition: Callable[[], bool], wrong: Callable[[], str]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not condition():
        assert time.monotonic() < deadline, wrong()
        time.sleep(POLL_SECONDS)
