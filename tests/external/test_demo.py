"""scripts/demo: data and answers are right, it leaves nothing behind, and does what it can on a poor machine."""

import contextlib
import json
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

from scripts.demonstration import signals
from scripts.demonstration.story import say
from tests.lab import parts
from tests.lab.daemon import CHECKOUT
from tests.lab.three import NAMES, VOLUME_LUN_OF

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

DEMO_TIMEOUT_S = 240.0
"""It may have to make its virtual environment first."""
STOP_TIMEOUT_S = 15.0
NOTHING_SHOWN = 3
METHODS = (
    "--method command-device",
    "--method addressed",
    "--method addressed --keep-addresses",
    "--method addressed --shortest",
)
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


def test_data_is_there_after_every_kill_and_kept_arrays_serve(folder: Path) -> None:
    require_writing_initiator()
    parts.require_fuse()
    done = demo(folder, "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f": {SAME}") == 4
    assert "not shown" not in done.stdout
    assert "     written before kill -9\n     and after it\n" in done.stdout
    assert "     written through two arrays\n" in done.stdout
    assert re.search(r"\$ grep .*\$DIR/remote/state/volumes/data.img\n     1\n", done.stdout)
    assert_commands_were_answered(done.stdout)
    assert len(set(PROCESS.findall(done.stdout))) == len(NAMES) + 2
    assert done.stdout.count("$ kill -9") == 2
    assert_the_arrays_serve(folder, done.stdout)


def assert_commands_were_answered(said: str) -> None:
    """By each array, by each method, and in one message."""
    sent = re.findall(r"\$ \S+arrayctl send (.+) (\S+) echo text=hello\n     (.+)\n", said)
    expected = [(options, name) for options in METHODS for name in NAMES]
    assert [(options, name) for options, name, _ in sent] == expected
    assert all(json.loads(answer) == {"array": name, "text": "hello"} for _, name, answer in sent)
    (many,) = re.findall(r"\$ \S+arrayctl send-many \S+\n     (.+)\n", said)
    assert [(each["array"], each["result"]) for each in json.loads(many)] == [(name, 0) for name in NAMES[1:]]
    assert re.findall(r"^     (\S+)\tnormal\t", said, re.MULTILINE) == list(NAMES)


def assert_the_arrays_serve(folder: Path, said: str) -> None:
    """And nothing is left but them."""
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    pids = processes_of(folder)
    assert len(pids) == len(NAMES)
    (kept,) = folder.iterdir()
    (listed,) = re.findall(rf"\$ kill ([\d ]+); rm -r {kept}\n", said)
    assert sorted(map(int, listed.split())) == sorted(pids)
    (url,) = re.findall(r"\$ URL=(\S+)", said)
    for lun in (0, VOLUME_LUN_OF["remote"]):
        info = subprocess.run(
            ["qemu-img", "info", f"{url}/{lun}"], capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=True
        )
        assert "1 GiB" in info.stdout
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    wait_until_none_is_left(folder)
    shutil.rmtree(kept)
    assert_nothing_is_left(folder)


def wait_until_none_is_left(folder: Path) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while processes_of(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_initiators_and_its_port_it_says_so_and_shows_the_rest(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        # Whether this test has the port or somebody else on this machine: it is taken.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 3260)))
        done = demo(folder, PATH=NO_PROGRAMS)
    assert "127.0.0.1:3260 is taken" in done.stdout
    assert "ready 127.0.0.1:" in done.stdout
    assert "ready 127.0.0.1:3260 " not in done.stdout
    assert done.returncode == NOTHING_SHOWN, done.stdout + done.stderr
    assert "apt-get install libiscsi-bin" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("scripts/demo: no data was written: apt-get install qemu-utils")
    assert len(set(PROCESS.findall(done.stdout))) == len(NAMES) + 1
    assert_commands_were_answered(done.stdout)
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


def test_signal_waits_until_what_is_started_is_known() -> None:
    handlers = {each: signal.getsignal(each) for each in signals.SIGNALS}
    try:
        signals.note()
        signals.heed()
        with subprocess.Popen(["true"]):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(SystemExit) as ended:
            say("never said")
        assert ended.value.code == 128 + signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        signals.heed()
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


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
