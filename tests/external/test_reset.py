"""LOGICAL UNIT RESET with writes on their way: what the suite's own test of it (LUNResetSimpleAsync) cannot show."""

import struct

import pytest

from tests.lab.daemon import configuration
from tests.lab.fixtures import StartArray
from tests.lab.initiator import CHECK_CONDITION, GOOD, Session
from tests.lab.pdu import FINAL, IMMEDIATE, Opcode, Pdu, request

pytestmark = [pytest.mark.external, pytest.mark.timeout(60)]

LOGICAL_UNIT_RESET = 5
FUNCTION_COMPLETE = 0
UNIT_ATTENTION = 6
LUN_RESET_OCCURRED = 0x2903
DEPTH = 16
BLOCKS = 256
BLOCK_BYTES = 512


def write_16(block: int, blocks: int) -> bytes:
    return struct.pack(">BBQIBB", 0x8A, 0, block, blocks, 0, 0)


def lun_reset(lun: int = 0) -> Pdu:
    return request(Opcode.TASK_MANAGEMENT | IMMEDIATE, FINAL | LOGICAL_UNIT_RESET, lun)


async def test_writes_on_their_way_are_answered_before_the_reset_or_never(start_array: StartArray) -> None:
    """SAM-5, 7.5: the function is complete when no aborted task can touch the medium; another host is told."""
    array = start_array(configuration({"data": {"size": "64MiB"}}))
    async with (
        await Session.open(array.addresses[0], array.target) as session,
        await Session.open(array.addresses[0], array.target, isid=bytes.fromhex("800000000002")) as other,
    ):
        for each in (session, other):
            while (await each.command(bytes(6))).status != GOOD:
                pass
        writes = [
            await session.submit(write_16(number * BLOCKS, BLOCKS), data_out=bytes([number + 1]) * BLOCKS * BLOCK_BYTES)
            for number in range(DEPTH)
        ]
        answer = await session.exchange(lun_reset(), Opcode.TASK_MANAGEMENT_RESPONSE)
        assert answer.header[2] == FUNCTION_COMPLETE
        answered = {number for number, write in enumerate(writes) if write.done()}
        assert all(writes[number].result().status == GOOD for number in answered)
        for each in (session, other):
            told = await each.command(bytes(6))
            assert (told.status, told.sense_key, told.additional_sense) == (
                CHECK_CONDITION,
                UNIT_ATTENTION,
                LUN_RESET_OCCURRED,
            )
            assert (await each.command(bytes(6))).status == GOOD
        assert {number for number, write in enumerate(writes) if write.done()} == answered
        for number in range(DEPTH):
            read = struct.pack(">BBQIBB", 0x88, 0, number * BLOCKS, BLOCKS, 0, 0)
            held = await session.command(read, read_bytes=BLOCKS * BLOCK_BYTES)
            assert held.status == GOOD
            if number in answered:
                assert held.data == bytes([number + 1]) * BLOCKS * BLOCK_BYTES
            else:  # an aborted write has written any of its blocks, but nothing else
                assert set(held.data) <= {0, number + 1}
