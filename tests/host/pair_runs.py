"""Running the pair verbs of arrayctl against two arrays that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from arrayd.host import host as host_module
from arrayd.host import machine, settings
from arrayd.host.cli import arrayctl
from arrayd.host.groups import Group
from arrayd.host.host import Host
from arrayd.host.pair_asking import Arrays
from arrayd.host.paths import PathTable
from arrayd.host.way import Way
from tests.host.pair_arrays import GROUP, HOSTS, TwoArrays

HALF = "the other side is in the pair alone: pairsplit -S ends it"
"""What is said of pairs that one side lacks, behind their names."""


class Ran(NamedTuple):
    """How a verb ended."""

    code: int
    out: str
    error: str


class Lab:
    """Two arrays, and a host that reaches both by `file`."""

    def __init__(self, file: Path, runner: asyncio.Runner) -> None:
        self.file = file
        self.two = TwoArrays(runner)
        self._read = ("", PathTable.read(file))

    @property
    def table(self) -> PathTable:
        """What the file says. It is read again when it says something else."""
        text = self.file.read_text()
        if self._read[0] != text:
            self._read = (text, PathTable.read(self.file))
        return self._read[1]

    def through_primary_alone(self) -> None:
        """The host is not connected to remote itself."""
        text = self.file.read_text()
        begin, end = text.index('direct: "iscsi://127.0.0.1:3261'), text.index("through: primary")
        self.file.write_text(text[:begin] + text[end:])

    def run(self, line: str) -> Ran:
        """A command line, behind `arrayctl`."""
        result = CliRunner().invoke(arrayctl, line.split(), prog_name="arrayctl", obj=ReadOnce(self))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    def good(self, line: str) -> str:
        """What it prints; it has nothing to complain about."""
        ran = self.run(line)
        assert (ran.code, ran.error) == (0, ""), ran
        return ran.out

    def bad(self, line: str) -> tuple[int, str]:
        """Exit code and reason, which is one line, behind our name."""
        ran = self.run(line)
        assert ran.out == ""
        (reason,) = ran.error.splitlines()
        assert reason.startswith("arrayctl: ")
        return ran.code, reason.removeprefix("arrayctl: ")

    def arrays(self, here: str = "primary") -> Arrays:
        """Both, seen from `here`, as the verbs ask them with --at."""
        return Arrays(Host(self.table, Way(at=here)), self.group, here)

    @property
    def group(self) -> Group:
        return self.table.groups[GROUP]


class ReadOnce(settings.Settings):
    """The settings of a command line that does not read the file each time."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab

    @property
    def table(self) -> PathTable:
        return self._lab.table


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """See Lab. No time passes but that of pauses."""
    file = tmp_path / "hosts.yaml"
    file.write_text(HOSTS)
    with asyncio.Runner() as runner:
        made = Lab(file, runner)
        monkeypatch.setenv(settings.VARIABLE, str(file))
        monkeypatch.setattr(host_module, "Connections", made.two.connections)
        monkeypatch.setattr(machine, "pause", made.two.pause)
        monkeypatch.setattr(machine, "monotonic", made.two.monotonic)
        yield made
