"""scripts/demo: its data is right, it leaves nothing behind however it ends, and does what it can on a poor machine."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import parts
from tests.lab.daemon import CHECKOUT

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

DEMO_TIMEOUT_S = 240.0
"""It may have to make its virtual environment first."""
STOP_TIMEOUT_S = 15.0
NOTHING_SHOWN = 3
PROCESS = re.compile(r"\(process (\d+)\)")
SAME = "the same"
NO_PROGRAMS = "/nonexistent"


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(CHECKOUT / "scripts" / "demo"), *arguments]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Temporary files go to ``folder``, which is how whatever is left behind is found."""
    return os.environ | {"TMPDIR": str(folder)} | variables


def demo(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A whole demo."""
    return subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        env=environment(folder, **variables),
        check=False,
    )


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that has ``folder`` in its command line."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found[int(path.parent.name)] = line
    return found


def assert_nothing_is_left(folder: Path) -> None:
    assert processes_of(folder) == {}
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    for backing_file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # another's, let go at this moment
            assert not backing_file.read_text().startswith(str(folder))
    assert list(folder.iterdir()) == []


def require_writing_initiator() -> None:
    parts.require("iscsi-ls", "iscsi-inq", "qemu-img", "qemu-io")
    parts.require_qemu_iscsi()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the demo's temporary files go; no process of it outlives the test."""
    folder = tmp_path / "demo"
    folder.mkdir()
    yield folder
    for pid in processes_of(folder):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder to put programs in that are found first."""
    programs = tmp_path / "programs"
    programs.mkdir()
    return programs


def test_data_is_there_after_every_kill_and_everything_is_stopped(folder: Path) -> None:
    require_writing_initiator()
    parts.require_fuse()
    done = demo(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f": {SAME}") == 2
    assert "not shown" not in done.stdout
    assert "     written before kill -9\n     and after it\n" in done.stdout
    assert len(set(PROCESS.findall(done.stdout))) == 3
    assert done.stdout.count("$ kill -9") == 2
    assert_nothing_is_left(folder)


def test_keep_leaves_an_array_that_serves(folder: Path) -> None:
    require_writing_initiator()
    done = demo(folder, "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    (pid,) = processes_of(folder)
    assert pid == int(PROCESS.findall(done.stdout)[-1])
    (kept,) = folder.iterdir()
    assert f"$ kill {pid}; rm -r {kept}\n" in done.stdout
    (url,) = re.findall(r"\$ URL=(\S+)", done.stdout)
    info = subprocess.run(["qemu-img", "info", url], capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=True)
    assert "1 GiB" in info.stdout
    os.kill(pid, signal.SIGTERM)
    wait_until_none_is_left(folder)
    shutil.rmtree(kept)
    assert_nothing_is_left(folder)


def wait_until_none_is_left(folder: Path) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while processes_of(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_port_that_is_taken(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        # Whether this test has the port or somebody else on this machine: it is taken.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 3260)))
        done = demo(folder, PATH=NO_PROGRAMS)
    assert "127.0.0.1:3260 is taken" in done.stdout
    assert "ready 127.0.0.1:" in done.stdout
    assert "ready 127.0.0.1:3260 " not in done.stdout
    assert_nothing_is_left(folder)


def test_without_initiators_it_says_so_and_shows_the_rest(folder: Path) -> None:
    done = demo(folder, PATH=NO_PROGRAMS)
    assert done.returncode == NOTHING_SHOWN, done.stdout + done.stderr
    assert "apt-get install libiscsi-bin" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("scripts/demo: no data was written: apt-get install qemu-utils")
    assert len(set(PROCESS.findall(done.stdout))) == 2
    assert_nothing_is_left(folder)


def test_wrong_data_is_a_failure(folder: Path, programs: Path) -> None:
    """The second copy that is read has one byte more."""
    require_writing_initiator()
    fake = programs / "qemu-img"
    fake.write_text(
        f'#!/bin/sh\n{parts.find("qemu-img")} "$@" || exit\n'
        'for last; do :; done\ncase $last in of=*/read-2) echo >> "${last#of=}";; esac\n'
    )
    fake.chmod(0o755)
    done = demo(folder, PATH=f"{programs}:{os.environ['PATH']}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count(f": {SAME}") == 1
    assert "NOT THE SAME" in done.stdout
    last = "scripts/demo: FAILED, and everything is stopped: the data is not what was written"
    assert done.stderr.splitlines()[-1] == last
    assert_nothing_is_left(folder)


@pytest.mark.parametrize(
    ("number", "when"), [(signal.SIGTERM, "ready"), (signal.SIGINT, "mkfs.ext4"), (signal.SIGHUP, "sync")]
)
def test_signal_leaves_nothing_behind(folder: Path, number: signal.Signals, when: str) -> None:
    require_writing_initiator()
    parts.require_fuse()
    with subprocess.Popen(
        command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment(folder)
    ) as process:
        assert process.stdout is not None
        assert any(when in line for line in process.stdout)
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode == 128 + number
    assert_nothing_is_left(folder)


def test_reader_that_goes_away_leaves_nothing_behind(folder: Path) -> None:
    with subprocess.Popen(
        command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        complaints = process.stderr.read()
    assert process.returncode == 1
    assert "Broken pipe" in complaints
    assert "Traceback" not in complaints
    assert_nothing_is_left(folder)


def test_unknown_argument(folder: Path) -> None:
    done = demo(folder, "--kep")
    assert (done.returncode, done.stderr) == (2, "")
    assert "usage: scripts/demo [--keep]" in done.stdout
