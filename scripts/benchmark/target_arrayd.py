"""arrayd as a subject: a process of its own, its volumes' files filled."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scripts.benchmark import backing
from scripts.benchmark.generator import Place
from scripts.benchmark.rows import TargetSetup
from tests.lab.daemon import ArraydProcess, configuration


class ArraydTarget:
    """A context manager: runs while it is entered. Its state and its volumes are in ``folder``."""

    def __init__(self, setup: TargetSetup, folder: Path, bytes_a_lun: int) -> None:
        self._bytes_a_lun = bytes_a_lun
        settings: dict[str, Any] = {"size": bytes_a_lun, "write_cache": not setup.durable}
        self._names = [f"v{number}" for number in range(setup.luns)]
        polling = {} if setup.poll_us is None else {"poll_us": setup.poll_us}
        self._process = ArraydProcess(folder, configuration(dict.fromkeys(self._names, settings), **polling))
        self.files: list[Path] = []

    @property
    def place(self) -> Place:
        """Where the load generator finds it."""
        return Place(self._process.port, self._process.target, self._process.pid, lun_0=0)

    def __enter__(self) -> Self:
        self._process.start()
        self.files = [self._process.volume_file(name) for name in self._names]
        for file in self.files:
            backing.fill(file, self._bytes_a_lun)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)
