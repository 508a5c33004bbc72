"""The command line: `arrayd serve FILE.yaml` and `arrayd check FILE.yaml`.

Exit codes: 0 all well, 1 the array cannot start or a volume cannot be synced at the end, 2 the configuration or the
command line is wrong.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import click

from arrayd import __version__

if TYPE_CHECKING:
    from arrayd.array import Array
    from arrayd.config.schema import Config
    from arrayd.estate.rows import Holdings
    from arrayd.notify import Supervisor

T = TypeVar("T")

EXIT_NOT_STARTED = 1
EXIT_NOT_SYNCED = 1
EXIT_CONFIG = 2
EXIT_SIGNAL = 128
"""Plus the signal's number, as a shell says it."""

NO_PLUGINS = ("PYDANTIC_DISABLE_PLUGINS", "__all__")
"""Or pydantic looks for plugins among all packages that are installed, which takes longer than it needs itself."""

FILE = click.argument("file", metavar="FILE.yaml", type=click.Path(path_type=Path))


@click.group()
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """A disk array in one process: an iSCSI target whose LUNs are sparse files."""
    os.environ.setdefault(*NO_PLUGINS)


@main.command()
@FILE
def check(file: Path) -> None:
    """Say whether FILE.yaml can be served; one line a mistake, if not.

    What was made by command counts, too: it is read in the state directory, beside a daemon if one runs.
    """
    gc.disable()  # until it ends, which is soon: of what is imported nothing is garbage
    config = _load_or_exit(file)
    held = _holdings_or_exit(file, config)
    iscsi = config.iscsi
    who = "any initiator on this machine" if iscsi.initiators is None else f"{len(iscsi.initiators)} initiators"
    lines = (
        f"{file}: ok",
        f"array {config.array.name}, serial {config.array.serial}, state in {config.state_dir}",
        f"target {iscsi.target} on {' '.join(map(str, iscsi.listen))} for {who}",
        f"{len(held.volumes)} volumes, {len(held.luns)} LUNs",
    )
    if not _say("\n".join(lines)):
        sys.exit(EXIT_NOT_STARTED)


@main.command()
@FILE
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"]),
    default="info",
    show_default=True,
    help="Leave out what matters less.",
)
def serve(file: Path, log_json: bool, log_level: Literal["debug", "info", "warning", "error", "critical"]) -> None:
    """Serve the array of FILE.yaml until SIGTERM or SIGINT.

    Prints one line when it listens: `ready`, and the addresses. SIGHUP reads FILE.yaml again.
    """
    gc.disable()  # until what is imported and built is there, of which nothing is garbage
    config = _load_or_exit(file)

    import uvloop

    from arrayd import log

    _open_standard_files()
    log.configure(level=log_level, json=log_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_serve(file, config))
    sys.exit(code)


def _load_or_exit(file: Path) -> Config:
    from arrayd.config.load import load
    from arrayd.config.mistakes import ConfigError

    try:
        return load(file)
    except ConfigError as error:
        _complain(error.lines)
        sys.exit(EXIT_CONFIG)


def _holdings_or_exit(file: Path, config: Config) -> Holdings:
    """The configuration, and what was made by command in its state directory, which a daemon may be using."""
    from arrayd.estate.conflicts import conflicts
    from arrayd.estate.rows import Holdings, Rows
    from arrayd.replication.needs import lacking
    from arrayd.tables.estate import read_beside_daemon

    try:
        stored = read_beside_daemon(config.state_dir, config.array.serial)
        rows = Rows.of(stored.estate)
        held = Holdings(config, rows)
        lacks = lacking(stored.pairs, held.volumes)
    except ValueError as error:
        _complain([str(error)])
        sys.exit(EXIT_NOT_STARTED)
    found = [*conflicts(config, rows), *lacks]
    if found:
        _complain([f"{file}: {line}" for line in found])
        sys.exit(EXIT_CONFIG)
    return held


async def _serve(file: Path, config: Config) -> int:
    """From start to stop; the process's exit code."""
    from arrayd.array import Array, StartError
    from arrayd.notify import Supervisor

    signals = _Signals()
    supervisor = Supervisor(os.environ)
    array = Array(config)
    try:
        addresses = await signals.unless_stopped(array.start())
    except StartError as error:
        _complain(error.lines)
        return EXIT_NOT_STARTED
    if addresses is None:
        return 0
    alive = asyncio.create_task(supervisor.keep_alive())
    try:
        # What was imported and built stays for good: a collection that looks at it again stalls the loop for 20 ms.
        gc.collect()
        gc.freeze()
        gc.enable()
        _say(f"ready {' '.join(addresses)}")
        supervisor.ready(f"serving {' '.join(addresses)}")
        await _reload_until_stopped(file, array, supervisor, signals)
        supervisor.stopping()
        synced = await array.stop()
    finally:
        alive.cancel()
        await asyncio.gather(alive, return_exceptions=True)
    return 0 if synced else EXIT_NOT_SYNCED


async def _reload_until_stopped(file: Path, array: Array, supervisor: Supervisor, signals: _Signals) -> None:
    from arrayd.array import StartError
    from arrayd.config.load import load
    from arrayd.config.mistakes import ConfigError
    from arrayd.log import get_logger

    log = get_logger("array")
    while await signals.hang_up():
        supervisor.reloading()
        try:
            await array.reload(await asyncio.to_thread(load, file))
            log.info("reloaded", file=str(file))
            supervisor.ready("reloaded")
        except ConfigError as error:
            for line in error.lines:
                log.error("not reloaded", mistake=line)
            supervisor.ready(f"not reloaded: {error.lines[0]}")
        except StartError as error:
            for line in error.lines:
                log.error("not reloaded", reason=line)
            supervisor.ready(f"not reloaded: {error.lines[0]}")
        except Exception:
            # A fault of ours in a reload is no reason to take the LUNs from their hosts.
            log.exception("not reloaded")
            supervisor.ready("not reloaded: see the log")


class _Signals:
    """SIGTERM and SIGINT stop, the second one at once; SIGHUP reloads. A stop goes before a reload."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._changed.set)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopped.is_set():
            _exit_at_once(EXIT_SIGNAL + number)
        self._stopped.set()
        self._changed.set()

    async def hang_up(self) -> bool:
        """Waits for the next SIGHUP, which may have come already; False: the array is to stop."""
        await self._changed.wait()
        self._changed.clear()
        return not self._stopped.is_set()

    async def unless_stopped(self, starting: Coroutine[None, None, T]) -> T | None:
        """What the coroutine returns, or None when a stop comes first: then it is cancelled, and has ended."""
        start = asyncio.ensure_future(starting)
        stop = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not start.done():
                start.cancel()
            await asyncio.gather(start, stop, return_exceptions=True)
        return None if start.cancelled() else start.result()


def _exit_at_once(code: int) -> NoReturn:
    """Without a word to anyone: the user asked twice."""
    os._exit(code)


def _open_standard_files() -> None:
    """Whoever started us may have closed some of them; a socket must not become standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _say(text: str) -> bool:
    """Prints on standard output; False when nobody takes it, which must not end a daemon."""
    try:
        print(text, flush=True)
    except OSError:
        # What is left in the buffer would raise once more when the interpreter ends.
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, sys.stdout.fileno())
        os.close(nobody)
        return False
    return True


def _complain(lines: list[str]) -> None:
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        pass


if __name__ == "__main__":
    main(prog_name="arrayd")
