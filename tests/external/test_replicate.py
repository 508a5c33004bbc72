"""Figure 16 by the host: a group whose pairs `arrayctl replicate` drives, between two real arrays, through the initial
copy, a split, a resync, a takeover after the primary is killed, and two sides that were written.
"""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.external.test_pairs import DATA_PROTECT, SECONDS, start
from tests.lab.arrayctl import TOOL
from tests.lab.daemon import CHECKOUT
from tests.lab.numbered import PLACE_BYTES, contents, write_one
from tests.lab.paired import FAR, GROUP, NEAR, PairedArrays

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

TURNS: Final = 8
"""More than any of this takes: 12 MiB at 16 MiB a turn, and the sides meet once a second."""
CONFLICT: Final = 135
SUSPENDED: Final = 234
FIGURE_16: Final = ["S1603", "S1604", "S1607", "S1609", "S1610"]


def drive(arrays: PairedArrays, *options: str) -> list[dict[str, Any]]:
    """The lines of a run."""
    told = options or ("-n", str(TURNS), "-i", "0.5")
    return [json.loads(line) for line in arrays.tool("replicate", *told, "--json").splitlines()]


def ranges(arrays: PairedArrays, side: str) -> dict[str, list[tuple[int, int]]]:
    """What a side has marked, or both (L+R), by volume: in writes of PLACE_BYTES."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row in json.loads(arrays.tool("pairdisplay", "-v", "diff", "--json")):
        if row["side"] == side:
            assert row["offset"] == row["lba"] * 512
            found.setdefault(row["volume"], []).append((row["offset"] // PLACE_BYTES, row["length"] // PLACE_BYTES))
    return found


async def alike(arrays: PairedArrays) -> None:
    assert await contents(arrays.far) == await contents(arrays.near)


def interrupt(arrays: PairedArrays) -> None:
    """One that goes on without end is interrupted behind a turn."""
    command = [sys.executable, "-c", TOOL, "--paths", str(arrays.paths), "replicate", "-g", GROUP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.split("\t")[1] == "S1610":
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == -signal.SIGINT
        assert process.stderr.read().strip() == ""


async def test_figures_11_and_13_to_16_the_host_drives(tmp_path: Path) -> None:
    with ExitStack() as stack:
        arrays = start(stack, tmp_path)
        assert await write_one(arrays.near, 1) == 0
        arrays.tool("paircreate", "-vl", "-f", "async", "--driver", "host")
        assert await write_one(arrays.near, 2, 1) == 0
        arrays.tool("pairvolchk", "-ss", expected=42)
        assert {each["step"] for each in drive(arrays)} == {None, "S1103", *FIGURE_16}
        arrays.tool("pairvolchk", "-ss", expected=43)
        await alike(arrays)

        # The arrays do nothing by themselves; one turn brings what there is, and purges it.
        before = await contents(arrays.far)
        assert await write_one(arrays.near, 3, 2) == 0
        assert await contents(arrays.far) == before
        once = drive(arrays, "--once")
        assert [each["step"] for each in once] == [None, *FIGURE_16]
        assert once[-1]["sequences"]["journal_out"] == once[-1]["sequences"]["journal_in"]
        await alike(arrays)
        arrays.tool("pairsyncwait", "-t", "10")
        assert await write_one(arrays.far, 4) == DATA_PROTECT
        interrupt(arrays)

        # A split brings the last writes; what either side writes then is listed.
        assert await write_one(arrays.near, 5) == 0
        arrays.tool("pairsplit", "-rw")
        await alike(arrays)
        arrays.tool("replicate", "--once", expected=SUSPENDED)
        assert await write_one(arrays.far, 40, 1) == 0
        assert await write_one(arrays.near, 41, 1) == 0
        assert await write_one(arrays.near, 50, 2) == 0
        assert ranges(arrays, "R") == {"v1": [(40, 1)]}
        assert ranges(arrays, "L") == {"v0": [(5, 1)], "v1": [(41, 1)], "v2": [(50, 1)]}
        assert ranges(arrays, "L+R") == {"v0": [(5, 1)], "v1": [(40, 2)], "v2": [(50, 1)]}
        arrays.tool("pairresync")
        drive(arrays)
        await alike(arrays)

        # A swap brings the last writes, too, and the arrays can have the loop back.
        assert await write_one(arrays.near, 60) == 0
        arrays.tool("horctakeover", "--at", "far", expected=1)
        assert await write_one(arrays.far, 61) == 0
        drive(arrays, "--once")
        await alike(arrays)
        for array in (NEAR, FAR):
            arrays.arrayctl("send", array, "pair-set", f"group={GROUP}", "driver=arrays")
        assert await write_one(arrays.far, 62) == 0
        arrays.wait_for_pair(SECONDS)
        await alike(arrays)
        arrays.tool("replicate", "--once", expected=CONFLICT)


async def test_a_takeover_and_two_written_sides_where_the_host_drives(tmp_path: Path) -> None:
    with ExitStack() as stack:
        arrays = start(stack, tmp_path)
        arrays.tool("paircreate", "-vl", "-f", "async", "--driver", "host", "-nocopy")
        drive(arrays, "-n", "3", "-i", "1")
        arrays.tool("pairvolchk", "-ss", expected=43)
        assert await write_one(arrays.near, 1) == 0
        drive(arrays, "--once")
        taken = await contents(arrays.near)
        assert await write_one(arrays.near, 2) == 0
        arrays.near.kill()
        arrays.tool("horctakeover", "--at", "far", expected=5)
        assert await contents(arrays.far) == taken, "what nobody acquired is not there"
        assert await write_one(arrays.far, 30, 1) == 0

        # Both are written when they meet again: neither overwrites the other, and both list what differs.
        arrays.near.start()
        arrays.tool("pairevtwait", "-s", "psus", "-t", str(SECONDS))
        assert await write_one(arrays.near, 31, 1) == 0
        arrays.tool("pairresync", expected=CONFLICT)
        assert ranges(arrays, "R") == {"v1": [(30, 1)]}
        assert ranges(arrays, "L") == {"v0": [(2, 1)], "v1": [(31, 1)]}
        assert ranges(arrays, "L+R") == {"v0": [(2, 1)], "v1": [(30, 2)]}
        led = await contents(arrays.far)
        arrays.tool("pairresync", "-swaps", "--at", "far")
        drive(arrays)
        arrays.tool("pairvolchk", "-ss", expected=53)
        assert await contents(arrays.near) == led
        assert await contents(arrays.far) == led
