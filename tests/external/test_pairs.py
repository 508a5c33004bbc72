"""A group of pairs between two real arrays, by the host's verbs: its life, and the promise when an array is killed.

Hosts write across three volumes. Each write has a place of its own and its number in every sector. A write that was
begun when another one had been answered comes behind it in the group's order, so what the S-VOLs have must be closed
under that; and it must be as many writes as the takeover reports.
"""

import asyncio
import os
import random
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.lab.connection import IscsiError
from tests.lab.daemon import ArraydProcess
from tests.lab.initiator import CHECK_CONDITION, GOOD, Session
from tests.lab.paired import PairedArrays

pytestmark = [pytest.mark.external, pytest.mark.timeout(60 + 30 * int(os.environ.get("ARRAYD_TAKEOVERS", "3")))]

TAKEOVERS: Final = int(os.environ.get("ARRAYD_TAKEOVERS", "3"))
"""Rounds; more by hand."""
SEED: Final = int(os.environ.get("ARRAYD_SEED", "410"))
VOLUMES: Final = 3
MIB: Final = 1024 * 1024
VOLUME_BYTES: Final = 16 * MIB
SECTOR_BYTES: Final = 512
WRITE_BYTES: Final = 4096
PLACES: Final = VOLUME_BYTES // WRITE_BYTES
"""Of each volume."""
WRITERS: Final = 6
SECONDS: Final = 60
DATA_PROTECT: Final = 0x07


def write_10(place: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, place * 8, 0, 8, 0)


def read_16(sector: int, sectors: int) -> bytes:
    return struct.pack(">BBQIBB", 0x88, 0, sector, sectors, 0, 0)


