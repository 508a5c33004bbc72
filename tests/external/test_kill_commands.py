"""Arrays on the way of commands are killed under load, again and again: nothing is executed twice, nothing that was
answered is lost, and what was not executed is answered so.

Each command makes a volume of its own name on the last of three arrays, which it would refuse a second time.
"""

import asyncio
import itertools
import json
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from arrayd.commands.formats import Answer, Request
from arrayd.commands.messages import Destination
from arrayd.commands.results import Result
from tests.lab.chain import start_chain
from tests.lab.commanding import Host
from tests.lab.connection import IscsiError
from tests.lab.daemon import ArraydProcess, configuration
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


# -- between two commits -----------------------------------------------------------------------------------------------

TRIES: Final = 200
TAKEN = "SELECT counter FROM commands WHERE result IS NULL"


class Tables:
    """The tables of an array, read beside it."""

    def __init__(self, array: ArraydProcess) -> None:
        path = array.folder / "state" / "tables.db"
        self._connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    def taken(self) -> list[int]:
        """The counters of commands that were taken and have not ended."""
        return [int(counter, 16) for (counter,) in self._connection.execute(TAKEN)]

    def close(self) -> None:
        self._connection.close()


def kill_once_taken(array: ArraydProcess) -> int | None:
    """Kills the array as soon as a command is taken. Its counter; None where the command had ended before the kill."""
    with closing(Tables(array)) as tables:
        deadline = time.monotonic() + SECONDS
        while not tables.taken():
            assert time.monotonic() < deadline
        array.kill()
    # By a connection that is the first to come: one that was there before does not see a commit whose frames the array
    # has written, and of which it has not yet told the index that connections share.
    with closing(Tables(array)) as tables:
        taken = tables.taken()
    return taken[0] if taken else None


async def kill_between_commits(array: ArraydProcess) -> Request:
    """Commands the array until it is killed with one of the commands taken, and no more. That command."""
    for turn in range(TRIES):
        requests: list[Request] = []
        killed = asyncio.ensure_future(asyncio.to_thread(kill_once_taken, array))
        async with await Session.open(array.addresses[0], array.target) as session:
            host = Host(session, epoch=turn)
            with suppress(IscsiError):
                while not killed.done():
                    requests.append(host.request("volume-create", name=f"v{turn}-{len(requests)}", size=512))
                    await host.by_device(DEVICE, requests[-1])
            counter = await killed
        array.start()
        if counter is not None:
            return next(each for each in requests if each.identification.counter == counter)
    raise AssertionError(f"killed {TRIES} times, and never between two commits")


async def test_killed_between_taking_a_command_and_its_execution_the_array_says_so(tmp_path: Path) -> None:
    """The same command sent again hears so, and is not executed; another that asks for the same is."""
    config = configuration({"data": {"size": "1MiB"}})
    config["luns"][str(DEVICE)] = {"command_device": {}}
    with ArraydProcess(tmp_path, config) as array:
        request = await kill_between_commits(array)
        async with await Session.open(array.addresses[0], array.target) as session:
            host = Host(session, b"\1another")
            told = [await host.by_device(DEVICE, request) for _ in range(2)]
            assert [answer.result for answer in told] == [Result.INTERRUPTED] * 2
            name = json.loads(request.input)["name"]
            there = (await host.command(DEVICE, "volumes"))["volumes"]
            assert name not in {each["name"] for each in there}
            assert await host.command(DEVICE, "volume-create", name=name, size=512) == {"name": name}


def isid(number: int) -> bytes:
    return (0x80 << 40 | number).to_bytes(6)


def kill_and_restart(array: ArraydProcess) -> None:
    array.kill()
    array.start()
