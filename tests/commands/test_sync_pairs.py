"""Commands of pairs of synchronous groups, on two whole arrays: what they are told by, and what they tell."""

from __future__ import annotations

from typing import Any

import pytest

from arrayd.commands.processes.pairs import after
from arrayd.commands.results import Result
from arrayd.host.pair_status import parse
from arrayd.replication.group_rows import Fence, GroupRow, Mode, PairRow
from arrayd.replication.journal.regions import Position
from arrayd.replication.statuses import Event, Operation, State
from arrayd.replication.transitions import Circumstances
from arrayd.tables import Work
from tests.commands import test_pairs
from tests.commands.test_pairs import ID, LUN, SERIAL, Both, made, new

pytestmark = pytest.mark.slow

arrays = test_pairs.arrays
"""The fixture."""

SYNC: dict[str, Any] = {"mode": "sync", "journal": None, "peer_journal": None}
JOURNALS = ("journal-status", "journal-acquire", "journal-restore", "journal-purge", "pair-copy")


async def kept(_work: Work) -> None:
    """Nothing is committed: a row of the table in memory is all that is looked at."""


async def mirrored(arrays: Both, fence: Fence) -> None:
    """Array `a` shows a synchronous group in PAIR."""
    pairs = arrays.row.arrays["a"].pairs
    rows = tuple(PairRow(LUN[name], name, name, LUN[name], f"{SERIAL['b']}:{name}") for name in ("data", "log"))
    group = GroupRow(bytes.fromhex(ID), "oradb", 7, None, "b", SERIAL["b"], None, 1, rows, Mode.SYNC, fence=fence)
    await pairs.create(group, Operation.PAIRCREATE_VL, 5.0, kept)
    await pairs.happen("oradb", Event.COPY_END, None, Circumstances(6.0), kept)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"mode": "sync"}, "a synchronous group has no journal: without journal and peer_journal"),
        ({**SYNC, "peer_journal": 5}, "a synchronous group has no journal: without journal and peer_journal"),
        ({**SYNC, "driver": "host"}, "a synchronous group is driven by the arrays: without driver"),
        ({"journal": None}, "an asynchronous group has journals: journal and peer_journal, both LUNs"),
        ({"peer_journal": None}, "an asynchronous group has journals: journal and peer_journal, both LUNs"),
        ({"fence": "data"}, "an asynchronous group has no fence level: without fence, or mode sync"),
    ],
)
async def test_what_does_not_go_together_is_said_in_a_line(arrays: Both, wrong: dict[str, Any], reason: str) -> None:
    told = {**new("a"), **wrong}
    assert await arrays.refused("a", "pair-create", **told) == (Result.BAD_INPUT, f"group oradb: {reason}")
    assert arrays.row.arrays["a"].pairs.groups() == []


async def test_a_fence_level_is_one_of_three(arrays: Both) -> None:
    result, reason = await arrays.refused("a", "pair-create", **{**new("a"), **SYNC, "fence": "async"})
    assert (result, "fence" in reason) == (Result.BAD_INPUT, True)


async def test_a_group_that_grows_stays_as_it_is(arrays: Both) -> None:
    """Pairs of another mode or fence level are not added to it."""
    await mirrored(arrays, Fence.DATA)
    there = "group oradb: there is one already, synchronous, of fence level data"
    for other in ({**SYNC, "fence": "status"}, SYNC, {}):
        told = {**new("a", "data", "log", "long"), **other}
        assert await arrays.refused("a", "pair-create", **told) == (Result.CONFLICT, there)


async def test_an_asynchronous_group_does_not_become_synchronous(arrays: Both) -> None:
    await made(arrays)
    told = {**new("a", "data", "log", "long"), **SYNC}
    there = "group oradb: there is one already, asynchronous"
    assert await arrays.refused("a", "pair-create", **told) == (Result.CONFLICT, there)


@pytest.mark.parametrize("fence", Fence)
async def test_pair_status_tells_mode_and_fence_level_and_of_no_journal(arrays: Both, fence: Fence) -> None:
    await mirrored(arrays, fence)
    told = await arrays.command("a", "pair-status", group="oradb")
    assert (told["asynchronous"], told["journals"], told["links"]) == (False, [], 1)
    assert [(each["fence"], each["ctg"], "jid" in each) for each in told["pairs"]] == [(fence.upper(), 7, False)] * 2
    assert told["lag"] == {"seconds": 0, "writes": 0, "bytes": 0}
    assert [each["name"] for each in told["journal_candidates"]] == ["journal", "short", "second"]
    status = parse(told)
    assert (status.asynchronous, status.links, status.journals, status.sequence) == (False, 1, (), None)
    await arrays.row.stop("b")
    told = await arrays.command("a", "pair-status", group="oradb")
    assert told["links"] == 0


@pytest.mark.parametrize("command", JOURNALS)
async def test_there_is_no_journal_and_nothing_to_drive(arrays: Both, command: str) -> None:
    await mirrored(arrays, Fence.NEVER)
    reason = "group oradb: it is synchronous: no journal, and nothing to drive"
    assert await arrays.refused("a", command, group="oradb") == (Result.CONFLICT, reason)


def test_a_takeover_tells_no_number_of_a_write() -> None:
    """Writes of a synchronous group have none, and 0 would be said to be the newest."""
    pairs = (PairRow(0, "data", "data", 0, "2:data", State.S_SSWS),)
    mirror = GroupRow(b"\x01" * 16, "g", 0, None, "b", "2", None, 1, pairs, Mode.SYNC)
    assert after("g", mirror, sequence=True).sequence is None
    journaled = GroupRow(b"\x01" * 16, "g", 0, "j", "b", "2", 3, 1, pairs, restored=Position(7, 4096))
    assert after("g", journaled, sequence=True).sequence == 7


async def test_volumes_of_a_synchronous_pair_are_held(arrays: Both) -> None:
    await mirrored(arrays, Fence.NEVER)
    told = await arrays.command("a", "pair-status", luns=[LUN["data"], LUN["journal"]])
    assert [each.get("holder") for each in told["pairs"]] == ["the P-VOL of pair data in group oradb", None]
