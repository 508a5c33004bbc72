"""The verb pairverify of arrayctl. CCI has no such verb."""

from __future__ import annotations

import sys

import click

from arrayd.commands.results import Result
from arrayd.host import pair_verified, pair_verifying
from arrayd.host.failure import CommandFailed
from arrayd.host.pair_settings import arrays_of, with_group
from arrayd.host.pair_verified import Verify as Told
from arrayd.host.pair_verifying import FOUND, Watched
from arrayd.host.settings import Settings, settings_of
from arrayd.host.show import Column, complain, duration, size
from arrayd.replication.exit_codes import Verify

CODES = {
    pair_verified.SAME: Verify.SAME,
    pair_verified.DIFFERS: Verify.DIFFERS,
    pair_verified.MENDED: Verify.MENDED,
}
BEGUN = (Column("Group", "group"), Column("Array", "array"), Column("Verify", "state"))


@click.command()
@click.option("-d", "volume", metavar="VOLUME", help="This pair alone.")
@click.option("--repair-from", "leads", metavar="ARRAY",
              help="What differs is written to both sides as this array has it, and compared again.")  # fmt: skip
@click.option("--no-wait", "no_wait", is_flag=True, help="Begin it, and do not wait: pairdisplay -v verify shows it.")
@click.option("--watch", "watches", is_flag=True, help="Wait for one that was begun before, or list what it has found.")
@click.option("--stop", "stops", is_flag=True, help="End one that runs.")
@with_group
@click.pass_context
def pairverify(
    context: click.Context,
    group: str,
    volume: str | None,
    leads: str | None,
    no_wait: bool,
    watches: bool,
    stops: bool,
) -> int:
    """Compare the pairs of a group by checksums at one point of the order of its writes, while hosts write, and list
    the ranges that differ. The arrays do it, whether anybody waits or not.

    Exits with 0 if they are the same, 1 if they differ or a journal is damaged, 2 if all that differed was repaired;
    138 if it was stopped, 133 if it has failed.

    \b
      arrayctl pairverify -g oradb
      arrayctl pairverify -g oradb -d log --repair-from primary
      arrayctl pairverify -g oradb --no-wait
      arrayctl pairverify -g oradb --watch
    """
    if watches + stops + no_wait > 1 or ((watches or stops) and (volume is not None or leads is not None)):
        raise click.UsageError("--no-wait, --watch and --stop: one of them, and -d and --repair-from to begin", context)
    settings = settings_of(context)
    with arrays_of(settings, group) as arrays:
        names = [each.name for each in arrays.group.volumes]
        if volume is not None and volume not in names:
            raise click.UsageError(f"-d {volume}: expected a volume of {group}: {', '.join(names)}", context)
        if leads is not None and leads not in arrays.names:
            raise click.UsageError(f"--repair-from {leads}: expected {' or '.join(arrays.names)}", context)
        if stops:
            _show_begun(settings, pair_verifying.stop(arrays))
            return 0
        watched = pair_verifying.running(arrays) if watches else pair_verifying.begin(arrays, volume, leads)
        if no_wait:
            _show_begun(settings, watched)
            return 0
        ended = pair_verifying.watch(watched, _progress)
        rows, notes = pair_verifying.found(watched)
    return _end(settings, group, ended, rows, notes)


def _show_begun(settings: Settings, watched: Watched) -> None:
    row = {"group": watched.arrays.group.name, "array": watched.at} | pair_verifying.verify_row(watched.verify)
    settings.output.rows(BEGUN, [row])


def _progress(told: Told) -> None:
    """One line that is written over again, for a person who waits."""
    if not sys.stderr.isatty():
        return
    running = told.state == pair_verified.RUNNING
    rate = "" if told.rate is None else f", {size(told.rate)}/s"
    left = "" if told.seconds_left is None else f", {duration(told.seconds_left)} left"
    trouble = f", {told.trouble}" if told.trouble else ""
    line = f"{told.percent or 0}% of {size((told.done or 0) + (told.left or 0))}{rate}{left}"
    line += f", {size(told.differing)} differ{trouble}"
    click.echo(f"\r\x1b[K{line[:100]}" if running else "\r\x1b[K", err=True, nl=False)


def _end(settings: Settings, group: str, ended: Told, rows: list[dict[str, object]], notes: list[str]) -> int:
    if rows or settings.output.as_json:
        settings.output.rows(FOUND, rows)
    for note in notes:
        complain(note)
    if ended.state in CODES:
        return int(CODES[ended.state])
    result = Result.INTERRUPTED if ended.state == pair_verified.STOPPED else Result.FAILED
    raise CommandFailed(result, f"group {group}: the verify {_HOW[ended.state]}: {ended.trouble}")


_HOW = {pair_verified.STOPPED: "was stopped", pair_verified.FAILED: "has failed"}

ALL = (pairverify,)
