"""`arrayctl`: commands arrays from a host's command line (figures 7, 8, 25 to 30, 40). `docs/arrayctl.md` teaches it.

Exit codes: 0, or a Result, which is 128 or more: usage errors and faults of the program as well.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from arrayd import __version__
from arrayd.commands.results import Result
from arrayd.host.failure import CommandFailed
from arrayd.host.settings import with_settings
from arrayd.host.show import complain, exit_code
from arrayd.host.verb_table import SHORT_HELP, verb

NO_PLUGINS = ("PYDANTIC_DISABLE_PLUGINS", "__all__")
"""Or pydantic looks for plugins among all packages that are installed, which takes longer than it needs itself."""


class Arrayctl(click.Group):
    """The command line, with our exit codes. A verb is loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs."""
        return list(SHORT_HELP)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of this name, None if there is none."""
        return verb(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SHORT_HELP.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, from the table."""
        verbs = [CompletionItem(name, help=text) for name, text in SHORT_HELP.items() if name.startswith(incomplete)]
        return [*verbs, *super(click.Group, self).shell_complete(ctx, incomplete)]

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


def main(arguments: list[str] | None = None) -> None:
    """The console script; without `arguments`, those of the process. Ends with SystemExit."""
    os.environ.setdefault(*NO_PLUGINS)
    gc.disable()  # until `Settings.host` has all that is imported, of which nothing is garbage
    try:
        arrayctl(arguments, prog_name="arrayctl")
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