def data_of(number: int) -> bytes:
    """The data of a write."""
    return number.to_bytes(8) * (WRITE_BYTES // 8)


@asynccontextmanager
async def session_with(array: ArraydProcess) -> AsyncIterator[Session]:
    """A session whose unit attentions have been told."""
    async with await Session.open(array.addresses[0], array.target) as session:
        for lun in range(VOLUMES):
            while (await session.command(bytes(6), lun=lun)).status == CHECK_CONDITION:
                pass
        yield session


async def contents(array: ArraydProcess) -> list[bytes]:
    """All of every volume."""
    volumes = []
    async with session_with(array) as session:
        for lun in range(VOLUMES):
            parts = []
            for sector in range(0, VOLUME_BYTES // SECTOR_BYTES, 2048):
                answer = await session.command(read_16(sector, 2048), lun=lun, read_bytes=2048 * SECTOR_BYTES)
                assert answer.status == GOOD
                parts.append(answer.data)
            volumes.append(b"".join(parts))
    return volumes


@dataclass
class Writes:
    """What was written in one round, from write `first` on: each to the next place, volume by volume in turn."""

    first: int
    begun: int = 0
    answered: set[int] = field(default_factory=set)
    behind: dict[int, frozenset[int]] = field(default_factory=dict)
    """By write: those that had been answered when it was begun."""

    def begin(self) -> int:
        number = self.first + self.begun
        self.begun += 1
        self.behind[number] = frozenset(self.answered)
        return number

    def place(self, number: int) -> tuple[int, int]:
        """LUN and place of a write."""
        return number % VOLUMES, number // VOLUMES % PLACES

    def present(self, volumes: list[bytes], before: list[bytes]) -> set[int]:
        """The writes that are there, each whole; whatever else is there was there before."""
        found = set()
        expected = [bytearray(volume) for volume in before]
        for number in range(self.first, self.first + self.begun):
            lun, place = self.place(number)
            at = place * WRITE_BYTES
            if volumes[lun][at : at + 8] == number.to_bytes(8):
                found.add(number)
                expected[lun][at : at + WRITE_BYTES] = data_of(number)
        assert [bytes(volume) for volume in expected] == volumes, (
            "a write is torn, or something is there that never was"
        )
        return found

    def check_order(self, present: set[int]) -> None:
        """Whoever is there has all with it that had been answered before it was begun."""
        for number in present:
            missing = self.behind[number] - present
            assert not missing, f"write {number} is there, and not {sorted(missing)}, which were answered before"


async def write_for_ever(session: Session, writes: Writes) -> None:
    while True:
        number = writes.begin()
        lun, place = writes.place(number)
        answer = await session.command(write_10(place), lun=lun, data_out=data_of(number))
        assert answer.status == GOOD
        writes.answered.add(number)


async def write_until_killed(array: ArraydProcess, writes: Writes, seconds: float) -> None:
    """WRITERS writes on their way at a time; the array is killed in their midst."""
    async with await Session.open(array.addresses[0], array.target) as session:
        for lun in range(VOLUMES):
            while (await session.command(bytes(6), lun=lun)).status == CHECK_CONDITION:
                pass
        writers = [asyncio.create_task(write_for_ever(session, writes)) for _ in range(WRITERS)]
        await asyncio.sleep(seconds)
        array.kill()
        ended = await asyncio.gather(*writers, return_exceptions=True)
    assert {type(error) for error in ended} == {IscsiError}, ended


def start(stack: ExitStack, folder: Path) -> PairedArrays:
    names = [f"v{number}" for number in range(VOLUMES)]
    return PairedArrays(stack, folder, {name: {"size": VOLUME_BYTES} for name in names}, names, 64 * MIB)


async def write_one(array: ArraydProcess, number: int, lun: int = 0) -> int:
    """The sense key of a write; 0: it went well."""
    async with session_with(array) as session:
        answer = await session.command(write_10(number), lun=lun, data_out=data_of(number))
        return 0 if answer.status == GOOD else answer.sense_key


async def test_figures_17_and_18_the_life_of_a_group_with_a_swap_there_and_back(tmp_path: Path) -> None:
    """From paircreate to pairsplit -S, with a drill and a swap there and back."""
    with ExitStack() as stack:
        arrays = start(stack, tmp_path)
        assert await write_one(arrays.near, 1) == 0
        arrays.tool("paircreate", "-vl", "-f", "async", "-c", "15")
        assert await write_one(arrays.near, 2, 1) == 0
        arrays.wait_for_pair(SECONDS)
        arrays.tool("pairvolchk", "-ss", expected=43)
        assert await contents(arrays.far) == await contents(arrays.near)
        assert await write_one(arrays.far, 3) == DATA_PROTECT

        arrays.tool("pairsplit", "-rw")
        arrays.tool("pairvolchk", "-ss", expected=44)
        assert await write_one(arrays.far, 4) == 0
        assert await write_one(arrays.near, 5, 2) == 0
        split = await contents(arrays.near)
        assert await contents(arrays.far) != split
        arrays.tool("pairresync")
        arrays.wait_for_pair(SECONDS)
        assert await contents(arrays.far) == split

        arrays.tool("horctakeover", "--at", "far", expected=1)
        assert await write_one(arrays.near, 6) == DATA_PROTECT
        assert await write_one(arrays.far, 7) == 0
        arrays.wait_for_pair(SECONDS)
        assert await contents(arrays.near) == await contents(arrays.far)
        arrays.tool("horctakeover", expected=1)
        assert await write_one(arrays.near, 8) == 0

        arrays.tool("pairsplit", "-S")
        arrays.tool("pairvolchk", expected=1)
        assert await write_one(arrays.far, 9) == 0


async def test_every_takeover_finds_a_prefix(tmp_path: Path) -> None:
    """The P-VOLs' array is killed at random moments; what the other one has is what it reports."""
    chance = random.Random(SEED)
    with ExitStack() as stack:
        arrays = start(stack, tmp_path)
        arrays.tool("paircreate", "-vl", "-f", "async", "-c", "15")
        arrays.wait_for_pair(SECONDS)
        before = await contents(arrays.near)
        first = 1
        for turn in range(TAKEOVERS):
            writes = Writes(first)
            await write_until_killed(arrays.near, writes, 0.1 + chance.random() * 0.5)
            said = arrays.tool("horctakeover", "--at", "far", expected=5)
            taken = await contents(arrays.far)
            present = writes.present(taken, before)
            writes.check_order(present)
            assert len(present) == int(said.split()[-1]), f"turn {turn}: {said}"
            assert await write_one(arrays.far, PLACES - 1, 0) == 0
            taken[0] = taken[0][:-WRITE_BYTES] + data_of(PLACES - 1)

            arrays.near.start()
            arrays.tool("pairresync", "-swaps", "--at", "far")
            arrays.wait_for_pair(SECONDS)
            assert await contents(arrays.far) == taken, "nothing changes what was taken over"
            arrays.tool("horctakeover", expected=1)
            assert await contents(arrays.near) == taken
            before, first = taken, first + writes.begun
