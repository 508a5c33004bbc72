"""The limit of the speed of copies, by command, and how a copy goes, on two whole arrays that are linked."""

from __future__ import annotations

import pytest

from arrayd.commands.results import Result
from arrayd.replication.stages import Progress
from arrayd.replication.statuses import State
from tests.commands.test_pairs import LUN, Both, arrays, made, new, shown
from tests.lab.commanding import HostLun
from tests.lab.disk import MIB
from tests.lab.waiting import until

__all__ = ["arrays"]

pytestmark = pytest.mark.slow


async def test_a_limit_of_the_speed_of_copies(arrays: Both) -> None:
    await made(arrays)
    for told, rate in (("50MiB", 50 << 20), (1 << 20, 1 << 20), (0, None), ("65536", 65536), ("0", None)):
        kept = await arrays.command("a", "pair-set", group="oradb", copy_rate=told)
        assert (kept.get("copy_rate"), kept["pace"]) == (rate, 3)
        assert (await arrays.command("a", "pair-set", group="oradb", pace=3)).get("copy_rate") == rate
        assert (await arrays.command("a", "pair-status", group="oradb")).get("copy_rate") == rate
    for told in ("much", 1, "63KiB", -1):
        result, reason = await arrays.refused("a", "pair-set", group="oradb", copy_rate=told)
        assert (result, reason.split(":")[0]) == (Result.BAD_INPUT, "copy_rate")


async def copying_slowly(arrays: Both) -> None:
    """64 KiB of each MiB a second."""
    for name in ("data", "log"):
        for at in range(0, MIB, 65536):
            await HostLun(arrays.hosts["a"].session, LUN[name]).write(at, bytes([1 + at // 65536]) * 65536)
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, copy_rate="64KiB", pace=15))


def progress(arrays: Both, array: str) -> Progress:
    at_work = arrays.row.arrays[array].replication.at_work("oradb")
    assert at_work is not None
    stage = at_work.stages.stage
    return Progress() if stage is None else stage.progress()


def left(arrays: Both, array: str) -> list[int]:
    """Bytes that are still to be copied of both pairs, as an array knows it."""
    return list((progress(arrays, array).differing or {}).values())


async def test_both_sides_show_how_a_copy_goes(arrays: Both) -> None:
    """It is pulled by one of them, which tells the other."""
    await copying_slowly(arrays)
    await until(lambda: sum(left(arrays, "b")) < 2 * MIB and left(arrays, "a") == left(arrays, "b"))
    for array in ("a", "b"):
        said = await arrays.said(array)
        for pair in said.pairs.values():
            assert pair.differing is not None
            assert pair.percent == 100 * (MIB - pair.differing) // MIB < 100
        assert said.copying is not None
        assert (said.copying.done or 0) + (said.copying.left or 0) == 2 * MIB
        assert said.restoring is not None
        assert said.copy_rate == 65536
    await quickly(arrays)


async def quickly(arrays: Both) -> None:
    """To the end of the copy."""
    for array in ("a", "b"):
        await arrays.command(array, "pair-set", group="oradb", copy_rate=0)
    await until(lambda: set(shown(arrays.row.arrays["a"].pairs)) == {State.P_PAIR})
    assert [pair.percent for pair in (await arrays.said("a")).pairs.values()] == [100, 100]


async def test_p_vols_that_are_split_in_copy_do_not_say_that_all_is_the_same(arrays: Both) -> None:
    """They showed 100%, and 0 bytes as marked: it is the other side that has marked what is left."""
    await copying_slowly(arrays)
    await arrays.both("pair-split")
    primary, remote = await arrays.said("a"), await arrays.said("b")
    assert [(pair.percent, pair.differing) for pair in primary.pairs.values()] == [(None, None)] * 2
    assert all(pair.differing for pair in remote.pairs.values())
    assert primary.copying is None
    await arrays.both("pair-resync", first="b", epoch=2)
    await quickly(arrays)
