"""What commands arrays have: each is asked once, and its answer kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from arrayd.commands.results import Result
from arrayd.host.failure import CommandFailed

LIST = 1
"""Process number of the command that lists all commands."""


class Catalogue:
    """Commands by array."""

    def __init__(self) -> None:
        self._known: dict[str, list[dict[str, Any]]] = {}

    def of(self, array: str, ask: Callable[[], Any]) -> list[dict[str, Any]]:
        """The commands of an array; `ask()` has it list them. Raises CommandFailed."""
        if array not in self._known:
            told = ask()
            listed = told.get("commands") if isinstance(told, dict) else None
            if not isinstance(listed, list) or not all(_is_command(each) for each in listed):
                raise CommandFailed(Result.UNREACHABLE, f"{array} lists its commands in another format", array)
            self._known[array] = listed
        return self._known[array]

    def number(self, array: str, name: str, ask: Callable[[], Any]) -> int:
        """The process number of a command. Raises CommandFailed."""
        commands = {each["name"]: each["number"] for each in self.of(array, ask)}
        if name in commands:
            return int(commands[name])
        near = difflib.get_close_matches(name[:64], list(commands), n=1)
        hint = f"did you mean {near[0]}?" if near else "`arrayctl commands` lists what there is"
        raise CommandFailed(Result.UNKNOWN_COMMAND, f"there is no command {name}: {hint}", array)


def _is_command(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("number"), int)
