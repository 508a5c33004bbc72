"""The daemon is killed at every point of a creation, a growth, a deletion: what was acknowledged is there, the rest is
there as a whole or not at all, and no file is left over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK
from tests.estate.doomed import KIB, QUICK_STRIDE
from tests.lab.daemon import CHECKOUT

pytestmark = pytest.mark.slow

POINTS_MIN = 50

STATES: list[tuple[str, list[list[Any]], list[str], str]] = [
    # after this operation: volumes with size and LUN, files, what is at the beginning of the volume
    ("", [], [], ""),
    ("create", [["v", 64 * KIB, None]], ["v.img"], "\0\0\0\0"),
    ("write", [["v", 64 * KIB, None]], ["v.img"], "kept"),
    ("map", [["v", 64 * KIB, 7]], ["v.img"], "kept"),
    ("resize", [["v", 128 * KIB, 7]], ["v.img"], "kept"),
    ("unmap", [["v", 128 * KIB, None]], ["v.img"], "kept"),
    ("delete", [], [], ""),
    ("create again", [["v", 96 * KIB, None]], ["v.img"], "\0\0\0\0"),
]


def found_after(step: int) -> dict[str, Any]:
    _, volumes, files, content = STATES[step]
    luns = [lun for _, _, lun in volumes if lun is not None]
    return {"volumes": volumes, "luns": luns, "files": files, "content": content, "rest": 0}


@pytest.mark.timeout(240)
def test_a_kill_at_any_point_leaves_all_or_nothing(disk: Path) -> None:
    command = [sys.executable, "-m", "tests.estate.doomed", str(disk)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) * (QUICK_STRIDE if QUICK else 1) > POINTS_MIN
    for killed, acknowledged, found in points:
        assert acknowledged == [name for name, *_ in STATES[1 : len(acknowledged) + 1]]
        step = len(acknowledged)
        allowed = [found_after(step), found_after(step + 1)] if killed else [found_after(step)]
        assert found in allowed, acknowledged
    assert points[-1][1] == [name for name, *_ in STATES[1:]]
