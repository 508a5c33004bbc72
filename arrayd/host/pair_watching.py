"""The verbs of arrayctl that look at pairs, or wait for them: pairdisplay, pairvolchk, pairevtwait, pairsyncwait.
Columns, options and exit codes are those that users of CCI know; `docs/arrayctl.md` says where they differ.
"""

from __future__ import annotations

import click

from arrayd.host import machine, pair_differences, pair_lag, pair_page, pair_progress, pair_verifying, pair_wait
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_differences import DIFFERENCES, RANGES_SHOWN, RANGES_SHOWN_MAX
from arrayd.host.pair_misfits import misfits
from arrayd.host.pair_settings import arrays_of, with_group
from arrayd.host.pair_status import Silence
from arrayd.host.pair_wait import (
    S_VOLS_ONLY,
    TIMEOUT_S_MAX,
    WAITED_FOR,
    Ended,
    EventWaiting,
    Judged,
    Marker,
    SyncWaiting,
)
from arrayd.host.settings import Settings, settings_of
from arrayd.host.show import Column, complain
from arrayd.replication.exit_codes import INVALID_VOLUME, UNCONFORMED, UNMATCHED, EventWait, SyncWait
from arrayd.replication.statuses import Status

ERRORS = 128
"""Codes from here on are errors."""
SYNC = (Column("Group", "group"), Column("Q-Marker", "marker"), Column("Status", "status"))
NOWAIT = "NOWAIT"
WHY = {
    EventWait.TIMEOUT: "time is up, wait again or see what is the matter with pairdisplay",
    EventWait.SUSPENDED: "it was suspended, pairresync when the reason is gone",
    INVALID_VOLUME: "only P-VOLs in PAIR have a point to wait for, pairevtwait -s pair first",
    UNMATCHED: "the volumes of the group differ, see pairdisplay",
    UNCONFORMED: "see pairdisplay, and what the file says of the group",
}
"""What stands before what is shown, by code."""

_SECONDS = click.option(
    "-t", "seconds", metavar="SECONDS", type=click.FloatRange(0, TIMEOUT_S_MAX), help="How long it is waited for."
)
_LOCAL = click.option("-l", "local", is_flag=True, help="Of the local side alone; the other is not asked.")


@click.command()
@click.option("-fe", "extended", is_flag=True, help="With the numbers of consistency group and journal.")
@click.option("-fc", "copied", is_flag=True, help="With how much is copied (as it is without it).")
@click.option("-v", "view", type=click.Choice(["jnl", "lag", "diff", "progress", "verify"]),
              help="jnl: the group's journals, and how full they are. lag: how far the S-VOLs are behind. "
                   "diff: ranges that may differ. progress: copies, and what is on its way: how much is done, and how "
                   "long it will take. verify: how pairverify goes, or has ended.")  # fmt: skip
@click.option("--limit", metavar="COUNT", type=click.IntRange(1, RANGES_SHOWN_MAX), default=RANGES_SHOWN,
              show_default=True, help="With -v diff: so many ranges of each volume and side.")  # fmt: skip
@click.option("-CLI", "columns", is_flag=True, help="Columns with a tab between, on a terminal too.")
@_LOCAL
@with_group
@click.pass_context
def pairdisplay(
    context: click.Context,
    group: str,
    local: bool,
    extended: bool,
    copied: bool,
    view: str | None,
    limit: int,
    columns: bool,
) -> int:
    """Show the pairs of a group, on both sides: L is the local one. What is not known is shown as unknown.

    Exits with 0; with 147 if one side could not be asked, 134 if it has no volume at a LUN of the path table, 235 if
    the arrays have other pairs than that.

    \b
      arrayctl pairdisplay -g oradb -fe
      arrayctl pairdisplay -g oradb -v jnl
      arrayctl pairdisplay -g oradb -v lag
      arrayctl pairdisplay -g oradb -v diff
      arrayctl pairdisplay -g oradb -v progress
      arrayctl pairdisplay -g oradb -v verify
    """
    output = settings_of(context).output
    output.for_people = output.for_people and not columns
    with arrays_of(settings_of(context), group) as arrays:
        sides = _ask(arrays, local)
        heard = sides.heard
        rows, notes = pair_differences.rows(arrays, sides, limit, local=local) if view == "diff" else ([], [])
    if view == "diff":
        output.rows(DIFFERENCES, rows)
    elif view == "progress":
        pair_progress.show_progress(output, arrays.group, arrays.here, heard, local=local)
    elif view == "verify":
        pair_verifying.show_verifies(output, arrays.group, arrays.here, heard, local=local)
    elif view is None:
        pair_page.show_pairs(output, arrays.group, arrays.here, heard, extended=extended, local=local)
    elif view == "lag":
        pair_lag.show_lag(output, arrays.group, arrays.here, heard, local=local)
    else:
        pair_page.show_journals(output, arrays.group, arrays.here, heard, local=local)
    if view == "jnl" and arrays.group.synchronous:
        notes.append(f"{group} is synchronous: it has no journals")
    silent = [each for each in heard.values() if isinstance(each, Silence)]
    wrong = misfits(sides)
    for reason in [*notes, *wrong, *(each.reason for each in silent)]:
        complain(reason)
    if silent:
        return sides.silence_code()
    return UNCONFORMED if wrong else 0


