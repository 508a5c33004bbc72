"""A whole array in this process: starts, stops, changes to another configuration; and every one of these can fail."""

import asyncio
import copy
import errno
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from arrayd import array as array_module
from arrayd.array import Array, StartError
from arrayd.config import Config, load
from tests.lab.disk import MIB, disk, turns
from tests.lab.initiator import CHECK_CONDITION, GOOD, NAME, IscsiError, Session
from tests.lab.pdu import Opcode

__all__ = ["disk"]

TARGET = "iqn.2026-11.io.arrayd:test-array"
BLOCK = 512
TASK_ABORTED = 0x40
NOT_SUPPORTED, LUNS_CHANGED, CAPACITY_CHANGED = 0x2500, 0x3F0E, 0x2A09
UNIT_ATTENTION = 6
LOGOUT_REQUESTED = 1
LANES = 16
TEST_UNIT_READY = bytes(6)


def read(lba: int, blocks: int = 1) -> bytes:
    return bytes([0x28, 0, *lba.to_bytes(4), 0, *blocks.to_bytes(2), 0])


def write(lba: int, blocks: int = 1, fua: bool = False) -> bytes:
    return bytes([0x2A, 8 if fua else 0, *lba.to_bytes(4), 0, *blocks.to_bytes(2), 0])


class Place:
    """Where an array lives: its configuration, and what of it is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {
            "array": {"name": "a", "serial": "410001"},
            "state_dir": "state",
            "iscsi": {"listen": ["127.0.0.1:0"], "target": TARGET},
            "volumes": {"data": {"size": MIB}},
            "luns": {"0": {"volume": "data"}},
        }

    def load(self, **changes: Any) -> Config:
        """The configuration, with some of its keys changed."""
        file = self.folder / "array.yaml"
        file.write_text(yaml.safe_dump({**copy.deepcopy(self.config), **changes}))
        return load(file)

    def volume(self, name: str = "data") -> Path:
        return self.folder / "state" / "volumes" / f"{name}.img"

    def open_files(self) -> set[str]:
        """What this process has open of the array's files, and its threads."""
        names = set()
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
            except FileNotFoundError:
                continue  # the one that listed them
        here = {name for name in names if name.startswith(str(self.folder))}
        return here | {thread.name for thread in threading.enumerate() if thread.name.startswith("arrayd")}

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[tuple[Array, str]]:
        """A running array and its address."""
        array = Array(self.load(**changes))
        (address,) = await array.start()
        try:
            yield array, address
        finally:
            await array.stop()


@pytest.fixture
async def place(disk: Path) -> AsyncIterator[Place]:
    """A place for an array, on a disk; afterwards nothing of it is open and no task is left on the loop."""
    place = Place(disk)
    yield place
    assert place.open_files() == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


