"""arrayctl as a process: exit codes, signals, a terminal, help and completion; at real arrays."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from arrayd.commands.results import Result as Code
from arrayd.host.cli import arrayctl
from arrayd.host.verb_table import SHORT_HELP
from tests.host.row import Row
from tests.lab.daemon import CHECKOUT

pytestmark = [pytest.mark.usefixtures("paths"), pytest.mark.slow]

ARRAYCTL = [sys.executable, "-m", "arrayd.host.cli"]
SECONDS_MAX = 30


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*ARRAYCTL, *arguments], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).parent / "arrayctl"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=SECONDS_MAX, check=True)
    assert done.stdout.startswith("arrayctl ")


@pytest.mark.parametrize(("arguments", "code"), [(["send", "remote", "echo"], 0), (["sned"], Code.USAGE)])
def test_a_process_ends_with_the_code(arguments: list[str], code: int) -> None:
    with process(*arguments) as child:
        child.communicate(timeout=SECONDS_MAX)
    assert child.returncode == code


def lines_of(child: subprocess.Popen[bytes]) -> Iterator[str]:
    assert child.stdout is not None
    for line in child.stdout:
        yield line.decode()


def test_events_are_followed_through_a_restart_until_interrupted(row: Row) -> None:
    with process("events", "--follow", "--limit", "1") as child:
        lines = lines_of(child)
        last = int(next(lines).split("\t")[0])
        row["primary"].kill()
        row["primary"].start()
        told = []
        while ("array", "started") not in told:
            number, _, _, kind, text = next(lines).rstrip("\n").split("\t")
            assert int(number) > last
            last = int(number)
            told.append((kind, text))
        assert told[-1] == ("array", "started")
        child.send_signal(signal.SIGINT)
        assert child.wait(SECONDS_MAX) == -signal.SIGINT


def test_nobody_reading_on_is_no_fault_of_ours() -> None:
    with process("commands", "--json") as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.wait(SECONDS_MAX) == -signal.SIGPIPE
        assert child.stderr is not None
        assert child.stderr.read() == b""


def on_terminal(*arguments: str) -> str:
    """What a person sees, without the colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    with subprocess.Popen([*ARRAYCTL, *arguments], stdout=theirs, cwd=CHECKOUT, env=environment):
        os.close(theirs)
        seen, deadline = b"", time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                try:
                    more = os.read(ours, 65536)
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    break
                seen += more
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())


def test_a_person_sees_tables() -> None:
    seen = on_terminal("status", "primary")
    assert re.search(r"ARRAY +STATE +SERIAL", seen)
    assert re.search(r"data +8 MiB", seen)
    assert re.search(r"intermediate +up", seen)
    assert "REASON" not in seen


# -- help and completion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *SHORT_HELP])
def test_help_teaches_by_examples(verb: str) -> None:
    text = CliRunner().invoke(arrayctl, [*verb.split(), "--help"]).stdout
    assert re.search(r"^ +(arrayctl|- \{array)", text, re.MULTILINE)


def asked_by_bash(*words: str) -> dict[str, str]:
    """The environment in which bash asks what there is for the last word."""
    line = " ".join(["arrayctl", *words])
    return {"_ARRAYCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}


def offers(output: str) -> list[str]:
    return [line.partition(",")[2] for line in output.split()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["se"], ["send", "send-many"]),
        (["send", "i"], ["intermediate"]),
        (["send", "remote", "ech"], ["echo"]),
        (["send", "nowhere", "ech"], []),
        (["send", "remote", "echo", "t"], ["text="]),
        (["--at", "p"], ["primary"]),
    ],
)
def test_the_tab_key_offers(words: list[str], offered: list[str]) -> None:
    done = CliRunner().invoke(arrayctl, [], env=asked_by_bash(*words), prog_name="arrayctl")
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert offers(done.output) == offered


def test_the_tab_key_offers_what_an_array_has() -> None:
    """In a process, as bash asks it."""
    environment = {**os.environ, **asked_by_bash("send", "remote", "ech")}
    done = subprocess.run(ARRAYCTL, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert offers(done.stdout) == ["echo"]
