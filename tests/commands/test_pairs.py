"""Commands of pairs, on two whole arrays that are linked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from arrayd.__main__ import main
from arrayd.array import StartError
from arrayd.commands.pairing import JOURNAL_BYTES_MIN
from arrayd.commands.results import Result
from arrayd.host.pair_status import PairStatus, parse
from arrayd.replication.following import Following
from arrayd.replication.pairs import Pairs
from arrayd.replication.statuses import Side, State, Status
from tests.commands.conftest import Commanded
from tests.lab.commanding import CommandFailed, Host
from tests.lab.disk import MIB
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

VOLUMES: dict[str, Any] = {
    "data": {"size": MIB},
    "log": {"size": MIB},
    "long": {"size": 2 * MIB},
    "blocks": {"size": MIB, "block_size": 4096},
    "fixed": {"size": MIB, "read_only": True},
    "journal": {"size": JOURNAL_BYTES_MIN, "use": "journal"},
    "short": {"size": MIB, "use": "journal"},
    "second": {"size": JOURNAL_BYTES_MIN, "use": "journal"},
}
LUNS: dict[str, Any] = {
    **{str(lun): {"volume": name} for lun, name in enumerate(VOLUMES)},
    "9": {"command_device": {}},
}
LUN = {name: lun for lun, name in enumerate(VOLUMES)}
SERIAL = {"a": "4100097", "b": "4100098"}
ID = "0123456789abcdef" * 2
OTHER = {"a": "b", "b": "a"}


class Both:
    """Two arrays, and a host on each."""

    def __init__(self, row: Commanded, hosts: dict[str, Host]) -> None:
        self.row = row
        self.hosts = hosts

    async def command(self, array: str, command: str, /, **told: Any) -> Any:
        return await self.hosts[array].command(9, command, **told)

    async def refused(self, array: str, command: str, /, **told: Any) -> tuple[int, str]:
        with pytest.raises(CommandFailed) as failed:
            await self.command(array, command, **told)
        return failed.value.result, failed.value.told["error"]

    async def said(self, array: str) -> PairStatus:
        """pair-status, as the host's library reads it."""
        return parse(await self.command(array, "pair-status", group="oradb", luns=[LUN["data"], LUN["log"]]))

    async def states(self, array: str) -> set[State]:
        return {pair.state for pair in (await self.said(array)).pairs.values()}

    async def rows(self, array: str, group: str) -> dict[str, Any]:
        """What a host tells the other array of this one."""
        told = await self.command(array, "pair-status", group=group)
        states = {str(pair["number"]): pair["state"] for pair in told["pairs"]}
        return {"generation": told["generation"], "consistent": told["consistent"], "states": states}

    async def told(self, array: str, group: str = "oradb", **more: Any) -> dict[str, Any]:
        """What both sides' commands have in common."""
        here, there = await self.rows(array, group), await self.rows(OTHER[array], group)
        return {"group": group, "generation": here["generation"], "rows": there, **more}

    async def both(self, command: str, /, first: str = "a", **more: Any) -> None:
        """One after the other, with what both were seen to show before."""
        told = {array: await self.told(array, **more) for array in (first, OTHER[first])}
        for array, each in told.items():
            await self.command(array, command, **each)


def new(array: str, *names: str, **more: Any) -> dict[str, Any]:
    """What pair-create is told at an array: `a` has the P-VOLs."""
    pairs = [
        {
            "number": number,
            "name": name,
            "lun": LUN[name],
            "peer_lun": LUN[name],
            "peer_volume": f"{SERIAL[OTHER[array]]}:{name}",
            "peer_size": VOLUMES[name]["size"],
        }
        for number, name in enumerate(names or ("data", "log"))
    ]
    return {
        "group": "oradb",
        "id": ID,
        "side": "P" if array == "a" else "S",
        "peer": OTHER[array],
        "peer_serial": SERIAL[OTHER[array]],
        "journal": LUN["journal"],
        "peer_journal": LUN["journal"],
        "epoch": 1,
        "pairs": pairs,
        **more,
    }


@pytest.fixture
async def arrays(tmp_path: Path) -> AsyncIterator[Both]:
    row = Commanded(tmp_path)
    try:
        await row.start("b", volumes=VOLUMES, luns=LUNS)
        await row.start("a", None, "b", volumes=VOLUMES, luns=LUNS)
        await until(lambda: row.is_up("a", "b"))
        async with row.host("a", b"hostona0") as a, row.host("b", b"hostonb0") as b:
            yield Both(row, {"a": a, "b": b})
    finally:
        for name in list(row.arrays):
            await row.stop(name)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def shown(pairs: Pairs) -> list[State]:
    """What the pairs of an array show."""
    return [state for group in pairs.groups() for state in group.states.values()]


