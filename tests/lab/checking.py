"""`arrayd check`, without a process of its own."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from arrayd.__main__ import main


class Checked(NamedTuple):
    """How it ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def check(file: Path) -> Checked:
    """What it makes of a file."""
    code: str | int | None = 0
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            main(["check", str(file)], standalone_mode=False)
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Checked(code, out.getvalue(), err.getvalue())
