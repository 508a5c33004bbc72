"""The verbs of arrayctl that change pairs, and replicate, which drives them: paircreate, pairsplit, pairresync,
horctakeover. Options and exit codes are those that users of CCI know; `docs/arrayctl.md` says where they differ.
"""

from __future__ import annotations

from typing import Any

import click

from arrayd.commands.messages import TIME_LIMIT_MS_MAX
from arrayd.commands.results import Result
from arrayd.config.values import LUN_MAX, copy_rate
from arrayd.host import machine, pair_commands, pair_making, pair_replicating, pair_takeover
from arrayd.host.failure import CommandFailed
from arrayd.host.groups import DRIVERS, FENCE_LEVELS, Group
from arrayd.host.pair_asking import Arrays
from arrayd.host.pair_changes import carry_out
from arrayd.host.pair_making import PACE, PACE_MAX, Wanted
from arrayd.host.pair_page import shown_unknown
from arrayd.host.pair_replicating import STEPS, Replicating
from arrayd.host.pair_settings import arrays_of, with_group
from arrayd.host.settings import Settings, settings_of
from arrayd.host.show import complain
from arrayd.host.way import TIMEOUT_S
from arrayd.replication.statuses import Operation

ASYNC = "async"
"""What stands for a fence level of an asynchronous group, behind -f."""
NO_LIMIT = "0"
TURNS_MAX = 1_000_000_000
INTERVAL_S = 1.0
INTERVAL_S_MAX = 86_400.0


class CopyRate(click.ParamType[int]):
    """Bytes a second, as a size."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click.ParamType."""
        try:
            return 0 if value == NO_LIMIT else copy_rate(int(value) if value.isdecimal() else value)
        except ValueError as error:
            self.fail(f"expected {error}; {NO_LIMIT}: no limit", param, ctx)


_COPY_RATE = click.option(
    "--copy-rate", "rate", metavar="SIZE", type=CopyRate(), help="Of copies: so many bytes a second at the most."
)


@click.command()
@click.option("-vl", "here", is_flag=True, help="The local volumes become the P-VOLs.")
@click.option("-vr", "there", is_flag=True, help="The remote volumes become the P-VOLs. Without both: as the leg says.")
@click.option("-f", "fence", type=click.Choice([*FENCE_LEVELS, ASYNC]),
              help="The fence level of a synchronous group, async of others. Default: the path table's.")  # fmt: skip
@click.option("-nocopy", "nocopy", is_flag=True, help="The volumes are the same already: nothing is copied.")
@click.option("-c", "pace", metavar="PACE", type=click.IntRange(1, PACE_MAX), default=PACE, show_default=True,
              help=f"Of copies: 1, slow, to {PACE_MAX}.")  # fmt: skip
@click.option("-jp", "p_journal", metavar="LUN", type=click.IntRange(0, LUN_MAX), help="The P-VOLs' journal.")
@click.option("-js", "s_journal", metavar="LUN", type=click.IntRange(0, LUN_MAX), help="The S-VOLs' journal.")
@_COPY_RATE
@click.option("--driver", type=click.Choice(DRIVERS),
              help="Who goes through the loop of figure 16. Default: as the path table says.")  # fmt: skip
@with_group
@click.pass_context
def paircreate(
    context: click.Context,
    group: str,
    here: bool,
    there: bool,
    fence: str | None,
    nocopy: bool,
    pace: int,
    rate: int | None,
    p_journal: int | None,
    s_journal: int | None,
    driver: str | None,
) -> None:
    """Make the pairs of a group: all of them, or those that are not there yet. The copy begins at once.

    Fence level: when P-VOLs of a synchronous group refuse writes. never: hosts go on alone when the S-VOLs cannot be
    written. data: whenever a write cannot be on both sides. status: only if the S-VOLs' side cannot be told that the
    pairs are suspended.

    \b
      arrayctl paircreate -g oradb -vl -f async
      arrayctl paircreate -g oradb -vl -f async -jp 20 -js 20 -c 15
      arrayctl paircreate -g mirror -vl -f data
    """
    if here and there:
        raise click.UsageError("-vl and -vr are two directions: one of them", context)
    with arrays_of(settings_of(context), group) as arrays:
        wrong = _of_another_mode(arrays.group, fence, driver, p_journal, s_journal)
        if wrong is not None:
            raise click.UsageError(wrong, context)
        p_vols = arrays.local if here else arrays.remote if there else arrays.group.legs[0].start
        driver = driver or arrays.group.driver
        level = None if fence == ASYNC else fence
        pair_making.create(arrays, Wanted(p_vols, not nocopy, pace, driver, p_journal, s_journal, rate, level))


