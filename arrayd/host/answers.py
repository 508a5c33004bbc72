"""Answers of arrays as a program sees them: edited data, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from arrayd.commands.formats import Answer
from arrayd.commands.results import Result
from arrayd.host.failure import CommandFailed


class Command(NamedTuple):
    """One command of several: for which array, its name or process number, its input parameter."""

    array: str
    command: str | int
    input: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one command of several."""

    array: str
    command: str | int
    result: int
    edited: Any = None
    """Edited data; None where it failed or has none."""
    reason: str = ""
    """Why it failed."""


def edited_data(answer: Answer, array: str) -> Any:
    """The edited data of a command for `array` that went well, None for none. Raises CommandFailed."""
    told = _parsed(answer, array)
    if answer.result == Result.OK:
        return told
    reason, at = _failure(told)
    raise CommandFailed(answer.result, reason, at or array)


def ended(commands: Sequence[Command], answer: Answer) -> list[Ended]:
    """What became of each command of a message. Raises CommandFailed if the message came to nothing as a whole."""
    if len(commands) == 1:
        try:
            return [Ended(*commands[0][:2], Result.OK, edited_data(answer, commands[0].array))]
        except CommandFailed as failure:
            return [Ended(*commands[0][:2], failure.result, reason=str(failure))]
    told = _parsed(answer, commands[0].array)
    if not isinstance(told, list):
        edited_data(answer, commands[0].array)
        raise CommandFailed(Result.INTERNAL, "one answer to several commands", commands[0].array)
    if len(told) != len(commands) or not all(isinstance(each, dict) for each in told):
        raise CommandFailed(Result.INTERNAL, f"{len(told)} results of {len(commands)} commands", commands[0].array)
    return [_ended_one(command, each) for command, each in zip(commands, told, strict=True)]


def _ended_one(command: Command, told: Mapping[str, Any]) -> Ended:
    result, array = told.get("result"), str(told.get("array") or command.array)
    if result == Result.OK:
        return Ended(array, command.command, Result.OK, told.get("edited"))
    reason, at = _failure(told.get("edited"))
    code = result if isinstance(result, int) else Result.INTERNAL
    return Ended(array, command.command, code, reason=f"{at or array}: {reason}")


def _parsed(answer: Answer, array: str) -> Any:
    try:
        return json.loads(answer.edited) if answer.edited else None
    except ValueError:
        raise CommandFailed(Result.INTERNAL, "edited data that is not JSON", array) from None


def _failure(told: Any) -> tuple[str, str]:
    """Why, and at which array, as the edited data of an error says it."""
    error = told if isinstance(told, dict) else {}
    reason = " ".join(str(error.get("error") or "it does not say why").split())
    return reason, str(error.get("at") or "")
