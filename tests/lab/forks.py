"""`arrayd serve` as a process of its own for every start, without the time that it takes to import it: one process has
it imported, and forks for each. Tests have it so; `tests/test_main.py`, the demo and the benchmark start it as a user
does.
"""

import functools
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.lab.daemon import CHECKOUT

MESSAGE_BYTES = 128 * 1024
"""Of what is asked: the environment, above all."""
END_TIMEOUT_S = 10.0


class Forked:
    """A daemon that was started. `stdout` is the end of a pipe that is read here."""

    def __init__(self, parent: "Parent", pid: int, stdout: int) -> None:
        self.pid = pid
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb", buffering=0)
        self._parent = parent
        self._ended = os.pidfd_open(pid)

    def send_signal(self, number: int, /) -> None:
        """To the process, which has not been waited for."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """How it ended, as its parent sees it: below 0, by which signal; that is the last that is asked of it.
        TimeoutExpired if it has not ended in so many seconds."""
        ended, _, _ = select.select([self._ended], [], [], timeout)
        if not ended:
            raise subprocess.TimeoutExpired("arrayd serve", timeout)
        os.close(self._ended)
        code: int = self._parent.ask({"wait": self.pid})
        return code


class Parent:
    """The process that has arrayd imported. It ends with the one that holds this."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                cwd=CHECKOUT,  # so that it is this checkout's arrayd
                start_new_session=True,  # Ctrl-C is for whoever holds this object
            )

    def ask(self, question: dict[str, Any], *descriptors: int) -> Any:
        """What it answers."""
        with self._turn:
            socket.send_fds(self._asked, [json.dumps(question).encode()], descriptors)
            answer = self._asked.recv(MESSAGE_BYTES)
        assert answer, "the process that starts arrayd is gone"
        return json.loads(answer)

    def end(self) -> None:
        """It starts no more."""
        self._asked.close()
        self._process.wait(END_TIMEOUT_S)

    def start(self, file: Path, log: Path) -> Forked:
        """See `daemon.Start`."""
        ours, theirs = os.pipe()
        try:
            pid = self.ask({"file": str(file), "log": str(log), "environment": dict(os.environ)}, theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return Forked(self, pid, ours)


@functools.cache
def parent() -> Parent:
    """That of all daemons of this process."""
    return Parent()


def start(file: Path, log: Path) -> Forked:
    """See `daemon.Start`."""
    return parent().start(file, log)


def end() -> None:
    """That process ends, if there is one; another start makes another."""
    if parent.cache_info().currsize:
        parent().end()
        parent.cache_clear()


def serve(descriptor: int) -> None:
    """In a process of its own: starts daemons and tells how they ended, until nobody asks any more."""
    import uvloop  # noqa: F401 - what this is all about, as what follows

    import arrayd.__main__
    import arrayd.array
    import arrayd.config.load
    import arrayd.log
    import arrayd.notify  # noqa: F401

    gc.freeze()
    with socket.socket(fileno=descriptor) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, 1)
            if not message:
                return
            question = json.loads(message)
            if "wait" in question:
                answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
            else:
                answer = os.fork()
                if not answer:
                    asked.close()
                    _become(question["file"], question["log"], question["environment"], descriptors[0])
                os.close(descriptors[0])
            asked.send(json.dumps(answer).encode())


def _become(file: str, log: str, environment: dict[str, str], stdout: int) -> NoReturn:
    """In a process of its own, which ends by it."""
    from arrayd.__main__ import main

    def program() -> None:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        random.seed()
        main(["serve", file])

    become(program, stdout, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))


def become(program: Callable[[], object], stdout: int, stderr: int) -> NoReturn:
    """In a process that was forked for it: runs the program with these files and nothing to read, and ends as it
    does."""
    code = 1
    try:
        for number, source in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
            os.dup2(source, number)
            os.close(source)
        program()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