def _of_another_mode(
    group: Group, fence: str | None, driver: str | None, p_journal: int | None, s_journal: int | None
) -> str | None:
    """What of the command line does not go with the mode that the path table gives the group, and why."""
    mode = f"groups.{group.name}.legs[0].mode: {group.legs[0].mode}"
    if not group.synchronous:
        return f"-f {fence}: expected {ASYNC}, or no -f: {mode}" if fence in FENCE_LEVELS else None
    if fence == ASYNC:
        return f"-f {ASYNC}: expected {', '.join(FENCE_LEVELS)}, or no -f: {mode}"
    if p_journal is not None or s_journal is not None:
        return f"{'-js' if p_journal is None else '-jp'}: a synchronous group has no journals: {mode}"
    return f"--driver host: the arrays drive a synchronous group: {mode}" if driver == "host" else None


@click.command()
@click.option("-r", "read", is_flag=True, help="The S-VOLs can be read (as they can without it).")
@click.option("-rw", "write", is_flag=True, help="The S-VOLs can be written.")
@click.option("-S", "simplex", is_flag=True, help="End the pairs: the volumes are in none any more.")
@click.option("-d", "volume", metavar="VOLUME", help="End this pair alone; with -S.")
@with_group
@click.pass_context
def pairsplit(context: click.Context, group: str, read: bool, write: bool, simplex: bool, volume: str | None) -> None:
    """Split the pairs of a group: the S-VOLs stand at one point of the group's writes, and what is written then is
    marked. `-S` ends the pairs.

    \b
      arrayctl pairsplit -g oradb
      arrayctl pairsplit -g oradb -rw
      arrayctl pairsplit -g oradb -S -d log
    """
    if read + write + simplex > 1:
        raise click.UsageError("-r, -rw and -S are three things: one of them", context)
    if volume is not None and not simplex:
        raise click.UsageError("-d: a group is split as a whole: -d goes with -S", context)
    operation = Operation.PAIRSPLIT_S if simplex else Operation.PAIRSPLIT_RW if write else Operation.PAIRSPLIT
    with arrays_of(settings_of(context), group) as arrays:
        names = [each.name for each in arrays.group.volumes]
        if volume is not None and volume not in names:
            raise click.UsageError(f"-d {volume}: expected a volume of {group}: {', '.join(names)}", context)
        _tell(carry_out(arrays, operation, volume))


@click.command()
@click.option("-swaps", "swaps", is_flag=True, help="Asked at the S-VOLs' side: they become the P-VOLs.")
@click.option("-swapp", "swapp", is_flag=True, help="Asked at the P-VOLs' side: they become the S-VOLs.")
@click.option("-c", "pace", metavar="PACE", type=click.IntRange(1, PACE_MAX), help="Of copies, from now on.")
@_COPY_RATE
@with_group
@click.pass_context
def pairresync(
    context: click.Context, group: str, swaps: bool, swapp: bool, pace: int | None, rate: int | None
) -> None:
    """Resume the pairs of a group: what differs is copied, from the P-VOLs to the S-VOLs.

    \b
      arrayctl pairresync -g oradb
      arrayctl pairresync -g oradb -swaps        at the side that was taken over: its data lead
    """
    if swaps and swapp:
        raise click.UsageError("-swaps and -swapp are asked for at two sides: one of them", context)
    operation = Operation.PAIRRESYNC
    if swaps or swapp:
        operation = Operation.PAIRRESYNC_SWAPS if swaps else Operation.PAIRRESYNC_SWAPP
    with arrays_of(settings_of(context), group) as arrays:
        _tell(carry_out(arrays, operation))
        given = {"pace": pace, "copy_rate": rate}
        settings = {key: value for key, value in given.items() if value is not None}
        if settings:
            _set(arrays, settings)


