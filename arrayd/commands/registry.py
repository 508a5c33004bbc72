"""Process numbers: which commands there are, what each takes and gives. A command is one function; see `processes/`.

"Any command executable by a storage device" (the patent's last paragraph): adding one is adding one function.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from arrayd.commands.results import Result

if TYPE_CHECKING:
    from arrayd.tables import Work

MISTAKES_MAX = 5
"""Mistakes of an input parameter that its answer names."""


class CommandError(Exception):
    """A command cannot be carried out: nothing was changed. The text is for the host."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result


class Input(BaseModel):
    """The input parameter of a command; a JSON object of these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Output(BaseModel):
    """Edited data of a command."""


class Nothing(Input):
    """For commands that take no input."""


Save = Callable[["Work", Output], Awaitable[None]]
"""`save(work, output)`: makes a change of the tables durable, together with the command's answer. Called once, when all
that can fail has been done; what follows cannot fail. Raises CommandError; then nothing was saved."""


@dataclass(frozen=True, slots=True)
class Process:
    """One command. `changes`: it changes something, and has a `save` to do so. `apart`: a field of its input; what has
    another value there is changed by itself, and waits for nothing that is done to this one."""

    number: int
    name: str
    help: str
    input: type[Input]
    output: type[Output]
    changes: bool
    function: Callable[..., Awaitable[Output]]
    apart: str | None = None

    def parse(self, data: bytes) -> Input:
        """The input parameter. Raises CommandError."""
        try:
            return self.input.model_validate_json(data or b"{}")
        except ValidationError as error:
            raise CommandError(Result.BAD_INPUT, _mistakes(error)) from error


def _mistakes(error: ValidationError) -> str:
    """One line for all of them."""
    told = []
    for mistake in error.errors(include_url=False, include_context=False, include_input=False)[:MISTAKES_MAX]:
        where = ".".join(map(str, mistake["loc"]))
        told.append(f"{where}: {mistake['msg']}" if where else mistake["msg"])
    return "; ".join(told)


class Registry:
    """The commands of an array, by number and by name."""

    def __init__(self) -> None:
        self.by_number: dict[int, Process] = {}
        self.by_name: dict[str, Process] = {}

    def command(
        self, number: int, name: str, *, changes: bool = False, apart: str | None = None
    ) -> Callable[[Function], Function]:
        """Registers `async def function(context, told: SomeInput[, save]) -> SomeOutput`. Its docstring is the help.
        `apart` names a field of the input; see Process."""

        def register(function: Function) -> Function:
            hints = get_type_hints(function, localns={"Context": Any, "Work": Any})
            parameters = list(inspect.signature(function).parameters)
            assert changes == ("save" in parameters), f"{name}: a command that changes something takes `save`"
            assert number not in self.by_number, f"{number}: registered twice"
            assert name not in self.by_name, f"{name}: registered twice"
            help_text = inspect.cleandoc(function.__doc__ or "")
            told = hints[parameters[1]]
            assert apart is None or (changes and apart in told.model_fields), f"{name}: nothing is apart by {apart}"
            process = Process(number, name, help_text, told, hints["return"], changes, function, apart)
            self.by_number[number] = self.by_name[name] = process
            return function

        return register


Function = Callable[..., Awaitable[Any]]

REGISTRY = Registry()
"""All commands there are."""
