"""The steps of the demonstration, numbered, with the commands that a user would type for them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts.demonstration import signals
from tests.lab.daemon import CHECKOUT, ArraydProcess
from tests.lab.three import ThreeArrays

TOOL_TIMEOUT_S = 15.0


class DemoError(Exception):
    """A step did not do what it should."""


def say(text: str) -> None:
    """One line of the story. A signal ends it between two lines: what was started is known to somebody then."""
    signals.heed()
    print(text, flush=True)


class Story:
    """The steps, with the arrays that they are about. `primary` is the one that the host is connected to."""

    def __init__(self, arrays: ThreeArrays) -> None:
        self.arrays = arrays
        self.primary = arrays["primary"]
        self.remote = arrays["remote"]
        self.folder = arrays.folder
        self.arrayd, self.arrayctl = (os.path.relpath(CHECKOUT / ".venv" / "bin" / n) for n in ("arrayd", "arrayctl"))
        self._names: dict[str, str] = {}
        self._steps = 0

    def step(self, title: str) -> None:
        """The next step's headline."""
        self._steps += 1
        say(f"{self._steps}. {title}")

    def name(self, name: str, long: str) -> None:
        """Let a variable of the shell stand for a long word, in all that is shown from here on."""
        self.command(f"{name}={long}")
        self._names[long] = f"${name}"

    def export(self, name: str, value: str) -> None:
        """Set a variable for the commands from here on, as a shell does."""
        self.command("export", f"{name}={value}")
        os.environ[name] = value

    def command(self, *words: str) -> None:
        """Show a command as a shell takes it, with short names for what is long."""
        line = " ".join(f'"{word}"' if " " in word else word for word in words)
        say(f"   $ {self._shortened(line)}")

    def _shortened(self, line: str) -> str:
        for long, name in sorted(self._names.items(), key=lambda pair: -len(pair[0])):
            line = line.replace(long, name)
        return line

    def run(self, *command: str, lines: int | None = None) -> str:
        """Show a command, run it, show the first lines of what it prints, and give all of that.

        Raises DemoError when it fails, and subprocess.TimeoutExpired.
        """
        return self.run_together([command], lines)[0]

    def run_together(self, commands: Sequence[Sequence[str]], lines: int | None = None) -> list[str]:
        """The same for several that run at once; they are shown in their order."""
        running = [
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for command in commands
        ]
        try:
            return [self._said(*pair, lines) for pair in zip(commands, running, strict=True)]
        finally:
            for process in running:
                process.kill()
                process.wait()

    def _said(self, command: Sequence[str], process: subprocess.Popen[str], lines: int | None) -> str:
        self.command(*command)
        said, _ = process.communicate(timeout=TOOL_TIMEOUT_S)
        for line in said.splitlines()[: None if process.returncode else lines]:
            say(f"     {self._shortened(line)}")
        if process.returncode:
            raise DemoError(f"{shlex.join(command[:2])} ended with {process.returncode}")
        return said

    def show_file(self, path: Path) -> None:
        """Show what a file says."""
        self.command("cat", str(path))
        for line in path.read_text().splitlines():
            say(f"     {self._shortened(line)}")

    def serve(self, array: ArraydProcess) -> None:
        """Start an array, for the first time or after a kill."""
        self.command(self.arrayd, "serve", f"{array.folder}/arrayd.yaml", "&")
        array.start()
        say(f"     ready {' '.join(array.addresses)}   (process {array.pid})")

    def kill(self, array: ArraydProcess) -> None:
        """What a crash of the daemon does."""
        self.command("kill", "-9", str(array.pid))
        array.kill()
