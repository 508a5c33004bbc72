"""Synchronous pairs between two real arrays (figure 24), by the host's verbs: what was answered is on both sides,
whatever is killed.

Each round writes across three volumes while the pair is PAIR, and kills an array in the middle of it:

    primary       the other side is taken over: all that was answered is there, and nothing that was never sent
    and back      it is started again: hosts find all that was answered, and both sides are the same
    secondary     hosts' writes wait, and go on alone (fence never); it is started again, and what differs is copied
    both          both are started again, and the pair is PAIR or is resynced

    ARRAYD_KILLS=200 ARRAYD_SEED=7 pytest tests/external/test_sync_pairs.py -k kill
"""

import asyncio
import os
import random
from asyncio import to_thread
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from arrayd.replication.exit_codes import Takeover
from arrayd.replication.statuses import State
from tests.lab.numbered import VOLUME_BYTES, VOLUMES, Numbered, Writers, contents, write_one
from tests.lab.paired import PairedArrays, Wire, wire

KILLS: Final = int(os.environ.get("ARRAYD_KILLS", "8"))
"""Rounds; more by hand."""
SEED: Final = int(os.environ.get("ARRAYD_SEED", "24"))

pytestmark = [pytest.mark.external, pytest.mark.timeout(60 + 60 * KILLS)]

SECONDS: Final = 60
DATA_PROTECT: Final = 0x07
LIFE_SECONDS: Final = 0.5
"""At the most, until something is killed."""
KINDS: Final = ("primary", "and back", "secondary", "both")


def start(stack: ExitStack, folder: Path, fence: str, between: Wire | None = None) -> PairedArrays:
    names = [f"v{number}" for number in range(VOLUMES)]
    volumes = {name: {"size": VOLUME_BYTES} for name in names}
    return PairedArrays(stack, folder, volumes, names, 64 << 20, between, {"mode": "sync", "fence": fence})


async def test_figure_24_the_life_of_a_synchronous_group_with_a_swap_there_and_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        arrays = start(stack, tmp_path, "never")
        assert await write_one(arrays.near, 1) == 0
        arrays.tool("paircreate", "-vl", "-f", "never", "-c", "15")
        assert await write_one(arrays.near, 2, 1) == 0
        arrays.wait_for_pair(SECONDS)
        arrays.tool("pairvolchk", "-ss", expected=23)
        assert await contents(arrays.far) == await contents(arrays.near)
        assert await write_one(arrays.near, 3, 2) == 0
        assert await contents(arrays.far) == await contents(arrays.near), "answered, and not on both sides"
        assert await write_one(arrays.far, 3) == DATA_PROTECT

        arrays.tool("pairsplit", "-rw")
        arrays.tool("pairvolchk", "-ss", expected=24)
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
        assert await contents(arrays.near) == await contents(arrays.far)
        arrays.tool("horctakeover", expected=1)
        assert await write_one(arrays.near, 8) == 0
        assert await contents(arrays.near) == await contents(arrays.far)

        arrays.tool("pairsplit", "-S")
        arrays.tool("pairvolchk", expected=1)
        assert await write_one(arrays.far, 9) == 0


@pytest.mark.parametrize("fence", ["never", "data", "status"])
async def test_a_link_that_is_cut_and_what_the_fence_level_says(tmp_path: Path, fence: str) -> None:
    with ExitStack() as stack:
        async with wire() as between:
            arrays = start(stack, tmp_path, fence, between)
            await to_thread(arrays.tool, "paircreate", "-vl", "-c", "15")
            await to_thread(arrays.wait_for_pair, SECONDS)
            assert await write_one(arrays.near, 1) == 0
            between.cut()
            sense_key = await write_one(arrays.near, 2, 1)
            states = set((await to_thread(arrays.status, arrays.near)).by_number.values())
            if fence == "never":
                assert (sense_key, states) == (0, {State.P_PSUE})
                assert await write_one(arrays.near, 3, 2) == 0
            else:
                assert (sense_key, states) == (DATA_PROTECT, {State.P_PSUE_FENCED})
                assert await write_one(arrays.near, 3, 2) == DATA_PROTECT
                await to_thread(arrays.tool, "horctakeover", expected=Takeover.PVOL_PSUE)
                assert await write_one(arrays.near, 3, 2) == 0
            written = await contents(arrays.near)
            between.mend()
            await to_thread(arrays.tool, "pairevtwait", "-s", "psue", "-t", str(SECONDS), "--at", "far")
            assert await contents(arrays.far) != written
            await to_thread(arrays.tool, "pairresync")
            await to_thread(arrays.wait_for_pair, SECONDS)
            assert await contents(arrays.far) == await contents(arrays.near) == written


