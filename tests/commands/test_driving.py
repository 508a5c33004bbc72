"""Figure 16 by commands, one at a time, and the ranges that are marked, on two whole arrays that are linked."""

from __future__ import annotations

from typing import Any

import pytest

from arrayd.commands.results import Result
from arrayd.replication.statuses import State
from tests.commands import test_pairs
from tests.commands.test_pairs import LUN, Both, new
from tests.lab.disk import MIB
from tests.lab.initiator import GOOD
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

arrays = test_pairs.arrays
"""The fixture."""


async def write(arrays: Both, array: str, name: str, block: int) -> None:
    """4 KiB to a volume; `block` counts those."""
    cdb = bytes([0x2A, 0, *(8 * block).to_bytes(4), 0, *(8).to_bytes(2), 0])
    for _ in range(3):  # unit attentions
        answer = await arrays.hosts[array].session.command(cdb, lun=LUN[name], data_out=bytes([block]) * 4096)
        if answer.status == GOOD:
            return
    raise AssertionError(answer)


async def step(arrays: Both, array: str, command: str) -> dict[str, Any]:
    told: dict[str, Any] = await arrays.command(array, command, group="oradb")
    return told


async def test_figures_11_and_13_to_16_one_instruction_at_a_time(arrays: Both) -> None:
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, driver="host"))
    await write(arrays, "a", "data", 3)
    left = []
    while (told := await step(arrays, "b", "pair-copy"))["done"]:
        left.append(told["left"])
    assert left == [2 * MIB, 2 * MIB, MIB, 0], "two bitmaps are joined, two volumes are copied"
    primary = await step(arrays, "a", "journal-status")
    assert (primary["role"], primary["epoch"]) == ("primary", 1)
    at = {name: position["sequence"] for name, position in primary["positions"].items()}
    assert (at["journal_out"], at["journal_in"]) == (0, 1)

    read = await step(arrays, "b", "journal-acquire")
    assert read["done"]
    assert read["journal"] == await step(arrays, "b", "journal-status")
    assert read["journal"]["positions"]["read_completed"] == primary["positions"]["journal_in"]
    assert not (await step(arrays, "b", "journal-acquire"))["done"]
    assert not (await step(arrays, "a", "journal-purge"))["done"], "nothing is restored yet"
    restored = await step(arrays, "b", "journal-restore")
    assert restored["journal"]["positions"]["restoration_completed"] == primary["positions"]["journal_in"]
    purged = await step(arrays, "a", "journal-purge")
    assert purged["done"]
    assert purged["journal"]["lbas"]["journal_out_lba"] == purged["journal"]["lbas"]["journal_in_lba"]
    assert not (await step(arrays, "a", "journal-purge"))["done"]
    await until(lambda: set(test_pairs.shown(arrays.row.arrays["a"].pairs)) == {State.P_PAIR})
    assert not (await step(arrays, "b", "pair-copy"))["done"], "there is no copy any more"


async def test_arrays_that_drive_are_not_told_step_by_step(arrays: Both) -> None:
    await test_pairs.made(arrays)
    for array, command in (
        ("b", "journal-acquire"),
        ("b", "journal-restore"),
        ("b", "pair-copy"),
        ("a", "journal-purge"),
    ):
        reason = "group oradb: the arrays drive it themselves: pair-set driver=host"
        assert await arrays.refused(array, command, group="oradb") == (Result.CONFLICT, reason)


async def test_an_array_that_is_gone_is_said_to_be(arrays: Both) -> None:
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, driver="host"))
    await arrays.row.stop("a")
    result, reason = await arrays.refused("b", "journal-acquire", group="oradb")
    assert result == Result.UNDELIVERABLE
    assert reason.startswith("a cannot be reached: ")


async def test_both_sides_list_what_is_marked(arrays: Both) -> None:
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, driver="host", copy=False))
    told = {"group": "oradb", "pair": 0}
    result, reason = await arrays.refused("a", "pair-differences", **told)
    assert result == Result.CONFLICT
    assert reason.startswith("group oradb: nothing is marked here: data P-VOL ")
    assert (await arrays.refused("a", "pair-differences", group="oradb", pair=9))[0] == Result.NOT_FOUND
    while (await step(arrays, "b", "pair-copy"))["done"]:
        pass
    await step(arrays, "b", "journal-acquire")
    await until(lambda: set(test_pairs.shown(arrays.row.arrays["a"].pairs)) == {State.P_PAIR})
    await arrays.both("pair-split", writable=True)
    for block in (3, 5, 4, 9):
        await write(arrays, "a", "data", block)
    await write(arrays, "b", "data", 12)
    for array, ranges in (("a", [[12288, 12288], [36864, 4096]]), ("b", [[49152, 4096]])):
        listed = await arrays.command(array, "pair-differences", **told)
        assert (listed["ranges"], listed["name"], listed["size"]) == (ranges, "data", MIB)
        assert (listed["marked_bytes"], "following" in listed) == (sum(length for _, length in ranges), False)
    first = await arrays.command("a", "pair-differences", **told, limit=1)
    assert (first["ranges"], first["following"]) == ([[12288, 12288]], 36864)
    rest = await arrays.command("a", "pair-differences", **told, limit=1, offset=36864)
    assert (rest["ranges"], "following" in rest) == ([[36864, 4096]], False)
    assert (await arrays.refused("a", "pair-differences", **told, limit=1025))[0] == Result.BAD_INPUT
