"""Arrays in a row as a subject: the last has the volume, each before it a virtual LUN that leads to the next."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.benchmark import backing
from scripts.benchmark.generator import Place
from scripts.benchmark.rows import DEVICE_LUN, TargetSetup
from tests.lab.chain import start_chain
from tests.lab.daemon import ArraydProcess

HOPS_MAX = 2


class ChainTarget:
    """A context manager: all the arrays run while it is entered. Their state is in ``folder``."""

    def __init__(self, setup: TargetSetup, folder: Path, bytes_a_lun: int) -> None:
        self._bytes_a_lun = bytes_a_lun
        self._polling = {} if setup.poll_us is None else {"poll_us": setup.poll_us}
        self._folder = folder
        self._arrays: list[ArraydProcess] = []
        self._running = ExitStack()
        self.files: list[Path] = []

    @property
    def place(self) -> Place:
        """Where it finds the array with the volume."""
        return self.place_at(0)

    def place_at(self, hops: int) -> Place:
        """Where the load generator finds the array from which it is so many hops to the volume."""
        array = self._arrays[HOPS_MAX - hops]
        return Place(array.port, array.target, array.pid, lun_0=0)

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self._arrays = start_chain(
                starting, self._folder, HOPS_MAX, {"size": self._bytes_a_lun}, DEVICE_LUN, **self._polling
            )
            self._running = starting.pop_all()
        self.files = [self._arrays[-1].volume_file("data")]
        backing.fill(self.files[0], self._bytes_a_lun)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)
