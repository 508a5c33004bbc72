"""Two arrays with a pair as a subject: what journaling costs a host's writes, beside a volume in no pair.

LUN 0 of the near array is a volume like any other, LUN 1 is the P-VOL; the far array has the S-VOL, and pulls all the
while, or is written to at once by a synchronous pair. Both arrays and the load generator share this machine's
processors.
"""

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.benchmark import backing, generator, transfers
from scripts.benchmark.generator import Place, Run
from scripts.benchmark.line import Line
from scripts.benchmark.rows import COPY, MIB, RESTORE, Link, TargetSetup, Work
from tests.lab.daemon import DaemonError
from tests.lab.paired import ASYNC, PairedArrays

PLAIN, PAIRED = "plain", "paired"
PAIRED_LUN, VIRTUAL_LUN = 1, 2
MIRRORED = {"mode": "sync", "fence": "never"}
SYNC = "sync"
"""The program of set-ups whose pair is synchronous. The virtual volume leads to the far array's plain one."""
JOURNAL_BYTES = 1 << 30
"""So much that no run fills it: what the far array has not yet is in it."""
PACE = 15
"""The initial copy is none of what is measured."""
WRITING_SECONDS = 2.0
"""At the most, while the far array stands still: less than it takes the near one to give it up."""
SECONDS = 120
"""For the initial copy, and for what is in the journal after a run."""


class PairTarget:
    """A context manager: both arrays run while it is entered, and their group is PAIR. Their state is in ``folder``."""

    def __init__(self, setup: TargetSetup, folder: Path, bytes_a_lun: int) -> None:
        self._link = setup.link
        self._sync = setup.program == SYNC
        self._line: Line | None = None
        self._bytes_a_lun = bytes_a_lun
        self._folder = folder
        self._arrays: PairedArrays
        self._running = ExitStack()
        self.files: list[Path] = []

    @property
    def place(self) -> Place:
        """Where the load generator finds the near array."""
        near = self._arrays.near
        return Place(near.port, near.target, near.pid, lun_0=0)

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            volumes = {name: {"size": self._bytes_a_lun} for name in (PLAIN, PAIRED)}
            if self._link is not Link.DIRECT:
                self._line = starting.enter_context(Line())
            wire = None if self._line is None else self._line.wire
            leg, virtual = (MIRRORED, {VIRTUAL_LUN: 0}) if self._sync else (ASYNC, {})
            self._arrays = PairedArrays(
                starting, self._folder, volumes, [PAIRED], JOURNAL_BYTES, wire, leg=leg, virtual=virtual
            )
            self.files = [self._arrays.near.volume_file(name) for name in volumes]
            for file in self.files:
                backing.fill(file, self._bytes_a_lun)
            if self._sync:
                backing.fill(self._arrays.far.volume_file(PLAIN), self._bytes_a_lun)
            else:
                for array in (self._arrays.near, self._arrays.far):
                    # The first lap over fresh memory is slower.
                    backing.fill(array.volume_file("journal"), JOURNAL_BYTES)
            self._arrays.tool("paircreate", "-vl", "-c", str(PACE))
            self.settle()
            self._running = starting.pop_all()
        return self

    def settle(self) -> None:
        """The pair is PAIR, the far array has all that was written, and the link is as it is to be measured. Raises
        DaemonError."""
        if self._line is not None:
            self._line.set(Link.DIRECT)
        try:
            self._arrays.wait_for_pair(SECONDS)
        except AssertionError as error:
            raise DaemonError(str(error)) from error
        if self._line is not None:
            self._line.set(self._link)

    def transfer(self, op: str, program: Path) -> Run:
        """One of ``rows.TRANSFERS``, of all that LUN 1 has; the pair is PAIR, and nothing is to be restored.
        ``program`` is the load generator. Raises DaemonError, GeneratorError."""
        arrays, plain = self._arrays, self._arrays.far.volume_file(PLAIN)
        if op == COPY:
            arrays.tool("pairsplit", "-S")
            arrays.tool("paircreate", "-vl", "-f", "async", "-c", str(PACE))
            with arrays.watching(arrays.far) as look:
                return transfers.watch(lambda: look().pairs[PAIRED_LUN].differing)
        if op == RESTORE:
            os.kill(arrays.far.pid, signal.SIGSTOP)
            try:
                writes = Work("write", MIB, depth=8, first_lun=PAIRED_LUN, sequential=True, once=True)
                generator.run(program, self.place, [writes], seconds=WRITING_SECONDS, warmup=0.0, seed=1)
                with arrays.watching(arrays.near) as look:
                    # From before it begins: it takes no longer than to log in.
                    os.kill(arrays.far.pid, signal.SIGCONT)
                    return transfers.watch(lambda: look().lag.bytes)
            finally:
                os.kill(arrays.far.pid, signal.SIGCONT)
        return transfers.stream(self.files[0], plain, self._bytes_a_lun)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)
