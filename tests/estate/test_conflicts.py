"""Rows made by command that do not go with the file: told at check, at the start, at a reload, at the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from arrayd.array import Array, StartError
from arrayd.estate.errors import Conflict
from arrayd.tables import Work
from arrayd.tables import estate as rows
from tests.estate.conftest import running
from tests.lab import checking
from tests.lab.array import Place, luns, session
from tests.lab.checking import Checked
from tests.lab.disk import MIB
from tests.lab.initiator import NAME

pytestmark = pytest.mark.slow

VOLUME = '{"size": 1048576}'
TWICE = "made by command, too: delete it by command, or take it out of the file"
ARRAY_B: dict[str, Any] = {"link": {"arrays": {"b": None}}}
VIRTUAL = '{"virtual": {"array": "b", "lun": 0}}'

CONFLICTS: list[tuple[list[Work], Mapping[str, Any], list[str]]] = [
    ([rows.put_volume("data", VOLUME)], {}, [f"volumes.data: {TWICE}"]),
    (
        [rows.put_volume("made", VOLUME)],
        {"volumes": {"data": {"size": MIB, "path": "state/volumes/made.img"}}},
        ["volumes.data.path: {folder}/state/volumes/made.img is the file of volume made, which was made by command"],
    ),
    ([rows.put_lun(0, '{"command_device": {}}')], {}, [f"luns.0: {TWICE}"]),
    (
        [rows.put_lun(7, '{"volume": "gone"}')],
        {},
        ["luns.7: made by command, for volume gone, which is not there any more"],
    ),
    (
        [rows.put_lun(7, '{"volume": "data"}')],
        {},
        ["luns.7: made by command, for volume data, which has LUN 0 now"],
    ),
    ([rows.put_lun(7, VIRTUAL)], {}, ["luns.7: made by command, for array b, which is not connected any more"]),
    ([rows.put_connection("b", None)], ARRAY_B, [f"link.arrays.b: {TWICE}"]),
    ([rows.put_connection("a", None)], {}, ["link.arrays.a: made by command, and this is its own name now"]),
    (
        [rows.put_connection("b", "10.0.0.1:3270")],
        {},
        ["link: array b was connected by command beyond loopback: that takes secret_file or tls"],
    ),
    (
        [],
        {"commands": {"arrays": ["b"]}},
        ["commands.arrays[0]: b: expected an array under link.arrays, or connected by command"],
    ),
    (
        [rows.put_lun(7, '{"command_device": {}}')],
        {"iscsi": {"listen": ["127.0.0.1:0"], "initiators": [{"name": NAME, "luns": [0, 7, 3]}]}},
        ["iscsi.initiators[0].luns[2]: 3: expected a LUN under luns, or one made by command"],
    ),
    (
        [rows.put_command_device("c", 5)],
        {},
        ["commands.devices.c: made by command, for LUN 5, which is no virtual LUN any more"],
    ),
    (
        [rows.put_command_device("c", 5)],
        {**ARRAY_B, "luns": {"5": {"virtual": {"array": "b", "lun": 9}}}, "commands": {"devices": {"b": 5}}},
        [f"commands.devices.b: LUN 5: {TWICE}"],
    ),
    (
        [rows.put_volume("data", VOLUME), rows.put_lun(0, '{"volume": "data"}')],
        {},
        [f"volumes.data: {TWICE}", f"luns.0: {TWICE}"],
    ),
]


async def put(place: Place, works: list[Work]) -> None:
    """Rows, as commands made them at a time when they went with the file."""
    async with running(place, volumes={}, luns={}) as (array, _):
        for work in works:
            await array.tables.change(work)


def check(place: Place) -> Checked:
    return checking.check(place.folder / "array.yaml")


def check_beside(place: Place) -> Checked:
    """In a process of its own: what it reads another one has open."""
    command = [sys.executable, "-m", "arrayd", "check", str(place.folder / "array.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return Checked(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("works", "changes", "lines"), CONFLICTS)
async def test_a_conflict_is_one_line_at_check_and_at_the_start(
    place: Place, works: list[Work], changes: Mapping[str, Any], lines: list[str]
) -> None:
    await put(place, works)
    config = place.load(**changes)
    expected = [line.replace("{folder}", str(place.folder)) for line in lines]
    with pytest.raises(StartError) as caught:
        await Array(config).start()
    assert caught.value.lines == expected
    done = check(place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"{place.folder / 'array.yaml'}: {line}" for line in expected]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"volumes": {"data": {"size": MIB}, "made": {"size": MIB}}}, f"volumes.made: {TWICE}"),
        (
            {"volumes": {"data": {"size": MIB}}, "luns": {"0": {"volume": "data"}, "7": {"command_device": {}}}},
            f"luns.7: {TWICE}",
        ),
        ({"volumes": {}, "luns": {}}, "luns.8: made by command, for volume data, which is not there any more"),
        ({"luns": {"0": {"volume": "data"}}}, "luns.8: made by command, for volume data, which has LUN 0 now"),
        (
            {"commands": {"arrays": ["c"]}},
            "commands.arrays[0]: c: expected an array under link.arrays, or connected by command",
        ),
    ],
)
async def test_a_reload_in_conflict_changes_nothing(place: Place, changes: Mapping[str, Any], line: str) -> None:
    place.config["luns"] = {}
    async with running(place) as (array, address):
        change = array.tables.change
        await array.estate.volumes.create("made", {"size": MIB}, change)
        await array.estate.luns.map(7, {"volume": "made"}, change)
        await array.estate.luns.map(8, {"volume": "data"}, change)
        async with session(address, 7, 8) as host:
            before = place.open_files()
            with pytest.raises(StartError) as caught:
                await array.reload(place.load(**changes))
            assert line in caught.value.lines
            assert place.open_files() == before
            assert await luns(host) == [0, 7, 8]
            assert check(place).returncode == 2
            await array.reload(place.load(volumes={"data": {"size": 2 * MIB}}))


async def test_check_counts_what_was_made_by_command_and_leaves_no_trace(place: Place) -> None:
    place.load()
    assert "1 volumes, 1 LUNs" in check(place).stdout
    async with running(place) as (array, _):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        await array.estate.luns.map(7, {"volume": "made"}, array.tables.change)
        assert "2 volumes, 2 LUNs" in check_beside(place).stdout
        place.load(volumes={"data": {"size": MIB}, "made": {"size": MIB}})
        assert f"volumes.made: {TWICE}" in check_beside(place).stderr
        place.load()
    before = sorted(place.folder.rglob("*"))
    assert "2 volumes, 2 LUNs" in check(place).stdout
    assert sorted(place.folder.rglob("*")) == before


async def test_check_reads_what_a_daemon_left_that_was_killed(place: Place) -> None:
    left = Place(place.folder / "left")
    left.folder.mkdir()
    async with running(place) as (array, _):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        (left.folder / "state").mkdir()
        for name in ("tables.db", "tables.db-wal"):
            (left.folder / "state" / name).write_bytes((place.folder / "state" / name).read_bytes())
    left.load()
    assert "2 volumes, 1 LUNs" in check(left).stdout
    left.load(volumes={"made": {"size": MIB}}, luns={})
    assert check(left).stderr == f"{left.folder / 'array.yaml'}: volumes.made: {TWICE}\n"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"no database" * 100), "tables.db: file is not a database"),
        (lambda path: None, "tables.db: belongs to the array with serial '410001', not '2'"),
    ],
)
async def test_check_says_when_the_tables_cannot_be_used(place: Place, spoil: Any, says: str) -> None:
    async with running(place):
        pass
    spoil(Path(place.folder / "state" / "tables.db"))
    place.load(array={"name": "a", "serial": "2"})
    done = check(place)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.strip().endswith(says)


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (rows.put_volume("made", "[1"), "tables.db: Expecting"),
        (rows.put_volume("made", '{"size": 3}'), "tables.db: volumes.made.size: 3: expected a multiple of"),
        (rows.put_lun(7, "{}"), "tables.db: luns.7: (a mapping): expected one of"),
        (rows.put_connection("b", "nowhere"), "tables.db: an IP address or a host name"),
    ],
)
async def test_rows_that_no_command_made_are_one_line(place: Place, work: Work, says: str) -> None:
    await put(place, [work])
    with pytest.raises(StartError) as caught:
        await Array(place.load()).start()
    assert len(caught.value.lines) == 1
    assert says in str(caught.value)
    assert check(place).returncode == 1


async def test_a_command_that_would_make_a_conflict_is_refused(place: Place) -> None:
    """What no single check of a command sees: here, a file of the configuration in the place of a new one."""
    changes = {"volumes": {"data": {"size": MIB, "path": "state/volumes/made.img.pending"}}}
    async with running(place, **changes) as (array, _):
        with pytest.raises(Conflict, match=r"volumes\.data\.path: .* is the file of volume made"):
            await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
