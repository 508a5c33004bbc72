"""A real arrayd in a process of its own: started from a configuration, killed, restarted, reloaded and read."""

import contextlib
import copy
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

CHECKOUT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
SECRET_MODE = 0o600
LOG_TAIL_LINES = 60
PORTS = range(20_000, 32_000)
"""Below those that connections get by themselves (net.ipv4.ip_local_port_range as Linux has it)."""
TARGET = "iqn.2026-11.io.arrayd:lab"


class DaemonError(Exception):
    """The daemon did not start, stop or behave; the text ends with its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, for configurations that must name it before it is used: the kernel gives none
    of its kind to a connection in between."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            return port
    raise DaemonError(f"no port of {PORTS} is free")


def configuration(volumes: Mapping[str, Mapping[str, Any]], **iscsi: Any) -> dict[str, Any]:
    """A configuration with one LUN a volume, numbered from 0 in their order; ``iscsi`` overrides keys of that part."""
    return {
        "array": {"name": "lab", "serial": "410001"},
        "state_dir": "state",
        "iscsi": {"listen": ["127.0.0.1:0"], "target": TARGET, **iscsi},
        "volumes": {name: dict(settings) for name, settings in volumes.items()},
        "luns": {str(number): {"volume": name} for number, name in enumerate(volumes)},
    }


class Process(Protocol):
    """A daemon that was started: what is used here of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float) -> int: ...


Start = Callable[[Path, Path], Process]
"""Starts `arrayd serve FILE` in a session of its own, so that Ctrl-C is for whoever holds it; what it logs goes to the
end of the second file."""


def start_by_itself(file: Path, log: Path) -> Process:
    """As a user does."""
    with log.open("ab") as end:
        return subprocess.Popen(
            [sys.executable, "-m", "arrayd", "serve", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=end,
            cwd=CHECKOUT,  # so that it is this checkout's arrayd
            start_new_session=True,
        )


_starts: list[Start] = [start_by_itself]


def start_by(start: Start) -> None:
    """How all are started from now on."""
    _starts.append(start)


class ArraydProcess:
    """One ``arrayd serve``, its configuration and everything it keeps in ``folder``.

    A context manager: it starts on entry and is never left running. ``secrets`` are files that the configuration names.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.config: dict[str, Any] = copy.deepcopy(dict(config))
        self.addresses: list[str] = []
        self._listen: list[str] = []
        self._process: Process | None = None
        self._log = folder / "arrayd.log"
        folder.mkdir(parents=True, exist_ok=True)
        for name, secret in (secrets or {}).items():
            path = folder / name
            path.write_text(secret)
            path.chmod(SECRET_MODE)

    @property
    def target(self) -> str:
        """The iSCSI name of its target."""
        return str(self.config["iscsi"]["target"])

    @property
    def port(self) -> int:
        """The TCP port of its first portal."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has logged so far, over every start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def url(self, lun: int = 0) -> str:
        """The URL by which libiscsi and QEMU name a LUN."""
        return f"iscsi://{self.addresses[0]}/{self.target}/{lun}"

    def volume_file(self, name: str) -> Path:
        """The sparse file behind a volume."""
        (path,) = [p for p in (self.folder / "state").rglob("*") if p.is_file() and p.name.startswith(f"{name}.")]
        return path

    def _write(self, config: Mapping[str, Any]) -> None:
        (self.folder / "arrayd.yaml").write_text(json.dumps(dict(config)))  # which is YAML, too

    def start(self) -> None:
        """Start it and wait until it says where it listens; its ports are kept for every later start."""
        assert self._process is None
        self._write(self.config)
        self._listen = self.config["iscsi"]["listen"]
        self._process = _starts[-1](self.folder / "arrayd.yaml", self._log)
        try:
            self.addresses = self._read_ready(time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise
        self.config["iscsi"]["listen"] = list(self.addresses)

    def _read_ready(self, deadline: float) -> list[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        received = b""
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), select.PIPE_BUF) if ready else b""
            if not more:
                raise DaemonError(f"arrayd did not say ready but {received!r}{self.log_tail()}")
            received += more
        word, *addresses = received.decode().split()
        if word != "ready" or not addresses:
            raise DaemonError(f"arrayd did not say ready but {received!r}{self.log_tail()}")
        return addresses

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def terminate(self, expected: int = 0) -> None:
        """End it by SIGTERM, which must take it down cleanly, with exit status ``expected``."""
        status = self._end(signal.SIGTERM)
        if status != expected:
            raise DaemonError(f"arrayd ended with {status} on SIGTERM{self.log_tail()}")

    def stop(self) -> None:
        """Terminate it, if it runs."""
        if self._process is not None:
            self.terminate()

    def restart(self) -> None:
        """Start it again on the ports it had, whether it was ended or not."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Write ``config`` and make the running daemon read it, by SIGHUP; where it listens stays as it started."""
        self._write(self.config | {"iscsi": self.config["iscsi"] | {"listen": self._listen}})
        os.kill(self.pid, signal.SIGHUP)

    def log_tail(self) -> str:
        """The end of its log, to be shown where a test fails."""
        return "\n--- log of arrayd\n" + "\n".join(self.log.splitlines()[-LOG_TAIL_LINES:])

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
            raise DaemonError(f"arrayd did not end in {STOP_TIMEOUT_S:.0f} s{self.log_tail()}") from late
        finally:
            process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if error is not None:
            print(self.log_tail())
            self.kill()
            return
        self.terminate()
        if "Traceback" in self.log:
            raise DaemonError(f"arrayd logged an exception{self.log_tail()}")
