"""A file with several commands for one message: a list, in YAML or JSON, of mappings with array, command and input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from arrayd.commands.messages import COMMANDS_MAX
from arrayd.commands.results import Result
from arrayd.config.document import MAX_FILE_BYTES, UnreadableError, parse_tree, read_tree
from arrayd.config.mistakes import ConfigError, Mistake
from arrayd.config.section import FromList, Section
from arrayd.config.validation import validate
from arrayd.host.answers import Command
from arrayd.host.array_names import ArrayName
from arrayd.host.failure import CommandFailed

STANDARD_INPUT = Path("-")


class _Row(Section):
    array: ArrayName = Field(description="the name of an array")
    command: str | int = Field(description="the name or the process number of a command")
    input: dict[str, Any] = Field(default_factory=dict, description="a mapping")


class _File(Section):
    commands: Annotated[tuple[_Row, ...], FromList] = Field(
        min_length=1, max_length=COMMANDS_MAX, description="a list of mappings with the keys array, command and input"
    )


def read_commands(file: Path) -> list[Command]:
    """The commands in a file, or on standard input. Raises CommandFailed (USAGE) with every mistake, one a line."""
    try:
        if file == STANDARD_INPUT:
            tree, mistakes = parse_tree(sys.stdin.read(MAX_FILE_BYTES))
        else:
            tree, mistakes = read_tree(file)
        commands, more = validate(_File, {"commands": tree}, file.absolute().parent)
    except UnreadableError as error:
        mistakes, more, commands = [error.mistake], [], None
    # The list is the file: nobody wrote the key that it stands under here.
    mistakes += [Mistake(each.path[1:], each.value, each.expected) for each in more]
    if commands is None or mistakes:
        raise CommandFailed(Result.USAGE, str(ConfigError.of(file, mistakes)))
    return [Command(each.array, each.command, each.input) for each in commands.commands]
