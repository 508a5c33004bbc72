"""Two arrays with a pair as a subject: what journaling costs a host's writes, beside a volume in no pair.

LUN 0 of the near array is a volume like any other, LUN 1 is the P-VOL; the far array has the S-VOL, and pulls all the
while. Both arrays and the load generator share this machine's processors.
"""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from scripts.benchmark import backing
from scripts.benchmark.generator import Place
from scripts.benchmark.rows import TargetSetup
from tests.lab.daemon import ArraydProcess, DaemonError, configuration, free_port

ARRAYCTL = Path(sys.executable).parent / "arrayctl"
NEAR, FAR = "near", "far"
GROUP = "bench"
JOURNAL_BYTES = 1 << 30
"""So much that no run fills it: what the far array has not yet is in it."""
JOURNAL_LUN, DEVICE_LUN = 20, 9
PACE = 15
"""The initial copy is none of what is measured."""
SECONDS = 120.0
"""For the initial copy, and for what is in the journal after a run."""


class PairTarget:
    """A context manager: both arrays run while it is entered, and their group is PAIR. Their state is in ``folder``."""

    def __init__(self, setup: TargetSetup, folder: Path, bytes_a_lun: int) -> None:
        self._bytes_a_lun = bytes_a_lun
        self._folder = folder
        ports = {NEAR: free_port(), FAR: free_port()}
        self._arrays = [
            ArraydProcess(folder / name, self._configuration(name, peer, serial, ports))
            for name, peer, serial in ((NEAR, FAR, "430001"), (FAR, NEAR, "430002"))
        ]
        self._running = ExitStack()
        self.files: list[Path] = []

    def _configuration(self, name: str, peer: str, serial: str, ports: dict[str, int]) -> dict[str, Any]:
        size = {"size": self._bytes_a_lun}
        config = configuration({"plain": size, "paired": size}, target=f"iqn.2026-11.io.arrayd:{name}")
        config["array"] = {"name": name, "serial": serial}
        config["volumes"]["journal"] = {"size": JOURNAL_BYTES, "use": "journal"}
        config["luns"] |= {str(JOURNAL_LUN): {"volume": "journal"}, str(DEVICE_LUN): {"command_device": {}}}
        config["link"] = {"listen": f"127.0.0.1:{ports[name]}", "arrays": {peer: f"127.0.0.1:{ports[peer]}"}}
        return config

    @property
    def place(self) -> Place:
        """Where the load generator finds the near array."""
        near = self._arrays[0]
        return Place(near.port, near.target, near.pid, lun_0=0)

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            for array in self._arrays:
                starting.enter_context(array)
            near = self._arrays[0]
            self.files = [near.volume_file("plain"), near.volume_file("paired")]
            for file in self.files:
                backing.fill(file, self._bytes_a_lun)
            self._write_paths()
            self._arrayctl("paircreate", "-vl", "-f", "async", "-c", str(PACE))
            self.settle()
            self._running = starting.pop_all()
        return self

    def _write_paths(self) -> None:
        luns = {NEAR: 1, FAR: 1}
        journals = {NEAR: JOURNAL_LUN, FAR: JOURNAL_LUN}
        told = {
            "paths": {
                each.config["array"]["name"]: {"direct": f"iscsi://127.0.0.1:{each.port}/{each.target}/{DEVICE_LUN}"}
                for each in self._arrays
            },
            "site": NEAR,
            "groups": {
                GROUP: {
                    "volumes": {"paired": luns},
                    "journals": journals,
                    "legs": [{"from": NEAR, "to": FAR, "mode": "async"}],
                }
            },
        }
        (self._folder / "hosts.yaml").write_text(yaml.safe_dump(told))

    def settle(self) -> None:
        """The pair is PAIR, and the far array has all that was written. Raises DaemonError."""
        self._arrayctl("pairevtwait", "-s", "pair", "-t", str(round(SECONDS)))
        self._arrayctl("pairsyncwait", "-t", str(round(SECONDS)))

    def _arrayctl(self, verb: str, *arguments: str) -> None:
        command = [str(ARRAYCTL), "--paths", str(self._folder / "hosts.yaml"), verb, "-g", GROUP, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
        if done.returncode:
            raise DaemonError(f"arrayctl {verb}: exit {done.returncode}: {done.stdout}{done.stderr}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)
