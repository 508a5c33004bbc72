"""Volumes of pairs and journals: not deleted, not resized, not remapped, by command or by reload; others as ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from arrayd.array import Array, StartError
from arrayd.estate.errors import Conflict
from arrayd.replication.group_rows import GroupRow, PairRow
from arrayd.replication.statuses import Operation
from arrayd.replication.transitions import Circumstances
from arrayd.tables.pairs import StoredPairs
from tests.estate.conftest import running
from tests.lab.array import Place, capacity, luns, session
from tests.lab.disk import MIB

P_VOL = "the P-VOL of pair data in group g: pairsplit -S ends it"
JOURNAL = "the journal of group g: pairsplit -S ends it"
PAIRS = (PairRow(0, "data", "made", 0, "410002:made"), PairRow(1, "file", "data", 1, "410002:data"))
GROUP = GroupRow(b"\x01" * 16, "g", 0, "j0", "b", "410002", 20, 1, PAIRS)
SPLIT_AT = Circumstances(2.0)


@pytest.fixture
async def paired(place: Place) -> AsyncIterator[tuple[Array, str]]:
    """An array whose volumes data (LUN 0, of the file) and made (LUN 7) are P-VOLs, with the journal j0 (no LUN)."""
    async with running(place) as (array, address):
        estate, change = array.estate, array.tables.change
        await estate.volumes.create("made", {"size": MIB}, change)
        await estate.volumes.create("j0", {"size": MIB, "use": "journal"}, change)
        await estate.luns.map(7, {"volume": "made"}, change)
        await array.pairs.create(GROUP, Operation.PAIRCREATE_VL, 1.0, change)
        yield array, address


async def test_a_held_volume_refuses_commands(paired: tuple[Array, str]) -> None:
    (array, address), change = paired, paired[0].tables.change
    volumes, map_of = array.estate.volumes, array.estate.luns
    refused: list[tuple[Callable[[], Awaitable[None]], str]] = [
        (lambda: volumes.delete("made", change), f"volume made: {P_VOL}"),
        (lambda: volumes.resize("made", 2 * MIB, change), f"volume made: {P_VOL}"),
        (lambda: map_of.unmap(7, change), f"LUN 7: volume made is {P_VOL}"),
        (lambda: volumes.delete("j0", change), f"volume j0: {JOURNAL}"),
        (lambda: volumes.resize("j0", 2 * MIB, change), f"volume j0: {JOURNAL}"),
    ]
    for command, says in refused:
        with pytest.raises(Conflict) as caught:
            await command()
        assert str(caught.value) == says
    await volumes.resize("made", MIB, change)
    async with session(address, 7) as host:
        assert (await luns(host), await capacity(host, 7)) == ([0, 7], MIB)
    assert await array.pairs.happen("g", Operation.PAIRSPLIT_S, None, SPLIT_AT, change) is None
    await map_of.unmap(7, change)
    await volumes.resize("made", 2 * MIB, change)
    await volumes.delete("made", change)
    await volumes.delete("j0", change)


FILE_VOL = P_VOL.replace("pair data", "pair file")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"volumes": {}, "luns": {}}, f"volumes.data: it cannot go: it is {FILE_VOL}"),
        ({"volumes": {"data": {"size": 2 * MIB}}}, f"volumes.data.size: it cannot change: it is {FILE_VOL}"),
        ({"luns": {}}, f"luns.0: volume data cannot leave it: it is {FILE_VOL}"),
        ({"luns": {"3": {"volume": "data"}}}, f"luns.0: volume data cannot leave it: it is {FILE_VOL}"),
        ({"luns": {"0": {"command_device": {}}}}, f"luns.0: volume data cannot leave it: it is {FILE_VOL}"),
    ],
)
async def test_a_held_volume_refuses_reloads(
    paired: tuple[Array, str], place: Place, changes: dict[str, Any], says: str
) -> None:
    array, address = paired
    with pytest.raises(StartError) as caught:
        await array.reload(place.load(**changes))
    assert caught.value.lines == [says]
    async with session(address, 0) as host:
        assert (await luns(host), await capacity(host)) == ([0, 7], MIB)
    await array.reload(place.load(volumes={"data": {"size": MIB}, "more": {"size": MIB}}))
    assert "more" in array.estate.volumes.opened, "what is not held changes"
    await array.pairs.happen("g", Operation.PAIRSPLIT_S, None, SPLIT_AT, array.tables.change)
    await array.reload(place.load(**changes))


async def test_a_volume_is_held_after_a_restart(place: Place) -> None:
    async with running(place) as (array, _):
        await array.estate.volumes.create("j0", {"size": MIB, "use": "journal"}, array.tables.change)
        group = replace(GROUP, pairs=(PAIRS[1],))
        await array.pairs.create(group, Operation.PAIRCREATE_VL, 1.0, array.tables.change)
    async with running(place) as (array, _):
        assert array.pairs.holds("data") == FILE_VOL
        with pytest.raises(StartError, match=r"volumes\.data\.size: it cannot change"):
            await array.reload(place.load(volumes={"data": {"size": 2 * MIB}}))
        assert array.pairs.last_epoch == 1


async def test_without_pairs_nothing_is_held(place: Place) -> None:
    async with running(place) as (array, _):
        assert array.tables.pairs == StoredPairs([], [], "0" * 16)
        assert array.pairs.groups() == []
        assert array.pairs.holds("data") is None


async def test_all_disk_of_a_journal_is_allocated(place: Place) -> None:
    journal = {"size": 4 * MIB, "use": "journal"}
    async with running(place, volumes={"data": {"size": 4 * MIB}, "j0": journal}) as (array, _):
        await array.estate.volumes.create("j1", journal, array.tables.change)
        used = {row.name: (row.settings.use, row.volume.thin) for row in array.estate.volumes.rows()}
        assert used == {"data": ("data", True), "j0": ("journal", False), "j1": ("journal", False)}
        assert place.volume("data").stat().st_blocks == 0
        for name in ("j0", "j1"):
            assert place.volume(name).stat().st_blocks * 512 >= 4 * MIB
        with pytest.raises(StartError, match=r"volumes\.j0: only the size may change in a reload"):
            await array.reload(place.load(volumes={"data": {"size": 4 * MIB}, "j0": {"size": 4 * MIB}}))
