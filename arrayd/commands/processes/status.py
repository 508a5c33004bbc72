"""Commands that ask: what there is and how it goes."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from arrayd.commands.registry import REGISTRY, Input, Nothing, Output, Registry

if TYPE_CHECKING:
    from arrayd.commands.context import Context

EVENTS_AT_ONCE = 500
EVENTS_BYTES_MAX = 96 * 1024
"""What events may come to: those behind are for the next question."""
EVENT_BYTES = 200
"""What one takes beside its text and details."""
WAITING_AT_ONCE = 100


class CommandRow(Output):
    """A command that there is."""

    number: int
    name: str
    help: str
    changes: bool
    edited: bool = True
    input: dict[str, Any]
    output: dict[str, Any]


class Commands(Output):
    """All commands."""

    commands: list[CommandRow]


@cache
def command_rows(registry: Registry) -> list[CommandRow]:
    """All commands of a registry, which is complete: to make them takes 40 ms."""
    return [
        CommandRow(
            number=process.number,
            name=process.name,
            help=process.help,
            changes=process.changes,
            input=process.input.model_json_schema(),
            output=process.output.model_json_schema(),
        )
        for _, process in sorted(registry.by_number.items())
    ]


@REGISTRY.command(1, "commands")
async def commands(context: Context, _told: Nothing) -> Commands:
    """List the commands that this array knows, with what each takes and gives (JSON schema)."""
    return Commands(commands=command_rows(context.registry))


class Text(Input):
    """Any text."""

    text: str = ""


class Echo(Output):
    """The text, and who says it."""

    array: str
    text: str


@REGISTRY.command(2, "echo")
async def echo(context: Context, told: Text) -> Echo:
    """Answer with the array's name and the text given."""
    return Echo(array=context.name, text=told.text)


class VolumeStatus(Output):
    """A volume, as it goes."""

    name: str
    size: int
    allocated: int
    state: str


class LinkRow(Output):
    """A link, as it goes; `round_trip_us` is the last heartbeat's."""

    array: str
    serial: str
    address: str | None
    state: str
    round_trip_us: float | None
    reason: str


class DeviceStatus(Output):
    """The array, as it goes. `errors` counts the events of that severity that are remembered."""

    array: str
    serial: str
    version: str
    state: str
    uptime: float
    volumes: list[VolumeStatus]
    links: list[LinkRow]
    sessions: int
    errors: int


@REGISTRY.command(3, "device-status")
async def device_status(context: Context, _told: Nothing) -> DeviceStatus:
    """Say how the array goes: state, uptime in seconds, volumes, links with their round-trip time, errors."""
    volumes = [
        VolumeStatus(
            name=row.name,
            size=row.volume.size,
            allocated=row.volume.allocated_bytes(),
            state=row.state,
        )
        for row in context.estate.volumes.rows()
    ]
    links = link_rows(context)
    broken = any(volume.state != "normal" for volume in volumes) or any(link.state != "up" for link in links)
    return DeviceStatus(
        array=context.name,
        serial=context.serial,
        version=context.version,
        state="degraded" if broken else "normal",
        uptime=round(context.now() - context.started_at, 3),
        volumes=volumes,
        links=links,
        sessions=len(context.sessions()),
        errors=context.events.errors,
    )


def link_rows(context: Context) -> list[LinkRow]:
    """All links."""
    return [
        LinkRow(
            array=link.array,
            serial=link.serial,
            address=link.address,
            state="up" if link.connected else "down",
            round_trip_us=round(link.round_trip * 1e6, 1) if link.connected else None,
            reason="" if link.connected else link.reason,
        )
        for link in context.links()
    ]


class Session(Output):
    """An initiator that is logged in, and the LUNs that it sees."""

    initiator: str
    port: int
    luns: list[int]


class Sessions(Output):
    """Who is logged in."""

    sessions: list[Session]


@REGISTRY.command(4, "sessions")
async def sessions(context: Context, _told: Nothing) -> Sessions:
    """List the initiators that are logged in."""
    return Sessions(sessions=[Session(**each._asdict()) for each in context.sessions()])


class EventsAfter(Input):
    """The first `limit` events behind number `after`; the newest ones if `after` is not given."""

    after: int | None = Field(default=None, ge=0)
    limit: int = Field(default=100, ge=1, le=EVENTS_AT_ONCE)


class Event(Output):
    """Something that happened, at `time`, in seconds since 1970."""

    number: int
    time: float
    severity: str
    kind: str
    text: str
    details: dict[str, Any]


class EventLog(Output):
    """Events, the oldest first; `last` is the number of the newest there is."""

    events: list[Event]
    last: int


@REGISTRY.command(5, "events")
async def events(context: Context, told: EventsAfter) -> EventLog:
    """List what happened, or as much of it as one answer holds: ask again with `after` for the rest."""
    listed: list[Event] = []
    room = EVENTS_BYTES_MAX
    log, after = context.events, told.after
    for row in log.newest(told.limit) if after is None else log.after(after, told.limit):
        room -= len(row.text) + len(row.details) + EVENT_BYTES
        if room < 0 and listed:
            break
        listed.append(Event(**{**row._asdict(), "details": json.loads(row.details)}))
    return EventLog(events=listed, last=context.events.last)


class Waiting(Output):
    """A message that has not ended."""

    identification: str
    seconds_left: float
    where: str


class CommandCache(Output):
    """The command cache, and the commands at work."""

    waiting: int
    ended: int
    bytes: int
    refused: int
    executing: int
    remembered: int
    messages: list[Waiting]


@REGISTRY.command(6, "command-cache")
async def command_cache(context: Context, _told: Nothing) -> CommandCache:
    """Say what is in the command cache: messages on their way, and answers that are kept."""
    waiting, ended, size = context.transit.counts
    return CommandCache(
        waiting=waiting,
        ended=ended,
        bytes=size,
        refused=context.transit.refused,
        executing=context.executor.running,
        remembered=context.executor.remembered,
        messages=[
            Waiting(identification=str(identification), seconds_left=round(left, 3), where=where)
            for identification, left, where in context.transit.waiting()[:WAITING_AT_ONCE]
        ],
    )
