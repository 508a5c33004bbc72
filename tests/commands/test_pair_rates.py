"""The limit of the speed of copies, by command."""

from __future__ import annotations

from arrayd.commands.results import Result
from tests.commands.test_pairs import Both, arrays, made

__all__ = ["arrays"]


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
