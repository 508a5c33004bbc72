"""`arrayctl`: commands arrays from a host's command line (figures 7, 8, 25 to 30, 40). `docs/arrayctl.md` teaches it.

Exit codes: 0, or a Result, which is 128 or more: usage errors and faults of the program as well.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from arrayd import __version__
from arrayd.commands.results import Result
from arrayd.host import pair_verbs, pair_watching, verbs
from arrayd.host.failure import CommandFailed
from arrayd.host.many import read_commands
from arrayd.host.naming import complete_commands, complete_fields, read_fields
from arrayd.host.settings import complete_arrays, settings_of, with_settings
from arrayd.host.show import complain

EXIT_CODES = range(128, 256)


class Arrayctl(click.Group):
    """The command line, with our exit codes."""

    def main(self, *args: Any, **named: Any) -> Any:
        """As click's, but for how it ends."""
        standalone, named["standalone_mode"] = named.get("standalone_mode", True), False
        if not standalone:
            return super().main(*args, **named)
        try:
            ended = super().main(*args, **named)
        except CommandFailed as failure:
            complain(str(failure))
            sys.exit(exit_code(failure.result))
        except click.ClickException as error:
            complain(_usage(error))
            sys.exit(Result.USAGE)
        except click.Abort:
            _end_by(signal.SIGINT)
        except Exception:
            traceback.print_exc()
            sys.exit(Result.INTERNAL)
        sys.exit(ended if isinstance(ended, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a verb. Nobody reading on is no fault of ours."""
        try:
            ended = super().invoke(ctx)
            sys.stdout.flush()
            return ended
        except BrokenPipeError:
            _end_by(signal.SIGPIPE)


def exit_code(result: int) -> int:
    """A result as a process can end with it: results of newer arrays may not fit."""
    return result if result in EXIT_CODES else Result.INTERNAL


def _usage(error: click.ClickException) -> str:
    """A usage error on one line, with the way to the help."""
    text = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context is not None else "arrayctl"
    return f"{text.rstrip('.')}. Try: {where} --help"


def _end_by(number: signal.Signals) -> NoReturn:
    """Ends as the signal would have ended it, so that a shell sees why, and no exit code means two things."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(Result.INTERNAL)


@click.group(
    cls=Arrayctl,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="See `arrayctl VERB --help`, and docs/arrayctl.md.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@with_settings
def arrayctl() -> None:
    """Have any array carry out commands, near or far, through a LUN.

    The path table says how arrays are reached:

    \b
      paths:
        primary:      {direct: "iscsi://127.0.0.1:3260/iqn.2026-11.io.arrayd:primary/9"}
        intermediate: {through: primary, lun: 10}
        remote:       {through: intermediate}

    \b
      arrayctl status                        how all of them are
      arrayctl send remote echo text=hello   one command, its answer as JSON
      arrayctl commands remote               what else it can be told
    """


@arrayctl.command(short_help="Have an array carry out a command.")
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


@arrayctl.command("send-many", short_help="Send several commands in one message.")
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


for verb in (*verbs.ALL, *pair_verbs.ALL, *pair_watching.ALL):
    arrayctl.add_command(verb)


def main(arguments: list[str] | None = None) -> None:
    """The console script; without `arguments`, those of the process. Ends with SystemExit."""
    arrayctl(arguments, prog_name="arrayctl")


if __name__ == "__main__":
    main()
