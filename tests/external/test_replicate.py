"""Figure 16 by the host: a group whose pairs `arrayctl replicate` drives, between two real arrays, through the initial
copy, a split, a resync, a takeover after the primary is killed, and two sides that were written."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.external.test_pairs import DATA_PROTECT, contents, start, write_one
from tests.lab.paired import PairedArrays

pytestmark = [pytest.mark.external, pytest.mark.timeout(240)]

SECONDS: Final = 60
TURNS: Final = 12
"""More than any of this takes: 48 MiB at 16 MiB a turn, and the sides meet once a second."""


def steps(text: str) -> list[dict[str, Any]]:
    """The lines of a run with --json."""
    return [json.loads(line) for line in text.splitlines()]


def drive(arrays: PairedArrays, turns: int = 1) -> list[dict[str, Any]]:
    return steps(arrays.tool("replicate", "-n", str(turns), "-i", "0.5", "--json"))


async def test_figure_16_the_host_drives(tmp_path: Path) -> None:
    with ExitStack() as stack:
        arrays = start(stack, tmp_path)
        assert await write_one(arrays.near, 1) == 0
        arrays.tool("paircreate", "-vl", "-f", "async", "--driver", "host")
        assert await write_one(arrays.near, 2, 1) == 0
        arrays.tool("pairvolchk", "-ss", expected=42)
        told = drive(arrays, TURNS)
        assert {"S1103", "S1603", "S1604", "S1607", "S1609", "S1610"} <= {each["step"] for each in told}
        arrays.tool("pairvolchk", "-ss", expected=43)
        assert await contents(arrays.far) == await contents(arrays.near)

        # The arrays do nothing by themselves; one turn brings what there is, and purges it.
        before = await contents(arrays.far)
        assert await write_one(arrays.near, 3, 2) == 0
        assert await contents(arrays.far) == before
        once = steps(arrays.tool("replicate", "--once", "--json"))
        assert [each["step"] for each in once] == [None, "S1603", "S1604", "S1607", "S1609", "S1610"]
        assert once[-1]["sequences"]["journal_out"] == once[-1]["sequences"]["journal_in"]
        assert await contents(arrays.far) == await contents(arrays.near)
        arrays.tool("pairsyncwait", "-t", "10")
        assert await write_one(arrays.far, 4) == DATA_PROTECT
