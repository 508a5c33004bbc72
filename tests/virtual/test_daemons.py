"""Real arrays in a row: the last one is killed and started again in the middle of writes, and loses the LUN."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.array import attentions, read, write
from tests.lab.chain import start_chain
from tests.lab.daemon import ArraydProcess
from tests.lab.disk import MIB, disk
from tests.lab.initiator import CHECK_CONDITION, GOOD, Session
from tests.lab.waiting import until

pytestmark = pytest.mark.slow

__all__ = ["disk"]

DEPTH = 16
ABORTED_COMMAND, UNIT_ATTENTION = 0x0B, 6
INVALID_OPERATION_CODE = 0x2000
"""What a controller says to a READ, and a LUN 0 without a volume is one."""
LIMIT_SECONDS = 20.0
"""More than a link's timeout, by far."""


@pytest.fixture
def chain(disk: Path) -> Iterator[list[ArraydProcess]]:
    """Two arrays: the host is on the first, the volume on the second."""
    with ExitStack() as stack:
        yield start_chain(stack, disk, 1, {"size": MIB})


async def test_the_array_with_the_volume_is_killed_and_started_again(chain: list[ArraydProcess]) -> None:
    """Every write ends, in bounded time: well, or with a status that says to try again. What was acknowledged stays."""
    near, far = chain
    done: list[int] = []
    refused: set[tuple[int, int]] = set()
    async with await Session.open(near.addresses[0], near.target) as host:
        await attentions(host)

        async def write_on(first: int) -> None:
            for number in range(first, 60 * DEPTH, DEPTH):
                while True:
                    answer = await host.command(write(number), data_out=number.to_bytes(2) * 256)
                    if answer.status == GOOD:
                        done.append(number)
                        break
                    assert answer.status == CHECK_CONDITION
                    refused.add((answer.sense_key, answer.additional_sense))
                    assert answer.sense_key in (ABORTED_COMMAND, UNIT_ATTENTION), answer

        writing = [asyncio.ensure_future(write_on(number)) for number in range(DEPTH)]
        await until(lambda: len(done) > 5 * DEPTH)
        far.kill()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(far.start)
        await asyncio.wait_for(asyncio.gather(*writing), LIMIT_SECONDS)
        for number in range(60 * DEPTH):
            answer = await host.command(read(number), read_bytes=512)
            assert (answer.status, answer.data) == (GOOD, number.to_bytes(2) * 256)
    assert (UNIT_ATTENTION, 0x2900) in refused


async def test_the_mapped_lun_is_gone_at_a_reload_and_comes_back(chain: list[ArraydProcess]) -> None:
    near, far = chain
    luns = far.config["luns"]
    async with await Session.open(near.addresses[0], near.target) as host:
        await attentions(host)
        assert (await host.command(write(0), data_out=b"x" * 512)).status == GOOD
        far.config["luns"] = {"5": {"volume": "data"}}
        far.reload()

        async def answers(status: int, additional_sense: int) -> None:
            """Waits until the LUN answers so."""
            async with asyncio.timeout(LIMIT_SECONDS):
                answer = await host.command(read(0), read_bytes=512)
                while (answer.status, answer.status and answer.additional_sense) != (status, additional_sense):
                    answer = await host.command(read(0), read_bytes=512)

        await answers(CHECK_CONDITION, INVALID_OPERATION_CODE)
        far.config["luns"] = luns
        far.reload()
        await answers(GOOD, 0)
        answer = await host.command(read(0), read_bytes=512)
        assert answer.data == b"x" * 512