class SlowSyncs:
    """Stands for fdatasync: each waits until the gate opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.failure: OSError | None = None
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor: int) -> None:
        self.begun.set()
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure

    async def under_way(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 30)


@pytest.fixture
def slow_syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSyncs]:
    syncs = SlowSyncs(monkeypatch)
    yield syncs
    syncs.gate.set()


@asynccontextmanager
async def session(address: str, *luns: int, name: str = NAME) -> AsyncIterator[Session]:
    """A session that has heard of everything its LUNs have to say."""
    async with await Session.open(address, TARGET, name=name) as opened:
        for lun in luns or (0,):
            await attentions(opened, lun)
        yield opened


async def attentions(opened: Session, lun: int = 0) -> list[int]:
    """The unit attentions of a LUN, until it says that all is well."""
    found: list[int] = []
    while (response := await opened.command(TEST_UNIT_READY, lun=lun)).status == CHECK_CONDITION:
        if response.sense_key != UNIT_ATTENTION:
            return [*found, response.additional_sense]
        found.append(response.additional_sense)
    assert response.status == GOOD
    return found


async def luns(opened: Session) -> list[int]:
    """What REPORT LUNS tells."""
    response = await opened.command(bytes([0xA0, *bytes(5), *(1024).to_bytes(4), 0, 0]), read_bytes=1024)
    listed = response.data[8 : 8 + int.from_bytes(response.data[:4])]
    return [int.from_bytes(listed[at : at + 2]) & 0x3FFF for at in range(0, len(listed), 8)]


async def capacity(opened: Session, lun: int = 0) -> int:
    """READ CAPACITY(10), in bytes."""
    response = await opened.command(bytes([0x25, *bytes(9)]), lun=lun, read_bytes=8)
    return (int.from_bytes(response.data[:4]) + 1) * int.from_bytes(response.data[4:])


# -- start and stop ----------------------------------------------------------------------------------------------------


async def test_what_was_written_is_there_after_a_restart(place: Place) -> None:
    async with place.running() as (_, address), session(address) as host:
        assert (await host.command(write(3), data_out=b"\x07" * BLOCK)).status == GOOD
    async with place.running() as (_, address), session(address) as host:
        assert (await host.command(read(3), read_bytes=BLOCK)).data == b"\x07" * BLOCK


async def test_volumes_are_made_as_they_are_wanted(place: Place) -> None:
    volumes = {
        "thin": {"size": 4 * MIB},
        "thick": {"size": 4 * MIB, "thin": False},
        "elsewhere": {"size": 4 * MIB, "path": "other/place.img"},
        "fixed": {"size": 4 * MIB, "read_only": True},
    }
    async with place.running(volumes=volumes, luns={}):
        assert place.volume("thin").stat().st_blocks == 0
        assert place.volume("thick").stat().st_blocks * 512 >= 4 * MIB
        assert (place.folder / "other" / "place.img").stat().st_size == 4 * MIB
        assert place.volume("fixed").stat().st_size == 4 * MIB


def _too_large(place: Place) -> None:
    place.volume().parent.mkdir(parents=True)
    place.volume().write_bytes(bytes(2 * MIB))


def _a_folder(place: Place) -> None:
    place.volume().mkdir(parents=True)


def _no_folder(place: Place) -> None:
    (place.folder / "state").mkdir()
    (place.folder / "state" / "volumes").write_text("")


def _state_is_a_file(place: Place) -> None:
    (place.folder / "state").write_text("")


def _damaged_tables(place: Place) -> None:
    (place.folder / "state").mkdir()
    (place.folder / "state" / "tables.db").write_bytes(b"no database" * 100)


def _same_file_twice(place: Place) -> None:
    (place.folder / "one.img").write_bytes(bytes(MIB))
    (place.folder / "two.img").hardlink_to(place.folder / "one.img")
    place.config["volumes"] = {
        "data": {"size": MIB, "path": "one.img"},
        "again": {"size": MIB, "path": "two.img"},
    }


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (_too_large, f"data.img: holds {2 * MIB} bytes, and the size wanted is {MIB}: a volume is not cut$"),
        (_a_folder, "volume data: .*data.img: Is a directory$"),
        (_no_folder, "volume data: .*data.img: .*/volumes is not a folder$"),
        (_state_is_a_file, "state_dir: .*/state: File exists$"),
        (_damaged_tables, "tables.db: file is not a database$"),
        (_same_file_twice, "volume .*: in use by another process, or by another volume$"),
    ],
)  # fmt: skip
async def test_what_stands_against_a_start_is_one_line(
    place: Place, prepare: Callable[[Place], None], says: str
) -> None:
    prepare(place)
    array = Array(place.load())
    with pytest.raises(StartError, match=says) as raised:
        await array.start()
    assert "\n" not in str(raised.value)
    await array.stop()


async def test_a_port_in_use_is_named(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        array = Array(place.load(iscsi={"listen": ["127.0.0.1:0", f"127.0.0.1:{port}"]}))
        with pytest.raises(StartError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            await array.start()


async def test_a_second_array_on_the_same_state_is_refused(place: Place) -> None:
    async with place.running():
        with pytest.raises(StartError, match=r"state: in use by another daemon$"):
            await Array(place.load()).start()


async def test_a_start_that_failed_can_be_tried_again(place: Place) -> None:
    _a_folder(place)
    array = Array(place.load())
    with pytest.raises(StartError):
        await array.start()
    place.volume().rmdir()
    async with place.running() as (_, address), session(address) as host:
        assert await luns(host) == [0]


@pytest.mark.parametrize("turns_before", [1, 3, 10, 30, 100])
async def test_a_start_that_is_cancelled_leaves_nothing_open(place: Place, turns_before: int) -> None:
    place.config["volumes"] = {f"v{number}": {"size": MIB} for number in range(8)}
    place.config["luns"] = {}
    array = Array(place.load())
    starting = asyncio.ensure_future(array.start())
    await turns(turns_before)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await array.stop()


async def test_initiators_are_asked_to_log_out_and_answered_before_the_end(place: Place, slow_syncs: SlowSyncs) -> None:
    array = Array(place.load())
    (address,) = await array.start()
    async with session(address) as host:
        writing = await host.submit(write(0, fua=True), data_out=b"\x07" * BLOCK)
        await slow_syncs.under_way()
        stopping = asyncio.ensure_future(array.stop())
        message = await asyncio.wait_for(host.other.get(), 10)
        assert (message.opcode, message.header[36]) == (Opcode.ASYNC, LOGOUT_REQUESTED)
        assert not writing.done()
        slow_syncs.gate.set()
        assert (await writing).status == GOOD
        await stopping
        with pytest.raises(IscsiError):
            await host.command(TEST_UNIT_READY)
    assert place.volume().read_bytes()[:BLOCK] == b"\x07" * BLOCK


async def test_initiators_that_never_pause_do_not_hold_up_the_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged is there, what was not answered was not acknowledged, and the end comes soon."""
    monkeypatch.setattr(array_module, "LOGOUT_SECONDS", 0.1)
    array = Array(place.load())
    (address,) = await array.start()
    acknowledged: dict[int, int] = {}
    all_begun = asyncio.Event()

    async def load_lane(host: Session, lane: int) -> None:
        for byte in range(1, 256):
            if (await host.command(write(lane, fua=True), data_out=bytes([byte]) * BLOCK)).status == GOOD:
                acknowledged[lane] = byte
                if len(acknowledged) == LANES:
                    all_begun.set()
        pytest.fail("the load ended before the array")

    async with session(address) as host:
        lanes = [asyncio.ensure_future(load_lane(host, lane)) for lane in range(LANES)]
        await all_begun.wait()
        async with asyncio.timeout(array_module.STOP_SECONDS / 2):
            await array.stop()
        for end in await asyncio.gather(*lanes, return_exceptions=True):
            assert isinstance(end, IscsiError)
    content = place.volume().read_bytes()
    for lane, byte in acknowledged.items():
        assert content[lane * BLOCK] in (byte, byte + 1)


