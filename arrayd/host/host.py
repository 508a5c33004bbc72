"""A host that commands arrays: the command setting, data generation and transmission sections of figures 7 and 27.

It finds the path (S3002), gives every command its identification number (S3001), chooses between a command device and
an addressed message, and gives back edited data, or raises CommandFailed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from arrayd.commands.formats import Answer, FormatError, Identification, Request, to_json
from arrayd.commands.messages import COMMANDS_MAX, Destination, Message
from arrayd.commands.results import Result
from arrayd.config.mistakes import ConfigError
from arrayd.host.addressed import MessageErrand
from arrayd.host.answers import Command, Ended, edited_data, ended
from arrayd.host.attempts import Errand, until_answered
from arrayd.host.catalogue import LIST, Catalogue
from arrayd.host.command_device import DeviceErrand, NotACommandDevice
from arrayd.host.connections import Connections
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import Group
from arrayd.host.machine import monotonic, random_bytes, time_ns
from arrayd.host.paths import OWN_LUN, PathError, PathTable, Route
from arrayd.host.transport import Transport, Unreachable
from arrayd.host.way import DEFAULT, FORWARDING, Way

HOST_BYTES = 8
"""Of an identification number: the part that says whose it is."""
PROCESS_MAX = 0xFFFF
GRACE_S = 2.0
"""An array says itself that a message's time is up, and at which hop. It is listened to for so long after that."""


class _Sender:
    """Who sends: one identity, whose commands are counted, the connections they go by, and what was learned."""

    def __init__(self, table: PathTable, connections: Connections) -> None:
        self.table = table
        self.connections = connections
        self.catalogue = Catalogue()
        self.devices: dict[str, dict[str, int]] = {}
        """By array: the LUNs that lead to command devices, by whose they are."""
        self._host = random_bytes(HOST_BYTES)
        self._epoch = time_ns()
        self._counter = 0

    def identify(self) -> Identification:
        """S3001: the identification number of the next command."""
        self._counter += 1
        return Identification(self._host, self._epoch, self._counter)


