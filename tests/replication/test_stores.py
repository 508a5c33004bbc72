"""Files of pairs: there whole or not at all, one user at a time, and gone with the pair."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arrayd.blockfile import Writeback
from arrayd.replication import stores as module
from arrayd.replication.stores import FileStores
from arrayd.volumes.volume import Volume, VolumeError, finished
from tests.lab.disk import PLENTY, disk, settled
from tests.replication.still import MIB, block, content

__all__ = ["disk"]

NAME = "00" * 16 + "-7.bitmap"
OTHER = "11" * 16 + "-0.before"


@pytest.fixture
async def stores(disk: Path) -> AsyncIterator[FileStores]:
    with ThreadPoolExecutor(2) as threads:
        made = FileStores(disk / "state" / "pairs", threads, Writeback(PLENTY))
        yield made
        await made.close_all()


async def reopened(stores: FileStores, name: str = NAME) -> Volume:
    volume = await stores.open(name)
    assert volume is not None
    return volume


async def test_a_store_stays_until_it_is_removed(stores: FileStores, disk: Path) -> None:
    assert await stores.open(NAME) is None
    volume = await stores.create(NAME, 4 * MIB)
    file = disk / "state" / "pairs" / NAME
    assert volume.size == file.stat().st_size == 4 * MIB
    assert file.stat().st_blocks == 0, "sparse"
    await settled(volume.write(MIB, block(1)))
    await settled(volume.flush())
    await stores.close(NAME)
    await stores.close(NAME)
    again = await reopened(stores)
    assert (again.size, content(again, MIB)) == (4 * MIB, bytes(block(1)))
    await stores.remove(NAME)
    await stores.remove(NAME)
    assert list(file.parent.iterdir()) == []
    assert await stores.open(NAME) is None


async def test_a_new_one_is_empty_whatever_there_was(stores: FileStores) -> None:
    before = await stores.create(NAME, MIB)
    await settled(before.write(0, block(1)))
    again = await stores.create(NAME, 2 * MIB)
    assert (again.size, content(again, 0)) == (2 * MIB, bytes(4096))


async def test_one_user_at_a_time(stores: FileStores) -> None:
    await stores.create(NAME, MIB)
    with pytest.raises(VolumeError, match="in use"):
        await stores.open(NAME)
    await stores.create(OTHER, MIB)
    await stores.close(NAME)
    await reopened(stores)


async def test_what_was_being_made_is_none(stores: FileStores, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the process dies in between, and where the disk refuses: the next attempt finds all in order."""

    def refuse(_old: Path, _new: Path) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(module, "replace", refuse)
        with pytest.raises(VolumeError, match="no room"):
            await stores.create(NAME, MIB)
    assert [file.name for file in (disk / "state" / "pairs").iterdir()] == [NAME + ".new"]
    assert await stores.open(NAME) is None
    assert (await stores.create(NAME, MIB)).size == MIB
    assert [file.name for file in (disk / "state" / "pairs").iterdir()] == [NAME]


async def test_what_there_was_stays_until_there_is_a_new_one(
    stores: FileStores, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None in between would tell of a bitmap that nothing is marked."""

    def die(_old: Path, _new: Path) -> None:
        raise OSError(28, "no room")

    await finished((await stores.create(NAME, MIB)).write(0, memoryview(b"m" * 512)))
    with monkeypatch.context() as patched:
        patched.setattr(module, "replace", die)
        with pytest.raises(VolumeError, match="no room"):
            await stores.create(NAME, MIB)
    there = await stores.open(NAME)
    assert there is not None
    page = bytearray(512)
    await finished(there.read(0, memoryview(page)))
    assert page == b"m" * 512


async def test_what_the_disk_refuses_is_told_with_the_file(stores: FileStores, disk: Path) -> None:
    (disk / "state").mkdir()
    (disk / "state" / "pairs").write_text("in the way")
    with pytest.raises(VolumeError, match="pairs"):
        await stores.create(NAME, MIB)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", NAME + ".new", NAME.upper(), NAME + "\n", "/etc/passwd"])
async def test_names_are_checked(stores: FileStores, name: str) -> None:
    for call in (stores.open, stores.remove):
        with pytest.raises(AssertionError):
            await call(name)


async def test_what_is_left_of_groups_that_are_no_more(stores: FileStores, disk: Path) -> None:
    await stores.forget_others([])
    for name in (NAME, OTHER):
        await stores.create(name, MIB)
        await stores.close(name)
    folder = disk / "state" / "pairs"
    (folder / ("22" * 16 + "-1.bitmap.new")).write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"an operator's")
    await stores.forget_others([bytes(16)])
    assert {file.name for file in folder.iterdir()} == {NAME, "notes.txt"}
