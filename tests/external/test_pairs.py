"""A group of pairs between two real arrays, by the host's verbs: its life, and the promise when something is killed.

Each round writes across three volumes, in COPY or in PAIR, has its fault, and takes over at the other side: the S-VOLs
are the group's writes 1 to N for the N that is reported, or, if their copy had not ended, what they were before it; or
it is refused, because they never were anything. Then the sides change places, and only what differs is copied.

    ARRAYD_TAKEOVERS=200 ARRAYD_SEED=7 pytest tests/external/test_pairs.py -k takeover

What happens in a round is drawn from the seed and its number, and printed; which write was on its way, only time tells.
"""

import asyncio
import os
import random
from asyncio import to_thread
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from arrayd.commands.results import Result
from arrayd.replication.exit_codes import Takeover
from arrayd.replication.statuses import State
from tests.lab.daemon import ArraydProcess
from tests.lab.numbered import VOLUME_BYTES, VOLUMES, Numbered, Writers, contents, write_one
from tests.lab.paired import PairedArrays, Wire, wire

TAKEOVERS: Final = int(os.environ.get("ARRAYD_TAKEOVERS", "4"))
"""Rounds; more by hand."""
SEED: Final = int(os.environ.get("ARRAYD_SEED", "1295"))
"""This one's first four rounds are of four kinds."""

pytestmark = [pytest.mark.external, pytest.mark.timeout(60 + 60 * TAKEOVERS)]

JOURNAL_BYTES: Final = 64 << 20
SECONDS: Final = 60
DATA_PROTECT: Final = 0x07
SLOWLY, FAST = 3, 15
"""Paces of copies."""
LIFE_SECONDS: Final = 0.3
"""At the most, from one thing that happens in a round to the next."""

BEGINS: Final = ("swaps", "swaps", "swapp", "split", "create")
"""How the copy begins: the side that was taken over turns the pairs round, or the other one does; or they are PAIR once
more, and are split, written on both sides, and resynced; or they end and are made anew."""
WHEN: Final = (State.S_COPY, State.S_PAIR)
"""What the S-VOLs are when the fault comes, or were a moment ago."""
FAULTS: Final = ("primary", "secondary", "both", "both, and on", "link", "link, and on")
"""What is killed, or cut. `and on`: both are started again, or the link comes back, before the primary is killed."""


def start(stack: ExitStack, folder: Path, between: Wire | None = None) -> PairedArrays:
    names = [f"v{number}" for number in range(VOLUMES)]
    return PairedArrays(stack, folder, {name: {"size": VOLUME_BYTES} for name in names}, names, JOURNAL_BYTES, between)


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