class Host:
    """Sends commands to the arrays of a path table, one after another. Make one for each thread.

    A context manager that logs out at its end.
    """

    def __init__(self, table: PathTable, way: Way = DEFAULT, connections: Connections | None = None) -> None:
        self.way = way
        self._sender = _Sender(table, connections or Connections(table))

    @classmethod
    def load(cls, file: str | Path, way: Way = DEFAULT) -> Self:
        """A host by a path table file. Raises CommandFailed (USAGE) with every mistake in it, one a line; what is wrong
        in one group is said when that is asked for."""
        try:
            return cls(PathTable.read(Path(file)), way)
        except ConfigError as error:
            raise CommandFailed(Result.USAGE, str(error)) from None

    @property
    def table(self) -> PathTable:
        """The path information table (figures 25 and 29)."""
        return self._sender.table

    def group(self, name: str) -> Group:
        """The group of pairs of this name. Raises CommandFailed (USAGE)."""
        try:
            return self.table.group(name)
        except PathError as error:
            raise CommandFailed(Result.USAGE, str(error)) from None

    @property
    def here(self) -> str:
        """The array that is asked when no other is meant."""
        return self.way.at or self.table.here

    def by(self, **changes: Any) -> Self:
        """The same host, sending another way: `host.by(method="addressed", timeout_s=5)`. Raises ValueError."""
        other = copy.copy(self)
        other.way = replace(self.way, **changes)
        return other

    def close(self) -> None:
        """Logs out. It may be used again."""
        self._sender.connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- commands -----------------------------------------------------------------------------------------------------

    def send(self, array: str, command: str | int, /, **input: Any) -> Any:
        """Has `array` carry out a command, by name or process number, with this input parameter: its edited data.

        Raises CommandFailed.
        """
        deadline = self._deadline()
        process = self.process(array, command, deadline)
        return edited_data(self._send(array, process, _to_json(input), deadline), array)

    def send_many(self, commands: Iterable[Command], *, go_on: bool = False) -> list[Ended]:
        """Several commands in one message, one after another (figures 38 to 41): what became of each.

        The first that fails ends it, unless they are to `go_on`. Raises CommandFailed if the message came to nothing.
        """
        listed, deadline = list(commands), self._deadline()
        if not 0 < len(listed) <= COMMANDS_MAX:
            raise CommandFailed(Result.USAGE, f"{len(listed)} commands: 1 to {COMMANDS_MAX} in one message")
        if self.way.method == "command-device":
            raise CommandFailed(Result.USAGE, "several commands in one message are always addressed")
        route = self.route(listed[0].array)  # S4001
        processes = [self.process(each.array, each.command, deadline) for each in listed]
        parts: list[Destination | Request] = []
        onward, here = route.addresses, listed[0].array
        for each, process in zip(listed, processes, strict=True):
            if each.array != here:
                onward, here = self._onward(here, each.array), each.array
            if onward:
                parts.append(Destination(onward))  # S4002
            parts.append(Request(process, self._sender.identify(), _to_json(each.input)))  # S4003
            onward = ()
        return ended(listed, self._send_message(route.asked, parts, deadline, go_on))  # S4005

    def commands(self, array: str) -> list[dict[str, Any]]:
        """The commands that an array has: number, name, help, and JSON schemas of input and edited data."""
        return self._sender.catalogue.of(array, lambda: self._list_commands(array, self._deadline()))

    def command_devices(self, array: str) -> dict[str, int]:
        """S802: the LUNs of `array` that lead to command devices, its own and others', by whose they are.

        They are asked for once.
        """
        known = self._sender.devices
        if array not in known:
            told = self.by(method=None).send(array, "command-devices")
            known[array] = {str(row["array"]): int(row["lun"]) for row in told["devices"]}
        return known[array]

    # -- names and ways -----------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        return monotonic() + self.way.timeout_s

    def process(self, array: str, command: str | int, deadline: float | None = None) -> int:
        """The process number of a command, which the array is asked for if it is a name. Raises CommandFailed."""
        if isinstance(command, str) and not command.isdecimal():
            until = self._deadline() if deadline is None else deadline
            return self._sender.catalogue.number(array, command, lambda: self._list_commands(array, until))
        number = int(command)
        if not 0 < number <= PROCESS_MAX:
            raise CommandFailed(Result.USAGE, f"a process number is 1 to {PROCESS_MAX}, not {number}")
        return number

    def _list_commands(self, array: str, deadline: float) -> Any:
        return edited_data(self._send(array, LIST, b"", deadline), array)

    def route(self, array: str) -> Route:
        """S3002: the way to an array. Raises CommandFailed."""
        try:
            return self.table.route(array, self.way.at)
        except PathError as error:
            raise CommandFailed(Result.USAGE, str(error)) from None

    def _onward(self, start: str, end: str) -> tuple[str, ...]:
        """The way from the array of one command to that of the next."""
        self.route(end)
        onward = self.table.onward(start, end)
        if onward is None:
            raise CommandFailed(Result.USAGE, f"the path table has no path from {start} to {end}")
        return onward

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, array: str, process: int, input: bytes, deadline: float) -> Answer:
        """One command, by the method that the way or the path table asks for."""
        route = self.route(array)
        request = Request(process, self._sender.identify(), input)
        lun = None if self.way.addressed else route.lun
        if lun is None and self.way.method == "command-device":
            lun = self._find_lun(route, array)
        if lun is not None:
            try:
                return self._send_by_device(route.asked, lun, array, request, deadline)
            except NotACommandDevice as error:
                # A direct row may name any LUN of an array without a command device; other rows say that it is one.
                if self.way.method == "command-device" or route.addresses:
                    raise CommandFailed(Result.USAGE, str(error)) from None
        parts: list[Destination | Request] = [request]  # S3004
        if route.addresses:
            parts.insert(0, Destination(route.addresses))  # S3003
        return self._send_message(route.asked, parts, deadline)

    def _find_lun(self, route: Route, array: str) -> int:
        """The LUN on the array that is asked, from its table of command devices (S802)."""
        found = self.command_devices(route.asked).get(array)
        if found is None:
            raise CommandFailed(Result.USAGE, f"{route.asked} has no LUN that leads to the command device of {array}")
        return found

    def _send_by_device(self, asked: str, lun: int, array: str, request: Request, deadline: float) -> Answer:
        """Figure 8. Raises NotACommandDevice too."""
        name = f"LUN {lun} of {asked}" if lun != OWN_LUN else f"the LUN of {asked}"
        return self._carry(
            lambda: DeviceErrand(self._transport(asked, lun), name, array, request),
            deadline,
        )

    def _send_message(
        self, asked: str, parts: list[Destination | Request], deadline: float, go_on: bool = False
    ) -> Answer:
        """Figure 30 from S3005 on, figure 40 from S4005 on."""
        first = next(part for part in parts if isinstance(part, Request))
        left_ms = max(1, round((deadline - monotonic()) * 1000))
        message = Message(first.identification, tuple(parts), left_ms, FORWARDING[self.way.addresses], go_on)
        return self._carry(lambda: MessageErrand(self._transport(asked, OWN_LUN), asked, message), deadline + GRACE_S)

    def _transport(self, asked: str, lun: int) -> Transport:
        return self._sender.connections.transport(asked, lun)

    def _carry(self, errand: Callable[[], Errand], deadline: float) -> Answer:
        try:
            return until_answered(errand(), deadline)
        except Unreachable as error:
            raise CommandFailed(Result.UNREACHABLE, str(error)) from None
        except FormatError as error:
            raise CommandFailed(Result.TOO_LONG, str(error)) from None


def _to_json(input: Mapping[str, Any]) -> bytes:
    try:
        return to_json(dict(input)) if input else b""
    except (TypeError, ValueError) as error:
        raise CommandFailed(Result.USAGE, f"an input parameter that is not JSON: {error}") from None