async def made(arrays: Both) -> None:
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array))


async def test_volumes_in_no_pair_are_told_of_with_all_that_paircreate_asks(arrays: Both) -> None:
    told = await arrays.command("a", "pair-status", luns=[0, 1])
    assert (told["array"], told["serial"], told["last_epoch"], told["journals"]) == ("a", SERIAL["a"], 0, [])
    assert told["pairs"][0] == {
        "lun": 0,
        "state": "SMPL",
        "volume": f"{SERIAL['a']}:data",
        "size": MIB,
        "block_size": 512,
    }
    candidates = [(each["name"], each["lun"]) for each in told["journal_candidates"]]
    assert candidates == [(name, LUN[name]) for name in ("journal", "short", "second")]
    assert await arrays.refused("a", "pair-status", luns=[99]) == (
        Result.NOT_FOUND,
        "LUN 99: there is no volume of this array",
    )
    await made(arrays)
    told = await arrays.command("b", "pair-status", group="other", luns=[LUN["log"], LUN["journal"]])
    holders = ["the S-VOL of pair log in group oradb", "the journal of group oradb"]
    assert [(each["state"], each["holder"]) for each in told["pairs"]] == [("SMPL", holder) for holder in holders]


async def test_figure_10_a_group_is_made_shown_split_and_ended_on_both_sides(arrays: Both) -> None:
    await made(arrays)
    primary, remote = await arrays.said("a"), await arrays.said("b")
    assert {pair.state.side for pair in primary.pairs.values()} == {Side.P_VOL}
    assert {pair.state.side for pair in remote.pairs.values()} == {Side.S_VOL}
    assert primary.generation == remote.generation == 1
    assert [(each.jid, each.lun, each.links, each.status) for each in remote.journals] == [
        (0, LUN["journal"], 1, "SJNN")
    ]
    told = await arrays.command("a", "pair-status", group="oradb")
    assert (told["id"], told["peer"], told["driver"], told["pace"]) == (ID, "b", "arrays", 3)
    assert [(each["number"], each["name"]) for each in told["pairs"]] == [(0, "data"), (1, "log")]
    assert [each["name"] for each in told["journal_candidates"]] == ["short", "second"]

    await arrays.both("pair-split")
    assert await arrays.states("a") == {State.P_PSUS}
    assert await arrays.states("b") == {State.S_SSUS}
    await arrays.both("pair-delete")
    for array in ("a", "b"):
        said = await arrays.said(array)
        assert {pair.state for pair in said.pairs.values()} == {State.SMPL}
        assert (said.generation, said.journals) == (0, ())


async def test_the_sides_meet_over_the_link(arrays: Both) -> None:
    await made(arrays)
    await arrays.command("a", "pair-split", **await arrays.told("a") | {"rows": None})
    group = arrays.row.arrays["b"].pairs
    await until(lambda: set(shown(group)) == {State.S_SSUS})
    told = await arrays.command("b", "pair-status", group="oradb")
    assert told["contact"] > 1.7e9


async def test_resync_is_a_new_generation_and_epoch(arrays: Both) -> None:
    await made(arrays)
    await arrays.both("pair-split")
    await arrays.both("pair-resync", epoch=7)
    for array in ("a", "b"):
        assert {state.status for state in await arrays.states(array)} <= {Status.COPY, Status.PAIR}
        told = await arrays.command(array, "pair-status", group="oradb")
        assert (told["generation"], told["last_epoch"]) == (2, 7)


async def test_what_the_table_refuses_is_a_conflict_with_its_text(arrays: Both) -> None:
    await made(arrays)
    taken = {"group": "oradb", "generation": 1}
    result, reason = await arrays.refused("a", "pair-swap", **taken, epoch=7)
    assert result == Result.CONFLICT
    assert reason.startswith("group oradb: ")
    assert (await arrays.refused("a", "pair-split", group="oradb", generation=9))[0] == Result.CONFLICT
    assert (await arrays.refused("a", "pair-split", group="nothing", generation=0))[0] == Result.CONFLICT
    rows = {"generation": 1, "states": {"0": "S-VOL COPIED"}}
    assert (await arrays.refused("a", "pair-split", **taken, rows=rows))[0] == Result.BAD_INPUT


