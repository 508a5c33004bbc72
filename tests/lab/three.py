"""The three arrays in a row of config/: primary, intermediate and remote, and the host's path table for them. Served
from copies, with their state in a folder and with ports that are free."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.lab.daemon import CHECKOUT, ArraydProcess, free_port

CONFIG = CHECKOUT / "config"
NAMES = ("primary", "intermediate", "remote")
DEVICE_LUN = 9
"""On each array: its own command device."""
DEVICE_LUN_OF = {"primary": 9, "intermediate": 10, "remote": 11}
"""On primary: what leads to each array's command device."""
VOLUME_LUN_OF = {"primary": 0, "intermediate": 20, "remote": 21}
"""On primary: what leads to each array's volume."""


def configuration_of(name: str) -> dict[str, Any]:
    """What the file says."""
    config: dict[str, Any] = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    return config


def free_address(configured: str) -> str:
    """The same host, another port."""
    return f"127.0.0.1:{free_port()}"


class ThreeArrays:
    """The arrays by name. Entered in order, the last one first, they run; `address` chooses where each listens."""

    def __init__(self, folder: Path, address: Callable[[str], str] = free_address) -> None:
        self.folder = folder
        configs = {name: configuration_of(name) for name in NAMES}
        links = {name: address(config["link"]["listen"]) for name, config in configs.items()}
        self.arrays: dict[str, ArraydProcess] = {}
        for name, config in configs.items():
            config["state_dir"] = "state"
            config["iscsi"]["listen"] = [address(config["iscsi"]["listen"][0])]
            config["link"]["listen"] = links[name]
            dialed = config["link"]["arrays"]
            config["link"]["arrays"] = {other: dialed[other] and links[other] for other in dialed}
            self.arrays[name] = ArraydProcess(folder / name, copy.deepcopy(config))

    def __getitem__(self, name: str) -> ArraydProcess:
        return self.arrays[name]

    def run(self, stack: ExitStack) -> None:
        """Starts all; they are stopped with the stack."""
        for name in reversed(NAMES):
            stack.enter_context(self.arrays[name])

    def paths(self, direct: str | None = None) -> dict[str, Any]:
        """config/hosts.yaml, with this as primary's `direct`; None: the URL of its command device."""
        table: dict[str, Any] = yaml.safe_load((CONFIG / "hosts.yaml").read_text())
        table["paths"]["primary"]["direct"] = direct or self["primary"].url(DEVICE_LUN)
        return table