async def test_a_short_cut_makes_writes_wait(tmp_path: Path) -> None:
    with ExitStack() as stack:
        async with wire() as between:
            arrays = start(stack, tmp_path, "data", between)
            await to_thread(arrays.tool, "paircreate", "-vl", "-c", "15")
            await to_thread(arrays.wait_for_pair, SECONDS)
            between.cut()
            writing = asyncio.ensure_future(write_one(arrays.near, 1))
            await asyncio.sleep(1)
            assert not writing.done()
            between.mend()
            assert await writing == 0
            assert await contents(arrays.far) == await contents(arrays.near)
            assert set((await to_thread(arrays.status, arrays.near)).by_number.values()) == {State.P_PAIR}


class Rounds:
    """Rounds one after the other, each of which begins and ends in PAIR."""

    def __init__(self, arrays: PairedArrays) -> None:
        self.arrays = arrays
        self.primary, self.secondary = arrays.near, arrays.far
        self.ended: Counter[str] = Counter()
        self.answered = 0
        """Writes of all rounds."""
        self._writes = Numbered([])
        self._writers: Writers

    async def _tool(self, verb: str, *arguments: str, expected: int = 0) -> str:
        return await to_thread(self.arrays.tool, verb, *arguments, expected=expected)

    async def round(self, chance: random.Random, kind: str) -> None:
        """One of them."""
        before = await contents(self.primary)
        assert await contents(self.secondary) == before
        self._writes = Numbered(before, self._writes.last)
        self._writers = await Writers.start(self.primary, self._writes, chance)
        await asyncio.sleep(chance.random() * LIFE_SECONDS)
        await {"primary": self._primary, "and back": self._and_back, "secondary": self._secondary, "both": self._both}[
            kind
        ](chance)
        self.ended[kind] += 1
        self.answered += len(self._writes)

    async def _primary(self, _chance: random.Random) -> None:
        self.primary.kill()
        await self._writers.died()
        at = self.arrays.name(self.secondary)
        await self._tool("horctakeover", "--at", at, expected=Takeover.SVOL_SSUS)
        self._writes.settle(await contents(self.secondary))
        assert await write_one(self.secondary, 1) == 0
        await to_thread(self.primary.start)
        await self._tool("pairresync", "-swaps", "--at", at)
        self.primary, self.secondary = self.secondary, self.primary
        await self._paired()

    async def _and_back(self, _chance: random.Random) -> None:
        self.primary.kill()
        await self._writers.died()
        await to_thread(self.primary.start)
        found = await contents(self.primary)
        self._writes.settle(found)
        assert await contents(self.secondary) == found, "not the same, and hosts see it"
        assert set((await to_thread(self.arrays.status, self.primary)).by_number.values()) == {State.P_PAIR}

    async def _secondary(self, chance: random.Random) -> None:
        self.secondary.kill()
        await asyncio.sleep(chance.random() * LIFE_SECONDS)
        if chance.random() < 0.5:
            await to_thread(self.secondary.start)  # in time: hosts' writes have waited, and go on
        await self._tool(
            "pairevtwait", "-s", "pair", "psue", "-t", str(SECONDS), "--at", self.arrays.name(self.primary)
        )
        await asyncio.sleep(chance.random() * LIFE_SECONDS)
        await self._writers.stop()
        await to_thread(self.secondary.restart)
        self._writes.settle(await contents(self.primary))
        await self._paired()

    async def _both(self, _chance: random.Random) -> None:
        for array in (self.secondary, self.primary):
            array.kill()
        await self._writers.died()
        await asyncio.gather(to_thread(self.primary.start), to_thread(self.secondary.start))
        self._writes.settle(await contents(self.primary))
        await self._paired()

    async def _paired(self) -> None:
        """PAIR, by a resync if the pair was suspended, and both sides are alike."""
        at = self.arrays.name(self.primary)
        for _ in range(SECONDS):
            states = set((await to_thread(self.arrays.status, self.primary)).by_number.values())
            if states == {State.P_PSUE}:
                await self._tool("pairresync", "--at", at)
            elif states == {State.P_PAIR}:
                break
            await asyncio.sleep(1)
        await to_thread(self.arrays.wait_for_pair, SECONDS)
        assert await contents(self.primary) == await contents(self.secondary)


async def test_what_was_answered_is_there_whatever_is_killed(tmp_path: Path) -> None:
    """At random moments."""
    with ExitStack() as stack:
        arrays = start(stack, tmp_path, "never")
        arrays.tool("paircreate", "-vl", "-c", "15")
        arrays.wait_for_pair(SECONDS)
        rounds = Rounds(arrays)
        for turn in range(KILLS):
            chance = random.Random(f"{SEED} {turn}")
            kind = KINDS[turn] if turn < len(KINDS) else chance.choice(KINDS)
            print(f"ARRAYD_SEED={SEED}, round {turn}: {kind}", flush=True)
            await rounds.round(chance, kind)
        print(f"{dict(rounds.ended)}, {rounds.answered} writes", flush=True)
