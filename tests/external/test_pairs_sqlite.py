"""Two SQLite databases on two LUNs of one group, written in turn with one counter: the array is killed at random
moments, the host with it, and the next host finds at the other array what was committed up to some transaction. That
one may have been killed before, so that it misses some.

What one database has of it and what the other has fit together, because all volumes of a group have one order.
"""

import os
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.lab import parts
from tests.lab.mounted import Mounted
from tests.lab.paired import PairedArrays
from tests.lab.workload import rows_of, workload

TAKEOVERS: Final = int(os.environ.get("ARRAYD_DATABASE_TAKEOVERS", "2"))
"""Rounds; more by hand."""
SEED: Final = int(os.environ.get("ARRAYD_SEED", "410"))

pytestmark = [pytest.mark.external, pytest.mark.timeout(60 + 60 * TAKEOVERS)]

VOLUME: Final = {"size": "32MiB"}
JOURNAL_BYTES: Final = 64 << 20
SECONDS: Final = 60
LIFE_SECONDS: Final = 1.0
"""At the most, from when something is known to be on the S-VOLs to the kill."""
ROWS: Final = 10
"""That are committed before that, at the least."""


@pytest.fixture(autouse=True)
def _needs() -> None:
    parts.require_fuse()


def databases_on(mounted: Mounted) -> list[Path]:
    return [folder / "records.db" for folder in mounted.folders]


def check_rows(databases: Sequence[Path], synced: int, committed: int) -> int:
    """Both databases have the first rows, without a hole; how many. All that the S-VOLs had for certain are there, and
    at most the one that was on its way when the host went down."""
    even, odd = (rows_of(each) if each.exists() else [] for each in databases)
    assert not any(number % 2 for number in even)
    assert all(number % 2 for number in odd)
    rows = sorted(even + odd)
    assert rows == list(range(1, len(rows) + 1)), f"even rows to {even[-1:]}, odd ones to {odd[-1:]}"
    assert synced <= len(rows) <= committed + 1
    return len(rows)


def test_two_databases_have_one_prefix_after_every_takeover(tmp_path: Path) -> None:
    """Each round on the array that was taken over in the one before."""
    with ExitStack() as stack:
        names = ["even", "odd"]
        arrays = PairedArrays(stack, tmp_path, dict.fromkeys(names, VOLUME), names, JOURNAL_BYTES)
        primary, secondary = arrays.near, arrays.far
        arrays.tool("paircreate", "-vl", "-f", "async", "-c", "15")
        host = stack.enter_context(ExitStack())
        mounted, rows = Mounted(host, tmp_path / "host", primary, len(names), made=True), 0
        for turn in range(TAKEOVERS):
            chance = random.Random(f"{SEED} {turn}")
            arrays.wait_for_pair(SECONDS)
            with workload(rows + 1, *databases_on(mounted)) as load, mounted.abandoned_on_error():
                load.wait_for(ROWS)
                synced = load.committed
                arrays.tool("pairsyncwait", "-t", str(SECONDS))
                time.sleep(chance.random() * LIFE_SECONDS)
                both = chance.random() < 0.5
                if both:
                    secondary.kill()
                    time.sleep(chance.random() * LIFE_SECONDS)
                primary.kill()
                mounted.abandon()
            host.close()
            if both:
                secondary.start()

            said = arrays.tool("horctakeover", "--at", arrays.name(secondary), expected=5)
            mounted = Mounted(host, tmp_path / f"host{turn}", secondary, len(names), made=False)
            rows = check_rows(databases_on(mounted), synced, load.committed)
            print(f"ARRAYD_SEED={SEED}, round {turn}: {rows} rows of {load.committed}, {synced} for certain; {said}")
            mounted.check()
            primary.start()
            arrays.tool("pairresync", "-swaps", "--at", arrays.name(secondary))
            primary, secondary = secondary, primary
        host.close()
