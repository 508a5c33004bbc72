"""Two groups at once between two whole arrays, one in each direction, with hosts that write to both: what is done to
one of them is done to that one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from arrayd.replication.statuses import State
from tests.commands import test_pairs
from tests.commands.test_pairs import LUN, OTHER, VOLUMES, Both, new
from tests.lab.commanding import HostLun
from tests.lab.waiting import until, until_told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

arrays = test_pairs.arrays
"""The fixture."""

BLOCK_BYTES = 4096
PART_BYTES = 64 * 1024
BLOCKS = 64
"""Of each volume, that are written again and again."""
THERE, BACK = "there", "back"
"""The groups: from a to b, and from b to a."""
SOURCE = {THERE: "a", BACK: "b"}
NAMES = {THERE: ("data", "long"), BACK: ("log",)}
JOURNALS = {THERE: "journal", BACK: "second"}


class Writer:
    """The host of a group: writes 1, 2, 3, … to its P-VOLs in turn, each when the one before is answered."""

    def __init__(self, luns: Sequence[HostLun]) -> None:
        self.luns = luns
        self.answered = 0
        self._going = asyncio.Event()
        self._under_way = asyncio.Lock()

    async def run(self) -> None:
        while await self._going.wait():
            async with self._under_way:
                volume, block = place(self.answered + 1, len(self.luns))
                await self.luns[volume].write(block * BLOCK_BYTES, content(self.answered + 1))
                self.answered += 1

    def go(self) -> None:
        self._going.set()

    async def stop(self) -> None:
        """What is on its way is answered then."""
        self._going.clear()
        async with self._under_way:
            pass

    async def more(self, count: int = 20) -> None:
        """Until so many more are answered."""
        wanted = self.answered + count
        await until(lambda: self.answered >= wanted)


def place(number: int, volumes: int) -> tuple[int, int]:
    """Volume and block that a write goes to."""
    return number % volumes, number // volumes % BLOCKS


def content(number: int) -> bytes:
    return number.to_bytes(8) * (BLOCK_BYTES // 8)


def images(group: str, count: int) -> list[bytes]:
    """What the blocks of a group's volumes have after so many writes."""
    names = NAMES[group]
    made = [bytearray(BLOCKS * BLOCK_BYTES) for _ in names]
    for number in range(1, count + 1):
        volume, block = place(number, len(names))
        made[volume][block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = content(number)
    return [bytes(each) for each in made]


async def contents(arrays: Both, array: str, group: str) -> list[bytes]:
    session = arrays.hosts[array].session
    luns = [HostLun(session, LUN[name]) for name in NAMES[group]]
    parts = range(0, BLOCKS * BLOCK_BYTES, PART_BYTES)
    return [b"".join([await lun.read(offset, PART_BYTES) for offset in parts]) for lun in luns]


async def states(arrays: Both, group: str) -> tuple[set[str], set[str]]:
    """What its two sides show, that with the P-VOLs at first before the other."""
    told = [await arrays.command(array, "pair-status", group=group) for array in (SOURCE[group], OTHER[SOURCE[group]])]
    return {each["state"] for each in told[0]["pairs"]}, {each["state"] for each in told[1]["pairs"]}


async def shows(arrays: Both, group: str, here: State, there: State) -> None:
    """Until both sides do."""

    async def both() -> bool:
        return await states(arrays, group) == ({str(here)}, {str(there)})

    await until_told(both)


async def follows(arrays: Both, group: str, count: int) -> None:
    """Until the S-VOLs have so many writes."""
    wanted = images(group, count)

    async def have() -> bool:
        return await contents(arrays, OTHER[SOURCE[group]], group) == wanted

    await until_told(have)


@asynccontextmanager
async def writers(arrays: Both) -> AsyncIterator[dict[str, Writer]]:
    """That of each group, on its way. None has failed at the end."""
    async with arrays.row.host("a", b"toa00000") as on_a, arrays.row.host("b", b"tob00000") as on_b:
        sessions = {"a": on_a.session, "b": on_b.session}
        made = {
            group: Writer([HostLun(sessions[array], LUN[name]) for name in NAMES[group]])
            for group, array in SOURCE.items()
        }
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each.run()) for each in made.values()]
            yield made
            for task in running:
                task.cancel()


async def make(arrays: Both, group: str, number: int) -> None:
    for array in (OTHER[SOURCE[group]], SOURCE[group]):
        side, journal = "P" if array == SOURCE[group] else "S", LUN[JOURNALS[group]]
        told = {"group": group, "id": f"{number:032x}", "side": side, "journal": journal, "peer_journal": journal}
        told["epoch"] = number
        await arrays.command(array, "pair-create", **new(array, *NAMES[group], **told))


async def test_two_groups_in_both_directions_are_split_and_taken_over_each_by_itself(arrays: Both) -> None:
    assert all(BLOCKS * BLOCK_BYTES * len(names) <= VOLUMES[names[0]]["size"] for names in NAMES.values())
    for number, group in enumerate(SOURCE, 1):
        await make(arrays, group, number)
    async with writers(arrays) as hosts:
        for host in hosts.values():
            host.go()
        for group in SOURCE:
            await shows(arrays, group, State.P_PAIR, State.S_PAIR)
            await hosts[group].more()

        # One is split: its S-VOLs stand still at one of its writes, and the other goes on.
        await arrays.both("pair-split", group=THERE, writable=False)
        split = await contents(arrays, "b", THERE)
        await hosts[THERE].more()
        await hosts[BACK].more()
        assert split in [images(THERE, count) for count in range(hosts[THERE].answered)]
        assert await contents(arrays, "b", THERE) == split
        assert await states(arrays, THERE) == ({str(State.P_PSUS)}, {str(State.S_SSUS)})
        assert await states(arrays, BACK) == ({str(State.P_PAIR)}, {str(State.S_PAIR)})
        await hosts[BACK].stop()
        await follows(arrays, BACK, hosts[BACK].answered)
        hosts[BACK].go()
        await arrays.both("pair-resync", group=THERE, epoch=len(SOURCE) + 1)
        await shows(arrays, THERE, State.P_PAIR, State.S_PAIR)

        # The other is taken over: it has its first so many writes, and the one goes on.
        await hosts[BACK].more()
        told = await arrays.told("a", group=BACK)
        taken = await arrays.command("a", "pair-takeover", **told | {"rows": None})
        assert await contents(arrays, "a", BACK) == images(BACK, taken["sequence"])
        await shows(arrays, BACK, State.P_PSUS, State.S_SSWS)
        await hosts[THERE].more()
        await hosts[BACK].more()
        assert await contents(arrays, "a", BACK) == images(BACK, taken["sequence"])
        await HostLun(arrays.hosts["a"].session, LUN["log"]).write(0, content(1))
        await hosts[THERE].stop()
        await follows(arrays, THERE, hosts[THERE].answered)
        assert await states(arrays, THERE) == ({str(State.P_PAIR)}, {str(State.S_PAIR)})
        assert await states(arrays, BACK) == ({str(State.P_PSUS)}, {str(State.S_SSWS)})
