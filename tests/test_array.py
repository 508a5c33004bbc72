"""A whole array in this process starts and stops, and both can fail."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest

from arrayd import array as array_module
from arrayd.array import Array, StartError
from tests.lab.array import (
    BLOCK,
    LOGOUT_REQUESTED,
    TEST_UNIT_READY,
    Place,
    SlowSyncs,
    luns,
    place,
    read,
    session,
    slow_syncs,
    write,
)
from tests.lab.connection import IscsiError
from tests.lab.disk import MIB, disk, turns
from tests.lab.initiator import GOOD, Session
from tests.lab.pdu import Opcode

__all__ = ["disk", "place", "slow_syncs"]

LANES = 16


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


@pytest.mark.slow
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


@pytest.mark.slow
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
