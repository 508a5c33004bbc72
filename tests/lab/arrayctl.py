"""`arrayctl` as a process of its own for every command, without the time that it takes to import it: one process has it
imported, and forks for each.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from tests.lab.daemon import CHECKOUT
from tests.lab.forks import become

TIMEOUT_S = 240.0
TOOL = "import sys; from arrayd.host.cli import main; main(sys.argv[1:])"
"""For `python -c`, where signals are to be sent to it."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """As its parent sees it: below 0, by which signal."""
    output: str
    complaints: str


class Arrayctl:
    """A context manager. Any thread may run commands: one at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> Ended:
        """`arrayctl ARGUMENTS`, to its end."""
        with self._turn, tempfile.TemporaryDirectory() as folder:
            output, complaints = Path(folder, "output"), Path(folder, "complaints")
            asked, told = self._process.stdin, self._process.stdout
            assert asked is not None
            assert told is not None
            asked.write(json.dumps([arguments, str(output), str(complaints)]).encode() + b"\n")
            asked.flush()
            ready, _, _ = select.select([told], [], [], TIMEOUT_S)
            assert ready, f"arrayctl {' '.join(arguments)} has not ended in {TIMEOUT_S:.0f} s"
            return Ended(int(told.readline()), output.read_text(), complaints.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout):
            assert end is not None
            end.close()


def serve() -> None:
    """In a process of its own: runs what it is told, and tells how that ended, until nobody tells it anything."""
    import arrayd.host.cli  # noqa: F401 - what this is all about
    from arrayd.host.verb_table import SHORT_HELP, verb

    for name in SHORT_HELP:
        verb(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _carry_out(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _carry_out(arguments: Sequence[str], *files: str) -> NoReturn:
    """In a process of its own, which ends by it."""
    from arrayd.host.cli import main

    become(partial(main, list(arguments)), *(os.open(file, os.O_WRONLY | os.O_CREAT) for file in files))
