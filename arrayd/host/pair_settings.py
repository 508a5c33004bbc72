"""What the pair verbs of arrayctl have in common: -g, and who is asked from where.

`--at` and `site` say which side is the local one. It is also the array that is asked, if the path table has a direct
path to it, and from it to the other one; else they are asked as the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from arrayd.host.failure import CommandFailed
from arrayd.host.groups import Group
from arrayd.host.host import Host
from arrayd.host.pair_asking import Arrays
from arrayd.host.paths import PathError
from arrayd.host.settings import Settings, settings_of, with_settings

Function = TypeVar("Function", bound=Callable[..., Any])


def complete_groups(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The groups of the path table."""
    try:
        groups = settings_of(context).table.groups
    except CommandFailed:
        return []
    return [
        CompletionItem(name, help=" - ".join(group.arrays))
        for name, group in groups.items()
        if name.startswith(incomplete)
    ]


def with_group(function: Function) -> Function:
    """Gives a verb -g, and the options that all verbs have."""
    option = click.option(
        "-g", "--group", "group", metavar="GROUP", required=True, shell_complete=complete_groups,
        help="The group, as the path table names it.",
    )  # fmt: skip
    return option(with_settings(function))


@contextmanager
def arrays_of(settings: Settings, group: str, **changes: Any) -> Iterator[Arrays]:
    """The two arrays of a group, seen from the local side. `changes` are of the way that is sent. Raises
    CommandFailed."""
    with settings.host(at=None, **changes) as host:
        at = settings.given.get("at")
        if at is not None:
            host.route(at)
        found = host.group(group)
        yield Arrays(_asking(host, at, found), found, at or host.here)


def _asking(host: Host, at: str | None, group: Group) -> Host:
    """From the array that was named, where all of the group's can be reached from there."""
    if at is None:
        return host
    try:
        for array in group.arrays:
            host.table.route(array, at)
    except PathError:
        return host
    return host.by(at=at)
