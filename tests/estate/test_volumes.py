"""Volumes made, grown and deleted by command: durable, told to hosts, and undone when the commit fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from arrayd.array import Array, StartError
from arrayd.estate.errors import Conflict, Failed, Invalid, NotFound
from arrayd.scsi.persistent import EXCLUSIVE_ACCESS, PersistentState, Registrant
from arrayd.tables import Work
from tests.estate.conftest import RefusedError, files, refuse, running
from tests.lab.array import BLOCK, Place, attentions, capacity, luns, read, session, write
from tests.lab.disk import MIB, file_size_limit
from tests.lab.initiator import GOOD
from tests.lab.waiting import until

__all__ = ["file_size_limit"]

CAPACITY_CHANGED = 0x2A09


async def test_a_volume_made_by_command_is_one_like_others_and_survives(place: Place) -> None:
    async with running(place) as (array, address):
        await array.estate.volumes.create("made", {"size": "2MiB", "write_cache": False}, array.tables.change)
        await array.estate.luns.map(7, {"volume": "made"}, array.tables.change)
        async with session(address, 7) as host:
            assert await luns(host) == [0, 7]
            assert (await host.command(write(1), lun=7, data_out=b"\x07" * BLOCK)).status == GOOD
        await array.reload(place.load(volumes={"data": {"size": 2 * MIB}}))
        assert files(place) == {"data.img", "made.img"}
    async with running(place, volumes={"data": {"size": 2 * MIB}}) as (array, address), session(address, 7) as host:
        assert (await capacity(host, 7), await luns(host)) == (2 * MIB, [0, 7])
        assert (await host.command(read(1), lun=7, read_bytes=BLOCK)).data == b"\x07" * BLOCK
        (made,) = [row for row in array.estate.volumes.rows() if row.name == "made"]
        assert (made.source, made.lun, made.settings.size, made.settings.write_cache) == ("command", 7, 2 * MIB, False)
        assert (made.volume.identity, made.volume.write_cache) == ("410001:made", False)
        assert place.volume("made").read_bytes()[BLOCK : 2 * BLOCK] == b"\x07" * BLOCK


async def test_a_volume_that_is_not_committed_leaves_nothing(place: Place) -> None:
    async with running(place) as (array, _):
        before = place.open_files()
        with pytest.raises(RefusedError):
            await array.estate.volumes.create("made", {"size": MIB}, refuse)
        assert files(place) == {"data.img"}
        assert place.open_files() == before
        assert [row.name for row in array.estate.volumes.rows()] == ["data"]
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        assert files(place) == {"data.img", "made.img"}


@pytest.mark.parametrize(
    ("name", "settings", "kind", "says"),
    [
        ("data", {"size": MIB}, Conflict, "volume data: set in the configuration file"),
        ("made", {"size": MIB}, Conflict, "volume made: there is one"),
        ("left", {"size": MIB}, Conflict, "volume left: .*/left.img is there: move it away"),
        ("../x", {"size": MIB}, Invalid, "volume '../x': expected a name of 1 to 32 of a-z"),
        ("x", {}, Invalid, "volumes.x.size: missing: expected a size"),
        ("x", {"size": 1000}, Invalid, "volumes.x.size: 1000: expected a multiple of the block size, 512"),
        ("x", {"size": MIB, "thick": True}, Invalid, "volumes.x.thick: true: expected a known key"),
        ("x", {"size": MIB, "path": "/etc/x"}, Invalid, "volumes.x.path: only the configuration file says"),
    ],
)
async def test_what_cannot_be_made_is_refused(
    place: Place, name: str, settings: Mapping[str, Any], kind: type[Exception], says: str
) -> None:
    async with running(place) as (array, _):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        place.volume("left").write_bytes(b"somebody's")
        with pytest.raises(kind, match=says) as caught:
            await array.estate.volumes.create(name, settings, array.tables.change)
        assert "\n" not in str(caught.value)
        assert files(place) == {"data.img", "left.img", "made.img"}
        assert place.volume("left").read_bytes() == b"somebody's"


async def test_a_disk_without_room_is_told(place: Place, file_size_limit: None) -> None:
    async with running(place, volumes={"data": {"size": 1 << 18}}) as (array, _):
        with pytest.raises(Failed, match=r"volume made: .*: File too large"):
            await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        await array.estate.volumes.create("made", {"size": 1 << 18}, array.tables.change)
        with pytest.raises(Failed, match=f"volume made: cannot grow to {MIB} bytes: .*File too large"):
            await array.estate.volumes.resize("made", MIB, array.tables.change)
        assert place.volume("made").stat().st_size == 1 << 18


async def test_growth_is_told_and_survives(place: Place) -> None:
    async with running(place) as (array, address):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        await array.estate.luns.map(7, {"volume": "made"}, array.tables.change)
        async with session(address, 7) as host:
            with pytest.raises(RefusedError):
                await array.estate.volumes.resize("made", 3 * MIB, refuse)
            assert place.volume("made").stat().st_size == MIB
            assert (await attentions(host, 7), await capacity(host, 7)) == ([], MIB)
            await array.estate.volumes.resize("made", "3MiB", array.tables.change)
            assert (await attentions(host, 7), await capacity(host, 7)) == ([CAPACITY_CHANGED], 3 * MIB)
            await array.estate.volumes.resize("made", 3 * MIB, array.tables.change)
            assert await attentions(host, 7) == []
            with pytest.raises(Invalid, match=f"made: {MIB} is less than its {3 * MIB} bytes: a volume is not cut"):
                await array.estate.volumes.resize("made", MIB, array.tables.change)
        with pytest.raises(Conflict, match="volume data: set in the configuration file"):
            await array.estate.volumes.resize("data", 3 * MIB, array.tables.change)
        with pytest.raises(NotFound, match="volume nothing: there is none"):
            await array.estate.volumes.resize("nothing", 3 * MIB, array.tables.change)
    async with running(place) as (_, address), session(address, 7) as host:
        assert await capacity(host, 7) == 3 * MIB


async def test_a_growth_that_was_not_committed_is_not_there(place: Place) -> None:
    async with running(place) as (array, _):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        await array.estate.luns.map(7, {"volume": "made"}, array.tables.change)
    with place.volume("made").open("r+b") as file:
        file.truncate(3 * MIB)
    async with running(place) as (array, address), session(address, 7) as host:
        assert await capacity(host, 7) == MIB
        assert (await host.command(write(MIB // BLOCK), lun=7, data_out=bytes(BLOCK))).status != GOOD
        await array.estate.volumes.resize("made", 2 * MIB, array.tables.change)
        await attentions(host, 7)
        assert await capacity(host, 7) == 2 * MIB
        assert (await host.command(write(MIB // BLOCK), lun=7, data_out=bytes(BLOCK))).status == GOOD


async def test_a_volume_is_deleted_with_all_that_was_on_it(place: Place) -> None:
    async with running(place) as (array, address):
        volumes, change = array.estate.volumes, array.tables.change
        await volumes.create("made", {"size": MIB}, change)
        await array.estate.luns.map(7, {"volume": "made"}, change)
        kept = PersistentState({Registrant("host", 1): 7}, EXCLUSIVE_ACCESS, Registrant("host", 1))
        await array.tables.reservations.save("410001:made", kept)
        async with session(address, 7) as host:
            with pytest.raises(Conflict, match="volume made: mapped at LUN 7"):
                await volumes.delete("made", change)
            await host.command(write(0), lun=7, data_out=b"\x07" * BLOCK)
            await array.estate.luns.unmap(7, change)
            with pytest.raises(RefusedError):
                await volumes.delete("made", refuse)
            assert files(place) == {"data.img", "made.img"}
            await volumes.delete("made", change)
            assert files(place) == {"data.img"}
            assert not any("made" in name for name in place.open_files())
            assert array.tables.reservations.load("410001:made") is None
            await volumes.create("made", {"size": MIB}, change)
            await array.estate.luns.map(7, {"volume": "made"}, change)
            await attentions(host, 7)
            assert (await host.command(read(0), lun=7, read_bytes=BLOCK)).data == bytes(BLOCK)
        with pytest.raises(Conflict, match="volume data: set in the configuration file"):
            await volumes.delete("data", change)
        with pytest.raises(NotFound, match="volume nothing: there is none"):
            await volumes.delete("nothing", change)


async def test_who_gives_up_waiting_does_not_stop_a_change(place: Place) -> None:
    async with running(place) as (array, _):
        committing, go_on = asyncio.Event(), asyncio.Event()

        async def slow(work: Work) -> None:
            committing.set()
            await go_on.wait()
            await array.tables.change(work)

        creating = asyncio.ensure_future(array.estate.volumes.create("made", {"size": MIB}, slow))
        await committing.wait()
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        behind = asyncio.ensure_future(array.reload(place.load(volumes={"data": {"size": 2 * MIB}})))
        await asyncio.sleep(0.05)
        assert not behind.done()
        go_on.set()
        await behind
        assert [row.name for row in array.estate.volumes.rows()] == ["data", "made"]


async def test_changes_at_once_are_made_one_after_the_other(place: Place) -> None:
    async with running(place) as (array, _):
        made = [array.estate.volumes.create(f"v{n % 10}", {"size": MIB}, array.tables.change) for n in range(20)]
        ended = await asyncio.gather(*made, return_exceptions=True)
        assert sorted(type(end).__name__ for end in ended) == ["Conflict"] * 10 + ["NoneType"] * 10
        assert len(files(place)) == 11


async def test_names_of_files_follow_the_rows_at_the_start(place: Place) -> None:
    async with running(place) as (array, _):
        await array.estate.volumes.create("made", {"size": MIB}, array.tables.change)
        await array.estate.volumes.create("other", {"size": MIB}, array.tables.change)
    folder = place.volume().parent
    place.volume("made").rename(folder / "made.img.pending")
    for name in ("never.img.pending", "kept.img.pending", "Somebody's.img.pending", "lonely.img"):
        (folder / name).write_bytes(b"x")
    place.config["volumes"]["kept"] = {"size": MIB, "path": "state/volumes/kept.img.pending"}
    async with running(place):
        assert files(place) == {
            "Somebody's.img.pending", "data.img", "kept.img.pending", "lonely.img", "made.img", "other.img",
        }  # fmt: skip
    place.volume("made").rename(folder / "gone")
    with pytest.raises(
        StartError, match=r"volume made: .*/made.img is gone: put it back, or an empty file in its place$"
    ):
        await Array(place.load()).start()


async def test_a_file_in_the_way_of_what_is_committed_is_for_the_next_start_to_tell(place: Place) -> None:
    """The volume works under the name that its file had before, and can be deleted so."""
    async with running(place) as (array, _):

        async def in_the_way(work: Work) -> None:
            await array.tables.change(work)
            place.volume("made").write_bytes(b"somebody's")

        for _ in range(2):
            await array.estate.volumes.create("made", {"size": MIB}, in_the_way)
            assert files(place) == {"data.img", "made.img", "made.img.pending"}
            await array.estate.luns.map(7, {"volume": "made"}, array.tables.change)
            await array.estate.luns.unmap(7, array.tables.change)
            await array.estate.volumes.delete("made", array.tables.change)
            assert files(place) == {"data.img", "made.img"}
            place.volume("made").unlink()
        await array.estate.volumes.create("made", {"size": MIB}, in_the_way)
    with pytest.raises(StartError, match=r"made.img is in the place of made.img.pending: move one of them away$"):
        await Array(place.load()).start()
    place.volume("made").unlink()
    async with running(place):
        assert files(place) == {"data.img", "made.img"}


async def test_a_change_under_way_is_made_before_the_end(place: Place) -> None:
    committing, go_on = asyncio.Event(), asyncio.Event()
    async with running(place) as (array, _):

        async def slow(work: Work) -> None:
            committing.set()
            await go_on.wait()
            await array.tables.change(work)

        creating = asyncio.ensure_future(array.estate.volumes.create("made", {"size": MIB}, slow))
        await committing.wait()
        stopping = asyncio.ensure_future(array.stop())
        await until(lambda: array.estate.ledger._closed)
        with pytest.raises(Failed, match="the array stops"):
            await array.estate.volumes.delete("made", array.tables.change)
        assert not stopping.done()
        go_on.set()
        await creating
        await stopping
    async with running(place) as (array, _):
        assert [row.name for row in array.estate.volumes.rows()] == ["data", "made"]
