"""The verbs of arrayctl for people: each is a command or two, shown as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from arrayd.commands.results import Result
from arrayd.host.addresses import IscsiAddress
from arrayd.host.failure import CommandFailed
from arrayd.host.fill_in import fill_in
from arrayd.host.host import Host
from arrayd.host.machine import pause
from arrayd.host.naming import complete_commands
from arrayd.host.paths import PathTable
from arrayd.host.settings import Settings, complete_arrays, settings_of, with_settings
from arrayd.host.show import Column, complain, duration, moment, size, yes

FOLLOW_PAUSE_S = 1.0
"""Between two looks for new events."""
EVENTS_SHOWN = 20
EVENTS_A_TIME = 100

ARRAYS = (Column("ARRAY", "array"), Column("PATH", "path"), Column("METHOD", "method"), Column("ADDRESS", "address"))
STATUS = (
    Column("ARRAY", "array"),
    Column("STATE", "state"),
    Column("SERIAL", "serial"),
    Column("VERSION", "version"),
    Column("UPTIME", "uptime", duration),
    Column("VOLUMES", "volumes"),
    Column("LINKS", "links"),
    Column("ERRORS", "errors"),
    Column("REASON", "reason"),
)
VOLUMES = (
    Column("VOLUME", "name"),
    Column("SIZE", "size", size),
    Column("ALLOCATED", "allocated", size),
    Column("STATE", "state"),
)
LINKS = (
    Column("LINK TO", "array"),
    Column("STATE", "state"),
    Column("ROUND TRIP us", "round_trip_us"),
    Column("REASON", "reason"),
)
LUNS = (
    Column("LUN", "lun"),
    Column("KIND", "kind"),
    Column("VOLUME", "volume"),
    Column("ARRAY", "array"),
    Column("MAPPING LUN", "mapping_lun"),
    Column("SOURCE", "source"),
)
EVENTS = (
    Column("NUMBER", "number"),
    Column("TIME (UTC)", "time", moment),
    Column("SEVERITY", "severity"),
    Column("KIND", "kind"),
    Column("TEXT", "text"),
)
COMMANDS = (
    Column("NUMBER", "number"),
    Column("COMMAND", "name"),
    Column("CHANGES", "changes", yes),
    Column("HELP", "help"),
)
FIELDS = (Column("KEY", "key"), Column("TYPE", "type"), Column("DEFAULT", "default"), Column("HELP", "help"))
FOUND = (
    Column("ARRAY", "array"),
    Column("ASKED", "asked"),
    Column("LUN", "lun"),
    Column("IN THE TABLE", "known"),
    Column("WHAT TO DO", "todo"),
)


@click.command()
@with_settings
@click.pass_context
def arrays(context: click.Context) -> int:
    """List the path table: which array is reached how (figure 25). No array is asked.

    Exits with 128 if there is a mistake in one of its groups, and says every one.

    \b
      arrayctl arrays
      arrayctl arrays --at intermediate      the same, seen from another array
    """
    settings = settings_of(context)
    with settings.host() as host:
        settings.output.rows(ARRAYS, [_path_row(host, name) for name in host.table.rows])
        for line in host.table.mistakes:
            complain(line)
        return Result.USAGE if host.table.refused else 0


def _path_row(host: Host, name: str) -> dict[str, Any]:
    row = host.table.rows[name]
    told = {"array": name, "address": str(row.direct) if row.direct else None}
    try:
        route = host.route(name)
    except CommandFailed as failure:
        return {**told, "path": None, "method": failure.reason}
    path = [route.asked, *route.addresses]
    by_device = route.lun is not None and not host.way.addressed
    method = "command-device" if by_device else "addressed"
    if by_device and route.addresses:
        method += f" (LUN {route.lun})"
    return {**told, "path": " > ".join(path) if route.addresses else "direct", "method": method}


@click.command()
@click.argument("array", required=False, shell_complete=complete_arrays)
@with_settings
@click.pass_context
def status(context: click.Context, array: str | None) -> int:
    """Say how ARRAY is, or, without one, how all arrays of the path table are.

    Exits with 0, or with the code of the first array that could not be asked.

    \b
      arrayctl status
      arrayctl status remote
      arrayctl status --json | jq '.[].errors'
    """
    settings = settings_of(context)
    with settings.host() as host:
        if array is not None:
            _show_status(settings, host.send(array, "device-status"))
            return 0
        rows, code = [], 0
        for name in host.table.rows:
            try:
                rows.append(host.send(name, "device-status"))
            except CommandFailed as failure:
                code = code or failure.result
                rows.append({"array": name, "state": failure.name.lower(), "reason": str(failure)})
        output = settings.output
        output.rows(STATUS, rows if output.as_json else map(_counted, rows))
    return code


def _counted(told: Mapping[str, Any]) -> dict[str, Any]:
    """A status on one row: volumes and links are counted, and links that are down named."""
    volumes, links = told.get("volumes"), told.get("links")
    row = {**told, "volumes": None if volumes is None else len(volumes)}
    if links is not None:
        up = [link for link in links if link.get("state") == "up"]
        row["links"] = f"{len(up)}/{len(links)} up"
    return row


def _show_status(settings: Settings, told: Mapping[str, Any]) -> None:
    output = settings.output
    if output.as_json:
        output.data(told)
        return
    output.rows(STATUS, [_counted(told)])
    if output.for_people:
        output.rows(VOLUMES, told.get("volumes") or [])
        output.rows(LINKS, told.get("links") or [])


@click.command()
@click.argument("array", shell_complete=complete_arrays)
@with_settings
@click.pass_context
def luns(context: click.Context, array: str) -> None:
    """List the LUN map of ARRAY: its volumes, and the virtual volumes that lead to other arrays (figure 3).

    \b
      arrayctl luns primary
      arrayctl luns remote | cut -f 1,3
    """
    settings = settings_of(context)
    with settings.host() as host:
        told = host.send(array, "lun-map")
    settings.output.rows(LUNS, told["luns"])


@click.command()
@click.argument("array", required=False, shell_complete=complete_arrays)
@click.option("--follow", "-f", is_flag=True, help="Go on with new events as they come, until interrupted.")
@click.option("--after", metavar="NUMBER", type=click.IntRange(0), help="Only events after this one.")
@click.option("--limit", metavar="COUNT", type=click.IntRange(1), help=f"The last so many. Default: {EVENTS_SHOWN}.")
@with_settings
@click.pass_context
def events(context: click.Context, array: str | None, follow: bool, after: int | None, limit: int | None) -> None:
    """List the event log of ARRAY, or of the array that is asked; the last are the newest.

    \b
      arrayctl events --follow
      arrayctl events remote --after 1200 --json
    """
    settings = settings_of(context)
    with settings.host() as host:
        name = array or host.here
        rows, last = _past_events(host, name, after, limit)
        if not follow:
            settings.output.rows(EVENTS, rows)
            return
        output = settings.output
        for row in rows:
            output.line(EVENTS, row)
        for row in _new_events(host, name, last):
            output.line(EVENTS, row)


def _past_events(host: Host, array: str, after: int | None, limit: int | None) -> tuple[list[dict[str, Any]], int]:
    """Events that are there, the oldest first, and the number of the last."""
    if after is None:
        last = int(host.send(array, "events", limit=1)["last"])
        after = max(0, last - (limit or EVENTS_SHOWN))
    rows: list[dict[str, Any]] = []
    while limit is None or len(rows) < limit:
        told = host.send(array, "events", after=after, limit=min(EVENTS_A_TIME, (limit or EVENTS_A_TIME) - len(rows)))
        rows += told["events"]
        if not told["events"]:
            break
        after = int(told["events"][-1]["number"])
    return rows, after


def _new_events(host: Host, array: str, last: int) -> Iterator[dict[str, Any]]:
    """Events after `last`, as they come, for ever. That an array is not to be reached is said once."""
    said = ""
    while True:
        try:
            told = host.send(array, "events", after=last, limit=EVENTS_A_TIME)
        except CommandFailed as failure:
            if failure.result not in (Result.UNREACHABLE, Result.UNDELIVERABLE, Result.EXPIRED, Result.BUSY):
                raise
            if str(failure) != said:
                said = str(failure)
                complain(said)
            pause(FOLLOW_PAUSE_S)
            continue
        said = ""
        yield from told["events"]
        if told["events"]:
            last = int(told["events"][-1]["number"])
        else:
            last = min(last, int(told["last"]))  # an array whose state was lost counts anew
            pause(FOLLOW_PAUSE_S)


@click.command()
@click.argument("array", required=False, shell_complete=complete_arrays)
@click.argument("command", required=False, shell_complete=complete_commands)
@with_settings
@click.pass_context
def commands(context: click.Context, array: str | None, command: str | None) -> None:
    """List the commands that ARRAY has, or say what one COMMAND takes.

    \b
      arrayctl commands
      arrayctl commands remote volume-create
    """
    settings = settings_of(context)
    with settings.host() as host:
        name = array or host.here
        listed = host.commands(name)
        if command is None:
            by_number = sorted(listed, key=lambda each: each["number"])
            settings.output.rows(COMMANDS, [{**each, "help": _first_line(each)} for each in by_number])
            return
        number = host.process(name, command)
    found = next((each for each in listed if each["number"] == number), None)
    if found is None:
        raise CommandFailed(Result.UNKNOWN_COMMAND, f"there is no command {command}", name)
    output = settings.output
    if output.as_json:
        output.data(found)
        return
    if output.for_people:
        click.echo(f"{found['number']} {found['name']}: {found.get('help') or ''}\n")
    output.rows(FIELDS, _fields(found.get("input")))


def _first_line(command: Mapping[str, Any]) -> str:
    return str(command.get("help") or "").partition("\n")[0]


def _fields(schema: Any) -> list[dict[str, Any]]:
    """The fields of an input parameter, by its JSON schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    needed = schema.get("required", []) if isinstance(schema, dict) else []
    return [
        {
            "key": key,
            "type": each.get("type") or " or ".join(arm.get("type", "?") for arm in each.get("anyOf", [])) or "any",
            "default": "required" if key in needed else each.get("default"),
            "help": each.get("description"),
        }
        for key, each in (properties or {}).items()
        if isinstance(each, dict)
    ]


