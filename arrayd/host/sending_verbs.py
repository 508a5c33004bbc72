"""The verbs of arrayctl that send what the user says: one command, or a file of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from arrayd.commands.results import Result
from arrayd.host.many import read_commands
from arrayd.host.naming import complete_commands, complete_fields, read_fields
from arrayd.host.settings import complete_arrays, settings_of, with_settings
from arrayd.host.show import complain, exit_code


@click.command()
@click.argument("array", shell_complete=complete_arrays)
@click.argument("command", shell_complete=complete_commands)
@click.argument("fields", metavar="[KEY=VALUE]...", nargs=-1, callback=read_fields, shell_complete=complete_fields)
@with_settings
@click.pass_context
def send(context: click.Context, array: str, command: str, fields: dict[str, Any]) -> None:
    """Have ARRAY carry out COMMAND and print its edited data as JSON.

    COMMAND is a name or a process number: `arrayctl commands ARRAY` lists them. A VALUE that is JSON is taken as JSON,
    anything else as text. Exits with 0, or with the code of the reason, 128 or more.

    \b
      arrayctl send remote echo text=hello
      arrayctl send remote volume-create name=data size=1073741824
      arrayctl send --method addressed --shortest remote device-status
    """
    settings = settings_of(context)
    with settings.host() as host:
        edited = host.send(array, command, **fields)
    if edited is not None:
        settings.output.data(edited)


@click.command("send-many")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--go-on", is_flag=True, help="Carry out the commands behind one that fails, too.")
@with_settings
@click.pass_context
def send_many(context: click.Context, file: Path, go_on: bool) -> int:
    """Send the commands that FILE lists in one message, carried out in their order (figures 38 to 41).

    FILE is a list in YAML or JSON, - is standard input. Prints a list of results, one for each command, and exits with
    the first that is not 0.

    \b
      - {array: intermediate, command: echo, input: {text: one}}
      - {array: remote, command: device-status}
    """
    settings = settings_of(context)
    commands = read_commands(file)
    with settings.host() as host:
        results = host.send_many(commands, go_on=go_on)
    rows = []
    for each in results:
        row = {"array": each.array, "command": each.command, "result": each.result}
        rows.append({**row, "edited": each.edited} if not each.reason else {**row, "error": each.reason})
        if each.reason:
            complain(each.reason)
    settings.output.data(rows)
    failed = next((each.result for each in results if each.result != Result.OK), None)
    return 0 if failed is None else exit_code(failed)


ALL = (send, send_many)