class Rounds:
    """Rounds one after the other. `primary` has the data that lead: first it is in no pair, later S-VOLs in SSWS."""

    def __init__(self, arrays: PairedArrays, between: Wire) -> None:
        self.arrays = arrays
        self.wire = between
        self.primary, self.secondary = arrays.near, arrays.far
        self.ended: Counter[str] = Counter()
        """How takeovers have ended."""
        self._dead: set[ArraydProcess] = set()
        self._chance = random.Random()
        self._before: list[bytes] = []
        """What the S-VOLs were when their copy began."""
        self._writes = Numbered([])
        """Those of the epoch, to the P-VOLs."""
        self._writers: Writers | None = None

    async def round(self, chance: random.Random, begins: str, when: State, fault: str) -> None:
        """One round, at the end of which the other side leads."""
        self._chance = chance
        await self._begin(begins, SLOWLY if when is State.S_COPY else FAST)
        await self._write()
        if when is State.S_PAIR:
            await self._live()
            await self._until_pair()
            await self._write()
        await self._live()
        await self._strike(fault)
        taken = await self._take_over(may_refuse=begins == "create")
        if taken is None:
            # Nothing to go back to: what was struck comes back, and the copy goes on to its end.
            await self._revive()
            await to_thread(self.arrays.set_pace, FAST)
            await self._until_pair()
            await self._write()
            await self._live()
            await self._strike("primary")
            taken = await self._take_over(may_refuse=False)
            assert taken is not None
        await self._turn_round(taken)

    async def _tool(self, verb: str, *arguments: str, expected: int = 0) -> str:
        return await to_thread(self.arrays.tool, verb, *arguments, expected=expected)

    async def _live(self) -> None:
        await asyncio.sleep(self._chance.random() * LIFE_SECONDS)

    # -- copied ------------------------------------------------------------------------------------------------------

    async def _begin(self, begins: str, pace: int) -> None:
        """A copy begins, from `primary` to `secondary`."""
        paced = ("-c", str(pace))
        at, beside = (("--at", self.arrays.name(each)) for each in (self.primary, self.secondary))
        if begins == "split":
            await self._tool("pairresync", "-swaps", *at, "-c", str(FAST))
            await self._until_pair(alike_only=True)
            await self._tool("pairsplit", "-rw", *at)
            for array in (self.primary, self.secondary):
                await self._written(array, await contents(array))
        elif begins == "create":
            await self._tool("pairsplit", "-S", *at)
        self._before = await contents(self.secondary)
        self._writes = Numbered(await contents(self.primary), self._writes.last)
        if begins == "create":
            await self._tool("paircreate", "-vl", "-f", "async", *paced, *at)
        elif begins == "split":
            await self._tool("pairresync", *at, *paced)
        else:
            await self._tool("pairresync", f"-{begins}", *(at if begins == "swaps" else beside), *paced)

    async def _until_pair(self, *, alike_only: bool = False) -> None:
        """PAIR, and both sides are alike, and have all that was written."""
        if self._writers is not None:
            await self._stopped()
        await to_thread(self.arrays.wait_for_pair, SECONDS)
        primary = await contents(self.primary)
        assert await contents(self.secondary) == primary, "PAIR, and not the same"
        if not alike_only:
            self._writes.check_whole(primary)

    # -- written -----------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        self._writers = await Writers.start(self.primary, self._writes, self._chance)

    async def _stopped(self) -> None:
        writers, self._writers = self._writers, None
        assert writers is not None
        await (writers.died() if self.primary in self._dead else writers.stop())

    async def _written(self, array: ArraydProcess, held: Sequence[bytes]) -> list[bytes]:
        """What an array has that held this, after some writes."""
        writes = Numbered(held, self._writes.last)
        writers = await Writers.start(array, writes, self._chance)
        await self._live()
        await writers.stop()
        self._writes.last = writes.last
        return writes.whole()

    # -- struck ------------------------------------------------------------------------------------------------------

    async def _strike(self, fault: str) -> None:
        if fault.startswith("link"):
            self.wire.cut()
            await self._live()
            if fault == "link":
                return
            self.wire.mend()
            await self._live()
        if fault != "primary" and not fault.startswith("link"):
            self._kill(self.secondary)
        if fault == "secondary":
            await self._live()
            await self._revive()
            await self._live()
        self._kill(self.primary)
        await self._stopped()
        if fault.startswith("both"):
            await self._revive(*([self.secondary] if fault == "both" else []))
        if fault == "both, and on":
            await self._write()
            await self._live()
            self._kill(self.primary)
            await self._stopped()

    def _kill(self, array: ArraydProcess) -> None:
        array.kill()
        self._dead.add(array)

    async def _revive(self, *only: ArraydProcess) -> None:
        """What is dead is started again, and the link is there."""
        settle = self.primary in self._dead and not only
        await asyncio.gather(*(to_thread(array.start) for array in only or self._dead))
        self._dead -= set(only or self._dead)
        self.wire.mend()
        if settle and self._writers is None:
            self._writes.settle(await contents(self.primary))

    # -- taken over --------------------------------------------------------------------------------------------------

    async def _take_over(self, *, may_refuse: bool) -> list[bytes] | None:
        """What the other side has then, checked; None: it was refused."""
        arrays, secondary = self.arrays, self.secondary
        shown = await to_thread(arrays.status, secondary)
        states = set(shown.by_number.values())
        code, said, complaint = await to_thread(arrays.run, "horctakeover", "--at", arrays.name(secondary))
        if code == Result.CONFLICT and may_refuse:
            assert states == {State.S_COPY}, f"{states}: {complaint}"
            self.ended["refused"] += 1
            return None
        assert code == Takeover.SVOL_SSUS, f"{code}: {said}{complaint}"
        reported = int(said.split()[-1])
        after = await to_thread(arrays.status, secondary)
        assert (after.restored or 0) == reported, "pair-status has another N than horctakeover"
        taken = await contents(secondary)
        if taken == self._before and State.S_COPY in states:
            assert not may_refuse, "they never were anything"
            assert reported == 0
            self.ended["went back"] += 1
            return taken
        present = self._writes.prefix(taken)
        assert present == reported, f"{present} writes are there, and {reported} reported: {said}"
        if State.S_COPY not in states:
            assert (shown.restored or 0) <= reported, f"{shown.restored} were restored before, now {reported}"
        self.ended["prefix"] += 1
        return taken

    async def _turn_round(self, taken: Sequence[bytes]) -> None:
        """Hosts write where it was taken over; the other side comes back, and neither overwrites the other."""
        alive = self.primary not in self._dead
        if self._writers is not None:
            await self._live()
            await self._stopped()
        leads = await self._written(self.secondary, taken)
        await self._revive()
        if alive:
            await self._both_written(leads)
        self.primary, self.secondary = self.secondary, self.primary

    async def _both_written(self, leads: Sequence[bytes]) -> None:
        """Two sides that hosts have written to meet."""
        primary, secondary = self.primary, self.secondary
        await self._tool("pairevtwait", "-s", "psus", "-t", str(SECONDS))
        await self._tool("pairresync", "--at", self.arrays.name(primary), expected=Result.CONFLICT)
        self._writes.check_whole(await contents(primary))
        assert await contents(secondary) == list(leads), "what was taken over is written over"


async def test_every_takeover_finds_a_prefix_or_what_was_before(tmp_path: Path) -> None:
    """At random moments."""
    with ExitStack() as stack:
        async with wire() as between:
            rounds = Rounds(start(stack, tmp_path, between), between)
            for turn in range(TAKEOVERS):
                chance = random.Random(f"{SEED} {turn}")
                begins = chance.choice(BEGINS) if turn else "create"
                when, fault = chance.choice(WHEN), chance.choice(FAULTS)
                print(f"ARRAYD_SEED={SEED}, round {turn}: {begins}, {when}, {fault}", flush=True)
                await rounds.round(chance, begins, when, fault)
                print(f"{dict(rounds.ended)}", flush=True)
