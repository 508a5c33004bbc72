"""Three real arrays in a row, and a host's path table for them (figures 28 and 29)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from arrayd.host import PathTable, Way
from tests.host.faults import FaultyHost
from tests.lab.daemon import ArraydProcess, configuration, free_port

NAMES = ("primary", "intermediate", "remote")
DEVICE_LUN = 9
"""Of each array's own command device."""
THROUGH_LUN = 10
"""On the primary array, of the virtual volume that leads to the intermediate array's command device."""
FAR_LUN = 11
"""On the primary array, by the intermediate one's LUN of the same number, to the remote array's command device."""


class Row:
    """The arrays, by name, and the folder where the path table is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = [free_port() for _ in NAMES]
        self.arrays = {
            name: ArraydProcess(folder / name, _configuration(number, name, ports)) for number, name in enumerate(NAMES)
        }

    def __getitem__(self, name: str) -> ArraydProcess:
        return self.arrays[name]

    @property
    def url(self) -> str:
        """Of the primary array's command device."""
        return self["primary"].url(DEVICE_LUN)

    def table(self, **more: Any) -> Path:
        """The path table's file, written anew."""
        paths = {
            "primary": {"direct": self.url},
            "intermediate": {"through": "primary", "lun": THROUGH_LUN},
            "remote": {"through": "intermediate"},
        }
        file = self.folder / "hosts.yaml"
        file.write_text(yaml.safe_dump({"paths": paths, **more}))
        return file

    @contextmanager
    def host(self, **way: Any) -> Iterator[FaultyHost]:
        """A host at the primary array, whose ways a test may make bad."""
        with FaultyHost(PathTable.load(self.table()), Way(**way)) as host:
            yield host

    @contextmanager
    def frozen(self, name: str) -> Iterator[Callable[[], None]]:
        """An array that answers nothing, until what this gives is called, or the context ends."""

        def thaw() -> None:
            os.kill(self[name].pid, signal.SIGCONT)

        os.kill(self[name].pid, signal.SIGSTOP)
        try:
            yield thaw
        finally:
            thaw()


def _configuration(number: int, name: str, ports: list[int]) -> dict[str, Any]:
    config = configuration({"data": {"size": "8MiB"}}, target=f"iqn.2026-11.io.arrayd:{name}")
    config["array"] = {"name": name, "serial": f"43000{number}"}
    config["luns"][str(DEVICE_LUN)] = {"command_device": {}}
    arrays: dict[str, str | None] = {}
    if number:
        arrays[NAMES[number - 1]] = None
    if number < len(NAMES) - 1:
        arrays[NAMES[number + 1]] = f"127.0.0.1:{ports[number + 1]}"
    config["link"] = {"listen": f"127.0.0.1:{ports[number]}", "arrays": arrays}
    if name == "primary":
        config["luns"][str(THROUGH_LUN)] = {"virtual": {"array": "intermediate", "lun": DEVICE_LUN}}
        config["luns"][str(FAR_LUN)] = {"virtual": {"array": "intermediate", "lun": FAR_LUN}}
    if name == "intermediate":
        config["luns"][str(FAR_LUN)] = {"virtual": {"array": "remote", "lun": DEVICE_LUN}}
    return config


@contextmanager
def three_arrays(folder: Path) -> Iterator[Row]:
    """All three, running."""
    row = Row(folder)
    with row["remote"], row["intermediate"], row["primary"]:
        yield row
