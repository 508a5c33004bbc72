"""The command line, as whoever starts it sees it: exit codes, standard output and error, signals, sd_notify."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from arrayd import __main__ as command_line
from arrayd import __version__

pytestmark = pytest.mark.slow

ARRAYD = [sys.executable, "-m", "arrayd"]
SECONDS_MAX = 30
GOOD = """\
array: {name: a, serial: "1"}
iscsi: {listen: ["127.0.0.1:0"]}
volumes: {v: {size: 1MiB}}
luns: {0: {volume: v}}
"""
BAD = GOOD.replace("1MiB", "1XB") + "x: 1\n"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file that can be served, on a port the kernel chooses."""
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A file with two mistakes."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    return file


def run(*arguments: object, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Runs arrayd to its end."""
    command = [*ARRAYD, *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=SECONDS_MAX, check=False)


@contextlib.contextmanager
def serving(*arguments: object, notify: str = "", **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`arrayd serve`, ended whatever happens."""
    with subprocess.Popen(
        [*ARRAYD, "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NOTIFY_SOCKET": notify, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """What it says when it listens."""
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Sends the signal; exit code, and what else came on standard output and error."""
    process.send_signal(number)
    output, errors = process.communicate(timeout=SECONDS_MAX)
    return process.returncode, output, errors


def test_version() -> None:
    assert run("--version").stdout == f"arrayd {__version__}\n"


def test_check_says_ok(good: Path) -> None:
    done = run("check", good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{good}: ok\n")
    assert "1 volumes, 1 LUNs" in done.stdout


@pytest.mark.parametrize("command", ["check", "serve"])
def test_mistakes_exit_2_with_a_line_each(command: str, bad: Path) -> None:
    done = run(command, bad)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{bad}: volumes.v.size: 1XB: expected a size such as 1GiB or 512MiB, or a number of bytes "
        "(units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
        f"{bad}: x: 1: expected one of the keys array, state_dir, iscsi, volumes, luns, link, commands, replication",
    ]


def test_a_missing_file_exits_2(tmp_path: Path) -> None:
    done = run("check", tmp_path / "none.yaml")
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path}/none.yaml: (file): No such file or directory: expected a file that can be read\n"


def test_check_fails_when_nobody_takes_its_word(good: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("check", good, stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, "")


def test_check_loads_little(good: Path) -> None:
    script = (
        "import sys; from arrayd.__main__ import main; main(['check', sys.argv[1]], standalone_mode=False); "
        "print(sorted({'uvloop', 'structlog', 'construct', 'arrayd.array'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(good)], capture_output=True, text=True, timeout=SECONDS_MAX, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_ready_once_and_stops(good: Path, number: signal.Signals) -> None:
    with serving(good) as process:
        word, address = first_line(process).split()
        host, _, port = address.rpartition(":")
        assert word == "ready"
        with socket.create_connection((host, int(port)), timeout=SECONDS_MAX):
            pass
        code, more_output, _ = end(process, number)
    assert (code, more_output) == (0, "")


def test_serve_on_two_families(good: Path) -> None:
    good.write_text(GOOD.replace('"127.0.0.1:0"', '"127.0.0.1:0", "[::1]:0"'))
    with serving(good) as process:
        word, four, six = first_line(process).split()
        assert word == "ready"
        assert four.startswith("127.0.0.1:")
        assert six.startswith("[::1]:")
        assert end(process, signal.SIGTERM)[0] == 0


def test_a_port_in_use_exits_1_with_one_line(good: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        good.write_text(GOOD.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        done = run("serve", "--log-level", "critical", good)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(port) in done.stderr


def test_closed_standard_files_do_not_matter(good: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        name = listen_as_supervisor(supervisor)
        shell = f"exec {' '.join(ARRAYD)} serve '{good}' <&- >&- 2>&-"
        with subprocess.Popen(["sh", "-c", shell], env={**os.environ, "NOTIFY_SOCKET": name}) as process:
            try:
                assert supervisor.recv(4096).startswith(b"READY=1\n")
                process.terminate()
                assert process.wait(SECONDS_MAX) == 0
            finally:
                process.kill()


def listen_as_supervisor(supervisor: socket.socket) -> str:
    """Binds the socket to a name the kernel chooses; the name as NOTIFY_SOCKET has it."""
    supervisor.settimeout(SECONDS_MAX)
    supervisor.bind("")
    name = supervisor.getsockname()
    assert isinstance(name, bytes)
    return "@" + name[1:].decode()


def test_a_reload_is_told_and_a_bad_one_changes_nothing(good: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        name = listen_as_supervisor(supervisor)
        with serving("--log-json", good, notify=name) as process:
            address = first_line(process).split()[1]
            assert supervisor.recv(4096).decode() == f"READY=1\nSTATUS=serving {address}"

            process.send_signal(signal.SIGHUP)
            before, reloading = supervisor.recv(4096).decode().split("\nMONOTONIC_USEC=")
            assert before == "RELOADING=1"
            assert int(reloading) > 0
            assert supervisor.recv(4096) == b"READY=1\nSTATUS=reloaded"

            good.write_text(BAD)
            process.send_signal(signal.SIGHUP)
            assert supervisor.recv(4096).startswith(b"RELOADING=1\n")
            assert supervisor.recv(4096).decode().startswith(f"READY=1\nSTATUS=not reloaded: {good}: volumes.v.size: ")

            code, more_output, errors = end(process, signal.SIGTERM)
            assert supervisor.recv(4096).startswith(b"STOPPING=1\n")
    assert (code, more_output) == (0, "")
    lines = [json.loads(line) for line in errors.splitlines()]
    refused = [line for line in lines if line["event"] == "not reloaded"]
    assert [line["mistake"].partition(": ")[2].partition(":")[0] for line in refused] == ["volumes.v.size", "x"]
    assert all(line["level"] == "error" and line["timestamp"] for line in refused)


def test_the_watchdog_is_fed(good: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        name = listen_as_supervisor(supervisor)
        with serving(good, notify=name, WATCHDOG_USEC="100000") as process:
            messages = [supervisor.recv(4096) for _ in range(4)]
            assert messages[0].startswith(b"READY=1\n")
            assert messages[1:] == [b"WATCHDOG=1"] * 3
            assert end(process, signal.SIGTERM)[0] == 0


async def test_the_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    ended = asyncio.Event()

    def note(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(command_line, "_exit_at_once", note)
    signals = command_line._Signals()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await signals.hang_up() is False
    assert codes == []
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(SECONDS_MAX):
        await ended.wait()
    assert codes == [128 + signal.SIGINT]


async def test_a_stop_ends_a_start() -> None:
    signals = command_line._Signals()
    cancelled: list[bool] = []

    async def start() -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
            return []
        finally:
            cancelled.append(True)

    assert await signals.unless_stopped(start()) is None
    assert cancelled == [True]