def _set(arrays: Arrays, settings: dict[str, int]) -> None:
    """At both sides: that with the S-VOLs copies, and they may change places."""
    told = [pair_commands.settings(array, arrays.group.name, **settings) for array in arrays.names]
    failed = next((each for each in arrays.tell(told, any_order=True) if each.result != Result.OK), None)
    if failed is not None:
        asked = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())
        raise CommandFailed(failed.result, f"the pairs are resumed, but not with {asked}: {failed.reason}")


@click.command()
@click.option("-S", "forced", is_flag=True, help="Take the S-VOLs over though the other array answers.")
@click.option("-t", "seconds", metavar="SECONDS", type=click.FloatRange(0.001, TIME_LIMIT_MS_MAX / 1000),
              help=f"How long it may take. Default: that of --timeout, {TIMEOUT_S:g}.")  # fmt: skip
@click.option("--plan", is_flag=True, help="Say what it would do, and what would be lost by it; do nothing.")
@with_group
@click.pass_context
def horctakeover(context: click.Context, group: str, forced: bool, seconds: float | None, plan: bool) -> int:
    """Have the local volumes of a group written, by what the state of the pairs allows, and say what was done.

    Exits with 0 if there is nothing to do, 1 after a swap, 2 SVOL, 3 PVOL-SMPL, 4 PVOL-PSUE, 5 SVOL-SSUS-takeover; a
    plan with 0.

    \b
      arrayctl horctakeover -g oradb --plan
      arrayctl horctakeover -g oradb -t 60
    """
    settings = settings_of(context)
    with arrays_of(settings, group, **({} if seconds is None else {"timeout_s": seconds})) as arrays:
        if plan:
            _show_plan(settings, arrays, forced=forced)
            return 0
        taken = pair_takeover.take_over(arrays, forced=forced)
    settings.output.rows(pair_takeover.DONE, [taken.row])
    _tell(taken.notes)
    return int(taken.code)


def _show_plan(settings: Settings, arrays: Arrays, *, forced: bool) -> None:
    row = pair_takeover.plan_row(arrays, pair_takeover.decide(arrays, arrays.ask(), forced=forced))
    output = settings.output
    output.rows(pair_takeover.PLAN, [row if output.as_json else shown_unknown(row, pair_takeover.FIGURES)])


@click.command()
@click.option("--once", "once", is_flag=True, help="One turn of the loop; the same as -n 1.")
@click.option("-n", "turns", metavar="TURNS", type=click.IntRange(1, TURNS_MAX), help="So many turns of the loop.")
@click.option("-i", "interval", metavar="SECONDS", type=click.FloatRange(0, INTERVAL_S_MAX), default=INTERVAL_S,
              show_default=True, help="After a turn that found nothing to do, or that failed.")  # fmt: skip
@with_group
@click.pass_context
def replicate(context: click.Context, group: str, once: bool, turns: int | None, interval: float) -> None:
    """Drive the pairs of a group that paircreate --driver host has made: initial copy, journal acquisition, restore and
    purge, one instruction after the other, a line a step (figures 11 and 13 to 16).

    Goes on until it is interrupted, or for so many turns. What fails is said, and tried again as long as there are
    turns left. Exits with 0, with the code of the last turn, or with 234 if the pairs are suspended.

    
      arrayctl replicate -g oradb
      arrayctl replicate -g oradb --once
    """
    if once and turns is not None:
        raise click.UsageError("--once and -n are two numbers of turns: one of them", context)
    settings = settings_of(context)
    output = settings.output
    with arrays_of(settings, group) as arrays:
        driving = Replicating(arrays, lambda row: output.line(STEPS, row))
        pair_replicating.run(driving.turn, 1 if once else turns, interval, machine.pause, complain)


def _tell(notes: list[str]) -> None:
    for note in notes:
        complain(note)


ALL = (paircreate, pairsplit, pairresync, horctakeover, replicate)
