"""A host that commands arrays, by a command device (figures 7 and 22) or by messages (figures 26 to 41), and what it is
promised: a command is executed once, its answer is true, and stays the same.

Each command that changes something names a thing that no other names. So a second execution shows: by its answer, which
says that the thing is there already, and in the arrays' logs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from arrayd.commands.formats import Answer, Identification, Request
from arrayd.commands.processes import REGISTRY
from arrayd.commands.results import Result
from tests.simulation.executions import UNCERTAIN, what_was_done
from tests.simulation.hosts import HostLun
from tests.simulation.sending import Sender, Way
from tests.simulation.world import Machine, Violated, World

SECONDS = 12.0
"""How long one attempt at a command may take."""
FIRST_LUN, LUNS_EACH = 1000, 1000
EPOCH = 1
VOLUME_BYTES = 64 * 1024
"""Of those that are made by command."""
TRIES = 30
HONEST = UNCERTAIN | {Result.OK, Result.FAILED, Result.INTERRUPTED}
"""What a command that is right may end with while there are faults."""


@dataclass
class Command:
    """One command: for which machine, and what was answered."""

    machine: Machine
    name: str
    told: dict[str, Any]
    request: Request
    device: HostLun
    """The command device of that machine, as the host sees it there: where it is asked for at the end."""
    answers: list[Answer] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it is known to have been carried out."""
        return bool(self.answers) and self.answers[0].result == Result.OK

    def answered(self, answer: Answer) -> None:
        """Raises Violated for an answer that it cannot have."""
        where = f"{self.name} {self.told} to {self.machine.name}"
        if answer.result not in HONEST:
            raise Violated(f"{where}: {Result(answer.result).name} {answer.edited.decode()[:300]}")
        if answer.result in UNCERTAIN:
            return
        if self.answers and what_was_done(answer) != what_was_done(self.answers[0]):
            raise Violated(f"{where}: first {self.answers[0]}, then {answer}")
        self.answers.append(answer)
        if answer.result == Result.OK:
            self._check(json.loads(answer.edited), where)

    def _check(self, said: dict[str, Any], where: str) -> None:
        expected = {"array": self.machine.name, **self.told} if self.name == "echo" else None
        if expected is not None and said != expected:
            raise Violated(f"{where}: {said}")


class Commander:
    """A host with an identity of its own; `home` are its own attachments to each machine's command device."""

    def __init__(self, world: World, index: int, ways: list[Way], home: dict[str, HostLun]) -> None:
        self._world = world
        name = f"c{index}"
        self._random: Random = world.random(f"commander {name}")
        self._sender = Sender(world, self._random, SECONDS)
        self._name = name
        self._identity = name.encode().ljust(8, b"-")[:8]
        self._counter = itertools.count(1)
        self._ways = ways
        self._home = home
        self.commands: list[Command] = []
        self.mapped: Callable[[Machine, str, int], None] = lambda _machine, _volume, _lun: None
        """Called when a volume that it made stands at a LUN."""
        self._luns = itertools.count(FIRST_LUN + LUNS_EACH * index)
        """Each LUN is of one commander."""

    def _now(self) -> float:
        return self._world.loop.time()

    def _next(self) -> Identification:
        return Identification(self._identity, EPOCH, next(self._counter))

    def _make(self, machine: Machine) -> Command:
        """A command for it."""
        number = self._next()
        ready = self._without_lun(machine)
        choice = self._random.random()
        told: dict[str, Any]
        if choice < 0.3:
            name, told = "echo", {"text": f"{self._name} {number.counter}"}
        elif choice < 0.6 and ready:
            name, told = "lun-add", {"lun": next(self._luns), "volume": ready[0]}
        else:
            volume = f"{self._name}{number.counter}"
            name, told = "volume-create", {"name": volume, "size": VOLUME_BYTES, "thin": self._random.random() < 0.7}
        request = Request(REGISTRY.by_name[name].number, number, json.dumps(told).encode())
        return Command(machine, name, told, request, self._home[machine.name])

    def _without_lun(self, machine: Machine) -> list[str]:
        """Volumes of its own that are there, and for which no LUN was asked."""
        mapped = {each.told["volume"] for each in self.commands if each.name == "lun-add"}
        return [
            each.told["name"]
            for each in self.commands
            if each.name == "volume-create"
            and each.machine is machine
            and each.done
            and each.told["name"] not in mapped
        ]

    async def command_until(self, until: float) -> None:
        """One command after the other."""
        while self._now() < until:
            await asyncio.sleep(self._random.expovariate(1))
            way = self._random.choice(self._ways)
            command = self._make(way.machine)
            self.commands.append(command)
            await self.attempt(command, way)
            if self._random.random() < 0.2:
                await self.attempt(command, way)  # sent again, as a host does that lost the answer

    async def attempt(self, command: Command, way: Way) -> None:
        """Sends it, and hears what became of it, if it does."""
        answer = await self._sender.send(command.request, way, SECONDS)
        told = "nothing" if answer is None else f"{answer.result} {answer.edited.decode()[:120]}"
        self._world.trace.note(self._name, f"{command.name} {command.told}: {told}")
        if answer is not None:
            new = not command.answers
            command.answered(answer)
            if new and command.name == "lun-add" and command.done:
                self.mapped(command.machine, command.told["volume"], command.told["lun"])

    # -- at the end --------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Asks once more for each command, where it was to be executed, until that is known. Raises Violated."""
        for command in self.commands:
            heard = len(command.answers)
            for _ in range(TRIES):
                answer = await self._sender.by_device(command.request, command.device, SECONDS)
                if answer is not None:
                    command.answered(answer)
                if len(command.answers) > heard:
                    break
                await asyncio.sleep(1)
            else:
                raise Violated(f"{command.name} {command.told} to {command.machine.name} has no answer")

    def compare(self) -> None:
        """What the arrays have is what was answered. Raises Violated."""
        for command in self.commands:
            if command.name == "echo":
                continue
            array: Any = command.machine.array
            held = array.estate.ledger.held
            key, rows = ("name", held.volumes) if command.name == "volume-create" else ("lun", held.luns)
            if (command.told[key] in rows) != command.done:
                said = Result(command.answers[0].result).name
                raise Violated(
                    f"{command.name} {command.told} to {command.machine.name}: {said}, and the tables differ"
                )


def check_once(world: World) -> None:
    """No command was executed twice, as the logs of the arrays tell. Raises Violated."""
    made = Counter((who, fields["volume"]) for who, event, fields in world.log.told if event == "volume made")
    twice = [what for what, count in made.items() if count > 1]
    if twice:
        raise Violated(f"executed twice: {twice}")
