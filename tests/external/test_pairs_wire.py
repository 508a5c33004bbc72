"""What goes over the wire between two arrays with a group of pairs, and how soon: after a takeover only what differs is
copied back, and after a cut the S-VOLs soon have all that was written."""

import os
import random
import time
from asyncio import to_thread
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from arrayd.replication.bitmap.format import REGION_BYTES
from tests.lab.daemon import ArraydProcess
from tests.lab.initiator import GOOD
from tests.lab.numbered import PLACE_BYTES, PLACES, VOLUME_BYTES, VOLUMES, contents, data_of, session_with, write_10
from tests.lab.paired import PairedArrays, wire

CUT_SECONDS: Final = float(os.environ.get("ARRAYD_CUT_SECONDS", "3"))
"""How long the link is cut; more by hand."""

pytestmark = [pytest.mark.external, pytest.mark.timeout(120 + CUT_SECONDS)]

SECONDS: Final = 60
CHANGED: Final = 500
"""Places of each volume that are written to while the sides differ."""
SHARE: Final = 1.05
"""Of what has changed, that goes over the wire."""
BITMAP_BYTES: Final = VOLUMES * VOLUME_BYTES // REGION_BYTES // 8
REST_BYTES: Final = 16 * 1024
"""For what the arrays tell each other besides in some seconds: a fraction of what is compared."""
BACK_SECONDS: Final = 5.0
"""From the link's return on."""


async def write(array: ArraydProcess, first: int) -> int:
    """Writes to CHANGED places of each volume, scattered; how many bytes."""
    chance = random.Random(first)
    async with await session_with(array) as session:
        for lun in range(VOLUMES):
            for number, place in enumerate(chance.sample(range(PLACES), CHANGED), first):
                answer = await session.command(write_10(place), lun=lun, data_out=data_of(number))
                assert answer.status == GOOD
    return VOLUMES * CHANGED * PLACE_BYTES


async def test_only_differences_are_copied_back_and_a_cut_is_over_soon(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(VOLUMES)]
    with ExitStack() as stack:
        async with wire() as between:
            arrays = PairedArrays(
                stack, tmp_path, {name: {"size": VOLUME_BYTES} for name in names}, names, 64 << 20, between
            )
            await write(arrays.near, 1)
            await to_thread(arrays.tool, "paircreate", "-vl", "-f", "async", "-c", "15")
            await to_thread(arrays.wait_for_pair, SECONDS)
            assert between.carried > VOLUMES * CHANGED * PLACE_BYTES, "the initial copy"

            arrays.near.kill()
            await to_thread(arrays.tool, "horctakeover", "--at", "far", expected=5)
            changed = await write(arrays.far, 10_000)
            await to_thread(arrays.near.start)
            await to_thread(arrays.tool, "pairevtwait", "-s", "psus", "-t", str(SECONDS))
            before = between.carried
            await to_thread(arrays.tool, "pairresync", "-swaps", "--at", "far")
            await to_thread(arrays.wait_for_pair, SECONDS)
            copied = between.carried - before
            print(f"{copied} bytes for {changed} that differed: {copied / changed:.3f}")
            assert changed < copied <= SHARE * changed + BITMAP_BYTES + REST_BYTES
            assert await contents(arrays.near) == await contents(arrays.far)

            between.cut()
            await write(arrays.far, 20_000)
            await to_thread(time.sleep, CUT_SECONDS)
            between.mend()
            back = time.monotonic()
            await to_thread(arrays.wait_for_pair, SECONDS)
            took = time.monotonic() - back
            print(f"the S-VOLs had all {took:.1f} s after a cut of {CUT_SECONDS} s")
            assert took < BACK_SECONDS
            assert await contents(arrays.near) == await contents(arrays.far)
