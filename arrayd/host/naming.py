"""Commands and their inputs on the command line: how `KEY=VALUE` is read, and what the tab key offers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from arrayd.host.failure import CommandFailed
from arrayd.host.settings import COMPLETION_TIMEOUT_S, settings_of


def read_fields(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, Any]:
    """An input parameter from `KEY=VALUE` each; a value that is JSON is taken as that, any other as text."""
    fields: dict[str, Any] = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{each}: expected KEY=VALUE", context, parameter)
        if key in fields:
            raise click.BadParameter(f"{key} is given twice", context, parameter)
        try:
            fields[key] = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            fields[key] = text
    return fields


def complete_commands(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The commands of the array that was named before, if it answers at once."""
    return [
        CompletionItem(each["name"], help=str(each.get("help") or "").partition("\n")[0])
        for each in _commands(context)
        if each["name"].startswith(incomplete)
    ]


def complete_fields(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys that the command takes."""
    wanted = context.params.get("command")
    schema = next((each.get("input") for each in _commands(context) if each["name"] == wanted), None)
    keys = schema.get("properties", {}) if isinstance(schema, dict) else {}
    return [CompletionItem(f"{key}=") for key in keys if key.startswith(incomplete)]


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON (RFC 8259): they are text."""
    raise ValueError(name)


def _commands(context: click.Context) -> list[dict[str, Any]]:
    """The commands of the array on the command line; none if it is not heard of soon."""
    array = context.params.get("array")
    if not isinstance(array, str):
        return []
    try:
        with settings_of(context).host(timeout_s=COMPLETION_TIMEOUT_S) as host:
            return host.commands(array)
    except CommandFailed:
        return []