async def test_volumes_that_are_the_same_already_need_no_copy(arrays: Both) -> None:
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, copy=False))
    assert {state.side for state in await arrays.states("b")} == {Side.S_VOL}


async def test_a_group_that_is_there_already_is_told_so(arrays: Both) -> None:
    await made(arrays)
    again = await arrays.command("a", "pair-create", **new("a"))
    assert again["generation"] == 1
    other = new("a", id="f" * 32)
    assert (await arrays.refused("a", "pair-create", **other))[0] == Result.CONFLICT


MISFITS: list[tuple[list[str], dict[str, Any], str]] = [
    (["long"], {"pairs.peer_size": MIB}, "pair long: LUN 2: volume long has 2097152 bytes, and the other array's"),
    (["blocks"], {}, "pair blocks: LUN 3: volume blocks has blocks of 4096 bytes, and the other array's 512"),
    (["fixed"], {}, "pair fixed: LUN 4: volume fixed is read-only"),
    (["journal"], {}, "pair journal: LUN 5: volume journal is a journal"),
    (["data"], {"journal": LUN["short"]}, "journal: LUN 6: volume short has 1048576 bytes: a journal has"),
    (["data"], {"journal": LUN["log"]}, "journal: LUN 1: volume log is not marked `use: journal`"),
    (["data"], {"peer_serial": "410009"}, "array b: its serial is 4100098, not 410009"),
    (["data"], {"peer": "z"}, "array z: not connected with it"),
    (["data"], {"pairs.lun": 77}, "LUN 77: there is no volume of this array"),
    (["data", "log"], {"pairs.number": 3}, "group oradb: numbers of pairs out of order, or twice"),
]


async def test_a_pair_is_made_of_what_goes_together(arrays: Both) -> None:
    for names, more, says in MISFITS:
        told = new("a", *names)
        for key, value in more.items():
            if key.startswith("pairs."):
                for pair in told["pairs"]:
                    pair[key.removeprefix("pairs.")] = value
            else:
                told[key] = value
        _, reason = await arrays.refused("a", "pair-create", **told)
        assert says in reason
    assert (await arrays.command("a", "pair-status", group="oradb"))["pairs"] == []


async def test_volumes_of_pairs_stay_while_they_are_paired(arrays: Both) -> None:
    await made(arrays)
    told = new("a", "data", group="second", id="e" * 32, epoch=2, journal=LUN["journal"])
    result, reason = await arrays.refused("a", "pair-create", **told)
    assert result == Result.CONFLICT
    assert "pairsplit -S ends it" in reason


async def test_an_array_stays_connected_as_long_as_there_are_pairs_with_it(arrays: Both) -> None:
    await made(arrays)
    told = await arrays.refused("a", "connection-remove", array="b")
    assert told == (Result.CONFLICT, "array b: group oradb has its pairs with it")


async def test_pace_and_driver(arrays: Both) -> None:
    await made(arrays)
    kept = await arrays.command("a", "pair-set", group="oradb", pace=9, driver="host")
    assert kept == {"group": "oradb", "pace": 9, "driver": "host"}
    told = await arrays.command("a", "pair-status", group="oradb")
    assert (told["pace"], told["driver"]) == (9, "host")
    assert (await arrays.refused("a", "pair-set", group="nothing", pace=1))[0] == Result.NOT_FOUND


def held_drain(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """The S-VOLs' side drains, which sets the first event, until the second one is set."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def drain(_stage: Following, _until: float) -> bool:
        begun.set()
        await over.wait()
        return True

    monkeypatch.setattr(Following, "_drain", drain)
    return begun, over


async def test_a_split_that_drains_holds_up_its_own_group_alone(arrays: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """The S-VOLs' side waits for the last writes: meanwhile it is asked, and told of another group and of volumes."""
    begun, over = held_drain(monkeypatch)
    other = {"group": "second", "id": "e" * 32, "epoch": 2, "journal": LUN["second"], "peer_journal": LUN["second"]}
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, "data"))
    await until(lambda: set(shown(arrays.row.arrays["b"].pairs)) == {State.S_PAIR})
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, "log", **other))
    told = await arrays.told("b")
    async with arrays.row.host("b", b"secondb1") as second:
        split = asyncio.create_task(arrays.command("b", "pair-split", **told))
        try:
            async with asyncio.timeout(10), arrays.row.host("b", b"thirdonb") as third:
                await begun.wait()
                again = asyncio.create_task(second.command(9, "pair-set", group="oradb", pace=7))
                assert (await third.command(9, "pair-status", group="oradb"))["group"] == "oradb"
                assert (await third.command(9, "pair-set", group="second", pace=7))["pace"] == 7
                assert (await third.command(9, "volume-create", name="extra", size=MIB))["name"] == "extra"
            assert not split.done()
            assert not again.done(), "the same group is changed when the split has ended"
        finally:
            over.set()
        await split
        assert (await again)["pace"] == 7
    assert State.S_SSUS in shown(arrays.row.arrays["b"].pairs)


