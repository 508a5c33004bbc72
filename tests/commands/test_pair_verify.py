"""Commands that compare pairs, on two whole arrays that are linked, with a flip in a volume's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.host.pair_verified import RUNNING
from arrayd.replication.statuses import State
from tests.commands import test_pairs
from tests.commands.test_driving import write
from tests.commands.test_pairs import Both, new, shown
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

arrays = test_pairs.arrays
"""The fixture."""

SYNC: dict[str, Any] = {"mode": "sync", "journal": None, "peer_journal": None}


async def paired(arrays: Both, **more: Any) -> None:
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **{**new(array), **more})
    await until(lambda: set(shown(arrays.row.arrays["a"].pairs)) == {State.P_PAIR})
    for block in range(9):
        await write(arrays, "a", "data", block)
        await write(arrays, "a", "log", block)
    while (there := await arrays.said("b")).restored != (await arrays.said("a")).sequence:
        assert there.asynchronous


def flip(arrays: Both, array: str, name: str, at: int) -> None:
    path: Path = arrays.row.folder / array / "state" / "volumes" / f"{name}.img"
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


async def ended(arrays: Both) -> dict[str, Any]:
    """What the verify has found."""
    while True:
        told: dict[str, Any] = await arrays.command("b", "pair-verify-found", group="oradb")
        if told["verify"]["state"] != RUNNING:
            return told


@pytest.mark.parametrize("more", [{}, SYNC], ids=["async", "sync"])
async def test_a_flip_is_found_and_mended(arrays: Both, more: dict[str, Any]) -> None:
    await paired(arrays, **more)
    begun = await arrays.command("b", "pair-verify", group="oradb")
    assert (begun["verify"]["state"], "pair" in begun["verify"]) == (RUNNING, False)
    same = await ended(arrays)
    assert (same["verify"]["state"], same["ranges"], same["verify"]["left"]) == ("same", [], 0)
    flip(arrays, "b", "data", 5 * 4096 + 7)
    flip(arrays, "a", "log", 3 * 4096 + 7)
    await arrays.command("b", "pair-verify", group="oradb", pair=1)
    assert (await ended(arrays))["ranges"] == [[1, 12288, 4096, False]]
    await arrays.command("b", "pair-verify", group="oradb", pair=0, repair_from="P")
    mended = await ended(arrays)
    assert (mended["verify"]["state"], mended["ranges"]) == ("mended", [[0, 20480, 4096, True]])
    await arrays.command("b", "pair-verify", group="oradb", repair_from="S")
    mended = await ended(arrays)
    assert (mended["verify"]["mended"], mended["ranges"]) == (4096, [[1, 12288, 4096, True]])
    status = await arrays.said("b")
    assert status.verify is not None
    assert (status.verify.state, status.verify.percent, status.verify.differing) == ("mended", 100, 4096)
    assert (await arrays.said("a")).verify is None
    await arrays.command("b", "pair-verify", group="oradb")
    assert (await ended(arrays))["verify"]["state"] == "same"


async def test_what_is_refused(arrays: Both) -> None:
    assert await arrays.refused("b", "pair-verify", group="none") == (Result.NOT_FOUND, "group none: there is none")
    await paired(arrays)
    told = {"group": "oradb"}
    reason = "P-VOL PAIR: S-VOLs in PAIR are compared: it is asked of the other array"
    assert await arrays.refused("a", "pair-verify", **told) == (Result.CONFLICT, f"group oradb: {reason}")
    assert (await arrays.refused("b", "pair-verify", **told, pair=9))[0] == Result.NOT_FOUND
    assert (await arrays.refused("b", "pair-verify", **told, repair_from="a"))[0] == Result.BAD_INPUT
    none = "group oradb: no verify since the array started or the pairs changed"
    for command in ("pair-verify-stop", "pair-verify-found"):
        assert await arrays.refused("b", command, **told) == (Result.NOT_FOUND, none)
    await arrays.row.stop("a")
    await arrays.command("b", "pair-verify", **told)
    runs = "group oradb: a verify runs already: pair-verify-stop ends it"
    assert await arrays.refused("b", "pair-verify", **told) == (Result.CONFLICT, runs)
    stopped = await arrays.command("b", "pair-verify-stop", **told)
    assert (stopped["verify"]["state"], stopped["verify"]["trouble"]) == ("stopped", "it was told to stop")


async def test_suspended_pairs_are_not_compared(arrays: Both) -> None:
    await paired(arrays)
    await arrays.command("b", "pair-verify", group="oradb")
    await arrays.both("pair-split")
    reason = "group oradb: S-VOL SSUS: S-VOLs in PAIR are compared: pairresync first"
    assert await arrays.refused("b", "pair-verify", group="oradb") == (Result.CONFLICT, reason)
    assert (await arrays.said("b")).verify is None


async def test_ranges_are_told_part_by_part(arrays: Both) -> None:
    await paired(arrays)
    for block in (0, 2, 4, 6):
        flip(arrays, "b", "data", block * 4096)
    await arrays.command("b", "pair-verify", group="oradb")
    await ended(arrays)
    part = await arrays.command("b", "pair-verify-found", group="oradb", first=1, limit=2)
    assert (part["ranges"], part["following"]) == ([[0, 8192, 4096, False], [0, 16384, 4096, False]], 3)
    rest = await arrays.command("b", "pair-verify-found", group="oradb", first=3)
    assert (rest["ranges"], "following" in rest, rest["more"]) == ([[0, 24576, 4096, False]], False, False)
