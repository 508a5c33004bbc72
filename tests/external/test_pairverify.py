"""pairverify between two real arrays, while hosts write as quickly as they can: what is flipped behind their backs is
found, nothing else is, and it is repaired from either side.

    ARRAYD_SEED=7 pytest tests/external/test_pairverify.py
"""

import asyncio
import json
import os
import random
from asyncio import to_thread
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab.daemon import ArraydProcess
from tests.lab.initiator import GOOD
from tests.lab.numbered import SECTOR_BYTES, session_with
from tests.lab.paired import ASYNC, PairedArrays

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("ARRAYD_SEED", "11"))
SECONDS: Final = 60
REGION: Final = 4096
VOLUME_BYTES: Final = 48 << 20
VOLUMES: Final = 3
JOURNAL_BYTES: Final = 512 << 20
DEPTH: Final = 16
SYNC: Final[Mapping[str, str]] = {"mode": "sync", "fence": "never"}
LENGTHS: Final = (1, 8, 8, 8, 32, 128)
"""Sectors of a write."""

Place = tuple[int, int]
"""A volume, and the offset of a region in it."""


class Load:
    """Writes to random places of all volumes, but not to `kept` ones, DEPTH at a time."""

    def __init__(self, chance: random.Random) -> None:
        self.kept: set[Place] = set()
        self.written = 0
        self._chance = chance
        self._ends = False

    @asynccontextmanager
    async def on(self, array: ArraydProcess) -> AsyncIterator[None]:
        async with await session_with(array) as session:

            async def write() -> None:
                while not self._ends:
                    lun, sectors = self._chance.randrange(VOLUMES), self._chance.choice(LENGTHS)
                    sector = self._chance.randrange(VOLUME_BYTES // SECTOR_BYTES - sectors)
                    first, last = sector * SECTOR_BYTES // REGION, ((sector + sectors) * SECTOR_BYTES - 1) // REGION
                    if any((lun, at * REGION) in self.kept for at in range(first, last + 1)):
                        continue
                    data = self._chance.randbytes(16) * (sectors * SECTOR_BYTES // 16)
                    command = b"\x8a\0" + sector.to_bytes(8) + sectors.to_bytes(4) + b"\0\0"
                    answer = await session.command(command, lun=lun, data_out=data)
                    assert answer.status == GOOD, answer
                    self.written += 1

            self._ends = False
            tasks = [asyncio.create_task(write()) for _ in range(DEPTH)]
            try:
                yield
            finally:
                self._ends = True
                await asyncio.gather(*tasks)


def flip(array: ArraydProcess, folder: Path, place: Place, chance: random.Random) -> None:
    """One bit of the volume's file is another one, and the array has not written it."""
    volume, offset = place
    path = folder / ("near" if "near" in str(array.target) else "far") / "state" / "volumes" / f"v{volume}.img"
    file = os.open(path, os.O_RDWR)
    try:
        at = offset + chance.randrange(REGION)
        (byte,) = os.pread(file, 1, at)
        os.pwrite(file, bytes([byte ^ 1 << chance.randrange(8)]), at)
    finally:
        os.close(file)


async def verify(arrays: PairedArrays, *options: str, expected: int) -> list[dict[str, Any]]:
    """The ranges that pairverify lists."""
    ended = await to_thread(arrays.run, "pairverify", "--json", *options)
    assert ended.code == expected, ended
    found: list[dict[str, Any]] = json.loads(ended.output)
    return found


def places(rows: list[dict[str, Any]]) -> set[Place]:
    return {
        (int(row["volume"][1:]), at)
        for row in rows
        for at in range(row["offset"], row["offset"] + row["length"], REGION)
    }


@pytest.mark.parametrize("leg", [ASYNC, SYNC], ids=["async", "sync"])
async def test_flips_are_found_and_repaired_under_full_load(tmp_path: Path, leg: Mapping[str, str]) -> None:
    chance = random.Random(SEED)
    load = Load(chance)
    with ExitStack() as stack:
        names = [f"v{number}" for number in range(VOLUMES)]
        volumes = {name: {"size": VOLUME_BYTES} for name in names}
        arrays = PairedArrays(stack, tmp_path, volumes, names, JOURNAL_BYTES, None, leg)
        arrays.tool("paircreate", "-vl", "-c", "15")
        async with load.on(arrays.near):
            await asyncio.sleep(1)
        await to_thread(arrays.wait_for_pair, SECONDS)
        async with load.on(arrays.near):
            await asyncio.sleep(0.5)
            assert await verify(arrays, expected=0) == []
            flipped: set[Place] = {
                (number, at * REGION)
                for number in range(VOLUMES)
                for at in chance.sample(range(VOLUME_BYTES // REGION), 2)
            }
            load.kept = flipped
            await asyncio.sleep(0.5)  # what was on its way there has ended
            if leg == ASYNC:
                await to_thread(arrays.tool, "pairsyncwait", "-t", str(SECONDS))
            for number, place in enumerate(sorted(flipped)):
                flip(arrays.near if number % 2 else arrays.far, tmp_path, place, chance)
            rows = await verify(arrays, expected=1)
            assert (places(rows), {row["what"] for row in rows}) == (flipped, {"differs"})
            written = load.written
            rows = await verify(arrays, "-d", "v0", "--repair-from", "near", expected=2)
            assert places(rows) == {place for place in flipped if place[0] == 0}
            rows = await verify(arrays, "--repair-from", "far", expected=2)
            assert (places(rows), {row["what"] for row in rows}) == (
                {place for place in flipped if place[0]},
                {"mended"},
            )
            load.kept = set()
            assert await verify(arrays, expected=0) == []
            assert load.written > written + 100, "hosts do not write meanwhile"
        arrays.tool("pairsyncwait", "-t", str(SECONDS))
        for name in names:
            near, far = (
                (tmp_path / side / "state" / "volumes" / f"{name}.img").read_bytes() for side in ("near", "far")
            )
            assert near == far
        assert {str(state) for state in arrays.status(arrays.near).by_number.values()} == {"P-VOL PAIR"}


@pytest.mark.parametrize("leads", ["near", "far"])
@pytest.mark.parametrize("leg", [ASYNC, SYNC], ids=["async", "sync"])
async def test_a_repair_that_an_array_dies_in_is_done_by_the_next_one(
    tmp_path: Path, leg: Mapping[str, str], leads: str
) -> None:
    chance = random.Random(SEED)
    with ExitStack() as stack:
        names = [f"v{number}" for number in range(VOLUMES)]
        volumes = {name: {"size": VOLUME_BYTES} for name in names}
        arrays = PairedArrays(stack, tmp_path, volumes, names, JOURNAL_BYTES, None, leg)
        arrays.tool("paircreate", "-vl", "-c", "15")
        async with Load(chance).on(arrays.near):
            await asyncio.sleep(0.5)
        await to_thread(arrays.wait_for_pair, SECONDS)
        for array in (arrays.near, arrays.far):
            for at in chance.sample(range(VOLUME_BYTES // REGION), 30):
                flip(arrays.near if at % 2 else arrays.far, tmp_path, (at % VOLUMES, at * REGION), chance)
            arrays.tool("pairverify", "--repair-from", leads, "--no-wait")
            await asyncio.sleep(chance.random() * 0.1)
            array.kill()
            array.start()
            arrays.tool("pairevtwait", "-s", "pair", "-t", str(SECONDS))
            if array is arrays.near:
                assert arrays.run("pairverify", "--watch").code in (0, 1, 2)
            else:
                arrays.tool("pairverify", "--watch", expected=134)
            assert arrays.run("pairverify", "--repair-from", leads).code in (0, 2)
            arrays.tool("pairverify")
        for name in names:
            near, far = (
                (tmp_path / side / "state" / "volumes" / f"{name}.img").read_bytes() for side in ("near", "far")
            )
            assert near == far