async def test_pairs_that_are_added_wait_for_their_group_before_the_estate_waits_for_them(
    arrays: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One side was split, the other learns it by itself, and drains."""
    begun, over = held_drain(monkeypatch)
    for array in ("b", "a"):
        await arrays.command(array, "pair-create", **new(array, "data"))
    await until(lambda: set(shown(arrays.row.arrays["b"].pairs)) == {State.S_PAIR})
    await arrays.command("a", "pair-split", **await arrays.told("a") | {"rows": None})
    try:
        async with asyncio.timeout(10), arrays.row.host("b", b"secondb1") as second:
            await begun.wait()
            adding = asyncio.create_task(arrays.refused("b", "pair-create", **new("b", "data", "log")))
            await until(lambda: bool(arrays.row.arrays["b"]._commands._executor._changing_apart))
            assert (await second.command(9, "volume-create", name="extra", size=MIB))["name"] == "extra"
            assert not adding.done()
    finally:
        over.set()
    assert (await adding)[1].endswith("it is suspended: pairresync first")


async def test_volumes_stay_held_until_hosts_see_them_by_themselves(
    arrays: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair has no row any more, and the stage before has not let go of its volume yet."""
    await made(arrays)
    begun, over = asyncio.Event(), asyncio.Event()
    close = Following.close

    async def closing(stage: Following) -> None:
        begun.set()
        await over.wait()
        await close(stage)

    monkeypatch.setattr(Following, "close", closing)
    table, held = arrays.row.arrays["b"].pairs, ("data", "log", "journal")
    ending = asyncio.create_task(arrays.command("b", "pair-delete", **await arrays.told("b")))
    try:
        async with asyncio.timeout(10):
            await begun.wait()
        assert table.group("oradb") is None
        assert {table.holds(name) for name in held} == {"in a pair that is just being ended"}
        assert table.holds("long") is None
    finally:
        over.set()
    await ending
    assert {table.holds(name) for name in held} == {None}


async def test_steps_of_no_group_and_of_the_other_side_are_refused(arrays: Both) -> None:
    for command in ("journal-status", "journal-acquire", "journal-restore", "journal-purge", "pair-copy"):
        assert await arrays.refused("a", command, group="oradb") == (Result.NOT_FOUND, "group oradb: there is none")
    await made(arrays)
    result, reason = await arrays.refused("a", "journal-acquire", group="oradb")
    assert result == Result.CONFLICT
    assert reason.startswith("group oradb: nothing is acquired here: P-VOL ")
    assert (await arrays.refused("b", "journal-purge", group="oradb"))[0] == Result.CONFLICT


async def test_a_group_is_there_again_after_a_restart_and_asks_for_its_volumes(arrays: Both, tmp_path: Path) -> None:
    await made(arrays)
    await arrays.both("pair-split")
    await arrays.row.stop("b")
    without = {name: settings for name, settings in VOLUMES.items() if name != "log"}
    luns = {lun: each for lun, each in LUNS.items() if each.get("volume") != "log"}
    line = "volumes.log: it is not there any more, and is the S-VOL of pair log in group oradb: pairsplit -S ends it"
    with pytest.raises(StartError) as refused:
        await arrays.row.start("b", volumes=without, luns=luns)
    assert refused.value.lines == [line]
    file = tmp_path / "b" / "array.yaml"
    checked = await asyncio.to_thread(CliRunner().invoke, main, ["check", str(file)])
    assert (checked.exit_code, checked.output) == (2, f"{file}: {line}\n")
    array = await arrays.row.start("b", volumes=VOLUMES, luns=LUNS)
    group = array.pairs.group("oradb")
    assert group is not None
    assert set(group.states.values()) == {State.S_SSUS}