async def test_the_end_waits_only_so_long_for_answers(
    place: Place, slow_syncs: SlowSyncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then sessions are dropped; but no file is closed under a thread that is still at work on it."""
    monkeypatch.setattr(array_module, "STOP_SECONDS", 1)
    array = Array(place.load())
    (address,) = await array.start()
    async with session(address) as host:
        writing = await host.submit(write(0, fua=True), data_out=b"\x07" * BLOCK)
        await slow_syncs.under_way()
        stopping = asyncio.ensure_future(array.stop())
        with pytest.raises(IscsiError):
            await asyncio.wait_for(writing, 10)
        assert not stopping.done()
        assert str(place.volume()) in place.open_files()
        slow_syncs.gate.set()
        await stopping


async def test_a_volume_that_cannot_be_synced_does_not_keep_the_rest_from_ending(
    place: Place, slow_syncs: SlowSyncs, capfd: pytest.CaptureFixture[str]
) -> None:
    slow_syncs.gate.set()
    slow_syncs.failure = OSError(errno.EIO, os.strerror(errno.EIO))
    async with place.running():
        pass
    assert "a volume could not be synced" in capfd.readouterr().err


# -- reload ------------------------------------------------------------------------------------------------------------

TWO: dict[str, Any] = {"volumes": {"data": {"size": MIB}, "more": {"size": 2 * MIB}},
       "luns": {"0": {"volume": "data"}, "5": {"volume": "more"}}}  # fmt: skip


async def test_a_new_lun_is_told_and_works(place: Place) -> None:
    async with place.running() as (array, address), session(address) as host:
        assert await luns(host) == [0]
        await array.reload(place.load(**TWO))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0, 5]
        await attentions(host, 5)
        assert await capacity(host, 5) == 2 * MIB
        assert (await host.command(write(1), lun=5, data_out=b"\x07" * BLOCK)).status == GOOD
        assert place.volume("more").read_bytes()[BLOCK : 2 * BLOCK] == b"\x07" * BLOCK


async def test_a_lun_that_goes_lets_go_of_its_file(place: Place) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        await array.reload(place.load())
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0]
        assert await attentions(host, 5) == [NOT_SUPPORTED]
        assert str(place.volume("more")) not in place.open_files()
        await array.reload(place.load(**TWO))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0, 5]


async def test_a_lun_that_goes_ends_its_tasks_first(place: Place, slow_syncs: SlowSyncs) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        writing = await host.submit(write(0, fua=True), lun=5, data_out=b"\x07" * BLOCK)
        await slow_syncs.under_way()
        reloading = asyncio.ensure_future(array.reload(place.load()))
        assert await attentions(host) == [LUNS_CHANGED]
        assert str(place.volume("more")) in place.open_files()
        slow_syncs.gate.set()
        await reloading
        assert (await writing).status == TASK_ABORTED
        assert str(place.volume("more")) not in place.open_files()
        assert (await host.command(read(0), read_bytes=BLOCK)).status == GOOD


async def test_another_volume_at_a_lun_is_another_disk(place: Place) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        swapped = {"0": {"volume": "more"}, "5": {"volume": "data"}}
        await array.reload(place.load(volumes=TWO["volumes"], luns=swapped))
        assert LUNS_CHANGED in await attentions(host)
        await attentions(host, 5)
        assert (await capacity(host, 0), await capacity(host, 5)) == (2 * MIB, MIB)


async def test_growth_is_told_and_can_be_used(place: Place) -> None:
    async with place.running() as (array, address), session(address) as host:
        last = 3 * MIB // BLOCK - 1
        assert (await host.command(write(last), data_out=b"\x07" * BLOCK)).status == CHECK_CONDITION
        await array.reload(place.load(volumes={"data": {"size": 3 * MIB}}))
        assert await attentions(host) == [CAPACITY_CHANGED]
        assert await capacity(host) == 3 * MIB
        for _ in range(2):
            assert (await host.command(write(last), data_out=b"\x07" * BLOCK)).status == GOOD
            assert (await host.command(read(last), read_bytes=BLOCK)).data == b"\x07" * BLOCK


def only(*entries: tuple[str, list[int] | None]) -> dict[str, Any]:
    """The iscsi section, with these initiators."""
    rules = [{"name": name} if seen is None else {"name": name, "luns": seen} for name, seen in entries]
    return {"listen": ["127.0.0.1:0"], "target": TARGET, "initiators": rules}


async def test_masking_reaches_sessions_that_are_there(place: Place) -> None:
    other = "iqn.2026-11.io.arrayd:other"
    before = only((NAME, [0, 5]), (other, None))
    async with (
        place.running(**TWO, iscsi=before) as (array, address),
        session(address, 0, 5) as host,
        session(address, 0, 5, name=other) as neighbour,
    ):
        await array.reload(place.load(**TWO, iscsi=only((NAME, [0]), (other, None))))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0]
        assert await attentions(host, 5) == [NOT_SUPPORTED]
        assert await attentions(neighbour) == []
        await array.reload(place.load(**TWO, iscsi=only((NAME, None), (other, None))))
        assert await attentions(host) == [LUNS_CHANGED]
        assert await luns(host) == [0, 5]
        assert await attentions(neighbour, 5) == []


async def test_a_lun_that_is_masked_away_answers_what_is_in_flight(place: Place, slow_syncs: SlowSyncs) -> None:
    async with place.running(**TWO, iscsi=only((NAME, None))) as (array, address), session(address, 0, 5) as host:
        writing = await host.submit(write(0, fua=True), lun=5, data_out=b"\x07" * BLOCK)
        await slow_syncs.under_way()
        await array.reload(place.load(**TWO, iscsi=only((NAME, [0]))))
        slow_syncs.gate.set()
        assert (await writing).status in (GOOD, TASK_ABORTED)
        assert await attentions(host) == [LUNS_CHANGED]


async def test_who_is_no_longer_allowed_is_sent_away(place: Place) -> None:
    other = "iqn.2026-11.io.arrayd:other"
    async with (
        place.running(iscsi=only((NAME, None), (other, None))) as (array, address),
        session(address) as host,
        session(address, name=other) as neighbour,
    ):
        await array.reload(place.load(iscsi=only((NAME, None))))
        with pytest.raises(IscsiError):
            await neighbour.command(TEST_UNIT_READY)
        assert await attentions(host) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"volumes": {"data": {"size": MIB // 2}}}, "data.size: 524288 is less than it was: a volume is not cut"),
        ({"volumes": {"data": {"size": MIB, "write_cache": False}}}, "volumes.data: only the size may change"),
        ({"array": {"name": "a", "serial": "2"}}, "array: changed; that takes a restart"),
        ({"state_dir": "other"}, "state_dir: changed; that takes a restart"),
        ({"iscsi": {"listen": ["127.0.0.1:1"], "target": TARGET}}, "iscsi.listen: changed; that takes a restart"),
        ({"iscsi": {"listen": ["127.0.0.1:0"], "target": TARGET + "2"}}, "iscsi.target: changed; that takes a restart"),
        ({"volumes": {"data": {"size": MIB}, "new": {"size": MIB, "path": "/proc/none/new"}}},
         "volume new: /proc/none/new: No such file or directory"),
        ({"volumes": {"data": {"size": MIB}, "new": {"size": MIB, "path": "state/volumes/data.img"}}},
         "volume new: .*: in use by another process, or by another volume"),
    ],
)  # fmt: skip
async def test_a_reload_that_is_refused_changes_nothing(place: Place, changes: dict[str, Any], says: str) -> None:
    async with place.running() as (array, address), session(address) as host:
        before = place.open_files()
        with pytest.raises(StartError, match=says):
            await array.reload(place.load(**changes))
        assert place.open_files() == before
        assert await attentions(host) == []
        assert (await luns(host), await capacity(host)) == ([0], MIB)
        await array.reload(place.load(**TWO))
        assert await attentions(host) == [LUNS_CHANGED]


async def test_a_volume_that_cannot_grow_keeps_all_others_as_they_were(place: Place) -> None:
    async with place.running(**TWO) as (array, address), session(address, 0, 5) as host:
        before = place.open_files()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, limits[1]))
        try:
            grown = {"data": {"size": 3 * MIB}, "more": {"size": 5 * MIB}, "new": {"size": MIB}}
            with pytest.raises(StartError, match=f"volume more: cannot grow to {5 * MIB} bytes: .*File too large"):
                await array.reload(place.load(volumes=grown, luns={**TWO["luns"], "7": {"volume": "new"}}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert place.open_files() == before
        assert (await attentions(host), await attentions(host, 5)) == ([], [])
        assert (await capacity(host), await capacity(host, 5)) == (MIB, 2 * MIB)
        assert place.volume("data").stat().st_size == MIB
        assert place.volume("more").stat().st_size == 2 * MIB
        assert await luns(host) == [0, 5]
