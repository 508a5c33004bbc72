"""Real arrays in a row: the last has a volume, each before it a virtual volume that leads to the next (figure 22)."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.lab.daemon import ArraydProcess, configuration, free_port


def start_chain(
    stack: ExitStack,
    folder: Path,
    hops: int,
    volume: Mapping[str, Any],
    command_device: int | None = None,
    **iscsi: Any,
) -> list[ArraydProcess]:
    """Starts `hops` + 1 arrays, the last one first; hosts log in to the first of the list. `iscsi` is for all. The last
    one has a command device, if its LUN is given, and the others lead to it by the same LUN."""
    ports = [0, *(free_port() for _ in range(hops))]  # nobody dials the first
    arrays: list[ArraydProcess] = []
    for number in reversed(range(hops + 1)):
        target = f"iqn.2026-11.io.arrayd:chain{number}"
        config = configuration({"data": volume}, **{"listen": ["127.0.0.1:0"], **iscsi, "target": target})
        config["array"] = {"name": f"chain{number}", "serial": f"42000{number}"}
        config["link"] = {"listen": f"127.0.0.1:{ports[number]}", "arrays": {}}
        if number:
            config["link"]["arrays"][f"chain{number - 1}"] = None
        if number < hops:
            config["link"]["arrays"][f"chain{number + 1}"] = f"127.0.0.1:{ports[number + 1]}"
            config["luns"] = {"0": {"virtual": {"array": f"chain{number + 1}", "lun": 0}}}
        if command_device is not None:
            leads = {"virtual": {"array": f"chain{number + 1}", "lun": command_device}}
            config["luns"][str(command_device)] = leads if number < hops else {"command_device": {}}
        arrays.insert(0, stack.enter_context(ArraydProcess(folder / f"chain{number}", config)))
    return arrays
