"""Connections in memory: bytes in order, none twice; what a stall, a cut, a kill and a power loss do to them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any

import pytest

from tests.simulation.doors import Life
from tests.simulation.loop import SimLoop
from tests.simulation.network import Network, SimSocket
from tests.simulation.trace import Lines

PORT = 7002


class Pair:
    """Two lives and a connection between them."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimLoop(100.0)
        self.network = Network(self.loop, Random(seed))
        self.network.machines[PORT] = "far"
        self.network.with_power |= {"near", "far"}
        self.near, self.far = (
            Life(name, 1, Random(seed), Lines(self.loop.time), self.network.forget) for name in ("near", "far")
        )
        line = self.network.line("near", "far")
        self.ours, self.theirs = (SimSocket(self.network, life, line, ("", 0)) for life in (self.near, self.far))
        self.ours.peer, self.theirs.peer = self.theirs, self.ours
        self.network.connections.append((line, self.ours, self.theirs))

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.loop.run_until_complete(scenario())


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.loop.close()


async def received(sock: SimSocket, seconds: float = 1.0) -> bytes:
    """Everything that comes within the time, up to an end."""
    found = bytearray()
    for _ in range(round(seconds * 1000)):
        space = memoryview(bytearray(4096))
        try:
            count = sock.recv_into(space)
            if not count:
                return bytes(found) + b"END"
            found += space[:count]
        except BlockingIOError:
            await asyncio.sleep(0.001)
        except ConnectionResetError:
            return bytes(found) + b"RESET"
    return bytes(found)


@pytest.mark.parametrize("seed", range(5))
def test_bytes_come_in_order_and_once(seed: int) -> None:
    pair = Pair(seed)

    async def scenario() -> None:
        sent = b"".join(number.to_bytes(2) for number in range(1000))
        for at in range(0, len(sent), 100):
            assert pair.ours.send(sent[at : at + 100]) == 100
        assert await received(pair.theirs) == sent

    pair.run(scenario)
    pair.loop.close()


def test_who_does_not_read_is_not_sent_more(pair: Pair) -> None:
    async def scenario() -> None:
        taken = 0
        while pair.ours.writable():
            taken += pair.ours.send(bytes(10_000))
        with pytest.raises(BlockingIOError):
            pair.ours.send(b"x")
        assert len(await received(pair.theirs)) == taken
        assert pair.ours.writable()

    pair.run(scenario)


def test_what_is_stalled_comes_later(pair: Pair) -> None:
    async def scenario() -> None:
        pair.network.stall("near", "far", True)
        pair.ours.send(b"late")
        assert await received(pair.theirs) == b""
        pair.network.stall("near", "far", False)
        assert await received(pair.theirs) == b"late"

    pair.run(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_loses_the_rest_and_nothing_before_it(seed: int) -> None:
    pair = Pair(seed)

    async def scenario() -> None:
        for number in range(10):
            pair.ours.send(bytes([number]))
        pair.network.cut("near", "far")
        came = await received(pair.theirs)
        assert came.endswith(b"RESET")
        assert bytes(range(10)).startswith(came.removesuffix(b"RESET"))
        with pytest.raises(ConnectionResetError):
            pair.ours.send(b"x")

    pair.run(scenario)
    pair.loop.close()


def test_a_kill_is_heard_and_a_power_loss_is_not(pair: Pair) -> None:
    async def scenario() -> None:
        pair.ours.send(b"last words")
        pair.near.kill("at rest", power=False)
        assert await received(pair.theirs) == b"last wordsEND"

    pair.run(scenario)
    other = Pair()

    async def silent() -> None:
        other.near.kill("at rest", power=True)
        other.network.with_power.discard("near")
        other.theirs.send(b"are you there?")
        assert await received(other.theirs) == b""
        other.network.with_power.add("near")  # it is there again, and knows of no connection
        other.theirs.send(b"are you there?")
        assert await received(other.theirs) == b"RESET"

    other.run(silent)
    other.loop.close()


def test_nobody_listens_and_nobody_is_there(pair: Pair) -> None:
    async def scenario() -> None:
        async def dial() -> None:
            await pair.network.dial("", PORT, None, "far", lambda _stream: None, None)

        with pytest.raises(ConnectionRefusedError):
            await pair.near.run(lambda: asyncio.ensure_future(dial()))
        pair.network.with_power.discard("far")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await pair.near.run(lambda: asyncio.ensure_future(dial()))

    pair.run(scenario)