@click.command()
@click.option("-s", "-ss", "status", is_flag=True, help="And what their status is.")
@click.option("-c", "remote", is_flag=True, help="Of the remote volumes, if both sides are those of one pair.")
@with_group
@click.pass_context
def pairvolchk(context: click.Context, group: str, status: bool, remote: bool) -> int:
    """Say by the exit code what the local volumes of a group are: 1 SMPL, 2 P-VOL, 3 S-VOL.

    With -ss: 11 SMPL, 42 to 48 P-VOL COPY, PAIR, PSUS, PSUE, PDUB, PFUL, PFUS, 50 S-VOL SSWS, 52 to 58 S-VOL likewise.
    Of a synchronous group 20 less.

    \b
      arrayctl pairvolchk -g oradb -ss
      arrayctl pairvolchk -g oradb -ss -c
    """
    settings = settings_of(context)
    with arrays_of(settings, group) as arrays:
        sides = _ask(arrays, not remote)
    _complain_of(sides)
    return _end(settings, pair_wait.pairvolchk(sides, status=status, remote=remote))


@click.command()
@click.option("-s", "p_wanted", metavar="STATUS", multiple=True,
              help=f"Of the P-VOLs: one or more of {', '.join(WAITED_FOR)}.")  # fmt: skip
@click.option("-ss", "s_wanted", metavar="STATUS", multiple=True, help="Of the S-VOLs, likewise.")
@click.argument("more", metavar="[STATUS]...", nargs=-1)
@_SECONDS
@click.option("-nowait", "nowait", is_flag=True, help="Say by the exit code what the status is now.")
@click.option("-nowaits", "nowaits", is_flag=True, help="The same of the S-VOLs.")
@_LOCAL
@with_group
@click.pass_context
def pairevtwait(
    context: click.Context,
    group: str,
    p_wanted: tuple[str, ...],
    s_wanted: tuple[str, ...],
    more: tuple[str, ...],
    seconds: float | None,
    nowait: bool,
    nowaits: bool,
    local: bool,
) -> int:
    """Wait until every pair of a group has one of these statuses, as its P-VOL shows it; with -ss, as its S-VOL does.

    Exits with 0, or 233 when time is up, or 234 if a pair was suspended meanwhile. With -nowait: 1 SMPL, 2 COPY,
    3 PAIR, 4 PSUS, 5 PSUE.

    \b
      arrayctl pairevtwait -g oradb -s pair -t 600
      arrayctl pairevtwait -g oradb -s psus psue -t 60
      arrayctl pairevtwait -g oradb -ss ssus -t 60
      arrayctl pairevtwait -g oradb -nowait
    """
    of_s_vols = bool(s_wanted) or nowaits
    if of_s_vols and (p_wanted or nowait or local):
        raise click.UsageError("-s, -ss and -l are of the P-VOLs, the S-VOLs and the local side: one of them", context)
    which = Judged.LOCAL if local else Judged.S_VOLS if of_s_vols else Judged.P_VOLS
    settings = settings_of(context)
    if nowait or nowaits:
        with arrays_of(settings, group) as arrays:
            sides = _ask(arrays, local)
        _complain_of(sides)
        return _end(settings, pair_wait.pairevtwait_nowait(sides, which))
    names = [*p_wanted, *s_wanted, *more]
    if seconds is None or not (p_wanted or s_wanted):
        raise click.UsageError("-s STATUS and -t SECONDS, or -nowait", context)
    wanted = _wanted(context, names, which)
    waiting = EventWaiting(wanted, machine.monotonic(), seconds, which)
    with arrays_of(settings, group) as arrays:
        return _end(settings, _wait(arrays, waiting, seconds, local=local))


