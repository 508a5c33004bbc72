"""The array is killed under load, again and again: every block whose write was acknowledged holds what was written.

Each write fills its blocks with its own sequence number. One write is on its way to a place at a time, so after a kill
a block holds the last acknowledged write to it or, where one was on its way, that one, whole or in part.
"""

import asyncio
import random
import struct
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.lab.connection import IscsiError
from tests.lab.daemon import ArraydProcess, configuration
from tests.lab.fixtures import StartArray
from tests.lab.initiator import GOOD, Session
from tests.lab.pdu import encode_lun

pytestmark = [pytest.mark.external, pytest.mark.timeout(240)]

KILLS: Final = 5
SESSIONS: Final = 2
DEPTH: Final = 16
WRITES_BETWEEN_KILLS: Final = 400
LOAD_TIMEOUT_S: Final = 60.0
BLOCK_BYTES: Final = 512
PLACE_BLOCKS: Final = 256
PLACES: Final = 256
"""The LUN is cut into places of PLACE_BLOCKS; a write covers the first blocks of a place, any number of them."""
READ_BLOCKS: Final = 2048
SIZES: Final = (1, 8, 8, 8, 8, 15, 64, PLACE_BLOCKS)
"""Blocks a write, chosen at random: immediate data alone, and from 129 blocks on R2Ts behind it."""
SEED: Final = 7143


def filled_block(sequence: int, number: int) -> bytes:
    """Block ``number`` of write ``sequence``, filled with both."""
    return struct.pack(">QQ", sequence, number) * (BLOCK_BYTES // 16)


def filled(sequence: int, blocks: int) -> bytes:
    """The data of a whole write."""
    return b"".join(filled_block(sequence, number) for number in range(blocks))


def write_16(block: int, blocks: int) -> bytes:
    return struct.pack(">BBQIBB", 0x8A, 0, block, blocks, 0, 0)


def read_16(block: int, blocks: int) -> bytes:
    return struct.pack(">BBQIBB", 0x88, 0, block, blocks, 0, 0)


async def ready_session(array: ArraydProcess, isid: int) -> Session:
    """A session whose unit attentions have been told."""
    session = await Session.open(array.addresses[0], array.target, isid=(0x80 << 40 | isid).to_bytes(6))
    for _ in range(8):
        if (await session.command(bytes(6))).status == GOOD:
            break
    return session


@dataclass
class Places:
    """What every block of the LUN may hold: the write acknowledged last, and the one on its way when the array died."""

    acknowledged: list[int] = field(default_factory=lambda: [0] * PLACES * PLACE_BLOCKS)
    on_its_way: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By place: sequence number and blocks of a write whose answer has not come."""
    writes: int = 0
    enough: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when ``enough`` writes have been sent."""

    def check(self, block: int, content: bytes) -> None:
        """Compare one block of the LUN, and take over what it holds."""
        place, within = divmod(block, PLACE_BLOCKS)
        allowed = [self.acknowledged[block]]
        sequence, blocks = self.on_its_way.get(place, (0, 0))
        if within < blocks:
            allowed.append(sequence)
        held = int.from_bytes(content[:8])
        assert held in allowed, f"block {block} holds write {held}, not one of {allowed}"
        expected = filled_block(held, within) if held else bytes(BLOCK_BYTES)
        assert content == expected, f"block {block} is torn"
        self.acknowledged[block] = held


async def write_for_ever(session: Session, places: Places, mine: range, chance: random.Random) -> None:
    """Write to random places of ``mine``, none of them twice at once, until the session ends."""
    while True:
        place, blocks = chance.choice(mine), chance.choice(SIZES)
        if place in places.on_its_way:
            continue
        places.writes += 1
        if places.writes >= places.enough:
            places.reached.set()
        sequence = places.writes
        places.on_its_way[place] = (sequence, blocks)
        first = place * PLACE_BLOCKS
        answer = await session.command(write_16(first, blocks), data_out=filled(sequence, blocks))
        assert answer.status == GOOD
        places.acknowledged[first : first + blocks] = [sequence] * blocks
        del places.on_its_way[place]


async def load_until_killed(array: ArraydProcess, places: Places, chance: random.Random) -> None:
    """DEPTH writers on each of SESSIONS sessions; the array is killed in their midst."""
    sessions = [await ready_session(array, number) for number in range(SESSIONS)]
    share = PLACES // SESSIONS
    writers = [
        asyncio.create_task(write_for_ever(session, places, range(n * share, (n + 1) * share), chance))
        for n, session in enumerate(sessions)
        for _ in range(DEPTH)
    ]
    places.enough = places.writes + WRITES_BETWEEN_KILLS + chance.randrange(WRITES_BETWEEN_KILLS)
    places.reached.clear()
    async with asyncio.timeout(LOAD_TIMEOUT_S):
        await places.reached.wait()
    array.kill()
    ended = await asyncio.gather(*writers, return_exceptions=True)
    assert {type(error) for error in ended} == {IscsiError}, ended
    for session in sessions:
        await session.close()


async def check_all(array: ArraydProcess, places: Places) -> None:
    """Read the whole LUN and compare every block."""
    async with await ready_session(array, SESSIONS) as session:
        for first in range(0, PLACES * PLACE_BLOCKS, READ_BLOCKS):
            answer = await session.command(read_16(first, READ_BLOCKS), read_bytes=READ_BLOCKS * BLOCK_BYTES)
            assert answer.status == GOOD
            assert len(answer.data) == READ_BLOCKS * BLOCK_BYTES
            for number in range(READ_BLOCKS):
                places.check(first + number, answer.data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
    places.on_its_way.clear()


@pytest.mark.parametrize("write_cache", [True, False], ids=["write-cache", "write-through"])
async def test_every_acknowledged_block_survives_kills(start_array: StartArray, write_cache: bool) -> None:
    size = PLACES * PLACE_BLOCKS * BLOCK_BYTES
    array = start_array(configuration({"data": {"size": size, "write_cache": write_cache}}))
    places, chance = Places(), random.Random(SEED)
    for _ in range(KILLS):
        await load_until_killed(array, places, chance)
        array.start()
        await check_all(array, places)
    assert sum(map(bool, places.acknowledged)) > PLACES


@pytest.mark.parametrize("digest", ["None", "CRC32C"])
async def test_the_initiator_reads_back_what_it_wrote(start_array: StartArray, digest: str) -> None:
    """The tool of the test above, where nothing is killed: immediate data, R2Ts, several Data-In, LUN 1."""
    array = start_array(configuration({"data": {"size": "8MiB"}, "more": {"size": "8MiB"}}))
    assert encode_lun(1)[1] == 1
    blocks = (2 << 20) // BLOCK_BYTES
    offer = {"HeaderDigest": digest, "DataDigest": digest, "MaxRecvDataSegmentLength": "65536"}
    async with await Session.open(array.addresses[0], array.target, offer) as session:
        assert session.keys["DataDigest"] == digest
        while (await session.command(bytes(6), lun=1)).status != GOOD:
            pass
        content = filled(1, blocks)
        assert (await session.command(write_16(7, blocks), lun=1, data_out=content)).status == GOOD
        answer = await session.command(read_16(7, blocks), lun=1, read_bytes=len(content) + 512)
        assert answer.residual == 512
        assert answer.data == content
        await session.logout()
