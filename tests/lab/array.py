"""Whole arrays in the process of the test, and what a host asks them: for the tests of `arrayd.array`."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from arrayd.array import Array
from arrayd.blockfile import Ring
from arrayd.config.load import of_tree
from arrayd.config.schema import Config
from tests.lab.disk import MIB
from tests.lab.initiator import CHECK_CONDITION, GOOD, NAME, Session

TARGET = "iqn.2026-11.io.arrayd:test-array"
BLOCK = 512
UNIT_ATTENTION = 6
LOGOUT_REQUESTED = 1
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
        """The configuration, with some of its keys changed; it is in the file, too. YAML is not read again for it: that
        took as long as all else that an array does to start."""
        file = self.folder / "array.yaml"
        text = json.dumps({**self.config, **changes})
        file.write_text(text)
        return of_tree(file, json.loads(text))

    def volume(self, name: str = "data") -> Path:
        return self.folder / "state" / "volumes" / f"{name}.img"

    def open_files(self) -> set[str]:
        """What this process has open of the array's files."""
        names = set()
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
            except FileNotFoundError:
                continue  # the one that listed them
        return {name for name in names if name.startswith(str(self.folder))}

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
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("arrayd")]
    assert asyncio.all_tasks() == {asyncio.current_task()}


class SlowSyncs:
    """Stands for fdatasync, where threads call it: each waits until the gate opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.failure: OSError | None = None
        monkeypatch.setattr(os, "fdatasync", self)
        monkeypatch.setattr(Ring, "or_none", lambda: None)

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