def _wanted(context: click.Context, names: list[str], which: Judged) -> frozenset[Status]:
    """What is waited for. Raises UsageError for what is never shown: nobody waits for it until time is up."""
    option = "-ss" if which is Judged.S_VOLS else "-s"
    try:
        wanted = pair_wait.wanted_statuses(names)
    except ValueError as error:
        raise click.UsageError(f"{option} {' '.join(names)}: expected {error}", context) from None
    never = sorted(status.value.lower() for status in wanted & S_VOLS_ONLY)
    if never and which is Judged.P_VOLS:
        reason = f"-s {never[0]}: no P-VOL shows it: -ss {never[0]} waits until the S-VOLs do"
        raise click.UsageError(reason, context)
    return wanted


@click.command()
@click.option("-m", "marker", metavar="MARKER", help="The point that -nowait, or another wait, has told.")
@_SECONDS
@click.option("-nowait", "nowait", is_flag=True, help="Tell the point that would be waited for.")
@with_group
@click.pass_context
def pairsyncwait(context: click.Context, group: str, marker: str | None, seconds: float | None, nowait: bool) -> int:
    """Wait until all that the P-VOLs of a group have been written to is on the S-VOLs: of a synchronous group in PAIR
    that is so already.

    Exits with 0 DONE, 1 TIMEOUT, 2 BROKEN, 3 CHANGED; with 222 if the P-VOLs are not PAIR and no point is named (2 if
    they are of a synchronous group, and suspended).

    \b
      arrayctl pairsyncwait -g oradb -t 60
      marker=$(arrayctl pairsyncwait -g oradb -nowait | cut -f 2)
      arrayctl pairsyncwait -g oradb -t 60 -m $marker
    """
    settings = settings_of(context)
    if nowait:
        with arrays_of(settings, group) as arrays:
            ended = pair_wait.pairsyncwait_nowait(_ask(arrays, local=False))
        return _end_sync(settings, group, ended, ended.text, NOWAIT)
    if seconds is None:
        raise click.UsageError("-t SECONDS, or -nowait", context)
    try:
        point = None if marker is None else Marker.read(marker)
    except ValueError as error:
        raise click.UsageError(f"-m {marker}: expected {error}", context) from None
    waiting = SyncWaiting(machine.monotonic(), seconds, point)
    with arrays_of(settings, group) as arrays:
        ended = _wait(arrays, waiting, seconds)
    told = None if waiting.marker is None else str(waiting.marker)
    return _end_sync(settings, group, ended, told, SyncWait(ended.code).name if ended.code < ERRORS else "")


def _ask(arrays: Arrays, local: bool) -> pair_wait.Sides:
    return arrays.ask(arrays.local) if local else arrays.ask()


def _complain_of(sides: pair_wait.Sides) -> None:
    """Says where the path table names other volumes than the arrays have in their pairs."""
    for line in misfits(sides):
        complain(line)


def _wait(arrays: Arrays, waiting: EventWaiting | SyncWaiting, seconds: float, *, local: bool = False) -> Ended:
    """Asks until the wait has ended. No question takes much longer than the time that is left."""
    until = machine.monotonic() + seconds
    names = (arrays.local,) if local else arrays.names
    while True:
        sides = arrays.ask(*names, timeout_s=machine.remaining(until))
        step = waiting.heard(sides, machine.monotonic())
        if isinstance(step, Ended):
            _complain_of(sides)
            return step
        machine.pause(step.pause_s)


def _end(settings: Settings, ended: Ended) -> int:
    """Tells what was found: an error on standard error."""
    if ended.code >= ERRORS:
        _complain(ended)
    elif settings.output.as_json:
        settings.output.data({"code": int(ended.code), "text": ended.text})
    else:
        click.echo(ended.text)
    return int(ended.code)


def _complain(ended: Ended) -> None:
    why = WHY.get(ended.code)
    complain(ended.text if why is None else f"{why}: {ended.text}")


def _end_sync(settings: Settings, group: str, ended: Ended, marker: str | None, status: str) -> int:
    if ended.code >= ERRORS:
        _complain(ended)
    else:
        settings.output.rows(SYNC, [{"group": group, "marker": marker, "status": status, "text": ended.text}])
    return int(ended.code)


ALL = (pairdisplay, pairvolchk, pairevtwait, pairsyncwait)
