"""Two real arrays with a group of pairs between them, and the host's tool that commands both."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.lab.daemon import CHECKOUT, ArraydProcess, configuration, free_port

NEAR, FAR = "near", "far"
GROUP = "oradb"
DEVICE_LUN, JOURNAL_LUN = 9, 20
TOOL_TIMEOUT_S = 240.0
TOOL = "import sys; from arrayd.host.cli import main; main(sys.argv[1:])"


class PairedArrays:
    """`near`, which has the P-VOLs first, and `far`, each with these volumes at LUNs from 0 on; those named in `paired`
    are the group GROUP. Both run as long as `stack` does. `paths` is the host's path table."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        volumes: Mapping[str, Mapping[str, Any]],
        paired: Sequence[str],
        journal_bytes: int,
    ) -> None:
        self.paths = folder / "hosts.yaml"
        ports = {NEAR: free_port(), FAR: free_port()}
        self.near, self.far = (
            stack.enter_context(ArraydProcess(folder / name, _configuration(name, peer, volumes, journal_bytes, ports)))
            for name, peer in ((NEAR, FAR), (FAR, NEAR))
        )
        numbers = {name: number for number, name in enumerate(volumes)}
        told = {
            "paths": {
                name: {"direct": f"iscsi://{array.addresses[0]}/{array.target}/{DEVICE_LUN}"}
                for name, array in ((NEAR, self.near), (FAR, self.far))
            },
            "site": NEAR,
            "groups": {
                GROUP: {
                    "volumes": {name: {NEAR: numbers[name], FAR: numbers[name]} for name in paired},
                    "journals": {NEAR: JOURNAL_LUN, FAR: JOURNAL_LUN},
                    "legs": [{"from": NEAR, "to": FAR, "mode": "async"}],
                }
            },
        }
        self.paths.write_text(yaml.safe_dump(told))

    def tool(self, verb: str, *arguments: str, expected: int = 0) -> str:
        """What `arrayctl VERB -g GROUP` prints; it ends with the exit code that is expected."""
        return self.arrayctl(verb, "-g", GROUP, *arguments, expected=expected)

    def arrayctl(self, verb: str, *arguments: str, expected: int = 0) -> str:
        """What `arrayctl VERB` prints, likewise."""
        command = [sys.executable, "-c", TOOL, "--paths", str(self.paths), verb, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False, cwd=CHECKOUT
        )
        said = f"{verb} {' '.join(arguments)}: {done.returncode}: {done.stdout}{done.stderr}"
        assert done.returncode == expected, said
        return done.stdout

    def wait_for_pair(self, seconds: int) -> None:
        """Until the pairs are PAIR, and the S-VOLs have all that was written before."""
        self.tool("pairevtwait", "-s", "pair", "-t", str(seconds))
        self.tool("pairsyncwait", "-t", str(seconds))


def _configuration(
    name: str, peer: str, volumes: Mapping[str, Mapping[str, Any]], journal_bytes: int, ports: Mapping[str, int]
) -> dict[str, Any]:
    config = configuration(volumes, target=f"iqn.2026-11.io.arrayd:{name}")
    config["array"] = {"name": name, "serial": f"43000{(NEAR, FAR).index(name)}"}
    config["volumes"]["journal"] = {"size": journal_bytes, "use": "journal"}
    config["luns"] |= {str(JOURNAL_LUN): {"volume": "journal"}, str(DEVICE_LUN): {"command_device": {}}}
    config["link"] = {"listen": f"127.0.0.1:{ports[name]}", "arrays": {peer: f"127.0.0.1:{ports[peer]}"}}
    return config
