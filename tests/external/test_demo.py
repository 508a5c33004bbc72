"""scripts/demo: it tells its story, ends with everything stopped, and makes do with what the machine has."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab import parts
from tests.lab.daemon import CHECKOUT

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

DEMO_TIMEOUT_S = 240.0
"""It may have to make its virtual environment first."""
READ_BACK = "Written before kill -9, read after it."
PROCESS = re.compile(r"process (\d+)")


def demo(folder: Path, *arguments: str, **environment: str) -> str:
    """What the demo prints, started with its temporary files in ``folder``; it must succeed."""
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts" / "demo"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        env=os.environ | {"TMPDIR": str(folder)} | environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command_line(pid: int) -> str:
    """Of a running process; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


@pytest.fixture
def folder() -> Path:
    """A folder with a short name, where the demo's own have to go."""
    return Path(tempfile.mkdtemp(prefix="demo-"))


def test_it_ends_with_everything_stopped(folder: Path) -> None:
    parts.require("iscsi-ls", "qemu-img", "qemu-io")
    parts.require_fuse()
    story = demo(folder)
    assert "all four MiB are what was written" in story
    assert story.count(READ_BACK) == 2
    pids = [int(pid) for pid in PROCESS.findall(story)]
    assert len(set(pids)) == 3
    assert not [pid for pid in pids if "arrayd" in command_line(pid)]
    folder.rmdir()  # nothing is left in it
    mounts = Path("/proc/self/mounts").read_text()
    assert str(folder) not in mounts


def test_it_goes_on_with_what_works(folder: Path) -> None:
    story = demo(folder, PATH="/nonexistent")
    assert "READ (16): the same" in story
    assert "apt-get install qemu-utils" in story
    folder.rmdir()


def test_keep_leaves_it_running(folder: Path) -> None:
    story = demo(folder, "--keep", PATH="/nonexistent")
    pid = int(PROCESS.findall(story)[-1])
    assert "arrayd serve" in command_line(pid)
    os.kill(pid, signal.SIGTERM)
    assert f"stop it by kill {pid}" in story
