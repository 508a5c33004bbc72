"""Arrays connected by command while they run (figure 36), over real links: what leads there works, and it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from arrayd.array import Array
from arrayd.estate.errors import Conflict, Invalid, NotFound
from arrayd.link.channel import LinkError, Request
from tests.estate.conftest import RefusedError, refuse
from tests.lab.array import BLOCK, TARGET, Place, attentions, read, session, write
from tests.lab.disk import MIB
from tests.lab.initiator import GOOD
from tests.lab.waiting import until

pytestmark = pytest.mark.slow


class Pair:
    """`near` and `far`, which know nothing of each other at first; `far` has the volume."""

    def __init__(self, folder: Path) -> None:
        self.places = {name: Place(folder / name) for name in ("near", "far")}
        self.arrays: dict[str, Array] = {}
        self.hosts: dict[str, str] = {}
        self.link = ""

    async def start(self, name: str, **changes: Any) -> Array:
        place = self.places[name]
        place.folder.mkdir(exist_ok=True)
        place.config["array"] = {"name": name, "serial": f"4100{len(name)}"}
        link: dict[str, Any] = {"timeout": 1}
        if name == "far":
            link |= {"listen": self.link or "127.0.0.1:0"}
            place.config["iscsi"]["target"] = f"{TARGET}-{name}"
        else:
            place.config |= {"volumes": {}, "luns": {}}
        array = Array(place.load(**{"link": link, **changes}))
        (self.hosts[name],) = await array.start()
        if name == "far":
            listener = array._links._listener
            assert listener is not None
            self.link = f"127.0.0.1:{listener.address[1]}"
        self.arrays[name] = array
        return array

    async def stop(self, name: str) -> None:
        if name in self.arrays:
            await self.arrays.pop(name).stop()

    def up(self, name: str, other: str) -> bool:
        peer = self.arrays[name]._links.peers.get(other)
        return peer is not None and peer.stream is not None

    async def connect(self) -> None:
        """By command, on both sides."""
        near, far = self.arrays["near"], self.arrays["far"]
        await far.estate.connections.add("near", None, far.tables.change)
        await near.estate.connections.add("far", self.link, near.tables.change)
        await until(lambda: self.up("near", "far") and self.up("far", "near"))


@pytest.fixture
async def pair(disk: Path) -> AsyncIterator[Pair]:
    pair = Pair(disk)
    async with AsyncExitStack() as stack:
        for name in ("far", "near"):
            await pair.start(name)
            stack.push_async_callback(pair.stop, name)
        yield pair
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_array_connected_by_command_has_its_luns_here_and_stays_connected(pair: Pair) -> None:
    await pair.connect()
    near = pair.arrays["near"]
    await near.estate.luns.map(5, {"virtual": {"array": "far", "lun": 0}}, near.tables.change)
    async with session(pair.hosts["near"], 5) as host:
        assert (await host.command(write(3), lun=5, data_out=b"\x07" * BLOCK)).status == GOOD
    assert pair.places["far"].volume().read_bytes()[3 * BLOCK : 4 * BLOCK] == b"\x07" * BLOCK
    (row,) = near.estate.connections.rows()
    assert (row.name, str(row.address), row.source, row.peer.serial) == ("far", pair.link, "command", "41003")
    for name in ("near", "far"):
        await pair.stop(name)
    for name in ("far", "near"):
        await pair.start(name)
    async with session(pair.hosts["near"], 5) as host:
        await until(lambda: pair.up("near", "far"))
        await attentions(host, 5)
        assert (await host.command(read(3), lun=5, read_bytes=BLOCK)).data == b"\x07" * BLOCK


async def test_a_connection_that_is_not_committed_is_not_there(pair: Pair) -> None:
    near = pair.arrays["near"]
    with pytest.raises(RefusedError):
        await near.estate.connections.add("far", pair.link, refuse)
    assert (near.estate.connections.rows(), dict(near._links.peers)) == ([], {})
    await pair.connect()
    with pytest.raises(RefusedError):
        await near.estate.connections.remove("far", refuse)
    assert pair.up("near", "far")


async def test_a_connection_that_is_removed_ends_what_waits_and_can_come_back(pair: Pair) -> None:
    """Numbers go on where they were: nothing is taken for something else, and nothing is done twice."""
    await pair.connect()
    near, far = pair.arrays["near"], pair.arrays["far"]
    for turn in range(3):
        await near.estate.luns.map(5, {"virtual": {"array": "far", "lun": 0}}, near.tables.change)
        async with session(pair.hosts["near"], 5) as host:
            await until(lambda: pair.up("near", "far") and pair.up("far", "near"))
            await attentions(host, 5)
            wrote = await host.command(write(turn), lun=5, data_out=bytes([turn + 1]) * BLOCK)
            assert wrote.status == GOOD
            with pytest.raises(Conflict, match="array far: LUN 5 leads to it"):
                await near.estate.connections.remove("far", near.tables.change)
            await near.estate.luns.unmap(5, near.tables.change)
            await near.estate.connections.remove("far", near.tables.change)
            await until(lambda: not pair.up("far", "near"))
            answers: list[memoryview | LinkError] = []
            near._links.request("far", Request(1, b"", b"", 0, answers.append))
            assert [str(answer) for answer in answers] == ["not linked with far"]
        if turn == 1:
            await far.estate.connections.remove("near", far.tables.change)
            await until(lambda: not far._far._hosts.get("near"))
            await far.estate.connections.add("near", None, far.tables.change)
        await near.estate.connections.add("far", pair.link, near.tables.change)
    content = pair.places["far"].volume().read_bytes()
    assert [content[turn * BLOCK] for turn in range(4)] == [1, 2, 3, 0]


async def test_an_array_that_is_not_connected_any_more_is_refused(pair: Pair) -> None:
    await pair.connect()
    near, far = pair.arrays["near"], pair.arrays["far"]
    await far.estate.connections.remove("near", far.tables.change)
    await until(lambda: "not among link.arrays" in near._links.peers["far"].reason)
    await far.estate.connections.add("near", None, far.tables.change)
    await until(lambda: pair.up("near", "far"))


async def test_a_connection_is_removed_while_it_is_being_made(pair: Pair) -> None:
    near = pair.arrays["near"]
    for _ in range(20):
        await near.estate.connections.add("far", pair.link, near.tables.change)
        await near.estate.connections.remove("far", near.tables.change)
    await until(lambda: not near._links._strangers and len(near._links._tasks) == 1)
    assert near._links._former == {}


@pytest.mark.parametrize(
    ("name", "address", "kind", "says"),
    [
        ("near", None, Invalid, "array near: this is its own name"),
        ("Far", None, Invalid, "array 'Far': expected a name of 1 to 32"),
        ("far", "nowhere", Invalid, "array 'far': expected an IP address or a host name, and a port"),
        ("far", "array-b:3270", Invalid, "array far: array-b:3270 is beyond loopback: that takes link.secret_file"),
        ("known", None, Conflict, "array known: set in the configuration file"),
        ("made", None, Conflict, "array made: connected already"),
    ],
)
async def test_what_cannot_be_connected_is_refused(
    pair: Pair, name: str, address: str | None, kind: type[Exception], says: str
) -> None:
    await pair.stop("near")
    near = await pair.start("near", link={"arrays": {"known": None}})
    await near.estate.connections.add("made", None, near.tables.change)
    with pytest.raises(kind, match=says):
        await near.estate.connections.add(name, address, near.tables.change)
    assert [row.name for row in near.estate.connections.rows()] == ["known", "made"]


async def test_what_cannot_be_disconnected_is_refused(pair: Pair) -> None:
    near = pair.arrays["near"]
    await near.estate.connections.add("made", None, near.tables.change)
    await pair.stop("near")
    near = await pair.start("near", link={"arrays": {"known": None}}, commands={"arrays": ["made"]})
    for name, kind, says in (
        ("known", Conflict, "array known: set in the configuration file"),
        ("other", NotFound, "array other: not connected with it"),
        ("made", Conflict, "array made: commands.arrays of the configuration file names it"),
    ):
        with pytest.raises(kind, match=says):
            await near.estate.connections.remove(name, near.tables.change)


async def test_a_reload_keeps_what_leads_to_an_array_that_was_connected_by_command(pair: Pair) -> None:
    await pair.connect()
    near = pair.arrays["near"]
    await near.estate.luns.map(5, {"virtual": {"array": "far", "lun": 0}}, near.tables.change)
    config = pair.places["near"].load(
        link={"timeout": 1}, volumes={"own": {"size": MIB}}, luns={"0": {"volume": "own"}}
    )
    async with session(pair.hosts["near"], 5) as host:
        before = near._target.units[5]
        await near.reload(config)
        assert near._target.units[5] is before
        await attentions(host, 5)
        assert (await host.command(read(0), lun=5, read_bytes=BLOCK)).status == GOOD
