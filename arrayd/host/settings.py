"""What all of arrayctl's commands have in common: the options that say which path table is read, and how commands are
sent. They may stand before the verb or behind it; behind it they count more."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from arrayd.commands.messages import TIME_LIMIT_MS_MAX
from arrayd.commands.results import Result
from arrayd.config.mistakes import ConfigError
from arrayd.host.failure import CommandFailed
from arrayd.host.show import Output
from arrayd.host.way import TIMEOUT_S, Way

if TYPE_CHECKING:
    from arrayd.host.host import Host
    from arrayd.host.paths import PathTable

PLACES = (Path("hosts.yaml"), Path("/etc/arrayd/hosts.yaml"))
"""Where the path table is looked for when nothing names it."""
VARIABLE = "ARRAYCTL_PATHS"
COMPLETION_TIMEOUT_S = 2.0
"""For an array that is asked because somebody pressed the tab key."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings:
    """What was given on the command line."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    @property
    def file(self) -> Path:
        """The path table's file. Raises CommandFailed."""
        named: Path | None = self.given.get("paths")
        found = named or next((place for place in PLACES if place.exists()), None)
        if found is None:
            places = ", ".join(map(str, PLACES))
            raise CommandFailed(
                Result.USAGE, f"no path table: --paths or ${VARIABLE} names it, or it is one of {places}"
            )
        return found

    @property
    def table(self) -> PathTable:
        """The path table, less groups with mistakes. Raises CommandFailed."""
        from arrayd.host.paths import PathTable

        try:
            return PathTable.read(self.file)
        except ConfigError as error:
            raise CommandFailed(Result.USAGE, str(error)) from None

    @property
    def output(self) -> Output:
        """How to print."""
        return Output(bool(self.given.get("json")))

    def host(self, **changes: Any) -> Host:
        """A host that sends as the options say. Raises CommandFailed."""
        from arrayd.host.host import Host

        gc.enable()  # what takes long begins here, and all is imported: see `cli.main`
        keep, shortest = self.given.get("keep_addresses"), self.given.get("shortest")
        if keep and shortest:
            raise CommandFailed(Result.USAGE, "--keep-addresses and --shortest are two ways: one at a time")
        told = {
            "method": self.given.get("method"),
            "at": self.given.get("at"),
            "timeout_s": self.given.get("timeout", TIMEOUT_S),
            "addresses": "keep" if keep else "shortest" if shortest else "as-configured",
        }
        try:
            return Host(self.table, Way(**{**told, **changes}))
        except ValueError as error:
            raise CommandFailed(Result.USAGE, str(error)) from None


def settings_of(context: click.Context) -> Settings:
    """The settings of this command line."""
    return context.ensure_object(Settings)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    name, given = parameter.name, settings_of(context).given
    assert name is not None
    # What the environment says is no reason to forget what was said before the verb.
    if value is not None and (name not in given or context.get_parameter_source(name) is ParameterSource.COMMANDLINE):
        given[name] = value
    return value


def complete_arrays(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The arrays of the path table."""
    try:
        rows = settings_of(context).table.rows
    except CommandFailed:
        return []
    return [
        CompletionItem(name, help="direct" if row.direct else f"through {row.through}")
        for name, row in rows.items()
        if name.startswith(incomplete)
    ]


def _option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    return click.option(*names, expose_value=False, callback=_keep, **attributes)


_OPTIONS = (
    _option(
        "--paths", metavar="FILE", type=click.Path(path_type=Path), envvar=VARIABLE, show_envvar=True,
        help="The path table. Default: hosts.yaml here, else /etc/arrayd/hosts.yaml.",
    ),
    _option(
        "--method", type=click.Choice(["command-device", "addressed"]),
        help="By a command device, or by an addressed message. Default: by command device where its LUN is known.",
    ),
    _option(
        "--at", metavar="ARRAY", shell_complete=complete_arrays,
        help="The array to ask. Default: the path table's site.",
    ),
    _option("--keep-addresses", is_flag=True, default=None, help="Arrays on the path keep the addresses (figure 33)."),
    _option("--shortest", is_flag=True, default=None, help="Arrays on the path take the shortest way (figure 37)."),
    _option(
        "--timeout", metavar="SECONDS", type=click.FloatRange(0.001, TIME_LIMIT_MS_MAX / 1000),
        help=f"How long a command may take. Default: {TIMEOUT_S:g}.",
    ),
    _option("--json", is_flag=True, default=None, help="Print JSON."),
)  # fmt: skip


def with_settings(function: Function) -> Function:
    """Gives a command the options that all have in common. They go to `Settings`, not to the function."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
