"""docs/replication.md, from paircreate to failback, followed literally: its files are written, its lines typed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.lab.daemon import CHECKOUT, free_port

pytestmark = [pytest.mark.external, pytest.mark.timeout(180)]

PORTS: Final = ("3260", "3261", "3270", "3271")
FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BEGIN: Final = f"""\
set -m
trap 'kill $(jobs -p) 2> jobs.log; wait' EXIT
arrayd() {{ exec {sys.executable} -m arrayd "$@"; }}
arrayctl() {{ {sys.executable} -m arrayd.host.cli "$@"; }}
ended() {{ [ $1 -lt 128 ] || {{ echo "$2: exit $1"; exit 1; }}; }}
"""
SERVED: Final = """\
until arrayctl --paths hosts.yaml status primary > up.log 2>&1; do sleep 0.1; done
until arrayctl --paths hosts.yaml status remote > up.log 2>&1; do sleep 0.1; done
"""


def script(section: str, folder: Path) -> str:
    """Writes the files, and gives what is typed: a verb that ends with an error ends it, and arrays are waited for."""
    for port in PORTS:
        section = re.sub(rf"\b{port}\b", str(free_port()), section)
    typed = [BEGIN]
    for kind, text in FENCE.findall(section):
        if kind == "yaml":
            name = re.match(r"# ([a-z]+\.yaml)", text)
            assert name is not None
            (folder / name[1]).write_text(text)
            continue
        for line in text.splitlines():
            typed += [line, f"ended $? '{line.partition('#')[0].strip()}'"] if line.startswith("$ARRAYCTL") else [line]
        if "arrayd serve" in text:
            typed.append(SERVED)
    return "\n".join(typed)


def test_the_walk_from_paircreate_to_failback_goes_as_it_is_written(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "replication.md").read_text()
    section = page[page.index("## From paircreate to failback") : page.index("## When the host drives")]
    ran = subprocess.run(
        ["bash", "-c", script(section, tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    taken = [line.split("\t")[1:3] for line in ran.stdout.splitlines() if "-takeover\t" in line]
    assert taken == [["swap-takeover", "1"]] * 3 + [["SVOL-SSUS-takeover", "5"]] * 2 + [["swap-takeover", "1"]]
