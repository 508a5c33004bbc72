"""Arrays on the way of commands are killed under load, again and again: nothing is executed twice, nothing that was
answered is lost, and what was not executed is answered so.

Each command makes a volume of its own name on the last of three arrays, which it would refuse a second time.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from arrayd.commands.formats import Answer
from arrayd.commands.messages import Destination
from arrayd.commands.results import Result
from tests.lab.chain import start_chain
from tests.lab.commanding import Host
from tests.lab.daemon import ArraydProcess
from tests.lab.initiator import Session
from tests.lab.waiting import until

pytestmark = [pytest.mark.external, pytest.mark.timeout(240)]

KILLS: Final = 4
HOSTS: Final = 4
COMMANDS_BETWEEN: Final = 30
SECONDS: Final = 40.0
SEED: Final = 601
DEVICE: Final = 9
"""LUN of the last array's command device, on every array."""


class Made:
    """What became of the volumes: by name, the result of the command that was to make it."""

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.names = (f"v{number}" for number in itertools.count())
        self.stopped = False

    def has(self, enough: int, working: Sequence[asyncio.Future[None]]) -> bool:
        """Whether so many commands have ended, or one failed as none should."""
        return len(self.results) >= enough or any(work.done() for work in working)


async def command_for_ever(host: Host, made: Made, by_device: bool) -> None:
    """One volume after the other, until it is enough."""
    while not made.stopped:
        name = next(made.names)
        request = host.request("volume-create", name=name, size=512)
        if by_device:
            answer = await host.by_device(DEVICE, request, SECONDS)
        else:
            answer = await host.by_message(host.message(Destination(("chain1", "chain2")), request, seconds=SECONDS))
        check(name, answer)
        made.results[name] = answer.result


def check(name: str, answer: Answer) -> None:
    """Either it was made now, or it was not because the array was killed before."""
    told = json.loads(answer.edited)
    if answer.result == Result.OK:
        assert told == {"name": name}
    else:
        assert answer.result == Result.INTERRUPTED, told
        assert told["at"] == "chain2"


async def volumes(host: Host) -> set[str]:
    """The volumes that were made, of which the array and its tables know alike."""
    told = (await host.addressed(("chain1", "chain2"), "volumes"))["volumes"]
    return {each["name"] for each in told if each["source"] == "command"}


@pytest.mark.parametrize("victim", [1, 2])
async def test_killed_arrays_execute_each_command_once(tmp_path: Path, victim: int) -> None:
    with ExitStack() as stack:
        arrays = start_chain(stack, tmp_path, 2, {"size": "1MiB"}, command_device=DEVICE)
        sessions = [await Session.open(arrays[0].addresses[0], arrays[0].target, isid=isid(n)) for n in range(HOSTS)]
        hosts = [Host(session, bytes([number + 1]) * 8) for number, session in enumerate(sessions)]
        made, chance = Made(), random.Random(SEED)
        working = [asyncio.ensure_future(command_for_ever(host, made, n % 2 == 0)) for n, host in enumerate(hosts)]
        try:
            for _ in range(KILLS):
                enough = len(made.results) + COMMANDS_BETWEEN
                await until(partial(made.has, enough, working))
                await asyncio.sleep(chance.random() * 0.02)  # not always between the same two commands
                await asyncio.to_thread(kill_and_restart, arrays[victim])
            made.stopped = True
            await asyncio.gather(*working)
        finally:
            for work in working:
                work.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        there = await volumes(hosts[0])
        assert there == {name for name, result in made.results.items() if result == Result.OK}
        assert len(there) >= KILLS * COMMANDS_BETWEEN // 2
        for session in sessions:
            await session.close()


def isid(number: int) -> bytes:
    return (0x80 << 40 | number).to_bytes(6)


def kill_and_restart(array: ArraydProcess) -> None:
    array.kill()
    array.start()