@click.command()
@click.option("--write", is_flag=True, help="Fill in what the path table lacks, in its file.")
@with_settings
@click.pass_context
def find(context: click.Context, write: bool) -> None:
    """Ask for the LUNs that lead to command devices (figure 5, S802), to fill in the path table.

    Asks each array with a direct path for its table of command devices.

    \b
      arrayctl find               what there is, and what the path table lacks
      arrayctl find --write       the same, and fill it in
    """
    settings = settings_of(context)
    rows: list[dict[str, Any]] = []
    with settings.host() as host:
        table = host.table
        asked = [name for name, row in table.rows.items() if row.direct is not None]
        for name in [host.way.at] if host.way.at else asked:
            rows += [_found_row(table, name, array, lun) for array, lun in host.command_devices(name).items()]
    missing = {row["array"]: row["lun"] for row in rows if row["todo"] == "fill in"}
    if write and missing:
        fill_in(settings.file, missing)
        rows = [{**row, "todo": "filled in"} if row["array"] in missing else row for row in rows]
    settings.output.rows(FOUND, rows)


def _found_row(table: PathTable, asked: str, array: str, lun: int) -> dict[str, Any]:
    """One row of an array's table of command devices, beside what the path table says."""
    row = table.rows.get(array)
    known: int | None = None
    if row is None:
        todo = f"add {array}: {{through: {asked}, lun: {lun}}}"
    elif array == asked:
        known = row.direct.lun if isinstance(row.direct, IscsiAddress) else None
        todo = "" if known in (None, lun) else f"direct names LUN {known}"
    elif row.through is None or table.route(row.through).asked != asked:
        todo = ""  # the LUN in its row is another array's
    else:
        known = row.lun
        todo = "fill in" if known is None else "" if known == lun else f"the table says LUN {known}"
    return {"array": array, "asked": asked, "lun": lun, "known": known, "todo": todo or None}


ALL = (arrays, status, luns, events, commands, find)
