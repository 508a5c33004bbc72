"""Commands that have this array command others, once or again and again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from arrayd.commands.messages import Ended, Method
from arrayd.commands.monitors import MONITORS_MAX, Monitor, Settings
from arrayd.commands.registry import REGISTRY, CommandError, Input, Output, Save
from arrayd.commands.results import Result
from arrayd.commands.sending import Sender
from arrayd.commands.targets import Told

if TYPE_CHECKING:
    from arrayd.commands.context import Context


PROCESS_MAX = 0xFFFF
MONITORS_AT_ONCE = 16


class Answered(Output):
    """What became of it there."""

    result: int
    edited: Any = None


async def ask(sender: Sender, told: Told) -> Ended:
    """Has another array execute a command."""
    process = process_number(told.command)
    told_input = json.dumps(told.input).encode()
    if told.lun is not None:
        return await sender.send_by_lun(told.lun, process, told_input, told.timeout)
    method = Method[told.method.upper().replace("-", "_")]
    return await sender.send_addressed(tuple(told.path), process, told_input, told.timeout, method)


def process_number(command: str) -> int:
    """The process number of a command that is given by name or number. Raises CommandError."""
    if command.isdecimal() and int(command) <= PROCESS_MAX:
        return int(command)
    process = REGISTRY.by_name.get(command)
    if process is None:
        raise CommandError(Result.UNKNOWN_COMMAND, f"there is no command {command!r}")
    return process.number


@REGISTRY.command(30, "send")
async def send(context: Context, told: Told) -> Answered:
    """Have this array send a command to another one, and wait for what becomes of it."""
    ended = await ask(context.sender, told)
    return Answered(result=ended.result, edited=json.loads(ended.edited) if ended.edited else None)


class After(Input):
    """The first `limit` ones whose names come after this one."""

    after: str = ""
    limit: int = Field(default=MONITORS_AT_ONCE, ge=1, le=MONITORS_AT_ONCE)


class MonitorList(Output):
    """Monitors by name; `more`: there are others behind them."""

    monitors: list[Monitor]
    more: bool


@REGISTRY.command(31, "monitors")
async def monitors(context: Context, told: After) -> MonitorList:
    """List the commands that this array sends again and again, and how they went."""
    behind = [monitor for monitor in context.monitors.list() if monitor.name > told.after]
    return MonitorList(monitors=behind[: told.limit], more=len(behind) > told.limit)


class MonitorNamed(Input):
    """The name of a monitor."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")


class NewMonitor(MonitorNamed, Settings):
    """A monitor: its name, what to ask, whom, and how often (`every`, in seconds)."""


@REGISTRY.command(32, "monitor-add", changes=True)
async def monitor_add(context: Context, told: NewMonitor, save: Save) -> Monitor:
    """Have this array send a command again and again, and raise an event when it begins to fail."""
    process_number(told.command)
    if told.name in context.monitors:
        raise CommandError(Result.CONFLICT, f"there is a monitor {told.name!r} already")
    if len(context.monitors) >= MONITORS_MAX:
        raise CommandError(Result.CONFLICT, f"there are {MONITORS_MAX} monitors already")
    settings = Settings.model_validate(told.model_dump(exclude={"name"}))
    added = Monitor(name=told.name, settings=settings)
    await save(context.monitor_table.put(told.name, settings.model_dump_json()), added)
    context.monitors.begin(told.name, settings)
    return added


class MonitorRemoved(Output):
    """The monitor that it was about."""

    name: str


@REGISTRY.command(33, "monitor-remove", changes=True)
async def monitor_remove(context: Context, told: MonitorNamed, save: Save) -> MonitorRemoved:
    """End a monitor."""
    if told.name not in context.monitors:
        raise CommandError(Result.NOT_FOUND, f"there is no monitor {told.name!r}")
    removed = MonitorRemoved(name=told.name)
    await save(context.monitor_table.remove(told.name), removed)
    context.monitors.end(told.name)
    return removed
