"""Disks that are full, and disks that fail, below a volume: what the initiator is told, and what is kept."""

import asyncio
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import daemon, parts
from tests.lab.fixtures import StartArray
from tests.lab.initiator import CHECK_CONDITION, GOOD, Response, Session

MIB = 1024 * 1024
CHUNK = 64 * 1024
BLOCK = 512
BLOCKS = CHUNK // BLOCK
SYNCHRONIZE = bytes([0x35, *bytes(9)])
MEDIUM_ERROR, DATA_PROTECT = 3, 7
SPACE_ALLOCATION_FAILED = 0x2707

Mounted = Callable[..., Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """``mounted(name, "tmpfs", "size=4m")``: a file system of the test's own, gone afterwards. Needs root."""
    parts.require("mount", "mkfs.ext4", "losetup")
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    numbers = itertools.count()
    with ExitStack() as stack:

        def mount(kind: str, source: str, options: str) -> Path:
            place = tmp_path / f"mounted{next(numbers)}"
            place.mkdir()
            run("mount", "-t", kind, "-o", options, source, str(place))
            stack.callback(run, "umount", str(place))
            return place

        yield mount


def run(program: str, *arguments: str) -> None:
    path = parts.find(program)
    assert path is not None
    subprocess.run([path, *arguments], check=True, capture_output=True, timeout=60)


def small_tmpfs(mounted: Mounted) -> Path:
    return mounted("tmpfs", "tmpfs", "size=12m")


def small_ext4(mounted: Mounted, tmp_path: Path) -> Path:
    """Its disk is all there."""
    return ext4_on(mounted, tmp_path / "disk.img", 16 * MIB)


def ext4_on(mounted: Mounted, disk: Path, size: int) -> Path:
    with disk.open("wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-E", "nodiscard", str(disk))
    return mounted("ext4", str(disk), "loop")


def write(lba: int, blocks: int = BLOCKS, fua: bool = False) -> bytes:
    return bytes([0x2A, 8 if fua else 0, *lba.to_bytes(4), 0, *blocks.to_bytes(2), 0])


def read(lba: int, blocks: int = BLOCKS) -> bytes:
    return bytes([0x28, 0, *lba.to_bytes(4), 0, *blocks.to_bytes(2), 0])


def unmap(lba: int, blocks: int) -> tuple[bytes, bytes]:
    """CDB and parameter list of an UNMAP of one range."""
    parameters = (22).to_bytes(2) + (16).to_bytes(2) + bytes(4) + lba.to_bytes(8) + blocks.to_bytes(4) + bytes(4)
    return bytes([0x42, *bytes(6), 0, len(parameters), 0]), parameters


async def opened(array: daemon.ArraydProcess) -> Session:
    """A session whose LUNs have told their unit attentions."""
    session = await Session.open(array.addresses[0], array.target)
    for lun in range(len(array.config["luns"])):
        while (await session.command(bytes(6), lun=lun)).status == CHECK_CONDITION:
            pass
    return session


def sense(response: Response) -> tuple[int, int, int]:
    return response.status, response.sense_key, response.additional_sense


async def check(session: Session, kept: dict[int, bytes]) -> None:
    """What was acknowledged is there."""
    for lba, content in kept.items():
        assert (await session.command(read(lba), read_bytes=CHUNK)).data == content


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
@pytest.mark.parametrize("durable", [False, True])
async def test_a_full_disk_refuses_writes_and_keeps_what_it_took(
    mounted: Mounted, tmp_path: Path, start_array: StartArray, file_system: str, durable: bool
) -> None:
    disk = small_tmpfs(mounted) if file_system == "tmpfs" else small_ext4(mounted, tmp_path)
    array = start_array(daemon.configuration({"data": {"size": "256MiB", "path": str(disk / "data.img")}}))
    chance = random.Random(1)
    kept: dict[int, bytes] = {}
    session = await opened(array)
    for number in range(256 * MIB // CHUNK):
        content = chance.randbytes(CHUNK)
        response = await session.command(write(number * BLOCKS, fua=durable), data_out=content)
        if response.status != GOOD:
            break
        kept[number * BLOCKS] = content
    assert sense(response) == (CHECK_CONDITION, DATA_PROTECT, SPACE_ALLOCATION_FAILED)
    assert len(kept) > 4 * MIB // CHUNK
    assert (await session.command(SYNCHRONIZE)).status == GOOD
    await check(session, kept)

    array.kill()
    await session.close()
    array.start()
    session = await opened(array)
    await check(session, kept)

    freed = [lba for lba in kept if lba % (4 * BLOCKS) == 0]
    for lba in freed:
        cdb, parameters = unmap(lba, BLOCKS)
        assert (await session.command(cdb, data_out=parameters)).status == GOOD
        del kept[lba]
    content = chance.randbytes(CHUNK)
    assert (await session.command(write(freed[0]), data_out=content)).status == GOOD
    kept[freed[0]] = content
    await check(session, kept)
    await session.close()


async def test_a_disk_that_loses_data_fails_its_volume_and_no_other(mounted: Mounted, start_array: StartArray) -> None:
    """The page cache takes in what the disk below then cannot: the kernel tells that once, and forgets it."""
    bad = ext4_on(mounted, mounted("tmpfs", "tmpfs", "size=24m") / "disk.img", 64 * MIB)
    volumes = {"bad": {"size": "48MiB", "path": str(bad / "bad.img")}, "good": {"size": "1MiB"}}
    array = start_array(daemon.configuration(volumes))
    session = await opened(array)
    content = os.urandom(MIB)
    for number in range(40):
        response = await session.command(write(number * MIB // BLOCK, MIB // BLOCK), data_out=content)
        assert response.status == GOOD
    for _ in range(3):
        response = await session.command(SYNCHRONIZE)
        assert (response.status, response.sense_key) == (CHECK_CONDITION, MEDIUM_ERROR)
    for fua in (False, True):
        response = await session.command(write(0, fua=fua), data_out=content[:CHUNK])
        assert (response.status, response.sense_key) == (CHECK_CONDITION, MEDIUM_ERROR)
    assert (await session.command(write(0), lun=1, data_out=content[:CHUNK])).status == GOOD
    assert (await session.command(read(0), read_bytes=CHUNK)).data == content[:CHUNK]
    assert (await session.command(SYNCHRONIZE, lun=1)).status == GOOD
    await session.close()
    await asyncio.to_thread(array.terminate, expected=1)
    assert "a volume could not be synced" in array.log
